# SPDX-License-Identifier: Apache-2.0
"""Digests of the repository's folders that components deploy, so that a change there changes an Application's spec."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from tuneyard.findings import Finding, InputError


def content_digests(root: Path, paths: Iterable[str]) -> dict[str, str]:
    """SHA-256 over names and contents of every file below each path.

    Raises:
        InputError: a path that a component deploys is not there.
    """
    digests, problems = {}, []
    for path in paths:
        digest = hashlib.sha256()
        files = sorted(p for p in (root / path).rglob("*") if p.is_file())
        if not files:
            problems.append(
                Finding(
                    "path-is-there",
                    "is deployed by a component, but not in the repository",
                    file=path,
                    hint="running in the repository's root, or --root",
                )
            )
        for file in files:
            content = file.read_bytes()
            digest.update(f"{file.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
        digests[path] = digest.hexdigest()
    if problems:
        raise InputError(problems)
    return digests
