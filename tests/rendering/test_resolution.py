# SPDX-License-Identifier: Apache-2.0
"""Which components an environment has, who provides what, and that swapping one is one line."""

from itertools import pairwise
from typing import Any

import pytest
from tuneyard.catalog import catalog, pins, static_components
from tuneyard.environment.model import Environment
from tuneyard.environment.presets import PRESETS
from tuneyard.findings import InputError
from tuneyard.render.tree import derived_values
from tuneyard.stack.model import Stack
from tuneyard.stack.resolve import edges, resolve

GPUS = {"nodes": [{"product": "NVIDIA-L40S", "gpusPerNode": 4, "memoryGiB": 48}]}


def environment(**changes: Any) -> Environment:
    base: dict[str, Any] = {
        "name": "test",
        "argocd": {"repoUrl": "https://git.example.com/gitops.git"},
        "storage": {"readWriteOnce": {"className": "local-path"}},
        "gpus": GPUS,
    }
    return Environment.model_validate({**base, **changes})


def stack_of(**changes: Any) -> Stack:
    env = environment(**changes)
    return resolve(env, catalog(env), pins())


def names(stack: Stack) -> set[str]:
    return {component.name for component in stack.components}


def test_the_open_preset_has_nothing_of_nvidia_s_account() -> None:
    stack = stack_of(preset="open")
    assert {"tuneyard-operator", "mlflow", "postgres", "versitygw", "tuneyard-crds"} <= names(stack)
    assert not [c.name for c in stack.components if stack.pin(c.name).licence]


def test_the_nemo_preset_has_every_service_of_the_lab() -> None:
    wanted = {
        "gpu-operator", "cert-manager", "nim-operator", "nemo-operator", "volcano", "argo-workflows", "postgres", "versitygw", "milvus",
        "mlflow", "opentelemetry-collector", "nemo-data-store", "nemo-entity-store", "nemo-customizer", "nemo-evaluator",
        "nemo-guardrails", "tuneyard-operator",
    }  # fmt: skip
    assert wanted <= names(stack_of(preset="nemo-microservices"))


def test_the_helix_preset_is_one_chart_with_its_database() -> None:
    stack = stack_of(preset="nemo-helix")
    assert {"nemo-helix", "postgres", "gpu-operator"} <= names(stack)
    assert "nemo-data-store" not in names(stack)


def test_our_operator_is_beside_helix_only_where_it_is_asked_for_and_neither_needs_the_other() -> None:
    alone = stack_of(preset="nemo-helix")
    assert not {"tuneyard-operator", "tuneyard-crds"} & names(alone)
    beside = stack_of(preset="nemo-helix", components={"tuneyard-operator": {"enabled": True}})
    assert {"nemo-helix", "tuneyard-operator", "tuneyard-crds"} <= names(beside)
    pair = {"nemo-helix", "tuneyard-operator"}
    assert [edge for edge in edges(beside) if {edge.component, edge.provider} == pair] == []


@pytest.mark.parametrize(
    ("use", "extra", "there", "gone"),
    [
        (
            {"postgres": "external-postgres"},
            {"externalPostgres": {"host": "db.example.com"}},
            "external-postgres",
            "postgres",
        ),
        (
            {"s3": "external-s3"},
            {"externalS3": {"endpoint": "https://s3.example.com"}},
            "external-s3",
            "versitygw",
        ),
        (
            {"tracking": "external-mlflow"},
            {"externalMlflow": "https://mlflow.example.com"},
            "external-mlflow",
            "mlflow",
        ),
        ({"gpu": "existing-gpus"}, {}, "existing-gpus", "gpu-operator"),
        ({"gpu": "dra-driver"}, {"cluster": {"kubernetes": "1.34"}}, "dra-driver", "device-plugin"),
        ({"nemo": "chart"}, {}, "nemo-microservices", "nemo-customizer"),
    ],
    ids=["postgres", "s3", "tracking", "gpus", "dra", "umbrella chart"],
)
def test_swapping_a_provider_is_one_line(
    use: dict[str, str], extra: dict[str, Any], there: str, gone: str
) -> None:
    stack = stack_of(preset="nemo-microservices", use=use, **extra)
    assert there in names(stack)
    assert gone not in names(stack)


def test_an_existing_tracker_takes_the_place_of_the_one_that_a_preset_brings() -> None:
    stack = stack_of(
        preset="open", use={"tracking": "external-mlflow"}, externalMlflow="https://mlflow.example.com"
    )
    assert stack.providers["tracking"].name == "external-mlflow"
    assert "mlflow" not in names(stack)


def test_addresses_follow_the_provider() -> None:
    inside = stack_of(preset="open")
    outside = stack_of(
        preset="open",
        use={"postgres": "external-postgres"},
        externalPostgres={"host": "db.example.com", "port": 6432},
    )
    assert inside.database("mlflow").host == "postgres-rw.data.svc.cluster.local"
    mlflow = outside.component("mlflow")
    assert mlflow is not None
    postgres = derived_values(outside, mlflow)["backendStore"]["postgres"]
    assert (postgres["host"], postgres["port"]) == ("db.example.com", 6432)


def test_a_need_pulls_its_only_provider_in_and_says_so() -> None:
    models = [
        {
            "name": "big",
            "image": {"repository": "nvcr.io/nim/meta/llama-3.1-8b-instruct", "tag": "1.8.6"},
            "multiNode": {"pipeline": 2},
        }
    ]
    stack = stack_of(preset="nemo-microservices", models=models)
    assert stack.reasons["leader-worker-set"] == "lws for model-big"


def test_a_disabled_provider_is_an_error_that_names_who_needs_it() -> None:
    with pytest.raises(InputError, match=r"nim-operator needs cert-manager .* and nothing provides it"):
        stack_of(preset="nemo-microservices", components={"cert-manager": {"enabled": False}})


def test_every_need_of_a_stack_is_met_by_exactly_one_component() -> None:
    for preset in PRESETS:
        stack = stack_of(preset=preset)
        for component in stack.components:
            for need in stack.needs(component):
                assert [c.name for c in stack.components if need.capability in c.provides] == [
                    stack.providers[need.capability].name
                ]


def test_disabling_what_a_preset_adds_removes_every_trace() -> None:
    stack = stack_of(preset="nemo-microservices", components={"nemo-evaluator": {"enabled": False}})
    assert {"nemo-evaluator", "milvus", "argo-workflows"} & names(stack) == set()


def test_every_rendered_component_that_installs_something_is_pinned_exactly() -> None:
    for component in static_components():
        pin = pins().get(component.name)
        if component.values:
            assert pin is not None, component.name
            assert pin.path or (pin.chart and pin.repository and pin.version in pin.versions), component.name
            assert pin.path or not any(mark in pin.version for mark in "^~*x<>"), component.name
            assert pin.source, component.name


def test_every_pin_with_a_version_has_its_renovate_line() -> None:
    from importlib import resources

    lines = resources.files("tuneyard.catalog").joinpath("components.yaml").read_text().splitlines()
    for before, line in pairwise(lines):
        if line.strip().startswith("version: ") or (':"' not in line and ': "' in line and "/" in line):
            assert before.strip().startswith("# renovate: datasource="), line
