# SPDX-License-Identifier: Apache-2.0
"""The stage `prepare` finds model and data, checks every record, and writes tokens.

It needs no GPU, and PyTorch only in a short process of its own, so that whatever is wrong with the input is said before a GPU is waited for.
"""

import hashlib
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from tuneyard_api import durable
from tuneyard_api.gate import never_measured
from tuneyard_api.pod_contract import PrepareFacts, ResolvedJob
from tuneyard_data.loaded import Loaded
from tuneyard_data.loading import Reading, hold_out, load_splits, notes_of
from tuneyard_data.packing import Sequences, pack
from tuneyard_data.preview import render_preview
from tuneyard_data.refused import RecordsRefused
from tuneyard_data.report import REPORT, DataReport, build_report, text_of, warnings_of
from tuneyard_data.shown_tokens import LEARNED, learned_of
from tuneyard_data.tokenization import TextTokenizer

from tuneyard_trainer.fetch.sources import find_data_files
from tuneyard_trainer.model.base import BaseModel, find_base_model
from tuneyard_trainer.model.families import Family
from tuneyard_trainer.model.former_adapter import find_adapter
from tuneyard_trainer.model.module_tree import check_module_tree
from tuneyard_trainer.model.weights import shape_in
from tuneyard_trainer.pod.context import StageContext
from tuneyard_trainer.pod.failures import bad_input
from tuneyard_trainer.stages.hand_over import hand_over
from tuneyard_trainer.workspace.benchmarks import FOLDER as BENCHMARKS
from tuneyard_trainer.workspace.benchmarks import keep_benchmarks
from tuneyard_trainer.workspace.layout import FORMER_ADAPTER, PREPARED
from tuneyard_trainer.workspace.prepared import Gathered, Index, Prompt, save_prompts, save_split
from tuneyard_trainer.workspace.same_work import inputs_of

_HIGH_FOR_PREFERENCES = 1e-4
"""Learning rates above it unlearn how to answer, and the default of other methods is."""


def prepare(context: StageContext) -> PrepareFacts:
    """Runs the stage; `<workspace>/prepared` is there whole or not at all.

    Raises:
        StageFailure: for everything that is wrong with model or data.
    """
    job, board = context.job, context.board
    board.update(phase="preparing")
    model = find_base_model(job, context.model_cache)
    former = find_adapter(job.adapter, job.lora, model) if job.adapter else None
    tokenizer = TextTokenizer(model.folder)
    limit = min(job.training.max_sequence_length, _room(job, model))
    obstacles = _obstacles_to_packing(job, model, limit)
    warnings = _model_warnings(job, model, tokenizer)
    warnings += [f"the records are not packed: {reason}" for reason in obstacles if job.training.packing]
    warnings += former.warnings(job) if former else []
    downloads = context.workspace / "downloads"
    files = find_data_files(job.dataset, context.model_cache, downloads)
    try:
        data = job.dataset
        reading = Reading(data.format, data.template, data.loss_on, limit, context.workspace)
        splits = load_splits(reading, files, tokenizer, lambda read: board.update(step=read))
    except RecordsRefused as refused:
        board.say(refused.report)
        raise
    report = build_report(splits, tokenizer, limit, context.plan_digest)
    durable.write_file(context.workspace / REPORT, report.content())
    board.say(text_of(report))
    report.refuse_if_leaked()
    warnings += warnings_of(report) + notes_of(splits)
    splits = hold_out(splits, job)
    if job.data_store is not None:
        commit = hand_over(job, splits, context.workspace / "upload")
        shutil.rmtree(downloads, ignore_errors=True)
        board.say(f"uploaded to {job.uploads_to} of {job.data_store}, commit {commit}")
        return _facts(model, splits, report, limit, warnings, gathered=_counted(splits["training"]))
    warnings += check_module_tree(job, model.folder)
    is_packed = job.training.packing and not obstacles
    ordered = {name: _sequences(split, limit, is_packed=is_packed) for name, split in splits.items()}
    evaluated = next((name for name in ("test", "validation") if name in splits), None)
    prompts = _prompts(splits[evaluated], job, tokenizer, model) if evaluated else []
    _refuse_hopeless_evaluation(job, evaluated, prompts)
    shutil.rmtree(context.workspace / PREPARED, ignore_errors=True)
    with durable.folder_being_written(context.workspace / PREPARED) as folder:
        gathered = {
            name: save_split(
                folder / f"{name}.safetensors", split.kept_lengths(), split.read_all, ordered[name]
            )
            for name, split in splits.items()
        }
        _save_questions(folder, prompts, job)
        shown = splits["training"]
        preview = render_preview([shown.read(index) for index in range(min(3, len(shown)))], tokenizer)
        (folder / "preview.txt").write_text(preview, encoding="utf-8")
        (folder / LEARNED).write_bytes(learned_of(shown, tokenizer).content())
        index = Index(
            plan_digest=context.plan_digest,
            inputs_digest=inputs_of(job),
            model=str(model.folder),
            model_revision=model.revision,
            model_licence=model.licence,
            splits=list(splits),
            evaluation_split=evaluated,
        )
        index.save(folder)
        if former is not None:
            former.copy_to(folder / FORMER_ADAPTER)
    shutil.rmtree(downloads, ignore_errors=True)
    for warning in warnings:
        board.say(f"warning: {warning}")
    return _facts(model, splits, report, limit, warnings, gathered=gathered["training"])


