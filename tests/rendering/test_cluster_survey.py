# SPDX-License-Identifier: Apache-2.0
"""What is judged by a survey of a cluster, each finding once with and once without its cause; and the file of a survey."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tuneyard.catalog import catalog, pins
from tuneyard.cluster.facts import ClusterFacts, GpuNodesFound, Reader
from tuneyard.cluster.room import judge
from tuneyard.cluster.survey import CrdFound, NodeFound, QuotaFound, Survey, as_yaml, read_yaml, survey
from tuneyard.environment.model import Environment
from tuneyard.findings import Finding, InputError
from tuneyard.main import cli
from tuneyard.render.files import File
from tuneyard.stack.resolve import resolve

ROOT = Path(__file__).parents[2]
A100 = GpuNodesFound("NVIDIA-A100-SXM4-80GB", 4, 80, 1)
AS_SAID = ClusterFacts("1.33", (A100,), ("fast",), argocd="3.2.11")
SAID: dict[str, Any] = {
    "name": "t",
    "cluster": {"kubernetes": "1.33"},
    "argocd": {"repoUrl": "https://git.example.com/g.git", "version": "3.2.11"},
    "gpus": {"nodes": [{"product": "NVIDIA-A100-SXM4-80GB", "gpusPerNode": 4, "memoryGiB": 80}]},
    "storage": {"readWriteOnce": {"className": "fast"}},
    "components": {"mlflow": {"enabled": True}},
}
GOOD = Survey(AS_SAID, nodes=(NodeFound("n", A100.product, 4, 900),))
QUEUES = CrdFound("queues.example.com", "example.com", "Queue", ("v1", "v2"), "v2")
A_QUEUE = File("manifests/t/q.yaml", "", "q", ({"apiVersion": "example.com/v1", "kind": "Queue"},))


def found(
    survey: Survey, said: Mapping[str, Any] | None = None, files: tuple[File, ...] = ()
) -> list[Finding]:
    environment = Environment.model_validate({**SAID, **(said or {})})
    return judge(resolve(environment, catalog(environment), pins()), files, survey)


def tainted(*taints: str) -> Survey:
    return replace(
        GOOD, nodes=(NodeFound("n", A100.product, 4, taints=taints), NodeFound("m", A100.product, 4))
    )


def tolerating(*taints: str) -> dict[str, Any]:
    return {"gpus": {"nodes": [{**SAID["gpus"]["nodes"][0], "tolerations": taints}]}}


def old(version: str) -> Survey:
    return replace(GOOD, facts=replace(AS_SAID, kubernetes=version))


def crd(served: tuple[str, ...], application: str = "") -> Survey:
    return replace(GOOD, crds=(replace(QUEUES, served=served, application=application),))


CASES: dict[str, tuple[Survey, dict[str, Any], list[str]]] = {
    "all is well": (GOOD, {}, []),
    "Kubernetes that a component does not run on": (
        old("1.29"), {"cluster": {"kubernetes": "1.31"}}, ["live-kubernetes", "live-kubernetes-is-new-enough"],
    ),
    "Kubernetes that is newer": (old("1.34"), {"cluster": {"kubernetes": "1.34"}}, []),
    "a taint that nothing tolerates": (tainted("dedicated=gpu:NoSchedule"), {}, ["live-taints"]),
    "a taint of another effect": (tainted("nvidia.com/gpu:NoExecute"), {}, ["live-taints"]),
    "a taint that everything tolerates": (tainted("nvidia.com/gpu=present:NoSchedule"), {}, []),
    "a taint that is tolerated": (tainted("dedicated=gpu:NoSchedule"), tolerating("dedicated=gpu"), []),
    "a taint whose key is tolerated": (tainted("dedicated=gpu:NoSchedule"), tolerating("dedicated"), []),
    "a taint of another value": (
        tainted("dedicated=gpu:NoSchedule"), tolerating("dedicated=cpu:NoSchedule"), ["live-taints"],
    ),
    "a taint that only prefers": (tainted("dedicated:PreferNoSchedule"), {}, []),
    "a node that is cordoned": (tainted("node.kubernetes.io/unschedulable:NoSchedule"), {}, []),
    "a CRD that serves the version": (crd(("v1", "v2")), {}, []),
    "a CRD that lacks the version": (crd(("v2",)), {}, ["live-crds"]),
    "a CRD of our own, which is replaced": (crd(("v2",), "t-mlflow"), {}, []),
    "no room for volumes": (replace(GOOD, room_gib={"fast": 1}), {}, ["live-room"]),
    "room for volumes": (replace(GOOD, room_gib={"fast": 100_000}), {}, []),
    "a class that nobody uses is full": (replace(GOOD, room_gib={"slow": 0}), {}, []),
    "something that may not be read": (replace(GOOD, unread=("/x",)), {}, ["live-unread"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_judgements(name: str) -> None:
    survey_, said, expected = CASES[name]
    assert sorted(finding.rule for finding in found(survey_, said, (A_QUEUE,))) == expected


def test_a_taint_is_said_with_what_to_write() -> None:
    [finding] = found(tainted("dedicated=gpu:NoSchedule"))
    assert str(finding) == (
        "gpus.nodes[0].tolerations: 1 of 2 nodes with this GPU have a taint that nothing here tolerates "
        "(got 'dedicated=gpu:NoSchedule'); try tolerations: [dedicated=gpu:NoSchedule]"
    )


def test_quotas_are_held_against_what_stands_in_their_namespace() -> None:
    environment = Environment.model_validate(SAID)
    stack = resolve(environment, catalog(environment), pins())
    gib = {c.namespace: 0 for c in stack.components}
    for component in stack.components:
        gib[component.namespace] += sum(claim.gib for claim in component.claims(stack))
    namespace, amount = max(gib.items(), key=lambda item: item[1])
    assert amount > 1

    def with_quota(name: str, hard: str) -> list[str]:
        one = QuotaFound(name, "q", {"requests.storage": hard})
        return [finding.rule for finding in found(replace(GOOD, quotas=(one,)))]

    assert with_quota(namespace, f"{amount - 1}Gi") == ["live-quotas"]
    assert with_quota(namespace, f"{amount}Gi") == []
    assert with_quota("somebody-elses", "1Gi") == []


ITEMS: dict[str, list[dict[str, Any]]] = {
    "/api/v1/nodes": [
        {"metadata": {"name": "n", "labels": {"nvidia.com/gpu.product": "NVIDIA-L40S-SHARED", "zone": "a"},
                      "annotations": {"token": "not-read"}},
         "spec": {"taints": [{"key": "a", "value": "b", "effect": "NoSchedule"}, {"key": "c", "effect": "NoExecute"}]},
         "status": {"allocatable": {"nvidia.com/gpu": "8", "ephemeral-storage": "107374182400"}}},
        {"metadata": {"name": "plain"}},
    ],
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions": [
        {"metadata": {"name": "queues.example.com"},
         "spec": {"group": "example.com", "names": {"kind": "Queue"}, "versions": [
             {"name": "v2", "served": True, "storage": True}, {"name": "v1", "served": True, "storage": False},
             {"name": "v0", "served": False, "storage": False}]}},
    ],
    "/apis/storage.k8s.io/v1/storageclasses": [{"metadata": {"name": "fast"}}],
    "/api/v1/resourcequotas": [{"metadata": {"name": "q", "namespace": "team"}, "spec": {"hard": {"pods": "9"}}}],
    "/apis/storage.k8s.io/v1/csistoragecapacities": [
        {"storageClassName": "fast", "capacity": "10Gi"}, {"storageClassName": "fast", "capacity": "5Gi"},
        {"storageClassName": "unknown"},
    ],
}  # fmt: skip


class Recorded(Reader):
    """Lists by path; those at `forbidden` are refused."""

    def __init__(self, forbidden: Iterable[str] = ()) -> None:
        self.forbidden = set(forbidden)
        self.asked: list[str] = []

    def get(self, path: str) -> Any:
        """The version; Argo CD is not there."""
        self.asked.append(path)
        return {"gitVersion": "v1.34.2-gke.1"} if path == "/version" else None

    def items(self, path: str) -> list[dict[str, Any]]:
        """The list at a path."""
        self.asked.append(path)
        if path in self.forbidden:
            raise InputError([Finding("cluster", "forbidden")])
        return ITEMS[path]


def test_a_survey_reads_what_is_judged_and_nothing_secret() -> None:
    reader = Recorded()
    seen = survey(reader, taken="2026-11-30T00:00:00+00:00")
    assert seen.facts.kubernetes == "1.34"
    assert seen.nodes[0] == NodeFound(
        "n", "NVIDIA-L40S", 8, 100, ("a=b:NoSchedule", "c:NoExecute"),
        {"nvidia.com/gpu.product": "NVIDIA-L40S-SHARED", "zone": "a"},
    )  # fmt: skip
    assert seen.nodes[1] == NodeFound("plain")
    assert seen.crds == (QUEUES,)
    assert (seen.quotas, seen.room_gib) == ((QuotaFound("team", "q", {"pods": "9"}),), {"fast": 15})
    assert not [path for path in reader.asked if "secrets" in path or "configmaps" in path]
    assert "not-read" not in as_yaml(seen)


def test_what_may_not_be_read_is_listed() -> None:
    seen = survey(Recorded({"/api/v1/resourcequotas"}))
    assert (seen.quotas, seen.unread) == ((), ("/api/v1/resourcequotas",))
    with pytest.raises(InputError):
        survey(Recorded({"/api/v1/nodes"}))


def test_a_survey_comes_back_from_its_file() -> None:
    seen = survey(Recorded({"/api/v1/resourcequotas"}), taken="2026-11-30T00:00:00+00:00")
    text = as_yaml(seen)
    assert text.startswith("format: 1\ntaken: ")
    assert read_yaml(text, "x") == seen
    assert as_yaml(read_yaml(text, "x")) == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [("a: [", "is not YAML"), ("[]", "is no snapshot"), ("format: 2", "is no snapshot"),
     ("format: 1", "facts: Field required"), ("format: 1\nfacts: {kubernetes: [1]}", "facts.kubernetes: ")],
)  # fmt: skip
def test_another_file_is_refused_with_what_is_wrong(text: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        read_yaml(text, "x")


def test_check_judges_by_a_file(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(as_yaml(tainted("dedicated=gpu:NoSchedule")))
    arguments = ["check", "airgapped", "--root", str(ROOT), "--snapshot", str(file)]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 1
    assert "environments/airgapped.yaml:" in result.stderr
    assert "the cluster has no such class" in result.stderr
    both = CliRunner().invoke(cli, [*arguments, "--cluster"])
    assert (both.exit_code, "are two clusters" in both.stderr) == (2, True)
    file.write_text("format: 9\n")
    bad = CliRunner().invoke(cli, arguments)
    assert (bad.exit_code, f"{file}: is no snapshot of format 1" in bad.stderr) == (1, True)
