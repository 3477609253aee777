# SPDX-License-Identifier: Apache-2.0
"""The stage `prepare`: model and data are found, every record is checked, and tokens are written.

It needs neither GPU nor PyTorch, so that whatever is wrong with the input is said before a GPU is waited for.
"""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from tuneyard_api.pod_contract import PrepareFacts, ResolvedJob

from tuneyard_trainer import durable
from tuneyard_trainer.base_model import BaseModel, find_base_model
from tuneyard_trainer.data_sources import DataFile, find_data_files
from tuneyard_trainer.failures import bad_input
from tuneyard_trainer.layout import PREPARED
from tuneyard_trainer.packing import pack
from tuneyard_trainer.prepared import Index, Prompt, Split, save_prompts
from tuneyard_trainer.preview import render_preview
from tuneyard_trainer.progress import Board
from tuneyard_trainer.records import Problems, Record, read_records
from tuneyard_trainer.stages import StageContext
from tuneyard_trainer.templates import Example, RecordProblem, Renderer, renderer_of
from tuneyard_trainer.tokenization import TextTokenizer, TokenizedRecord

_BATCH = 1000
"""Records that are tokenised at once."""
_LONG_TAIL = 0.05
"""Share of cut records from which on a warning is due."""


@dataclass
class Loaded:
    """One split on its way."""

    name: str
    examples: list[Example] = field(default_factory=list)
    records: list[TokenizedRecord] = field(default_factory=list)
    read: int = 0
    """Records in the file."""
    dropped: int = 0
    """Records of which nothing learned was left after cutting."""
    lengths: list[int] = field(default_factory=list)
    """Tokens of every record before cutting."""

    def take(self, chosen: list[int], name: str) -> "Loaded":
        """The part of the split with these indices."""
        return replace(
            self,
            name=name,
            examples=[self.examples[i] for i in chosen],
            records=[self.records[i] for i in chosen],
        )


def prepare(context: StageContext) -> PrepareFacts:
    """Runs the stage; `<workspace>/prepared` is there whole or not at all.

    Raises:
        StageFailure: for everything that is wrong with model or data.
    """
    job, board = context.job, context.board
    board.update(phase="preparing")
    model = find_base_model(job, context.model_cache)
    tokenizer = TextTokenizer(model.folder)
    warnings = _model_warnings(job, model, tokenizer)
    limit = min(job.training.max_sequence_length, model.positions or job.training.max_sequence_length)
    files = find_data_files(job.dataset, context.model_cache)
    splits = _load(job, files, tokenizer, limit, board)
    warnings += _length_warnings(splits, limit)
    warnings += _duplicate_warnings(splits)
    splits = _hold_out(splits, job)
    is_packed = job.training.packing and (model.attention_window is None or model.attention_window >= limit)
    packed = {name: _gather(split, limit, is_packed=is_packed) for name, split in splits.items()}
    evaluated = next((name for name in ("test", "validation") if name in splits), None)
    prompts = _prompts(splits[evaluated], job, tokenizer, model) if evaluated else []
    shutil.rmtree(context.workspace / PREPARED, ignore_errors=True)
    with durable.folder_being_written(context.workspace / PREPARED) as folder:
        for name, split in packed.items():
            split.save(folder / f"{name}.safetensors")
        save_prompts(folder / "prompts.jsonl", prompts)
        preview = render_preview(splits["training"].records[:3], tokenizer)
        (folder / "preview.txt").write_text(preview, encoding="utf-8")
        index = Index(
            plan_digest=context.plan_digest,
            model=str(model.folder),
            model_revision=model.revision,
            model_licence=model.licence,
            splits=list(splits),
            evaluation_split=evaluated,
        )
        index.save(folder)
    for warning in warnings:
        board.say(f"warning: {warning}")
    training = packed["training"]
    return PrepareFacts(
        model_revision=model.revision,
        model_type=model.model_type,
        train_records=len(splits["training"].records),
        validation_records=len(splits["validation"].records) if "validation" in splits else 0,
        test_records=len(splits["test"].records) if "test" in splits else 0,
        train_sequences=len(training),
        train_tokens=len(training.tokens),
        learned_tokens=int(training.learned_per_sequence().sum()),
        truncated_records=sum(length > limit for length in splits["training"].lengths),
        dataset_digest=_digest(splits),
        warnings=tuple(warnings),
    )


def _model_warnings(job: ResolvedJob, model: BaseModel, tokenizer: TextTokenizer) -> list[str]:
    warnings, asked = [], job.training.max_sequence_length
    if model.vocabulary_size is not None and tokenizer.largest_id >= model.vocabulary_size:
        raise bad_input(
            f"the tokenizer has token ids up to {tokenizer.largest_id}, but the model's embedding only"
            f" {model.vocabulary_size} rows; try the tokenizer that belongs to the model"
        )
    if model.positions is not None and asked > model.positions:
        warnings.append(
            f"maxSequenceLength {asked} is above the model's {model.positions} positions, which are used"
        )
    window = model.attention_window
    if job.training.packing and window is not None and window < min(asked, model.positions or asked):
        warnings.append(
            f"not packed: the model's attention looks back only {window} tokens, which packing would undo"
        )
    return warnings


