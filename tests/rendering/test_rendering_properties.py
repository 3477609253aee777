# SPDX-License-Identifier: Apache-2.0
"""What holds for every environment: same bytes, whatever the order of keys; needs first; addresses and secrets met."""

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tuneyard.catalog import catalog, pins
from tuneyard.checks import FILE_CHECKS
from tuneyard.environment.model import Environment
from tuneyard.render.applications import WAVE, inline_chart_path
from tuneyard.render.files import File
from tuneyard.render.tree import local_paths, merged, render
from tuneyard.stack.model import Stack
from tuneyard.stack.order import waves
from tuneyard.stack.resolve import edges, resolve
from tuneyard_api.yaml_io import load

ROOT = Path(__file__).parents[2]
NODES = {"product": "NVIDIA-A100-SXM4-80GB", "nodes": 4, "gpusPerNode": 8, "memoryGiB": 80}
NIM = {"name": "llama", "image": {"repository": "nvcr.io/nim/meta/llama-3.1-8b-instruct", "tag": "1.8.6"}}
HUB = {"repo": "Qwen/Qwen2.5-7B-Instruct", "revision": "a09a35458c702b33eeacc393d103063234e8bc28"}


@st.composite
def environments(draw: Any) -> dict[str, Any]:
    """Environments that mean something: presets, swaps, models and namespaces, in any mixture that goes together."""
    preset = draw(st.sampled_from(["nemo-microservices", "nemo-helix", "open"]))
    data: dict[str, Any] = {
        "name": draw(st.sampled_from(["a", "prod-eu", "n" * 20])),
        "preset": preset,
        "cluster": {"kubernetes": "1.34", "networkPolicies": draw(st.booleans())},
        "argocd": {
            "repoUrl": "https://git.example.com/g.git",
            "teardown": draw(st.sampled_from(["keep", "cascade"])),
        },
        "gpus": {"nodes": [NODES], "driver": draw(st.sampled_from(["operator", "preinstalled"]))},
        "storage": {"readWriteOnce": {"className": "block"}, "readWriteMany": {"className": "files"}},
        "sizing": draw(st.sampled_from(["small", "large"])),
        "use": {"metrics": draw(st.sampled_from(["kube-prometheus-stack", "existing-prometheus"]))},
        "models": [],
    }
    if draw(st.booleans()):
        data["use"]["postgres"], data["externalPostgres"] = "external-postgres", {"host": "db.example.com"}
    if draw(st.booleans()):
        data["use"]["s3"], data["externalS3"] = "external-s3", {"endpoint": "https://s3.example.com"}
    if draw(st.booleans()):
        data["use"]["gpu"] = draw(st.sampled_from(["dra-driver", "existing-gpus"]))
    if draw(st.booleans()):
        data["registries"] = {"mirror": "registry.internal", "charts": "registry.internal/charts"}
    if draw(st.booleans()):
        data["secrets"] = {"provider": "external-secrets", "store": {"name": "vault"}}
    if draw(st.booleans()):
        data["models"].append(
            {
                **NIM,
                "engine": "nim",
                **draw(
                    st.sampled_from([{}, {"autoscaling": {"maxReplicas": 2}}, {"lora": {}}, {"replicas": 2}])
                ),
            }
        )
    if draw(st.booleans()):
        data["models"].append(
            {"name": "qwen", "engine": "vllm", "huggingFace": HUB, "namespace": "team", "lora": {}}
        )
    if draw(st.booleans()):
        data["cluster"] |= {"domain": "example.com", "ingress": {"className": "nginx"}}
    data["fineTuning"] = {"runtimes": [{"name": "hf"}], "namespaces": [{"name": "team", "gpus": 2}]}
    return data


def stack_of(data: dict[str, Any]) -> Stack:
    environment = Environment.model_validate(data)
    return resolve(environment, catalog(environment), pins())


def rendered(stack: Stack) -> tuple[File, ...]:
    return render(stack, dict.fromkeys(local_paths(stack), "0" * 64))


def shuffled(value: Any, source: random.Random) -> Any:
    if isinstance(value, dict):
        keys = list(value)
        source.shuffle(keys)
        return {key: shuffled(value[key], source) for key in keys}
    return [shuffled(item, source) for item in value] if isinstance(value, list) else value


