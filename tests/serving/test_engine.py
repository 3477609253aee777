# SPDX-License-Identifier: Apache-2.0
"""The engine's arithmetic, against a merged model and against the trainer's own decoding."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuneyard_server.registry import Registry
from tuneyard_server.requests import Sampling

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::FutureWarning")]
PROMPTS = ("the quick", "lazy dog", "cat")


def greedy(engine: Any, prompt: str, handle: str | None = None, tokens: int = 16) -> str:
    return str(engine.generate(handle, engine.encode_prompt(prompt), Sampling(tokens, temperature=0)).text)


def test_an_adapter_answers_like_the_model_that_it_is_merged_into(
    tmp_path: Path,
    model_writer: Callable[..., Path],
    adapter_writer: Callable[..., Path],
    base_weights: dict[str, Any],
    merged_weights: dict[str, Any],
) -> None:
    from tuneyard_server.engine import Engine

    adapter_writer(tmp_path / "registry" / "a", seed=1)
    adapter_writer(tmp_path / "registry" / "b", seed=2)
    engine = Engine(model_writer(tmp_path / "base", base_weights), threads=1)
    merged = Engine(model_writer(tmp_path / "merged", merged_weights), threads=1)
    alone = [greedy(engine, prompt) for prompt in PROMPTS]
    files = Registry(tmp_path / "registry").scan().adapters
    handles = [engine.load_adapter(adapter) for adapter in files]
    assert [greedy(engine, prompt, handles[0]) for prompt in PROMPTS] == [greedy(merged, p) for p in PROMPTS]
    assert [greedy(engine, prompt, handles[1]) for prompt in PROMPTS] != [greedy(merged, p) for p in PROMPTS]
    assert [greedy(engine, prompt) for prompt in PROMPTS] == alone
    for handle in handles:
        engine.drop_adapter(handle)
    assert [greedy(engine, prompt) for prompt in PROMPTS] == alone
    assert [greedy(merged, prompt) for prompt in PROMPTS] != alone


def test_greedy_answers_equal_those_of_the_evaluation(
    tmp_path: Path, model_writer: Callable[..., Path], base_weights: dict[str, Any]
) -> None:
    import torch
    from transformers import AutoModelForCausalLM
    from tuneyard_server.engine import Engine
    from tuneyard_trainer.generate import complete
    from tuneyard_trainer.tokenization import TextTokenizer

    def first_tokens(folder: Path) -> list[int]:
        engine = Engine(folder, threads=1)
        ids = engine.encode_prompt(PROMPTS[0])
        answers: list[int] = []
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        for _ in range(6):
            answers.append(int(model(torch.tensor([ids + answers])).logits[0, -1].argmax()))
        return answers

    # A random model ends by chance only: make the token that it says third its end token.
    third = first_tokens(model_writer(tmp_path / "endless", base_weights))[2]
    folder = model_writer(tmp_path / "base", base_weights, end=third)
    own = {"repetition_penalty": 3.0, "no_repeat_ngram_size": 1, "do_sample": True, "eos_token_id": third}
    (folder / "generation_config.json").write_text(json.dumps(own))
    engine = Engine(folder, threads=1)
    tokenizer = TextTokenizer(folder)
    assert third in tokenizer.stop_ids
    expected = complete(
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(),
        [tokenizer.prompt_ids(prompt, has_special_tokens=False) for prompt in PROMPTS],
        stop_ids=tokenizer.stop_ids,
        max_new_tokens=16,
        decode=tokenizer.decode,
        device=torch.device("cpu"),
    )
    answers = [
        engine.generate(None, engine.encode_prompt(prompt), Sampling(16, temperature=0)) for prompt in PROMPTS
    ]
    assert [answer.text.strip() for answer in answers] == expected
    assert answers[0].finish_reason == "stop"
    assert answers[0].completion_tokens <= 3


@given(
    text=st.text("ab\ufffd", max_size=12), stops=st.lists(st.text("ab", min_size=1, max_size=3), max_size=3)
)
def test_what_is_shown_of_a_growing_text_is_never_taken_back(text: str, stops: list[str]) -> None:
    from tuneyard_server.engine import count_safe_characters, cut_at_stop

    shown = 0
    for end in range(len(text) + 1):
        whole = cut_at_stop(text[:end], stops)
        if whole is not None:
            assert shown <= len(whole)
            return
        safe = count_safe_characters(text[:end], stops)
        assert safe <= len(text[:end].rstrip("\ufffd"))
        shown = max(shown, safe)
