# SPDX-License-Identifier: Apache-2.0
"""`tuneyard verify`: whether the tree is as it was signed."""

from pathlib import Path

import click

from tuneyard.commands.reporting import (
    EXIT_INPUT,
    chosen,
    environments_argument,
    format_option,
    one,
    report,
    root_option,
)
from tuneyard.commands.sign import attestation_of, key_option
from tuneyard.findings import Finding, InputError
from tuneyard.signing.envelope import open_sealed, public_key, refused
from tuneyard.signing.folders import digests
from tuneyard.signing.statement import Signed, differences, read_statement


@click.command()
@environments_argument
@root_option
@format_option
@key_option("Public Ed25519 key in PEM; not from the repository that is verified.")
def command(environments: tuple[str, ...], root: Path, style: str, key: Path) -> None:
    """Compare the tree of ENVIRONMENTS (names or files; all if none is named) with attestations/<env>.json.

    Every file that was changed, added or removed since it was signed is reported, and the exit code is 1 then. Nothing
    is rendered, and nothing is asked of the network.

    \b
    Examples:
      tuneyard verify lab --key signing.pub
      tuneyard verify --key /etc/tuneyard/signing.pub --format sarif > findings.sarif
    """
    trusted = one(lambda: public_key(key.read_bytes(), str(key)))
    findings: list[Finding] = []
    good: list[str] = []
    for path in chosen(environments, root):
        name = path.stem
        file = attestation_of(root, name)
        try:
            signed = _signed(name, file, open_sealed(_read(file), trusted, str(file)))
            found = list(differences(signed.digests, digests(root, signed.folders)))
        except InputError as error:
            found = list(error.findings)
        else:
            good += [] if found else [f"{name}: {len(signed.digests)} files are as they were signed"]
        findings += found
    for line in good:
        click.echo(line, err=style != "text")
    if findings or style != "text":
        report(findings, style)
    if findings:
        raise SystemExit(EXIT_INPUT)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise refused(f"can't be read: {error.strerror}", str(file), "`tuneyard sign`") from error


def _signed(name: str, file: Path, payload: bytes) -> Signed:
    """What the payload says, if it speaks of this environment: an attestation of another one proves nothing here."""
    try:
        signed = read_statement(payload)
    except (ValueError, TypeError, RecursionError) as error:
        raise refused(f"is no attestation of a tree: {error}", str(file), "`tuneyard sign`") from error
    own = {f"argocd-apps/{name}", f"manifests/{name}"}
    if signed.environment != name or not own <= set(signed.folders):
        raise refused(f"is the attestation of {signed.environment!r}", str(file), f"`tuneyard sign {name}`")
    return signed
