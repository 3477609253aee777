# SPDX-License-Identifier: Apache-2.0
"""The stage `train` evaluates the base model, trains it, evaluates it again, and keeps the result in the workspace."""

import os
from pathlib import Path

from tuneyard_api.evaluation_facts import EvaluationFacts
from tuneyard_api.pod_contract import TrainFacts

from tuneyard_trainer.pod.context import StageContext, is_distributed
from tuneyard_trainer.pod.failures import bad_input
from tuneyard_trainer.tracking.live import tracked
from tuneyard_trainer.workspace.layout import (
    BASE_BENCHMARKS,
    BASE_MEASURES,
    CHECKPOINTS,
    FORMER_ADAPTER,
    METRICS,
    PREPARED,
    SAMPLES,
    stored_base,
    trained_folder,
    tuned_folder,
)
from tuneyard_trainer.workspace.prepared import Index, Split, load_prompts
from tuneyard_trainer.workspace.same_work import inputs_of, lineage_of

_READ_BACK_TOKENS = 128
"""Tokens of which what was written is compared with what was evaluated."""
MAX_WARNINGS = 5
"""Number of warnings of a training that its facts keep; all warnings are in the log."""


def train(context: StageContext) -> TrainFacts:
    """Runs the stage, over several processes if the job has several GPUs."""
    if is_distributed(context.job):
        from tuneyard_trainer.training.launch import train_distributed  # noqa: PLC0415

        return train_distributed(context)
    return train_here(context)


def train_here(context: StageContext) -> TrainFacts:
    """Trains this process's part; all processes return the facts of the first one."""
    with tracked(context):
        return _train_here(context)


def _train_here(context: StageContext) -> TrainFacts:
    # These imports take seconds. They are here so that a stage that was done before returns its result at once.
    from tuneyard_data.tokenization import TextTokenizer  # noqa: PLC0415

    from tuneyard_trainer.evaluation.compare import Evaluation, compare  # noqa: PLC0415
    from tuneyard_trainer.model.loading import choose_device, load_model, save_tuned  # noqa: PLC0415
    from tuneyard_trainer.model.merged import write_merged  # noqa: PLC0415
    from tuneyard_trainer.model.reloaded import check_merged, check_written  # noqa: PLC0415
    from tuneyard_trainer.model.world import is_spread, joined_world  # noqa: PLC0415
    from tuneyard_trainer.training.batches import Frame  # noqa: PLC0415
    from tuneyard_trainer.training.checkpoints import Checkpoints  # noqa: PLC0415
    from tuneyard_trainer.training.loop import Loop  # noqa: PLC0415
    from tuneyard_trainer.training.losses import Losses  # noqa: PLC0415
    from tuneyard_trainer.training.preferences import PairLosses, one_by_one  # noqa: PLC0415

    job, board, workspace = context.job, context.board, context.workspace
    index = _read_index(context)
    splits = {name: Split.load(workspace / PREPARED / f"{name}.safetensors") for name in index.splits}
    prompts = load_prompts(workspace / PREPARED / "prompts.jsonl") if index.evaluation_split else []
    folder, warnings, shown = Path(index.model), list[str](), splits["training"]

    def warn(message: str) -> None:
        board.say(f"warning: {message}")
        warnings.append(message)

    device = choose_device(job, int(os.environ.get("LOCAL_RANK", "0")))
    with joined_world(device.torch_device) as world:
        longest = int(shown.tokens_per_sequence().max())
        former = workspace / PREPARED / FORMER_ADAPTER
        model = load_model(folder, job, device, world, former, longest=longest)
        is_whole = not any(map(is_spread, model.parameters()))
        kind, rows = (PairLosses, one_by_one(shown)) if job.method == "dpo" else (Losses, shown)
        losses = kind.choose(model, job, device, world, Frame.of(rows, job.training, device))
        board.say(
            "train: by the fast path" if losses.fast else f"train: by the plain path: {losses.why_plain}"
        )
        if world.size > 1:
            board.say(
                "train: each process holds the whole model"
                if is_whole
                else "train: FSDP2 spreads the model over all processes"
            )
        evaluation = index.evaluation_split and Evaluation(
            job=job,
            losses=losses,
            tokenizer=TextTokenizer(folder),
            split=splits[index.evaluation_split],
            prompts=prompts,
            world=world,
            board=board,
            stop=context.stop,
        )
        base = evaluation and evaluation.base(workspace / BASE_MEASURES, context.plan_digest)
        asked = evaluation and evaluation.benchmarks(
            workspace, workspace / BASE_BENCHMARKS, context.plan_digest
        )
        trained = Loop(
            job=job,
            losses=losses,
            training=shown,
            validation=splits.get("validation"),
            world=world,
            checkpoints=Checkpoints(
                workspace / CHECKPOINTS, lineage_of(job), job.checkpoint.keep, world, warn
            ),
            metrics_path=workspace / METRICS,
            board=board,
            stop=context.stop,
            attempt=context.attempt,
        ).run()
        written, published = trained_folder(workspace, job), tuned_folder(workspace, job)
        warnings += save_tuned(model, folder, written, stored_base(job, index.model_revision), world)
        tuned = evaluation and evaluation.tuned()
        asked_again = evaluation and evaluation.benchmarks(workspace, None, context.plan_digest)
        tokens = shown.sequence(0)[0][:_READ_BACK_TOKENS].tolist()
        if is_whole and world.is_first:
            check_written(model, written, tokens, device)
        if job.kind.is_merged and world.is_first:
            write_merged(written, folder, published, job)
            if is_whole:
                check_merged(model, published, tokens, device)
        comparison: EvaluationFacts | None = None
        if base and tuned and world.is_first:
            comparison = compare(
                workspace / SAMPLES,
                prompts,
                base,
                tuned,
                beta=job.dpo.beta if job.dpo else 0.0,
                asked=(asked or {}, asked_again or {}),
            )
        facts = TrainFacts(
            steps=trained.steps,
            epochs=round(trained.epochs, 4),
            final_loss=trained.final_loss,
            validation_loss=trained.validation_loss,
            best_step=trained.best_step,
            stopped_early=trained.is_early,
            trained_tokens=trained.trained_tokens,
            tokens_per_second=round(trained.trained_tokens / max(trained.seconds, 1e-9), 1),
            seconds=round(trained.seconds, 3),
            peak_memory_bytes=max(world.gather(device.peak_memory_bytes())),
            path="fast" if losses.fast else "plain",
            path_reason=losses.why_plain,
            processes=world.size,
            resumed_from_step=trained.resumed_from_step,
            warnings=tuple(warnings[:MAX_WARNINGS]),
            evaluation=comparison,
        )
        return world.of_first(facts)


def _read_index(context: StageContext) -> Index:
    where = context.workspace / PREPARED
    try:
        index = Index.load(context.workspace)
    except FileNotFoundError:
        raise bad_input(f"{where}: nothing is prepared; run stage prepare first") from None
    if index.inputs_digest != inputs_of(context.job):
        raise bad_input(
            f"{where}: prepared of another model, other data or settings; run stage prepare again"
        )
    return index
