# SPDX-License-Identifier: Apache-2.0
"""DoRA: trained by PEFT, kept as PEFT reads it, and published as the merged model that was evaluated."""

import json
import math
import shutil
from pathlib import Path

import pytest
from tuneyard_api.pod_contract import PublishFacts, TrainFacts

torch = pytest.importorskip("torch")

from tuneyard_data.tokenization import TextTokenizer  # noqa: E402
from tuneyard_trainer.evaluation.generate import complete  # noqa: E402
from tuneyard_trainer.model.loading import Device  # noqa: E402
from tuneyard_trainer.training.batches import collate, summed_loss  # noqa: E402
from tuneyard_trainer.workspace.prepared import Split  # noqa: E402

pytestmark = pytest.mark.torch
CPU = Device(torch.device("cpu"), torch.float32, is_autocast=False)


def held_out_loss(model, workspace: Path) -> float:
    """Nats per learned token, by transformers and PEFT alone."""
    split = Split.load(workspace / "prepared/validation.safetensors")
    model.eval()
    with torch.no_grad():
        total = sum(float(summed_loss(model, collate(split, [i], CPU), CPU)) for i in range(len(split)))
    return total / int(split.learned_per_sequence().sum())


@pytest.fixture
def trained(tiny_llama, training_data, job_of, pods):
    job = job_of(
        tiny_llama,
        training_data(40),
        lora={"rank": 4, "alpha": 8, "dora": True},
        training={"maxSteps": 20, "learningRate": 0.01},
    )
    results = {}
    for stage in ("prepare", "train", "publish"):
        code, results[stage] = pods.run(stage, job)
        assert code == 0, results[stage].failure
    return TrainFacts.model_validate(results["train"].facts), PublishFacts.model_validate(
        results["publish"].facts
    )


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT 0.21, transformers 5
def test_the_published_model_is_what_was_evaluated_and_any_program_loads_it(trained, tiny_llama, pods):
    from transformers import AutoModelForCausalLM

    facts, published = trained
    assert facts.evaluation.tuned.loss < facts.evaluation.base.loss
    assert (facts.path, facts.path_reason) == (
        "plain",
        "lora.dora trains magnitudes, which it does not compute",
    )
    folder = Path(published.path)
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= names
    assert not {name for name in names if name.startswith("adapter")}
    model = AutoModelForCausalLM.from_pretrained(folder)
    base = AutoModelForCausalLM.from_pretrained(tiny_llama).state_dict()
    assert model.dtype == base["lm_head.weight"].dtype
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, base[name])}
    assert changed == {name for name in base if "_proj" in name}
    assert math.isclose(held_out_loss(model, pods.workspace), facts.evaluation.tuned.loss, rel_tol=1e-5)
    samples = [
        json.loads(line) for line in (pods.workspace / "evaluation/samples.jsonl").read_text().splitlines()
    ]
    tokenizer = TextTokenizer(folder)
    answers = complete(
        model,
        [tokenizer.prompt_ids(sample["prompt"], has_special_tokens=False) for sample in samples],
        stop_ids=tokenizer.stop_ids,
        max_new_tokens=6,
        decode=tokenizer.decode,
        device=torch.device("cpu"),
    )
    assert answers == [sample["tuned"] for sample in samples]
    card = (folder / "README.md").read_text()
    for words in (
        "An adapter merged into the weights of",
        "lora with lora.dora",
        "| rank, alpha",
        published.digest,
    ):
        assert words in card
    assert json.loads((folder / "version.json").read_text())["method"] == "lora"


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT 0.21, transformers 5
def test_the_adapter_stays_in_the_workspace_as_plain_peft_reads_it(trained, tiny_llama, pods):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    facts, _ = trained
    folder = pods.workspace / "adapter"
    assert json.loads((folder / "adapter_config.json").read_text())["use_dora"] is True
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_llama), folder)
    assert math.isclose(held_out_loss(model, pods.workspace), facts.evaluation.tuned.loss, rel_tol=1e-5)
    magnitudes = [tensor for name, tensor in model.state_dict().items() if "lora_magnitude_vector" in name]
    assert magnitudes
    assert not any(bool((tensor == 1).all()) for tensor in magnitudes)


def test_a_merged_model_that_differs_from_the_adapter_is_not_published(
    tiny_llama, training_data, job_of, pods, monkeypatch
):
    """A merge that went wrong must end the stage, not reach the registry."""
    from tuneyard_trainer.model import merged

    def forget(adapter: Path, base: Path, folder: Path, job: object) -> None:
        shutil.copytree(base, folder)

    monkeypatch.setattr(merged, "write_merged", forget)
    job = job_of(
        tiny_llama,
        training_data(40),
        lora={"rank": 4, "alpha": 8, "dora": True},
        training={"maxSteps": 4, "learningRate": 0.01},
    )
    assert pods.run("prepare", job)[0] == 0
    code, result = pods.run("train", job)
    assert code == 1
    assert "the merged model is not what was evaluated" in result.failure.message


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT 0.21, transformers 5
def test_a_base_in_bfloat16_stays_in_it_and_its_rounding_is_no_difference(
    tiny_llama, training_data, job_of, pods, tmp_path
):
    """Models from a hub are in bfloat16; the training computes in it too, as on a GPU."""
    from transformers import AutoModelForCausalLM

    base = tmp_path / "half"
    shutil.copytree(tiny_llama, base)
    AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.bfloat16).save_pretrained(base)
    job = job_of(
        base,
        training_data(40),
        lora={"rank": 4, "alpha": 8, "dora": True},
        training={"maxSteps": 20, "learningRate": 0.01, "precision": "bf16"},
        runtime={"precisions": ["bf16"]},
    )
    for stage in ("prepare", "train"):
        code, result = pods.run(stage, job)
        assert code == 0, result.failure
    facts = TrainFacts.model_validate(result.facts)
    model = AutoModelForCausalLM.from_pretrained(pods.workspace / "model")
    assert model.dtype == torch.bfloat16
    assert math.isclose(
        held_out_loss(model.float(), pods.workspace), facts.evaluation.tuned.loss, rel_tol=0.02
    )
