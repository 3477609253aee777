# SPDX-License-Identifier: Apache-2.0
"""What runs on GPU nodes gets there: it selects the label that the nodes have, and tolerates the taints that they have.

Labels as GPU feature discovery writes them (NVIDIA/k8s-device-plugin, internal/lm/resource.go and mig-strategy.go).
"""

from collections.abc import Iterator
from typing import Any

import pytest
from tuneyard.catalog import catalog, pins
from tuneyard.checks.gpus import gpus_fit_cluster
from tuneyard.checks.tree import walk
from tuneyard.cluster.contradictions import gpus_are_as_said
from tuneyard.cluster.facts import ClusterFacts, gpu_nodes
from tuneyard.commands.init import found_gpus
from tuneyard.environment.cluster import Gpus
from tuneyard.environment.model import Environment
from tuneyard.render.tree import derived_values
from tuneyard.stack.model import Stack
from tuneyard.stack.resolve import resolve

Json = dict[str, Any]
A100 = "NVIDIA-A100-SXM4-80GB"
NODES = [{"product": A100, "gpusPerNode": 4, "memoryGiB": 80, "tolerations": ["example.com/dedicated"]}]
NIM = {"repository": "nvcr.io/nim/meta/llama-3.1-8b-instruct", "tag": "1.8.6"}
HUB = {"repo": "Qwen/Qwen2.5-7B-Instruct", "revision": "a09a35458c702b33eeacc393d103063234e8bc28"}
BASE: Json = {
    "name": "t",
    "preset": "nemo-microservices",
    "cluster": {"kubernetes": "1.34"},
    "argocd": {"repoUrl": "https://git.example.com/g.git"},
    "storage": {"readWriteOnce": {"className": "block"}},
    "models": [
        {"name": "llama", "engine": "nim", "image": NIM, "gpuProduct": A100},
        {"name": "qwen", "engine": "vllm", "huggingFace": HUB, "gpuProduct": A100},
    ],
    "fineTuning": {"runtimes": [{"name": "hf"}], "namespaces": [{"name": "team"}]},
}
MIG = {"config": "all-1g.10gb", "partsPerGpu": 7, "memoryGiB": 10}
WAYS: dict[str, tuple[Json, str]] = {
    "whole GPUs": ({}, A100),
    "shared by time": ({"timeSlicing": {"replicas": 4}}, f"{A100}-SHARED"),
    "cut into like parts": ({"mig": MIG}, f"{A100}-MIG-1g.10gb"),
    "parts with media extensions": ({"mig": {**MIG, "config": "all-1g.10gb.me"}}, f"{A100}-MIG-1g.10gbme"),
    "cut into any parts": ({"mig": {**MIG, "strategy": "mixed", "config": "all-balanced"}}, A100),
}


def stack(gpus: Json | None = None, **changes: Any) -> Stack:
    environment = Environment.model_validate({**BASE, "gpus": {"nodes": NODES, **(gpus or {})}, **changes})
    return resolve(environment, catalog(environment), pins())


def objects(here: Stack) -> Iterator[Json]:
    for component in here.components:
        yield from component.objects(here) if component.objects else ()


@pytest.mark.parametrize("way", WAYS)
def test_models_select_the_label_that_nodes_have(way: str) -> None:
    gpus, label = WAYS[way]
    selected = {
        entry["kind"]: value["nvidia.com/gpu.product"]
        for entry in objects(stack(gpus))
        for path, value in walk(entry)
        if path and path[-1] == "nodeSelector"
    }
    assert selected == {"NIMCache": label, "NIMService": label, "Deployment": label}


def node(label: str, count: int, offered: int, memory: int = 81920, replicas: int = 1) -> Json:
    """A node as it is labelled, and what it offers."""
    values = {"product": label, "count": count, "memory": memory, "replicas": replicas}
    labels = {f"nvidia.com/gpu.{key}": str(value) for key, value in values.items()}
    return {"metadata": {"labels": labels}, "status": {"capacity": {"nvidia.com/gpu": str(offered)}}}


