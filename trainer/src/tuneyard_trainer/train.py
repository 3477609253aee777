# SPDX-License-Identifier: Apache-2.0
"""The stage `train`: the adapter is trained, compared with the base model, and kept in the workspace."""

import os
from pathlib import Path, PurePath

from tuneyard_api.pod_contract import EvaluationFacts, ResolvedJob, TrainFacts

from tuneyard_trainer.failures import bad_input
from tuneyard_trainer.layout import ADAPTER, CHECKPOINTS, FORMER_ADAPTER, METRICS, PREPARED, SAMPLES
from tuneyard_trainer.prepared import Index, Split, load_prompts
from tuneyard_trainer.stages import StageContext, is_distributed


def train(context: StageContext) -> TrainFacts:
    """Runs the stage, over several processes if the job has several GPUs."""
    if is_distributed(context.job):
        from tuneyard_trainer.launch import train_distributed  # noqa: PLC0415

        return train_distributed(context)
    return train_here(context)


def train_here(context: StageContext) -> TrainFacts:
    """This process's part; the first one evaluates answers, and its facts are the stage's."""
    # Seconds of imports, and only here: the result of a stage that was done before must come at once.
    from tuneyard_trainer.checkpoints import Checkpoints  # noqa: PLC0415
    from tuneyard_trainer.distributed import joined_world  # noqa: PLC0415
    from tuneyard_trainer.evaluate import Evaluation, evaluation_facts, write_samples  # noqa: PLC0415
    from tuneyard_trainer.loop import Loop  # noqa: PLC0415
    from tuneyard_trainer.model import choose_device, load_model, save_adapter  # noqa: PLC0415
    from tuneyard_trainer.tokenization import TextTokenizer  # noqa: PLC0415

    job, board, workspace = context.job, context.board, context.workspace
    index = _read_index(context)
    splits = {name: Split.load(workspace / PREPARED / f"{name}.safetensors") for name in index.splits}
    losses = None
    device = choose_device(job, int(os.environ.get("LOCAL_RANK", "0")))
    with joined_world(device.torch_device) as world:
        model = load_model(Path(index.model), job, device, workspace / PREPARED / FORMER_ADAPTER)
        trained = Loop(
            job=job,
            model=model,
            training=splits["training"],
            validation=splits.get("validation"),
            device=device,
            world=world,
            checkpoints=Checkpoints(workspace / CHECKPOINTS, context.plan_digest, job.checkpoint.keep),
            metrics_path=workspace / METRICS,
            board=board,
            stop=context.stop,
        ).run()
        if world.is_first:
            save_adapter(model, workspace / ADAPTER, base_name(job))
        evaluation = Evaluation(job, model, TextTokenizer(Path(index.model)), device, board, context.stop)
        if index.evaluation_split is not None:
            losses = evaluation.losses(splits[index.evaluation_split], world)
    facts: EvaluationFacts | None = None
    if losses is not None and world.is_first:
        prompts = load_prompts(workspace / PREPARED / "prompts.jsonl")
        base, tuned = evaluation.answers(prompts)
        rouges = write_samples(workspace / SAMPLES, prompts, base, tuned)
        facts = evaluation_facts(losses, prompts, (base, tuned), rouges)
    return TrainFacts(
        steps=trained.steps,
        epochs=round(trained.epochs, 4),
        final_loss=trained.final_loss,
        validation_loss=trained.validation_loss,
        trained_tokens=trained.trained_tokens,
        tokens_per_second=round(trained.trained_tokens / max(trained.seconds, 1e-9), 1),
        seconds=round(trained.seconds, 3),
        peak_memory_bytes=device.peak_memory_bytes(),
        resumed_from_step=trained.resumed_from_step,
        evaluation=facts,
    )


def base_name(job: ResolvedJob) -> str:
    """What adapter_config.json calls the base model: the repository, or the last part of its path."""
    return job.model.repo or PurePath(job.model.path or "base").name


def _read_index(context: StageContext) -> Index:
    where = context.workspace / PREPARED
    try:
        index = Index.load(context.workspace)
    except FileNotFoundError:
        raise bad_input(f"{where}: nothing is prepared; run stage prepare first") from None
    if index.plan_digest != context.plan_digest:
        raise bad_input(f"{where}: prepared for another plan; run stage prepare again")
    return index
