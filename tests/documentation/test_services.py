# SPDX-License-Identifier: Apache-2.0
"""The page of services says what is in the tests: the clients' versions, and what the double assumes."""

from importlib.metadata import version
from pathlib import Path

import pytest
from support.nemo.assumed import ASSUMED

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/services.md").read_text(encoding="utf-8")


def test_the_page_lists_what_the_double_assumes() -> None:
    listed = [line for line in PAGE.splitlines() if line.startswith("- ")]
    assert listed == [f"- {service}: {sentence}." for service, found in ASSUMED.items() for sentence in found]


@pytest.mark.parametrize(
    ("client", "package"),
    [("nemo-microservices", "nemo-microservices"), ("huggingface_hub", "huggingface-hub")],
)
def test_the_page_names_the_versions_that_are_tested_with(client: str, package: str) -> None:
    rows = [
        line.split(" | ") for line in PAGE.splitlines() if line.startswith("| ") and f"`{client}`" in line
    ]
    assert rows
    assert {row[5] for row in rows} == {version(package)}


def test_the_page_names_tests_that_exist() -> None:
    for line in PAGE.splitlines():
        cells = line.strip("| ").split(" | ")
        folder = "tests/services"
        for name in cells[-1].replace("`", "").split(", ") if line.startswith("| ") and ".py" in line else ():
            assert (ROOT / (name if "/" in name else f"{folder}/{name}")).is_file(), name
