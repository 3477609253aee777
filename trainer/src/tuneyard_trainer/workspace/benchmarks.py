# SPDX-License-Identifier: Apache-2.0
"""The records of public benchmarks: checked before a GPU is asked for, and kept in the workspace for both models.

The columns are those that the tasks of lm-evaluation-harness read. It runs without a network and reads no other record.
"""

import ast
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tuneyard_api.benchmarks import Benchmarks
from tuneyard_api.pod_contract import FailureClass
from tuneyard_api.problems import clip

from tuneyard_trainer.pod.failures import StageFailure, bad_input
from tuneyard_trainer.workspace.layout import PREPARED

FOLDER = "benchmarks"
"""Folder inside PREPARED, with a file `<name>.jsonl` for each benchmark."""
_MAX_LINE = 4 << 20
"""Longest record, in characters: an article of wikitext has at most a few hundred thousand."""
_LETTERS = ("A", "B", "C", "D")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_choice(of: int) -> Callable[[Any], bool]:
    def holds(value: Any) -> bool:
        return type(value) is int and 0 <= value < of

    return holds


def _has_two_words(value: Any) -> bool:
    """Whether there is a last word and a context before it."""
    return isinstance(value, str) and bool(value.rpartition(" ")[0].strip() and value.rpartition(" ")[2])


def _are_endings(value: Any) -> bool:
    return isinstance(value, list) and len(value) == len(_LETTERS) and all(map(_is_text, value))


def _has_blank(value: Any) -> bool:
    return isinstance(value, str) and value.count("_") == 1


def _are_problems(value: Any) -> bool:
    """Whether it is a list of questions as Python writes it, which the hub's data set of RACE has as a string."""
    try:
        problems = ast.literal_eval(value) if isinstance(value, str) else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False
    return (
        isinstance(problems, list)
        and bool(problems)
        and all(
            isinstance(problem, dict)
            and isinstance(problem.get("question"), str)
            and problem.get("answer") in _LETTERS
            and _are_endings(problem.get("options"))
            for problem in problems
        )
    )


_TEXT = (_is_text, "text")
_COLUMNS: Mapping[str, Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "lambada": {"text": (_has_two_words, "text of two words at least, with one blank before the last one")},
    "boolq": {"passage": _TEXT, "question": _TEXT, "label": (_is_choice(2), "0 or 1")},
    "race": {
        "article": _TEXT,
        "problems": (_are_problems, "a string with a list of question, answer (A to D) and four options"),
    },
    "piqa": {"goal": _TEXT, "sol1": _TEXT, "sol2": _TEXT, "label": (_is_choice(2), "0 or 1")},
    "hellaswag": {
        "activity_label": _TEXT,
        "ctx_a": _TEXT,
        "ctx_b": (lambda value: isinstance(value, str), "text, which may be empty"),
        "endings": (_are_endings, "a list of four texts"),
        "label": (lambda value: str(value) in ("0", "1", "2", "3"), "0 to 3"),
    },
    "winogrande": {
        "sentence": (_has_blank, "text with one _"),
        "option1": _TEXT,
        "option2": _TEXT,
        "answer": (lambda value: value in ("1", "2"), 'the string "1" or "2"'),
    },
    "wikitext": {"page": _TEXT},
}


def keep_benchmarks(wanted: Benchmarks, source: Path, folder: Path) -> None:
    """Checks the records of each benchmark in `source`, and writes those that are asked to `folder`.

    Raises:
        StageFailure: DataMissing for a file that is not there, BadInput for the first record of one that can't be asked.
    """
    folder.mkdir()
    for name in wanted.names:
        path = source / f"{name}.jsonl"
        try:
            file = path.open(encoding="utf-8")
        except OSError as error:
            raise StageFailure(
                FailureClass.DATA_MISSING,
                f"evaluation.benchmarks: {path}: {error.strerror}; try a file of this name, one JSON object a line",
            ) from error
        asked = 0
        with file, (folder / path.name).open("w", encoding="utf-8") as kept:
            try:
                while asked != wanted.limit and (line := file.readline(_MAX_LINE + 1)):
                    record = _checked(name, f"{path}:{asked + 1}", line)
                    # Other columns are not asked, and a hub's data set may have any.
                    content = {column: record[column] for column in _COLUMNS[name]}
                    kept.write(json.dumps(content, ensure_ascii=False) + "\n")
                    asked += 1
            except UnicodeDecodeError as error:
                raise bad_input(f"evaluation.benchmarks: {path}: this is no UTF-8: {error.reason}") from error
        if not asked:
            raise bad_input(f"evaluation.benchmarks: {path}: there is no record")


def load_benchmark(workspace: Path, name: str) -> tuple[list[dict[str, Any]], str]:
    """The records of a benchmark that `keep_benchmarks` wrote, and `sha256:` over them."""
    content = (workspace / PREPARED / FOLDER / f"{name}.jsonl").read_bytes()
    records = [json.loads(line) for line in content.decode().split("\n") if line]
    return records, f"sha256:{hashlib.sha256(content).hexdigest()}"


def _checked(name: str, place: str, line: str) -> dict[str, Any]:
    where = f"evaluation.benchmarks: {place}"
    if len(line) > _MAX_LINE:
        raise bad_input(f"{where}: a record has at most {_MAX_LINE} characters")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise bad_input(f"{where}: this is no JSON: {clip(str(error), 200)}") from error
    if not isinstance(record, dict):
        raise bad_input(f"{where}: a record is an object (got {type(record).__name__})")
    for column, (holds, meaning) in _COLUMNS[name].items():
        if not holds(record.get(column)):
            got = clip(repr(record[column]), 80) if column in record else "no such column"
            raise bad_input(f"{where}: {column} of {name} is {meaning} (got {got})")
    return record
