# SPDX-License-Identifier: Apache-2.0
"""Time of a training on one kind of GPU: products at the speed that they reach, and passes over what lies between them.

The constants are measured (docs/reference/forecast.md); a GPU that was not measured is taken to reach the same share of its
data sheet.
"""

from dataclasses import dataclass

from tuneyard_api.forecast.gpus import Gpu
from tuneyard_api.forecast.memory import kept_of_layer
from tuneyard_api.forecast.work import Work

MEASURED = frozenset({"NVIDIA-H200", "NVIDIA-H100-80GB-HBM3"})
"""Products on which trainings were measured."""


@dataclass(frozen=True)
class Pace:
    """How fast a path is."""

    products: float
    """Share of the data sheet's speed that products reach."""
    passes: float
    """Times that the bytes which a layer keeps go through memory, over forward and backward pass."""
    launch: float
    """Seconds of a layer and pass that the CPU needs to start its kernels: small models go no faster."""


_FAST = Pace(0.74, 17.7, 4e-4)
_FP8 = Pace(1.57, 17.7, 6e-4)
_PLAIN = Pace(0.74, 35.0, 3e-3)
_COMPILING = 15.0
"""Seconds of the first step on the fast path, which compiles for the GPU."""


def pace_of(work: Work) -> Pace:
    """The pace of the path that a training takes."""
    if work.why_plain is not None:
        return _PLAIN
    return _FP8 if work.quantization == "fp8" else _FAST


def seconds_per_step(work: Work, gpu: Gpu) -> float:
    """Seconds of one optimizer step."""
    shape, pace = work.shape, pace_of(work)
    whole = work.method == "sft"
    # A product is made once forward and once for its input's gradient, and once more for the gradient of a trained weight.
    linear: float = 2 * shape.active_parameters * (3 if whole else 2)
    head = 2 * shape.hidden * shape.vocabulary * (3 if whole else 2)
    seen = min(work.sequence, shape.window or work.sequence)
    attention: float = 7 * shape.queries * seen * shape.layers
    if work.is_recomputing:
        linear, attention = linear + 2 * shape.active_parameters, attention * 9 / 7
    speed = gpu.teraflops * 1e12
    kept = kept_of_layer(work) * shape.layers
    passes = pace.passes * (4 / 3 if work.is_recomputing else 1)
    token = linear / (speed * pace.products) + (head + attention) / (
        speed * min(pace.products, _FAST.products)
    )
    token += passes * kept / (gpu.bandwidth * 1e12)
    micro = max(token * work.tokens, pace.launch * shape.layers)
    return micro * work.accumulation


def seconds_of(work: Work, gpu: Gpu, steps: int) -> float:
    """Seconds of a training of so many optimizer steps, without loading, evaluation and checkpoints."""
    compiling = _COMPILING if work.why_plain is None else 0.0
    return compiling + steps * seconds_per_step(work, gpu)
