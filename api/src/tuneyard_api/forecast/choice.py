# SPDX-License-Identifier: Apache-2.0
"""Chooses what a job leaves open so that it fits and is fast, and finds the nearest change of a job that does not fit."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from tuneyard_api.forecast.duration import seconds_per_step
from tuneyard_api.forecast.gpus import Gpu, products
from tuneyard_api.forecast.memory import GIB, Memory, memory_of
from tuneyard_api.forecast.work import Work
from tuneyard_api.methods import LORA_METHODS

_CAREFUL = 0.9
"""Share of a GPU's memory that a choice fills: for what the forecast is off, and for what the allocator holds free."""
_AS_FAST = 1.03
"""A smaller micro batch is taken if a step takes at most this much longer."""
_PER_NODE = 8
"""GPUs of the nodes that most clusters have."""
_GPU_COUNTS = (2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Change:
    """A change of a job with which it fits."""

    kind: str
    """microBatch, gradientCheckpointing, quantization, gpus or gpuProduct."""
    words: str
    """What to write into the job."""
    work: Work
    memory: Memory
    gpu: Gpu


def fits(memory: Memory, gpu: Gpu) -> bool:
    """Whether it fits by the forecast; what is not known refuses nothing."""
    return gpu.memory_gib is None or memory.total <= gpu.memory_gib * GIB


def placed(work: Work, gpu: Gpu) -> Work:
    """The work with all of the model on each GPU, if it is to be spread and fits with room to spare.

    Then GPUs tell each other the gradients of what is trained once a step, and nothing else. The trainer asks the same of
    the GPUs that it has.
    """
    if not work.is_spread or gpu.memory_gib is None:
        return work
    whole = replace(work, is_spread=False)
    return whole if memory_of(whole).total <= _CAREFUL * gpu.memory_gib * GIB else work


def choose(work: Work, gpu: Gpu, *, has_micro_batch: bool, has_checkpointing: bool) -> Work:
    """The work with micro batch and gradient checkpointing chosen where the job does not have them; same global batch.

    The fastest one that fits, and of those that are as fast the one that needs least. If none fits, the one that needs
    least. Nothing is chosen where the GPU's memory is not known.
    """
    if gpu.memory_gib is None:
        return work
    sizes = (work.micro_batch,) if has_micro_batch else _sizes(work)
    ways = (work.is_recomputing,) if has_checkpointing else (False, True)
    candidates = [placed(work.with_batch(size, is_recomputing=way), gpu) for way in ways for size in sizes]
    needs = {candidate: memory_of(candidate).total for candidate in candidates}
    room = gpu.memory_gib * GIB
    fitting = [each for each in candidates if needs[each] <= _CAREFUL * room]
    fitting = fitting or [each for each in candidates if needs[each] <= room]
    if not fitting:
        return min(candidates, key=lambda each: needs[each])
    times = {each: seconds_per_step(each, gpu) for each in fitting}
    fastest = min(times.values())
    return min((each for each in fitting if times[each] <= _AS_FAST * fastest), key=lambda each: needs[each])


def changes_that_fit(work: Work, gpu: Gpu, *, quantizations: Iterable[str] = ("nf4",)) -> list[Change]:
    """Changes with which the work fits, the nearest one first; at most one of each kind."""
    found: dict[str, Change] = {}
    for kind, words, changed, on in _changes(work, gpu, set(quantizations)):
        if kind not in found and fits(memory := memory_of(changed), on):
            found[kind] = Change(kind, words, changed, memory, on)
    return list(found.values())


def _changes(work: Work, gpu: Gpu, quantizations: set[str]) -> Iterator[tuple[str, str, Work, Gpu]]:
    """Changes by kind, the nearest first; each kind from the smallest change to the one that saves most."""
    smaller = [size for size in reversed(_sizes(work)) if size < work.micro_batch]
    for size in smaller:
        changed = work.with_batch(size, is_recomputing=work.is_recomputing)
        yield "microBatch", f"training.microBatchSize: {size}", changed, gpu
    if not work.is_recomputing:
        for size in (work.micro_batch, *smaller):
            changed = work.with_batch(size, is_recomputing=True)
            yield "gradientCheckpointing", _checkpointing(size, work), changed, gpu
    least = (work.with_batch(1, is_recomputing=True), f" with {_checkpointing(1, work)}")
    for base, also in ((work, ""), least):
        if "nf4" in quantizations and _can_be_quantized(base):
            changed = replace(base, quantization="nf4", is_spread=False)
            yield "quantization", f"model.quantization: nf4{also}", changed, gpu
    for base, also in ((work, ""), least):
        for count in _more_gpus(work):
            yield "gpus", f"{_parallelism(count)}{also}", base.on(count), gpu
    for base, also in ((work, ""), least):
        for other in reversed(products()):
            if (other.memory_gib or 0) > (gpu.memory_gib or 0) and (other.has_bf16 or not work.is_bf16):
                yield "gpuProduct", f"scheduling.gpuProduct: {other.product}{also}", base, other


def _can_be_quantized(work: Work) -> bool:
    is_lora = work.method in LORA_METHODS and not work.is_dora
    return is_lora and work.quantization != "nf4"


def _more_gpus(work: Work) -> list[int]:
    """Numbers of GPUs over which the work can be spread; a quantised model is whole on each of them."""
    batch = work.micro_batch * work.accumulation * work.processes
    if work.quantization is not None:
        return []
    return [count for count in _GPU_COUNTS if count > work.processes and batch % count == 0]


def _parallelism(count: int) -> str:
    if count <= _PER_NODE:
        return f"parallelism.gpusPerNode: {count}"
    return f"parallelism: {{nodes: {count // _PER_NODE}, gpusPerNode: {_PER_NODE}}}"


def _checkpointing(size: int, work: Work) -> str:
    smaller = f" and training.microBatchSize: {size}" if size < work.micro_batch else ""
    return f"training.gradientCheckpointing: true{smaller}"


def _sizes(work: Work) -> tuple[int, ...]:
    """Micro batches that divide the share of a GPU, the smallest first."""
    share = work.micro_batch * work.accumulation
    return tuple(size for size in range(1, share + 1) if share % size == 0)
