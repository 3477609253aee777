# SPDX-License-Identifier: Apache-2.0
"""The training loop: one process or many, from step 0 or from a checkpoint, to the last step or to SIGTERM.

The loss of a step is the mean over all learned tokens (method dpo: pairs) of its global batch, however it is cut into micro batches
and spread over processes. Everything random is a function of seed, step and micro batch, never of the processes.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from tuneyard_api.job import EarlyStopping
from tuneyard_api.pod_contract import FailureClass, ResolvedJob, ResolvedTraining, TrainingMeasures

from tuneyard_trainer.model.loading import trained_parameters
from tuneyard_trainer.model.world import World, is_spread, whole
from tuneyard_trainer.pod.context import StopRequest
from tuneyard_trainer.pod.failures import Interrupted, StageFailure
from tuneyard_trainer.pod.progress import Board
from tuneyard_trainer.training.batches import DataOrder
from tuneyard_trainer.training.checkpoints import Checkpoints
from tuneyard_trainer.training.gradients import Gradients
from tuneyard_trainer.training.losses import Losses
from tuneyard_trainer.workspace.metrics import MetricsFile, Pace
from tuneyard_trainer.workspace.prepared import Split

TRAINING_ADVICE = "a lower training.learningRate, more warmupSteps, or precision fp32"


@dataclass(frozen=True)
class Trained:
    """The outcome of a training."""

    steps: int
    epochs: float
    final_loss: float
    validation_loss: float | None
    """Validation loss of the parameters that the model has now."""
    best_step: int | None
    """Step of the parameters that the model has now, if it is not the last one."""
    is_early: bool
    """Whether early stopping ended the training before the last planned step."""
    trained_tokens: int
    """Tokens of all attempts."""
    seconds: float
    """Time of all attempts."""
    resumed_from_step: int


def learning_rate(training: ResolvedTraining, step: int, steps: int) -> float:
    """The learning rate of `step` (from 0) of `steps`: linear warm-up to the peak, then the schedule down to 0."""
    warmup = training.warmup_steps
    if step < warmup:
        return training.learning_rate * (step + 1) / (warmup + 1)
    if training.schedule == "constant" or steps <= warmup:
        return training.learning_rate
    done = (step - warmup) / (steps - warmup)
    remaining = 1 - done if training.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return training.learning_rate * remaining


def mean_loss(losses: Losses, split: Split, *, micro_batch: int, world: World, stop: StopRequest) -> float:
    """The mean loss over a split, in nats per learned token or per pair; every process must call it.

    Raises:
        Interrupted: if the training runs alone and SIGTERM comes.
    """
    model = losses.model
    was_training = model.training
    model.eval()
    total = torch.zeros((), dtype=torch.float64, device=losses.device.torch_device)
    with torch.no_grad():
        for _, indices, weight in shares(range(len(split)), micro_batch, world):
            if stop and world.size == 1:
                raise Interrupted(
                    "stopped by SIGTERM while measuring the held-out loss; the next attempt continues from the last checkpoint"
                )
            total += weight * losses.summed(split, indices)
    model.train(was_training)
    return float(world.sum(total)) / float(losses.counted(split).sum())


def check_held_out(loss: float, called: str, advice: str) -> float:
    """The held-out loss, if it is finite; a failure names the model `called`.

    Raises:
        StageFailure: NonFiniteLoss, with the advice.
    """
    if not math.isfinite(loss):
        raise StageFailure(
            FailureClass.NON_FINITE_LOSS,
            f"{called}: the loss on the held-out records is {loss:g}; try {advice}",
        )
    return loss


def is_patience_lost(validations: Mapping[int, float], stopping: EarlyStopping | None) -> bool:
    """Whether `patience` measurements in a row were no better than the best before them."""
    if stopping is None:
        return False
    best, stale = math.inf, 0
    for _, loss in sorted(validations.items()):
        is_better = loss < best - stopping.min_delta
        best, stale = (loss, 0) if is_better else (best, stale + 1)
    return stale >= stopping.patience


@dataclass
class Loop:
    """One training."""

    job: ResolvedJob
    losses: Losses
    training: Split
    validation: Split | None
    world: World
    checkpoints: Checkpoints
    metrics_path: Path
    board: Board
    stop: StopRequest
    attempt: int = 1
    """Number of this attempt, which metrics.jsonl says with each line."""

    def __post_init__(self) -> None:
        plan = self.job.training
        self._device, self._model = self.losses.device.torch_device, self.losses.model
        self._parameters = trained_parameters(self._model)
        self._optimizer = torch.optim.AdamW(
            self._parameters.values(),
            lr=plan.learning_rate,
            weight_decay=plan.weight_decay,
            fused=self._device.type == "cuda" or None,
        )
        parameters = list(self._parameters.values())
        is_spread_over_all = any(map(is_spread, parameters))
        self._gradients = Gradients([] if is_spread_over_all else parameters, self.world)
        # FSDP2 averages gradients: the average times the number of processes is the sum.
        self._counted = self.world.size if is_spread_over_all else 1
        self._order = DataOrder.of(
            len(self.training),
            global_batch=plan.global_batch_size,
            seed=plan.seed,
            epochs=plan.epochs,
            max_steps=plan.max_steps,
        )
        self._learned = self.losses.counted(self.training)
        self._lengths = self.training.tokens_per_sequence()
        self._pace = Pace()
        self._tokens = 0
        self._loss = math.nan
        self._validations: dict[int, float] = {}
        self._seconds_before = 0.0
        self._began = 0.0
        self._ahead: torch.Tensor | None = None
        """Summed loss of the first micro batch of the step that follows, where a GPU has begun it."""

    def run(self) -> Trained:
        """Trains to the last step, or until early stopping; then the model has the parameters to publish.

        Raises:
            Interrupted: after a checkpoint, if SIGTERM came.
            StageFailure: NonFiniteLoss.
        """
        steps = self._order.steps
        done = first = self._resume()
        metrics = (
            MetricsFile(self.metrics_path, self.attempt, after_step=first) if self.world.is_first else None
        )
        self._model.train()
        self.board.update(phase="training", step=first, of=steps)
        if first and self._is_measured(first):
            # The previous attempt may have been stopped between the checkpoint and this measurement.
            self._validate(first, metrics)
        if self.losses.fast is not None:
            # The fast path compiles its functions when they first run with gradients.
            self.board.update(phase="compiling")
        for step in range(first, steps):
            if is_patience_lost(self._validations, self.job.training.early_stopping):
                break
            rate = learning_rate(self.job.training, step, steps)
            with self._pace.step() as pace:
                indices = self._order.batch(step)
                self._loss, is_stopped = self._step(step, indices, rate)
                pace.tokens = int(self._lengths[indices].sum())
            self._tokens += pace.tokens
            done, speed = step + 1, self._pace.tokens_per_second
            left = round(self._pace.seconds_per_step * (steps - done))
            self.board.update(
                phase="training",
                step=done,
                loss=self._loss,
                tokens_per_second=speed,
                eta_seconds=left,
                step_seconds=round(self._pace.median_step_seconds, 3),
                training=self._measures(),
            )
            if metrics is not None:
                metrics.add(step=done, loss=self._loss, learningRate=rate, tokensPerSecond=round(speed, 1))
            if is_stopped and done < steps:
                self._leave(done)
            if self._is_measured(done):
                self._checkpoint(done)
                self._validate(done, metrics)
        held = self._take_best(done)
        return Trained(
            steps=done,
            epochs=self._order.epochs_after(done),
            final_loss=self._loss,
            validation_loss=self._validations.get(held),
            best_step=held if held != done else None,
            is_early=done < steps,
            trained_tokens=self._tokens,
            seconds=self._seconds(),
            resumed_from_step=first,
        )

    def _resume(self) -> int:
        """Resumes from a checkpoint; returns the steps that are done already."""
        found = self.checkpoints.restore_newest(self._parameters, self._optimizer)
        self._began = time.monotonic()
        if found is None:
            return 0
        self._loss, self._tokens, self._seconds_before = found.loss, found.trained_tokens, found.seconds
        self._validations = dict(found.validations)
        return found.step

    def _is_measured(self, done: int) -> bool:
        """Whether there is a checkpoint and a measurement after so many steps."""
        return done == self._order.steps or done % self.job.checkpoint.every_steps == 0

    def _best(self) -> int | None:
        """The (earliest) step of the lowest validation loss; None if the best is not kept or not known."""
        if self.job.checkpoint.publish == "last" or not self._validations:
            return None
        return min(self._validations, key=lambda step: (self._validations[step], step))

    def _take_best(self, done: int) -> int:
        """Puts the best checkpoint's parameters into the model; returns the step that it holds."""
        best = self._best()
        if best is None or best == done:
            return done
        return best if self.checkpoints.restore_parameters(best, self._parameters) else done

    def _seconds(self) -> float:
        """Seconds of training so far, over all attempts."""
        return self._seconds_before + time.monotonic() - self._began

    def _measures(self) -> TrainingMeasures:
        """What is known so far; memory is this process's alone, as asking the others would slow every step."""
        best = self._best()
        if best is None and self._validations:
            best = max(self._validations)
        return TrainingMeasures(
            validation_loss=None if best is None else self._validations[best],
            best_step=best,
            trained_tokens=self._tokens,
            tokens_per_second=round(self._tokens / max(self._seconds(), 1e-9), 1),
            peak_memory_bytes=self.losses.device.peak_memory_bytes(),
        )

    def _step(self, step: int, indices: list[int], rate: float) -> tuple[float, bool]:
        """Runs one step; returns its loss, and whether some process got a request to stop.

        Raises:
            Interrupted: if this is the only process and SIGTERM came in the middle of the step, which is dropped.
        """
        plan = self.job.training
        learned = int(self._learned[indices].sum())
        # One message carries the sum of the losses and the number of processes that got a request to stop; the norm follows.
        told = torch.zeros(3, dtype=torch.float64, device=self._device)
        mine = list(shares(indices, plan.micro_batch_size, self.world))
        last, _, _ = mine[-1]
        begun, self._ahead = self._ahead, None
        for number, chunk, weight in mine:
            if self.stop and self.world.size == 1:
                self._leave(step)
            made = self._begin(step, number, chunk) if begun is None else begun
            summed, begun = weight * made, None
            with self._gradients.summed() if number == last else nullcontext():
                (summed * self._counted / learned).backward()
            told[0] += summed.detach()
        told[1].fill_(bool(self.stop))
        self.world.sum(told)
        parameters = list(self._parameters.values())
        told[2] = whole(torch.nn.utils.clip_grad_norm_(parameters, plan.max_grad_norm))
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad()
        known = _on_its_way(told)
        if self.losses.fast is not None and not self._is_measured(step + 1):
            # A GPU that knows nothing of the next step would stand still until the CPU has read this one's loss.
            number, chunk, _ = next(shares(self._order.batch(step + 1), plan.micro_batch_size, self.world))
            self._ahead = self._begin(step + 1, number, chunk)
        # The only place of a step where the CPU waits for a GPU: all of its work is on its way.
        total, stopped, norm = known()
        loss = total / learned
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise StageFailure(
                FailureClass.NON_FINITE_LOSS,
                f"step {step + 1}: the loss is {loss:g} and the gradient's norm {norm:g} at learning rate {rate:g}; try"
                f" {TRAINING_ADVICE}",
            )
        return loss, stopped > 0

    def _begin(self, step: int, number: int, chunk: Sequence[int]) -> torch.Tensor:
        """The summed loss of a step's micro batch of this number; everything random in it follows from these numbers."""
        state = np.random.SeedSequence([self.job.training.seed, step, number]).generate_state(1, np.uint64)
        torch.manual_seed(int(state[0]) >> 1)
        return self.losses.summed(self.training, chunk)

    def _validate(self, done: int, metrics: MetricsFile | None) -> None:
        if self.validation is None or done in self._validations:
            return
        self.board.update(phase="evaluating")
        loss = mean_loss(
            self.losses,
            self.validation,
            micro_batch=self.job.training.micro_batch_size,
            world=self.world,
            stop=self.stop,
        )
        self._validations[done] = check_held_out(loss, f"step {done}", TRAINING_ADVICE)
        if metrics is not None:
            metrics.add(step=done, validationLoss=loss)
        self.board.update(phase="training", training=self._measures())

    def _checkpoint(self, step: int) -> None:
        self.board.update(phase="checkpointing")
        self.checkpoints.save(
            self._parameters,
            self._optimizer,
            step=step,
            loss=self._loss,
            trained_tokens=self._tokens,
            seconds=self._seconds(),
            validations=self._validations,
            best=self._best(),
        )
        self.board.saved()
        self.board.update(phase="training")

    def _leave(self, step: int) -> NoReturn:
        self._checkpoint(step)
        raise Interrupted(
            f"stopped by SIGTERM; the next attempt continues from the checkpoint of step {step} of {self._order.steps}"
        )


def _on_its_way(told: torch.Tensor) -> Callable[[], list[float]]:
    """Sends numbers to the CPU; what is returned waits for them alone, and for nothing that the GPU is given later."""
    if told.device.type != "cuda":
        return lambda: [float(number) for number in told.tolist()]
    here = torch.empty(told.shape, dtype=told.dtype, pin_memory=True)
    here.copy_(told, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()

    def known() -> list[float]:
        arrived.synchronize()
        return [float(number) for number in here.tolist()]

    return known


def shares(indices: Sequence[int], size: int, world: World) -> Iterator[tuple[int, Sequence[int], float]]:
    """This process's micro batches: number within the step, sequences, and what their loss counts, 1.

    All processes get equally many. One that would go without computes the first one again and counts it 0.
    """
    chunks = [indices[at : at + size] for at in range(0, len(indices), size)]
    for first in range(0, len(chunks), world.size):
        number = first + world.rank
        yield (number, chunks[number], 1.0) if number < len(chunks) else (first, chunks[first], 0.0)
