# SPDX-License-Identifier: Apache-2.0
"""The full report on the data: `<workspace>/prepare-report.json`, and the same for people in the log.

The rules, which docs/how-to/your-own-data.md repeats:

- a record that is in the training data word for word is leaked exactly, one that differs in spelling alone nearly;
- any leak into validation or test is a warning; if more than half of a split is leaked exactly, the job is refused,
  as its scores would measure memory and nothing else;
- duplicates, cut records and hints at personal data are warned of and never refused.
"""

from collections import Counter
from collections.abc import Mapping
from math import ceil

import numpy as np
from pydantic import Field
from tuneyard_api.base import Contract
from tuneyard_api.problems import clip

from tuneyard_data.lengths import LIMITS, LengthCounts
from tuneyard_data.loaded import MAX_PLACES, Loaded
from tuneyard_data.near_duplicates import repeated, shared
from tuneyard_data.personal_data import KINDS
from tuneyard_data.preview import render_preview
from tuneyard_data.refused import DataRefused
from tuneyard_data.tokenization import TextTokenizer

REPORT = "prepare-report.json"
MAX_SHOWN_CHARACTERS = 4000
_LONG_TAIL = 0.05
"""Share of truncated records above which there is a warning."""
_TOO_MUCH_LEAKED = 0.5
_BINS = 12


class Bin(Contract):
    """Records of `at_least` to `at_most` tokens."""

    at_least: int
    at_most: int
    records: int


class Truncation(Contract):
    """What a maxSequenceLength of `limit` tokens would do."""

    limit: int
    cut: int
    """Records that are longer."""
    dropped: int
    """Records of which nothing learned would be left."""


class Lengths(Contract):
    """Tokens of the records of a file, before cutting; characters where there was no model."""

    shortest: int
    median: int
    percentile_95: int
    longest: int
    limit: int
    cut: int
    """Records that were longer than `limit`."""
    dropped: int
    """Records of which nothing learned was left within `limit`."""
    unlearned: int = 0
    """Those of them that have nothing to learn at any limit."""
    histogram: tuple[Bin, ...]
    truncation: tuple[Truncation, ...] = ()
    """The same for other limits, up to the first at which nothing is cut; empty without a model."""


class Pair(Contract):
    """Two places that hold the same record."""

    place: str
    same_as: str


class Repetition(Contract):
    """Records that appear earlier, or in another split."""

    exact: int
    """Records that are equal word for word."""
    near: int
    """Records that differ only in spelling, without those in `exact`."""
    first: tuple[Pair, ...]


class SplitReport(Contract):
    """One file."""

    file: str
    records: int
    lengths: Lengths
    duplicates: Repetition
    learned_tokens: int = 0
    """Tokens under the loss after cutting; 0 without a model."""
    languages: dict[str, int] = Field(default_factory=dict)
    """Records by the language of what is learned, a guess; the most frequent first."""


class Leak(Repetition):
    """Records of `split` that are also in `of`."""

    split: str
    of: str


class Hint(Contract):
    """Places that look like personal data or a secret. The text itself is never repeated."""

    kind: str
    count: int
    first: tuple[str, ...]


class ShownRecord(Contract):
    """A record as the model sees it, special tokens included."""

    place: str
    text: str


class DataReport(Contract):
    """prepare-report.json."""

    schema_version: int = 1
    plan_digest: str
    shown: ShownRecord | None
    """The first training record without a hint; None if there is none."""
    splits: dict[str, SplitReport]
    leaks: tuple[Leak, ...]
    hints: tuple[Hint, ...]

    @property
    def duplicates(self) -> int:
        """Number of exact duplicates in the training data."""
        return self.splits["training"].duplicates.exact

    @property
    def leaked(self) -> int:
        """Number of validation and test records that are also in the training data, exactly or nearly."""
        return sum(leak.exact + leak.near for leak in self.leaks if leak.of == "training")

    @property
    def hint_count(self) -> int:
        """The number of hints of all kinds."""
        return sum(hint.count for hint in self.hints)

    def content(self) -> bytes:
        """The content of prepare-report.json."""
        return (self.model_dump_json(by_alias=True, indent=2) + "\n").encode()

    def refuse_if_leaked(self) -> None:
        """Apply the module's rule on leaks.

        Raises:
            DataRefused: naming every split that mostly repeats the training data.
        """
        wrong = []
        for leak in self.leaks:
            records = self.splits[leak.split].records
            if leak.of == "training" and leak.exact > _TOO_MUCH_LEAKED * records:
                pair = leak.first[0]
                wrong.append(
                    f"dataset.{leak.split}: {leak.exact} of {records} records are in the training data as well"
                    f" (first {pair.place}, which is {pair.same_as}); scores on them would measure memory; try other"
                    f" records, or leave dataset.{leak.split} out: validationFraction holds out what is not trained on"
                )
        if wrong:
            raise DataRefused("\n".join(wrong))


