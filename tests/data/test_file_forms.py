# SPDX-License-Identifier: Apache-2.0
"""Files in the forms that tools write them in: what a file holds decides, not its name."""

import gzip
import json

import pytest
from tuneyard_data.reading import read_records
from tuneyard_data.records import Problems

ROWS = [{"text": "a"}, {"text": "ä€"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
ARRAY = json.dumps(ROWS, indent=1, ensure_ascii=False)
FORMS = {
    "lines": ("t.jsonl", LINES.encode()),
    "no last line break": ("t.jsonl", LINES.rstrip().encode()),
    "lines of Windows": ("t.jsonl", LINES.replace("\n", "\r\n").encode()),
    "lines in .json": ("t.json", LINES.encode()),
    "an array": ("t.json", ARRAY.encode()),
    "an array in .jsonl": ("t.jsonl", ARRAY.encode()),
    "an array under data": ("t.json", json.dumps({"version": 1, "data": ROWS}).encode()),
    "an array under instances": ("t.json", json.dumps({"type": "text_only", "instances": ROWS}).encode()),
    "an object around an array in .jsonl": ("t.jsonl", json.dumps({"version": 1, "data": ROWS}).encode()),
    "the same in several lines": ("t.jsonl", json.dumps({"data": ROWS}, indent=1).encode()),
    "objects of several lines": (
        "t.json",
        "\n".join(json.dumps(row, indent=1, ensure_ascii=False) for row in ROWS).encode(),
    ),
    "objects of several lines in .jsonl": (
        "t.jsonl",
        "\n".join(json.dumps(row, indent=1, ensure_ascii=False) for row in ROWS).encode(),
    ),
    "objects on one line": ("t.jsonl", LINES.replace("\n", "").encode()),
    "lines that end in CR alone": ("t.jsonl", LINES.replace("\n", "\r").encode()),
    "an array with a comma behind its last element": ("t.json", ARRAY.rstrip("]\n").encode() + b",\n]"),
    "two marks": ("t.jsonl", b"\xef\xbb\xbf" * 2 + LINES.encode()),
    "two marks before an array": ("t.json", b"\xef\xbb\xbf" * 2 + ARRAY.encode()),
    "lines named .parquet": ("t.parquet", LINES.encode()),
    "gzip named .parquet": ("t.parquet", gzip.compress(ARRAY.encode())),
    "marks where files were joined": ("t.jsonl", LINES.replace('{"text": "ä', '\ufeff{"text": "ä').encode()),
    "gzip in gzip": ("t.jsonl.gz", gzip.compress(gzip.compress(LINES.encode()))),
    "UTF-16, little end first": ("t.jsonl", b"\xff\xfe" + LINES.encode("utf-16-le")),
    "UTF-16, big end first": ("t.json", b"\xfe\xff" + ARRAY.encode("utf-16-be")),
    "UTF-16 without a mark": ("t.jsonl", LINES.encode("utf-16-le")),
    "UTF-16 without a mark, big end first": ("t.json", ARRAY.encode("utf-16-be")),
    "UTF-32": ("t.jsonl", LINES.encode("utf-32")),
    "gzip by its name": ("t.jsonl.gz", gzip.compress(LINES.encode())),
    "an array in gzip by its name": ("t.json.gz", gzip.compress(ARRAY.encode())),
    "gzip": ("t.jsonl", gzip.compress(LINES.encode())),
    "an array in gzip": ("t.json", gzip.compress(ARRAY.encode())),
}


def read(path):
    problems = Problems()
    records = list(read_records(path, path.name, problems))
    return records, problems.report()


@pytest.mark.parametrize(("name", "content"), FORMS.values(), ids=FORMS.keys())
def test_each_form_holds_the_same_records(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    records, report = read(tmp_path / name)
    assert report == ""
    assert [record.values for record in records] == ROWS


def test_one_object_is_one_record(tmp_path):
    (tmp_path / "t.json").write_text('{"text": "a"}')
    assert [record.values for record in read(tmp_path / "t.json")[0]] == [{"text": "a"}]


def test_a_line_ends_with_a_line_break_and_with_no_other_character(tmp_path):
    """U+2028 and U+0085 end a line for Python, and not for JSON."""
    rows = [{"text": "a\u2028b\u0085c"}, {"text": "d"}]
    for name in ("t.json", "t.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        records, report = read(tmp_path / name)
        assert (report, [record.values for record in records]) == ("", rows)


def test_parquet_is_known_by_its_first_bytes(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.Table.from_pylist(ROWS), tmp_path / "t.jsonl")
    assert [record.values for record in read(tmp_path / "t.jsonl")[0]] == ROWS


def test_json_inside_of_parquet_is_read(tmp_path):
    """Data sets are written so whose objects have different keys, as arguments of calls have."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    chat = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]},
    ]
    messages = arrow.array([json.dumps(message) for message in chat], arrow.json_())
    table = arrow.table({"messages": arrow.ListArray.from_arrays([0, 2], messages)})
    parquet.write_table(table, tmp_path / "t.parquet")
    assert [record.values for record in read(tmp_path / "t.parquet")[0]] == [{"messages": chat}]


def test_places_inside_an_object_are_those_of_the_file(tmp_path):
    (tmp_path / "t.json").write_text('{"version": 1,\n "data": [\n  {"text": "a"},\n  7]}')
    records, report = read(tmp_path / "t.json")
    assert [str(record.place) for record in records] == ["t.json:3:3"]
    assert report.startswith("t.json:4:3: expected an object")


BROKEN = {
    "gzip that is cut": ("t.jsonl", gzip.compress(LINES.encode())[:-9], "this is no whole gzip file"),
    "UTF-16 that is cut": (
        "t.jsonl",
        b"\xff\xfe" + LINES.encode("utf-16-le")[:-1],
        "this is not in the encoding",
    ),
    "a pointer": (
        "t.jsonl",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "try `git lfs pull`",
    ),
    "a pointer to parquet": (
        "t.parquet",
        b"version https://git-lfs.github.com/spec/v1\n",
        "try `git lfs pull`",
    ),
    "a web page": (
        "t.jsonl",
        b"\n<!DOCTYPE html><html>\n<body>Sign in</body>",
        "this is a web page and no data",
    ),
    "a zip archive": ("t.jsonl", b"PK\x03\x04rest", "this is a zip archive"),
    "zstd": ("t.jsonl", b"\x28\xb5\x2f\xfdrest", "this is compressed by zstd"),
    "a file of Arrow": (
        "t.jsonl",
        b"ARROW1\0\0rest",
        "this is a file of Arrow; try it as .parquet or .jsonl",
    ),
    "a record of several lines behind one of one line": (
        "t.jsonl",
        LINES.encode() + json.dumps(ROWS[0], indent=1).encode(),
        "(got the end); where records have several lines, try an array of them",
    ),
}


@pytest.mark.parametrize(("name", "content", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_forms_are_problems_of_the_file(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    assert message in read(tmp_path / name)[1]


def test_parquet_has_the_keys_of_the_lines_that_it_came_from(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 0}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}], "note": "n"},
    ]
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "t.parquet")
    records, _ = read(tmp_path / "t.parquet")
    assert [record.values["messages"] for record in records] == [row["messages"] for row in rows]
