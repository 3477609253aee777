# SPDX-License-Identifier: Apache-2.0
"""Reads every record of every split into tokens, and reports all problems together."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from tuneyard_api.job_inputs import Template
from tuneyard_api.pod_contract import ResolvedJob

from tuneyard_data.chat_template import PlainChat
from tuneyard_data.examples import Example, Renderer
from tuneyard_data.kept_tokens import KeptTokens
from tuneyard_data.languages import language_of
from tuneyard_data.loaded import MAX_PLACES, MAX_SHOWN, Loaded
from tuneyard_data.near_duplicates import exact_key, near_key
from tuneyard_data.personal_data import hints_in
from tuneyard_data.reading import read_records
from tuneyard_data.records import DataFile, Place, Problems, Record, RecordProblem
from tuneyard_data.refused import DataRefused
from tuneyard_data.templates import renderer_of
from tuneyard_data.tokenization import TextTokenizer
from tuneyard_data.workers import Workers

_BATCH = 200
"""Records that are looked at together, at most; more of them make it no faster."""
_BATCH_CHARACTERS = 4_000_000
"""Characters of records after which a batch ends, so that long ones need no more memory."""


BEGINS_TWICE = (
    "the text begins with the token that the model's tokenizer writes before each text, so that it is there twice; try the text"
    " without it"
)


@dataclass(frozen=True)
class Reading:
    """How records are read: what a job says of its data set, and the tokens that a record may have."""

    format: str = "auto"
    template: Template | None = None
    loss_on: str = "completion"
    limit: int = 2048
    folder: Path | None = None
    """Where tokens are kept until they are gathered; None keeps none. In memory are 100 bytes of each record."""


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
    with Workers(partial(_look_at, render, tokenizer, reading)) as workers:
        for file in files:
            if file.split not in splits:
                splits[file.split] = Loaded.empty(file.split, render, reading.folder)
            split = splits[file.split]
            split.sources.append(file)
            split.file = ", ".join(filter(None, (split.file, file.name)))
            before = split.count
            for looked in workers.results(_batches(file, problems)):
                problems.append(looked.problems)
                if problems.count:
                    split.count += looked.part.count
                    continue
                if looked.refused:
                    raise looked.refused
                split.append(looked.part)
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


@dataclass
class _Batch:
    """Some of the records of a file."""

    records: list[Record] = field(default_factory=list)
    problems: Problems = field(default_factory=Problems)
    """What could not be read behind them."""
    is_tokenised: bool = True


@dataclass
class _LookedAt:
    """What was made of a batch."""

    part: Loaded
    problems: Problems
    refused: DataRefused | None = None
    """Why the tokenizer can't be used."""


def _batches(file: DataFile, problems: Problems) -> Iterator[_Batch]:
    """The records of a file; after the first of all problems the others are only checked, not tokenised."""
    batch, characters = _Batch(), 0
    found = Problems()
    for record in read_records(file.path, file.name, found):
        is_full = len(batch.records) == _BATCH or characters > _BATCH_CHARACTERS
        if is_full or found.count:
            batch.problems.append(found)
            batch.is_tokenised = not problems.count
            yield batch
            batch, characters = _Batch(), 0
            found.clear()
        batch.records.append(record)
        characters += len(record.source)
    batch.problems.append(found)
    batch.is_tokenised = not problems.count
    yield batch


def _look_at(render: Renderer, tokenizer: TextTokenizer | None, reading: Reading, batch: _Batch) -> _LookedAt:
    """Everything that has to be known of some records by themselves."""
    part = Loaded("", tokens=None if reading.folder is None else KeptTokens(None))
    looked = _LookedAt(part, Problems())
    placed: list[tuple[Place, Example]] = []
    for record in batch.records:
        try:
            example = render(record)
        except RecordProblem as problem:
            looked.problems.add(problem.place, str(problem))
        else:
            part.notes.update(example.notes)
            placed.append((record.place, example))
    looked.problems.append(batch.problems)
    part.count = len(batch.records)
    if looked.problems.count or not batch.is_tokenised or not placed:
        return looked
    if tokenizer is None:
        part.lengths.add([len(example.text) for _, example in placed], None)
        _note(part, placed)
        return looked
    try:
        _tokenise(part, placed, tokenizer, reading)
    except DataRefused as refused:
        looked.refused = refused
    return looked


def _tokenise(
    part: Loaded, placed: list[tuple[Place, Example]], tokenizer: TextTokenizer, reading: Reading
) -> None:
    examples = [side for _, example in placed for side in example.sides]
    records = tokenizer.tokenize(examples, learn_all=reading.loss_on == "all", limit=reading.limit)
    begin = _beginning_of(tokenizer)
    doubled = [
        bool(begin) and not example.has_special_tokens and record.tokens[:2].tolist() == begin * 2
        for example, record in zip(examples, records, strict=True)
    ]
    part.sides = count = len(placed[0][1].sides)
    part.notes.update([BEGINS_TWICE] * sum(doubled[::count]))
    by_example = [records[at : at + count] for at in range(0, len(records), count)]
    part.lengths.add(
        [max(side.full_length for side in sides) for sides in by_example],
        [max(side.first_learned for side in sides) for sides in by_example],
    )
    kept = [
        (each, sides)
        for each, sides in zip(placed, by_example, strict=True)
        if all(side.first_learned < len(side.tokens) for side in sides)
    ]
    part.dropped += len(placed) - len(kept)
    if len(kept) < len(placed):
        part.unlearned += sum(
            any(side.first_learned >= side.full_length for side in sides) for sides in by_example
        )
    is_harmless = _note(part, [each for each, _ in kept])
    for ((place, _), sides), is_shown in zip(kept, is_harmless, strict=True):
        if is_shown and len(part.shown) < MAX_SHOWN:
            part.shown.append((place, sides[0]))
    learned = [side for _, sides in kept for side in sides]
    # Nothing precedes the first token, so it cannot be predicted.
    part.learned_tokens += sum(int(np.count_nonzero(side.learned[1:])) for side in learned)
    if part.tokens is not None:
        part.tokens.extend(learned)


def _beginning_of(tokenizer: TextTokenizer) -> list[int]:
    """The token that the tokenizer writes before each text, if there is one."""
    alone, marked = (tokenizer.prompt_ids("a", has_special_tokens=each) for each in (True, False))
    return marked[: len(marked) - len(alone)][:1]


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
