# SPDX-License-Identifier: Apache-2.0
"""Cleans raw records: leaves out what can't be used, is there twice, is too short or long, or looks like personal data.

Some records are held out by their content and not by their place: a record, and whatever differs from it in spelling
only, lands on the same side in every curation, so that no test record ever becomes a training record.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tuneyard_api.base import Contract
from tuneyard_api.durable import folder_being_written

from tuneyard_data.chat_template import PlainChat
from tuneyard_data.examples import Example, Renderer
from tuneyard_data.languages import UNKNOWN, language_of
from tuneyard_data.near_duplicates import exact_key, near_key
from tuneyard_data.personal_data import hints_in
from tuneyard_data.reading import read_records
from tuneyard_data.records import MAX_SHOWN, SUFFIXES, Problems, Record, RecordProblem, suffix_of
from tuneyard_data.refused import DataRefused
from tuneyard_data.templates import renderer_of

TRAINING, TEST, REPORT = "train.jsonl", "test.jsonl", "curation.json"
_MAX_PLACES = 5


@dataclass(frozen=True)
class Wishes:
    """What is left out."""

    min_characters: int = 1
    """Shortest text that is learned."""
    max_characters: int = 100_000
    """Longest record, prompt and answer together."""
    languages: frozenset[str] = frozenset()
    """Languages of what is learned; empty: all. A text whose language is not known stays."""
    drop_near_duplicates: bool = True
    """Whether records that differ from an earlier one in spelling only are left out."""
    drop_personal_data: bool = True
    """Whether records with a hint at personal data or a key are left out."""
    max_dropped: float = 0.5
    """Share of records that may be left out."""
    test_share: float = 0.05
    """Share of records that is held out."""


class Dropped(Contract):
    """Records that were left out for one reason."""

    records: int
    first: tuple[str, ...]
    """Where the first of them begin."""


class CurationReport(Contract):
    """curation.json."""

    schema_version: int = 1
    read: int
    """Records that were read, with those that could not be read as records."""
    training: int
    test: int
    dropped: dict[str, Dropped]
    """The dropped records by reason."""
    personal_data_kept: dict[str, int]
    """Hints in records that were kept, by kind."""
    digests: dict[str, str]
    """`sha256:` of each file."""

    @property
    def kept(self) -> int:
        """Number of records that are in one of the files."""
        return self.training + self.test

    def content(self) -> bytes:
        """The content of curation.json."""
        return (self.model_dump_json(by_alias=True, indent=2) + "\n").encode()


@dataclass
class _Curation:
    """What is known while records are read."""

    wishes: Wishes
    seen: set[bytes] = field(default_factory=set)
    alike: set[bytes] = field(default_factory=set)
    reasons: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)
    hints: Counter[str] = field(default_factory=Counter)
    render: Renderer | None = None

    def drop(self, reason: str, place: str) -> None:
        self.reasons[reason] += 1
        found = self.places.setdefault(reason, [])
        if len(found) < _MAX_PLACES:
            found.append(place)

    def example(self, record: Record) -> Example | None:
        """The record as a model sees it; None if it can't be used."""
        try:
            if self.render is None:
                self.render = renderer_of("auto", None, PlainChat(), record)
            return self.render(record)
        except (RecordProblem, DataRefused) as problem:
            self.drop("unusable", f"{record.place}: {problem}")
            return None

    def why_not(self, example: Example) -> str | None:
        """Why a record is left out: the first reason, so that a duplicate is one whatever else it is; None: it stays."""
        exact, near = exact_key(example), near_key(example)
        is_there, is_alike = exact in self.seen, near in self.alike
        self.seen.add(exact)
        self.alike.add(near)
        if is_there:
            return "duplicate"
        if is_alike and self.wishes.drop_near_duplicates:
            return "near duplicate"
        return next(self._faults(example), None)

    def _faults(self, example: Example) -> Iterator[str]:
        """What is wrong with a record itself; the hints of one that has no fault are counted."""
        wishes = self.wishes
        if len(example.learned_text) < wishes.min_characters:
            yield "too short"
        if sum(len(side.text) for side in example.sides) > wishes.max_characters:
            yield "too long"
        if wishes.languages and language_of(example.learned_text) not in wishes.languages | {UNKNOWN}:
            yield "other language"
        hints = list(hints_in("\n".join(side.text for side in example.sides)))
        if hints and wishes.drop_personal_data:
            yield "personal data"
        self.hints.update(hints)


