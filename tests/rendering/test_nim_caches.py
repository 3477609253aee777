# SPDX-License-Identifier: Apache-2.0
"""What a NIMCache makes the NIM Operator download, from where, and what a change of a model does to it.

`chosen` does what `MatchProfiles` of k8s-nim-operator 3.1.2 does (internal/nimparser/v1/nimparser.go). The real operator was
asked for six of these choices with the same list of profiles; `ASKED` has its answers.
"""

from itertools import product as combinations
from typing import Any

import pytest
from tuneyard.catalog import catalog, pins
from tuneyard.environment.model import Environment
from tuneyard.stack.model import Stack
from tuneyard.stack.resolve import resolve

Json = dict[str, Any]
A100, H100, L40S = "NVIDIA-A100-SXM4-80GB", "NVIDIA-H100-80GB-HBM3", "NVIDIA-L40S"
NIM = {"repository": "nvcr.io/nim/meta/llama-3.1-8b-instruct", "tag": "1.8.6"}
MODEL: Json = {"name": "llama", "engine": "nim", "image": NIM}
PROFILES = [
    *(
        {"llm_engine": "tensorrt_llm", "gpu": gpu, "tp": tp, "feat_lora": lora}
        for gpu, tp, lora in combinations(("H100", "H200", "A100", "L40S"), ("1", "2"), ("true", "false"))
    ),
    *(
        {"llm_engine": "vllm", "tp": tp, "feat_lora": lora}
        for tp, lora in combinations(("1", "2", "4"), ("true", "false"))
    ),
]
"""A manifest of 22 profiles, by the tags that NVIDIA's have."""


def chosen(model: Json, nodes: list[str]) -> list[Json]:
    """The profiles that the NIM Operator downloads for `spec.source.ngc.model`, with nodes of these products."""
    found = []
    engine = model.get("engine", "")
    gpus = [gpu["product"] for gpu in model.get("gpus", [])]
    for profile in PROFILES:
        if model.get("tensorParallelism", profile["tp"]) != profile["tp"]:
            continue
        if (profile["feat_lora"] == "true") != model.get("lora", False):
            continue
        if engine.removesuffix("_llm") not in profile["llm_engine"]:
            continue
        if "tensorrt" in engine or gpus:
            tag = profile.get("gpu", "").lower()
            named = any(gpu.lower() in tag for gpu in gpus)
            # Nodes are looked at only where no GPU is named.
            there = not gpus and any(tag in node.lower() for node in nodes)
            if "tensorrt" not in profile["llm_engine"] or not (named or there):
                continue
        found.append(profile)
    return found


ASKED: list[tuple[Json, int]] = [
    ({"lora": True}, 11),
    ({}, 11),
    ({"lora": True, "engine": "tensorrt_llm", "tensorParallelism": "1"}, 1),
    ({"lora": True, "engine": "vllm", "tensorParallelism": "1"}, 1),
    ({"lora": True, "engine": "tensorrt_llm", "tensorParallelism": "1", "gpus": [{"product": A100}]}, 0),
    ({"lora": True, "engine": "tensorrt_llm", "tensorParallelism": "1", "gpus": [{"product": "A100"}]}, 1),
]


@pytest.mark.parametrize(("model", "number"), ASKED, ids=[str(model) for model, _ in ASKED])
def test_profiles_are_chosen_as_the_real_operator_chose_them(model: Json, number: int) -> None:
    assert len(chosen(model, [A100])) == number


def stack(model: Json, products: list[str], **changes: Any) -> Stack:
    nodes = [{"product": product, "gpusPerNode": 4, "memoryGiB": 80} for product in products]
    environment = Environment.model_validate(
        {
            "name": "t",
            "preset": "nemo-microservices",
            "argocd": {"repoUrl": "https://git.example.com/g.git"},
            "storage": {"readWriteOnce": {"className": "block"}},
            "gpus": {"nodes": nodes},
            "models": [{**MODEL, **model}],
            **changes,
        }
    )
    return resolve(environment, catalog(environment), pins())


def objects(model: Json, products: list[str], **changes: Any) -> dict[str, Json]:
    """The model's objects by kind."""
    here = stack(model, products, **changes)
    component = here.component("model-llama")
    assert component
    assert component.objects
    return {entry["kind"]: entry for entry in component.objects(here)}


@pytest.mark.parametrize(
    ("model", "products"),
    [
        ({}, [A100]),
        ({"lora": {}}, [A100]),
        ({"gpus": 2}, [H100]),
        ({"gpuProduct": A100}, [A100]),
        ({"gpuProduct": A100}, [A100, H100]),
        ({"gpuProduct": L40S, "lora": {}}, [A100, L40S]),
        ({"nimEngine": "vllm"}, [A100]),
        ({"nimEngine": "vllm", "gpuProduct": A100}, [A100, H100]),
        ({"image": {**NIM, "tag": "2.0.4"}, "gpuProduct": H100}, [A100, H100]),
    ],
)
def test_one_profile_is_downloaded(model: Json, products: list[str]) -> None:
    spec = objects(model, products)["NIMCache"]["spec"]
    found = chosen(spec["source"]["ngc"]["model"], products)
    assert len(found) == 1
    assert found[0]["tp"] == str(model.get("gpus", 1))
    if "gpu" in found[0]:
        assert found[0]["gpu"] in model.get("gpuProduct", products[0])


