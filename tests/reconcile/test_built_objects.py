# SPDX-License-Identifier: Apache-2.0
"""The Kubernetes objects of a job: the pod contract, restricted pods, and nothing where it does not belong."""

from typing import Any

import pytest
from support.samples import job_spec, observed, runtime_spec
from tuneyard_api import names
from tuneyard_api.pod_contract import Stage
from tuneyard_operator.domain.acceptance import accept
from tuneyard_operator.domain.frozen import Frozen
from tuneyard_operator.domain.objects.metadata import Owner
from tuneyard_operator.domain.objects.stage_job import build_rendezvous_service, build_stage_job
from tuneyard_operator.domain.objects.storage import build_plan_map, build_workspace
from tuneyard_operator.domain.objects.unpublish_job import Published, build_unpublish_job

OWNER = Owner("team", "a", "uid-a")
TWO_NODES = job_spec(parallelism={"nodes": 2, "gpusPerNode": 4})
HUB = {"repo": "meta/llama", "secretRef": {"name": "hub-token"}}


def frozen(spec: dict[str, Any] | None = None, **runtime: Any) -> Frozen:
    """A plan."""
    result = accept(observed(spec=spec or job_spec(), runtimes={"hf": runtime_spec(**runtime)}, claims=None))
    assert isinstance(result, Frozen), result
    return result


def pod_of(plan: Frozen, stage: Stage) -> dict[str, Any]:
    spec: dict[str, Any] = build_stage_job(OWNER, plan, stage, 2)["spec"]["template"]["spec"]
    return spec


def env_of(plan: Frozen, stage: Stage) -> dict[str, Any]:
    env = pod_of(plan, stage)["containers"][0]["env"]
    assert len({variable["name"] for variable in env}) == len(env)
    return {variable["name"]: variable.get("value", variable.get("valueFrom")) for variable in env}


@pytest.mark.parametrize("stage", Stage)
def test_every_pod_is_restricted(stage: Stage) -> None:
    pod = pod_of(frozen(), stage)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["restartPolicy"] == "Never"
    [container] = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {volume["name"] for volume in pod["volumes"]} == {
        mount["name"] for mount in container["volumeMounts"]
    }
    assert len({mount["mountPath"] for mount in container["volumeMounts"]}) == len(container["volumeMounts"])


def test_the_job_that_unpublishes_is_restricted_too_ends_by_itself_and_has_the_registry_alone() -> None:
    owner, runtime = Owner("team", "j" * 40, "u"), frozen(imagePullSecrets=["pull"]).runtime
    job = build_unpublish_job(owner, Published("adapters", "/registry/a", "d"), runtime)
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    usual = pod_of(frozen(), Stage.PUBLISH)
    for field in ("securityContext", "automountServiceAccountToken", "restartPolicy", "enableServiceLinks"):
        assert pod[field] == usual[field]
    assert container["securityContext"] == usual["containers"][0]["securityContext"]
    assert [volume.get("persistentVolumeClaim") for volume in pod["volumes"]] == [
        {"claimName": "adapters"},
        None,
    ]
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/registry", "/tmp"}
    assert pod["imagePullSecrets"] == [{"name": "pull"}]
    assert {"activeDeadlineSeconds", "ttlSecondsAfterFinished", "backoffLimit"} <= set(job["spec"])
    assert "ownerReferences" not in job["metadata"], "a deletion in the foreground would take it first"
    assert names.LABEL_STAGE not in job["metadata"]["labels"], "it is no attempt of a stage"
    assert len(job["metadata"]["name"]) + len("-abcde") <= 63


@pytest.mark.parametrize("stage", Stage)
def test_every_pod_keeps_the_pod_contract(stage: Stage) -> None:
    plan = frozen(
        env=[{"name": "HF_ENDPOINT", "value": "http://hub"}, {"name": "TUNEYARD_ATTEMPT", "value": "99"}]
    )
    [container] = pod_of(plan, stage)["containers"]
    assert container["name"] == "trainer"
    assert container["command"] == ["tuneyard-trainer", "stage", stage.value]
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
    env = env_of(plan, stage)
    assert env["TUNEYARD_JOB_FILE"] == "/etc/tuneyard/job.json"
    assert env["TUNEYARD_ATTEMPT"] == "2", "the runtime can't change what the contract says"
    assert env["HF_ENDPOINT"] == "http://hub"
    assert {"name": "job", "mountPath": "/etc/tuneyard", "readOnly": True} in container["volumeMounts"]


def test_jobs_never_retry_by_themselves_and_have_fixed_names() -> None:
    job = build_stage_job(OWNER, frozen(), Stage.TRAIN, 2)
    assert job["metadata"]["name"] == "a-train-2"
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["podReplacementPolicy"] == "Failed"
    assert job["spec"]["completionMode"] == "Indexed"
    [owner] = job["metadata"]["ownerReferences"]
    assert (owner["uid"], owner["controller"]) == ("uid-a", True)


