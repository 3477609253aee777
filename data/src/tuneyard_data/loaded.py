# SPDX-License-Identifier: Apache-2.0
"""What is kept of the records of a split: their tokens, where they begin, and what the report says of them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tuneyard_data.columns import Column
from tuneyard_data.examples import Example, Renderer
from tuneyard_data.kept_tokens import KeptTokens
from tuneyard_data.lengths import LengthCounts
from tuneyard_data.near_duplicates import Keys
from tuneyard_data.reading import read_records
from tuneyard_data.records import DataFile, Place, Problems
from tuneyard_data.tokenization import TokenizedRecord

MAX_PLACES = 5
"""Number of places that are named for each finding; all places are counted."""
MAX_SHOWN = 10
"""Records of a split that are shown in tokens, at most."""


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

    def append(self, others: "Places") -> None:
        """Adds the places of further records."""
        if others._files and self._files[-1:] == others._files[:1]:  # noqa: SLF001  of the same class
            self._files.pop()
        rows = others._numbers.array() + np.asarray([0, len(self._files)])  # the file is in the lowest bits  # noqa: SLF001  of the same class
        self._files += others._files  # noqa: SLF001  of the same class
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
    """The tokens of each record that was read and not dropped."""
    chosen: np.ndarray | None = None
    """int64 [examples]: where each example was among those that were read and not dropped; None: all in their order."""
    places: Places = field(default_factory=Places)
    """Where each example that was read and not dropped begins."""
    exact: Keys = field(default_factory=Keys)
    """A key of the text of each example that was read and not dropped."""
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
    """The lengths of all records in the file."""
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

    def append(self, part: "Loaded") -> None:
        """Adds the records of `part`, which is complete, behind those that are there."""
        if self.tokens is not None and part.tokens is not None:
            self.tokens.append(part.tokens)
        self.places.append(part.places)
        self.exact.append(part.exact)
        self.near.append(part.near)
        self.lengths.append(part.lengths)
        self.hints.update(part.hints)
        for kind, places in part.hint_places.items():
            self.hint_places[kind] = [*self.hint_places.get(kind, []), *places][:MAX_PLACES]
        self.languages.update(part.languages)
        self.notes.update(part.notes)
        self.shown = [*self.shown, *part.shown][:MAX_SHOWN]
        self.count += part.count
        self.dropped += part.dropped
        self.unlearned += part.unlearned
        self.learned_tokens += part.learned_tokens
        self.sides = max(self.sides, part.sides)

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
