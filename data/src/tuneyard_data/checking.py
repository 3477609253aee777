# SPDX-License-Identifier: Apache-2.0
"""Checks data files without a job, by what the stage `prepare` does with them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tuneyard_data.loaded import Loaded
from tuneyard_data.loading import Reading, load_splits, notes_of
from tuneyard_data.page import html_of
from tuneyard_data.records import DataFile, suffix_of, wrong_suffix
from tuneyard_data.refused import DataRefused, RecordsRefused
from tuneyard_data.report import DataReport, build_report, warnings_of
from tuneyard_data.tokenization import TextTokenizer


@dataclass(frozen=True)
class Checked:
    """What was found."""

    problems: tuple[str, ...]
    """Why a job would be refused; one line each."""
    warnings: tuple[str, ...] = ()
    report: DataReport | None = None
    """None if the records can't be read."""
    page: bytes | None = None
    """The report in HTML, if it was asked for."""


def check_files(
    files: dict[str, list[Path]], model: Path | None, reading: Reading, *, has_page: bool
) -> Checked:
    """Looks at the files of each split; `model` is a folder with the files of a tokenizer.

    Raises nothing for what is wrong with data or model.
    """
    named = [DataFile(split, path, str(path)) for split, paths in files.items() for path in paths]
    wrong = [f"{file.name}: this is a folder; try a file in it" for file in named if file.path.is_dir()]
    wrong = wrong or [wrong_suffix(file.name) for file in named if suffix_of(file.name) is None]
    if wrong:
        return Checked(tuple(wrong))
    try:
        tokenizer = None if model is None else TextTokenizer(model)
        splits = load_splits(reading, named, tokenizer, lambda _: None)
    except RecordsRefused as refused:
        return Checked(tuple(refused.report.splitlines()))
    except DataRefused as refused:
        return Checked(tuple(str(refused).splitlines()))
    return _judged(splits, tokenizer, reading, has_page=has_page)


def _judged(
    splits: dict[str, Loaded], tokenizer: TextTokenizer | None, reading: Reading, *, has_page: bool
) -> Checked:
    report = build_report(splits, tokenizer, reading.limit, "")
    warnings = warnings_of(report) + notes_of(splits)
    page = html_of(report, warnings, splits, tokenizer) if has_page else None
    return Checked(_refusal_of(report.refuse_if_leaked), tuple(warnings), report, page)


def _refusal_of(check: Callable[[], None]) -> tuple[str, ...]:
    try:
        check()
    except DataRefused as refused:
        return tuple(str(refused).splitlines())
    return ()