def test_the_longest_names_fit() -> None:
    owner = Owner("team", "j" * 40, "u")
    job = build_stage_job(owner, frozen(), Stage.PREPARE, 20)
    assert len(job["metadata"]["name"]) + len("-0-abcde") <= 63
    assert len(build_plan_map(owner, frozen())["metadata"]["name"]) <= 63


def test_gpus_are_asked_for_by_training_alone() -> None:
    plan = frozen(job_spec(parallelism={"gpusPerNode": 4}))
    asked = {stage: pod_of(plan, stage)["containers"][0]["resources"] for stage in Stage}
    assert (
        asked[Stage.TRAIN]["limits"]["nvidia.com/gpu"]
        == asked[Stage.TRAIN]["requests"]["nvidia.com/gpu"]
        == "4"
    )
    for stage in (Stage.PREPARE, Stage.PUBLISH):
        assert set(asked[stage]["limits"]) == {"memory"}


def test_a_runtime_without_an_accelerator_resource_asks_for_none() -> None:
    plan = frozen(accelerator="none", acceleratorResource=None)
    assert set(pod_of(plan, Stage.TRAIN)["containers"][0]["resources"]["limits"]) == {"memory"}


def test_the_hub_token_reaches_the_prepare_pod_alone() -> None:
    plan = frozen(
        job_spec(model={"huggingFace": HUB}),
        env=[{"name": "HF_TOKEN", "value": "by mistake"}],
        servedModels=[],
    )
    assert env_of(plan, Stage.PREPARE)["HF_TOKEN"] == {"secretKeyRef": {"name": "hub-token", "key": "token"}}
    for stage in (Stage.TRAIN, Stage.PUBLISH):
        assert "HF_TOKEN" not in env_of(plan, stage)


def test_the_keys_of_a_bucket_reach_the_prepare_pod_alone() -> None:
    s3 = {"bucket": "data", "key": "t.jsonl", "secretRef": {"name": "store"}}
    by_mistake = [{"name": "AWS_ACCESS_KEY_ID", "value": "by mistake"}]
    plan = frozen(job_spec(dataset={"training": {"s3": s3}}), env=by_mistake)
    found = {name: value for name, value in env_of(plan, Stage.PREPARE).items() if name.startswith("AWS_")}
    assert found == {
        "AWS_ACCESS_KEY_ID": {"secretKeyRef": {"name": "store", "key": "AWS_ACCESS_KEY_ID"}},
        "AWS_SECRET_ACCESS_KEY": {"secretKeyRef": {"name": "store", "key": "AWS_SECRET_ACCESS_KEY"}},
        "AWS_SESSION_TOKEN": {
            "secretKeyRef": {"name": "store", "key": "AWS_SESSION_TOKEN", "optional": True}
        },
    }
    for stage in (Stage.TRAIN, Stage.PUBLISH):
        assert not [name for name in env_of(plan, stage) if name.startswith("AWS_")]


IN_S3 = {"bucket": "adapters", "prefix": "team", "secretRef": {"name": "registry"}}


@pytest.mark.parametrize(
    ("publish", "runtime"),
    [({"s3": IN_S3}, {"servedModels": []}), ({}, {"defaults": {"registryS3": IN_S3}})],
    ids=["the job's", "the runtime's"],
)
def test_the_keys_of_a_registry_in_s3_reach_the_publish_pod_alone(
    publish: dict[str, Any], runtime: dict[str, Any]
) -> None:
    data = {"bucket": "data", "key": "t.jsonl", "secretRef": {"name": "store"}}
    plan = frozen(job_spec(publish=publish, dataset={"training": {"s3": data}}), **runtime)
    for stage, secret in ((Stage.PREPARE, "store"), (Stage.PUBLISH, "registry")):
        found = {name: value for name, value in env_of(plan, stage).items() if name.startswith("AWS_")}
        assert {value["secretKeyRef"]["name"] for value in found.values()} == {secret}
        assert set(found) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
    assert not [name for name in env_of(plan, Stage.TRAIN) if name.startswith("AWS_")]
    assert "HF_TOKEN" not in env_of(plan, Stage.PUBLISH)
    assert set(mounted(plan, Stage.PUBLISH)) == {"/workspace"}


