# SPDX-License-Identifier: Apache-2.0
"""Reads every record of every split into tokens, and reports all problems together."""

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from tuneyard_api.job_inputs import Template
from tuneyard_api.pod_contract import ResolvedJob

from tuneyard_data.chat_template import PlainChat
from tuneyard_data.examples import Example, Renderer
from tuneyard_data.kept_tokens import KeptTokens
from tuneyard_data.languages import language_of
from tuneyard_data.near_duplicates import Keys, exact_key, near_key
from tuneyard_data.personal_data import hints_in
from tuneyard_data.reading import read_records
from tuneyard_data.records import DataFile, Place, Problems, Record, RecordProblem
from tuneyard_data.refused import DataRefused
from tuneyard_data.templates import renderer_of
from tuneyard_data.tokenization import Encoded, TextTokenizer, TokenizedRecord

_BATCH = 1000
"""Records that are tokenised at once."""
MAX_PLACES = 5
"""Number of places that are named for each finding; all places are counted."""
_MAX_SHOWN = 10


@dataclass(frozen=True)
class Reading:
    """How records are read: what a job says of its data set, and the tokens that a record may have."""

    format: str = "auto"
    template: Template | None = None
    loss_on: str = "completion"
    limit: int = 2048
    folder: Path | None = None
    """Where tokens are kept until they are gathered; None keeps none. In memory are 100 bytes of each record."""


class Places:
    """Where each record begins, in 16 bytes a record."""

    def __init__(self) -> None:
        self._files: list[str] = []
        self._numbers = array("q")

    def __len__(self) -> int:
        return len(self._numbers) // 2

    def append(self, place: Place) -> None:
        """Adds the place of the next record."""
        if not self._files or self._files[-1] != place.file:
            self._files.append(place.file)
        column = 0 if place.column is None else place.column
        self._numbers.extend((place.line, column << 16 | len(self._files) - 1))

    def __getitem__(self, index: int) -> Place:
        line, rest = self._numbers[2 * index], self._numbers[2 * index + 1]
        return Place(self._files[rest & 0xFFFF], line, rest >> 16 or None)

    def take(self, chosen: list[int]) -> "Places":
        """The places with these indices."""
        taken = Places()
        for index in chosen:
            taken.append(self[index])
        return taken


@dataclass
class Loaded:
    """One split with its tokens."""

    name: str
    file: str = ""
    """Name of its file in messages."""
    sources: list[DataFile] = field(default_factory=list)
    render: Renderer | None = None
    tokens: KeptTokens | None = None
    """Of each record that was read and not dropped."""
    chosen: np.ndarray | None = None
    """int64 [examples]: where each example was among those that were read and not dropped; None: all in their order."""
    places: Places = field(default_factory=Places)
    """Where each example begins."""
    exact: Keys = field(default_factory=Keys)
    """Of each example, a key of its text."""
    near: Keys = field(default_factory=Keys)
    """Of each example, a key of its text without regard to spelling."""
    hints: Counter[str] = field(default_factory=Counter)
    """Hints at personal data by kind."""
    hint_places: dict[str, list[str]] = field(default_factory=dict)
    """The first places of each kind."""
    languages: Counter[str] = field(default_factory=Counter)
    """Records by the language of what is learned."""
    shown: list[tuple[Place, TokenizedRecord]] = field(default_factory=list)
    """The first examples without a hint, in tokens."""
    count: int = 0
    """Records in the file."""
    dropped: int = 0
    """Records that had no learned token left after truncation."""
    lengths: "array[int]" = field(default_factory=lambda: array("q"))
    """Number of tokens of every record before truncation; of characters, where there is no model."""
    learned: "array[int]" = field(default_factory=lambda: array("q"))
    """Of every record, the place of its first token under the loss, counted from 0; its length if there is none."""
    learned_tokens: int = 0
    """Tokens under the loss after truncation."""
    sides: int = 1
    """Records in `tokens` of each example: 2 for preferences, the chosen one first."""
    notes: Counter[str] = field(default_factory=Counter)
    """Sentences about records that a person should know, each with the number of its records."""

    def take(self, chosen: np.ndarray, name: str) -> "Loaded":
        """The part of the split with these indices, which ascend."""
        return replace(
            self,
            name=name,
            chosen=chosen,
            places=self.places.take(chosen.tolist()),
            exact=Keys(self.exact[i] for i in chosen.tolist()),
            near=Keys(self.near[i] for i in chosen.tolist()),
        )

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.places)

    def kept_lengths(self) -> np.ndarray:
        """int64 [examples * sides]: number of tokens after truncation."""
        lengths = self._tokens.lengths()
        return lengths if self.chosen is None else lengths.reshape(-1, self.sides)[self.chosen].ravel()

    def read(self, index: int) -> TokenizedRecord:
        """The tokens of one of `kept_lengths`."""
        example, side = divmod(index, self.sides)
        place = example if self.chosen is None else int(self.chosen[example])
        return self._tokens.read(place * self.sides + side)

    @property
    def _tokens(self) -> KeptTokens:
        if self.tokens is None:
            raise ValueError("no tokens were kept")
        return self.tokens

    def examples(self) -> Iterator[Example]:
        """The examples in their order, read once more."""
        if self.render is None:
            return
        wanted = (self.places[index] for index in range(len(self)))
        place = next(wanted, None)
        for file in self.sources:
            for record in read_records(file.path, file.name, Problems()):
                if record.place == place:
                    yield self.render(record)
                    place = next(wanted, None)
                    if place is None:
                        return


