# SPDX-License-Identifier: Apache-2.0
"""Is the adapter that a job goes on from one that fits? Told in prepare, from names and shapes; without PyTorch."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from tuneyard_api.pod_contract import FailureClass
from tuneyard_trainer.model.former_adapter import lora_as_trained

Q, V = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"
CONFIG = {
    "peft_type": "LORA",
    "r": 4,
    "lora_alpha": 8,
    "target_modules": ["q_proj", "v_proj"],
    "base_model_name_or_path": "team/base",
    "modules_to_save": None,
    "rank_pattern": {},
}
BASE = {Q: (16, 8), V: (4, 8)}


def factors(shapes=BASE, rank=4):
    """A and B of every layer."""
    named = {}
    for layer, (out, inside) in shapes.items():
        named[f"base_model.model.{layer}.lora_A.weight"] = np.zeros((rank, inside), np.float32)
        named[f"base_model.model.{layer}.lora_B.weight"] = np.zeros((out, rank), np.float32)
    return named


@pytest.fixture
def go_on(model_files, jsonl, job_of, pods, tmp_path):
    """Code and result of prepare for a job that goes on from an adapter."""
    weights = {f"{layer}.weight": np.zeros(shape, np.float32) for layer, shape in BASE.items()}
    save_file(weights, model_files / "model.safetensors")

    def run(config=CONFIG, tensors=None, *, lora=None, change=None):
        folder = tmp_path / "former"
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps(config))
        save_file(factors() if tensors is None else tensors, folder / "adapter_model.safetensors")
        if change:
            change(folder)
        job = job_of(
            model_files,
            jsonl([{"prompt": f"say number {n} =", "completion": " a"} for n in range(9)]),
            adapter={"path": str(folder), "mustMatchLora": lora is not None},
            lora=lora or {"rank": 64},
        )
        return pods.run("prepare", job)

    return run


def test_adapter_that_fits_is_kept_for_the_training(go_on, pods, tmp_path):
    code, result = go_on()
    assert code == 0, result.failure
    kept = pods.workspace / "prepared/former-adapter"
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (kept / name).read_bytes() == (tmp_path / "former" / name).read_bytes()
    assert result.facts["warnings"] == []


def test_adapter_of_a_model_of_another_name_is_warned_of(go_on):
    code, result = go_on({**CONFIG, "base_model_name_or_path": "team/other"})
    assert code == 0
    assert result.facts["warnings"][0].startswith(
        "the adapter was trained on team/other, and the job's model is base"
    )


def test_options_of_the_job_that_agree_are_no_problem(go_on):
    lora = {"rank": 4, "alpha": 8, "targetModules": ["v_proj", "q_proj"], "dropout": 0.1}
    assert go_on(lora=lora)[0] == 0


@pytest.mark.parametrize(
    "targets", ["all-linear", r".*\.(q|v)_proj", [Q, V]], ids=["all", "regex", "whole names"]
)
def test_layers_may_be_named_in_any_way_of_peft(go_on, targets):
    code, result = go_on({**CONFIG, "target_modules": targets})
    assert code == 0, result.failure


def test_an_adapter_without_rank_and_alpha_has_those_of_peft(go_on, pods, model_files, jsonl, job_of):
    plain = {name: value for name, value in CONFIG.items() if name not in {"r", "lora_alpha"}}
    code, result = go_on(plain, factors(rank=8))
    assert code == 0, result.failure
    job = job_of(
        model_files, jsonl([]), adapter={"path": "former", "mustMatchLora": False}, lora={"rank": 64}
    )
    lora = lora_as_trained(job, pods.workspace / "prepared")
    assert (lora.rank, lora.alpha) == (8, 8)


PROBLEMS = {
    "another rank and alpha than the job asks for": (
        {"lora": {"rank": 16, "alpha": 32}},
        [
            "rank: the adapter has 4, lora.rank asks for 16",
            "alpha: the adapter has 8, lora.alpha asks for 32",
        ],
    ),
    "other layers than the job asks for": (
        {"lora": {"rank": 4, "alpha": 8, "targetModules": ["q_proj"]}},
        ["target modules: the adapter has q_proj, v_proj, lora.targetModules asks for q_proj"],
    ),
    "another width": (
        {"tensors": factors({Q: (16, 8), V: (4, 16)})},
        [
            f"{V}: the adapter has A [4, 16] and B [4, 4], a model with weight [4, 8] and rank 4 needs A [4, 8]"
        ],
    ),
    "another rank than it says": (
        {"tensors": factors(rank=2)},
        [f"{Q}: the adapter has A [2, 8] and B [16, 2]", f"{V}: the adapter has"],
    ),
    "half of a layer": (
        {"tensors": dict(list(factors().items())[1:])},
        [f"{Q}: the adapter has B [16, 4], a model"],
    ),
    "more layers than the model": (
        {"tensors": factors({**BASE, "model.layers.9.self_attn.q_proj": (16, 8)})},
        ["model.layers.9.self_attn.q_proj: the model has no such layer"],
    ),
    "weights besides": (
        {"tensors": {**factors(), "base_model.model.lm_head.weight": np.zeros((2, 2), np.float32)}},
        ["base_model.model.lm_head.weight is no factor of a linear layer"],
    ),
    "no weights at all": ({"tensors": {}}, ["it has no weights"]),
    "a named layer without weights": (
        {"tensors": factors({Q: (16, 8)})},
        [f"{V}: target_modules names it, and the adapter has no weights for it"],
    ),
    "weights of a layer that is not named": (
        {"config": {**CONFIG, "target_modules": ["q_proj"]}},
        [f"{V}: the adapter has weights for it, and target_modules does not name it"],
    ),
    "weights of a layer that is left out": (
        {"config": {**CONFIG, "exclude_modules": ".*v_proj"}},
        [f"{V}: the adapter has weights for it, and target_modules does not name it"],
    ),
    "no names of layers": (
        {"config": {**CONFIG, "target_modules": None}},
        ["target_modules names no layers; try the names that the adapter's weights have"],
    ),
    "what is no number": (
        {"config": {**CONFIG, "r": "4", "lora_alpha": 0, "lora_dropout": None}},
        ['r is "4", which is no rank', "lora_alpha is 0, and only", "lora_dropout is null, and only"],
    ),
    "the first layer alone": (
        {"config": {**CONFIG, "layers_to_transform": 0}},
        ["layers_to_transform is 0, and only null can be trained and served"],
    ),
    "another method": (
        {"config": {**CONFIG, "peft_type": "IA3"}},
        ['peft_type is "IA3", and only "LORA" can be trained and served'],
    ),
    "what cannot be served": (
        {"config": {**CONFIG, "use_dora": True, "bias": "all", "rank_pattern": {"q_proj": 8}}},
        ['bias is "all"', "use_dora is true", 'rank_pattern is {"q_proj": 8}'],
    ),
}


REFUSED = {
    "use_dora": True,
    "bias": "lora_only",
    "lora_bias": True,
    "modules_to_save": ["lm_head"],
    "rank_pattern": {"q_proj": 8},
    "alpha_pattern": {"q_proj": 8},
    "layers_to_transform": [0],
    "layers_pattern": "layers",
    "trainable_token_indices": [1],
    "fan_in_fan_out": True,
    "layer_replication": [[0, 1]],
    "target_parameters": ["mlp.experts.down_proj"],
    "alora_invocation_tokens": [1],
    "use_qalora": True,
    "use_bdlora": {"a": 1},
    "velora_config": {"a": 1},
    "monteclora_config": {"a": 1},
    "arrow_config": {"a": 1},
    "kasa_config": {"a": 1},
    "ensure_weight_tying": True,
    "an_option_of_tomorrow": "new",
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_option_that_is_not_kept_is_refused_by_name(go_on, name):
    failure = go_on({**CONFIG, name: REFUSED[name]})[1].failure
    assert failure.failure_class is FailureClass.BAD_INPUT
    assert f"{name} is {json.dumps(REFUSED[name])}" in failure.message


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga"])
def test_an_adapter_that_changed_its_base_is_refused(go_on, start):
    failure = go_on({**CONFIG, "init_lora_weights": start})[1].failure
    assert f'init_lora_weights is "{start}", which changed the base model itself' in failure.message
    assert "path_initial_model_for_weight_conversion" in failure.message


def test_options_that_are_kept_are_kept(go_on, pods):
    kept = {"use_rslora": True, "exclude_modules": ["lm_head"], "init_lora_weights": "gaussian"}
    code, result = go_on({**CONFIG, **kept})
    assert code == 0, result.failure
    config = json.loads((pods.workspace / "prepared/former-adapter/adapter_config.json").read_text())
    assert kept.items() <= config.items()


def test_every_option_of_peft_is_known():
    peft = pytest.importorskip("peft")
    from tuneyard_trainer.model import former_adapter

    known = former_adapter._PLAIN.keys() | former_adapter._KEPT
    fields = peft.LoraConfig.__dataclass_fields__.keys()
    assert fields <= known
    # Default options of PEFT are those that are let through.
    defaults = peft.LoraConfig().to_dict()
    assert not list(
        former_adapter._not_plain({name: defaults.get(name) for name in fields} | {"peft_type": "LORA"})
    )


@pytest.mark.parametrize(("adapter", "messages"), PROBLEMS.values(), ids=PROBLEMS.keys())
def test_all_that_differs_is_said_at_once(go_on, pods, adapter, messages):
    _, result = go_on(**adapter)
    assert result.failure.failure_class is FailureClass.BAD_INPUT
    assert "it can't be trained on:" in result.failure.message
    for message in messages:
        assert message in result.failure.message
    assert not (pods.workspace / "prepared").exists()


def test_many_differences_are_counted(go_on):
    layers = {f"model.layers.{n}.mlp.up_proj": (16, 8) for n in range(1, 31)}
    config = {**CONFIG, "target_modules": ["q_proj", "v_proj", "up_proj"]}
    message = go_on(config, factors({**BASE, **layers}))[1].failure.message
    assert message.count("the model has no such layer") == 8
    assert message.endswith("... and 22 more")


def test_family_whose_files_name_weights_otherwise_is_left_to_peft(go_on, model_files):
    save_file(
        {"transformer.h.0.attn.weight": np.zeros((2, 2), np.float32)}, model_files / "model.safetensors"
    )
    assert go_on()[0] == 0


BROKEN = {
    "a pointer": (
        lambda folder: (folder / "adapter_model.safetensors").write_text(
            "version https://git-lfs.github.com/spec/v1\n"
        ),
        FailureClass.MODEL_MISSING,
        "adapter_model.safetensors is the pointer that Git LFS leaves and not the file",
    ),
    "no weights": (
        lambda folder: (folder / "adapter_model.safetensors").unlink(),
        FailureClass.MODEL_MISSING,
        "missing adapter_model.safetensors; there is adapter_config.json",
    ),
    "no JSON": (
        lambda folder: (folder / "adapter_config.json").write_text("{"),
        FailureClass.BAD_INPUT,
        "adapter_config.json: malformed JSON",
    ),
    "no object": (
        lambda folder: (folder / "adapter_config.json").write_text("[]"),
        FailureClass.BAD_INPUT,
        "adapter_config.json is no object",
    ),
    "torn weights": (
        lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"12345678"),
        FailureClass.BAD_INPUT,
        "adapter_model.safetensors: no readable safetensors",
    ),
}


@pytest.mark.parametrize(("change", "failure_class", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_adapter_is_answered_precisely(go_on, change, failure_class, message):
    failure = go_on(change=change)[1].failure
    assert (failure.failure_class, message in failure.message) == (failure_class, True), failure.message
