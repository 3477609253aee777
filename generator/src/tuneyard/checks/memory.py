# SPDX-License-Identifier: Apache-2.0
"""Whether a served model fits its GPUs: weights, KV cache, adapters. Estimates err on the safe side."""

from collections.abc import Mapping
from dataclasses import dataclass

from tuneyard.environment.model import Environment
from tuneyard.environment.models import Architecture, ServedModel

GIB = 1024**3
USABLE = 0.9
"""Share of GPU memory that servers take by default (vLLM: --gpu-memory-utilization)."""
RUNTIME_GIB = 1.5
"""CUDA context, graphs and activations on each GPU, in GiB; an allowance, not a measurement."""
WEIGHT_BYTES = {"bf16": 2.0, "fp8": 1.0, "int4": 0.55}
"""Bytes for each parameter; those of int4 include its scales."""


def _known(parameters: float, layers: int, hidden: int, heads: int, head_size: int = 128) -> Architecture:
    return Architecture(
        parameters_billion=parameters,
        layers=layers,
        hidden_size=hidden,
        key_value_heads=heads,
        head_size=head_size,
    )


KNOWN: Mapping[str, Architecture] = {
    "llama-3.1-8b-instruct": _known(8.03, 32, 4096, 8),
    "llama-3.1-70b-instruct": _known(70.6, 80, 8192, 8),
    "llama-3.1-405b-instruct": _known(406, 126, 16384, 8),
    "llama-3.2-1b-instruct": _known(1.24, 16, 2048, 8, 64),
    "llama-3.2-3b-instruct": _known(3.21, 28, 3072, 8),
    "llama-3.3-70b-instruct": _known(70.6, 80, 8192, 8),
    "mistral-7b-instruct-v0.3": _known(7.25, 32, 4096, 8),
    "qwen2.5-7b-instruct": _known(7.62, 28, 3584, 4),
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
