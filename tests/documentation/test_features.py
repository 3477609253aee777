# SPDX-License-Identifier: Apache-2.0
"""The page of features names for each of 25 musts tests that exist and a page, and says why something is left out."""

import re
from pathlib import Path

import pytest
from support.pages import named_tests, names_of_tests

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs/reference/features.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.read_text().splitlines()
    if re.match(r"\| \d", line)
]


def test_there_are_25_in_order() -> None:
    assert [row[0].split(".")[0] for row in ROWS] == [str(number) for number in range(1, 26)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:60])
def test_a_must_has_tests_a_page_and_a_reason_for_what_is_left_out(row: list[str]) -> None:
    _, shown, explained, left_out = row
    named = named_tests(shown)
    assert named
    for path, name in named:
        assert name in names_of_tests(REPOSITORY / path), f"{path} has no {name}"
    pages = re.findall(r"\]\(([^)#]+)", explained)
    assert pages
    assert all((PAGE.parent / page).is_file() for page in pages)
    assert left_out == "-" or ": " in left_out, "what is left out is followed by the reason"