def build_report(
    splits: Mapping[str, Loaded], tokenizer: TextTokenizer | None, limit: int, plan_digest: str
) -> DataReport:
    """The report on what the files hold, before anything is held out."""
    leaks = []
    for name, of in (("validation", "training"), ("test", "training"), ("test", "validation")):
        if name in splits and of in splits:
            found = _repetition(
                shared(splits[name].exact, splits[of].exact),
                shared(splits[name].near, splits[of].near),
                splits[name],
                splits[of],
            )
            leaks.append(Leak(split=name, of=of, **found.model_dump(by_alias=False)))
    return DataReport(
        plan_digest=plan_digest,
        shown=None if tokenizer is None else _shown(splits["training"], tokenizer),
        splits={
            name: SplitReport(
                file=split.file,
                records=split.count,
                lengths=_lengths(split, limit),
                duplicates=_repetition(repeated(split.exact), repeated(split.near), split, split),
                learned_tokens=split.learned_tokens,
                languages=dict(split.languages.most_common()),
            )
            for name, split in splits.items()
        },
        leaks=tuple(leaks),
        hints=_hints(splits),
    )


def warnings_of(report: DataReport) -> list[str]:
    """The warnings for people, the lengths of all splits first."""
    warnings = []
    for name, split in report.splits.items():
        lengths = split.lengths
        if lengths.unlearned:
            warnings.append(
                f"{name}: {lengths.unlearned} of {split.records} records dropped: they say of each answer that it is not learned"
            )
        if filled := lengths.dropped - lengths.unlearned:
            warnings.append(
                f"{name}: {filled} of {split.records} records dropped: their prompt alone fills"
                f" maxSequenceLength {lengths.limit}"
            )
        if lengths.cut > _LONG_TAIL * split.records:
            warnings.append(
                f"{name}: {lengths.cut} of {split.records} records cut to {lengths.limit} tokens; the longest has"
                f" {lengths.longest}"
            )
    if report.duplicates:
        warnings.append(f"training: {report.duplicates} records are exact duplicates of others")
    for leak in report.leaks:
        if leak.of == "training" and leak.exact + leak.near:
            spelling = f" ({leak.near} in other spelling)" if leak.near else ""
            warnings.append(
                f"{leak.split}: {leak.exact + leak.near} of {report.splits[leak.split].records} records are in the"
                f" training data as well{spelling}: scores on them measure memory"
            )
    if report.hints:
        kinds = ", ".join(f"{hint.count} x {hint.kind}" for hint in report.hints)
        warnings.append(f"the data may hold personal data or secrets: {kinds}; the report has the places")
    return warnings


