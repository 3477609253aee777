# SPDX-License-Identifier: Apache-2.0
"""Where a job publishes to, in its plan; and what is refused when the served models read another registry."""

from typing import Any

import pytest
from support.plans import MINIMAL, make_job, make_runtime, problems
from tuneyard_api.planner import make_plan
from tuneyard_api.pod_contract import Stage

STORE = {
    "bucket": "adapters",
    "prefix": "team",
    "endpoint": "http://store:9000",
    "secretRef": {"name": "store"},
}
DATA_STORE = {
    "endpoint": "http://data-store:3000",
    "entityStore": "http://entity-store:8000",
    "secretRef": {"name": "store-token"},
}
IN_DATA_STORE = {"registry": None, "registryDataStore": DATA_STORE}
IN_S3 = make_runtime(defaults={"registry": None, "registryS3": STORE})
TINY = {
    "name": "tiny",
    "base": {"pvc": {"claimName": "models", "path": "tiny"}},
    "endpoint": "http://tiny",
    "server": "vllm",
}
ON_A_CLAIM = make_runtime(servedModels=[TINY])
SERVED_FROM_S3 = make_runtime(servedModels=[TINY], defaults={"registry": None, "registryS3": STORE})


@pytest.mark.parametrize(
    ("job", "runtime"), [(make_job(), IN_S3), (make_job(publish={"s3": STORE}), make_runtime())]
)
def test_a_registry_in_s3_is_no_mount_and_its_secret_stays_out_of_the_pods_file(
    job: Any, runtime: Any
) -> None:
    plan = make_plan(job, runtime)
    assert plan.registry_secret == "store"
    assert (plan.registry_claim, plan.adapter_path) == (None, "s3://adapters/team/answers")
    assert plan.resolved.registry_path is None
    assert plan.resolved.registry_s3 is not None
    assert plan.resolved.registry_s3.model_dump() == {
        "bucket": "adapters",
        "prefix": "team",
        "endpoint": "http://store:9000",
        "region": "us-east-1",
    }
    assert "secret" not in plan.resolved.model_dump_json()
    assert [mount.claim for mount in plan.stage_mounts(Stage.PUBLISH)] == ["answers-workspace"]


@pytest.mark.parametrize(
    ("job", "runtime"),
    [
        (make_job(), make_runtime(defaults=IN_DATA_STORE)),
        (make_job(publish={"dataStore": DATA_STORE}), make_runtime()),
    ],
)
def test_a_registry_in_a_data_store_is_no_mount_and_its_token_stays_out_of_the_pods_file(
    job: Any, runtime: Any
) -> None:
    plan = make_plan(job, runtime)
    assert str(plan.registry_token) == "store-token/token"
    assert (plan.registry_claim, plan.registry_secret) == (None, None)
    assert plan.adapter_path == "hf://default/answers"
    assert (plan.resolved.registry_path, plan.resolved.registry_s3) == (None, None)
    assert plan.resolved.registry_data_store is not None
    assert plan.resolved.registry_data_store.model_dump() == {
        "endpoint": "http://data-store:3000",
        "entityStore": "http://entity-store:8000",
        "baseModel": "tiny",
    }
    assert "store-token" not in plan.resolved.model_dump_json()
    assert [mount.claim for mount in plan.stage_mounts(Stage.PUBLISH)] == ["answers-workspace"]


def test_a_nim_serves_what_its_entity_store_lists_and_another_server_does_not() -> None:
    nim = TINY | {"server": "nim", "listedAs": "meta/tiny"}
    plan = make_plan(make_job(), make_runtime(servedModels=[nim], defaults=IN_DATA_STORE))
    assert plan.destination is not None
    assert plan.destination.server == "nim"
    assert plan.resolved.registry_data_store is not None
    assert plan.resolved.registry_data_store.base_model == "meta/tiny"
    assert problems(make_job(), make_runtime(servedModels=[TINY], defaults=IN_DATA_STORE)) == [
        (
            "spec.publish: tiny is no NIM, and only a NIM reads a Data Store (got hf://default); try publish.pvc or publish.s3, a"
            " served model on a NIM, or serve.disabled: true to publish only"
        )
    ]
    other = DATA_STORE | {"entityStore": "http://other:8000"}
    elsewhere = make_job(publish={"dataStore": other})
    assert [
        each.partition(" (got")[0]
        for each in problems(elsewhere, make_runtime(servedModels=[nim], defaults=IN_DATA_STORE))
    ] == ["spec.publish: the served models of runtime hf read the registry hf://default alone"]