LIVE: dict[str, Json] = {
    "whole GPUs": node(A100, 4, 4),
    "shared by time": node(f"{A100}-SHARED", 4, 16, replicas=4),
    "cut into like parts": node(f"{A100}-MIG-1g.10gb", 28, 28, memory=9984),
    "cut into any parts": node(A100, 4, 0),
}


def live(way: str) -> ClusterFacts:
    return ClusterFacts("1.34", gpu_nodes([LIVE[way]]))


@pytest.mark.parametrize("way", LIVE)
def test_a_cluster_that_is_as_said_contradicts_nothing(way: str) -> None:
    assert list(gpus_are_as_said(stack(WAYS[way][0]), live(way))) == []


@pytest.mark.parametrize("way", [way for way in LIVE if way != "whole GPUs"])
def test_a_cluster_that_shares_otherwise_does(way: str) -> None:
    """A pod that selects the label of whole GPUs would wait for ever where they are shared."""
    found = [str(finding) for finding in gpus_are_as_said(stack(), live(way))]
    if way == "cut into any parts":
        assert found == []  # the label is that of whole GPUs
    else:
        told = f"the cluster labels these GPUs {WAYS[way][1]} (got '{A100}'); try timeSlicing or mig as it is there"
        assert [text.partition(", or waiting")[0] for text in found] == [
            f"gpus.nodes[0].product: warning: {told}"
        ]


@pytest.mark.parametrize("missing", ["count", "memory"])
def test_parts_are_counted_and_measured_as_parts(missing: str) -> None:
    few = node(
        f"{A100}-MIG-1g.10gb",
        21 if missing == "count" else 28,
        21,
        memory=4864 if missing == "memory" else 9984,
    )
    found = [str(f) for f in gpus_are_as_said(stack({"mig": MIG}), ClusterFacts("1.34", gpu_nodes([few])))]
    assert found == [
        "gpus.nodes[0]: the cluster has 21 parts of these GPUs (got 28); try 21"
        if missing == "count"
        else "gpus.mig.memoryGiB: parts of these GPUs have 5 GiB (got 10); try 5"
    ]


@pytest.mark.parametrize("engine", ["nim", "vllm"])
def test_a_rollout_needs_no_gpu_beside_those_of_the_replicas(engine: str) -> None:
    """Three pods of one GPU fit three GPUs, as neither server's rollout adds a pod. For a NIM the NIM Operator decides."""
    (model,) = (each for each in BASE["models"] if each["engine"] == engine)
    files = {"readWriteOnce": {"className": "block"}, "readWriteMany": {"className": "files"}}
    found = {}
    for there in (3, 2):
        nodes = [{**NODES[0], "gpusPerNode": there}]
        here = stack({"nodes": nodes}, models=[{**model, "replicas": 3}], storage=files)
        found[there] = [str(each) for each in gpus_fit_cluster(here)]
    assert found[3] == []
    assert found[2][0].startswith(f"models[0].gpus: models hold 3 GPUs of {A100}, the cluster has 2")


@pytest.mark.parametrize("replicas", [1, 3])
def test_no_deployment_that_holds_gpus_has_a_surge(replicas: int) -> None:
    files = {"readWriteOnce": {"className": "block"}, "readWriteMany": {"className": "files"}}
    models = [{**model, "replicas": replicas} for model in BASE["models"]]
    holders = [
        each["spec"]
        for each in objects(stack(models=models, storage=files))
        if each["kind"] == "Deployment" and "nvidia.com/gpu" in str(each)
    ]
    assert [spec["replicas"] for spec in holders] == [replicas]
    for spec in holders:
        strategy = spec["strategy"]
        assert strategy["type"] == "Recreate" or strategy["rollingUpdate"]["maxSurge"] == 0


@pytest.mark.parametrize("way", ["whole GPUs", "shared by time", "cut into like parts"])
def test_an_environment_made_from_a_cluster_means_that_cluster(way: str) -> None:
    made = found_gpus(live(way).gpus)
    assert made["nodes"][0]["gpusPerNode"] == 4
    assert Gpus.model_validate(made).label_of(A100) == WAYS[way][1]
    assert list(gpus_are_as_said(stack(made, models=[]), live(way))) == []


