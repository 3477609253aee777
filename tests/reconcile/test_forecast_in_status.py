# SPDX-License-Identifier: Apache-2.0
"""Planned, once the prepare stage knows model and data: what a training takes, and that none begins which can't fit."""

from dataclasses import replace
from typing import Any

import pytest
from support.samples import PREPARE_FACTS, job_spec, observed, result_text, runtime_without_endpoint
from support.world.training import finish
from support.world.world import World
from tuneyard_api import reasons
from tuneyard_api.customizer import Customizer
from tuneyard_api.known_shapes import KNOWN
from tuneyard_api.model_shape import shape_of
from tuneyard_api.pod_contract import (
    ENV_GRADIENT_CHECKPOINTING,
    ENV_MICRO_BATCH,
    FailureClass,
    PrepareFacts,
    Stage,
)
from tuneyard_api.status import Condition, State
from tuneyard_operator.domain.acceptance import accept
from tuneyard_operator.domain.forecasting import forecast_of
from tuneyard_operator.domain.frozen import Frozen

EIGHT_B, SEVENTY_B, SMALL = (
    shape_of(KNOWN[name])
    for name in ("llama-3.1-8b-instruct", "llama-3.1-70b-instruct", "smollm2-135m-instruct")
)
TRAINING = {"globalBatchSize": 8, "maxSequenceLength": 4096, "maxSteps": 100}


def prepared(model: Any, *, runtime: dict[str, Any] | None = None, **spec: Any) -> World:
    """A job whose prepare stage has ended well with this shape of the model; None: the image does not tell."""
    spec = {"training": TRAINING, **spec}
    world = World(spec=job_spec(**spec), runtime=runtime_without_endpoint() | (runtime or {}))
    world.settle()
    pod = world.make_pod("a-prepare-1")
    world.run_pod(pod)
    facts = PREPARE_FACTS | {"longestSequence": 4096}
    if model is not None:
        facts |= {"model": model.model_dump(mode="json", by_alias=True)}
    world.end_pod(pod, message=result_text(Stage.PREPARE, world.digest, facts=facts))
    world.settle()
    return world


def planned(world: World) -> Condition:
    return next(each for each in world.status.conditions if each.type == "Planned")


def variables(world: World, job: str) -> dict[str, str]:
    [container] = world.cluster.objects["Job", "team", job]["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each.get("value", "") for each in container["env"]}


def test_a_job_that_fits_says_what_it_takes() -> None:
    world = prepared(EIGHT_B, scheduling={"gpuProduct": "NVIDIA-H200"})
    assert (planned(world).status, planned(world).reason) == ("True", reasons.PLANNED)
    assert planned(world).message == (
        "1 GPU; global batch 8 = 1 x 1 data parallel x 8 accumulation; 35.5 of 140.4 GiB on NVIDIA-H200; about 3 min"
        " and 0.057 GPU hours"
    )
    plan = world.status.plan
    assert plan is not None
    assert (plan.gpu_product, plan.memory_gib, plan.steps) == ("NVIDIA-H200", 35.5, 100)
    assert plan.gpu_hours == pytest.approx((plan.seconds or 0) / 3600, abs=0.001)
    assert "a-train-1" in world.jobs()


@pytest.mark.parametrize(("hours", "is_above"), [(0.01, True), (1, False)])
def test_a_budget_that_will_not_do_is_said_before_it_is_spent(hours: float, is_above: bool) -> None:
    world = prepared(EIGHT_B, scheduling={"gpuProduct": "NVIDIA-H200"}, budget={"gpuHours": hours})
    assert planned(world).message.endswith("above spec.budget.gpuHours 0.01") == is_above
    assert "a-train-1" in world.jobs()


def test_a_lora_of_70b_on_one_48_gb_card_is_refused_before_any_gpu_pod_exists() -> None:
    world = prepared(SEVENTY_B, scheduling={"gpuProduct": "NVIDIA-L40S"})
    assert world.status.state is State.FAILED
    assert world.conditions()["Planned"] == ("False", reasons.DOES_NOT_FIT)
    assert world.conditions()["Succeeded"] == ("False", reasons.DOES_NOT_FIT)
    message = world.status.message or ""
    assert message.startswith("the training needs 1")
    assert (
        "GiB on each GPU (weights 131.4, activations 5.0, logits 2.0), and NVIDIA-L40S has 45; try" in message
    )
    assert "parallelism.gpusPerNode: 8" in message
    assert world.jobs() == ["a-prepare-1"]


def test_a_refused_job_stays_refused_for_the_next_operator() -> None:
    world = prepared(SEVENTY_B, scheduling={"gpuProduct": "NVIDIA-L40S"})
    before = world.status
    world.start_operator()
    world.settle()
    assert world.status == before
    assert world.jobs() == ["a-prepare-1"]


@pytest.mark.parametrize("quantizations", [[], ["nf4"]])
def test_a_quantization_is_proposed_if_the_runtime_has_it(quantizations: list[str]) -> None:
    world = prepared(
        SEVENTY_B,
        runtime={"quantizations": quantizations},
        scheduling={"gpuProduct": "NVIDIA-H100-80GB-HBM3"},
    )
    assert ("model.quantization: nf4" in (world.status.message or "")) == bool(quantizations)


@pytest.mark.parametrize(
    ("selected", "runtime"),
    [
        ({"scheduling": {"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4"}}}, {}),
        ({}, {"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4"}}),
    ],
)
def test_a_selector_names_a_product_too(selected: dict[str, Any], runtime: dict[str, Any]) -> None:
    world = prepared(SEVENTY_B, runtime=runtime, **selected)
    assert "and NVIDIA-L4 has 22.5" in (world.status.message or "")