@settings(max_examples=40, deadline=None)
@given(environments(), st.randoms())
def test_the_bytes_are_the_same_whatever_the_order_of_keys(
    data: dict[str, Any], source: random.Random
) -> None:
    data["components"] = {
        "mlflow": {"values": {"b": 1, "a": {"d": 2, "c": 3}}},
        "versitygw-server": {"values": {"z": 1, "y": 2}},
    }
    assert rendered(stack_of(data)) == rendered(stack_of(shuffled(data, source)))


@settings(max_examples=60, deadline=None)
@given(environments())
def test_every_check_of_the_tree_holds(data: dict[str, Any]) -> None:
    stack = stack_of(data)
    files = rendered(stack)
    assert [str(finding) for check in FILE_CHECKS for finding in check(stack, files)] == []


@settings(max_examples=40, deadline=None)
@given(environments())
def test_applications_carry_waves_in_which_needs_come_first(data: dict[str, Any]) -> None:
    stack = stack_of(data)
    found: dict[str, int] = {}
    for file in rendered(stack):
        for entry in file.objects:
            if entry["kind"] == "Application" and file.component:
                found[file.component] = int(entry["metadata"]["annotations"][WAVE])
    assert found == {name: wave for name, wave in waves(stack).items() if name in found}
    for edge in edges(stack):
        if edge.component in found and edge.provider in found:
            assert found[edge.component] > found[edge.provider], edge


@settings(max_examples=40, deadline=None)
@given(environments())
def test_every_change_of_an_object_or_a_value_is_a_change_of_its_application(data: dict[str, Any]) -> None:
    """What a component deploys is inside of its Application's spec: objects and values alike."""
    stack = stack_of(data)
    specs: dict[str, Any] = {}
    plain: dict[str, list[Any]] = {}
    for file in rendered(stack):
        for entry in file.objects:
            if entry["kind"] == "Application" and file.component:
                specs[file.component] = entry["spec"]["source"]
            elif file.component:
                plain.setdefault(file.component, []).append(entry)
        if file.path.endswith("/values.yaml"):
            assert load(file.text).value == specs[file.component]["helm"]["valuesObject"]
    for name, objects in plain.items():
        assert specs[name]["path"] == inline_chart_path(stack.environment.name)
        assert sorted(map(str, specs[name]["helm"]["valuesObject"]["objects"])) == sorted(map(str, objects))


@settings(max_examples=30, deadline=None)
@given(environments())
def test_every_file_is_yaml_that_reads_back_as_what_was_meant(data: dict[str, Any]) -> None:
    for file in rendered(stack_of(data)):
        if file.objects:
            assert (load(file.text).value,) == file.objects


@settings(max_examples=30, deadline=None)
@given(environments())
def test_a_namespace_is_made_for_everything_and_nothing_that_holds_data_is_deleted(
    data: dict[str, Any],
) -> None:
    keep = {"PersistentVolumeClaim", "Cluster", "Database", "Namespace", "NemoDatastore"}
    for file in rendered(stack_of(data)):
        for entry in file.objects:
            if entry["kind"] in keep:
                assert (
                    entry["metadata"]["annotations"]["argocd.argoproj.io/sync-options"]
                    == "Prune=false,Delete=false"
                )


def test_a_local_chart_s_content_is_in_the_application_s_spec() -> None:
    stack = stack_of(
        {
            "name": "t",
            "argocd": {"repoUrl": "https://git.example.com/g.git"},
            "storage": {"readWriteOnce": {"className": "a"}},
        }
    )

    def ref(digest: str) -> list[str]:
        files = render(stack, dict.fromkeys(local_paths(stack), digest))
        return [
            e["spec"]["source"]["ref"]
            for f in files
            for e in f.objects
            if e["kind"] == "Application" and "ref" in e["spec"]["source"]
        ]

    assert ref("a" * 64) == ["content-" + "a" * 16] * 2
    assert ref("b" * 64) != ref("a" * 64)


@pytest.mark.parametrize(
    ("base", "over", "result"),
    [
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}, {"a": {"b": 1, "c": 3}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"b": 1}}, {"a": 2}, {"a": 2}),
        ({"a": 1}, {"a": {"b": 2}}, {"a": {"b": 2}}),
        ({"a": 1}, {}, {"a": 1}),
        ({"a": 1}, {"a": None}, {"a": None}),
    ],
    ids=[
        "mappings merge",
        "lists are replaced",
        "a mapping gives way",
        "a scalar gives way",
        "nothing",
        "null",
    ],
)
def test_values_of_the_environment_are_laid_over_the_derived_ones(base: Any, over: Any, result: Any) -> None:
    assert merged(base, over) == result
