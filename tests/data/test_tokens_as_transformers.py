# SPDX-License-Identifier: Apache-2.0
"""Texts and tokens equal those of transformers; learned are the tokens of the completion and no other."""

import json
import os
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoTokenizer
from tuneyard_data.examples import Example, Piece
from tuneyard_data.preview import render_preview
from tuneyard_data.records import Place, Record
from tuneyard_data.seams import TokenBytes, cuts_by_offsets
from tuneyard_data.templates import renderer_of
from tuneyard_data.tokenization import TextTokenizer

TINY_LLAMA = Path(__file__).parents[2] / "examples/models/tiny-llama"
DRAWS = 20_000 if os.environ.get("TUNEYARD_LONG") else 300
CORPUS = [
    "user: question 0\nassistant: yes 0",
    "It is sunny in town.",
    "[INST] what? [/INST] answer",
    "aa bb  cc\n\n",
]
SPECIAL = ["<s>", "</s>", "<|end|>"]


def train(kind: str) -> Tokenizer:
    """A small tokenizer of a kind.

    `bytes` as GPT-2 and Llama 3 have it, `trimmed` with offsets without spaces, `mark` as Llama 2 (a space mark before each text), `metaspace` as its converted form, `ends` closes every text, `strips` takes the white space behind special tokens as
    Phi-3 does, `folded` changes texts before they are tokenised.
    """
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token=None))
    if kind in {"bytes", "trimmed", "ends", "strips", "folded"}:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        if kind == "mark":
            tokenizer.normalizer = normalizers.Sequence(
                [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
            )
        else:
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        alphabet = []
    bytes_ = [f"<0x{value:02X}>" for value in range(256)] if not alphabet else []
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=[*SPECIAL, *bytes_], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if bytes_:
        # As special tokens the bytes would be cut out of texts.
        state = json.loads(tokenizer.to_str())
        state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in SPECIAL]
        tokenizer = Tokenizer.from_str(json.dumps(state))
    if kind == "folded":
        tokenizer.normalizer = normalizers.NFKC()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, rstrip=kind == "strips", normalized=False) for token in SPECIAL]
    )
    around = "<s> $A </s>" if kind == "ends" else "<s> $A"
    ids = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    template = processors.TemplateProcessing(single=around, special_tokens=ids)
    if kind == "trimmed":
        template = processors.Sequence([processors.ByteLevel(trim_offsets=True), template])
    tokenizer.post_processor = template
    return tokenizer


