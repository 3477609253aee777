# SPDX-License-Identifier: Apache-2.0
"""What is concluded from a cluster: facts, contradictions, diagnoses, progress, newer pins. Tables, no cluster."""

import io
import urllib.error
from datetime import UTC, datetime
from email.message import Message
from typing import Any

import pytest
from tuneyard.catalog import catalog, pins
from tuneyard.cluster.bootstrapping import outcome_of
from tuneyard.cluster.contradictions import contradictions
from tuneyard.cluster.diagnosis import GATE, argocd_settings, repositories
from tuneyard.cluster.facts import CRD_OF, ClusterFacts, GpuNodesFound, gpu_nodes, tracker
from tuneyard.cluster.progress import as_text, duration, progress_of
from tuneyard.environment.model import Environment
from tuneyard.findings import InputError
from tuneyard.health import argocd_entries
from tuneyard.stack.resolve import resolve
from tuneyard.views.upgrades import upgrades
from tuneyard_api.yaml_io import load

A100 = GpuNodesFound("NVIDIA-A100-SXM4-80GB", 4, 80, 1)
AS_SAID = ClusterFacts(
    kubernetes="1.33",
    gpus=(A100,),
    storage_classes=("fast", "nfs"),
    installed={"kube-prometheus-stack": "monitoring"},
    crds=frozenset({"externalsecrets.external-secrets.io"}),
    argocd="3.2.11",
)
SAID: dict[str, Any] = {
    "name": "t",
    "cluster": {"kubernetes": "1.33"},
    "argocd": {"repoUrl": "https://git.example.com/g.git", "version": "3.2.11"},
    "gpus": {"nodes": [{"product": "NVIDIA-A100-SXM4-80GB", "gpusPerNode": 4, "memoryGiB": 80}]},
    "storage": {"readWriteOnce": {"className": "fast"}, "readWriteMany": {"className": "nfs"}},
    "secrets": {"provider": "external-secrets", "store": {"name": "vault"}},
    "components": {"mlflow": {"enabled": True}, "existing-prometheus": {"enabled": True}},
}