def load_splits(
    reading: Reading,
    files: list[DataFile],
    tokenizer: TextTokenizer | None,
    records_read: Callable[[int], None],
) -> dict[str, Loaded]:
    """Every record of every split; all problems of all splits are reported together.

    Several files of one split are read one after the other. Without a tokenizer, chats are looked at without a chat
    template, and lengths are characters. `records_read` is called now and then with the number of records read from
    the current split.

    Raises:
        DataRefused: with all problems.
    """
    problems = Problems()
    chat = PlainChat() if tokenizer is None else tokenizer.chat_template()
    decided = list[Renderer]()

    def render(record: Record) -> Example:
        # The first training record decides the format of every split.
        if not decided:
            decided.append(renderer_of(reading.format, reading.template, chat, record))
        return decided[0](record)

    splits: dict[str, Loaded] = {}
    for file in files:
        split = splits.setdefault(file.split, Loaded(file.split, render=render))
        if reading.folder is not None and split.tokens is None:
            split.tokens = KeptTokens(reading.folder / f"{file.split}.tokens")
        split.sources.append(file)
        split.file = ", ".join(filter(None, (split.file, file.name)))
        before = split.count
        batches = _batches(_examples(file, render, problems, split))
        for examples, encoded in _encoded(batches, tokenizer, problems):
            _look_at(examples, encoded, split, tokenizer, reading)
            records_read(split.count)
        if split.count == before and not problems.count:
            problems.add(file.name, f"the {file.split} data set is empty")
    problems.raise_if_any()
    for split in splits.values():
        if split.tokens is not None:
            split.tokens.flush()
        if not len(split.places):
            raise DataRefused(
                f"dataset.{split.name}: everything truncated: of {split.count} records none has a learned token"
                f" within maxSequenceLength {reading.limit}; they have {min(split.lengths)} to {max(split.lengths)}"
                f" tokens; try maxSequenceLength {max(split.lengths)}, or shorter prompts"
            )
    return splits


def _examples(
    file: DataFile, render: Renderer, problems: Problems, split: Loaded
) -> Iterator[tuple[Place, Example]]:
    for record in read_records(file.path, file.name, problems):
        split.count += 1
        try:
            example = render(record)
        except RecordProblem as problem:
            problems.add(problem.place, str(problem))
        else:
            split.notes.update(example.notes)
            yield record.place, example


def _batches(examples: Iterator[tuple[Place, Example]]) -> Iterator[list[tuple[Place, Example]]]:
    batch: list[tuple[Place, Example]] = []
    for example in examples:
        batch.append(example)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    yield batch


