# SPDX-License-Identifier: Apache-2.0
"""One component for each served model, in the root `models`, so that a mistyped model breaks only itself.

NIMCache and NIMService are in one Application and one wave: the NIM Operator makes the service wait for the cache.
"""

from functools import partial

from tuneyard.catalog.nim import build_nim_pipeline, build_nim_service, secrets_of_nim
from tuneyard.catalog.nim_cache import build_nim_cache
from tuneyard.catalog.vllm import build_vllm, secrets_of_vllm
from tuneyard.catalog.weights import build_weights_claim
from tuneyard.environment.model import Environment
from tuneyard.environment.models import Pipeline, ServedModel
from tuneyard.environment.presets import engine_of
from tuneyard.stack.model import Claim, Component, ExpectedSecret, GpuRequest, Json, Need, Service, Stack

PORT = 8000


def is_shared(model: ServedModel) -> bool:
    """Whether several pods may mount the model's cache, on several nodes."""
    most = model.autoscaling.max_replicas if model.autoscaling else model.replicas
    return most > 1 or model.multi_node is not None


def pods_of(model: ServedModel) -> int:
    """The greatest number of pods, over all replicas and nodes, also while a new version takes their place.

    No rollout adds a pod: our Deployment of vLLM has no surge, and what the NIM Operator makes of a NIMService has none
    either (3.1.2: `maxSurge: 0` in manifests/deployment.yaml and manifests/lws.yaml).
    """
    most = model.autoscaling.max_replicas if model.autoscaling else model.replicas
    return most * (model.multi_node.pipeline if model.multi_node else 1)


def model_components(environment: Environment) -> list[Component]:
    """A component for each model that stands alone and for each pipeline."""
    together = {name for pipeline in environment.pipelines for name in pipeline.models}
    alone = [
        _component(environment, index, model)
        for index, model in enumerate(environment.models)
        if model.name not in together
    ]
    return [
        *alone,
        *(_pipeline(environment, index, pipeline) for index, pipeline in enumerate(environment.pipelines)),
    ]


def _needs(environment: Environment, index: int, model: ServedModel) -> list[Need]:
    path = ("models", index)
    needs = [Need("gpu", f"{model.gpus} GPUs for each pod", (*path, "gpus"))]
    if engine_of(environment, model) == "nim":
        needs.append(Need("crd:nim", "its NIMCache and NIMService", path))
    if model.lora and model.lora.source == "entity-store":
        needs.append(Need("entity-store", "where it finds adapters", (*path, "lora", "source")))
    if model.multi_node:
        needs.append(Need("lws", "it runs one replica over several nodes", (*path, "multiNode")))
    if model.autoscaling:
        needs.append(Need("metrics", "what it scales by", (*path, "autoscaling")))
        needs.append(Need("pod-metrics", "what it scales by", (*path, "autoscaling")))
    return needs


def _gpu_requests(models: list[tuple[int, ServedModel]], _: Stack) -> list[GpuRequest]:
    return [
        GpuRequest(pods_of(model) * model.gpus, model.gpu_product, ("models", index, "gpus"), model.gpus)
        for index, model in models
    ]


def _claims(models: list[tuple[int, ServedModel]], _: Stack) -> list[Claim]:
    return [
        Claim(model.cache_gib, is_shared(model), ("models", index, "cacheGiB")) for index, model in models
    ]


def _objects(model: ServedModel, stack: Stack) -> list[Json]:
    if engine_of(stack.environment, model) == "vllm":
        return build_vllm(stack, model, shared=is_shared(model))
    return [
        build_weights_claim(stack, model, shared=is_shared(model)),
        build_nim_cache(stack, model),
        build_nim_service(stack, model),
    ]


def _secrets(models: list[tuple[int, ServedModel]], stack: Stack) -> list[ExpectedSecret]:
    found: list[ExpectedSecret] = []
    for _, model in models:
        vllm = engine_of(stack.environment, model) == "vllm"
        found += secrets_of_vllm(stack, model) if vllm else secrets_of_nim(stack, model)
    return found


def _component(environment: Environment, index: int, model: ServedModel) -> Component:
    listed = [(index, model)]
    return Component(
        name=f"model-{model.name}",
        summary=f"Serves {model.name} with {engine_of(environment, model)}",
        namespace=model.namespace,
        provides=(f"model:{model.name}",),
        needs=partial(_needs, index=index, model=model),
        after=("metrics", "cert-manager"),
        objects=partial(_objects, model),
        services=lambda _: {f"model:{model.name}": Service(model.name, PORT)},
        secrets=partial(_secrets, listed),
        claims=partial(_claims, listed),
        gpus=partial(_gpu_requests, listed),
        root="models",
        when=lambda _: True,
    )


def _pipeline(environment: Environment, index: int, pipeline: Pipeline) -> Component:
    listed = [(i, model) for i, model in enumerate(environment.models) if model.name in pipeline.models]

    def needs(env: Environment) -> list[Need]:
        return [need for i, model in listed for need in _needs(env, index=i, model=model)]

    def objects(stack: Stack) -> list[Json]:
        parts = [
            part
            for _, model in listed
            for part in (
                build_weights_claim(stack, model, shared=is_shared(model)),
                build_nim_cache(stack, model),
            )
        ]
        return [*parts, build_nim_pipeline(stack, pipeline.name, [model for _, model in listed])]

    namespaces = [model.namespace for _, model in listed] or ["models"]
    del index, environment
    return Component(
        name=f"pipeline-{pipeline.name}",
        summary=f"Serves {', '.join(pipeline.models)} together",
        namespace=namespaces[0],
        provides=tuple(f"model:{model.name}" for _, model in listed),
        needs=needs,
        objects=objects,
        services=lambda _: {f"model:{model.name}": Service(model.name, PORT) for _, model in listed},
        secrets=partial(_secrets, listed),
        claims=partial(_claims, listed),
        gpus=partial(_gpu_requests, listed),
        root="models",
        when=lambda _: True,
    )
