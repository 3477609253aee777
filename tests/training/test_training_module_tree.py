# SPDX-License-Identifier: Apache-2.0
"""What needs the modules of a model is known before a GPU is asked for, in a process of its own; and what was written is read back."""

import contextlib
import json
import re

import pytest
from tuneyard_api.pod_contract import EXIT_CODES, FailureClass
from tuneyard_trainer.model.module_tree import check_module_tree
from tuneyard_trainer.pod.failures import StageFailure

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402
from tuneyard_trainer.model.loading import Device, load_model, save_tuned  # noqa: E402
from tuneyard_trainer.model.module_tree_process import check_modules  # noqa: E402
from tuneyard_trainer.model.reloaded import check_written  # noqa: E402
from tuneyard_trainer.model.world import World  # noqa: E402
from tuneyard_trainer.workspace.layout import stored_base  # noqa: E402

pytestmark = pytest.mark.torch
CPU = Device(torch.device("cpu"), torch.float32, is_autocast=False)
TINY = {"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 320, "model_type": "gpt2"}
PROBLEMS = {
    "layers that it lacks": (
        {"lora": {"targetModules": ["q_proj"]}},
        TINY,
        "no linear layers that take an adapter and are named q_proj; try c_attn, c_fc, c_proj",
    ),
    "a model that transformers can not build": (
        {},
        TINY | {"n_head": 3},
        "transformers can't build this model",
    ),
    "a family whose layers IA3 does not know": (
        {"method": "ia3"},
        TINY
        | {"model_type": "olmo2", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
        | {"num_attention_heads": 2},
        "PEFT does not say which layers of olmo2 IA3 scales; try method: lora",
    ),
    "a family that lost the layers that IA3 scaled": (
        {"method": "ia3"},
        {"model_type": "mixtral", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
        | {"num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 320, "num_local_experts": 2},
        "this model of mixtral has no linear layer w2, which IA3 scales; try method: lora",
    ),
    "a base in FP8 of a family without a fast path": (
        {"quantization": "fp8"},
        TINY,
        "fp8 is trained by the fast path alone, and the model is not known to it: the model has the parts lm_head, transformer",
    ),
}


def with_weights(folder, config):
    """A folder whose config.json is another one, with random weights that fit it, where transformers can build it."""
    (folder / "config.json").write_text(json.dumps(config))
    with contextlib.suppress(ValueError):
        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("case", PROBLEMS.values(), ids=PROBLEMS.keys())
def test_what_can_not_be_trained_is_refused(write_model, job_of, tmp_path, case):
    changes, config, message = case
    folder = with_weights(write_model(), config)
    with pytest.raises(StageFailure, match=message):
        check_modules(job_of(folder, tmp_path, **changes), folder)


OTHER_WEIGHTS = {
    "a tensor is missing": (
        {"transformer.h.0.mlp.c_fc.weight": None},
        "lack transformer.h.0.mlp.c_fc.weight",
    ),
    "all have other names": (
        None,
        r"lack .* and \d+ more of the model that config.json describes; try all files",
    ),
    "a tensor of another shape": (
        {"transformer.ln_f.weight": (3,)},
        "have another shape than transformer.ln_f.weight",
    ),
}


@pytest.mark.parametrize(("change", "message"), OTHER_WEIGHTS.values(), ids=OTHER_WEIGHTS.keys())
def test_weights_of_another_model_are_known_by_their_headers(write_model, job_of, tmp_path, change, message):
    folder = with_weights(write_model(), TINY)
    tensors = load_file(folder / "model.safetensors")
    for name, shape in (change or {}).items():
        del tensors[name]
        tensors |= {name: torch.zeros(shape)} if shape else {}
    if change is None:
        tensors = {f"other.{name}": tensor for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StageFailure, match=message):
        check_modules(job_of(folder, tmp_path), folder)
    if change is None or None in change.values():
        with pytest.raises(StageFailure, match=message):
            load_model(folder, job_of(folder, tmp_path), CPU, World())


def test_a_base_in_fp8_of_a_known_structure_is_taken(tiny_llama, job_of, tmp_path):
    assert check_modules(job_of(tiny_llama, tmp_path, quantization="fp8"), tiny_llama) == []


MIXTRAL = {
    "model_type": "mixtral",
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_local_experts": 4,
}
SAID = {
    "experts that are one tensor get no adapter": (
        MIXTRAL,
        r"^no adapter reaches \d\d% of the weights .*experts",
    ),
    "layers of Conv1D get one": (TINY, None),
}


@pytest.mark.parametrize(("config", "message"), SAID.values(), ids=SAID.keys())
def test_what_gets_no_adapter_is_said_with_its_share(write_model, job_of, tmp_path, config, message):
    folder = with_weights(write_model(), config)
    said = check_modules(job_of(folder, tmp_path), folder)
    assert len(said) == (message is not None)
    if message:
        assert re.search(message, said[0]), said


def test_the_process_says_what_it_found(write_model, job_of, tmp_path):
    folder = with_weights(write_model(), MIXTRAL)
    job = job_of(folder, tmp_path)
    assert check_module_tree(job, folder) == check_modules(job, folder) != []


def test_the_stage_asks_though_it_hides_pytorch_from_itself(write_model, jsonl, job_of, pods):
    folder = with_weights(write_model(), TINY)
    records = jsonl([{"prompt": f"say number {n} =", "completion": " a"} for n in range(9)])
    pods.give(job_of(folder, records, lora={"rank": 4, "alpha": 8, "targetModules": ["q_proj"]}))
    assert pods.start("prepare").wait() == EXIT_CODES[FailureClass.BAD_INPUT]
    assert "that take an adapter and are named q_proj" in pods.result().failure.message
    assert not (pods.workspace / "prepared").exists()


def test_a_check_that_takes_too_long_is_no_failure_of_the_job(job_of, tmp_path, monkeypatch):
    monkeypatch.setattr("tuneyard_trainer.model.module_tree._MAX_SECONDS", 0.01)
    assert "took more than 0.01 s" in check_module_tree(job_of(tmp_path, tmp_path), tmp_path)[0]


def test_a_check_that_ends_by_itself_is_no_failure_of_the_job(job_of, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    assert "ended with code 1" in check_module_tree(job_of(tmp_path, tmp_path), tmp_path)[0]


@pytest.fixture(params=["lora", "sft"])
def written(request, tiny_llama, training_data, job_of, tmp_path):
    """A model with weights unlike the base's, and the folder in which it was saved."""
    job = job_of(tiny_llama, training_data(8), method=request.param)
    model = load_model(tiny_llama, job, CPU, World())
    draw = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(0, 0.2, generator=draw)
    save_tuned(model, tiny_llama, tmp_path / "tuned", stored_base(job, None), World())
    return model, tmp_path / "tuned"


def test_what_was_written_is_what_was_evaluated(written):
    model, folder = written
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    check_written(model, folder, list(range(2, 40)), CPU)
    assert trained == [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def test_weights_that_were_written_otherwise_are_not_published(written):
    model, folder = written
    path = next(folder.glob("*.safetensors"))
    tensors = load_file(path)
    name = min(tensors)
    tensors[name] = tensors[name] + 0.5
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(StageFailure, match="what was written is not what was evaluated"):
        check_written(model, folder, list(range(2, 40)), CPU)
