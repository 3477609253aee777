# SPDX-License-Identifier: Apache-2.0
"""The Lua health checks, run in Lua 5.1 with the libraries that Argo CD opens: base and table, no string, no os."""

from typing import Any

import pytest
from tuneyard.health import GATE, argocd_entries, health_checks

lua51 = pytest.importorskip("lupa.lua51", reason="lupa (Lua 5.1) is not installed")


def as_table(runtime: Any, value: Any) -> Any:
    """Lua tables of plain data, each one new: sharing a table would let a comparison pass for the wrong reason.

    A null in a list leaves no hole, as in Argo CD's Lua.
    """
    if isinstance(value, dict):
        return runtime.table_from({key: as_table(runtime, child) for key, child in value.items()})
    return (
        runtime.table_from([as_table(runtime, child) for child in value if child is not None])
        if isinstance(value, list)
        else value
    )


def run(key: str, resource: dict[str, Any]) -> tuple[str, str]:
    """Status and message of a check for an object."""
    runtime = lua51.LuaRuntime()
    runtime.execute("string = nil; os = nil; io = nil; math = nil; require = nil; debug = nil")
    runtime.globals()["obj"] = as_table(runtime, resource)
    result = runtime.execute(health_checks()[key])
    return result["status"], result["message"]


SOURCE = {
    "repoURL": "https://charts.example.com",
    "chart": "a",
    "targetRevision": "1.0.0",
    "helm": {"valuesObject": {"n": 1, "l": [1, {"x": 2}]}},
}
NEWER = {**SOURCE, "helm": {"valuesObject": {"n": 1, "l": [1, {"x": 3}]}}}


def application(
    source: dict[str, Any] = SOURCE,
    compared: Any = SOURCE,
    sync: str = "Synced",
    health: str = "Healthy",
    **status: Any,
) -> dict[str, Any]:
    return {
        "metadata": {"labels": {"tuneyard.io/environment": "lab"}},
        "spec": {"source": source},
        "status": {
            "sync": {"status": sync, "comparedTo": {"source": compared}},
            "health": {"status": health},
            **status,
        },
    }


def operation(phase: str, source: dict[str, Any] = SOURCE, retries: int = 0) -> dict[str, Any]:
    return {
        "operationState": {
            "phase": phase,
            "operation": {"sync": {"source": source}},
            "message": "why",
            "retryCount": retries,
        }
    }


@pytest.mark.parametrize(
    ("resource", "status", "message"),
    [
        (application(), "Healthy", ""),
        (application(**operation("Succeeded")), "Healthy", ""),
        (application(health="Degraded"), "Degraded", ""),
        (application(health="Suspended"), "Suspended", ""),
        (application(health="Progressing"), "Progressing", "health Progressing"),
        (application(health="Missing"), "Progressing", "health Missing"),
        (application(sync="OutOfSync"), "Progressing", "sync status OutOfSync"),
        (application(sync="Unknown"), "Progressing", "sync status Unknown"),
        (application(source=NEWER), "Progressing", "status belongs to an older spec"),
        (application(**operation("Running")), "Progressing", "sync running"),
        (application(**operation("Running", retries=2)), "Degraded", "why"),
        (application(**operation("Failed")), "Degraded", "why"),
        (application(**operation("Error")), "Degraded", "why"),
        (application(**operation("Failed", NEWER)), "Progressing", "last sync was of an older spec"),
        ({**application(), "operation": {"sync": {}}}, "Progressing", "sync requested"),
        ({**application(), "status": {}}, "Progressing", "waiting for the first comparison"),
        ({"metadata": {"labels": {"tuneyard.io/environment": "lab"}}, "spec": {}}, "Progressing", "waiting for the first comparison"),
        ({**application(sync="OutOfSync"), "metadata": {"labels": {"team": "other"}}}, "Healthy", ""),
        ({**application(sync="OutOfSync"), "metadata": {}}, "Healthy", ""),
    ],
    ids=[
        "synced and healthy", "operation succeeded", "degraded child", "suspended child", "progressing child", "missing resources",
        "out of sync", "unknown sync", "stale comparison", "sync running", "sync keeps failing", "sync failed", "sync in error",
        "failure of an older spec", "sync requested", "no comparison yet", "no status yet", "someone else's", "no labels at all",
    ],
)  # fmt: skip
def test_the_gate_opens_only_for_the_spec_that_is_there(
    resource: dict[str, Any], status: str, message: str
) -> None:
    assert run(GATE, resource) == (status, message)