def _encoded(
    batches: Iterator[list[tuple[Place, Example]]], tokenizer: TextTokenizer | None, problems: Problems
) -> Iterator[tuple[list[tuple[Place, Example]], Sequence[Encoded]]]:
    """Each batch with its encodings, which a thread makes while the records before and after are looked at.

    After the first problem the other records are only checked, not tokenised.
    """
    with ThreadPoolExecutor(1) as thread:
        before: tuple[list[tuple[Place, Example]], Future[list[Encoded]]] | None = None
        for batch in batches:
            examples = [side for _, example in batch for side in example.sides]
            work = tokenizer.encode if tokenizer and not problems.count else _nothing
            now = (batch, thread.submit(work, examples))
            if before and not problems.count:
                yield before[0], before[1].result()
            before = now
        if before and not problems.count:
            yield before[0], before[1].result()


def _nothing(_: Sequence[Example]) -> list[Encoded]:
    return []


def _look_at(
    placed: list[tuple[Place, Example]],
    encoded: Sequence[Encoded],
    split: Loaded,
    tokenizer: TextTokenizer | None,
    reading: Reading,
) -> None:
    if tokenizer is None:
        for place, example in placed:
            split.lengths.append(len(example.text))
            _note(split, place, example)
        return
    learn_all = reading.loss_on == "all"
    examples = [side for _, example in placed for side in example.sides]
    records = iter(tokenizer.records_of(examples, encoded, learn_all=learn_all, limit=reading.limit))
    for place, example in placed:
        sides = [next(records) for _ in example.sides]
        split.sides = len(sides)
        split.lengths.append(max(side.full_length for side in sides))
        split.learned.append(max(side.first_learned for side in sides))
        if any(side.first_learned >= len(side.tokens) for side in sides):
            split.dropped += 1
            continue
        if _note(split, place, example) and len(split.shown) < _MAX_SHOWN:
            split.shown.append((place, sides[0]))
        for side in sides:
            # Nothing precedes the first token, so it cannot be predicted.
            split.learned_tokens += int(side.learned[1:].sum())
            if split.tokens is not None:
                split.tokens.append(side)


def _note(split: Loaded, place: Place, example: Example) -> bool:
    """Keeps what the report needs of an example, and returns whether it is without a hint at personal data."""
    split.places.append(place)
    split.exact.append(exact_key(example))
    split.near.append(near_key(example))
    split.languages[language_of("".join(piece.text for piece in example.pieces if piece.is_learned))] += 1
    found = Counter(hints_in("\n".join(piece.text for side in example.sides for piece in side.pieces)))
    split.hints += found
    for kind in found:
        places = split.hint_places.setdefault(kind, [])
        if len(places) < MAX_PLACES:
            places.append(str(place))
    return not found


def notes_of(splits: Mapping[str, Loaded]) -> list[str]:
    """What a person should know of records: one sentence each, with the number of records."""
    return [
        f"dataset.{split.name}: {count} of {split.count} records: {note}"
        for split in splits.values()
        for note, count in split.notes.items()
    ]


def hold_out(splits: dict[str, Loaded], job: ResolvedJob) -> dict[str, Loaded]:
    """Takes the validation fraction from the training records, by seed; near-duplicates stay on one side."""
    fraction = job.dataset.validation_fraction
    if not fraction:
        return splits
    training = splits["training"]
    # Of each content the number, in the order in which contents first appear.
    unique, contents = np.unique(training.near.first_copies(), return_inverse=True)
    if len(unique) < 2:  # noqa: PLR2004  one to learn from, one to measure on
        raise DataRefused(
            f"dataset.validationFraction: {fraction:g} of {len(unique)} different record can't be held out; try more"
            " records, or dataset.validation"
        )
    count = min(max(1, round(fraction * len(unique))), len(unique) - 1)
    order = np.random.default_rng(job.training.seed).permutation(len(unique))
    is_held_out = np.isin(contents, order[:count])
    return {
        "training": training.take(np.flatnonzero(~is_held_out), "training"),
        "validation": training.take(np.flatnonzero(is_held_out), "validation"),
        **{name: split for name, split in splits.items() if name == "test"},
    }
