# SPDX-License-Identifier: Apache-2.0
"""What an environment gives its namespaces of jobs, and to which of its servers adapters get from there."""

from typing import Any

from tuneyard.catalog import catalog, pins
from tuneyard.checks.models import runtimes_name_served_models
from tuneyard.environment.model import Environment
from tuneyard.stack.model import Stack
from tuneyard.stack.resolve import resolve

VLLM = {
    "name": "qwen",
    "engine": "vllm",
    "namespace": "team-a",
    "huggingFace": {"repo": "Qwen/Qwen2.5-7B", "revision": "c0ffee"},
    "lora": {},
}
NIM = {
    "name": "llama",
    "engine": "nim",
    "namespace": "team-a",
    "image": {"repository": "nvcr.io/nim/meta/llama-3.1-8b-instruct", "tag": "2.0.6"},
    "lora": {"source": "folder"},
}


def stack(**runtime: Any) -> Stack:
    """Two namespaces of jobs; a vLLM and a NIM that take adapters, both in the first one."""
    environment = Environment.model_validate(
        {
            "name": "test",
            "preset": "open",
            "argocd": {"repoUrl": "https://git.example.com/gitops.git"},
            "storage": {"readWriteOnce": {"className": "fast"}},
            "gpus": {"nodes": [{"product": "NVIDIA-A100-SXM4-80GB", "gpusPerNode": 8, "memoryGiB": 80}]},
            "models": [VLLM, NIM],
            "fineTuning": {
                "runtimes": [{"name": "hf", **runtime}],
                "namespaces": [{"name": name, "gpus": 2, "storageGiB": 500} for name in ("team-a", "team-b")],
            },
        }
    )
    return resolve(environment, catalog(environment), pins())


def built(here: Stack, kind: str) -> list[dict[str, Any]]:
    """The objects of a kind that the component of namespaces and runtimes renders."""
    component = here.component("fine-tuning")
    assert component
    assert component.objects
    return [body for body in component.objects(here) if body["kind"] == kind]


def test_every_namespace_of_jobs_has_the_claims_that_runtimes_name() -> None:
    here = stack()
    (runtime,) = built(here, "FineTuneRuntime")
    named = {
        runtime["spec"]["modelCache"],
        runtime["spec"]["defaults"]["registry"]["claimName"],
    }
    claims = {
        (c["metadata"]["namespace"], c["metadata"]["name"]) for c in built(here, "PersistentVolumeClaim")
    }
    assert claims == {(namespace, name) for namespace in ("team-a", "team-b") for name in named}


def test_a_server_reads_the_registry_of_its_own_namespace() -> None:
    (runtime,) = built(stack(), "FineTuneRuntime")
    assert [model["namespaces"] for model in runtime["spec"]["servedModels"]] == [["team-a"]]


def test_no_job_goes_to_a_nim_that_reads_no_registry() -> None:
    (runtime,) = built(stack(), "FineTuneRuntime")
    assert [model["name"] for model in runtime["spec"]["servedModels"]] == ["qwen"]


def test_a_nim_is_refused_as_a_served_model() -> None:
    (finding,) = runtimes_name_served_models(stack(servedModels=["qwen", "llama"]))
    assert str(finding) == (
        "fineTuning.runtimes[0].servedModels[1]: this model takes no adapters of jobs (got 'llama'); try qwen"
    )
