# SPDX-License-Identifier: Apache-2.0
"""Where data, adapters and credentials come from, in the plan: who gets what, and what is refused."""

from typing import Any

import pytest
from support.plans import MINIMAL, make_job, make_runtime, problems
from tuneyard_api.planner import Mount, make_plan
from tuneyard_api.pod_contract import ResolvedAdapter, ResolvedSource, Stage
from tuneyard_api.remote_files import HttpFile

S3 = {
    "bucket": "data",
    "key": "team/t.jsonl",
    "endpoint": "http://versitygw-server.data:7070",
    "secretRef": {"name": "store"},
}
DIGEST = "0" * 64


def test_one_secret_serves_all_buckets_and_stays_out_of_the_pods_file() -> None:
    url = {"url": "https://example.com/v.jsonl", "sha256": DIGEST}
    job = make_job(dataset={"training": {"s3": S3}, "test": {"s3": S3}, "validation": {"http": url}})
    plan = make_plan(job, make_runtime())
    assert plan.s3_secret == "store"
    source = plan.resolved.dataset.training.s3
    assert source is not None
    assert source.model_dump() == {
        "bucket": "data",
        "key": "team/t.jsonl",
        "endpoint": "http://versitygw-server.data:7070",
        "region": "us-east-1",
    }
    assert "store" not in plan.resolved.model_dump_json()
    assert plan.resolved.dataset.validation == ResolvedSource(http=HttpFile.model_validate(url))
    assert {mount.claim for mount in plan.stage_mounts(Stage.PREPARE)} == {"answers-workspace", "models"}
    assert make_plan(make_job(), make_runtime()).s3_secret is None


def test_two_secrets_for_buckets_are_refused() -> None:
    other = S3 | {"secretRef": {"name": "elsewhere"}}
    job = make_job(dataset={"training": {"s3": S3}, "test": {"s3": other}})
    assert problems(job, make_runtime()) == [
        (
            "spec.dataset.test.s3.secretRef: a job has one Secret for S3 (got elsewhere); try store, as in"
            " spec.dataset.training.s3.secretRef"
        )
    ]


STORE = {"endpoint": "http://store:3000", "repo": "team/answers", "path": "training/t.jsonl"}
TOKEN = {"secretRef": {"name": "store-token"}}


def test_a_file_of_a_data_store_has_its_address_and_its_token_stays_out_of_the_pods_file() -> None:
    job = make_job(dataset={"training": {"dataStore": STORE | TOKEN}, "test": {"dataStore": STORE}})
    plan = make_plan(job, make_runtime())
    assert str(plan.source_token) == "store-token/token"
    assert plan.resolved.dataset.training == ResolvedSource(
        data_store="http://store:3000", repo="team/answers", revision="main", path="training/t.jsonl"
    )
    assert "store-token" not in plan.resolved.model_dump_json()
    assert (plan.hub_token, plan.registry_token) == (None, None)


def test_a_token_goes_to_no_other_data_store() -> None:
    other = STORE | {"endpoint": "http://other:3000", "secretRef": {"name": "elsewhere"}}
    job = make_job(dataset={"training": {"dataStore": STORE | TOKEN}, "test": {"dataStore": other}})
    assert problems(job, make_runtime()) == [
        (
            "spec.dataset.test.dataStore.endpoint: a job has one Data Store to read from (got http://other:3000); try"
            " http://store:3000, as in spec.dataset.training.dataStore.endpoint"
        ),
        (
            "spec.dataset.test.dataStore.secretRef: a job has one token for its Data Store (got elsewhere/token); try"
            " store-token/token, as in spec.dataset.training.dataStore.secretRef"
        ),
    ]


def test_where_no_hub_is_asked_a_data_store_is() -> None:
    runtime = make_runtime(env=[{"name": "HF_HUB_OFFLINE", "value": "1"}])
    plan = make_plan(make_job(dataset={"training": {"dataStore": STORE}}), runtime)
    assert plan.resolved.dataset.training.data_store == "http://store:3000"


@pytest.mark.parametrize(
    ("adapter", "claim", "path"),
    [
        ({"published": "old"}, "adapters", "/sources/adapter/team/old"),
        ({"pvc": {"claimName": "mine", "path": "a"}}, "mine", "/sources/adapter/a"),
    ],
)
def test_an_adapter_to_continue_from_reaches_the_prepare_pod_alone(
    adapter: dict[str, Any], claim: str, path: str
) -> None:
    model = MINIMAL["model"] | {"adapter": adapter}
    runtime = make_runtime(defaults={"registry": {"claimName": "adapters", "path": "team"}})
    plan = make_plan(make_job(model=model), runtime)
    assert plan.resolved.adapter == ResolvedAdapter(path=path, must_match_lora=False)
    mounts = [mount for mount in plan.mounts if mount.path == "/sources/adapter"]
    assert mounts == [Mount(Stage.PREPARE, claim, "/sources/adapter", read_only=True)]
    with_options = make_plan(make_job(model=model, lora={"rank": 8}), runtime).resolved.adapter
    assert with_options == ResolvedAdapter(path=path, must_match_lora=True)


def test_a_job_does_not_publish_over_the_adapter_that_it_continues_from() -> None:
    job = make_job(name="old", model=MINIMAL["model"] | {"adapter": {"published": "old"}})
    assert problems(job, make_runtime()) == [
        (
            "spec.model.adapter.published: the job would publish under the name of the adapter that it continues, which is"
            " taken (got old); try another publish.adapterName, or publish.replace: true"
        )
    ]
    replacing = make_job(
        name="old", model=MINIMAL["model"] | {"adapter": {"published": "old"}}, publish={"replace": True}
    )
    assert make_plan(replacing, make_runtime()).resolved.replace is True


@pytest.mark.parametrize(
    ("has", "said"),
    [
        ([], "has none (got nf4); try leaving it out, or another runtime"),
        (["int8"], "has int8 (got nf4); try int8, or leave it out"),
    ],
)
def test_bits_that_the_runtime_lacks_are_refused_by_name(has: list[str], said: str) -> None:
    job = make_job(model=MINIMAL["model"] | {"quantization": "nf4"})
    runtime = make_runtime("hf-cpu", quantizations=has)
    assert problems(job, runtime) == [f"spec.model.quantization: runtime hf-cpu {said}"]


@pytest.mark.parametrize("gpus", [1, 2])
def test_bits_that_the_runtime_has_reach_the_pods(gpus: int) -> None:
    model, runtime = MINIMAL["model"] | {"quantization": "nf4"}, make_runtime(quantizations=["nf4"])
    plan = make_plan(make_job(model=model, parallelism={"gpusPerNode": gpus}), runtime)
    assert plan.resolved.quantization == "nf4"
