# SPDX-License-Identifier: Apache-2.0
"""A FineTuneJob whose training NeMo Customizer carries: its life, what it asks for, and what interrupts it."""

from typing import Any

import pytest
from support.nemo.wire import Fault
from support.samples import job_spec, runtime_spec
from support.world.deletion import delete_finetunejob
from support.world.services import CUSTOMIZER, TARGET, ServiceWorld, customizer_spec, service_runtime
from support.world.world import World
from tuneyard_api import names, reasons
from tuneyard_api.ledger import Part
from tuneyard_api.pod_contract import Stage
from tuneyard_api.status import State
from tuneyard_operator.domain.conditions import read_time


def state(world: World) -> State:
    return world.status.state


def trained() -> ServiceWorld:
    world = ServiceWorld()
    world.prepare()
    world.go_on(20)
    return world


def test_the_job_goes_through_every_step_to_succeeded() -> None:
    world = ServiceWorld()
    world.prepare()
    assert state(world) is State.WAITING
    assert world.conditions()["Scheduled"] == ("False", reasons.WAITING_FOR_SERVICE)
    world.go_on(6)
    assert state(world) is State.TRAINING
    assert world.status.progress is not None
    assert 0 < world.status.progress.step < world.status.progress.of == 5
    assert world.status.progress.loss is not None
    world.go_on(14)
    status = world.status
    assert status.state is State.SUCCEEDED, status.message
    assert world.jobs() == ["a-prepare-1"]
    assert status.result is not None
    assert status.result.adapter is not None
    version = f"{names.dataset_name('a', 'uid-a').removeprefix('a-')}-1"
    assert status.result.model_name == status.result.adapter.name == f"team/a@{version}"
    assert status.result.adapter.path == f"hf://team/a@{version}"
    assert status.result.adapter.digest.startswith("sha256:")
    assert status.result.steps == 5
    assert [(each.stage, each.outcome) for each in status.attempts] == [
        (Stage.PREPARE, "Succeeded"),
        (Stage.TRAIN, "Succeeded"),
    ]
    assert status.plan is not None
    assert status.plan.customizer == CUSTOMIZER


def test_the_time_in_which_the_service_trains_is_training() -> None:
    world = ServiceWorld()
    world.prepare()
    world.go_on(20)
    ledger, train = world.status.ledger, world.status.attempts[-1]
    assert ledger is not None
    parts = ledger.seconds.by_part()
    assert train.running_since is not None
    assert train.ended is not None
    ran = read_time(train.ended) - read_time(train.running_since)
    assert ran.total_seconds() > 0
    assert parts[Part.TRAINING] == ran.total_seconds()
    wall = read_time(ledger.until) - read_time(ledger.since)
    assert sum(parts.values()) == wall.total_seconds()


def test_by_pods_and_by_the_service_status_has_the_same_shape() -> None:
    by_pods = World(runtime=runtime_spec())
    by_pods.settle()
    for stage in Stage:
        by_pods.carry_out(stage)
    by_service = trained()
    one, other = by_pods.status, by_service.status
    assert one.state is other.state is State.SUCCEEDED
    assert [(each.type, each.status, each.reason) for each in one.conditions] == [
        (each.type, each.status, each.reason) for each in other.conditions
    ]
    shapes = [set(status.model_dump(exclude_none=True)) for status in (one, other)]
    assert shapes[0] == shapes[1]
    results = [set((status.result or status).model_dump(exclude_none=True)) for status in (one, other)]
    # Base and tuned model are compared by our own evaluation alone.
    assert results[0] - results[1] == {"metrics"}
    assert results[1] <= results[0]


def test_what_the_job_says_is_asked_for_in_the_services_words() -> None:
    spec = job_spec(
        lora={"rank": 8, "alpha": 16, "dropout": 0.1},
        training={
            "epochs": 3,
            "learningRate": 1e-4,
            "schedule": "constant",
            "globalBatchSize": 16,
            "microBatchSize": 2,
            "maxSequenceLength": 512,
            "warmupSteps": 5,
            "weightDecay": 0.01,
            "seed": 7,
            "packing": False,
            "precision": "bf16",
        },
        parallelism={"gpusPerNode": 2},
        publish={"adapterName": "capitals"},
    )
    world = ServiceWorld(spec=spec)
    world.prepare()
    (job,) = world.customizations
    assert job["hyperparameters"] == {
        "training_type": "sft",
        "finetuning_type": "lora",
        "epochs": 3,
        "batch_size": 16,
        "learning_rate": 1e-4,
        "optimizer": "adamw_with_flat_lr",
        "warmup_steps": 5,
        "weight_decay": 0.01,
        "seed": 7,
        "sequence_packing_enabled": False,
        "lora": {"adapter_dim": 8, "alpha": 16, "adapter_dropout": 0.1},
    }
    config = job["config"]
    assert (config["max_seq_length"], config["training_precision"]) == (512, "bf16-mixed")
    assert config["training_options"] == [
        {
            "training_type": "sft",
            "finetuning_type": "lora",
            "num_gpus": 2,
            "num_nodes": 1,
            "micro_batch_size": 2,
        }
    ]
    assert job["config_snapshot"]["base_model"] == "tiny"
    assert job["output_model"].startswith("team/capitals@")
    assert world.nemo.entities.kinds["datasets"].held.keys() == {("team", names.dataset_name("a", "uid-a"))}


