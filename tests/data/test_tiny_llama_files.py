# SPDX-License-Identifier: Apache-2.0
"""The committed base model: its card tells the truth, its files load, its job keeps the contract."""

import json
import math
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuneyard_api.validate import load_job

EXAMPLES = Path(__file__).parents[2] / "examples"
MODEL = EXAMPLES / "models" / "tiny-llama"


def load(name: str) -> Any:
    return json.loads((MODEL / name).read_text(encoding="utf-8"))


def tensor_headers() -> dict[str, Any]:
    content = (MODEL / "model.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header: dict[str, Any] = json.loads(content[8 : 8 + size])
    header.pop("__metadata__", None)
    return header


def test_it_is_small_and_holds_as_many_parameters_as_it_says() -> None:
    headers = tensor_headers()
    assert {tensor["dtype"] for tensor in headers.values()} == {"BF16"}
    assert (
        sum(math.prod(tensor["shape"]) for tensor in headers.values()) == load("training.json")["parameters"]
    )
    assert sum(path.stat().st_size for path in MODEL.iterdir()) < 8_000_000


def test_the_card_repeats_the_numbers_of_training_and_evaluation() -> None:
    card = (MODEL / "README.md").read_text(encoding="utf-8")
    facts, evaluation = load("training.json"), load("evaluation.json")
    for name in (
        "parameters",
        "files",
        "characters",
        "corpusTokens",
        "trainedTokens",
        "vocabulary",
        "steps",
        "sequenceLength",
    ):
        assert re.search(rf"(?<![\d,]){facts[name]:,}(?![\d,])", card), name
    assert f"CPython {facts['python']}" in card
    assert f"torch {facts['torch']}" in card
    assert f"| {facts['finalLoss']} nats" in card
    assert f"{facts['minutes']} minutes" in card
    assert f"seed {facts['seed']}" in card
    rouge = evaluation["rougeL"]
    assert f"{rouge['base']:.3f} to {rouge['tuned']:.3f}" in card
    assert f"{rouge['differenceLow95']:.3f} to\n{rouge['differenceHigh95']:.3f}" in card
    assert rouge["differenceLow95"] > 0
    assert facts["trainedTokens"] == facts["steps"] * facts["batch"] * facts["sequenceLength"]


def test_configuration_and_card_describe_the_same_model() -> None:
    config = load("config.json")
    assert config["vocab_size"] == load("training.json")["vocabulary"]
    assert config["head_dim"] >= 32, "servers with fused attention refuse smaller heads"
    shapes = {name: tensor["shape"] for name, tensor in tensor_headers().items()}
    assert shapes["model.embed_tokens.weight"] == [config["vocab_size"], config["hidden_size"]]
    assert sum("q_proj" in name for name in shapes) == config["num_hidden_layers"]


def test_the_example_job_keeps_the_contract_in_ten_lines() -> None:
    path = EXAMPLES / "docstrings-lora.yaml"
    content = path.read_text(encoding="utf-8")
    job = load_job(content, path.name)
    assert job.spec.method == "lora"
    assert job.spec.runtime.name == "hf-cpu"
    assert job.spec.model.pvc
    assert job.spec.model.pvc.path == MODEL.name
    assert len(content.splitlines()) <= 10


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return pytest.importorskip("tokenizers").Tokenizer.from_file(str(MODEL / "tokenizer.json"))


@pytest.mark.torch
@given(text=st.text(max_size=40))
def test_every_text_comes_back_from_the_tokenizer(tokenizer: Any, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    special = [token for token in ("<s>", "</s>", "<pad>") if token in text]
    assert special or tokenizer.decode(ids) == text
    assert tokenizer.encode(text).ids == [0, *ids]


@pytest.mark.torch
def test_plain_transformers_loads_it_and_the_chat_template_grows_by_its_end() -> None:
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1, 2)
    source = "import os\n\nclass Reader:\n    def __init__(self, path):\n        self.path = path\n        self.name = None\n"
    ids = torch.tensor([tokenizer(source).input_ids])
    with torch.no_grad():
        loss = float(model(input_ids=ids, labels=ids).loss)
    assert loss < math.log(model.config.vocab_size) / 2, "it was trained: far better than guessing"

    question = [{"role": "user", "content": "Hi"}]
    asked = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    answered = tokenizer.apply_chat_template(
        [*question, {"role": "assistant", "content": "Ho"}], tokenize=False
    )
    assert asked == "<s>user: Hi\nassistant:"
    assert answered == f"{asked} Ho</s>"
