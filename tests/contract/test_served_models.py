# SPDX-License-Identifier: Apache-2.0
"""Which server a job is sent to: one of its own base model, or none; and what is said when there is none."""

from typing import Any

import pytest
from support.plans import make_job, make_runtime, problems
from tuneyard_api.planner import make_plan
from tuneyard_api.serving import Destination

QWEN = {
    "name": "qwen",
    "base": {"huggingFace": {"repo": "Qwen/Qwen2.5-7B", "revision": "c0ffee"}},
    "endpoint": "http://qwen.models:8000",
    "server": "vllm",
    "listedAs": "qwen",
    "maxLoraRank": 32,
}
TINY = {
    "name": "tiny",
    "base": {"pvc": {"claimName": "models", "path": "tiny"}},
    "endpoint": "http://tiny",
    "server": "nim",
}
SECOND_QWEN = QWEN | {"name": "qwen-canary", "endpoint": "http://canary"}
RUNTIME = make_runtime(servedModels=[QWEN, TINY, SECOND_QWEN])


def hub(repo: str = "Qwen/Qwen2.5-7B", **more: Any) -> dict[str, Any]:
    return {"huggingFace": {"repo": repo, **more}}


@pytest.mark.parametrize(
    ("spec", "destination"),
    [
        ({"model": hub()}, Destination("http://qwen.models:8000", "vllm", "qwen")),
        ({"model": hub(revision="c0ffee")}, Destination("http://qwen.models:8000", "vllm", "qwen")),
        ({"model": hub(), "serve": {"model": "qwen-canary"}}, Destination("http://canary", "vllm", "qwen")),
        ({}, Destination("http://tiny", "nim")),
        ({"serve": {"timeoutSeconds": 30}}, Destination("http://tiny", "nim")),
        ({"serve": {"disabled": True}}, None),
        ({"model": hub("a/b"), "serve": {"disabled": True}}, None),
        ({"model": hub("a/b"), "serve": {"endpoint": "http://mine"}}, Destination("http://mine", "openai")),
    ],
)
def test_a_job_goes_to_a_server_of_its_base_model(spec: Any, destination: Destination | None) -> None:
    assert make_plan(make_job(**spec), RUNTIME).destination == destination


def test_where_nothing_is_served_a_job_ends_after_publish() -> None:
    assert make_plan(make_job(model=hub("a/b")), make_runtime()).destination is None


SERVED = "qwen (Qwen/Qwen2.5-7B at c0ffee), tiny (claim models, path tiny), qwen-canary (Qwen/Qwen2.5-7B at c0ffee)"


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (
            {"model": hub("meta-llama/Llama-3.1-70B")},
            (
                f"spec.model: no server of runtime hf has this base model; it has {SERVED} (got meta-llama/Llama-3.1-70B);"
                " try one of them, serve.endpoint with a server of your own, or serve.disabled: true to publish only"
            ),
        ),
        (
            {"model": hub(revision="deadbeef")},
            (
                f"spec.model: no server of runtime hf has this base model; it has {SERVED} (got Qwen/Qwen2.5-7B at"
                " deadbeef); try one of them, serve.endpoint with a server of your own, or serve.disabled: true to publish"
                " only"
            ),
        ),
        (
            {"serve": {"model": "qwen"}},
            (
                "spec.serve.model: qwen serves Qwen/Qwen2.5-7B at c0ffee, and an adapter fits its own base model alone (got"
                " claim models, path tiny); try a served model of that base, or serve.disabled: true"
            ),
        ),
        (
            {"serve": {"model": "gone"}},
            f"spec.serve.model: runtime hf has these served models: {SERVED} (got gone)",
        ),
        (
            {"model": hub(), "lora": {"rank": 64}},
            "spec.lora.rank: qwen takes ranks up to 32 (got 64); try 32, or serve.disabled: true",
        ),
        (
            {"publish": {"replace": True}},
            (
                "spec.publish.replace: tiny is a NIM, and no NIM says which version of an adapter it answers with (got"
                " true); try another publish.adapterName, or serve.disabled: true"
            ),
        ),
    ],
)
def test_a_job_that_no_server_can_take_is_refused_before_anything_starts(spec: Any, problem: str) -> None:
    assert problems(make_job(**spec), RUNTIME) == [problem]


@pytest.mark.parametrize("serve", [None, {"model": "tiny"}])
def test_a_server_that_reads_another_namespace_s_registry_is_said_to(serve: Any) -> None:
    runtime = make_runtime(servedModels=[TINY | {"namespaces": ["team-a"]}])
    (problem,) = problems(make_job(serve=serve), runtime)
    assert "reads the registry of namespace team-a alone (got default); try that namespace" in problem
    assert make_plan(make_job(serve={"disabled": True}), runtime).destination is None


def test_a_job_that_leaves_the_revision_open_trains_the_one_that_is_served() -> None:
    model = make_plan(make_job(model=hub()), RUNTIME).resolved.model
    assert (model.repo, model.revision) == ("Qwen/Qwen2.5-7B", "c0ffee")


@pytest.mark.parametrize("spec", [{}, {"serve": {"disabled": True}}, {"serve": {"endpoint": "http://mine"}}])
def test_a_model_that_no_server_of_the_runtime_takes_is_read_at_main(spec: Any) -> None:
    runtime = RUNTIME if spec else make_runtime()
    assert make_plan(make_job(model=hub(), **spec), runtime).resolved.model.revision == "main"


def test_data_of_a_hub_is_read_at_main() -> None:
    data = {"training": {"huggingFace": {"repo": "a/b", "path": "t.jsonl"}}}
    assert make_plan(make_job(dataset=data), make_runtime()).resolved.dataset.training.revision == "main"