@pytest.mark.parametrize(("method", "kinds"), [("sft", ("sft", "all_weights")), ("dpo", ("dpo", "lora"))])
def test_each_method_is_asked_for(method: str, kinds: tuple[str, str]) -> None:
    world = ServiceWorld(spec=job_spec(method=method))
    world.prepare()
    wanted = world.customizations[0]["hyperparameters"]
    assert (wanted["training_type"], wanted["finetuning_type"]) == kinds
    assert ("lora" in wanted) is (kinds[1] == "lora")
    assert wanted.get("dpo") == (
        {"ref_policy_kl_penalty": 0.1, "max_grad_norm": 1.0} if method == "dpo" else None
    )


def test_two_jobs_of_the_same_numbers_share_a_config() -> None:
    world = trained()
    assert len(world.nemo.customizer.configs.held) == 1
    world.nemo.customizer.jobs.clear()
    again = ServiceWorld()
    again.nemo = world.nemo
    again.start_operator()
    again.prepare()
    assert len(again.nemo.customizer.configs.held) == 1


def test_a_target_that_is_missing_is_made_or_waited_for() -> None:
    models = customizer_spec()["models"][0]
    world = ServiceWorld()
    world.nemo.customizer.targets.held.clear()
    world.prepare()
    assert world.conditions()["Scheduled"] == ("False", reasons.SERVICE_LACKS)
    assert TARGET in (world.status.message or "")
    new = {"modelUri": "ngc://nvidia/nemo/tiny:1.0", "parameters": 1000}
    makes = service_runtime(customizer=customizer_spec(models=[{**models, "create": new}]))
    world = ServiceWorld(runtime=makes)
    world.nemo.customizer.targets.held.clear()
    world.prepare()
    assert world.nemo.customizer.targets.get(("meta", "tiny@1.0"))["model_uri"] == new["modelUri"]
    assert len(world.customizations) == 1


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"training": {"epochs": 0.5}}, "spec.training.epochs"),
        ({"training": {"schedule": "linear"}}, "spec.training.schedule"),
        ({"training": {"maxGradNorm": 0.5}}, "spec.training.maxGradNorm"),
        ({"training": {"gradientCheckpointing": True}}, "spec.training.gradientCheckpointing"),
        ({"training": {"earlyStopping": {}}}, "spec.training.earlyStopping"),
        ({"lora": {"dora": True}}, "spec.lora.dora"),
        ({"lora": {"rank": 12}}, "spec.lora.rank"),
        ({"lora": {"targetModules": ["q_proj"]}}, "spec.lora.targetModules"),
        ({"checkpoint": {"everySteps": 7}}, "spec.checkpoint.everySteps"),
        ({"scheduling": {"queue": "gpus"}}, "spec.scheduling.queue"),
        ({"resources": {"memoryGiB": 8}}, "spec.resources.memoryGiB"),
        ({"evaluation": {"maxPrompts": 3}}, "spec.evaluation.maxPrompts"),
        ({"publish": {"pvc": {"claimName": "adapters"}}}, "spec.publish"),
        ({"publish": {"replace": True}}, "spec.publish.replace"),
        ({"deletionPolicy": "Delete"}, "spec.deletionPolicy"),
        ({"model": {"pvc": {"claimName": "models", "path": "other"}}}, "spec.model"),
    ],
)
def test_what_the_service_cant_do_is_refused_with_the_runtimes_that_can(
    changes: dict[str, Any], path: str
) -> None:
    world = ServiceWorld(spec=job_spec(**changes))
    world.cluster.store(names.RUNTIME_KIND, {"metadata": {"name": "pods"}, "spec": runtime_spec()})
    world.settle()
    assert state(world) is State.FAILED
    message = world.status.message or ""
    assert f"{path}: runtime hf trains" in message, message
    assert "or runtime pods, which trains in pods" in message
    assert world.nemo.requests == []


def test_suspended_the_customization_is_cancelled_and_starts_again() -> None:
    world = ServiceWorld()
    world.prepare()
    world.go_on(6)
    world.edit(suspend=True)
    world.settle()
    world.go_on(6)
    assert world.states == ["cancelled"]
    assert state(world) is State.SUSPENDED
    world.edit(suspend=False)
    world.settle()
    world.go_on(20)
    assert world.states == ["cancelled", "completed"]
    assert state(world) is State.SUCCEEDED, world.status.message
    assert [each.outcome for each in world.status.attempts] == ["Succeeded", "Stopped", "Succeeded"]


def test_a_spent_budget_cancels_the_customization() -> None:
    world = ServiceWorld(spec=job_spec(budget={"gpuHours": 0.001}))
    world.nemo.customizer.pace.running = 1000
    world.prepare()
    world.go_on(30)
    assert world.states == ["cancelled"]
    assert state(world) is State.SUSPENDED
    assert "it starts over when the budget is larger" in (world.status.message or "")