def _load(
    job: ResolvedJob, files: list[DataFile], tokenizer: TextTokenizer, limit: int, board: Board
) -> dict[str, Loaded]:
    """Every record of every split; all problems of all splits are reported together."""
    problems = Problems()
    chat, decided = tokenizer.chat_template(), list[Renderer]()

    def render(record: Record) -> Example:
        # The first record of all, so of the training data, decides on the format of every split.
        if not decided:
            decided.append(renderer_of(job.dataset.format, job.dataset.template, chat, record))
        return decided[0](record)

    splits = {}
    for file in files:
        split = Loaded(file.split)
        for examples in _batches(_examples(file, render, problems, split)):
            # Once something is wrong the rest is only looked at, not tokenised.
            if not problems.count:
                _tokenize(examples, split, tokenizer, learn_all=job.dataset.loss_on == "all", limit=limit)
            board.update(step=split.read)
        if not split.read and not problems.count:
            problems.add(file.name, f"the {file.split} data set is empty")
        splits[file.split] = split
    problems.raise_if_any()
    for split in splits.values():
        if not split.records:
            raise bad_input(
                f"dataset.{split.name}: everything truncated: of {split.read} records none has a learned token"
                f" within maxSequenceLength {limit}; they have {min(split.lengths)} to {max(split.lengths)} tokens;"
                f" try maxSequenceLength {max(split.lengths)}, or shorter prompts"
            )
    return splits


def _examples(file: DataFile, render: Renderer, problems: Problems, split: Loaded) -> Iterator[Example]:
    for record in read_records(file.path, file.name, problems):
        split.read += 1
        try:
            yield render(record)
        except RecordProblem as problem:
            problems.add(problem.place, str(problem))


def _batches(examples: Iterator[Example]) -> Iterator[list[Example]]:
    batch: list[Example] = []
    for example in examples:
        batch.append(example)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    yield batch


def _tokenize(
    examples: list[Example], split: Loaded, tokenizer: TextTokenizer, *, learn_all: bool, limit: int
) -> None:
    for example, record in zip(
        examples, tokenizer.tokenize(examples, learn_all=learn_all, limit=limit), strict=True
    ):
        split.lengths.append(record.full_length)
        # The first token has nothing before it that could predict it.
        if record.learned[1:].any():
            split.examples.append(example)
            split.records.append(record)
        else:
            split.dropped += 1


def _hold_out(splits: dict[str, Loaded], job: ResolvedJob) -> dict[str, Loaded]:
    """Takes the validation fraction from the training records, by seed; equal records stay on one side."""
    fraction = job.dataset.validation_fraction
    if not fraction:
        return splits
    training = splits["training"]
    contents = [_content(example) for example in training.examples]
    unique = list(dict.fromkeys(contents))
    if len(unique) < 2:  # noqa: PLR2004  one to learn from, one to measure on
        raise bad_input(
            f"dataset.validationFraction: {fraction:g} of {len(unique)} different record can't be held out; try more"
            " records, or dataset.validation"
        )
    count = min(max(1, round(fraction * len(unique))), len(unique) - 1)
    order = np.random.default_rng(job.training.seed).permutation(len(unique))
    held_out = {unique[index] for index in order[:count]}
    sides: tuple[list[int], list[int]] = ([], [])
    for index, content in enumerate(contents):
        sides[content in held_out].append(index)
    return {
        "training": training.take(sides[0], "training"),
        "validation": training.take(sides[1], "validation"),
        **{name: split for name, split in splits.items() if name == "test"},
    }


def _gather(split: Loaded, limit: int, *, is_packed: bool) -> Split:
    lengths = [len(record.tokens) for record in split.records]
    return Split.of(
        split.records, pack(lengths, limit) if is_packed else [[index] for index in range(len(lengths))]
    )


def _prompts(split: Loaded, job: ResolvedJob, tokenizer: TextTokenizer, model: BaseModel) -> list[Prompt]:
    """The first records that ask something and leave the model room to answer."""
    room = (model.positions or job.training.max_sequence_length) - job.evaluation.max_new_tokens
    prompts: list[Prompt] = []
    for example in split.examples:
        if len(prompts) == job.evaluation.max_prompts:
            break
        if example.prompt is None:
            continue
        ids = tokenizer.prompt_ids(example.prompt, has_special_tokens=example.has_special_tokens)
        if 0 < len(ids) <= room:
            messages = None if example.messages is None else list(example.messages)
            prompts.append(Prompt(example.prompt, ids, example.reference.strip(), messages))
    return prompts


def _length_warnings(splits: dict[str, Loaded], limit: int) -> list[str]:
    warnings = []
    for split in splits.values():
        cut = sum(length > limit for length in split.lengths)
        if split.dropped:
            warnings.append(
                f"{split.name}: {split.dropped} of {split.read} records dropped: their prompt alone fills"
                f" maxSequenceLength {limit}"
            )
        if cut > _LONG_TAIL * len(split.lengths):
            warnings.append(
                f"{split.name}: {cut} of {split.read} records cut to {limit} tokens; the longest has"
                f" {max(split.lengths)}"
            )
    return warnings


def _duplicate_warnings(splits: dict[str, Loaded]) -> list[str]:
    contents = {name: [_content(example) for example in split.examples] for name, split in splits.items()}
    warnings, training = [], set(contents["training"])
    if twice := len(contents["training"]) - len(training):
        warnings.append(f"training: {twice} records are exact duplicates of others")
    for name, held_out in contents.items():
        if name != "training" and (leaked := sum(content in training for content in held_out)):
            warnings.append(
                f"{name}: {leaked} of {len(held_out)} records are in the training data as well: scores on them"
                " measure memory"
            )
    return warnings


def _content(example: Example) -> bytes:
    digest = hashlib.sha256()
    for piece in example.pieces:
        digest.update(len(piece.text).to_bytes(8, "big") + bytes([piece.is_learned]) + piece.text.encode())
    return digest.digest()


def _digest(splits: dict[str, Loaded]) -> str:
    """SHA-256 over the rendered records of each split in their order."""
    digest = hashlib.sha256()
    for name, split in splits.items():
        digest.update(name.encode() + len(split.examples).to_bytes(8, "big"))
        for example in split.examples:
            digest.update(_content(example))
    return f"sha256:{digest.hexdigest()}"