TOLERATED = ["nvidia.com/gpu", "example.com/dedicated"]


def keys(tolerations: list[Json]) -> list[str]:
    return [entry["key"] for entry in tolerations]


def test_every_gpu_pod_tolerates_the_taints_of_its_nodes() -> None:
    found = {
        entry["kind"]: keys(value)
        for entry in objects(stack())
        for path, value in walk(entry)
        if path and path[-1] == "tolerations"
    }
    kinds = ("NIMCache", "NIMService", "Deployment", "FineTuneRuntime", "NemoCustomizer")
    assert found == dict.fromkeys(kinds, TOLERATED)


def values(here: Stack, name: str) -> Json:
    component = here.component(name)
    assert component
    return derived_values(here, component)


def test_drivers_and_plugins_come_to_tainted_nodes() -> None:
    operator = values(stack(), "gpu-operator")
    assert keys(operator["daemonsets"]["tolerations"]) == TOLERATED
    worker = operator["node-feature-discovery"]["worker"]["tolerations"]
    assert keys(worker) == ["node-role.kubernetes.io/control-plane", *TOLERATED]
    dra = values(stack(use={"gpu": "dra-driver"}), "dra-driver")
    assert keys(dra["kubeletPlugin"]["tolerations"]) == TOLERATED


def test_nodes_without_taints_of_their_own_keep_the_chart_s_tolerations() -> None:
    bare = {"nodes": [{**NODES[0], "tolerations": []}]}
    assert "daemonsets" not in values(stack(bare), "gpu-operator")
    dra = values(stack(bare, use={"gpu": "dra-driver"}), "dra-driver")
    assert keys(dra["kubeletPlugin"]["tolerations"]) == ["nvidia.com/gpu"]


@pytest.mark.parametrize(
    "key", ["example.com/dedicated", "dedicated", "Team_A.gpu", "a.b-c.example.com/GPU.only"]
)
def test_a_taint_s_key_is_a_name_with_an_optional_prefix(key: str) -> None:
    assert stack({"nodes": [{**NODES[0], "tolerations": [key]}]}).environment.gpus.taints() == (key,)


@pytest.mark.parametrize(
    ("taint", "toleration"),
    [
        ("dedicated", {"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}),
        ("a.example/b:NoExecute", {"key": "a.example/b", "operator": "Exists", "effect": "NoExecute"}),
        ("team=a-1", {"key": "team", "operator": "Equal", "value": "a-1", "effect": "NoSchedule"}),
        ("x/y=z:NoExecute", {"key": "x/y", "operator": "Equal", "value": "z", "effect": "NoExecute"}),
        ("nvidia.com/gpu:NoExecute", {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoExecute"}),
    ],
)
def test_value_and_effect_of_a_taint_reach_pods_and_drivers(taint: str, toleration: Json) -> None:
    here = stack({"nodes": [{**NODES[0], "tolerations": [taint]}]})
    found = [
        value for entry in objects(here) for path, value in walk(entry) if path and path[-1] == "tolerations"
    ]
    operator = values(here, "gpu-operator")
    found += [
        operator["daemonsets"]["tolerations"],
        operator["node-feature-discovery"]["worker"]["tolerations"],
    ]
    assert len(found) == 7
    assert all(toleration in tolerations for tolerations in found)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "a:",
        "a=",
        "a:Noexecute",
        "a=b c:NoExecute",
        "a:NoExecute=b",
        "a=-b",
        "-a",
        "a-",
        "Example.com/a",
        "/a",
        "a/",
        "a/b/c",
        "a b",
        "a" * 64,
        f"a/{'b' * 64}",
    ],
)
def test_nothing_else_is(key: str) -> None:
    with pytest.raises(ValueError, match="tolerations"):
        stack({"nodes": [{**NODES[0], "tolerations": [key]}]})
