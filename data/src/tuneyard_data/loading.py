# SPDX-License-Identifier: Apache-2.0
"""Reads every record of every split into tokens, and reports all problems together."""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from tuneyard_api.job_inputs import Template
from tuneyard_api.pod_contract import ResolvedJob

from tuneyard_data.chat_template import PlainChat
from tuneyard_data.columns import Column
from tuneyard_data.examples import Example, Renderer
from tuneyard_data.kept_tokens import KeptTokens
from tuneyard_data.languages import language_of
from tuneyard_data.lengths import LengthCounts
from tuneyard_data.near_duplicates import Keys, exact_key, near_key
from tuneyard_data.personal_data import hints_in
from tuneyard_data.reading import read_records
from tuneyard_data.records import DataFile, Place, Problems, Record, RecordProblem
from tuneyard_data.refused import DataRefused
from tuneyard_data.templates import renderer_of
from tuneyard_data.tokenization import Encoded, TextTokenizer, TokenizedRecord

_BATCH = 200
"""Records that are tokenised at once; more of them make it no faster."""
_AHEAD = 3
"""Batches that are tokenised, or wait for it, while another one is looked at."""
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
    """Where each record begins, in 16 bytes a record on disk."""

    def __init__(self, folder: Path | None = None) -> None:
        self._files: list[str] = []
        self._numbers = Column(np.int64, folder, width=2)

    def __len__(self) -> int:
        return len(self._numbers)

    def extend(self, places: Sequence[Place]) -> None:
        """Adds the places of the next records."""
        rows = []
        for place in places:
            if not self._files or self._files[-1] != place.file:
                self._files.append(place.file)
            column = 0 if place.column is None else place.column
            rows.append((place.line, column << 16 | len(self._files) - 1))
        self._numbers.extend(rows)

    def __getitem__(self, index: int) -> Place:
        [[line, rest]] = self._numbers.array(index, index + 1).tolist()
        return Place(self._files[rest & 0xFFFF], line, rest >> 16 or None)


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
    """Where each example that was read and not dropped begins."""
    exact: Keys = field(default_factory=Keys)
    """Of each example that was read and not dropped, a key of its text."""
    near: Keys = field(default_factory=Keys)
    """The same without regard to spelling."""
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
    unlearned: int = 0
    """Those of them that had none before."""
    lengths: LengthCounts = field(default_factory=LengthCounts)
    """Of every record in the file."""
    learned_tokens: int = 0
    """Tokens under the loss after truncation."""
    sides: int = 1
    """Records in `tokens` of each example: 2 for preferences, the chosen one first."""
    notes: Counter[str] = field(default_factory=Counter)
    """Sentences about records that a person should know, each with the number of its records."""

    @classmethod
    def empty(cls, name: str, render: Renderer, folder: Path | None) -> "Loaded":
        """A split without records, which keeps what it knows of each in files in `folder`, if there is one."""
        tokens = None if folder is None else KeptTokens(folder)
        return cls(
            name, render=render, tokens=tokens, places=Places(folder), exact=Keys(folder), near=Keys(folder)
        )

    def take(self, chosen: np.ndarray, name: str) -> "Loaded":
        """The part of the split with these indices, which ascend."""
        return replace(self, name=name, chosen=chosen)

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.places) if self.chosen is None else len(self.chosen)

    def keys(self) -> np.ndarray:
        """Bytes [examples]: a key of the text of each."""
        return self.exact.array if self.chosen is None else self.exact.array[self.chosen]

    def kept_lengths(self) -> np.ndarray:
        """int64 [examples * sides]: number of tokens after truncation."""
        lengths = self._tokens.lengths()
        return lengths if self.chosen is None else lengths.reshape(-1, self.sides)[self.chosen].ravel()

    def read(self, index: int) -> TokenizedRecord:
        """The tokens of one of `kept_lengths`."""
        return self._tokens.read(int(self._where(np.asarray([index]))[0]))

    def read_all(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (int32) of some of `kept_lengths`, one behind the other, and whether they are learned (bool)."""
        return self._tokens.read_all(self._where(indices))

    def _where(self, indices: np.ndarray) -> np.ndarray:
        """Where the tokens of some of `kept_lengths` are kept."""
        if self.chosen is None:
            return indices
        examples, sides = np.divmod(indices, self.sides)
        return self.chosen[examples] * self.sides + sides

    @property
    def _tokens(self) -> KeptTokens:
        if self.tokens is None:
            raise ValueError("no tokens were kept")
        return self.tokens

    def examples(self) -> Iterator[Example]:
        """The examples in their order, read once more."""
        if self.render is None:
            return
        indices = range(len(self)) if self.chosen is None else map(int, self.chosen)
        wanted = (self.places[index] for index in indices)
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
        if file.split not in splits:
            splits[file.split] = Loaded.empty(file.split, render, reading.folder)
        split = splits[file.split]
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
        if not len(split):
            shortest, longest = split.lengths.shortest, split.lengths.longest
            if split.unlearned == split.count:
                raise DataRefused(
                    f"dataset.{split.name}: none of {split.count} records has an answer that is learned: all say that theirs is"
                    " not; try `weight` 1 for those that are"
                )
            raise DataRefused(
                f"dataset.{split.name}: everything truncated: of {split.count} records none has a learned token"
                f" within maxSequenceLength {reading.limit}; they have {shortest} to {longest} tokens; try"
                f" maxSequenceLength {longest}, or shorter prompts"
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
    waiting = deque[tuple[list[tuple[Place, Example]], Future[list[Encoded]]]]()
    with ThreadPoolExecutor(1) as thread:
        for batch in batches:
            examples = [side for _, example in batch for side in example.sides]
            work = tokenizer.encode if tokenizer and not problems.count else _nothing
            waiting.append((batch, thread.submit(work, examples)))
            if len(waiting) > _AHEAD:
                before, encoded = waiting.popleft()
                if not problems.count:
                    yield before, encoded.result()
        while waiting and not problems.count:
            before, encoded = waiting.popleft()
            yield before, encoded.result()


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
        if placed:
            split.lengths.add([len(example.text) for _, example in placed], None)
        _note(split, placed)
        return
    learn_all = reading.loss_on == "all"
    examples = [side for _, example in placed for side in example.sides]
    records = tokenizer.records_of(examples, encoded, learn_all=learn_all, limit=reading.limit)
    if not placed:
        return
    split.sides = count = len(placed[0][1].sides)
    by_example = [records[at : at + count] for at in range(0, len(records), count)]
    split.lengths.add(
        [max(side.full_length for side in sides) for sides in by_example],
        [max(side.first_learned for side in sides) for sides in by_example],
    )
    kept = [
        (each, sides)
        for each, sides in zip(placed, by_example, strict=True)
        if all(side.first_learned < len(side.tokens) for side in sides)
    ]
    split.dropped += len(placed) - len(kept)
    if len(kept) < len(placed):
        split.unlearned += sum(
            any(side.first_learned >= side.full_length for side in sides) for sides in by_example
        )
    is_harmless = _note(split, [each for each, _ in kept])
    for ((place, _), sides), is_shown in zip(kept, is_harmless, strict=True):
        if is_shown and len(split.shown) < _MAX_SHOWN:
            split.shown.append((place, sides[0]))
    learned = [side for _, sides in kept for side in sides]
    # Nothing precedes the first token, so it cannot be predicted.
    split.learned_tokens += sum(int(np.count_nonzero(side.learned[1:])) for side in learned)
    if split.tokens is not None:
        split.tokens.extend(learned)


def _note(split: Loaded, placed: Sequence[tuple[Place, Example]]) -> list[bool]:
    """Keeps what the report needs of examples, and returns of each whether it is without a hint at personal data."""
    split.places.extend([place for place, _ in placed])
    split.exact.extend([exact_key(example) for _, example in placed])
    split.near.extend([near_key(example) for _, example in placed])
    split.languages.update(language_of(example.learned_text) for _, example in placed)
    is_harmless = []
    for place, example in placed:
        found = list(hints_in("\n".join([piece.text for side in example.sides for piece in side.pieces])))
        is_harmless.append(not found)
        split.hints.update(found)
        for kind in dict.fromkeys(found):
            places = split.hint_places.setdefault(kind, [])
            if len(places) < MAX_PLACES:
                places.append(str(place))
    return is_harmless


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
