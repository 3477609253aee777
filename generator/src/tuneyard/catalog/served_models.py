# SPDX-License-Identifier: Apache-2.0
"""The served models of a FineTuneRuntime: base model, address, kind of server and limits of each."""

from tuneyard.environment.models import ServedModel
from tuneyard.environment.presets import engine_of
from tuneyard.environment.tuning import Runtime
from tuneyard.stack.model import Json, Stack


def build_served_models(stack: Stack, runtime: Runtime) -> list[Json]:
    """The entries of `spec.servedModels`, in the order of the environment; fields: tuneyard_api.serving."""
    wanted = runtime.served_models
    return [
        _build_served_model(stack, model)
        for model in stack.environment.models
        if takes_adapters(stack, model) and (wanted is None or model.name in wanted)
    ]


def takes_adapters(stack: Stack, model: ServedModel) -> bool:
    """Whether a job's adapter can get to the server: its base model is known, and it reads a registry."""
    if model.hugging_face is None or not stack.has(f"model:{model.name}"):
        return False
    return engine_of(stack.environment, model) == "vllm" and reads_registry(stack, model)


def reads_registry(stack: Stack, model: ServedModel) -> bool:
    """Whether adapters can get to the model: by S3 from every namespace, by a claim only where jobs publish."""
    tuning = stack.environment.fine_tuning
    has_claim = model.namespace in {namespace.name for namespace in tuning.namespaces}
    return bool(model.lora) and (has_claim or tuning.registry_s3 is not None)


def _build_served_model(stack: Stack, model: ServedModel) -> Json:
    source, lora = model.hugging_face, model.lora
    if source is None or lora is None:
        raise AssertionError("a model that takes adapters has a repository and limits")
    return {
        "name": model.name,
        "base": {"huggingFace": {"repo": source.repo, "revision": source.revision}},
        "endpoint": stack.url(f"model:{model.name}"),
        "server": "vllm",
        "listedAs": model.name,
        **({"namespaces": [model.namespace]} if stack.environment.fine_tuning.registry_s3 is None else {}),
        "maxLoraRank": lora.max_rank,
    }
