# SPDX-License-Identifier: Apache-2.0
"""Shapes of models from config.json and from the headers of their weights."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tuneyard_api.known_shapes import KNOWN, known_config
from tuneyard_api.model_shape import ShapeUnknownError, shape_of, tensors_in, tensors_of_header, usual_tensors

TINY = Path(__file__).parents[2] / "examples" / "models" / "tiny-llama"
EIGHT_B = KNOWN["llama-3.1-8b-instruct"]
MIXTRAL = {
    "model_type": "mixtral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("llama-3.1-8b-instruct", 8_030_261_248),
        ("llama-3.1-70b-instruct", 70_553_706_496),
        ("llama-3.2-1b-instruct", 1_235_814_400),
        ("llama-3.2-3b-instruct", 3_212_749_824),
        ("mistral-7b-instruct-v0.3", 7_248_023_552),
        ("smollm2-135m-instruct", 134_515_008),
    ],
)
def test_a_configuration_tells_the_parameters(name: str, parameters: int) -> None:
    """The numbers are the hub's; biases of Qwen are not in its configuration."""
    assert shape_of(KNOWN[name]).parameters == parameters


def test_the_header_of_the_weights_and_the_configuration_say_the_same() -> None:
    config = json.loads((TINY / "config.json").read_text())
    by_header = shape_of(config, tensors_in(TINY))
    assert by_header == shape_of(config)
    assert by_header.is_known_to_fast_path


def test_a_header_counts_what_the_configuration_does_not_name() -> None:
    biased = {**usual_tensors(EIGHT_B), "model.layers.0.self_attn.q_proj.bias": (4096,)}
    assert shape_of(EIGHT_B, biased).parameters == shape_of(EIGHT_B).parameters + 4096


@pytest.mark.parametrize("extra", ["pre_feedforward_layernorm", "mlp.router"])
def test_layers_with_other_parts_are_not_known_to_the_fast_path(extra: str) -> None:
    others = {**usual_tensors(EIGHT_B), f"model.layers.0.{extra}.weight": (4096,)}
    assert not shape_of(EIGHT_B, others).is_known_to_fast_path


def test_of_a_mixture_of_experts_all_are_held_and_some_compute() -> None:
    shape = shape_of(MIXTRAL)
    assert shape.parameters == pytest.approx(46.7e9, rel=0.01)
    assert shape.active_parameters == pytest.approx(12.6e9, rel=0.02)
    assert shape.feedforward == 2 * 14336
    assert not shape.is_known_to_fast_path


def test_sizes_may_be_in_the_part_for_text() -> None:
    nested = {"model_type": "gemma3", "text_config": dict(EIGHT_B)}
    assert shape_of(nested).hidden == 4096


@pytest.mark.parametrize("missing", ["hidden_size", "num_hidden_layers", "vocab_size"])
def test_a_configuration_without_a_size_is_refused_by_its_name(missing: str) -> None:
    config: dict[str, Any] = {name: value for name, value in EIGHT_B.items() if name != missing}
    with pytest.raises(ShapeUnknownError, match=missing):
        shape_of(config)


def test_weights_that_lie_there_under_another_name_too_count_once(tmp_path: Path) -> None:
    for name in ("model-1.safetensors", "consolidated.safetensors"):
        shutil.copy(TINY / "model.safetensors", tmp_path / name)
    index = {"weight_map": {"model.norm.weight": "model-1.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert tensors_in(tmp_path) == tensors_in(TINY)


def test_a_model_of_many_shapes_is_not_told_apart() -> None:
    """Each layer of some families is as wide as it likes; a result of a pod has no room for all of them."""
    many = {f"model.layers.{at}.mlp.down_proj.weight": (4096, 64 * at + 64) for at in range(20)}
    with pytest.raises(ShapeUnknownError, match="20 shapes"):
        shape_of(EIGHT_B, many)


@pytest.mark.parametrize("header", [b"", b"[]", b'{"a": 1}', b'{"a": {"shape": ["x"]}}'])
def test_what_is_no_header_is_refused(header: bytes) -> None:
    with pytest.raises(ShapeUnknownError):
        tensors_of_header(header)


def test_a_base_model_has_the_shape_of_the_one_that_answers() -> None:
    assert known_config("meta-llama/Llama-3.1-8B") == known_config("meta-llama/Llama-3.1-8B-Instruct")
    assert known_config("somebody/own-model") is None
