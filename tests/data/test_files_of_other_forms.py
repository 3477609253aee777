# SPDX-License-Identifier: Apache-2.0
"""Files that hold no records as JSON or Parquet are named in one sentence; faults of JSON come with what to try."""

import gzip
import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from tuneyard_data.checking import check_files
from tuneyard_data.loading import Reading
from tuneyard_data.records import wrong_suffix

PAIR = {"prompt": "q", "completion": "a"}
LINE = json.dumps(PAIR) + "\n"
TO_JSON = '.to_json("train.jsonl", orient="records", lines=True)'


def problems_of(path: Path) -> tuple[str, ...]:
    found = check_files({"training": [path]}, None, Reading(), has_page=False)
    return tuple(problem.replace(str(path), path.name) for problem in found.problems)


def tar() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("t.jsonl")
        member.size = len(LINE)
        archive.addfile(member, io.BytesIO(LINE.encode()))
    return packed.getvalue()


def numbers() -> bytes:
    packed = io.BytesIO()
    np.save(packed, np.arange(3))
    return packed.getvalue()


FILES = {
    "CSV": ("t.jsonl", b"prompt,completion\nq,a\n", f"this is a table in CSV and no JSON; try pandas.read_csv(FILE){TO_JSON}"),
    "CSV with quoted names": ("t.jsonl", b'"prompt","the completion"\n"q, x","a"\n', "this is a table in CSV and no JSON"),
    "CSV named .json": ("t.json", b"prompt,completion\nq,a\n", "this is a table in CSV and no JSON"),
    "CSV in gzip": ("t.jsonl.gz", gzip.compress(b"prompt,completion\nq,a\n"), "this is a table in CSV and no JSON"),
    "CSV named .parquet": ("t.parquet", b"prompt;completion\nq;a\n", "this is no readable parquet file: this is a table in CSV"),
    "TSV": ("t.jsonl", b"prompt\tcompletion\nq\ta\n", f'this is a table in TSV and no JSON; try pandas.read_csv(FILE, sep="\\t"){TO_JSON}'),
    "text": ("t.jsonl", b"Hello, world.\nIt is sunny.\n", "this is text and no JSON; try one object per line"),
    "text named .json": ("t.json", b"Hello world.\n", "this is text and no JSON; try one object per line"),
    "YAML": ("t.jsonl", b"- prompt: q\n  completion: a\n", "this is YAML and no JSON"),
    "a pointer of DVC": ("t.jsonl", b"outs:\n- md5: 0\n  size: 3\n", "this is the pointer that DVC leaves and not the file; try `dvc pull`"),
    "a pointer of git-annex": ("t.jsonl", b"../.git/annex/objects/x/y\n", "this is the pointer that git-annex leaves"),
    "an error of S3": ("t.jsonl", b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "this is XML, as stores send it"),
    "a comment": ("t.json", b"/* mine */ [" + LINE.encode() + b"]", "this begins with a comment, and JSON has none"),
    "events of a server": ("t.jsonl", b"data: " + LINE.encode() + b"\ndata: [DONE]\n", "this is a stream of events of a server"),
    "a text sequence": ("t.jsonl", b"\x1e" + LINE.encode(), "this is a JSON text sequence (RFC 7464)"),
    "a tar archive": ("t.jsonl", tar(), "this is a tar archive; try the file in it"),
    "a tar archive in gzip": ("t.jsonl.gz", gzip.compress(tar()), "this is a tar archive; try the file in it"),
    "Parquet in gzip": ("t.parquet", gzip.compress(b"PAR1rest"), "this is Parquet compressed by gzip; try it without gzip"),
    "a stream of Arrow": ("t.jsonl", b"\xff\xff\xff\xff\x10\0\0\0rest", "this is a file of Arrow, as save_to_disk of Hugging Face's datasets"),
    "a pickle": ("t.jsonl", pickle.dumps([PAIR]), "this is a pickle of Python, which nothing here opens"),
    "numbers": ("t.jsonl", numbers(), "this is a binary file (it begins with b'\\x93NUMPY"),
    "lz4": ("t.jsonl", b"\x04\x22\x4d\x18rest", "this is compressed by lz4"),
    "an empty .json": ("t.json", b" \n", "the training data set is empty"),
    "a key that is there twice": ("t.jsonl", b'{"prompt": "q", "prompt": "r", "completion": "a"}\n', "1:1: the key `prompt` is there twice in one object; try it once"),
    "a key that is there twice in a message": ("t.json", b'[{"messages": [{"role": "user", "content": "a", "content": "b"}]}]', "1:2: the key `content` is there twice"),
    "Python's spelling": ("t.jsonl", str(PAIR).encode(), "1:2: malformed JSON: expecting property name enclosed in double quotes (got \"'prompt': 'q', 'comp\"); this is Python's spelling: try what json.dumps writes"),
    "Python's None": ("t.jsonl", b'{"prompt": "q", "completion": None}', "1:31: malformed JSON: expecting value (got 'None}'); this is Python's spelling"),
    "a comma at the end of an object": ("t.jsonl", b'{"prompt": "q",}', "1:16: malformed JSON: expecting property name enclosed in double quotes (got '}'); try it without the comma"),
    "a comma at the end of a line": ("t.jsonl", LINE.strip().encode() + b",\n", "1:35: malformed JSON: extra data (got ','); try lines without a comma at their end"),
    "the same in .json": ("t.json", (LINE.strip() + ",\n").encode() * 2, "1:35: malformed JSON: expecting value (got ','); try lines without a comma at their end"),
    "an array that is cut": ("t.json", b"[" + LINE.encode(), "2:1: malformed JSON: expected ',' or ']' after the object; the file ends before its array does"),
    "a file that is cut": ("t.json", b'[{"prompt": "q", ', "1:18: malformed JSON: expecting property name enclosed in double quotes (got the end); the file ends too early"),
    "a line break in a string": ("t.jsonl", b'{"prompt": "q\nx", "completion": "a"}', "1:12: malformed JSON: unterminated string starting at (got '\"q'); try \\n for a line break"),
    "a tab in a string": ("t.jsonl", b'{"prompt": "q\tx"}', "1:14: malformed JSON: invalid control character at (got '\\tx\"}'); try \\n for a line break in a string and \\t for a tab"),
    "zeros behind the records": ("t.jsonl", LINE.encode() + b"\0\0\0", "2:1: malformed JSON: expecting value (got '\\x00\\x00\\x00'); the file was not written"),
    "typographic quotation marks": ("t.jsonl", "{\u201cprompt\u201d: 1}".encode(), "1:2: malformed JSON: expecting property name enclosed in double quotes (got '\u201cprompt\u201d: 1}'); try straight"),
    "objects as strings": ("t.jsonl", json.dumps(LINE).encode(), "1:1: expected an object with named columns (got a string); this is an object written as a string"),
    "strings": ("t.json", b'["a", "b"]', '1:2: expected an object with named columns (got a string); try {"text": ...} around it'),
    "lists of messages": ("t.json", b'[[{"role": "user", "content": "q"}]]', '1:2: expected an object with named columns (got a list); this is a chat: try {"messages": [...]} around it'),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), FILES.values(), ids=FILES.keys())
