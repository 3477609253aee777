# SPDX-License-Identifier: Apache-2.0
"""IA3 and p-tuning: trained by PEFT, evaluated as published, and read back by plain PEFT or transformers."""

import json
import math
from pathlib import Path

import pytest
from tuneyard_api.pod_contract import PrepareFacts, PublishFacts, TrainFacts
from tuneyard_api.registry import read_version

torch = pytest.importorskip("torch")

from tuneyard_data.tokenization import TextTokenizer  # noqa: E402
from tuneyard_trainer.evaluation.generate import complete  # noqa: E402
from tuneyard_trainer.model.loading import Device  # noqa: E402
from tuneyard_trainer.training.batches import collate, summed_loss  # noqa: E402
from tuneyard_trainer.workspace.prepared import Split  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),  # PEFT 0.21
    # transformers' generate() gives positions, and the model counts by itself behind virtual tokens.
    pytest.mark.filterwarnings("ignore:Position ids are not supported"),
]
CPU = Device(torch.device("cpu"), torch.float32, is_autocast=False)


def run(pods, job) -> tuple[PrepareFacts, TrainFacts, PublishFacts]:
    results = []
    for stage in ("prepare", "train", "publish"):
        code, result = pods.run(stage, job)
        assert code == 0, result.failure
        results.append(result.facts)
    prepared, trained, published = results
    return (
        PrepareFacts.model_validate(prepared),
        TrainFacts.model_validate(trained),
        PublishFacts.model_validate(published),
    )


def held_out_loss(model, workspace: Path) -> float:
    split = Split.load(workspace / "prepared/validation.safetensors")
    model.eval()
    with torch.no_grad():
        total = sum(float(summed_loss(model, collate(split, [i], CPU), CPU)) for i in range(len(split)))
    return total / int(split.learned_per_sequence().sum())


def answers_of(model, folder: Path, samples: list[dict]) -> list[str]:
    tokenizer = TextTokenizer(folder)
    return complete(
        model.eval(),
        [tokenizer.prompt_ids(sample["prompt"], has_special_tokens=False) for sample in samples],
        stop_ids=tokenizer.stop_ids,
        max_new_tokens=6,
        decode=tokenizer.decode,
        device=torch.device("cpu"),
    )


def samples_of(pods) -> list[dict]:
    lines = (pods.workspace / "evaluation/samples.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_ia3_is_published_as_the_merged_model_that_was_evaluated(tiny_llama, training_data, job_of, pods):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    training = {"maxSteps": 30, "learningRate": 0.05}
    _, facts, published = run(pods, job_of(tiny_llama, training_data(40), method="ia3", training=training))
    assert facts.evaluation.tuned.loss < facts.evaluation.base.loss
    assert facts.path_reason == "method ia3 does not have one"
    folder = Path(published.path)
    model = AutoModelForCausalLM.from_pretrained(folder)
    base = AutoModelForCausalLM.from_pretrained(tiny_llama)
    before = base.state_dict()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    scaled = ("k_proj.weight", "v_proj.weight", "down_proj.weight")
    assert changed == {name for name in before if name.endswith(scaled)}
    assert math.isclose(held_out_loss(model, pods.workspace), facts.evaluation.tuned.loss, rel_tol=1e-5)
    assert answers_of(model, folder, samples_of(pods)) == [each["tuned"] for each in samples_of(pods)]
    adapter = PeftModel.from_pretrained(base, pods.workspace / "adapter")
    assert math.isclose(held_out_loss(adapter, pods.workspace), facts.evaluation.tuned.loss, rel_tol=1e-5)
    version = read_version("demo-adapter", folder)
    assert (version.method, version.rank, version.is_adapter) == ("ia3", None, False)
    card = (folder / "README.md").read_text()
    assert "An adapter merged into the weights of" in card
    assert "rank, alpha" not in card


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_p_tuning_is_published_as_plain_peft_reads_it(tiny_llama, training_data, job_of, pods, precision):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    job = job_of(
        tiny_llama,
        training_data(40),
        method="pTuning",
        pTuning={"virtualTokens": 5},
        training={"maxSteps": 40, "learningRate": 0.02, "precision": precision},
        runtime={"precisions": ["fp32", "bf16"]},
    )
    prepared, facts, published = run(pods, job)
    assert (
        "the records are not packed: method pTuning puts its virtual tokens before each" in prepared.warnings
    )
    assert facts.evaluation.tuned.loss < facts.evaluation.base.loss
    folder = Path(published.path)
    assert json.loads((folder / "adapter_config.json").read_text())["num_virtual_tokens"] == 5
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_llama), folder)
    exact = 1e-5 if precision == "fp32" else 0.02
    assert math.isclose(held_out_loss(model, pods.workspace), facts.evaluation.tuned.loss, rel_tol=exact)
    if precision == "fp32":
        samples = samples_of(pods)
        assert answers_of(model, tiny_llama, samples) == [each["tuned"] for each in samples]
        # transformers' own generation puts the virtual tokens before the prompt once.
        tokenizer = TextTokenizer(tiny_llama)
        ids = torch.tensor([tokenizer.prompt_ids(samples[0]["prompt"], has_special_tokens=False)])
        new = model.generate(input_ids=ids, max_new_tokens=6, do_sample=False, eos_token_id=1, pad_token_id=1)
        ours = tokenizer.decode(new[0, ids.shape[1] :].tolist()).strip()
        assert ours == samples[0]["tuned"]
    version = read_version("demo-adapter", folder)
    assert (version.method, version.is_adapter) == ("pTuning", False)
    assert "Virtual tokens for" in (folder / "README.md").read_text()
    report = (folder / "report.md").read_text()
    assert "Virtual tokens for" in report
    assert "vllm serve" not in report


def test_virtual_tokens_take_their_part_of_the_models_positions(tiny_llama, training_data, job_of, pods):
    job = job_of(
        tiny_llama,
        training_data(8),
        method="pTuning",
        pTuning={"virtualTokens": 250},
        training={"maxSequenceLength": 300},
    )
    code, result = pods.run("prepare", job)
    assert code == 10
    assert "maxSequenceLength 6" in result.failure.message
    none = job.model_copy(update={"p_tuning": job.p_tuning.model_copy(update={"virtual_tokens": 256})})
    code, result = pods.run("prepare", none)
    assert code == 10
    assert result.failure.message == ("pTuning.virtualTokens: the model has 256 positions (got 256); try 20")
