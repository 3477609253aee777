# SPDX-License-Identifier: Apache-2.0
"""The engine's arithmetic, against a merged model and against the trainer's own decoding."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tiny_adapters import (
    ADAPTED,
    LAYERS,
    SCALE,
    Weights,
    adapted_weight,
    adapter_weights,
    random_weights,
    write_adapter,
    write_model,
)
from tuneyard_server.requests import Sampling

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::FutureWarning")]
PROMPTS = ("the quick", "lazy dog", "cat")


def greedy(engine: Any, prompt: str, handle: str | None = None, tokens: int = 16) -> str:
    return str(engine.generate(handle, engine.encode_prompt(prompt), Sampling(tokens, temperature=0)).text)


def merged_weights() -> Weights:
    """The base model with adapter 1 added into its matrices, W + alpha / r * B A (Hu et al. 2021), without PEFT."""
    update, merged = adapter_weights(1), random_weights(0)
    for layer in range(LAYERS):
        for module in ADAPTED:
            name = adapted_weight(layer, module)
            a, b = (update[f"base_model.model.{name}.{part}.weight"] for part in ("lora_A", "lora_B"))
            merged[f"{name}.weight"] = merged[f"{name}.weight"] + SCALE * b @ a
    return merged


def test_an_adapter_answers_like_the_model_that_it_is_merged_into(tmp_path: Path) -> None:
    from tuneyard_server.engine import Engine

    folders = [write_adapter(tmp_path / "adapters" / name, seed) for name, seed in (("a", 1), ("b", 2))]
    engine = Engine(write_model(tmp_path / "base", random_weights(0)), threads=1)
    merged = Engine(write_model(tmp_path / "merged", merged_weights()), threads=1)
    alone = [greedy(engine, prompt) for prompt in PROMPTS]
    handles = [engine.load_adapter(folder) for folder in folders]
    assert [greedy(engine, prompt, handles[0]) for prompt in PROMPTS] == [greedy(merged, p) for p in PROMPTS]
    assert [greedy(engine, prompt, handles[1]) for prompt in PROMPTS] != [greedy(merged, p) for p in PROMPTS]
    assert [greedy(engine, prompt) for prompt in PROMPTS] == alone
    for handle in handles:
        engine.drop_adapter(handle)
    assert [greedy(engine, prompt) for prompt in PROMPTS] == alone
    assert [greedy(merged, prompt) for prompt in PROMPTS] != alone


def test_greedy_answers_equal_those_of_the_evaluation(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM
    from tuneyard_data.tokenization import TextTokenizer
    from tuneyard_server.engine import Engine
    from tuneyard_trainer.evaluation.generate import complete

    def first_tokens(folder: Path) -> list[int]:
        engine = Engine(folder, threads=1)
        ids = engine.encode_prompt(PROMPTS[0])
        answers: list[int] = []
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        for _ in range(6):
            answers.append(int(model(torch.tensor([ids + answers])).logits[0, -1].argmax()))
        return answers

    # A random model ends by chance only: make the token that it says third its end token.
    third = first_tokens(write_model(tmp_path / "endless", random_weights(0)))[2]
    folder = write_model(tmp_path / "base", random_weights(0), end=third)
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
def test_what_is_shown_of_a_growing_text_is_never_withdrawn(text: str, stops: list[str]) -> None:
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