def test_a_registry_on_a_claim_needs_no_secret() -> None:
    plan = make_plan(make_job(), make_runtime())
    assert (plan.registry_secret, plan.registry_claim) == (None, "adapters")
    assert plan.adapter_path == "/registry/answers"
    assert plan.resolved.registry_s3 is None


def test_what_a_runtime_keeps_and_whether_a_name_is_replaced_reach_the_pod() -> None:
    runtime = make_runtime(registryRetention={"keepVersions": 3, "keepDays": 7})
    resolved = make_plan(make_job(publish={"replace": True}), runtime).resolved
    assert resolved.retention is not None
    assert (resolved.retention.keep_versions, resolved.retention.keep_days) == (3, 7)
    assert resolved.replace is True
    plain = make_plan(make_job(), make_runtime()).resolved
    assert (plain.retention, plain.replace) == (None, False)


def test_what_a_registry_in_s3_can_not_do_is_refused() -> None:
    adapter = MINIMAL["model"] | {"adapter": {"published": "first"}}
    assert problems(make_job(model=adapter, deletionPolicy="Delete"), IN_S3) == [
        (
            "spec.deletionPolicy: an adapter in S3 is not removed with its job, and the registry is"
            " s3://adapters/team (got Delete); try Retain, or publish.pvc"
        ),
        (
            "spec.model.adapter.published: a published adapter is read from a registry on a claim alone, and the registry"
            " is s3://adapters/team (got first); try model.adapter.pvc with a copy of it"
        ),
    ]


def test_what_a_registry_in_a_data_store_can_not_do_is_refused() -> None:
    adapter = MINIMAL["model"] | {"adapter": {"published": "first"}}
    runtime = make_runtime(methods=["lora", "pTuning"], defaults=IN_DATA_STORE)
    assert problems(make_job(model=adapter, deletionPolicy="Delete"), runtime) == [
        (
            "spec.deletionPolicy: an adapter in a Data Store is not removed with its job, and the registry is"
            " hf://default (got Delete); try Retain, or publish.pvc"
        ),
        (
            "spec.model.adapter.published: a published adapter is read from a registry on a claim alone, and the registry"
            " is hf://default (got first); try model.adapter.pvc with a copy of it"
        ),
    ]
    assert problems(make_job(method="pTuning"), runtime) == [
        (
            "spec.publish: method pTuning publishes virtual tokens, which no NIM loads, and a Data Store lists models for NIMs"
            " (got hf://default); try publish.pvc or publish.s3"
        )
    ]


OWN = {"publish": {"pvc": {"claimName": "own", "path": "a"}}}
OTHER_PREFIX = {"publish": {"s3": STORE | {"prefix": "other"}}}


@pytest.mark.parametrize(
    ("runtime", "spec", "usual", "own"),
    [
        (ON_A_CLAIM, OWN, "claim adapters", "claim own, path a"),
        (ON_A_CLAIM, {"publish": {"s3": STORE}}, "claim adapters", "s3://adapters/team"),
        (SERVED_FROM_S3, OTHER_PREFIX, "s3://adapters/team", "s3://adapters/other"),
        (SERVED_FROM_S3, OWN, "s3://adapters/team", "claim own, path a"),
        (ON_A_CLAIM, OWN | {"serve": {"model": "tiny"}}, "claim adapters", "claim own, path a"),
    ],
)
def test_a_job_that_publishes_where_no_server_reads_is_refused_before_it_trains(
    runtime: Any, spec: Any, usual: str, own: str
) -> None:
    assert problems(make_job(**spec), runtime) == [
        (
            f"spec.publish: the served models of runtime hf read the registry {usual} alone (got {own}); try leaving it"
            " out, serve.endpoint with a server that reads your registry, or serve.disabled: true to publish only"
        )
    ]
    plan = make_plan(make_job(**(spec | {"serve": {"disabled": True}})), runtime)
    assert plan.destination is None
    plan = make_plan(make_job(**(spec | {"serve": {"endpoint": "http://own"}})), runtime)
    assert plan.destination is not None
    assert plan.destination.endpoint == "http://own"


@pytest.mark.parametrize(
    ("runtime", "spec"),
    [
        (ON_A_CLAIM, {}),
        (ON_A_CLAIM, {"publish": {"pvc": {"claimName": "adapters"}}}),
        (SERVED_FROM_S3, {}),
        (SERVED_FROM_S3, {"publish": {"s3": STORE | {"secretRef": {"name": "mine"}}}}),
    ],
)
def test_a_job_that_publishes_where_a_server_reads_is_sent_to_it(runtime: Any, spec: Any) -> None:
    plan = make_plan(make_job(**spec), runtime)
    assert plan.destination is not None
    assert plan.destination.endpoint == "http://tiny"
