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


_BF16 = 0.74
_FAST = Pace(_BF16, 17.7, 3.2e-3)
_FAST_WHOLE = Pace(_BF16, 17.7, 2.3e-3)
_FP8 = Pace(1.5, 17.7, 3.2e-3)
_PLAIN = Pace(_BF16, 35.0, 5e-3)
_PLAIN_WHOLE = Pace(_BF16, 18.0, 5e-3)
_TOGETHER = 0.78
"""Share of their speed that several GPUs keep while FSDP2 gathers and spreads parameters between them."""
_LAUNCH_TOGETHER = 12e-3
"""Seconds of a layer and pass that the CPU needs where FSDP2 gathers parameters."""
_MEETING = 10e-3
"""Seconds of a step in which GPUs that hold the whole model wait for each other."""
_LINK = 3e11
"""Bytes a second that they tell each other of their gradients."""
_CASTS = 40
"""Bytes of memory traffic of each trained weight in each micro batch: casts to bfloat16, and its gradient."""
_OPTIMIZER = 50
"""The same in each optimizer step: clipping and AdamW."""
_DEQUANTIZED = {"nf4": 25, "int8": 100}
"""The same of each quantised weight in each pass over it: bitsandbytes makes it anew in bfloat16."""
_COMPILING = 15.0
"""Seconds of the first step on the fast path, which compiles for the GPU."""


def pace_of(work: Work) -> Pace:
    """The pace of the path that a training takes."""
    if work.why_plain is not None:
        return _PLAIN_WHOLE if work.method == "sft" else _PLAIN
    if work.quantization == "fp8":
        return _FP8
    return _FAST_WHOLE if work.method == "sft" else _FAST


def seconds_per_step(work: Work, gpu: Gpu) -> float:
    """Seconds of one optimizer step."""
    pace, bandwidth = pace_of(work), gpu.bandwidth * 1e12
    passes = 3 if work.is_recomputing else 2
    by_token = _products(work, gpu, pace)
    by_token += pace.passes * passes / 2 * kept_of_layer(work) * work.shape.layers / bandwidth
    by_weights = work.shape.linear_parameters * passes * _DEQUANTIZED.get(work.quantization or "", 0)
    if work.method == "sft":
        by_weights += work.trained_parameters * _CASTS
    launches = (_LAUNCH_TOGETHER if work.is_spread else pace.launch) * work.shape.layers * passes / 2
    computing = by_token * work.tokens + by_weights / bandwidth
    micro = max(computing / _TOGETHER if work.is_spread else computing, launches)
    mine = work.trained_parameters / (work.processes if work.is_spread else 1)
    optimizer = mine * _OPTIMIZER / bandwidth
    return micro * work.accumulation + optimizer + _averaging(work)


def _averaging(work: Work) -> float:
    """Seconds in which GPUs that hold the whole model average their gradients, in float32."""
    if work.is_spread or work.processes == 1:
        return 0.0
    return _MEETING + 8 * work.trained_parameters * (1 - 1 / work.processes) / _LINK


def _products(work: Work, gpu: Gpu, pace: Pace) -> float:
    """Seconds of the products of one token."""
    shape, speed = work.shape, gpu.teraflops * 1e12
    # Once forward and once for its input's gradient, once more for that of a trained weight, and once more if it is recomputed.
    times = 3 if work.method == "sft" else 2
    head = 2 * shape.hidden * shape.vocabulary * times
    linear = 2 * shape.active_parameters * (times + work.is_recomputing)
    seen = min(work.record, shape.window or work.record)
    attention = (9 if work.is_recomputing else 7) * shape.queries * seen * shape.layers
    return linear / (speed * pace.products) + (head + attention) / (speed * _BF16)


def seconds_of(work: Work, gpu: Gpu, steps: int) -> float:
    """Seconds of a training of so many optimizer steps, without loading, evaluation and checkpoints."""
    compiling = _COMPILING if work.why_plain is None else 0.0
    return compiling + steps * seconds_per_step(work, gpu)
