# SPDX-License-Identifier: Apache-2.0
"""Curating raw records: what is left out and why, what is held out, and when a curation is refused."""

import gzip
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from tuneyard_data import curation
from tuneyard_data.curation import CurationReport, Wishes, curate
from tuneyard_data.refused import DataRefused

Curate = Callable[..., CurationReport]
ALL_DROPPED = Wishes(max_dropped=1.0, test_share=0.0)


def record(number: int, completion: str = "") -> dict[str, str]:
    return {"prompt": f"def f{number}():", "completion": completion or f"Return the answer number {number}."}


def write(path: Path, lines: Iterable[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    content = text.encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def read(folder: Path, name: str = curation.TRAINING) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


@pytest.mark.parametrize(
    ("dirt", "reason", "place"),
    [
        (record(0), "duplicate", "raw.jsonl:4:1"),
        (
            {"prompt": "DEF f0() :", "completion": "Return  the ANSWER number 0"},
            "near duplicate",
            "raw.jsonl:4:1",
        ),
        (record(9, "x"), "too short", "raw.jsonl:4:1"),
        (record(9, "long " * 50), "too long", "raw.jsonl:4:1"),
        (record(9, "Das ist die Antwort und nicht die Frage."), "other language", "raw.jsonl:4:1"),
        (record(9, "Write to ada@example.com about the answer."), "personal data", "raw.jsonl:4:1"),
        ({"prompt": 3, "completion": "The answer is a number."}, "unusable", "raw.jsonl:4:"),
        ('{"prompt": "torn', "unreadable", "raw.jsonl:4:"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else None,
)
def test_a_record_is_left_out_for_one_reason_with_its_place(
    tmp_path: Path, dirt: Any, reason: str, place: str
) -> None:
    clean = [record(number) for number in range(3)]
    write(tmp_path / "raw.jsonl", [*clean, dirt])
    wishes = Wishes(
        min_characters=5,
        max_characters=200,
        languages=frozenset({"English"}),
        max_dropped=0.25,
        test_share=0.0,
    )
    report = curate(tmp_path / "raw.jsonl", tmp_path / "kept", wishes)
    assert read(tmp_path / "kept") == clean
    assert {name: found.records for name, found in report.dropped.items()} == {reason: 1}
    assert report.dropped[reason].first[0].startswith(place)
    assert (report.read, report.kept) == (4, 3)
    assert CurationReport.model_validate_json((tmp_path / "kept" / curation.REPORT).read_text()) == report


def test_what_is_wished_to_be_kept_is_kept_and_counted(tmp_path: Path) -> None:
    lines = [record(0), {"prompt": "DEF f0():", "completion": "return the answer number 0"}]
    lines.append(record(1, "Write to ada@example.com about the answer."))
    write(tmp_path / "raw.jsonl", lines)
    wishes = Wishes(drop_near_duplicates=False, drop_personal_data=False, test_share=0.0)
    report = curate(tmp_path / "raw.jsonl", tmp_path / "kept", wishes)
    assert read(tmp_path / "kept") == lines
    assert (report.dropped, report.personal_data_kept) == ({}, {"e-mail address": 1})


def test_a_folder_is_read_file_by_file_and_a_duplicate_is_found_across_files(tmp_path: Path) -> None:
    write(tmp_path / "raw/a/first.jsonl", [record(0)])
    write(tmp_path / "raw/b.jsonl.gz", [record(1), record(0)])
    write(tmp_path / "raw/notes.txt", ["nothing"])
    report = curate(tmp_path / "raw", tmp_path / "kept", Wishes(test_share=0.0))
    assert read(tmp_path / "kept") == [record(0), record(1)]
    assert report.dropped["duplicate"].first == ("b.jsonl.gz:2:1",)


def test_a_record_stays_on_its_side_when_the_data_grows(tmp_path: Path) -> None:
    wishes = Wishes(test_share=0.2)
    write(tmp_path / "few.jsonl", [record(number) for number in range(200)])
    write(tmp_path / "many.jsonl", [record(number) for number in reversed(range(1000))])
    for name in ("few", "many"):
        curate(tmp_path / f"{name}.jsonl", tmp_path / name, wishes)
    few, many = (
        {
            side: {each["prompt"] for each in read(tmp_path / name, side)}
            for side in (curation.TRAINING, curation.TEST)
        }
        for name in ("few", "many")
    )
    assert 20 < len(few[curation.TEST]) < 60
    assert 140 < len(many[curation.TEST]) < 260
    for side, prompts in few.items():
        assert prompts <= many[side]


def test_the_same_records_give_the_same_bytes_and_a_former_try_is_replaced(tmp_path: Path) -> None:
    write(tmp_path / "raw.jsonl", [record(number) for number in range(50)])
    first = curate(tmp_path / "raw.jsonl", tmp_path / "kept", Wishes())
    (tmp_path / "kept" / curation.TRAINING).write_text("torn")
    assert curate(tmp_path / "raw.jsonl", tmp_path / "kept", Wishes()) == first
    assert len(read(tmp_path / "kept")) == first.training


@pytest.mark.parametrize(
    ("lines", "wishes", "words"),
    [
        (
            [record(0)] * 3,
            Wishes(test_share=0),
            "67% of 3 records would be left out, and at most 50% may be: 2 duplicate",
        ),
        ([record(0, "x" * 9)], Wishes(min_characters=99), "no training record is left of 1: 1 too short"),
        (
            [record(0), record(1)],
            Wishes(test_share=0.0001),
            "no record of 2 is held out at a share of 0.0001",
        ),
        ([], ALL_DROPPED, "no training record is left of 0"),
    ],
    ids=["most are dropped", "none is left", "none is held out", "empty"],
)
def test_a_curation_that_would_help_nobody_is_refused_and_leaves_nothing(
    tmp_path: Path, lines: list[Any], wishes: Wishes, words: str
) -> None:
    write(tmp_path / "raw.jsonl", lines)
    with pytest.raises(DataRefused, match=re.escape(words)):
        curate(tmp_path / "raw.jsonl", tmp_path / "kept", wishes)
    assert [path.name for path in tmp_path.iterdir()] == ["raw.jsonl"]


def test_all_unreadable_records_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "raw.jsonl", [record(0), *["{torn"] * 30])
    report = curate(tmp_path / "raw.jsonl", tmp_path / "kept", ALL_DROPPED)
    assert report.dropped["unreadable"].records == 30
    assert len(report.dropped["unreadable"].first) == 5


def test_a_place_without_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="nowhere: no data file is there; try"):
        curate(tmp_path / "nowhere", tmp_path / "kept", Wishes())
