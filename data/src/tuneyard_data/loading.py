# SPDX-License-Identifier: Apache-2.0
"""Reads every record of every split into tokens, and reports all problems together."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from tuneyard_api.pod_contract import ResolvedJob

from tuneyard_data.examples import Example, Renderer
from tuneyard_data.near_duplicates import near_key
from tuneyard_data.reading import read_records
from tuneyard_data.records import DataFile, Place, Problems, Record, RecordProblem
from tuneyard_data.refused import DataRefused
from tuneyard_data.templates import renderer_of
from tuneyard_data.tokenization import TextTokenizer, TokenizedRecord

_BATCH = 1000
"""Records that are tokenised at once."""


@dataclass
class Loaded:
    """One split with its tokens."""

    name: str
    file: str = ""
    """Name of its file in messages."""
    examples: list[Example] = field(default_factory=list)
    records: list[TokenizedRecord] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    """Where each example begins."""
    read: int = 0
    """Records in the file."""
    dropped: int = 0
    """Records that had no learned token left after truncation."""
    lengths: list[int] = field(default_factory=list)
    """Number of tokens of every record before truncation."""
    notes: Counter[str] = field(default_factory=Counter)
    """Sentences about records that a person should know, each with the number of its records."""

    def take(self, chosen: list[int], name: str) -> "Loaded":
        """The part of the split with these indices."""
        return replace(
            self,
            name=name,
            examples=[self.examples[i] for i in chosen],
            records=[self.records[i] for i in chosen],
            places=[self.places[i] for i in chosen],
        )


def load_splits(
    job: ResolvedJob,
    files: list[DataFile],
    tokenizer: TextTokenizer,
    limit: int,
    records_read: Callable[[int], None],
) -> dict[str, Loaded]:
    """Every record of every split; all problems of all splits are reported together.

    `records_read` is called now and then with the number of records read from the current split.

    Raises:
        DataRefused: with all problems.
    """
    problems = Problems()
    chat, decided = tokenizer.chat_template(), list[Renderer]()

    def render(record: Record) -> Example:
        # The first training record decides the format of every split.
        if not decided:
            decided.append(renderer_of(job.dataset.format, job.dataset.template, chat, record))
        return decided[0](record)

    splits = {}
    for file in files:
        split = Loaded(file.split, file.name)
        for examples in _batches(_examples(file, render, problems, split)):
            # After the first problem the other records are only checked, not tokenised.
            if not problems.count:
                _tokenize(examples, split, tokenizer, learn_all=job.dataset.loss_on == "all", limit=limit)
            records_read(split.read)
        if not split.read and not problems.count:
            problems.add(file.name, f"the {file.split} data set is empty")
        splits[file.split] = split
    problems.raise_if_any()
    for split in splits.values():
        if not split.records:
            raise DataRefused(
                f"dataset.{split.name}: everything truncated: of {split.read} records none has a learned token"
                f" within maxSequenceLength {limit}; they have {min(split.lengths)} to {max(split.lengths)} tokens;"
                f" try maxSequenceLength {max(split.lengths)}, or shorter prompts"
            )
    return splits


def _examples(
    file: DataFile, render: Renderer, problems: Problems, split: Loaded
) -> Iterator[tuple[Place, Example]]:
    for record in read_records(file.path, file.name, problems):
        split.read += 1
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


def _tokenize(
    placed: list[tuple[Place, Example]],
    split: Loaded,
    tokenizer: TextTokenizer,
    *,
    learn_all: bool,
    limit: int,
) -> None:
    records = tokenizer.tokenize([example for _, example in placed], learn_all=learn_all, limit=limit)
    for (place, example), record in zip(placed, records, strict=True):
        split.lengths.append(record.full_length)
        # Nothing precedes the first token, so it cannot be predicted.
        if record.learned[1:].any():
            split.examples.append(example)
            split.places.append(place)
            split.records.append(record)
        else:
            split.dropped += 1


def notes_of(splits: Mapping[str, Loaded]) -> list[str]:
    """What a person should know of records: one sentence each, with the number of records."""
    return [
        f"dataset.{split.name}: {count} of {split.read} records: {note}"
        for split in splits.values()
        for note, count in split.notes.items()
    ]


def hold_out(splits: dict[str, Loaded], job: ResolvedJob) -> dict[str, Loaded]:
    """Takes the validation fraction from the training records, by seed; near-duplicates stay on one side."""
    fraction = job.dataset.validation_fraction
    if not fraction:
        return splits
    training = splits["training"]
    contents = [near_key(example) for example in training.examples]
    unique = list(dict.fromkeys(contents))
    if len(unique) < 2:  # noqa: PLR2004  one to learn from, one to measure on
        raise DataRefused(
            f"dataset.validationFraction: {fraction:g} of {len(unique)} different record can't be held out; try more"
            " records, or dataset.validation"
        )
    count = min(max(1, round(fraction * len(unique))), len(unique) - 1)
    order = np.random.default_rng(job.training.seed).permutation(len(unique))
    held_out = {unique[index] for index in order[:count]}
    sides: tuple[list[int], list[int]] = ([], [])
    for index, content in enumerate(contents):
        sides[content in held_out].append(index)
    return {
        "training": training.take(sides[0], "training"),
        "validation": training.take(sides[1], "validation"),
        **{name: split for name, split in splits.items() if name == "test"},
    }