def text_of(report: DataReport) -> str:
    """The report for a log."""
    lines = []
    for name, split in report.splits.items():
        lengths = split.lengths
        has_tokens = bool(lengths.truncation)
        lines.append(
            f"{name}: {split.file}: {split.records} records of {lengths.shortest} to {lengths.longest}"
            f" {'tokens' if has_tokens else 'characters'}"
            f" (half at most {lengths.median}, 95 of 100 at most {lengths.percentile_95})"
            + (
                f"; limit {lengths.limit}: {lengths.cut} cut, {lengths.dropped} dropped;"
                f" {split.learned_tokens} tokens learned"
                if has_tokens
                else ""
            )
        )
        most = max(part.records for part in lengths.histogram)
        lines += [
            f"  {part.at_least:>7}-{part.at_most:<7} {part.records:>8} {'#' * ceil(40 * part.records / most)}"
            for part in lengths.histogram
        ]
        lines += [
            f"  limit {each.limit}: {each.cut} records cut, {each.dropped} dropped"
            for each in lengths.truncation
            if each.limit != lengths.limit
        ]
        languages = ", ".join(f"{count} {language}" for language, count in split.languages.items())
        lines.append(f"  languages (a guess): {languages}")
        lines += _repetition_lines("duplicates", split.duplicates)
    for leak in report.leaks:
        lines += _repetition_lines(f"{leak.split} records in {leak.of}", leak)
    lines += [f"looks like {hint.kind}: {hint.count}, at {', '.join(hint.first)}" for hint in report.hints]
    if report.shown is not None:
        lines += [f"the record at {report.shown.place} as the model sees it:", report.shown.text.rstrip("\n")]
    return "\n".join(lines)


def _repetition_lines(what: str, found: Repetition) -> list[str]:
    if not found.first:
        return []
    pairs = ", ".join(f"{pair.place} is {pair.same_as}" for pair in found.first)
    return [f"  {what}: {found.exact} exact, {found.near} in other spelling: {pairs}"]


def _repetition(exact: np.ndarray, near: np.ndarray, split: Loaded, of: Loaded) -> Repetition:
    """The repetitions, exact ones first. Equal records are near-duplicates too, so `near` includes `exact`."""
    merely_alike = near[~np.isin(near[:, 0], exact[:, 0])]
    pairs = np.concatenate([exact[:MAX_PLACES], merely_alike[:MAX_PLACES]])[:MAX_PLACES].tolist()
    first = tuple(Pair(place=str(split.places[at]), same_as=str(of.places[other])) for at, other in pairs)
    return Repetition(exact=len(exact), near=len(merely_alike), first=first)


def _hints(splits: Mapping[str, Loaded]) -> tuple[Hint, ...]:
    """The hints of all splits."""
    counts = sum((split.hints for split in splits.values()), Counter[str]())
    places = {
        kind: [place for split in splits.values() for place in split.hint_places.get(kind, ())]
        for kind in counts
    }
    return tuple(
        Hint(kind=kind, count=counts[kind], first=tuple(places[kind][:MAX_PLACES]))
        for kind in KINDS
        if counts[kind]
    )


def _shown(split: Loaded, tokenizer: TextTokenizer) -> ShownRecord | None:
    """The first record without a hint."""
    if not split.shown:
        return None
    place, record = split.shown[0]
    text = render_preview([record], tokenizer)
    return ShownRecord(place=str(place), text=clip(text, MAX_SHOWN_CHARACTERS))


def _lengths(split: Loaded, limit: int) -> Lengths:
    lengths = split.lengths
    width = max(1, ceil(lengths.longest / _BINS))
    # Round widths are easier to read.
    width = next(step * 10**power for power in range(12) for step in (1, 2, 5) if step * 10**power >= width)
    bins = Counter[int]()
    for length, count in lengths.counts.items():
        bins[length // width] += count
    return Lengths(
        shortest=lengths.shortest,
        median=lengths.percentile(50),
        percentile_95=lengths.percentile(95),
        longest=lengths.longest,
        limit=limit,
        cut=lengths.above(limit) if lengths.has_tokens else 0,
        dropped=split.dropped,
        unlearned=split.unlearned,
        histogram=tuple(
            Bin(at_least=number * width, at_most=(number + 1) * width - 1, records=bins[number])
            for number in range(min(bins), max(bins) + 1)
        ),
        truncation=_truncation(lengths),
    )


def _truncation(lengths: LengthCounts) -> tuple[Truncation, ...]:
    if not lengths.has_tokens:
        return ()
    # Up to the first limit at which nothing is cut.
    count = 1 + sum(limit < lengths.longest for limit in LIMITS)
    return tuple(
        Truncation(limit=limit, cut=lengths.above(limit), dropped=lengths.dropped_at(limit))
        for limit in LIMITS[:count]
    )