def test_the_gate_compares_several_sources() -> None:
    several = application()
    several["spec"] = {"sources": [SOURCE, NEWER]}
    several["status"]["sync"]["comparedTo"] = {"source": {"repoURL": ""}, "sources": [SOURCE, NEWER]}
    assert run(GATE, several) == ("Healthy", "")
    several["status"]["sync"]["comparedTo"]["sources"] = [SOURCE, SOURCE]
    assert run(GATE, several)[0] == "Progressing"


def nvidia(state: str | None, *conditions: tuple[str, str, str]) -> dict[str, Any]:
    entries = [
        {"type": kind, "status": "True", "reason": reason, "message": message}
        for kind, reason, message in conditions
    ]
    return {
        "metadata": {},
        "spec": {},
        "status": {"state": state, "conditions": entries} if state is not None else None,
    }


def queue(reason: str, message: str) -> dict[str, Any]:
    """A ClusterQueue that admits nothing, as Kueue 0.19.2 says so."""
    active = {"type": "Active", "status": "False", "reason": reason, "message": message}
    return {"spec": {}, "status": {"conditions": [active]}}


SERVICE, CACHE, POLICY = "apps.nvidia.com_NIMService", "apps.nvidia.com_NIMCache", "nvidia.com_ClusterPolicy"


@pytest.mark.parametrize(
    ("key", "resource", "status"),
    [
        (SERVICE, nvidia(None), "Progressing"),
        (SERVICE, nvidia(""), "Progressing"),
        (SERVICE, nvidia("Pending"), "Progressing"),
        (SERVICE, nvidia("NotReady", ("Ready", "NIMCacheNotReady", "")), "Progressing"),
        (SERVICE, nvidia("Ready"), "Healthy"),
        (SERVICE, nvidia("Failed", ("Failed", "DeploymentFailed", "why")), "Degraded"),
        (SERVICE, nvidia("Failed", ("Failed", "NIMCacheNotFound", "why")), "Progressing"),
        (SERVICE, nvidia("Failed", ("Failed", "NIMCacheFailed", "why")), "Progressing"),
        (CACHE, nvidia("InProgress"), "Progressing"),
        (CACHE, nvidia("Failed"), "Progressing"),
        (CACHE, nvidia("Ready"), "Healthy"),
        (POLICY, nvidia("notReady", ("Error", "x", "driver")), "Progressing"),
        (POLICY, nvidia("ready"), "Healthy"),
        (POLICY, nvidia("ignored"), "Degraded"),
        (POLICY, nvidia("disabled"), "Suspended"),
        ("milvus.io_Milvus", {"status": {"status": "Healthy"}}, "Healthy"),
        ("milvus.io_Milvus", {"status": {"status": "Unhealthy"}}, "Progressing"),
        ("milvus.io_Milvus", {}, "Progressing"),
        (
            "kueue.x-k8s.io_ClusterQueue",
            {"status": {"conditions": [{"type": "Active", "status": "True"}]}},
            "Healthy",
        ),
        (
            "kueue.x-k8s.io_ClusterQueue",
            {"status": {"conditions": [{"type": "Active", "status": "False"}]}},
            "Progressing",
        ),
        ("kueue.x-k8s.io_ClusterQueue", {}, "Progressing"),
        (
            "kueue.x-k8s.io_ClusterQueue",
            queue("Stopped", "Can't admit new workloads: is stopped."),
            "Suspended",
        ),
        (
            "kueue.x-k8s.io_ClusterQueue",
            queue("FlavorNotFound", "references missing ResourceFlavor(s): gpu"),
            "Progressing",
        ),
        (
            "kueue.x-k8s.io_ClusterQueue",
            {"status": {"conditions": [None, {"type": "Active", "status": "True"}]}},
            "Healthy",
        ),
    ],
)
def test_custom_resources_are_waited_for(key: str, resource: dict[str, Any], status: str) -> None:
    assert run(key, resource)[0] == status


def test_a_queue_that_is_held_says_so_and_holds_nothing_up() -> None:
    """Suspended lets the waves after it go on; the gate passes it."""
    key = "kueue.x-k8s.io_ClusterQueue"
    assert run(key, queue("Stopped", "is stopped")) == ("Suspended", "is stopped")
    assert run(GATE, application(health="Suspended"))[0] == "Suspended"


def test_a_ready_cluster_policy_shows_why_there_may_be_no_gpu() -> None:
    assert run(POLICY, nvidia("ready", ("Ready", "NFDLabelsMissing", "")))[1] == "NFDLabelsMissing"


def test_a_failing_service_says_why() -> None:
    assert (
        run(SERVICE, nvidia("Failed", ("Failed", "DeploymentFailed", "image not found")))[1]
        == "image not found"
    )


