# SPDX-License-Identifier: Apache-2.0
"""What one GPU does in a training, as far as memory and time follow from it."""

from dataclasses import dataclass, replace
from math import ceil

from tuneyard_api.model_shape import Linears, ModelShape
from tuneyard_api.pod_contract import ResolvedJob

_SIDES = 2
"""Records of a pair of answers."""
_WIDTH_MULTIPLE = 64
"""Tokens; widths of batches on a GPU are its multiples (trainer: training/batches.py)."""


@dataclass(frozen=True)
class Work:
    """One training, as one of its GPUs sees it."""

    shape: ModelShape
    method: str
    rank: int
    targets: tuple[str, ...] | None
    """Last parts of the names of adapted layers; None: every linear layer."""
    is_dora: bool
    has_dropout: bool
    quantization: str | None
    is_bf16: bool
    """Whether a frozen model is held in bfloat16, and products are made in it; never on CPU."""
    is_on_gpu: bool
    virtual_tokens: int
    micro_batch: int
    accumulation: int
    sequence: int
    """Tokens of a sequence, padding included."""
    record: int
    """Tokens of a record on average: no token sees those of another one."""
    is_recomputing: bool
    """Whether gradient checkpointing is on."""
    processes: int
    """GPUs over all nodes."""
    is_spread: bool = False
    """Whether FSDP2 spreads the model over all GPUs; otherwise each of them holds all of it (see choice.placed)."""

    @property
    def rows(self) -> int:
        """Sequences of one pass: a pair of answers is two."""
        return self.micro_batch * (_SIDES if self.method == "dpo" else 1)

    @property
    def tokens(self) -> int:
        """Tokens of one pass."""
        return self.rows * (self.sequence + self.virtual_tokens)

    @property
    def adapted(self) -> tuple[Linears, ...]:
        """The linear layers that get an adapter."""
        return tuple(each for each in self.shape.linears if self.targets is None or each.name in self.targets)

    @property
    def trained_parameters(self) -> int:
        """Parameters that are trained, over all GPUs."""
        hidden = self.shape.hidden
        if self.method == "sft":
            return self.shape.parameters
        if self.method == "pTuning":
            # PEFT's encoder: three linear layers of the model's width that make each virtual token.
            return 3 * hidden * (hidden + 1) + self.virtual_tokens * hidden
        if self.method == "ia3":
            return self.shape.layers * (2 * self.shape.keys + self.shape.feedforward)
        dora = sum(each.out * each.count for each in self.adapted) if self.is_dora else 0
        return dora + sum(self.rank * (each.inputs + each.out) * each.count for each in self.adapted)

    @property
    def why_plain(self) -> str | None:
        """Why the training can't take the trainer's fast path; None: it takes it."""
        window = self.shape.window
        checks = {
            f"method {self.method} does not have one": self.method not in {"lora", "sft"},
            "DoRA does not have one": self.is_dora,
            "lora.dropout needs a copy of each input": self.has_dropout and self.method == "lora",
            "it needs an NVIDIA GPU": not self.is_on_gpu,
            "it computes in bfloat16": not self.is_bf16,
            f"the base model is quantized to {self.quantization}": self.quantization not in {None, "fp8"},
            f"it does not know the layers of {self.shape.model_type}": not self.shape.is_known_to_fast_path,
            "the attention window is shorter than a sequence": window is not None and window < self.sequence,
        }
        return next((said for said, applies in checks.items() if applies), None)

    def with_batch(self, micro_batch: int, *, is_recomputing: bool) -> "Work":
        """The same work in passes of so many sequences, at the same global batch; it must divide a GPU's share."""
        share = self.micro_batch * self.accumulation
        return replace(
            self,
            micro_batch=micro_batch,
            accumulation=share // micro_batch,
            is_recomputing=is_recomputing,
        )

    def on(self, processes: int) -> "Work":
        """The same work on another number of GPUs, which must divide the global batch."""
        batch = self.micro_batch * self.accumulation * self.processes
        share = batch // processes
        micro = next(size for size in range(min(self.micro_batch, share), 0, -1) if share % size == 0)
        return replace(
            self,
            processes=processes,
            micro_batch=micro,
            accumulation=share // micro,
            is_spread=is_to_be_spread(processes, self.quantization),
        )


def is_to_be_spread(processes: int, quantization: str | None) -> bool:
    """Whether FSDP2 spreads a model, unless it is found to fit on each GPU; it can't spread a quantized one."""
    return processes > 1 and quantization is None


def work_of(
    job: ResolvedJob, shape: ModelShape, *, longest: int | None = None, record: int | None = None
) -> Work:
    """The work of a resolved job.

    `longest` is the longest sequence of the data in tokens, and `record` the mean of its records; None: as long as the job
    allows.
    """
    training = job.training
    room = (shape.positions or training.max_sequence_length) - (
        job.p_tuning.virtual_tokens if job.p_tuning else 0
    )
    limit = min(training.max_sequence_length, room)
    sequence = limit if longest is None else min(limit, ceil(longest / _WIDTH_MULTIPLE) * _WIDTH_MULTIPLE)
    is_on_gpu = job.runtime.accelerator == "nvidia"
    precisions = job.runtime.precisions
    wanted = (precisions[0] if precisions else "bf16") if training.precision == "auto" else training.precision
    return Work(
        shape=shape,
        method=job.method,
        rank=job.lora.rank,
        targets=job.lora.target_modules,
        is_dora=job.lora.dora,
        has_dropout=job.lora.dropout > 0,
        quantization=job.quantization,
        is_bf16=is_on_gpu and wanted == "bf16",
        is_on_gpu=is_on_gpu,
        virtual_tokens=job.p_tuning.virtual_tokens if job.p_tuning else 0,
        micro_batch=training.micro_batch_size,
        accumulation=training.gradient_accumulation,
        sequence=sequence,
        record=min(record or sequence, sequence),
        is_recomputing=training.gradient_checkpointing,
        processes=training.data_parallel,
        is_spread=is_to_be_spread(training.data_parallel, job.quantization),
    )
