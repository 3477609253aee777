# SPDX-License-Identifier: Apache-2.0
"""NIMCache: which profiles of a model are downloaded, from where, and onto which claim.

Fields: the CRD of k8s-nim-operator 3.1.2; what its `MatchProfiles` (internal/nimparser) makes of them. Its spec can't be
changed, so that the object's name has a digest of it: another spec is another NIMCache on the same claim.
"""

import hashlib

from tuneyard_api.yaml_io import dump

from tuneyard.catalog.gpu_requests import node_selector_of, tolerations_of
from tuneyard.catalog.objects import build_metadata, without_empty
from tuneyard.catalog.weights import weights_claim
from tuneyard.environment.models import ServedModel
from tuneyard.environment.presets import engine_of
from tuneyard.stack.model import Json, Stack

API = "apps.nvidia.com/v1alpha1"
RAY_MAJOR = 2
"""NIM 2 and later: LoRA by engine flags, several nodes by Ray, adapters from a folder only, vLLM as its usual engine."""
PROFILE_GPUS = ("A100", "A10G", "B200", "GB200", "GH200", "H100", "H200", "L40S")
"""GPUs as NVIDIA's profiles spell them in their tag `gpu`. The NIM Operator looks for our word inside of the tag, so a word
that is also part of another GPU's name (A10, H20, L4, L40) is not one of them."""


def major_of(tag: str) -> int:
    """The major version of a NIM image tag; 1 when the tag does not begin with a number."""
    head = tag.removeprefix("v").split(".", maxsplit=1)[0]
    return int(head) if head.isdigit() else 1


def image_of(stack: Stack, model: ServedModel) -> str:
    """The NIM image; empty if it is missing, which a check reports."""
    return stack.mirrored(f"{model.image.repository}:{model.image.tag}") if model.image else ""


def listed_name(stack: Stack, model: ServedModel) -> str:
    """The name that requests say: vLLM has the model's own, a NIM the path of its image below `nim/` unless it is told."""
    told = {entry.name: entry.value for entry in model.env}.get("NIM_SERVED_MODEL_NAME")
    if engine_of(stack.environment, model) == "vllm" or not model.image:
        return model.name
    return told.split(",")[0] if told else model.image.repository.partition("/nim/")[2] or model.name


def cache_name(stack: Stack, model: ServedModel) -> str:
    """The name of the NIMCache: it changes with its spec, because the API server refuses another spec under one name."""
    digest = hashlib.sha256(dump(_spec(stack, model)).encode()).hexdigest()
    return f"{model.name}-cache-{digest[:8]}"


def build_nim_cache(stack: Stack, model: ServedModel) -> Json:
    """The NIMCache. It may be deleted: the weights are on a claim of ours."""
    metadata = build_metadata(cache_name(stack, model), model.namespace)
    return {"apiVersion": API, "kind": "NIMCache", "metadata": metadata, "spec": _spec(stack, model)}


def _spec(stack: Stack, model: ServedModel) -> Json:
    spec: Json = without_empty(
        {
            "source": _source(stack, model),
            # Neither size nor access mode: the claim has them, and here a new size would be a new NIMCache.
            "storage": {"pvc": {"create": False, "name": weights_claim(model)}},
            "env": build_mirror_variables(stack),
            "nodeSelector": node_selector_of(stack, model),
            "tolerations": tolerations_of(stack, model.gpu_product),
            "proxy": build_nim_proxy(stack),
        }
    )
    return spec


def _source(stack: Stack, model: ServedModel) -> Json:
    secrets, mirror = stack.environment.secrets, stack.environment.registries.models
    if model.hugging_face:
        namespace, _, name = model.hugging_face.repo.partition("/")
        return {
            "hf": {
                "endpoint": stack.environment.registries.hugging_face or "https://huggingface.co",
                "namespace": namespace,
                "modelName": name,
                "revision": model.hugging_face.revision,
                "authSecret": secrets.hugging_face,
                "modelPuller": stack.image("nim", "hf-puller"),
                "pullSecret": secrets.ngc_pull,
            }
        }
    return {
        "ngc": {
            # Each of its keys becomes a variable of the Job that downloads.
            "authSecret": mirror.secret if mirror and mirror.secret_keys else secrets.ngc,
            "modelPuller": image_of(stack, model),
            "pullSecret": secrets.ngc_pull,
            "model": _profiles(stack, model),
        }
    }


def _profiles(stack: Stack, model: ServedModel) -> Json:
    """Which profiles are downloaded. Without an engine the NIM Operator downloads those of every GPU that NVIDIA has."""
    if model.profile:
        return {"profiles": [model.profile]}
    gpu = profile_gpu(stack, model)
    return {
        "engine": engine_of_nim(model),
        "tensorParallelism": str(model.gpus),
        "gpus": [{"product": gpu}] if gpu else None,
        "lora": True if model.lora else None,
    }


def engine_of_nim(model: ServedModel) -> str:
    """The backend inside of the NIM: the model's, else the usual one of the image's major version."""
    old = major_of(model.image.tag if model.image else "1") < RAY_MAJOR
    return model.nim_engine or ("tensorrt_llm" if old else "vllm")


def profile_gpu(stack: Stack, model: ServedModel) -> str | None:
    """The GPU that profiles are chosen for; None leaves it to the NIM Operator, which takes all GPUs of the cluster.

    Profiles of vLLM are for any GPU: with one, the NIM Operator would find none at all.
    """
    products = {nodes.product for nodes in stack.environment.gpus.nodes}
    if not model.gpu_product or len(products) < 2 or engine_of_nim(model) == "vllm":  # noqa: PLR2004  more than one
        return None
    return next((gpu for gpu in PROFILE_GPUS if gpu in model.gpu_product.split("-")), None)


def build_nim_proxy(stack: Stack) -> Json | None:
    """The proxy settings. Both NIMCache and NIMService need them to reach the registry."""
    proxy, authority = stack.environment.proxy, stack.environment.certificate_authority
    if not proxy and not authority:
        return None
    exempt = ",".join(proxy.exempt) if proxy else None
    address = proxy.https if proxy else None
    # NIM Operator 3.1.2 reads authorities from here, with or without a proxy.
    certificates = authority.config_map if authority else None
    proxied: Json = without_empty(
        {"httpProxy": address, "httpsProxy": address, "noProxy": exempt, "certConfigMap": certificates}
    )
    return proxied


def build_mirror_variables(stack: Stack) -> list[Json]:
    """Where models come from in place of NGC; the paths inside are appended, so the address ends with a slash."""
    mirror = stack.environment.registries.models
    if mirror is None:
        return []
    values = {
        "NIM_REPOSITORY_OVERRIDE": f"{mirror.url.rstrip('/')}/",
        "AWS_REGION": mirror.region,
        "AWS_ENDPOINT_URL": mirror.endpoint,
    }
    return [{"name": name, "value": value} for name, value in values.items() if value]