def test_each_token_of_a_data_store_reaches_the_pod_that_needs_it_alone() -> None:
    file = {"endpoint": "http://d", "repo": "team/a", "path": "t.jsonl", "secretRef": {"name": "reads"}}
    registry = {
        "endpoint": "http://d",
        "entityStore": "http://e",
        "secretRef": {"name": "writes", "key": "k"},
    }
    names = ("TUNEYARD_SOURCE_STORE_TOKEN", "TUNEYARD_DATA_STORE_TOKEN")
    plan = frozen(
        job_spec(dataset={"training": {"dataStore": file}}, publish={"dataStore": registry}),
        servedModels=[],
        env=[{"name": name, "value": "by mistake"} for name in names],
    )
    tokens = {stage: {name: env_of(plan, stage).get(name) for name in names} for stage in Stage}
    assert tokens == {
        Stage.PREPARE: {names[0]: {"secretKeyRef": {"name": "reads", "key": "token"}}, names[1]: None},
        Stage.TRAIN: dict.fromkeys(names),
        Stage.PUBLISH: {names[0]: None, names[1]: {"secretKeyRef": {"name": "writes", "key": "k"}}},
    }
    assert set(mounted(plan, Stage.PUBLISH)) == {"/workspace"}


def mounted(plan: Frozen, stage: Stage) -> dict[str, tuple[str, bool]]:
    """Path -> (claim, read-only)."""
    pod = pod_of(plan, stage)
    claims = {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["volumes"]
        if "persistentVolumeClaim" in volume
    }
    return {
        mount["mountPath"]: (claims[mount["name"]], mount.get("readOnly", False))
        for mount in pod["containers"][0]["volumeMounts"]
        if mount["name"] in claims
    }


def test_each_stage_sees_what_it_needs_and_no_more() -> None:
    plan = frozen(modelCache="models-by-revision", mounts=[{"claimName": "venv", "mountPath": "/opt/venv"}])
    workspace, venv = ("a-workspace", False), ("venv", True)
    assert mounted(plan, Stage.PREPARE) == {
        "/workspace": workspace,
        "/sources/model": ("models", True),
        "/sources/training": ("data", True),
        "/model-cache": ("models-by-revision", False),
        "/opt/venv": venv,
    }
    assert mounted(plan, Stage.TRAIN) == {
        "/workspace": workspace,
        "/sources/model": ("models", True),
        "/model-cache": ("models-by-revision", True),
        "/opt/venv": venv,
    }
    assert mounted(plan, Stage.PUBLISH) == {
        "/workspace": workspace,
        "/registry": ("adapters", False),
        "/opt/venv": venv,
    }


def test_shared_memory_is_memory_backed_and_sized() -> None:
    volumes = {volume["name"]: volume for volume in pod_of(frozen(), Stage.TRAIN)["volumes"]}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "8192Mi"}


def test_placement_of_runtime_and_job_is_for_training_alone() -> None:
    wishes = {"gpuProduct": "H200", "tolerations": [{"key": "team", "value": "ml", "effect": "NoSchedule"}]}
    plan = frozen(
        job_spec(scheduling=wishes),
        nodeSelector={"pool": "gpu"},
        tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists"}],
        runtimeClassName="nvidia",
    )
    pod = pod_of(plan, Stage.TRAIN)
    assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "H200", "pool": "gpu"}
    assert pod["runtimeClassName"] == "nvidia"
    assert [toleration["key"] for toleration in pod["tolerations"]] == ["nvidia.com/gpu", "team"]
    for stage in (Stage.PREPARE, Stage.PUBLISH):
        assert not {"nodeSelector", "tolerations", "runtimeClassName"} & set(pod_of(plan, stage))


def test_one_node_needs_no_rendezvous() -> None:
    assert not [name for name in env_of(frozen(), Stage.TRAIN) if name.startswith("PET_")]
    assert "subdomain" not in pod_of(frozen(), Stage.TRAIN)


