# SPDX-License-Identifier: Apache-2.0
"""The served models of a FineTuneRuntime: base model, address, kind of server and limits of each."""

from tuneyard.catalog.nim_cache import listed_name
from tuneyard.environment.models import HuggingFaceModel, ServedModel
from tuneyard.environment.presets import engine_of
from tuneyard.environment.tuning import Runtime
from tuneyard.stack.model import Json, Stack


def build_served_models(stack: Stack, runtime: Runtime) -> list[Json]:
    """The entries of `spec.servedModels`, in the order of the environment; fields: tuneyard_api.serving."""
    wanted = runtime.served_models
    return [
        _build_served_model(stack, runtime, model)
        for model in stack.environment.models
        if serves(stack, runtime, model) and (wanted is None or model.name in wanted)
    ]


def serves(stack: Stack, runtime: Runtime, model: ServedModel) -> bool:
    """Whether adapters of the runtime's jobs can get to the server."""
    if runtime.publish_to == "registry":
        return takes_adapters(stack, model)
    return (
        base_of(model) is not None and stack.has(f"model:{model.name}") and reads_entity_store(stack, model)
    )


def reads_entity_store(stack: Stack, model: ServedModel) -> bool:
    """Whether a NIM gets the adapters that the Entity Store lists."""
    return model.lora is not None and model.lora.source == "entity-store" and stack.has("entity-store")


def base_of(model: ServedModel) -> HuggingFaceModel | None:
    """The base model as jobs name it; None: no job can."""
    return model.hugging_face or (model.lora.base_model if model.lora else None)


def takes_adapters(stack: Stack, model: ServedModel) -> bool:
    """Whether a job's adapter can get to the server: its base model is known, and it reads a registry."""
    return base_of(model) is not None and stack.has(f"model:{model.name}") and reads_registry(stack, model)


def reads_registry(stack: Stack, model: ServedModel) -> bool:
    """Whether adapters can get to the model: by S3 from every namespace; by a claim to vLLM only, where jobs publish.

    The NIM Operator mounts no claim of others beside a NIM.
    """
    tuning = stack.environment.fine_tuning
    if model.lora is None:
        return False
    if engine_of(stack.environment, model) == "nim":
        return model.lora.source == "folder" and tuning.registry_s3 is not None
    return tuning.registry_s3 is not None or model.namespace in {each.name for each in tuning.namespaces}


def _build_served_model(stack: Stack, runtime: Runtime, model: ServedModel) -> Json:
    source, lora = base_of(model), model.lora
    if source is None or lora is None:
        raise AssertionError("a model that takes adapters has a base model and limits")
    is_on_claims = runtime.publish_to == "registry" and stack.environment.fine_tuning.registry_s3 is None
    return {
        "name": model.name,
        "base": {"huggingFace": {"repo": source.repo, "revision": source.revision}},
        "endpoint": stack.url(f"model:{model.name}"),
        "server": engine_of(stack.environment, model),
        "listedAs": listed_name(stack, model),
        **({"namespaces": [model.namespace]} if is_on_claims else {}),
        "maxLoraRank": lora.max_rank,
    }
