# SPDX-License-Identifier: Apache-2.0
"""What is signed of a tree: an in-toto statement with the SHA-256 of every file, and how a tree differs from it. Pure.

A format of others lets tools that we did not write read it: Statement v1 of the in-toto attestation framework.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tuneyard.findings import Finding, InputError

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://tuneyard.io/rendered-tree/v1"
NO_FILE = ""
"""The digest of a link, a device or what else has no content of its own."""


@dataclass(frozen=True)
class Signed:
    """What an attestation says of a tree."""

    environment: str
    folders: tuple[str, ...]
    """Folders that belong to the tree, from the repository's root: nothing else may be in them."""
    digests: Mapping[str, str]
    """Path from the root -> SHA-256 in hexadecimal."""


def build_statement(signed: Signed, version: str) -> bytes:
    """The statement as JSON; the same tree and version give the same bytes."""
    document = {
        "_type": STATEMENT,
        "subject": [
            {"name": name, "digest": {"sha256": digest}} for name, digest in sorted(signed.digests.items())
        ],
        "predicateType": PREDICATE,
        "predicate": {
            "environment": signed.environment,
            "folders": sorted(signed.folders),
            "generator": version,
        },
    }
    return json.dumps(document, indent=1).encode()


def read_statement(payload: bytes) -> Signed:
    """What such a statement says.

    Raises:
        ValueError: it is another document; the message says which part is wrong.
    """
    document = json.loads(payload)
    kind = _part(document, "_type"), _part(document, "predicateType")
    if kind != (STATEMENT, PREDICATE):
        raise ValueError(f"it states {kind[1]!r} and not {PREDICATE!r}")
    predicate = _part(document, "predicate")
    digests: dict[str, str] = {}
    for subject in _part(document, "subject"):
        name = str(_part(subject, "name"))
        if name in digests:
            raise ValueError(f"it has {shown(name)} twice")
        digests[name] = str(_part(_part(subject, "digest"), "sha256"))
    folders = tuple(str(folder) for folder in _part(predicate, "folders"))
    return Signed(str(_part(predicate, "environment")), folders, digests)


def _part(value: Any, key: str) -> Any:
    if not isinstance(value, dict) or key not in value:
        raise ValueError(f"it has no {key!r}")
    return value[key]


def differences(signed: Mapping[str, str], found: Mapping[str, str]) -> Iterator[Finding]:
    """One finding for every file that was changed, added or removed since, in the order of paths."""
    for name in sorted({*signed, *found}):
        if name not in found:
            problem, hint = "was removed since the tree was signed", "git checkout, or `tuneyard render`"
        elif found[name] == NO_FILE:
            problem, hint = "is a link or no plain file, which nobody signs", "removing it"
        elif name not in signed:
            problem, hint = "was added since the tree was signed", "removing it, or `tuneyard sign`"
        elif found[name] != signed[name]:
            problem, hint = "was changed since the tree was signed", "git checkout, or `tuneyard render`"
        else:
            continue
        yield Finding("tree-is-as-signed", problem, file=shown(name), hint=hint)


def signable(found: Mapping[str, str]) -> None:
    """Refuse a tree with links and the like.

    Raises:
        InputError: with one finding for each.
    """
    if NO_FILE in found.values():
        without = {name: digest for name, digest in found.items() if digest != NO_FILE}
        raise InputError(differences(without, found))


def not_as_rendered(paths: Iterable[str]) -> list[Finding]:
    """Findings for files that a render would change: a signature on them would vouch for what nobody described."""
    problem = "is not as the environment renders it"
    return [
        Finding("tree-is-as-rendered", problem, file=shown(path), hint="`tuneyard render` first")
        for path in sorted(paths)
    ]


def shown(name: str) -> str:
    """A path for people: characters that no terminal should get are escaped."""
    return name if name.isprintable() else ascii(name)
