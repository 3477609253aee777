# SPDX-License-Identifier: Apache-2.0
"""`tuneyard sign`: an attestation of the rendered tree, with a key of the user's."""

import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import click

from tuneyard.commands.reporting import chosen, environments_argument, one, root_option
from tuneyard.disk.write import compare
from tuneyard.findings import InputError, Severity
from tuneyard.pipeline import Built, build
from tuneyard.render.tree import local_paths
from tuneyard.signing.envelope import private_key, seal
from tuneyard.signing.folders import digests
from tuneyard.signing.statement import Signed, build_statement, not_as_rendered, shown, signable

Function = TypeVar("Function", bound=Callable[..., Any])
ENV_PASSWORD = "TUNEYARD_KEY_PASSWORD"  # noqa: S105  the name of a variable


def key_option(what: str) -> Callable[[Function], Function]:
    """The option that names the file of a key."""
    file = click.Path(path_type=Path, exists=True, dir_okay=False)
    return click.option("--key", type=file, required=True, help=what)


@click.command()
@environments_argument
@root_option
@key_option("Private Ed25519 key in PEM.")
def command(environments: tuple[str, ...], root: Path, key: Path) -> None:
    """Sign the tree of ENVIRONMENTS (names or files; all if none is named), into attestations/<env>.json.

    The attestation has the digest of every file in argocd-apps/<env>/, manifests/<env>/ and the charts and folders of
    the repository that the environment deploys. A tree that is not as its environment renders it is not signed. The
    password of an encrypted key is read from TUNEYARD_KEY_PASSWORD.

    \b
    Examples:
      openssl genpkey -algorithm ed25519 -aes256 -out signing.pem
      tuneyard sign lab --key signing.pem
    """
    password = os.environ.get(ENV_PASSWORD)
    loaded = one(lambda: private_key(key.read_bytes(), password.encode() if password else None, str(key)))
    trees = one(lambda: [_tree(path, root) for path in chosen(environments, root)])
    for signed, foreign in trees:
        target = attestation_of(root, signed.environment)
        text = seal(build_statement(signed, version("tuneyard")), loaded)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        click.echo(f"{target.relative_to(root)}: {len(signed.digests)} files are signed")
        if foreign:
            names = ", ".join(map(shown, foreign))
            click.echo(f"warning: among them are files that the generator did not write: {names}", err=True)


def attestation_of(root: Path, environment: str) -> Path:
    """The file with the attestation of an environment: outside of the folders that it speaks of."""
    return root / "attestations" / f"{environment}.json"


def _tree(path: Path, root: Path) -> tuple[Signed, list[str]]:
    """What is to be signed, and the paths in the generator's folders that it did not write.

    Raises:
        InputError: the environment has errors, or the tree differs from what it renders.
    """
    built: Built = build(path, root)
    errors = [finding for finding in built.findings if finding.severity is Severity.ERROR]
    if errors:
        raise InputError(errors)
    changes = compare(built.files, built.name, root)
    if changes:
        raise InputError(not_as_rendered((*changes.added, *changes.changed, *changes.removed)))
    own = (f"argocd-apps/{built.name}", f"manifests/{built.name}")
    folders = (*own, *local_paths(built.stack))
    found = digests(root, folders)
    signable(found)
    written = {file.path for file in built.files}
    foreign = [
        name for name in sorted(found) if name.startswith(tuple(f"{f}/" for f in own)) and name not in written
    ]
    return Signed(built.name, folders, found), foreign