def _facts(
    model: BaseModel,
    splits: dict[str, Loaded],
    report: DataReport,
    limit: int,
    warnings: list[str],
    *,
    gathered: Gathered,
) -> PrepareFacts:
    """What was found, with the counts of the training data."""
    training = splits["training"]
    return PrepareFacts(
        model_revision=model.revision,
        model_type=model.model_type,
        train_records=len(training),
        validation_records=len(splits["validation"]) if "validation" in splits else 0,
        test_records=len(splits["test"]) if "test" in splits else 0,
        train_sequences=gathered.sequences,
        train_tokens=gathered.tokens,
        learned_tokens=gathered.learned,
        truncated_records=training.lengths.above(limit),
        duplicate_records=report.duplicates,
        leaked_records=report.leaked,
        personal_data_hints=report.hint_count,
        dataset_digest=_digest(splits),
        model=shape_in(model.folder, model.config),
        longest_sequence=gathered.longest,
        warnings=tuple(warnings),
    )


def _counted(split: Loaded) -> Gathered:
    """The counts of a split whose tokens are not saved: each record is a sequence."""
    lengths = split.kept_lengths()
    learned = sum(int(np.count_nonzero(split.read(at).learned[1:])) for at in range(len(lengths)))
    return Gathered(len(lengths), int(lengths.sum()), learned, int(lengths.max(initial=0)))


def _room(job: ResolvedJob, model: BaseModel) -> int:
    """Positions of a model for a record, in tokens: virtual tokens take some of them.

    Raises:
        StageFailure: BadInput, if they take all.
    """
    if model.positions is None:
        return job.training.max_sequence_length
    if model.positions < 1:
        raise bad_input(
            f"{model.folder / 'config.json'}: a model needs at least 1 position (got {model.positions})"
        )
    virtual = job.p_tuning.virtual_tokens if job.p_tuning else 0
    if virtual >= model.positions:
        raise bad_input(
            f"pTuning.virtualTokens: the model has {model.positions} positions (got {virtual}); try 20"
        )
    return model.positions - virtual


def _model_warnings(job: ResolvedJob, model: BaseModel, tokenizer: TextTokenizer) -> list[str]:
    warnings, asked = [], job.training.max_sequence_length
    if failure := Family.of(model.model_type).failures.get("sft" if job.method == "sft" else "lora"):
        raise bad_input(
            f"method: {job.method} fails with models of the family {model.model_type} ({failure}); try another method, or a"
            " model of another family"
        )
    if model.vocabulary_size is not None and tokenizer.largest_id >= model.vocabulary_size:
        raise bad_input(
            f"the tokenizer has token ids up to {tokenizer.largest_id}, but the model's embedding only"
            f" {model.vocabulary_size} rows; try the tokenizer that belongs to the model"
        )
    if model.positions is not None and asked > (room := _room(job, model)):
        virtual = " beside the virtual tokens" if room < model.positions else ""
        warnings.append(
            f"maxSequenceLength {asked} is above the model's {room} positions{virtual}, which are used"
        )
    if job.method == "dpo" and job.training.learning_rate > _HIGH_FOR_PREFERENCES:
        warnings.append(
            f"training.learningRate {job.training.learning_rate:g} is high for method dpo; people begin with 5e-6"
        )
    return warnings


