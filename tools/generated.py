# SPDX-License-Identifier: Apache-2.0
"""Runs every generator of committed files: `write` rewrites them, `check` fails when one is stale.

A generator is a command that writes, and with `--check` only compares; add yours to the list. Order matters: the
rendered trees carry digests of the CRDs and the chart.
"""

import os
import subprocess
import sys

GENERATORS = (
    ("-m", "tuneyard_api.generate"),
    ("tools/observability_files.py",),
    ("-m", "tuneyard", "docs"),
    ("-m", "tuneyard", "render"),
    ("tools/terminal_picture.py",),
    ("tools/families_page.py",),
    ("tools/methods_page.py",),
    ("tools/krew.py",),
    ("tools/forecast_page.py",),
)


def main() -> int:
    """Exit code 1 when a check failed, 2 on a wrong call or when CI tries to write."""
    mode = sys.argv[1] if len(sys.argv) > 1 else ""
    if mode not in {"write", "check"}:
        print("usage: generated.py write|check", file=sys.stderr)
        return 2
    if mode == "write" and os.environ.get("CI"):
        print(
            "generated.py: CI never writes generated files; run `make generate` and commit", file=sys.stderr
        )
        return 2
    check = ["--check"] if mode == "check" else []
    failed = [
        " ".join(words).removeprefix("-m ")
        for words in GENERATORS
        if subprocess.run([sys.executable, *words, *check], check=False).returncode
    ]
    for name in failed:
        print(f"{name}: failed; `make generate` rewrites its files", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