def test_several_nodes_meet_at_index_0_through_a_headless_service() -> None:
    plan = frozen(TWO_NODES)
    env = env_of(plan, Stage.TRAIN)
    assert env["PET_NNODES"] == "2"
    assert env["PET_MASTER_ADDR"] == "a-train-2-0.a-train-2"
    assert env["PET_NODE_RANK"] == {
        "fieldRef": {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}
    }
    service = build_rendezvous_service(OWNER, plan, 2)
    assert pod_of(plan, Stage.TRAIN)["subdomain"] == service["metadata"]["name"]
    labels = build_stage_job(OWNER, plan, Stage.TRAIN, 2)["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert build_stage_job(OWNER, plan, Stage.TRAIN, 2)["spec"]["completions"] == 2
    assert build_stage_job(OWNER, plan, Stage.PREPARE, 1)["spec"]["completions"] == 1
    assert build_workspace(OWNER, plan)["spec"]["accessModes"] == ["ReadWriteMany"]


def test_pods_of_one_attempt_are_each_on_a_node_of_their_own() -> None:
    pod = pod_of(frozen(TWO_NODES), Stage.TRAIN)
    [term] = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    labels = build_stage_job(OWNER, frozen(TWO_NODES), Stage.TRAIN, 2)["spec"]["template"]["metadata"][
        "labels"
    ]
    assert term["labelSelector"]["matchLabels"].items() <= labels.items()
    assert term["labelSelector"]["matchLabels"]["tuneyard.io/attempt"] == "2"
    assert "affinity" not in pod_of(frozen(TWO_NODES), Stage.PREPARE)
    assert "affinity" not in pod_of(frozen(), Stage.TRAIN)


def test_the_plan_is_immutable_and_holds_job_json() -> None:
    plan = frozen()
    body = build_plan_map(OWNER, plan)
    assert body["immutable"] is True
    assert body["data"]["job.json"] == plan.plan.resolved.model_dump_json(by_alias=True)
    assert body["metadata"]["annotations"]["tuneyard.io/plan-digest"] == plan.plan.digest


def test_the_workspace_is_as_large_and_of_the_class_that_was_asked_for() -> None:
    claim = build_workspace(OWNER, frozen(job_spec(workspace={"sizeGiB": 7, "storageClassName": "fast"})))
    assert claim["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "7Gi"}},
        "storageClassName": "fast",
    }
    assert "storageClassName" not in build_workspace(OWNER, frozen())["spec"]
    shared = build_workspace(OWNER, frozen(job_spec(workspace={"accessMode": "ReadWriteMany"})))
    assert shared["spec"]["accessModes"] == ["ReadWriteMany"]


def test_the_job_s_wishes_for_cpu_and_memory_are_for_training_alone() -> None:
    plan = frozen(job_spec(resources={"cpuCores": 2.5, "memoryGiB": 1.5}))
    train = pod_of(plan, Stage.TRAIN)["containers"][0]["resources"]
    assert (train["requests"]["cpu"], train["limits"]["memory"]) == ("2500m", "1536Mi")
    assert pod_of(plan, Stage.PREPARE)["containers"][0]["resources"]["limits"]["memory"] == "4Gi"


@pytest.mark.parametrize(
    ("cores", "memory", "asked"),
    [
        (0.0011, 0.5004, ("2m", "513Mi")),
        (0.069, 0.3, ("69m", "308Mi")),
        (1024, 16384, ("1024000m", "16777216Mi")),
    ],
)
def test_less_than_kubernetes_can_divide_is_rounded_up_and_never_to_nothing(
    cores: float, memory: float, asked: tuple[str, str]
) -> None:
    plan = frozen(job_spec(resources={"cpuCores": cores, "memoryGiB": memory}))
    requests = pod_of(plan, Stage.TRAIN)["containers"][0]["resources"]["requests"]
    assert (requests["cpu"], requests["memory"]) == asked


def cpu_of(plan: Frozen, stage: Stage) -> tuple[str, str | None]:
    """Request and limit."""
    resources = pod_of(plan, stage)["containers"][0]["resources"]
    return resources["requests"]["cpu"], resources["limits"].get("cpu")


def test_a_cpu_limit_is_there_only_where_runtime_or_job_have_one() -> None:
    assert {stage: cpu_of(frozen(), stage) for stage in Stage} == {
        Stage.PREPARE: ("1", None),
        Stage.TRAIN: ("4", None),
        Stage.PUBLISH: ("1", None),
    }
    limits = {
        "trainResources": {"cpu": "4", "cpuLimit": "8"},
        "prepareResources": {"cpu": "500m", "cpuLimit": "1"},
    }
    plan = frozen(**limits)
    assert [cpu_of(plan, stage) for stage in (Stage.PREPARE, Stage.TRAIN)] == [("500m", "1"), ("4", "8")]
    own = frozen(job_spec(resources={"cpuCores": 2, "cpuLimitCores": 3.5}), **limits)
    assert cpu_of(own, Stage.TRAIN) == ("2000m", "3500m")
    assert cpu_of(own, Stage.PUBLISH) == ("500m", "1")


@pytest.mark.parametrize(
    ("limit", "asked"), [(None, ("100m", None)), ("1", ("100m", "1")), ("50m", ("50m", "50m"))]
)
def test_the_job_that_unpublishes_keeps_to_the_cpu_limit_of_the_runtime(
    limit: str | None, asked: tuple[str, str | None]
) -> None:
    runtime = frozen(prepareResources={"cpu": "10m", "cpuLimit": limit}).runtime
    job = build_unpublish_job(OWNER, Published("adapters", "/registry/a", "d"), runtime)
    resources = job["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert (resources["requests"]["cpu"], resources["limits"].get("cpu")) == asked
