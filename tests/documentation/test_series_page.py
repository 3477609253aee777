# SPDX-License-Identifier: Apache-2.0
"""The table of series on the page about watching is what the operator tells Prometheus."""

from pathlib import Path

from tuneyard_api.series import SERIES, Series

PAGE = Path(__file__).parents[2] / "docs/how-to/watch.md"


def row_of(series: Series) -> str:
    name = f"{series.name}_total" if series.kind == "counter" else series.name
    labels = ", ".join(f"`{label}`" for label in series.labels)
    return f"| `{name}` | {series.kind} | {labels} | {series.sentence} |"


def test_each_series_has_its_row_and_no_other_has_one() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `tuneyard_")]
    assert rows == [row_of(series) for series in SERIES]


def test_only_what_the_page_says_has_the_name_of_a_namespace_and_none_that_of_a_job() -> None:
    assert [series.name for series in SERIES if "namespace" in series.labels] == ["tuneyard_held_gpu_seconds"]
    assert not any({"job", "name", "finetunejob"} & set(series.labels) for series in SERIES)