def found(facts: dict[str, Any], said: dict[str, Any]) -> list[str]:
    environment = Environment.model_validate({**SAID, **said})
    stack = resolve(environment, catalog(environment), pins())
    return [f.rule for f in contradictions(stack, ClusterFacts(**{**vars(AS_SAID), **facts}))]


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "all is as said": ({}, {}, []),
    "an older Kubernetes": ({"kubernetes": "1.31"}, {}, ["live-kubernetes"]),
    "other GPUs": (
        {"gpus": (GpuNodesFound("NVIDIA-L40S", 4, 45, 1),)}, {}, ["live-gpus", "live-gpus"],
    ),
    "fewer GPUs": ({"gpus": (GpuNodesFound(A100.product, 2, 80, 1),)}, {}, ["live-gpus"]),
    "less memory": ({"gpus": (GpuNodesFound(A100.product, 4, 40, 1),)}, {}, ["live-gpus"]),
    "a driver's way to count memory": ({"gpus": (GpuNodesFound(A100.product, 4, 79, 1),)}, {}, []),
    "no GPUs yet": ({"gpus": ()}, {}, ["live-gpus"]),
    "a class that is not there": ({"storage_classes": ("nfs",)}, {}, ["live-storage-class"]),
    "no Prometheus operator": ({"installed": {}}, {}, ["live-existing"]),
    "no External Secrets": ({"crds": frozenset()}, {}, ["live-existing"]),
    "another Argo CD": ({"argocd": "3.5.1"}, {}, ["live-argocd"]),
    "installed by others": (
        {"installed": {"kube-prometheus-stack": "", "cloudnative-pg": "other"}}, {}, ["live-installed-once"],
    ),
    "installed by this environment": (
        {"installed": {"kube-prometheus-stack": "", "cloudnative-pg": "t-cloudnative-pg"}}, {}, [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_contradictions(name: str) -> None:
    facts, said, expected = CASES[name]
    assert found(facts, said) == expected


def test_nodes_become_kinds_of_nodes() -> None:
    def node(product: str | None, gpus: str, memory: str = "81920") -> dict[str, Any]:
        labels = {"nvidia.com/gpu.product": product, "nvidia.com/gpu.memory": memory} if product else {}
        return {
            "metadata": {"labels": labels},
            "status": {"capacity": {"nvidia.com/gpu": gpus} if gpus else {}},
        }

    nodes = [
        node("A100", "4"),
        node("A100", "4"),
        node("L40S-SHARED", "8", "46068"),
        node(None, "1"),
        node(None, ""),
    ]
    assert gpu_nodes(nodes) == (
        GpuNodesFound("A100", 4, 80, 2), GpuNodesFound("L40S", 8, 45, 1, "-SHARED"), GpuNodesFound("unknown", 1, 0, 1),
    )  # fmt: skip


def test_who_tracks_an_object() -> None:
    assert (
        tracker({"annotations": {"argocd.argoproj.io/tracking-id": "lab-volcano:v1/Pod:a/b"}})
        == "lab-volcano"
    )
    assert tracker({"labels": {"argocd.argoproj.io/instance": "lab-volcano"}}) == "lab-volcano"
    assert tracker({}) == ""


def test_every_recognised_component_is_in_the_catalog() -> None:
    assert set(CRD_OF) <= {*pins()}


CRDS = frozenset({"applications.argoproj.io", "appprojects.argoproj.io"})
GOOD = {"controller.sync.wave.delay.seconds": "2", "controller.sync.timeout.seconds": "1800"}


@pytest.mark.parametrize(
    ("change", "parameters", "version", "expected"),
    [
        ({}, GOOD, "3.2.11", []),
        ({GATE: None}, GOOD, "3.2.11", ["failure the gate"]),
        ({GATE: "return {}"}, GOOD, "3.2.11", ["failure the gate"]),
        (
            {"resource.customizations.health.apps.nvidia.com_NIMCache": None},
            GOOD,
            "3.2.11",
            ["failure health checks"],
        ),
        ({}, {**GOOD, "controller.sync.wave.delay.seconds": "0"}, "3.2.11", ["failure wave delay"]),
        ({}, {}, "3.2.11", ["warning sync timeout"]),
        ({}, GOOD, "3.1.0", ["failure Argo CD"]),
        ({}, GOOD, "3.3.1", ["failure Argo CD"]),
        ({}, GOOD, "3.5.1", ["warning Argo CD"]),
        ({}, GOOD, "", ["warning Argo CD"]),
    ],
)
def test_doctor_on_argo_cd(
    change: dict[str, str | None], parameters: dict[str, str], version: str, expected: list[str]
) -> None:
    merged = {**argocd_entries(), **change}
    settings = {key: value for key, value in merged.items() if value is not None}
    facts = ClusterFacts("1.33", argocd=version, crds=CRDS)
    looks = list(argocd_settings(facts, settings, parameters))
    assert [f"{look.level} {look.what}" for look in looks if look.level != "ok"] == expected
    assert [look.level for look in argocd_settings(facts, None, {})] == ["failure"]


@pytest.mark.parametrize(
    ("status", "level"), [(200, "ok"), (401, "ok"), (403, "ok"), (404, "failure"), (None, "warning")]
)
def test_doctor_on_repositories(status: int | None, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(request: Any, timeout: float) -> io.BytesIO:
        asked.append(request.full_url)
        if status is None:
            raise OSError(111, "refused")
        if status != 200:
            raise urllib.error.HTTPError(request.full_url, status, "no", Message(), None)
        return io.BytesIO()

    monkeypatch.setattr("urllib.request.urlopen", answer)
    looks = list(repositories({"https://a/g.git": "git", "https://b/charts/": "helm", "c/charts": "oci"}))
    assert [look.level for look in looks] == ["warning", level, level]
    assert asked == ["https://a/g.git/info/refs?service=git-upload-pack", "https://b/charts/index.yaml"]


NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
WAVES = "argocd.argoproj.io/sync-wave"


def application(name: str, wave: str | None, **status: Any) -> dict[str, Any]:
    annotations = {WAVES: wave} if wave else {}
    return {"metadata": {"name": name, "annotations": annotations}, "status": status}


def test_status_names_what_blocks() -> None:
    rows = progress_of(
        [
            application(
                "c", "2", sync={"status": "OutOfSync"}, health={"status": "Missing"},
                operationState={
                    "phase": "Failed", "finishedAt": "2026-01-01T11:59:00Z", "message": "one or more objects failed",
                    "syncResult": {"resources": [{"kind": "NIMCache", "name": "x", "status": "SyncFailed", "message": "no match"}]},
                },
            ),
            application(
                "b", "1", sync={"status": "Synced"},
                health={"status": "Progressing", "lastTransitionTime": "2026-01-01T10:00:00Z"},
                resources=[
                    {"kind": "Service", "name": "s", "health": {"status": "Healthy"}},
                    {"kind": "Deployment", "name": "p", "health": {"status": "Progressing", "message": "0 of 1"}},
                    {"kind": "Deployment", "name": "d", "health": {"status": "Degraded", "message": "crash"}},
                ],
            ),
            application("a", "0", sync={"status": "Synced"}, health={"status": "Healthy"}),
            application("d", "3", conditions=[{"type": "ComparisonError", "message": "no such chart"}]),
            application("root", None, sync={"status": "OutOfSync"}, health={"status": "Healthy"},
                        resources=[{"kind": "Application", "name": "b", "status": "OutOfSync"}]),
        ],
        NOW,
    )  # fmt: skip
    assert [(r.name, r.is_ready, r.blocker, r.message, r.since_s) for r in rows] == [
        ("root", False, "Application/b", "out of sync", None),
        ("a", True, "", "", None),
        ("b", False, "Deployment/d", "crash", 7200),
        ("c", False, "NIMCache/x", "no match", 60),
        ("d", False, "", "ComparisonError: no such chart", None),
    ]
    assert "Deployment/d: crash" in as_text(rows)


@pytest.mark.parametrize(("seconds", "text"), [(-1, "0s"), (12, "12s"), (200, "3m20s"), (7500, "2h05m")])
def test_durations(seconds: int, text: str) -> None:
    assert duration(seconds) == text


def test_an_apply_that_changes_nothing_is_said_so() -> None:
    entry = {"kind": "ConfigMap", "metadata": {"name": "a", "resourceVersion": "1"}, "data": {"a": "b"}}
    again = {**entry, "metadata": {"name": "a", "resourceVersion": "2", "managedFields": []}}
    assert outcome_of(entry, again) == "unchanged"
    assert outcome_of(entry, {**again, "data": {"a": "c"}}) == "changed"
    assert outcome_of(None, entry) == "created"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("versions: {mlflow: 99.0.0}", ["mlflow chart 99.0.0 True"]),
        ("versions: {mlflow: {version: 1.99.0, notes: read}}", ["mlflow chart 1.99.0 False"]),
        ("versions: {mlflow: 1.0.0}", []),
        (
            "components: {nim: {images: {hf-puller: 'nvcr.io/x:26.01'}}, mlflow: {version: '2.0.0'}, other: {}}",
            ["mlflow chart 2.0.0 True", "nim hf-puller 26.01 True"],
        ),
    ],
)
def test_upgrade_shows_what_is_newer(text: str, expected: list[str]) -> None:
    rows = upgrades(pins(), load(text).value, text, "new.yaml")
    assert [f"{u.component} {u.what} {u.newer} {u.is_major}" for u in rows] == expected


@pytest.mark.parametrize("text", ["a: 1", "versions: {nobody: 1.0.0}", "components: {mlflow: {colour: red}}"])
def test_upgrade_refuses_other_files(text: str) -> None:
    with pytest.raises(InputError):
        upgrades(pins(), load(text).value, text, "new.yaml")
