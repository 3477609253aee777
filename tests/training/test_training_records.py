# SPDX-License-Identifier: Apache-2.0
"""What people are told of records that can't be used: where, what was expected, what to try."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tuneyard_data.reading import read_records
from tuneyard_data.records import Place, Problems, Record, RecordProblem
from tuneyard_data.refused import DataRefused, RecordsRefused
from tuneyard_data.templates import renderer_of

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
    "a word at the top": (
        '"a"',
        "t.json:1:1: expected an array of objects, perhaps under one of the keys",
    ),
    "a comma is missing": ('[{"a": 1}\n {"a": 2}]', "t.json:2:2: malformed JSON: expected ',' or ']'"),
    "the end is missing": ('[{"a": 1},\n', "t.json:2:1: malformed JSON: expecting value (got the end)"),
    "a second array": (
        '[{"a": 1}]\n[{"a": 2}]',
        "t.json:2:1: there is more behind the array of records; try one array, or one object per line",
    ),
    "an object that is cut": (
        '{\n"a": 1}\n{"a":\n 2',
        "t.json:4:3: malformed JSON: expecting ',' delimiter (got the end)",
    ),
}


@pytest.mark.parametrize(("content", "message"), JSON_PROBLEMS.values(), ids=JSON_PROBLEMS.keys())
def test_json_problem_names_line_and_column(tmp_path, content, message):
    (tmp_path / "t.json").write_text(content)
    problems = Problems()
    list(read_records(tmp_path / "t.json", "t.json", problems))
    assert problems.report().startswith(message)


def test_twenty_problems_are_shown_and_the_rest_is_counted():
    problems = Problems()
    for number in range(1, 36):
        problems.add(Place("t.jsonl", number), "wrong " + "x" * 200)
    assert problems.report().count("t.jsonl:") == 20
    assert problems.report().endswith("... and 15 more problems")
    with pytest.raises(RecordsRefused, match="35 problems in the data set") as caught:
        problems.raise_if_any()
    assert len(str(caught.value)) <= 1500
    assert "t.jsonl:1:1: wrong" in str(caught.value)
    assert caught.value.report == problems.report()


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
        DataRefused, match=r"columns are `Prompts`, `answer`; did you mean `prompt` by `Prompts`\?"
    ):
        renderer_of("auto", None, None, record_of('{"Prompts": "a", "answer": "b"}'))


OTHER_FORMS = {
    "one message": (
        '{"role": "user", "content": "q"}',
        "this is one message of a chat; a record has all messages",
    ),
    "a chat under another name": (
        '{"id": 1, "dialog": [{"role": "user", "content": "q"}]}',
        "the column `dialog` holds a chat; try the name `messages` for it",
    ),
    "a table of pandas": (
        '{"prompt": {"0": "a", "1": "b"}, "completion": {"0": "c", "1": "d"}}',
        "this is a table by its columns, each with the values of all records; try one object per record",
    ),
    "a table of lists": (
        '{"prompt": ["a", "b"], "completion": ["c", "d"]}',
        "this is a table by its columns",
    ),
}


@pytest.mark.parametrize(("text", "message"), OTHER_FORMS.values(), ids=OTHER_FORMS.keys())
def test_forms_that_are_no_records_are_named(text, message):
    with pytest.raises(DataRefused) as caught:
        renderer_of("auto", None, None, record_of(text))
    assert str(caught.value).startswith(f"t.jsonl:3:1: {message}")


def test_columns_that_are_null_do_not_decide_the_format():
    values = '{"text": "a", "prompt": null, "completion": null, "messages": null}'
    assert renderer_of("auto", None, None, record_of(values))(record_of(values)).text == "a"


SAID_BESIDE = {
    "a record that is not to be learned": (
        '"weight": 0',
        "`weight` is a number, 0: all records are learned alike",
    ),
    "a record that is to count less": (
        '"weight": 0.3',
        "`weight` is a number, 0.3: all records are learned alike",
    ),
    "an answer that is not wanted": (
        '"label": false',
        "`label` is a boolean, false: it says that the answer is not",
    ),
    "a picture": ('"images": ["a.png"]', '`images` is a list, ["a.png"]: models learn from text alone here'),
}


@pytest.mark.parametrize(("column", "message"), SAID_BESIDE.values(), ids=SAID_BESIDE.keys())
def test_what_columns_say_beside_the_text_is_not_passed_over(column, message):
    record = record_of(f'{{"prompt": "a", "completion": "b", {column}}}')
    with pytest.raises(RecordProblem) as caught:
        renderer_of("auto", None, None, record)(record)
    assert str(caught.value).startswith(message)
    assert str(caught.value.place) == "t.jsonl:3:36"


@pytest.mark.parametrize(
    "column", ['"weight": 1', '"weight": null', '"label": true', '"label": 0', '"images": []']
)
def test_columns_that_say_nothing_of_a_record_are_no_problem(column):
    record = record_of(f'{{"prompt": "a", "completion": "b", {column}}}')
    assert renderer_of("auto", None, None, record)(record).text == "ab"


def test_an_array_is_read_in_a_time_that_grows_with_its_records(tmp_path):
    """Places that were counted from the beginning each time took minutes for this one."""
    rows = [{"text": "a" * 300, "number": number} for number in range(40_000)]
    (tmp_path / "t.json").write_text(json.dumps(rows, indent=1))
    before = time.process_time()
    records = list(read_records(tmp_path / "t.json", "t.json", Problems()))
    assert (len(records), str(records[-1].place)) == (40_000, "t.json:159998:2")
    assert time.process_time() - before < 20


def test_row_of_a_parquet_file_is_named_by_its_number(tmp_path):
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": None}]
    records, problems = written_and_read(tmp_path, "parquet", rows)
    assert [record.values for record in records] == rows
    render = renderer_of("auto", None, None, records[0])
    with pytest.raises(RecordProblem, match=r"`completion` must be a string \(got null\)") as caught:
        render(records[1])
    assert str(caught.value.place) == "t.parquet:row 2"
    assert not problems.count


def test_chats_in_a_parquet_file_are_read_with_their_messages(tmp_path):
    chat = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    records, _ = written_and_read(tmp_path, "parquet", [chat])
    assert records[0].values == chat


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all" * 10])
def test_broken_parquet_file_is_one_problem(tmp_path, content):
    pytest.importorskip("pyarrow")
    (tmp_path / "t.parquet").write_bytes(content)
    problems = Problems()
    assert list(read_records(tmp_path / "t.parquet", "t.parquet", problems)) == []
    assert problems.report().startswith("t.parquet: this is no readable parquet file")


LIMITS = {
    "half of a surrogate pair": (
        r'{"text": "\uD83D"}',
        "half of a surrogate pair, which is no text; try the whole character, or U+FFFD",
    ),
    "a number of 5000 digits": (
        '{"text": ' + "1" * 5000 + "}",
        "malformed JSON: a number of more than 4300 digits",
    ),
    "a list in a list in a list": ("[" * 100_000, "malformed JSON: nested too deeply"),
}


@pytest.mark.parametrize("name", ["t.jsonl", "t.json"])
@pytest.mark.parametrize(("text", "message"), LIMITS.values(), ids=LIMITS.keys())
def test_json_that_can_be_written_but_not_used_is_a_problem(tmp_path, name, text, message):
    is_array = name == "t.json"
    (tmp_path / name).write_text(f"[{text}]" if is_array else text)
    problems = Problems()
    assert list(read_records(tmp_path / name, name, problems)) == []
    assert problems.report() == f"{name}:1:{2 if is_array else 1}: {message}"


def test_whole_surrogate_pair_is_the_character_that_it_means(tmp_path):
    (tmp_path / "t.jsonl").write_text(r'{"text": "\uD83D\uDE00"}')
    assert [r.values for r in read_records(tmp_path / "t.jsonl", "t.jsonl", Problems())] == [{"text": "😀"}]


def written_and_read(folder, kind, rows):
    """Records and problems of a file `t.<kind>` that holds `rows`."""
    path = folder / f"t.{kind}"
    if kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=2)
    else:
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        path.write_text(
            "[" + ",\n ".join(lines) + "]" if kind == "json" else "".join(f"{x}\n" for x in lines)
        )
    problems = Problems()
    return list(read_records(path, path.name, problems)), problems


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
ROWS = st.lists(st.dictionaries(TEXTS, VALUES, max_size=4), max_size=5)


@settings(deadline=None, max_examples=60)
@given(rows=ROWS, kind=st.sampled_from(["json", "jsonl"]))
def test_what_is_written_is_read_record_by_record_and_key_by_key(tmp_path_factory, rows, kind):
    folder = tmp_path_factory.mktemp("rows")
    records, problems = written_and_read(folder, kind, rows)
    assert not problems.count
    assert [record.values for record in records] == rows
    lines = (folder / f"t.{kind}").read_bytes().decode().split("\n")
    for record in records:
        for key in record.values:
            place = record.place_of(key)
            assert lines[place.line - 1][place.column - 1 :].startswith(json.dumps(key, ensure_ascii=False))


@settings(deadline=None, max_examples=30)
@given(rows=st.lists(st.fixed_dictionaries({"a": TEXTS | st.none(), "b": st.integers(-(2**62), 2**62)})))
def test_rows_of_parquet_are_read_back_in_order(tmp_path_factory, rows):
    records, problems = written_and_read(tmp_path_factory.mktemp("rows"), "parquet", rows)
    assert [record.values for record in records] == rows
    assert [record.place.line for record in records] == list(range(1, len(rows) + 1))
    assert not problems.count


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(st.dictionaries(TEXTS, VALUES, max_size=3), min_size=1, max_size=5), data=st.data())
def test_line_that_is_cut_is_the_line_that_is_named(tmp_path_factory, rows, data):
    lines = [json.dumps(row) for row in rows]
    at = data.draw(st.integers(0, len(lines) - 1))
    lines[at] = lines[at][: data.draw(st.integers(1, len(lines[at]) - 1))]
    path = tmp_path_factory.mktemp("cut") / "t.jsonl"
    path.write_text("\n".join(lines))
    problems = Problems()
    records = list(read_records(path, "t.jsonl", problems))
    assert [record.values for record in records] == rows[:at] + rows[at + 1 :]
    assert problems.count == 1
    file, line, column, _ = problems.report().split(":", 3)
    assert (file, int(line)) == ("t.jsonl", at + 1)
    assert 1 <= int(column) <= len(lines[at]) + 1


def test_key_inside_a_value_is_not_mistaken_for_a_column():
    record = record_of('{"meta": {"prompt": 1}, "text": "\\"prompt\\": ", "prompt" : 2}')
    assert str(record.place_of("prompt")) == "t.jsonl:3:49"