def test_prepare_gets_no_room_for_weights() -> None:
    model = {"huggingFace": {"repo": "meta-llama/Llama-3.1-70B"}}
    served = customizer_spec(
        models=[{"base": {"huggingFace": {**model["huggingFace"], "revision": "a1"}}, "target": TARGET}]
    )
    world = ServiceWorld(
        spec=job_spec(model=model), runtime=service_runtime(customizer=served, servedModels=[])
    )
    world.settle()
    claim = world.cluster.objects["PersistentVolumeClaim", "team", "a-workspace"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "20Gi"


def test_deleted_the_customization_is_cancelled_before_the_job_goes() -> None:
    world = ServiceWorld()
    world.prepare()
    world.go_on(6)
    delete_finetunejob(world)
    world.settle()
    assert (names.JOB_KIND, "team", "a") in world.cluster.objects
    world.go_on(6)
    assert world.states == ["cancelled"]
    assert (names.JOB_KIND, "team", "a") not in world.cluster.objects


def test_deleted_while_the_service_is_down_it_goes_after_a_while_and_says_what_it_left() -> None:
    world = ServiceWorld()
    world.prepare()
    world.nemo.faults.append(Fault("*", "/customization/", 503, times=10_000))
    delete_finetunejob(world)
    world.settle()
    world.go_on(800, step=60)
    assert (names.JOB_KIND, "team", "a") in world.cluster.objects
    world.go_on(200, step=60)
    assert (names.JOB_KIND, "team", "a") not in world.cluster.objects
    told = [event["note"] for event in world.cluster.events if event["reason"] == reasons.LEFT_BEHIND]
    assert len(told) == 1
    assert CUSTOMIZER in told[0]


def test_a_job_that_has_ended_holds_no_finalizer() -> None:
    world = trained()
    assert not world.cluster.objects[names.JOB_KIND, "team", "a"]["metadata"].get("finalizers")


def test_a_deadline_cancels_the_customization() -> None:
    world = ServiceWorld(spec=job_spec(deadlines={"activeSeconds": 5}))
    world.nemo.customizer.pace.running = 1000
    world.prepare()
    world.go_on(30)
    assert state(world) is State.FAILED
    assert world.conditions()["Succeeded"] == ("False", reasons.ACTIVE_DEADLINE)
    assert world.states == ["cancelled"]


def test_a_customization_that_waits_in_the_service_ends_by_the_pending_deadline() -> None:
    world = ServiceWorld(spec=job_spec(deadlines={"pendingSeconds": 60}))
    world.nemo.customizer.pace.pending = 10_000
    world.prepare()
    world.go_on(120, step=10)
    assert world.conditions()["Succeeded"] == ("False", reasons.PENDING_DEADLINE)
    assert world.states == ["cancelled"]


def test_a_restarted_operator_goes_on_with_what_runs() -> None:
    world = ServiceWorld()
    world.prepare()
    for _ in range(8):
        world.start_operator()
        world.go_on(2)
    world.go_on(6)
    assert state(world) is State.SUCCEEDED, world.status.message
    assert len(world.nemo.customizer.started) == 1


def test_out_of_memory_is_tried_again_with_a_smaller_micro_batch() -> None:
    world = ServiceWorld(spec=job_spec(training={"microBatchSize": 4}))
    world.nemo.customizer.failures[names.customization_name("a", "uid-a", 1)] = "torch: CUDA out of memory"
    world.prepare()
    world.go_on(40)
    assert state(world) is State.SUCCEEDED, world.status.message
    sizes = [job["config_snapshot"]["training_option"]["micro_batch_size"] for job in world.customizations]
    assert sizes == [4, 2]


def test_a_failure_is_tried_again_as_often_as_the_job_allows() -> None:
    world = ServiceWorld(spec=job_spec(retry={"maxAttempts": 2, "backoffSeconds": 1}))
    for number in (1, 2, 3):
        world.nemo.customizer.failures[names.customization_name("a", "uid-a", number)] = (
            "disk of node 3 is full"
        )
    world.prepare()
    world.go_on(60)
    assert world.states == ["failed", "failed"]
    assert world.conditions()["Succeeded"] == ("False", reasons.ATTEMPTS_EXHAUSTED)
    assert "disk of node 3 is full" in (world.status.message or "")


def test_what_somebody_cancelled_there_is_not_started_again() -> None:
    world = ServiceWorld()
    world.prepare()
    world.go_on(4)
    job = world.customizations[0]
    world.nemo.customizer._cancel(job)
    world.go_on(10)
    assert world.conditions()["Succeeded"] == ("False", reasons.CANCELLED_THERE)
    assert len(world.customizations) == 1


def test_the_adapter_is_served_under_its_name_in_the_service() -> None:
    world = trained()
    assert {asked.name for asked in world.servers.asked} == {
        world.status.result and world.status.result.model_name
    }
