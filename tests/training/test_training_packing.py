# SPDX-License-Identifier: Apache-2.0
"""Packing: nothing lost, nothing too long, few sequences; and the arithmetic of prepared splits."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tuneyard_data.kept_tokens import KeptTokens
from tuneyard_data.packing import pack
from tuneyard_data.tokenization import TokenizedRecord
from tuneyard_trainer.workspace.prepared import Split, save_split

LIMIT = 32
LENGTHS = st.lists(st.integers(2, LIMIT), min_size=1, max_size=60)


def packed(lengths):
    return list(pack(np.asarray(lengths), LIMIT))


@given(LENGTHS)
def test_every_record_is_in_exactly_one_sequence(lengths):
    assert sorted(index for sequence in packed(lengths) for index in sequence) == list(range(len(lengths)))


@given(LENGTHS)
def test_no_sequence_is_too_long_and_no_two_would_fit_together(lengths):
    sums = sorted(sum(lengths[index] for index in sequence) for sequence in packed(lengths))
    assert sums[-1] <= LIMIT
    # Were two at most half full, best-fit would have joined them.
    assert len(sums) < 2 or sums[0] + sums[1] > LIMIT


def test_records_that_fill_each_other_share_sequences():
    assert packed([20, 12, 10, 22, 32]) == [[0, 1], [2, 3], [4]]


def records_of(lengths):
    records = []
    for number, length in enumerate(lengths):
        learned = np.arange(length) >= length // 2
        records.append(TokenizedRecord(np.full(length, number, dtype=np.int32), learned, length, 1))
    return records


def split_of(lengths, sequences):
    return Split.of(records_of(lengths), sequences)


@given(LENGTHS)
def test_learned_tokens_are_counted_without_first_tokens(lengths):
    split = split_of(lengths, packed(lengths))
    counted = [int(split.sequence(index)[1].sum()) for index in range(len(split))]
    assert counted == split.learned_per_sequence().tolist()


def test_sequence_numbers_its_records_and_never_learns_a_first_token():
    split = split_of([3, 2], [[0, 1]])
    tokens, learned, numbers = split.sequence(0)
    assert tokens.tolist() == [0, 0, 0, 1, 1]
    assert numbers.tolist() == [1, 1, 1, 2, 2]
    assert learned.tolist() == [False, True, True, False, True]


@given(LENGTHS)
def test_split_comes_back_from_its_file(lengths):
    sequences, records = pack(np.asarray(lengths), LIMIT), records_of(lengths)
    expected = Split.of(records, list(sequences))
    with tempfile.TemporaryDirectory() as folder:
        kept = KeptTokens(Path(folder))
        kept.extend(records[:20])
        kept.extend(records[20:])
        written = save_split(Path(folder) / "s.safetensors", kept.lengths(), kept.read_all, sequences)
        again = Split.load(Path(folder) / "s.safetensors")
    for name in ("tokens", "learned", "records", "sequences"):
        assert getattr(again, name).tolist() == getattr(expected, name).tolist()
        assert getattr(again, name).dtype == getattr(expected, name).dtype
    assert written.sequences == len(expected)
    assert written.tokens == len(expected.tokens)
    assert written.learned == expected.learned_per_sequence().sum()