@pytest.mark.parametrize(
    ("scheduling", "said"),
    [
        ({}, "compared with none, as no GPU product is named"),
        ({"gpuProduct": "Example-GPU-9000"}, "not compared with Example-GPU-9000, whose memory is not known"),
    ],
)
def test_what_is_not_known_is_said_and_not_refused(scheduling: dict[str, str], said: str) -> None:
    world = prepared(SEVENTY_B, scheduling=scheduling)
    assert said in planned(world).message
    assert "a-train-1" in world.jobs()
    assert ENV_MICRO_BATCH not in variables(world, "a-train-1")


def test_a_job_on_cpu_is_not_refused_by_the_memory_of_a_gpu() -> None:
    world = prepared(SEVENTY_B, runtime={"accelerator": "none"}, scheduling={"gpuProduct": "NVIDIA-L4"})
    assert "GiB" not in planned(world).message
    assert "a-train-1" in world.jobs()


def test_an_image_that_does_not_tell_the_sizes_is_believed() -> None:
    world = prepared(None, scheduling={"gpuProduct": "NVIDIA-L4"})
    assert planned(world).message == "1 GPU; global batch 8 = 1 x 1 data parallel x 8 accumulation"
    assert "a-train-1" in world.jobs()


def test_what_nemo_customizer_trains_is_not_forecast_by_the_arithmetic_of_our_trainer() -> None:
    frozen = accept(observed(spec=job_spec(scheduling={"gpuProduct": "NVIDIA-L40S"})))
    assert isinstance(frozen, Frozen)
    facts = PrepareFacts.model_validate(PREPARE_FACTS | {"model": SEVENTY_B})
    assert forecast_of(frozen, facts) is not None
    carried = frozen.runtime.model_copy(update={"customizer": Customizer.model_construct()})
    assert forecast_of(replace(frozen, runtime=carried), facts) is None


def test_checkpointing_is_chosen_where_the_training_would_not_fit_without() -> None:
    world = prepared(EIGHT_B, scheduling={"gpuProduct": "NVIDIA-L4"})
    assert variables(world, "a-train-1")[ENV_GRADIENT_CHECKPOINTING] == "true"
    assert "gradient checkpointing" in planned(world).message
    plan = world.status.plan
    assert plan is not None
    assert plan.gradient_checkpointing


def test_a_larger_micro_batch_is_chosen_at_the_same_global_batch_and_kept_by_later_attempts() -> None:
    training = {"globalBatchSize": 64, "maxSequenceLength": 256, "maxSteps": 100}
    world = prepared(SMALL, training=training, scheduling={"gpuProduct": "NVIDIA-H200"})
    plan = world.status.plan
    assert plan is not None
    assert plan.micro_batch_size > 1
    assert plan.micro_batch_size * plan.gradient_accumulation == 64
    assert variables(world, "a-train-1")[ENV_MICRO_BATCH] == str(plan.micro_batch_size)
    pod = world.make_pod("a-train-1")
    world.run_pod(pod)
    world.settle()
    world.start_operator()
    world.end_pod(
        pod,
        exit_code=1,
        reason="Error",
        message=result_text(
            Stage.TRAIN,
            world.digest,
            outcome="Failed",
            failure={"failureClass": FailureClass.INTERRUPTED.value, "message": "words"},
            facts={},
        ),
    )
    world.fail_job("a-train-1")
    world.settle()
    assert variables(world, "a-train-2")[ENV_MICRO_BATCH] == str(plan.micro_batch_size)
    finish(world, 2)


def test_out_of_memory_halves_the_chosen_micro_batch() -> None:
    training = {"globalBatchSize": 64, "maxSequenceLength": 256, "maxSteps": 100}
    world = prepared(SMALL, training=training, scheduling={"gpuProduct": "NVIDIA-H200"})
    plan = world.status.plan
    assert plan is not None
    pod = world.make_pod("a-train-1")
    world.run_pod(pod)
    world.settle()
    failure = {"failureClass": FailureClass.OUT_OF_MEMORY.value, "message": "words"}
    world.end_pod(
        pod,
        exit_code=1,
        reason="Error",
        message=result_text(Stage.TRAIN, world.digest, outcome="Failed", failure=failure, facts={}),
    )
    world.fail_job("a-train-1")
    world.settle()
    assert variables(world, "a-train-2")[ENV_MICRO_BATCH] == str(plan.micro_batch_size // 2)


def test_what_the_job_says_is_not_chosen() -> None:
    training = TRAINING | {"microBatchSize": 2, "gradientCheckpointing": False}
    world = prepared(EIGHT_B, training=training, scheduling={"gpuProduct": "NVIDIA-L4"})
    assert world.status.state is State.FAILED
    assert "try training.gradientCheckpointing: true" in (world.status.message or "")
