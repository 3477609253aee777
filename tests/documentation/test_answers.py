# SPDX-License-Identifier: Apache-2.0
"""The page of findings and answers names tests that exist, and says of everything else that it is open."""

import re
from pathlib import Path

import pytest
from support.pages import named_tests, names_of_tests

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs/reference/answers.md").read_text().partition("\n## NIM: ")[0]
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith(("| finding", "| ---"))
]


def test_there_are_rows() -> None:
    assert len(ROWS) > 20
    assert all(len(row) == 3 for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:60])
def test_an_answer_names_tests_that_exist_or_is_open(row: list[str]) -> None:
    _, today, shown = row
    assert today.startswith("open:") is (shown == "open")
    if shown == "open":
        return
    for path, name in named_tests(shown):
        assert name in names_of_tests(REPOSITORY / path), path


def test_the_how_to_on_images_has_the_names_that_the_script_pushes() -> None:
    page = (REPOSITORY / "docs/how-to/images.md").read_text()
    script = (REPOSITORY / "images/build.sh").read_text()
    pushed = set(re.findall(r'"(\w+):\$tag', script))
    assert pushed == set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
