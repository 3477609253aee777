# SPDX-License-Identifier: Apache-2.0
"""Families of models on tiny random weights, through all stages: is what the trainer knows of each still what is measured?"""

import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from support import family_matrix, tiny_families  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("default")]

SAMPLE = {
    "llama": "told by bounds",
    "gpt2": "layers of Conv1D",
    "gemma2": "eager attention with a soft cap, and windows",
    "mixtral": "experts that are one tensor",
    "deepseek_v3": "a buffer that belongs to the state",
    "falcon": "kept apart by a mask alone",
    "lfm2": "layers that carry a state",
    "bert": "sees later tokens",
}


@pytest.fixture
def committed():
    return json.loads(family_matrix.TABLE.read_text())["families"]


@pytest.fixture
def measured(tmp_path, pods, write_tokenizer):
    """The row of a family, measured now; `pods` restores what stages settle in the environment."""
    return lambda family: family_matrix.measure(family, tmp_path / "family", write_tokenizer)


@pytest.mark.parametrize("family", SAMPLE, ids=lambda family: f"{family}: {SAMPLE[family]}")
def test_a_family_is_as_the_trainer_knows_it(measured, committed, family):
    assert measured(family) == committed[family]


@pytest.mark.long
@pytest.mark.parametrize("family", sorted(set(tiny_families.families()) - set(SAMPLE)))
def test_every_family_is_as_the_trainer_knows_it(measured, committed, family):
    assert measured(family) == committed[family]


def test_no_family_ends_in_our_own_error(committed):
    for family, row in committed.items():
        for method in ("lora", "sft"):
            said = row.get(method, "works")
            assert said.startswith(("works", "prepare: BadInput")), (family, said)


def test_experts_without_an_adapter_are_said_with_their_share(committed):
    said = committed["mixtral"]["lora"]
    assert "no adapter reaches " in said
    assert "mlp.experts.gate_up_proj" in said
    assert "no adapter" not in committed["mixtral"]["sft"] + committed["llama"]["lora"]
