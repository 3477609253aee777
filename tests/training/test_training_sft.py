# SPDX-License-Identifier: Apache-2.0
"""All weights trained: what is published is a model as any program loads it."""

import json
import shutil
from pathlib import Path

import pytest
from tuneyard_api.pod_contract import PublishFacts, TrainFacts

torch = pytest.importorskip("torch")

from tuneyard_data.tokenization import TextTokenizer  # noqa: E402
from tuneyard_trainer.evaluation.generate import complete  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture
def base_in_bf16(tiny_llama, tmp_path):
    """The tiny model as models from a hub are: in bfloat16."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "half"
    shutil.copytree(tiny_llama, folder)
    AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.bfloat16).save_pretrained(folder)
    (folder / "evaluation.json").write_text('{"of": "the base model"}')
    (folder / "LICENSE").write_text("terms")
    return folder


def test_a_whole_model_is_published_with_its_tokenizer_and_answers_as_it_was_measured(
    base_in_bf16, training_data, job_of, pods
):
    from transformers import AutoModelForCausalLM

    job = job_of(
        base_in_bf16, training_data(40), method="sft", training={"maxSteps": 30, "learningRate": 0.003}
    )
    for stage in ("prepare", "train", "publish"):
        code, result = pods.run(stage, job)
        assert code == 0, result.failure
    published = PublishFacts.model_validate(result.facts)
    folder = Path(published.path)
    names = {path.name for path in folder.iterdir()}
    assert {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
    } <= names
    assert "LICENSE" in names
    assert not {name for name in names if name.startswith(("adapter", "evaluation"))}
    assert (folder / "config.json").read_text() == (base_in_bf16 / "config.json").read_text()

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert next(model.parameters()).dtype == torch.bfloat16
    base = AutoModelForCausalLM.from_pretrained(base_in_bf16).state_dict()
    changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, base[name])]
    assert "model.embed_tokens.weight" in changed
    assert len(changed) > len(base) // 2

    samples = [
        json.loads(line) for line in (pods.workspace / "evaluation/samples.jsonl").read_text().splitlines()
    ]
    tokenizer = TextTokenizer(folder)
    answers = complete(
        # Measured in float32, as it was trained.
        model.float(),
        [tokenizer.prompt_ids(sample["prompt"], has_special_tokens=False) for sample in samples],
        stop_ids=tokenizer.stop_ids,
        max_new_tokens=6,
        decode=tokenizer.decode,
        device=torch.device("cpu"),
    )
    assert answers == [sample["tuned"] for sample in samples]
    facts = TrainFacts.model_validate_json(
        json.dumps(json.loads((pods.workspace / "results/train.json").read_text())["facts"])
    )
    assert facts.evaluation.tuned.loss < facts.evaluation.base.loss
    card = (folder / "README.md").read_text()
    for words in ("All weights of `half`", "library_name: transformers", "tags: [sft", published.digest):
        assert words in card
    assert "target modules" not in card


def test_base_is_measured_before_its_weights_change_also_by_a_second_attempt(
    tiny_llama, training_data, job_of, pods
):
    job = job_of(tiny_llama, training_data(40), method="sft", training={"learningRate": 0.003})
    assert pods.run("prepare", job)[0] == 0
    first = TrainFacts.model_validate(pods.run("train", job)[1].facts)
    (pods.workspace / "results/train.json").unlink()
    second = TrainFacts.model_validate(pods.run("train", job)[1].facts)
    assert second.resumed_from_step == first.steps
    assert second.evaluation == first.evaluation
