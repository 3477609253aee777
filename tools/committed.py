# SPDX-License-Identifier: Apache-2.0
"""Keeps generated files that are committed: each tool that makes some ends with `keep`."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def keep(files: Mapping[Path, str], parser: argparse.ArgumentParser | None = None) -> int:
    """Writes texts by the path of their file; with `--check` on the command line it only compares.

    `parser` has options besides. Returns the exit code: 1 when `--check` finds a file that is stale.
    """
    parser = parser or argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is stale")
    is_check = parser.parse_args().check
    stale = [
        path for path, text in files.items() if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    for path in stale:
        if is_check:
            print(f"{path.relative_to(REPOSITORY)} is stale", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path], encoding="utf-8")
    return int(is_check and bool(stale))
