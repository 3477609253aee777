# SPDX-License-Identifier: Apache-2.0
"""What people are told of records that can't be used: where, what was expected, what to try."""

import json

import pytest
from tuneyard_trainer.failures import StageFailure
from tuneyard_trainer.records import Place, Problems, Record, read_records
from tuneyard_trainer.templates import RecordProblem, renderer_of

JSONL_PROBLEMS = {
    "a quote is missing": (
        '{"prompt": "a", "completion": b"}\n',
        "t.jsonl:1:31: malformed JSON: expecting value",
    ),
    "a line is cut": ('{"text": "a"}\n{"text": "b\n', "t.jsonl:2:10: malformed JSON: "),
    "a list instead of an object": (
        '["a", "b"]\n',
        "t.jsonl:1:1: expected an object with named columns (got a list)",
    ),
    "a bare number": ("7\n", "t.jsonl:1:1: expected an object with named columns (got a number)"),
    "a null": ("null\n", "t.jsonl:1:1: expected an object with named columns (got null)"),
}


@pytest.mark.parametrize(("content", "message"), JSONL_PROBLEMS.values(), ids=JSONL_PROBLEMS.keys())
def test_jsonl_problem_names_line_and_column(tmp_path, content, message):
    (tmp_path / "t.jsonl").write_text(content)
    problems = Problems()
    list(read_records(tmp_path / "t.jsonl", "t.jsonl", problems))
    assert problems.count == 1
    assert problems.report().startswith(message)


def test_bytes_that_are_not_utf8_are_found_by_line_and_character(tmp_path):
    (tmp_path / "t.jsonl").write_bytes(b'{"text": "a"}\n{"text": "\xc3\xa4\xff"}\n')
    problems = Problems()
    assert len(list(read_records(tmp_path / "t.jsonl", "t.jsonl", problems))) == 1
    assert problems.report().startswith("t.jsonl:2:12: this is not UTF-8 (got byte 0xff)")


def test_byte_order_mark_and_blank_lines_are_no_problem(tmp_path):
    (tmp_path / "t.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a"}\n\n  \n{"text": "b"}\n')
    problems = Problems()
    places = [str(record.place) for record in read_records(tmp_path / "t.jsonl", "t.jsonl", problems)]
    assert places == ["t.jsonl:1:1", "t.jsonl:4:1"]
    assert not problems.count


def test_json_array_gives_each_record_its_place(tmp_path):
    (tmp_path / "t.json").write_text('[{"text": "a"},\n  {"text": "b"}\n]')
    problems = Problems()
    records = list(read_records(tmp_path / "t.json", "t.json", problems))
    assert [str(record.place) for record in records] == ["t.json:1:2", "t.json:2:3"]
    assert not problems.count


JSON_PROBLEMS = {
    "an object at the top": ('{"a": 1}', "t.json:1:1: expected an array of objects; try .jsonl"),
    "a comma is missing": ('[{"a": 1}\n {"a": 2}]', "t.json:2:2: malformed JSON: expected ',' or ']'"),
    "the end is missing": ('[{"a": 1},\n', "t.json:2:1: malformed JSON: expecting value (got the end)"),
    "nothing at all": ("", "t.json:1:1: expected an array of objects"),
}


@pytest.mark.parametrize(("content", "message"), JSON_PROBLEMS.values(), ids=JSON_PROBLEMS.keys())
def test_json_problem_names_line_and_column(tmp_path, content, message):
    (tmp_path / "t.json").write_text(content)
    problems = Problems()
    list(read_records(tmp_path / "t.json", "t.json", problems))
    assert problems.report().startswith(message)


def test_twenty_problems_are_shown_and_the_rest_is_counted(capsys):
    problems = Problems()
    for number in range(1, 36):
        problems.add(Place("t.jsonl", number), "wrong " + "x" * 200)
    assert problems.report().count("t.jsonl:") == 20
    assert problems.report().endswith("... and 15 more problems")
    with pytest.raises(StageFailure, match="35 problems in the data set") as caught:
        problems.raise_if_any()
    assert len(str(caught.value)) <= 1500
    assert "t.jsonl:1:1: wrong" in str(caught.value)
    assert "t.jsonl:20:1: wrong" in capsys.readouterr().out


def record_of(text):
    return Record(Place("t.jsonl", 3), json.loads(text), text)


RECORD_PROBLEMS = {
    "completion is missing": (
        '{"prompt": "a", "completoin": "b"}',
        "t.jsonl:3:1",
        "column `completion` is missing; the columns are `prompt`, `completoin`; did you mean `completoin`?",
    ),
    "prompt is empty": ('{"prompt": " ", "completion": "b"}', "t.jsonl:3:2", "`prompt` is empty"),
    "completion is a number": (
        '{"prompt": "a", "completion": 3}',
        "t.jsonl:3:17",
        "`completion` must be a string (got a number, 3)",
    ),
    "completion is null": (
        '{"prompt": "a", "completion": null}',
        "t.jsonl:3:17",
        "`completion` must be a string (got null)",
    ),
}


@pytest.mark.parametrize(("text", "place", "message"), RECORD_PROBLEMS.values(), ids=RECORD_PROBLEMS.keys())
def test_record_problem_names_place_columns_and_close_names(text, place, message):
    good = record_of('{"prompt": "a", "completion": "b"}')
    render = renderer_of("auto", None, None, good)
    render(good)
    with pytest.raises(RecordProblem) as caught:
        render(record_of(text))
    assert str(caught.value.place) == place
    assert str(caught.value).startswith(message)


def test_unknown_columns_name_what_would_be_understood():
    with pytest.raises(
        StageFailure, match=r"columns are `Prompts`, `answer`; did you mean `prompt` by `Prompts`\?"
    ):
        renderer_of("auto", None, None, record_of('{"Prompts": "a", "answer": "b"}'))