def test_a_gpu_without_profiles_of_its_own_is_not_named() -> None:
    """A name that is part of no tag finds nothing, and L4 is part of L40S."""
    for gpu in ("NVIDIA-L4", "NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition"):
        model = objects({"gpuProduct": gpu}, [gpu, A100])["NIMCache"]["spec"]["source"]["ngc"]["model"]
        assert "gpus" not in model


def test_a_profile_excludes_every_other_choice() -> None:
    model = objects({"profile": "abc", "gpuProduct": A100, "lora": {}}, [A100, H100])
    assert model["NIMCache"]["spec"]["source"]["ngc"]["model"] == {"profiles": ["abc"]}


CHANGES: dict[str, Json] = {
    "another image": {"image": {**NIM, "tag": "1.9.0"}},
    "another profile": {"profile": "abc"},
    "another engine": {"nimEngine": "vllm"},
    "another GPU": {"gpuProduct": H100},
    "more GPUs": {"gpus": 2},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_model_is_a_new_cache_on_the_same_claim(change: str) -> None:
    """The API server refuses another `modelPuller`, and the NIM Operator's webhook every other change of the spec."""
    before, after = objects({}, [A100, H100]), objects(CHANGES[change], [A100, H100])
    names = [entry["NIMCache"]["metadata"]["name"] for entry in (before, after)]
    assert len(set(names)) == 2
    assert after["NIMService"]["spec"]["storage"]["nimCache"]["name"] == names[1]
    for entry in (before, after):
        assert entry["NIMCache"]["spec"]["storage"]["pvc"] == {"create": False, "name": "llama-cache"}
        assert entry["PersistentVolumeClaim"]["metadata"]["name"] == "llama-cache"


@pytest.mark.parametrize("change", [{"cacheGiB": 80}, {"replicas": 0}, {"maxSequenceLength": 4096}], ids=str)
def test_what_a_download_does_not_depend_on_leaves_the_cache_alone(change: Json) -> None:
    assert objects({}, [A100])["NIMCache"] == objects(change, [A100])["NIMCache"]


def test_a_former_cache_is_deleted_and_the_weights_are_not() -> None:
    found = objects({}, [A100])
    assert "annotations" not in found["NIMCache"]["metadata"]
    options = found["PersistentVolumeClaim"]["metadata"]["annotations"]["argocd.argoproj.io/sync-options"]
    assert options == "Prune=false,Delete=false"


MIRRORS: dict[str, tuple[Json, str, dict[str, str]]] = {
    "S3 of the house": (
        {"url": "s3://nim-models", "region": "eu-1", "endpoint": "https://s3.internal"},
        "model-mirror",
        {
            "NIM_REPOSITORY_OVERRIDE": "s3://nim-models/",
            "AWS_REGION": "eu-1",
            "AWS_ENDPOINT_URL": "https://s3.internal",
        },
    ),
    "S3 of Amazon, with a secret of its own": (
        {"url": "s3://nim-models/", "region": "eu-west-1", "secret": "aws"},
        "aws",
        {"NIM_REPOSITORY_OVERRIDE": "s3://nim-models/", "AWS_REGION": "eu-west-1"},
    ),
    "HTTPS without a key": (
        {"url": "https://models.internal:8443"},
        "ngc-api",
        {"NIM_REPOSITORY_OVERRIDE": "https://models.internal:8443/"},
    ),
    "HTTPS with a key": (
        {"url": "https://models.internal", "keys": ["TOKEN"]},
        "model-mirror",
        {"NIM_REPOSITORY_OVERRIDE": "https://models.internal/"},
    ),
}


@pytest.mark.parametrize("name", MIRRORS)
def test_a_mirror_of_models_is_reached_with_its_own_secret(name: str) -> None:
    mirror, secret, variables = MIRRORS[name]
    here = {"registries": {"models": mirror}}
    spec = objects({}, [A100], **here)["NIMCache"]["spec"]
    assert spec["source"]["ngc"]["authSecret"] == secret
    assert {entry["name"]: entry["value"] for entry in spec["env"]} == variables
    keys = {s.name: s.keys for s in stack({}, [A100], **here).secrets() if s.namespace == "models"}
    wanted = tuple(mirror.get("keys", ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")))
    assert keys[secret] == (("NGC_API_KEY",) if secret == "ngc-api" else wanted)
    # The pod that serves gets NGC_API_KEY from its own secret, whatever models come from.
    assert keys["ngc-api"] == ("NGC_API_KEY",)