KINDS = ("bytes", "trimmed", "mark", "metaspace", "ends", "strips", "folded")
TEMPLATES = {
    "roles": (
        "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}"
        "{{ eos_token if m.role == 'assistant' else '\n' }}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    ),
    "turns": (
        "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] | trim }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
    ),
    "marks": (
        "{% for m in messages %}{{ '<s>' if m.role == 'user' else bos_token }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<s>\n{% endif %}"
    ),
    "calls": (
        "{{ bos_token }}{% if tools %}{{ tools | tojson }}\n{% endif %}{% for m in messages %}{{ m.role }}: {{ m.content or '' }}"
        "{% for call in m.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}"
        "{{ eos_token if m.role == 'assistant' else '\n' }}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    ),
    "instructions": (
        "{{ bos_token }}{% for m in messages %}{% if m.role != 'assistant' %}[INST] {{ m.content }} [/INST]"
        "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
    ),
}


@cache
def tokenizers_of(kind, name):
    """Ours and transformers', of one folder."""
    with TemporaryDirectory() as root:
        folder, tokenizer = Path(root), train(kind)
        tokenizer.save(str(folder / "tokenizer.json"))
        shutil.copy(TINY_LLAMA / "config.json", folder)
        config = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        (folder / "chat_template.jinja").write_text(TEMPLATES[name])
        stops = [tokenizer.token_to_id(token) for token in ("</s>", "<|end|>")]
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": stops}))
        return TextTokenizer(folder), AutoTokenizer.from_pretrained(root)


PARTS = ["a", "b", " ", "0", "1", "\n", ".", "yes", " it", "é", "€", "日", "e\u0301", "ﬁ"]
WORDS = st.lists(st.sampled_from(PARTS), min_size=1, max_size=12).map("".join).filter(str.strip)
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


@dataclass(frozen=True)
class Turn:
    """What a person says and what follows: perhaps a call of a tool with its result, and an answer."""

    asked: str
    answer: str
    weight: int | None
    """Weight of the answer; None: it has none."""
    call: tuple[str, str] | None
    """An argument of the call, and what the tool answers."""


TURNS = st.builds(
    Turn, WORDS, WORDS, st.sampled_from([None, 0, 1]), st.none() | st.tuples(st.sampled_from(PARTS), WORDS)
)
CHATS = st.tuples(st.none() | WORDS, st.lists(TURNS, min_size=1, max_size=3))


def chat_of(system, turns, *, has_calls):
    """The values of a record, and for each message of the assistant whether it is learned."""
    messages = [] if system is None else [{"role": "system", "content": system}]
    learned = []
    for turn in turns:
        messages.append({"role": "user", "content": turn.asked})
        if turn.call and has_calls:
            function = {"name": "look", "arguments": {"at": turn.call[0]}}
            call = {"id": "one", "type": "function", "function": function}
            messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
            messages.append({"role": "tool", "tool_call_id": "one", "content": turn.call[1]})
            learned.append(True)
        weight = {} if turn.weight is None else {"weight": turn.weight}
        messages.append({"role": "assistant", "content": turn.answer, **weight})
        learned.append(turn.weight != 0)
    has_tools = any("tool_calls" in message for message in messages)
    return {"messages": messages} | ({"tools": [TOOL]} if has_tools else {}), learned


LOOSE = settings(
    max_examples=DRAWS,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.mark.timeout(3600)
@LOOSE
@given(kind=st.sampled_from(KINDS), name=st.sampled_from(list(TEMPLATES)), chat=CHATS)
def test_a_chat_is_what_transformers_makes_of_it(kind, name, chat):
    ours, theirs = tokenizers_of(kind, name)
    values, learned = chat_of(*chat, has_calls=name == "calls")
    messages, tools = values["messages"], values.get("tools")
    record = Record(Place("t.jsonl", 1), values)
    example = renderer_of("auto", None, ours.chat_template(), record)(record)
    whole = theirs.apply_chat_template(messages, tools=tools, tokenize=False)
    text = "".join(piece.text for piece in example.pieces)
    assert whole.startswith(text)
    assert whole[len(text) :].strip() == ""
    (tokenized,) = ours.tokenize([example], learn_all=False, limit=10_000)
    ids = tokenized.tokens.tolist()
    assert theirs.decode(ids, skip_special_tokens=False) == theirs.decode(
        theirs(text, add_special_tokens=False).input_ids, skip_special_tokens=False
    )
    # A turn that is not learned is a part of the prompt, as a serving program sends it.
    answered = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
    first = next((at for at, is_learned in zip(answered, learned, strict=True) if is_learned), answered[-1])
    prompt = theirs.apply_chat_template(
        messages[:first], tools=tools, add_generation_prompt=True, return_dict=False
    )
    assert ids[: len(prompt)] == prompt
    assert not tokenized.learned[: len(prompt)].any()
    assert ids[-1] in ours.stop_ids
    answers = [piece.text for piece in example.pieces if piece.is_learned]
    assert len(answers) == sum(learned)
    assert tokenized.learned.any() == any(learned)
    if kind in {"strips", "folded"}:
        return  # these tokenizers change the text itself
    shown = render_preview([tokenized], ours)
    assert [part.split("⟧")[0] for part in shown.split("⟦")[2:]] == answers


@pytest.mark.timeout(3600)
@LOOSE
@given(kind=st.sampled_from(KINDS), prompt=WORDS, completion=WORDS)
def test_a_completion_is_learned_after_the_prompt_that_a_server_makes(kind, prompt, completion):
    ours, theirs = tokenizers_of(kind, "roles")
    example = Example(
        (Piece(prompt, is_learned=False), Piece(completion, is_learned=True)), prompt, completion
    )
    (tokenized,) = ours.tokenize([example], learn_all=False, limit=10_000)
    asked = theirs(prompt).input_ids
    asked = asked[:-1] if kind == "ends" else asked
    ids, learned = tokenized.tokens.tolist(), tokenized.learned.tolist()
    assert (ids[: len(asked)], any(learned[: len(asked)]), all(learned[len(asked) :])) == (asked, False, True)
    assert ours.prompt_ids(prompt, has_special_tokens=False) == asked
    assert ids[-1] == ours.end_id
    both = theirs.decode(ids, skip_special_tokens=True)
    assert both == theirs.decode(theirs(prompt + completion).input_ids, skip_special_tokens=True)


@LOOSE
@given(parts=st.lists(WORDS, min_size=2, max_size=4))
def test_both_ways_to_find_seams_agree(parts):
    backend = tokenizers_of("bytes", "roles")[1].backend_tokenizer
    encoding = backend.encode("".join(parts), add_special_tokens=False)
    [cuts] = TokenBytes.of(backend).cuts([encoding.ids], [parts])
    by_offsets = cuts_by_offsets(encoding, [len(part) for part in parts])
    assert by_offsets == (None if None in cuts else cuts)


def test_special_tokens_are_found_in_every_file_that_names_them(tmp_path):
    for name in ("config.json", "tokenizer.json", "generation_config.json"):
        shutil.copy(TINY_LLAMA / name, tmp_path)
    config = {
        "eos_token": "</s>",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": {
            "3072": {
                "content": "<|im_end|>",
                "special": True,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "single_word": False,
            }
        },
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"bos_token": "<s>"}))
    (tmp_path / "chat_template.jinja").write_text(TEMPLATES["roles"].replace("eos_token", "'<|im_end|>'"))
    ours, theirs = TextTokenizer(tmp_path), AutoTokenizer.from_pretrained(str(tmp_path))
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    record = Record(Place("t.jsonl", 1), {"messages": messages})
    example = renderer_of("auto", None, ours.chat_template(), record)(record)
    (tokenized,) = ours.tokenize([example], learn_all=False, limit=100)
    assert tokenized.tokens.tolist()[:-1] == theirs.apply_chat_template(messages, return_dict=False)


def test_nothing_is_learned_behind_the_token_that_ends_a_turn():
    """The template ends a turn with another token than the tokenizer's own end, and writes a line break behind it."""
    ours, _ = tokenizers_of("bytes", "turns")
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    record = Record(Place("t.jsonl", 1), {"messages": messages})
    example = renderer_of("auto", None, ours.chat_template(), record)(record)
    (tokenized,) = ours.tokenize([example], learn_all=False, limit=100)
    assert ours.decode_all(tokenized.tokens[tokenized.learned].tolist()) == "b<|end|>"
    assert tokenized.learned[-2:].all()


def test_a_turn_that_is_not_learned_at_the_end_has_no_learned_end():
    ours, _ = tokenizers_of("bytes", "roles")
    example = Example((Piece("a", is_learned=False), Piece("b", is_learned=False)), "a", "b")
    (tokenized,) = ours.tokenize([example], learn_all=False, limit=100)
    assert not tokenized.learned.any()
