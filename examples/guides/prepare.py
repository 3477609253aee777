# SPDX-License-Identifier: Apache-2.0
"""Turns the data sets of three well-known guides into records that a FineTuneJob reads. Standard library only.

    python prepare.py law-titles SOURCE FOLDER     questions of a forum on law and their titles
    python prepare.py dolly      SOURCE FOLDER     databricks-dolly-15k
    python prepare.py guanaco    SOURCE FOLDER     openassistant-guanaco

SOURCE is the file as it was downloaded, a JSON array or lines of JSON. FOLDER gets train.jsonl, validation.jsonl,
test.jsonl and report.json, which counts what was left out by reason. A record goes to a split by its own content, so it
is on the same side in every run, and copies of it can't be on two sides.
"""

import hashlib
import html
import json
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

Json = dict[str, Any]
SHARES = {"test": 5, "validation": 10}
"""Percent of the records of each split; the rest is trained on."""
TITLE_END = "\n\nTitle:"
LAW_TASK = "Write a short title for this question to a forum on law.\n\n"
SHORTEST, LONGEST = 20, 6000
"""Characters of a question of the forum: shorter ones say too little, and longer ones would be cut."""
_CITATION = re.compile(r"(?<=[\w.,;:)\"'])(?:\[\d{1,3}\])+")
_TURN = re.compile(r"^### (Human|Assistant):[ \t]*", re.MULTILINE)
_ROLES = {"Human": "user", "Assistant": "assistant"}


class UnusableError(Exception):
    """Why a record is left out."""


class _Text(HTMLParser):
    """The text of a post: tags go, code and quotes stay, and paragraphs are kept apart."""

    _BLOCKS = frozenset({"p", "br", "li", "blockquote", "pre", "h1", "h2", "h3", "ul", "ol", "hr", "div"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        if tag in self._BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self.handle_starttag(tag, [])

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


def plain(text: str) -> str:
    """A post without HTML, with one blank line between paragraphs and no other space twice."""
    reader = _Text()
    reader.feed(text)
    reader.close()
    lines = (" ".join(line.split()) for line in "".join(reader.parts).splitlines())
    return re.sub(r"\n{2,}", "\n\n", "\n".join(lines)).strip()


def law_title(record: Mapping[str, Any]) -> Json:
    """A question of the forum and its title. Keys as downloaded (`question_title`) or as curated (`title`)."""
    title = " ".join(html.unescape(_field(record, "question_title", "title")).split())
    question = plain(_field(record, "question_body", "question"))
    if re.search(r"\[(closed|duplicate|on hold|migrated)\]$", title):
        raise UnusableError("the forum closed the question")
    if len(question) < SHORTEST:
        raise UnusableError("the question is too short")
    if len(question) > LONGEST:
        raise UnusableError("the question is too long")
    if title.casefold() in question.casefold():
        raise UnusableError("the title stands in the question")
    return {"prompt": f"{LAW_TASK}{question}{TITLE_END}", "completion": f" {title}"}


def dolly(record: Mapping[str, Any]) -> Json:
    """An instruction, perhaps with a text that it is about, and its answer, without marks of citations."""
    instruction, context = _field(record, "instruction"), str(record.get("context") or "").strip()
    answer = _field(record, "response")
    if context:
        # Both come from a page of an encyclopedia. Without a context, `list[0]` in an answer is code.
        context, answer = _CITATION.sub("", context), _CITATION.sub("", answer)
    asked = f"{context}\n\n{instruction}" if context else instruction
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}


def guanaco(record: Mapping[str, Any]) -> Json:
    """A conversation that is written as one text with `### Human:` and `### Assistant:`."""
    before, *rest = _TURN.split(_field(record, "text"))
    turns = [
        {"role": _ROLES[who], "content": said.strip()}
        for who, said in zip(rest[::2], rest[1::2], strict=True)
    ]
    if before.strip() or not turns:
        raise UnusableError("no turn at the beginning")
    if turns[-1]["role"] == "user":
        turns.pop()  # A question at the end that nobody answered.
    if [turn["role"] for turn in turns] != ["user", "assistant"] * (len(turns) // 2) or not turns:
        raise UnusableError("the turns do not alternate")
    if not all(turn["content"] for turn in turns):
        raise UnusableError("an empty turn")
    return {"messages": turns}


KINDS: Mapping[str, Callable[[Mapping[str, Any]], Json]] = {
    "law-titles": law_title,
    "dolly": dolly,
    "guanaco": guanaco,
}


def _field(record: Mapping[str, Any], *names: str) -> str:
    for name in names:
        value = record.get(name)
        if isinstance(value, str) and value.strip():
            return value.strip()
    raise UnusableError(f"{names[0]} is empty")


def read(source: Path) -> Iterator[Any]:
    """The records of a JSON array or of lines of JSON; a line that is no JSON is None."""
    text = source.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("["):
        yield from json.loads(text)
        return
    for line in text.split("\n"):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError:
                yield None


def _split_of(record: Json) -> tuple[str, str]:
    """The split, and what is equal in copies that differ in case and space only. One prompt is on one side."""
    asked = record["prompt"] if "prompt" in record else record["messages"][0]["content"]
    words = " ".join(unicodedata.normalize("NFKC", asked).casefold().split())
    digest = hashlib.sha256(words.encode()).hexdigest()
    place = int(digest[:8], 16) % 100
    for name, share in SHARES.items():
        if place < share:
            return name, digest
        place -= share
    return "train", digest


def _placed(kind: str, raw: Any, seen: set[str]) -> tuple[str, Json]:
    """The split of a raw record, and what becomes of it; adds its question to `seen`."""
    if not isinstance(raw, dict):
        raise UnusableError("no JSON object")
    record = KINDS[kind](raw)
    split, key = _split_of(record)
    if key in seen:
        raise UnusableError("the same question again")
    seen.add(key)
    return split, record


def prepare(kind: str, source: Path, folder: Path) -> Json:
    """Write the splits of one data set; returns the report."""
    splits: dict[str, list[Json]] = {"train": [], **{name: [] for name in SHARES}}
    dropped: Counter[str] = Counter()
    seen: set[str] = set()
    for raw in read(source):
        try:
            split, record = _placed(kind, raw, seen)
        except UnusableError as error:
            dropped[str(error)] += 1
            continue
        splits[split].append(record)
    folder.mkdir(parents=True, exist_ok=True)
    for name, records in splits.items():
        lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    report = {"records": {name: len(found) for name, found in splits.items()}, "dropped": dict(dropped)}
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def main(words: list[str]) -> int:
    """The command line; 2 for a wrong call, 1 if no record is left to train on."""
    match words:
        case [kind, source, folder] if kind in KINDS:
            report = prepare(kind, Path(source), Path(folder))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    print(json.dumps(report))
    return 0 if report["records"]["train"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
