# SPDX-License-Identifier: Apache-2.0
"""Texts encoded word by word have the ids of the whole text, and tokenizers of which nobody knows that are left alone."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tuneyard_data import known_words
from tuneyard_data.known_words import KnownWords

DRAWS = 20_000 if os.environ.get("TUNEYARD_LONG") else 300
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)
BEHIND = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def split(pattern: str):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), BEHIND])


WAYS = {
    "as GPT-2": BYTES,
    "digits apart": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), BYTES]),
} | {f"pattern {number}": split(pattern) for number, pattern in enumerate(sorted(known_words._PATTERNS))}
CORPUS = [
    "It's 12345 o'clock, isn't it?  No.\n\n    def main(self): return [x for x in y]\n",
    "the the The THE über straße 東京 \u041f\u0440\u0438\u0432\u0435\u0442\u00a0\u043c\u0438\u0440 é e\u0301 /a/b//c\n/d",
    "user: question 0\r\n\r\n\tassistant: yes 0 ... !!! ##",
]


def tokenizer_of(way, tokens=("<s>", "<s>a", "<|end of|>"), **changes) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = way
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    added = [AddedToken(token, special=True, **({"normalized": False} | changes)) for token in tokens]
    tokenizer.add_special_tokens(added)
    return tokenizer


TOKENIZERS = {name: tokenizer_of(way) for name, way in WAYS.items()}
TEXTS = st.lists(
    st.one_of(
        st.sampled_from([" ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u2003", "\x1c", "\u0301", "'s", "'", "/", "7", ".", "<s>a"]),
        st.sampled_from(["<s>", "<|end of|>", "the", "The", "übe", "東京", "12345", "\u200b", "\u1680", "\x85", "!"]),
        st.text(max_size=4),
    ),
    max_size=16,
).map("".join)  # fmt: skip


@pytest.mark.parametrize("normalizer", [None, normalizers.NFC()], ids=["as it is", "NFC"])
@pytest.mark.parametrize("name", WAYS)
def test_words_have_the_ids_that_they_have_in_the_text(name, normalizer):
    tokenizer = Tokenizer.from_str(TOKENIZERS[name].to_str())
    tokenizer.normalizer = normalizer
    encode = lambda texts: tokenizer.encode_batch_fast(texts, add_special_tokens=False)  # noqa: E731
    words = KnownWords.of(tokenizer, encode)
    assert words is not None

    @settings(max_examples=DRAWS, deadline=None, database=None)
    @given(st.lists(TEXTS, min_size=1, max_size=4))
    def check(texts):
        assert [ids.tolist() for ids in words.ids_of(texts)] == [each.ids for each in encode(texts)]

    check()
    whole = [each.ids for each in encode(CORPUS)]
    assert [ids.tolist() for ids in words.ids_of(CORPUS)] == whole


def test_words_are_forgotten_when_they_take_too_much_memory(monkeypatch):
    tokenizer = TOKENIZERS["as GPT-2"]
    seen = []

    def encode(texts):
        seen.extend(texts)
        return tokenizer.encode_batch_fast(texts, add_special_tokens=False)

    words = KnownWords.of(tokenizer, encode)
    words.ids_of(["the user said"])
    words.ids_of(["the user said"])
    assert sorted(seen) == [" said", " user", "the"]
    monkeypatch.setattr(known_words, "_MOST_BYTES", 10)
    words.ids_of(["the user"])
    assert seen[3:] == [], "what was met last is known once more"
    words.ids_of(["the"])
    words.ids_of(["the user said"])
    assert sorted(seen[3:]) == [" said", " user"], "what was not met since is forgotten"


def test_words_at_the_beginning_are_others_than_those_behind_a_space():
    words = KnownWords.of(
        TOKENIZERS["as GPT-2"],
        encode := lambda texts: TOKENIZERS["as GPT-2"].encode_batch_fast(texts, add_special_tokens=False),
    )
    texts = ["the the", " the", "the", "  the the", "", " ", "<s>the<s> the", "the <s>"]
    for _ in range(2):
        assert [ids.tolist() for ids in words.ids_of(texts)] == [each.ids for each in encode(texts)]


OTHERS = {
    "a space before the text": tokenizer_of(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "no division": tokenizer_of(BEHIND),
    "an unknown pattern": tokenizer_of(split(r"\S+ \S+|\s+")),
    "another order": tokenizer_of(pre_tokenizers.Sequence([BYTES, pre_tokenizers.Digits()])),
    "nothing in a sequence": tokenizer_of(pre_tokenizers.Sequence([])),
    "tokens that take white space": tokenizer_of(BYTES, lstrip=True),
    "tokens in changed text": tokenizer_of(BYTES, normalized=True),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_tokenizers_see_whole_texts(name):
    assert KnownWords.of(OTHERS[name], lambda _: []) is None


@pytest.mark.parametrize("change", [{"dropout": 0.1}, None], ids=["dropout", "folding"])
def test_models_and_normalizers_that_change_words_see_whole_texts(change):
    state = json.loads(TOKENIZERS["as GPT-2"].to_str())
    if change:
        state["model"] |= change
    else:
        state["normalizer"] = {"type": "Lowercase"}
    assert KnownWords.of(Tokenizer.from_str(json.dumps(state)), lambda _: []) is None
