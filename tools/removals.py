# SPDX-License-Identifier: Apache-2.0
"""Removes the handling of one fault after the other and sees the tests fail that are there for it.

A test that stays green when what it tests is gone is no test. The removals are listed in tests/faults/removals.yaml;
each is made in a copy of the repository, so that nothing here is ever left without its handling.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
LIST = REPOSITORY / "tests" / "faults" / "removals.yaml"
MEMBERS = ("api", "operator", "data", "trainer", "workflows", "generator", "server", "sync", "local")
TESTS_FAILED = 1
"""pytest's exit code when tests ran and some failed."""


@dataclass(frozen=True)
class Change:
    """A piece of source that is replaced."""

    file: str
    text: str
    instead: str


@dataclass(frozen=True)
class Removal:
    """Handling that is taken away, in all layers that hold by themselves, and the tests that must fail then."""

    name: str
    tests: tuple[str, ...]
    """Node ids of pytest."""
    changes: tuple[Change, ...]


def read_removals(path: Path = LIST) -> list[Removal]:
    """All removals, in the order of the list."""
    return [_removal(each) for each in yaml.safe_load(path.read_text(encoding="utf-8"))]


def _removal(entry: dict[str, Any]) -> Removal:
    changes = tuple(Change(**change) for change in entry["remove"])
    return Removal(entry["name"], tuple(entry["tests"]), changes)


def problems_of(removal: Removal, repository: Path = REPOSITORY) -> list[str]:
    """What of a removal is not there any more."""
    found = []
    for change in removal.changes:
        count = (repository / change.file).read_text(encoding="utf-8").count(change.text)
        if count != 1:
            found.append(f"{removal.name}: {change.file} holds {count} times, not once: {change.text!r}")
    for test in removal.tests:
        file, _, function = test.partition("::")
        if f"def {function.partition('[')[0]}(" not in (repository / file).read_text(encoding="utf-8"):
            found.append(f"{removal.name}: there is no test {test}")
    return found


@contextmanager
def _without_handling(removal: Removal) -> Iterator[Path]:
    """A copy of the repository in which it is gone."""
    words = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    listing = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    with tempfile.TemporaryDirectory(prefix="without-") as folder:
        Path(folder).chmod(0o755)  # pods of a local cluster mount parts of it under a user of their own
        copy = Path(folder) / "tuneyard"
        for name in filter(None, listing.split("\0")):
            if (REPOSITORY / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPOSITORY / name, copy / name)
        for change in removal.changes:
            path = copy / change.file
            path.write_text(path.read_text(encoding="utf-8").replace(change.text, change.instead))
        yield copy


def failed_without(removal: Removal) -> tuple[bool, str]:
    """Whether all its tests fail without the handling, by an assertion of theirs and not by an error around them."""
    with _without_handling(removal) as copy:
        path = os.pathsep.join(str(copy / member / "src") for member in MEMBERS)
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *removal.tests]
        ran = subprocess.run(
            words,
            cwd=copy,
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
    failed = [test for test in removal.tests if f"FAILED {test}" in ran.stdout]
    is_broken = any(line.startswith("ERROR ") for line in ran.stdout.splitlines())
    is_seen = ran.returncode == TESTS_FAILED and len(failed) == len(removal.tests) and not is_broken
    return is_seen, ran.stdout + ran.stderr


def main() -> int:
    """Exit code 1 when a test stayed green, or could not run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="which removals; all when none is named")
    parser.add_argument("--keep", type=Path, help="folder for what pytest said of each")
    options = parser.parse_args()
    removals = read_removals()
    if unknown := set(options.names) - {each.name for each in removals}:
        parser.error(
            f"no removal {', '.join(sorted(unknown))}; try one of {', '.join(e.name for e in removals)}"
        )
    stale = [problem for each in removals for problem in problems_of(each)]
    if stale:
        print("\n".join(stale), file=sys.stderr)
        return 1
    green = 0
    for removal in removals:
        if options.names and removal.name not in options.names:
            continue
        began = time.monotonic()
        is_seen, said = failed_without(removal)
        green += not is_seen
        verdict = "fails, as it must" if is_seen else "DOES NOT FAIL"
        print(f"{removal.name}: {verdict} ({time.monotonic() - began:.0f} s)", flush=True)
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            (options.keep / f"{removal.name}.log").write_text(said)
    return 1 if green else 0


if __name__ == "__main__":
    sys.exit(main())
