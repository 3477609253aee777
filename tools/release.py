# SPDX-License-Identifier: Apache-2.0
"""Makes a release in this working tree: versions, changelog, generated files, one commit, one tag. Pushes nothing."""

import argparse
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
UNRELEASED = "## Unreleased\n"
PLACES = (
    ("*pyproject.toml", r'^version = "{}"$'),
    ("uv.lock", r'^name = "tuneyard[a-z-]*"\nversion = "{}"$'),
    ("charts/*/Chart.yaml", r"^(?:version|appVersion): {}$"),
    ("charts/*/values.yaml", r"^ +tag: {}(?:-[a-z]+)?$"),
    ("api/src/*.py", r"/(?:operator|trainer|server):{}\b"),
    ("generator/src/*.py", r"/(?:operator|trainer|server):{}\b"),
)
"""Files, as git matches them, and what of them says the version: the members, the lock, the chart, default images."""


class RefusedError(Exception):
    """Why there is no release; nothing was changed."""


def release(repository: Path, version: str, today: date) -> None:
    """Write, commit and tag.

    Raises:
        RefusedError: the version is malformed or too low, its tag exists, the working tree is dirty, or nothing is new.
    """
    now = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    _refuse(repository, version, now)
    changelog = repository / "CHANGELOG.md"
    text = changelog.read_text(encoding="utf-8")
    changelog.write_text(dated(text, version, today), encoding="utf-8")
    for path, form in _places(repository):
        text = path.read_text(encoding="utf-8")
        path.write_text(moved(text, form, now, version), encoding="utf-8")
    _run(repository, sys.executable, "tools/generated.py", "write")
    _run(repository, "git", "add", "--all")
    _run(repository, "git", "commit", "--quiet", "--message", f"Release {version}")
    _run(repository, "git", "tag", "--annotate", f"v{version}", "--message", f"Tuneyard {version}")


def dated(changelog: str, version: str, today: date) -> str:
    """The changelog with what is unreleased under the version and its date.

    Raises:
        RefusedError: there is nothing under Unreleased.
    """
    before, heading, rest = changelog.partition(UNRELEASED)
    if not heading or not rest.split("\n## ")[0].strip():
        raise RefusedError("CHANGELOG.md has nothing under Unreleased; a release needs something new")
    return f"{before}{UNRELEASED}\n## {version} - {today.isoformat()}\n{rest}"


def moved(text: str, form: str, now: str, version: str) -> str:
    """A file's text with the version in place of the one it has now, wherever the form fits."""
    pattern = re.compile(form.format(re.escape(now)), re.MULTILINE)
    return pattern.sub(lambda found: found[0].replace(now, version), text)


def _refuse(repository: Path, version: str, now: str) -> None:
    if not VERSION.fullmatch(version):
        raise RefusedError(f"VERSION must be three numbers such as 1.2.3 (got {version!r})")
    if _numbers(version) < _numbers(now):
        raise RefusedError(f"version {version} is lower than {now}, the version of this tree")
    if _run(repository, "git", "tag", "--list", f"v{version}"):
        raise RefusedError(f"tag v{version} exists; choose another version")
    if _run(repository, "git", "status", "--porcelain"):
        raise RefusedError("the working tree is dirty; commit or stash first (`git status`)")
    dated((repository / "CHANGELOG.md").read_text(encoding="utf-8"), version, date.min)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _places(repository: Path) -> Iterator[tuple[Path, str]]:
    for files, form in PLACES:
        for name in _run(repository, "git", "ls-files", files).splitlines():
            yield repository / name, form


def _run(repository: Path, *words: str) -> str:
    ran = subprocess.run(words, cwd=repository, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(f"{' '.join(words)}: {ran.stdout}{ran.stderr}")
    return ran.stdout


def main() -> int:
    """Exit code 1 when the release is refused."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version", help="three numbers, such as 1.2.3")
    options = parser.parse_args()
    if os.environ.get("CI"):
        parser.error("CI makes no release; run it on a machine and look at the commit")
    try:
        release(Path.cwd(), options.version, datetime.now(UTC).date())
    except RefusedError as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    print(f"v{options.version} is committed and tagged; look at it, then: git push --follow-tags")
    return 0


if __name__ == "__main__":
    sys.exit(main())