def _obstacles_to_packing(job: ResolvedJob, model: BaseModel, limit: int) -> list[str]:
    """Why records of a job must not share a sequence of `limit` tokens."""
    if job.method == "dpo":
        return ["method dpo compares the two answers of each"]
    if job.method == "pTuning":
        return ["method pTuning puts its virtual tokens before each"]
    family, window = Family.of(model.model_type), model.attention_window
    if model.carries_state:
        return [
            f"layers of {model.model_type} carry a state from token to token, so that packed records would see each other"
        ]
    if not family.ways:
        why = (
            "nothing in transformers keeps packed records apart in"
            if family.is_measured
            else "nobody measured"
        )
        return [f"{why} the family {model.model_type}"]
    if window is not None and window < limit and not family.keeps_windows():
        return [f"packing would undo the model's attention window of {window} tokens"]
    return []


def _sequences(split: Loaded, limit: int, *, is_packed: bool) -> Sequences:
    """The records of each sequence."""
    lengths = split.kept_lengths()
    return pack(lengths, limit) if is_packed else Sequences.each(len(lengths), split.sides)


def _prompts(split: Loaded, job: ResolvedJob, tokenizer: TextTokenizer, model: BaseModel) -> list[Prompt]:
    """The first records that have a prompt and leave the model room to answer."""
    room = _room(job, model) - job.evaluation.max_new_tokens
    prompts: list[Prompt] = []
    for example in split.examples():
        if len(prompts) == job.evaluation.max_prompts or example.prompt is None:
            break  # plain text has no prompt in any record
        ids = tokenizer.prompt_ids(example.prompt, has_special_tokens=example.has_special_tokens)
        if 0 < len(ids) <= room:
            messages = None if example.messages is None else list(example.messages)
            prompts.append(Prompt(example.prompt, ids, example.reference.strip(), messages))
    return prompts


def _save_questions(folder: Path, prompts: list[Prompt], job: ResolvedJob) -> None:
    """What both models will be asked: prompts of held-out records, and public benchmarks."""
    save_prompts(folder / "prompts.jsonl", prompts)
    if job.evaluation.benchmarks is not None:
        keep_benchmarks(job.evaluation.benchmarks, Path(job.benchmarks_path or ""), folder / BENCHMARKS)


def _refuse_hopeless_evaluation(job: ResolvedJob, evaluated: str | None, prompts: list[Prompt]) -> None:
    """Say before the training that a gate asks for what can't be shown, or that benchmarks can't be asked."""
    _refuse_hopeless_benchmarks(job, evaluated)
    unmeasured = never_measured(
        job.evaluation.gate, has_records=evaluated is not None, has_prompts=bool(prompts)
    )
    if unmeasured:
        why = "no held-out record has a prompt" if evaluated else "no record is held out"
        raise bad_input(
            f"evaluation.gate: {' and '.join(unmeasured)} can't be measured, as {why}; try dataset.test with such records, or"
            " another gate"
        )


def _refuse_hopeless_benchmarks(job: ResolvedJob, evaluated: str | None) -> None:
    """Say before the training that benchmarks can't be asked."""
    if job.evaluation.benchmarks is None:
        return
    if find_spec("lm_eval") is None:
        raise bad_input(
            "evaluation.benchmarks: this image has no lm-evaluation-harness; try an image with tuneyard-trainer[benchmarks]"
        )
    if evaluated is None:
        raise bad_input(
            "evaluation.benchmarks: models are compared only where records are held out; try dataset.test"
        )


def _digest(splits: dict[str, Loaded]) -> str:
    """SHA-256 over the rendered records of each split in their order."""
    digest = hashlib.sha256()
    for name, split in splits.items():
        digest.update(name.encode() + len(split).to_bytes(8, "big") + split.keys().tobytes())
    return f"sha256:{digest.hexdigest()}"
