# SPDX-License-Identifier: Apache-2.0
"""The planner: the arithmetic, what it fills in, what it refuses and with which words."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.plans import MINIMAL, make_job, make_runtime, problems
from tuneyard_api.job import FineTuneJob
from tuneyard_api.job_rules import batch_refusal
from tuneyard_api.planner import Mount, Plan, PlanRefused, digest_of, make_plan
from tuneyard_api.pod_contract import ResolvedJob, ResolvedSource, Stage
from tuneyard_api.runtime import FineTuneRuntime

TINY = {
    "name": "tiny",
    "base": {"pvc": {"claimName": "models", "path": "tiny"}},
    "endpoint": "http://tiny",
    "server": "vllm",
}
"""A server of the base model of MINIMAL."""


def address(plan: Plan) -> str | None:
    return plan.destination.endpoint if plan.destination is not None else None


def test_the_minimal_job_is_filled_in() -> None:
    plan = make_plan(make_job(), make_runtime())
    training = plan.resolved.training
    assert (training.epochs, training.max_steps) == (1.0, None)
    assert (training.global_batch_size, training.micro_batch_size, training.gradient_accumulation) == (
        8,
        1,
        8,
    )
    assert plan.resolved.dataset.validation_fraction == 0.05
    assert plan.resolved.lora.rank == 16
    assert plan.resolved.adapter_name == "answers"
    assert (plan.destination, plan.serve_timeout_seconds, plan.workspace_size_gib) == (None, 600, 20)


@pytest.mark.parametrize(
    ("gpus", "batch", "default", "micro"),
    [(1, 8, 4, 4), (1, 6, 4, 3), (1, 7, 4, 1), (2, 8, 16, 4), (4, 4, 8, 1), (1, 1, 8, 1), (1, 12, 5, 4)],
)
def test_the_micro_batch_is_the_largest_divisor_that_the_runtime_allows(
    gpus: int, batch: int, default: int, micro: int
) -> None:
    job = make_job(training={"globalBatchSize": batch}, parallelism={"gpusPerNode": gpus})
    assert (
        make_plan(job, make_runtime(defaults={"microBatchSize": default})).resolved.training.micro_batch_size
        == micro
    )


def test_processes_are_nodes_times_gpus() -> None:
    plan = make_plan(
        make_job(training={"globalBatchSize": 48}, parallelism={"nodes": 3, "gpusPerNode": 4}),
        make_runtime(defaults={"microBatchSize": 3}),
    )
    training = plan.resolved.training
    assert (plan.resolved.nodes, plan.resolved.gpus_per_node, training.data_parallel) == (3, 4, 12)
    assert (training.micro_batch_size, training.gradient_accumulation) == (2, 2)


def test_a_whole_model_is_not_put_among_adapters_nor_asked_of_their_server() -> None:
    """An endpoint of adapters would be asked for a model that it never loads."""
    plain = make_runtime(methods=["lora", "sft"])
    plan = make_plan(make_job(method="sft"), plain)
    assert (plan.destination, plan.registry.claim_name) == (None, "adapters")
    serving = make_runtime(methods=["lora", "sft"], servedModels=[TINY])
    assert address(make_plan(make_job(), serving)) == "http://tiny"
    assert problems(make_job(method="sft", serve={}), serving) == [
        (
            "spec.serve: method sft publishes a whole model, which a server of adapters does not load (got none); try"
            " the address of a server that is started on the published folder, or leave serve out"
        ),
        (
            "spec.publish: method sft publishes a whole model, and the registry of runtime hf is read by tiny for"
            " adapters (got claim adapters); try publish.pvc with a claim for models"
        ),
    ]
    own = make_job(method="sft", publish={"pvc": {"claimName": "models"}})
    plan = make_plan(own, serving)
    assert (plan.destination, plan.registry.claim_name) == (None, "models")
    asked = make_job(
        method="sft", publish={"pvc": {"claimName": "models"}}, serve={"endpoint": "http://vllm"}
    )
    assert address(make_plan(asked, serving)) == "http://vllm"


def test_a_dora_job_publishes_a_merged_model_away_from_the_adapters_of_a_server() -> None:
    """No server loads adapters with magnitudes, and `spec.lora` alone says that these are trained."""
    serving = make_runtime(servedModels=[TINY])
    said = "method lora with lora.dora publishes a whole model"
    assert problems(make_job(lora={"dora": True}, serve={"model": "tiny"}), serving) == [
        (
            f"spec.serve: {said}, which a server of adapters does not load (got tiny); try the address of a server that"
            " is started on the published folder, or leave serve out"
        ),
        (
            f"spec.publish: {said}, and the registry of runtime hf is read by tiny for adapters (got claim adapters);"
            " try publish.pvc with a claim for models"
        ),
    ]
    plan = make_plan(make_job(lora={"dora": True}, publish={"pvc": {"claimName": "models"}}), serving)
    assert (plan.destination, plan.registry.claim_name) == (None, "models")
    assert plan.resolved.kind.is_merged
    assert not make_plan(make_job(lora={"dora": False}), serving).resolved.kind.is_merged


def test_a_dpo_job_has_its_options_and_preferences_whatever_it_leaves_open() -> None:
    runtime = make_runtime(methods=["lora", "dpo"], servedModels=[TINY])
    plan = make_plan(make_job(method="dpo"), runtime)
    assert plan.resolved.dpo is not None
    assert (plan.resolved.dpo.beta, plan.resolved.dataset.format) == (0.1, "preference")
    assert address(plan) == "http://tiny"
    assert make_plan(make_job(method="dpo", dpo={"beta": 0.5}), runtime).resolved.dpo.beta == 0.5
    assert make_plan(make_job(), runtime).resolved.dpo is None
    assert make_plan(
        make_job(method="dpo", lora={"dora": True}), make_runtime(methods=["dpo"])
    ).resolved.kind.is_merged


def test_early_stopping_needs_something_to_look_at() -> None:
    stopping = {"earlyStopping": {"patience": 2}}
    assert make_plan(make_job(training=stopping), make_runtime()).resolved.training.early_stopping is not None
    test = {"pvc": {"claimName": "data", "path": "test.jsonl"}}
    blind = MINIMAL["dataset"] | {"validationFraction": 0, "test": test}
    assert problems(make_job(training=stopping, dataset=blind), make_runtime()) == [
        (
            "spec.training.earlyStopping: it looks at the loss of validation records, and there are none (got"
            " validationFraction 0); try dataset.validation or dataset.validationFraction 0.05"
        )
    ]


@settings(deadline=None)
@given(
    gpus=st.integers(1, 16),
    micro=st.none() | st.integers(1, 64),
    factor=st.integers(1, 200),
    default=st.integers(1, 128),
)
def test_global_batch_is_micro_batch_times_gpus_times_accumulation(
    gpus: int, micro: int | None, factor: int, default: int
) -> None:
    batch = gpus * (micro or 1) * factor
    training = {"globalBatchSize": batch} | ({"microBatchSize": micro} if micro else {})
    job = make_job(training=training, parallelism={"gpusPerNode": gpus})
    runtime = make_runtime(defaults={"microBatchSize": default})
    resolved = make_plan(job, runtime).resolved.training
    assert resolved.global_batch_size == batch
    assert resolved.micro_batch_size * resolved.data_parallel * resolved.gradient_accumulation == batch
    assert resolved.micro_batch_size == micro or (micro is None and resolved.micro_batch_size <= default)
    assert make_plan(job, runtime) == make_plan(job, runtime)


@settings(deadline=None)
@given(batch=st.integers(1, 10_000), micro=st.none() | st.integers(1, 100), gpus=st.integers(1, 16))
def test_the_advice_for_a_refused_batch_works(batch: int, micro: int | None, gpus: int) -> None:
    message = batch_refusal(batch, micro, gpus)
    assert (message is None) == (batch % (gpus * (micro or 1)) == 0)
    if message is not None:
        tries = [int(number) for number in message.partition("try ")[2].split(" or ")]
        assert all(number > 0 and batch_refusal(number, micro, gpus) is None for number in tries)


def test_epochs_stay_open_when_steps_are_given() -> None:
    training = make_plan(make_job(training={"maxSteps": 5}), make_runtime()).resolved.training
    assert (training.epochs, training.max_steps) == (None, 5)


def test_sources_are_paths_in_the_pod_or_repositories() -> None:
    hub = {"huggingFace": {"repo": "a/b", "revision": "v1", "path": "train.jsonl"}}
    job = make_job(
        model={"pvc": {"claimName": "models"}},
        dataset={"training": hub, "validation": {"pvc": {"claimName": "data", "path": "v.jsonl"}}},
        publish={"pvc": {"claimName": "own", "path": "team/a"}, "adapterName": "helper"},
    )
    resolved = make_plan(job, make_runtime()).resolved
    assert resolved.model == ResolvedSource(path="/sources/model")
    assert resolved.dataset.training == ResolvedSource(repo="a/b", revision="v1", path="train.jsonl")
    assert resolved.dataset.validation == ResolvedSource(path="/sources/validation/v.jsonl")
    assert (resolved.dataset.test, resolved.dataset.validation_fraction) == (None, 0)
    assert (resolved.registry_path, resolved.adapter_name) == ("/registry/team/a", "helper")


def mounts(plan: Plan, stage: Stage) -> list[tuple[str, str, bool]]:
    return [(mount.claim, mount.path, mount.read_only) for mount in plan.stage_mounts(stage)]


def test_each_stage_mounts_what_it_needs_and_nothing_else() -> None:
    runtime = make_runtime(modelCache="cache", mounts=[{"claimName": "env", "mountPath": "/opt/env"}])
    plan = make_plan(make_job(), runtime)
    workspace, env = ("answers-workspace", "/workspace", False), ("env", "/opt/env", True)
    assert mounts(plan, Stage.PREPARE) == [
        workspace,
        ("models", "/sources/model", True),
        ("data", "/sources/training", True),
        ("cache", "/model-cache", False),
        env,
    ]
    assert mounts(plan, Stage.TRAIN) == [
        workspace,
        ("models", "/sources/model", True),
        ("cache", "/model-cache", True),
        env,
    ]
    assert mounts(plan, Stage.PUBLISH) == [workspace, ("adapters", "/registry", False), env]
    assert plan.mounts[0] == Mount(Stage.PREPARE, "answers-workspace", "/workspace", read_only=False)


def test_the_job_s_own_words_win_over_the_runtime_s() -> None:
    runtime = make_runtime(servedModels=[TINY], defaults={"storageClassName": "slow", "workspaceSizeGiB": 7})
    plan = make_plan(make_job(), runtime)
    assert (address(plan), plan.storage_class_name, plan.workspace_size_gib) == ("http://tiny", "slow", 7)
    own = make_job(
        serve={"endpoint": "http://b", "timeoutSeconds": 10},
        workspace={"storageClassName": "fast", "sizeGiB": 9},
        publish={"pvc": {"claimName": "own"}},
    )
    plan = make_plan(own, runtime)
    assert (address(plan), plan.serve_timeout_seconds) == ("http://b", 10)
    assert (plan.storage_class_name, plan.workspace_size_gib, plan.registry.claim_name) == ("fast", 9, "own")


def test_remote_code_runs_only_where_job_and_runtime_agree() -> None:
    trusting = make_job(model={"pvc": {"claimName": "m"}, "trustRemoteCode": True})
    allowing = make_runtime(allowTrustRemoteCode=True)
    assert make_plan(trusting, allowing).resolved.runtime.trust_remote_code is True
    assert make_plan(make_job(), allowing).resolved.runtime.trust_remote_code is False


def test_the_digest_knows_the_job_but_not_its_uid() -> None:
    plan = make_plan(make_job(), make_runtime())
    assert plan.digest == make_plan(make_job(uid="u2"), make_runtime()).digest
    assert plan.digest != make_plan(make_job(name="other"), make_runtime()).digest
    assert plan.digest != make_plan(make_job(training={"seed": 1}), make_runtime()).digest
    assert digest_of(ResolvedJob.model_validate_json(plan.resolved.model_dump_json())) == plan.digest


def test_a_method_that_the_runtime_lacks_is_refused_with_runtimes_that_have_it() -> None:
    job, runtime = make_job(method="sft"), make_runtime()
    automodel = make_runtime("automodel", methods=["sft", "lora"])
    nemo = make_runtime("nemo", methods=["sft"])
    assert problems(job, runtime) == ["spec.method: runtime hf has lora (got sft); try lora"]
    assert problems(job, runtime, nemo, runtime, automodel) == [
        "spec.method: runtime hf has lora (got sft); try runtime automodel or nemo, which has it"
    ]
    with pytest.raises(PlanRefused) as refused:
        make_plan(job, runtime)
    assert refused.value.reason == "MethodNotInRuntime"


def test_all_problems_come_at_once_and_each_under_a_path_of_the_job() -> None:
    hub = {"huggingFace": {"repo": "a/b", "path": "t.jsonl", "secretRef": {"name": "other"}}}
    job = make_job(
        method="ia3",
        model={"huggingFace": {"repo": "a/b", "secretRef": {"name": "mine"}}, "trustRemoteCode": True},
        dataset={"training": hub},
        training={"precision": "bf16"},
        serve={},
    )
    training = job.spec.training.model_copy(update={"global_batch_size": 10, "micro_batch_size": 4})
    copied = job.model_copy(update={"spec": job.spec.model_copy(update={"training": training})})
    runtime = make_runtime("hf-cpu", precisions=["fp32"], defaults={"registry": None})
    with pytest.raises(PlanRefused) as refused:
        make_plan(copied, runtime)
    assert str(refused.value).splitlines() == [
        "spec.method: runtime hf-cpu has lora (got ia3); try lora",
        "spec.training.globalBatchSize: globalBatchSize 10 is not microBatchSize 4 x 1 GPU x accumulation; try 8 or 12",
        "spec.training.precision: runtime hf-cpu has fp32 (got bf16); try auto",
        (
            "spec.model.trustRemoteCode: runtime hf-cpu does not allow Python that comes with a model (got true);"
            " try false, or a model that transformers knows by itself"
        ),
        (
            "spec.dataset.training.huggingFace.secretRef: a job has one hub token (got other/token);"
            " try mine/token, as in spec.model.huggingFace.secretRef"
        ),
        (
            "spec.publish: neither the job nor runtime hf-cpu says where adapters go; try publish.pvc.claimName with the"
            " claim of your adapter registry, publish.s3 or publish.dataStore"
        ),
        (
            "spec.serve: neither the job nor runtime hf-cpu says which endpoint serves the adapter (got none); try"
            " serve.endpoint, or leave serve out"
        ),
    ]
    written = copied.model_dump()
    for problem in refused.value.problems:
        value: Any = written
        for part in problem.path.split("."):
            value = value[part]
        assert value is not None
    assert make_plan(make_job(), make_runtime()).hub_token is None


def offline(value: str) -> list[dict[str, str]]:
    return [{"name": "HF_HUB_OFFLINE", "value": value}]


@pytest.mark.parametrize("value", ["1", "true", "Yes", "ON"])
def test_where_no_hub_is_asked_a_job_that_names_one_is_refused(value: str) -> None:
    hub = {"huggingFace": {"repo": "a/b"}}
    data = {"huggingFace": {"repo": "c/d", "path": "x.jsonl"}}
    dataset = {"training": data, "test": data}
    assert problems(make_job(model=hub, dataset=dataset), make_runtime(env=offline(value))) == [
        f"{path}: pods of runtime hf ask no hub (HF_HUB_OFFLINE is set; got {repo}); try pvc with a copy of it, or a"
        " runtime with HF_ENDPOINT of a mirror"
        for path, repo in (
            ("spec.model.huggingFace", "a/b"),
            ("spec.dataset.training.huggingFace", "c/d"),
            ("spec.dataset.test.huggingFace", "c/d"),
        )
    ]


def test_where_no_hub_is_asked_a_job_that_names_none_is_planned() -> None:
    make_plan(make_job(), make_runtime(env=offline("1")))
    make_plan(make_job(model={"huggingFace": {"repo": "a/b"}}), make_runtime(env=offline("0")))


def test_one_hub_token_serves_model_and_data() -> None:
    token = {"name": "hub", "key": "read"}
    hub = {"huggingFace": {"repo": "a/b", "path": "t.jsonl", "secretRef": token}}
    plan = make_plan(make_job(dataset={"training": hub, "test": hub}), make_runtime())
    assert plan.hub_token is not None
    assert plan.hub_token.model_dump() == token


def refused_paths(job: FineTuneJob, runtime: FineTuneRuntime) -> set[str]:
    try:
        make_plan(job, runtime)
    except PlanRefused as refused:
        return {problem.path for problem in refused.problems}
    return set()


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "method": st.sampled_from(["lora", "sft"]),
            "precision": st.sampled_from(["auto", "bf16", "fp32"]),
            "trusting": st.booleans(),
            "serve": st.sampled_from([None, {}, {"endpoint": "http://a"}]),
        }
    ),
    st.sampled_from([None, {"claimName": "r"}]),
    st.sampled_from([["fp32"], ["bf16", "fp32"]]),
)
def test_a_job_is_refused_for_all_that_is_wrong_and_for_nothing_else(
    asked: dict[str, Any], registry: dict[str, Any] | None, precisions: list[str]
) -> None:
    job = make_job(
        method=asked["method"],
        model={"pvc": {"claimName": "m"}, "trustRemoteCode": asked["trusting"]},
        training={"precision": asked["precision"]},
        serve=asked["serve"],
    )
    wrong = {
        "spec.method": asked["method"] == "sft",
        "spec.training.precision": asked["precision"] not in ["auto", *precisions],
        "spec.model.trustRemoteCode": asked["trusting"],
        "spec.publish": registry is None,
        "spec.serve": asked["serve"] == {},
    }
    runtime = make_runtime(precisions=precisions, defaults={"registry": registry})
    assert refused_paths(job, runtime) == {path for path, is_wrong in wrong.items() if is_wrong}
