# SPDX-License-Identifier: Apache-2.0
"""The forecast of one job on one kind of GPU: what it takes, whether it fits, and what would."""

from dataclasses import dataclass
from math import ceil

from tuneyard_api.forecast.choice import Change, changes_that_fit, choose, fits
from tuneyard_api.forecast.duration import MEASURED, seconds_of, seconds_per_step
from tuneyard_api.forecast.gpus import Gpu
from tuneyard_api.forecast.memory import Memory, memory_of
from tuneyard_api.forecast.work import Work
from tuneyard_api.job import FineTuneJobSpec
from tuneyard_api.names import GPU_PRODUCT_LABEL
from tuneyard_api.runtime import FineTuneRuntimeSpec

_HOUR = 3600


def asked_product(job: FineTuneJobSpec, runtime: FineTuneRuntimeSpec) -> str | None:
    """The GPU product that a job, or its runtime, asks for; None: any."""
    selector = (runtime.node_selector or {}) | (job.scheduling.node_selector or {})
    return job.scheduling.gpu_product or selector.get(GPU_PRODUCT_LABEL)


@dataclass(frozen=True)
class Data:
    """What is known of the training data."""

    sequences: int
    """Number of sequences after packing."""
    longest: int | None = None
    """Tokens of the longest one, if it was counted."""
    record: int | None = None
    """Tokens of a record on average, if they were counted."""


@dataclass(frozen=True)
class Forecast:
    """What a training takes on one kind of GPU."""

    work: Work
    """The training, with micro batch and gradient checkpointing as they will be."""
    gpu: Gpu
    memory: Memory
    steps: int | None
    """Optimizer steps; None: how many there are depends on data that nobody has counted."""
    step_seconds: float | None
    """None if nothing is known of the GPU's speed."""
    seconds: float | None
    """Time of the whole training, without queue, loading, evaluation and checkpoints; None if steps or speed are not known."""
    changes: tuple[Change, ...]
    """If the job does not fit: changes that make it fit, the nearest first."""

    @property
    def fits(self) -> bool:
        """Whether the memory of each GPU is enough."""
        return fits(self.memory, self.gpu)

    @property
    def gpu_hours(self) -> float | None:
        """GPUs times hours of the training."""
        return None if self.seconds is None else self.seconds * self.work.processes / _HOUR

    @property
    def is_time_measured(self) -> bool:
        """Whether the speed of this GPU was measured, and not taken from its data sheet."""
        return self.gpu.product in MEASURED


def forecast(
    work: Work,
    gpu: Gpu,
    *,
    has_micro_batch: bool,
    has_checkpointing: bool,
    steps: int | None,
    quantizations: tuple[str, ...] = (),
) -> Forecast:
    """The forecast, with what the job leaves open chosen. `quantizations` are those that the runtime has."""
    chosen = choose(work, gpu, has_micro_batch=has_micro_batch, has_checkpointing=has_checkpointing)
    memory = memory_of(chosen)
    does_fit = fits(memory, gpu)
    return Forecast(
        work=chosen,
        gpu=gpu,
        memory=memory,
        steps=steps,
        step_seconds=seconds_per_step(chosen, gpu) if gpu.is_speed_known else None,
        seconds=seconds_of(chosen, gpu, steps) if gpu.is_speed_known and steps is not None else None,
        changes=() if does_fit else tuple(changes_that_fit(chosen, gpu, quantizations=quantizations)),
    )


def steps_of(
    *, epochs: float | None, max_steps: int | None, global_batch: int, sequences: int | None
) -> int | None:
    """Optimizer steps of a training, as its loop counts them; None if they depend on sequences that are not counted."""
    if max_steps is not None:
        return max_steps
    if sequences is None:
        return None
    return ceil(max(1, round((epochs or 1.0) * sequences)) / global_batch)
