# SPDX-License-Identifier: Apache-2.0
"""Pages name functions and tests that exist: `module.py: function`, and `test_...`."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from support.repository import MEMBERS, REPOSITORY, modules_of

PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted((REPOSITORY / "docs").glob("*/*.md")),
]
FOLDERS = (*MEMBERS, "tests")


@cache
def names_by_module() -> dict[str, set[str]]:
    """What is defined or assigned, by the file's name."""
    found: dict[str, set[str]] = {}
    for path in (path for folder in FOLDERS for path in modules_of(f"{folder}/")):
        text = path.read_text()
        names = found.setdefault(path.name, set())
        names.update(re.findall(r"(?:def|class) (\w+)", text))
        names.update(re.findall(r"^\s*(\w+)\s*(?::[^=\n]+)?=", text, re.MULTILINE))
    return found


def missing(text: str) -> Iterator[str]:
    """The functions and tests that a text names and that are nowhere."""
    for module, names in re.findall(r"`(?:[\w/]*/)?(\w+\.py): ([\w, ]+)`", text):
        for name in re.split(r", | and ", names):
            if name not in names_by_module().get(module, ()):
                yield f"{module}: {name}"
    tests = set().union(*(names for file, names in names_by_module().items() if file.startswith("test_")))
    yield from sorted(set(re.findall(r"`(test_\w+)`", text)) - tests)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_names_exists(page: Path) -> None:
    assert list(missing(page.read_text())) == []


def test_what_does_not_exist_is_found() -> None:
    text = "`patience.py: patiently`, `patience.py: impatiently`, `gone.py: patiently`, `test_that_never_was`"
    assert list(missing(text)) == ["patience.py: impatiently", "gone.py: patiently", "test_that_never_was"]