def cache(state: str, *conditions: dict[str, Any]) -> dict[str, Any]:
    """A NIMCache with conditions as NIM Operator 3.1.2 writes them."""
    return {
        "metadata": {"name": "llama-cache-1a2b3c4d", "namespace": "models"},
        "status": {"state": state, "conditions": list(conditions)},
    }


JOB_FAILED = {
    "type": "NIM_CACHE_JOB_COMPLETED",
    "status": "False",
    "reason": "JobFailed",
    "message": "The Job to cache NIM has failed",
}
JOB_PENDING = {
    "type": "NIM_CACHE_JOB_PENDING",
    "status": "True",
    "reason": "JobPending",
    "message": "pending",
}
NO_PROFILE = {
    "type": "NIM_CACHE_RECONCILE_FAILED",
    "status": "True",
    "reason": "ReconcileFailed",
    "message": "no profiles are selected for caching",
}
DOWNLOAD = "a download has failed: kubectl logs -n models job/llama-cache-1a2b3c4d-job"


@pytest.mark.parametrize(
    ("resource", "status", "message"),
    [
        (cache("Failed", JOB_PENDING, JOB_FAILED), "Progressing", f"Failed, {DOWNLOAD}"),
        (cache("InProgress", JOB_FAILED), "Progressing", f"InProgress, {DOWNLOAD}"),
        (cache("NotReady", NO_PROFILE), "Progressing", "no profiles are selected for caching"),
        (cache("Pending", JOB_PENDING), "Progressing", "Pending"),
        (cache("Ready", {**JOB_FAILED, "status": "True", "reason": "JobCompleted"}), "Healthy", "Ready"),
    ],
    ids=["failed", "tried again", "no profile fits", "waiting", "ready after all"],
)
def test_a_cache_that_is_not_filled_says_where_the_reason_is(
    resource: dict[str, Any], status: str, message: str
) -> None:
    assert run(CACHE, resource) == (status, message)


def test_a_service_says_where_the_reason_is() -> None:
    """Without its database's Secret a NeMo object never gets a status; NIMCacheFailed comes without a message."""
    waiting = {"kind": "NemoCustomizer", "metadata": {"name": "nemo-customizer", "namespace": "nemo"}}
    wanted = "no status yet; its events say why: kubectl describe -n nemo NemoCustomizer/nemo-customizer"
    assert run("apps.nvidia.com_NemoCustomizer", waiting) == ("Progressing", wanted)
    failed = nvidia("Failed", ("Failed", "NIMCacheFailed", ""))
    assert run(SERVICE, failed) == ("Progressing", "NIMCacheFailed: its NIMCache says why")


@pytest.mark.parametrize(
    ("conditions", "generation", "suspend", "status"),
    [
        ([], 1, False, "Progressing"),
        ([{"type": "Succeeded", "status": "True", "observedGeneration": 1}], 1, False, "Healthy"),
        (
            [{"type": "Succeeded", "status": "False", "observedGeneration": 1, "message": "why"}],
            1,
            False,
            "Degraded",
        ),
        ([{"type": "Accepted", "status": "False", "observedGeneration": 1}], 1, False, "Degraded"),
        ([{"type": "Succeeded", "status": "True", "observedGeneration": 1}], 2, False, "Healthy"),
        ([{"type": "Succeeded", "status": "True", "observedGeneration": 1}], 2, True, "Healthy"),
        ([{"type": "Accepted", "status": "False", "observedGeneration": 1}], 2, False, "Progressing"),
        ([{"type": "Trained", "status": "False", "observedGeneration": 1}], 1, False, "Progressing"),
        ([], 1, True, "Suspended"),
    ],
    ids=[
        "running",
        "succeeded",
        "failed",
        "refused",
        "edited after the end",
        "suspended after the end",
        "refused before the edit",
        "another condition",
        "suspended",
    ],
)
def test_a_fine_tune_job_in_git(
    conditions: list[dict[str, Any]], generation: int, suspend: bool, status: str
) -> None:
    job = {
        "metadata": {"generation": generation},
        "spec": {"suspend": suspend},
        "status": {"conditions": conditions, "state": "Training"},
    }
    assert run("tuneyard.io_FineTuneJob", job)[0] == status


@pytest.mark.parametrize("key", sorted(health_checks()))
def test_every_check_waits_for_an_object_without_status(key: str) -> None:
    assert (
        run(key, {"metadata": {"labels": {"tuneyard.io/environment": "lab"}}, "spec": {}})[0] == "Progressing"
    )


def test_the_keys_are_those_of_argocd_cm() -> None:
    assert "resource.customizations.health.argoproj.io_Application" in argocd_entries()
    assert all(key.count("_") == 1 for key in argocd_entries())
