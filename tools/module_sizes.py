# SPDX-License-Identifier: Apache-2.0
"""Fails when a hand-written module has over 400 lines: split along the design, not by packing lines."""

import subprocess
import sys
from pathlib import Path

LIMIT = 400


def main() -> int:
    """Exit code 1 and one line for each module that is too long."""
    listing = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.py"], capture_output=True, text=True, check=True
    )
    too_long = [
        (lines, path)
        for path in map(Path, listing.stdout.split())
        if path.exists()
        and "golden" not in path.parts
        and (lines := len(path.read_text(encoding="utf-8").splitlines())) > LIMIT
    ]
    for lines, path in sorted(too_long, reverse=True):
        print(f"{path}: {lines} lines (limit {LIMIT}); split it along the design", file=sys.stderr)
    return 1 if too_long else 0


if __name__ == "__main__":
    sys.exit(main())
