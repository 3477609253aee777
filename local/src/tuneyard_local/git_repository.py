# SPDX-License-Identifier: Apache-2.0
"""A bare git repository that programs commit to: whole trees at once, without a work tree or anyone's settings."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tuneyard_local.errors import ClusterError

AUTHOR = "Tuneyard <tuneyard@localhost>"
GIT_SECONDS = 60.0


class GitRepository:
    """One bare repository on this machine; it is made when it is not there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            self._git("init", "--quiet", "--bare", "--initial-branch=main", str(folder), inside=False)

    def commit(self, files: Mapping[str, str], message: str, *, seconds: int, branch: str = "main") -> str:
        """Make `files` (path -> text) the whole content of a branch.

        Args:
            files: every file of the new commit; what is not named is gone.
            message: the commit's message.
            seconds: time of the commit since 1970; the same content and time give the same commit.
            branch: made when it is not there.

        Returns:
            the commit's hash.

        Raises:
            ClusterError: git refuses.
        """
        text = message.encode()
        parts = [
            f"commit refs/heads/{branch}\ncommitter {AUTHOR} {seconds} +0000\ndata {len(text)}\n".encode(),
            text + b"\n",
        ]
        if head := self.head(branch):
            parts.append(f"from {head}\n".encode())
        parts.append(b"deleteall\n")
        for path, content in sorted(files.items()):
            data = content.encode()
            parts.append(f"M 100644 inline {path}\ndata {len(data)}\n".encode() + data + b"\n")
        self._git("fast-import", "--quiet", "--force", data=b"".join(parts))
        return self.head(branch)

    def head(self, branch: str = "main") -> str:
        """The hash of a branch's last commit; empty when there is none."""
        return self._git("for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}")

    def _git(self, *words: str, data: bytes = b"", inside: bool = True) -> str:
        here = {"GIT_DIR": str(self.folder)} if inside else {}
        result = subprocess.run(
            ["git", *words], input=data, capture_output=True, check=False, timeout=GIT_SECONDS,
            env={"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", **here},
        )  # fmt: skip
        if result.returncode:
            raise ClusterError(f"git {words[0]}: {result.stderr.decode(errors='replace').strip()}")
        return result.stdout.decode().strip()
