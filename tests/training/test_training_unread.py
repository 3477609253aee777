# SPDX-License-Identifier: Apache-2.0
"""Tensors of a base model that transformers does not read are in the result of full fine-tuning too, or it is said."""

import json
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402
from support.family_matrix import tiny_model  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402
from tuneyard_api.pod_contract import TrainFacts  # noqa: E402
from tuneyard_api.registry import StoredBase  # noqa: E402
from tuneyard_trainer.model.loading import save_tuned  # noqa: E402
from tuneyard_trainer.model.world import World  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("default")]
UNREAD = {
    "mtp.layers.0.weight": torch.arange(6.0).reshape(2, 3),
    "model.layers.0.old.inv_freq": torch.ones(4),
}
RECORDS = [{"prompt": f"say number {n} =", "completion": f" {n % 7}"} for n in range(20)]


def add_unread(folder):
    path = folder / "model.safetensors"
    save_file(load_file(path) | UNREAD, path, metadata={"format": "pt"})


def all_tensors(folder):
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


@pytest.mark.parametrize("family", ["llama", "mixtral", "gemma"])
def test_they_are_written_through_unchanged(tmp_path, family):
    """Mixtral's experts have other names in memory, and Gemma's head is its embedding."""
    model = tiny_model(family)
    model.save_pretrained(tmp_path / "base")
    add_unread(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    assert save_tuned(base, tmp_path / "base", tmp_path / "tuned", StoredBase(name="base"), World()) == []
    before, after = all_tensors(tmp_path / "base"), all_tensors(tmp_path / "tuned")
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in UNREAD.items())
    index = json.loads((tmp_path / "tuned/model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == after.keys()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in after.values())
    read, loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "tuned", output_loading_info=True)
    assert not loaded["missing_keys"]
    state = base.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in read.state_dict().items())


def test_a_head_that_is_the_embedding_is_not_written_as_it_was(tmp_path):
    """Files may have the head beside the embedding that it is tied to: what was trained would be undone."""
    tiny_model("gemma").save_pretrained(tmp_path / "base")
    path = tmp_path / "base/model.safetensors"
    tensors = load_file(path)
    save_file(
        tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, path, {"format": "pt"}
    )
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    save_tuned(base, tmp_path / "base", tmp_path / "tuned", StoredBase(name="base"), World())
    assert "lm_head.weight" not in all_tensors(tmp_path / "tuned")


def test_where_names_differ_it_is_said(tmp_path):
    """A model that sees has its part for text alone here, under other names."""
    tiny_model("llama").save_pretrained(tmp_path / "base")
    path = tmp_path / "base/model.safetensors"
    renamed = {f"language.{name}": tensor for name, tensor in load_file(path).items()}
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    save_file(renamed | UNREAD, path, {"format": "pt"})
    said = save_tuned(model, tmp_path / "base", tmp_path / "tuned", StoredBase(name="base"), World())
    assert "are not in the result" in said[0]
    assert not all_tensors(tmp_path / "tuned").keys() & UNREAD.keys()


def test_a_job_that_trains_all_weights_publishes_them(tiny_llama, tmp_path, jsonl, job_of, pods):
    base = tmp_path / "with-more"
    shutil.copytree(tiny_llama, base)
    add_unread(base)
    job = job_of(base, jsonl(RECORDS), method="sft")
    for stage in ("prepare", "train", "publish"):
        code, result = pods.run(stage, job)
        assert code == 0, result.failure
    facts = TrainFacts.model_validate(
        json.loads((pods.workspace / "results/train.json").read_text())["facts"]
    )
    assert not any("not in the result" in warning for warning in facts.warnings)
    after = all_tensors(Path(result.facts["path"]))
    assert all(torch.equal(after[name], tensor) for name, tensor in UNREAD.items())
