# SPDX-License-Identifier: Apache-2.0
"""Whether a served model fits its GPUs: weights, KV cache, adapters. Estimates err on the safe side."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuneyard_api import known_shapes
from tuneyard_api.model_shape import shape_of

from tuneyard.environment.model import Environment
from tuneyard.environment.models import Architecture, ServedModel

GIB = 1024**3
USABLE = 0.9
"""Share of GPU memory that servers take by default (vLLM: --gpu-memory-utilization)."""
RUNTIME_GIB = 1.5
"""CUDA context, graphs and activations on each GPU, in GiB; an allowance, not a measurement."""
WEIGHT_BYTES = {"bf16": 2.0, "fp8": 1.0, "int4": 0.55}
"""Bytes for each parameter; those of int4 include its scales."""


def _architecture(config: Mapping[str, Any]) -> Architecture:
    shape, heads = shape_of(config), int(config["num_attention_heads"])
    return Architecture(
        parameters_billion=round(shape.parameters / 1e9, 2),
        layers=shape.layers,
        hidden_size=shape.hidden,
        key_value_heads=int(config["num_key_value_heads"]),
        head_size=shape.queries // heads,
    )


KNOWN: Mapping[str, Architecture] = {
    name: _architecture(config) for name, config in known_shapes.KNOWN.items()
}
"""Architectures by the last part of the image's or the repository's name, from each model's config.json."""


@dataclass(frozen=True)
class Estimate:
    """GiB on each GPU."""

    weights: float
    kv_cache: float
    adapters: float

    @property
    def total(self) -> float:
        """The total with the runtime's own share."""
        return self.weights + self.kv_cache + self.adapters + RUNTIME_GIB


def architecture_of(model: ServedModel) -> Architecture | None:
    """The architecture from the environment, else from the catalog, else None."""
    if model.architecture:
        return model.architecture
    name = model.hugging_face.repo if model.hugging_face else model.image.repository if model.image else ""
    return KNOWN.get(name.rsplit("/", 1)[-1].lower())


def estimate(model: ServedModel, architecture: Architecture) -> Estimate:
    """GiB on each GPU of one replica.

    weights = parameters * bytes / GPUs; KV cache = 2 * layers * key-value heads * head size * 2 bytes * tokens / GPUs
    (Kwon et al. 2023, section 2); an adapter on all linear layers = rank * (sum of in + out widths) * 2 bytes with a
    feed-forward width of 3.5 hidden sizes. Tensor parallelism beyond the number of key-value heads copies the cache.
    """
    pipeline = model.multi_node.pipeline if model.multi_node else 1
    gpus = model.gpus * pipeline
    heads = max(architecture.key_value_heads / model.gpus, 1.0)
    tokens = model.max_sequence_length * model.max_sequences
    cache = 2 * (architecture.layers / pipeline) * heads * architecture.head_size * 2 * tokens
    adapters = 0.0
    if lora := model.lora:
        narrow = architecture.key_value_heads * architecture.head_size
        widths = (
            4 * architecture.hidden_size
            + 2 * (architecture.hidden_size + narrow)
            + 13.5 * architecture.hidden_size
        )
        adapters = lora.max_gpu_adapters * lora.max_rank * widths * architecture.layers * 2 / gpus
    weights = architecture.parameters_billion * 1e9 * WEIGHT_BYTES[model.weights] / gpus
    return Estimate(weights / GIB, cache / GIB, adapters / GIB)


def gpu_memory_gib(environment: Environment, product: str | None) -> int | None:
    """Memory of the GPU that a model gets: that of its product, else the smallest, or that of a MIG part."""
    if environment.gpus.mig:
        return environment.gpus.mig.memory_gib
    sizes = [nodes.memory_gib for nodes in environment.gpus.nodes if product in (None, nodes.product)]
    return min(sizes, default=None)
