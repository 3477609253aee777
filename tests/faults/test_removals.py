# SPDX-License-Identifier: Apache-2.0
"""The list of `make removals` names handling and tests that are there, and the page of faults names all those tests."""

from dataclasses import replace
from pathlib import Path

import pytest
from removals import Change, problems_of, read_removals

_REPOSITORY = Path(__file__).parents[2]
REMOVALS = read_removals()
PAGE = _REPOSITORY / "docs" / "reference" / "faults.md"


@pytest.mark.parametrize("removal", REMOVALS, ids=lambda removal: removal.name)
def test_what_is_removed_and_what_must_fail_then_is_there(removal) -> None:
    assert problems_of(removal) == []
    page = PAGE.read_text(encoding="utf-8")
    assert f"`{removal.name}`" in page
    functions = {test.partition("::")[2].partition("[")[0] for test in removal.tests}
    assert [function for function in functions if f"`{function}`" not in page] == []


def test_a_list_that_is_stale_is_seen() -> None:
    [first, *_] = REMOVALS
    gone = Change(first.changes[0].file, "is nowhere in that file", "")
    stale = replace(first, tests=("tests/faults/test_removals.py::test_no_more",), changes=(gone,))
    [source, test] = problems_of(stale)
    assert "holds 0 times" in source
    assert "there is no test" in test
    assert len({removal.name for removal in REMOVALS}) == len(REMOVALS)