def test_what_a_file_holds_in_the_place_of_records_is_said_at_its_place(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    said = problems_of(tmp_path / name)[0]
    is_placed = message[0].isdigit()
    assert said.startswith(f"{name}:{message}" if is_placed else f"{name}: {message}"), said


@pytest.mark.parametrize("content", [b"prompt,completion\n" + b"q,a\n" * 50, b"Hello.\n" * 50, numbers()])
def test_a_file_of_another_form_is_one_problem(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.jsonl").write_bytes(content)
    assert len(problems_of(tmp_path / "t.jsonl")) == 1


def test_a_record_that_is_broken_hides_no_other(tmp_path: Path) -> None:
    """A line that is no JSON is a form of the file only if none of its first lines is JSON."""
    (tmp_path / "t.jsonl").write_text("a word\n" + LINE + '{"prompt":\n' + LINE + "{'prompt': 1}\n")
    assert [problem.split(": ")[0] for problem in problems_of(tmp_path / "t.jsonl")] == [
        "t.jsonl:1:1",
        "t.jsonl:3:11",
        "t.jsonl:5:2",
    ]


def test_a_column_of_parquet_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = arrow.table([["q"], ["r"], ["a"]], names=["prompt", "prompt", "completion"])
    parquet.write_table(table, tmp_path / "t.parquet")
    assert (
        problems_of(tmp_path / "t.parquet")[0] == "t.parquet: the column `prompt` is there twice; try it once"
    )


ENDINGS = {
    "t.tsv": f'; try pandas.read_csv(FILE, sep="\\t"){TO_JSON}',
    "t.jsonl.zst": "; try what is in it, plain or by gzip",
    "t.zip": "; try what is in it, plain or by gzip",
    "t.arrow": '; try datasets.Dataset.from_file(FILE).to_parquet("train.parquet")',
    "t.ndjson": "; try the name t.jsonl",
    "t.JSONL": "; try the name t.jsonl",
    "t.pq": "; try the name t.parquet",
    "t.txt": "",
    "t": "",
}


@pytest.mark.parametrize(("name", "hint"), ENDINGS.items())
def test_other_endings_are_refused_with_what_to_do(name: str, hint: str) -> None:
    assert (
        wrong_suffix(name) == f"{name}: files must end in .jsonl, .json, .parquet, .jsonl.gz, .json.gz{hint}"
    )


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").mkdir()
    assert problems_of(tmp_path / "t.jsonl") == ("t.jsonl: this is a folder; try a file in it",)