def data_files(source: Path) -> list[Path]:
    """The file itself, or the data files of a folder and of the folders in it, by name.

    Raises:
        DataRefused: there is none.
    """
    if source.is_dir():
        found = sorted(path for path in source.rglob("*") if path.is_file() and suffix_of(path.name))
    else:
        found = [source] if source.is_file() and suffix_of(source.name) else []
    if not found:
        raise DataRefused(
            f"{source}: no data file is there; try a file, or a folder with files, ending in {', '.join(SUFFIXES)}"
        )
    return found


def curate(source: Path, folder: Path, wishes: Wishes) -> CurationReport:
    """Write the records of `source` that stay into files of `folder`, which appears whole or not at all.

    A folder that is there already is from a former try of the same, and is replaced.

    Raises:
        DataRefused: there is no file, nothing stays, or more is left out than `wishes` allow; the message has the reasons.
        OSError: what can't be read or written.
    """
    state, counts = _Curation(wishes), Counter[str]()
    with folder_being_written(folder) as fresh:
        hashes = {name: hashlib.sha256() for name in (TRAINING, TEST)}
        with (fresh / TRAINING).open("wb") as training, (fresh / TEST).open("wb") as test:
            files: dict[str, IO[bytes]] = {TRAINING: training, TEST: test}
            for line, example in _kept(source, state):
                name = TEST if _is_held_out(near_key(example), wishes.test_share) else TRAINING
                files[name].write(line)
                hashes[name].update(line)
                counts[name] += 1
        report = CurationReport(
            read=counts.total() + state.reasons.total(),
            training=counts[TRAINING],
            test=counts[TEST],
            dropped={
                reason: Dropped(records=count, first=tuple(state.places[reason]))
                for reason, count in sorted(state.reasons.items())
                if count
            },
            personal_data_kept=dict(sorted(state.hints.items())),
            digests={name: f"sha256:{digest.hexdigest()}" for name, digest in hashes.items()},
        )
        _refuse(report, wishes)
        (fresh / REPORT).write_bytes(report.content())
        if folder.is_dir():
            shutil.rmtree(folder)
    return report


def _kept(source: Path, state: _Curation) -> Iterator[tuple[bytes, Example]]:
    for path in data_files(source):
        name = path.relative_to(source).as_posix() if source.is_dir() else path.name
        problems = Problems()
        for record in read_records(path, name, problems):
            if (example := state.example(record)) is None:
                continue
            if (reason := state.why_not(example)) is not None:
                state.drop(reason, str(record.place))
                continue
            yield _line(record.values), example
        for line in problems.report().splitlines()[: min(problems.count, MAX_SHOWN)]:
            state.drop("unreadable", line)
        state.reasons["unreadable"] += max(0, problems.count - MAX_SHOWN)


def _line(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, ensure_ascii=False, default=str) + "\n").encode("utf-8", "surrogatepass")


def _is_held_out(key: bytes, share: float) -> bool:
    """Whether a record with this content is held out: its key, as a fraction of all keys, is below the share."""
    return int.from_bytes(key[:8], "big") < share * 2**64


def _refuse(report: CurationReport, wishes: Wishes) -> None:
    reasons = "; ".join(
        f"{found.records} {reason} (first {found.first[0]})" for reason, found in report.dropped.items()
    )
    if not report.training:
        raise DataRefused(f"no training record is left of {report.read}: {reasons}")
    share = 1 - report.kept / report.read
    if share > wishes.max_dropped:
        raise DataRefused(
            f"{share:.0%} of {report.read} records would be left out, and at most {wishes.max_dropped:.0%} may be: {reasons};"
            " try other records, or a larger share"
        )
    if wishes.test_share and not report.test:
        raise DataRefused(
            f"no record of {report.kept} is held out at a share of {wishes.test_share:g}; try a larger share, or more records"
        )
