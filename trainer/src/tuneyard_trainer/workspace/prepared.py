# SPDX-License-Identifier: Apache-2.0
"""The output of prepare for train: splits as safetensors, prompts as JSON lines, and a small index."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from tuneyard_api.pod_contract import PrepareFacts, ResolvedJob, Stage, StageResult
from tuneyard_data.packing import Sequences
from tuneyard_data.tokenization import TokenizedRecord

from tuneyard_trainer.pod.results import earlier_success
from tuneyard_trainer.workspace.layout import PREPARED
from tuneyard_trainer.workspace.same_work import inputs_of


@dataclass(frozen=True)
class Split:
    """Records in tokens, gathered into sequences; nothing is padded on disk."""

    tokens: np.ndarray
    """int32 [all tokens], records one after the other in the order of the sequences."""
    learned: np.ndarray
    """uint8 [all tokens]: 1 for tokens that count in the loss."""
    records: np.ndarray
    """int64 [records + 1]: where each record begins in `tokens`."""
    sequences: np.ndarray
    """int64 [sequences + 1]: where each sequence begins in `records`."""

    def __len__(self) -> int:
        return len(self.sequences) - 1

    @classmethod
    def of(cls, records: list[TokenizedRecord], sequences: list[list[int]]) -> "Split":
        """Gathers `records` in the order of `sequences`, which hold indices of records."""
        ordered = [records[index] for sequence in sequences for index in sequence]
        return cls(
            np.concatenate([record.tokens for record in ordered]),
            np.concatenate([record.learned for record in ordered]).astype(np.uint8),
            np.cumsum([0, *(len(record.tokens) for record in ordered)], dtype=np.int64),
            np.cumsum([0, *(len(sequence) for sequence in sequences)], dtype=np.int64),
        )

    def learned_per_sequence(self) -> np.ndarray:
        """int64 [sequences]: how many tokens of each are under the loss."""
        sums = np.concatenate([[0], np.cumsum(self._targets(), dtype=np.int64)])
        return np.diff(sums[self.records[self.sequences]])

    def tokens_per_sequence(self) -> np.ndarray:
        """int64 [sequences]."""
        return np.diff(self.records[self.sequences])

    def _targets(self) -> np.ndarray:
        """The tokens under the loss: `learned` without the first token of each record, which is never predicted."""
        targets = self.learned.copy()
        targets[self.records[:-1]] = 0
        return targets

    def sequence(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokens (int64), targets (bool) and record numbers from 1 (int64) of one sequence, each [length]."""
        first, last = self.sequences[index], self.sequences[index + 1]
        start, end = self.records[first], self.records[last]
        learned = self.learned[start:end].astype(bool)
        starts = self.records[first:last] - start
        learned[starts] = False
        numbers = np.repeat(np.arange(1, last - first + 1), np.diff(self.records[first : last + 1]))
        return self.tokens[start:end].astype(np.int64), learned, numbers

    @classmethod
    def load(cls, path: Path) -> "Split":
        """Reads a split that `save` wrote."""
        return cls(**load_file(path))


@dataclass(frozen=True)
class Gathered:
    """What was written of a split."""

    sequences: int
    tokens: int
    learned: int
    """Tokens that are predicted and count in the loss."""
    longest: int
    """Tokens of the longest sequence."""


_RECORDS_AT_ONCE = 4096


def save_split(
    path: Path,
    lengths: np.ndarray,
    read: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    sequences: Sequences,
) -> Gathered:
    """Writes a Split as safetensors, in the order of `sequences`.

    `lengths` is int64 [records]; `read` gives tokens (int32) and whether they are learned (bool) of the records with some
    indices, one behind the other. Memory does not grow with the number of tokens.
    """
    order, starts = sequences.order, sequences.starts.astype(np.int64)
    records = np.concatenate([[0], np.cumsum(lengths[order])]).astype(np.int64)
    total, learned_tokens = int(records[-1]), 0
    # The order of safetensors' own writer, so that each tensor begins where its type may.
    layout = {"records": ("I64", records.shape, 8), "sequences": ("I64", starts.shape, 8)}
    layout |= {"tokens": ("I32", (total,), 4), "learned": ("U8", (total,), 1)}
    header, at, places = {}, 0, {}
    for name, (dtype, shape, size) in layout.items():
        places[name], end = at, at + shape[0] * size
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    begin = 8 + len(text)
    with path.open("wb") as file, path.open("r+b") as second:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write(records.data)
        file.write(starts.data)
        second.seek(begin + places["learned"])
        for first in range(0, len(order), _RECORDS_AT_ONCE):
            tokens, learned = read(order[first : first + _RECORDS_AT_ONCE])
            file.write(tokens.data)
            second.write(learned.view(np.uint8).data)
            # The first token of a record is never predicted.
            begins = records[first : min(first + _RECORDS_AT_ONCE, len(order))] - records[first]
            learned_tokens += int(np.count_nonzero(learned)) - int(np.count_nonzero(learned[begins]))
    longest = int(np.diff(records[starts]).max(initial=0))
    return Gathered(len(sequences), total, learned_tokens, longest)


@dataclass(frozen=True)
class Prompt:
    """One question of the evaluation."""

    prompt: str
    ids: list[int]
    reference: str
    messages: list[dict[str, Any]] | None = None
    """Chat: what to send to an endpoint instead of `prompt`."""


def save_prompts(path: Path, prompts: list[Prompt]) -> None:
    """Writes one JSON object per line."""
    lines = (json.dumps(asdict(prompt), ensure_ascii=False) + "\n" for prompt in prompts)
    path.write_text("".join(lines), encoding="utf-8")


def load_prompts(path: Path) -> list[Prompt]:
    """Reads the prompts that `save_prompts` wrote."""
    with path.open(encoding="utf-8") as file:
        return [Prompt(**json.loads(line)) for line in file]


@dataclass(frozen=True)
class Index:
    """prepared/index.json."""

    plan_digest: str
    """Digest of the plan that the data was prepared for; the result of that plan has the findings."""
    inputs_digest: str
    """Digest of the inputs; every plan with the same digest can use the data."""
    model: str
    """Absolute path of the model's folder in the pods."""
    model_revision: str | None
    model_licence: str | None
    splits: list[str]
    evaluation_split: str | None
    """`test` or `validation`; None if nothing was held out."""

    def save(self, folder: Path) -> None:
        """Writes index.json into `folder`."""
        (folder / "index.json").write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, workspace: Path) -> "Index":
        """Reads the index of a workspace."""
        return cls(**json.loads((workspace / PREPARED / "index.json").read_text(encoding="utf-8")))


def held_out_digest(workspace: Path, job: ResolvedJob) -> str | None:
    """`sha256:` over everything that makes two evaluations comparable; None if nothing was held out.

    That is the records in tokens, the prompts, and how long an answer may be.
    """
    split = Index.load(workspace).evaluation_split
    if split is None:
        return None
    digest = hashlib.sha256(f"{job.evaluation.max_new_tokens}".encode())
    for name in (f"{split}.safetensors", "prompts.jsonl"):
        with (workspace / PREPARED / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{digest.hexdigest()}"


def earlier_preparation(workspace: Path, job: ResolvedJob) -> StageResult | None:
    """The result of an earlier prepare, of any plan, whose work exists and equals what `job` would make."""
    try:
        index = Index.load(workspace)
    except (OSError, ValueError, TypeError):
        return None
    return (
        earlier_success(workspace, Stage.PREPARE, index.plan_digest)
        if index.inputs_digest == inputs_of(job)
        else None
    )


def prepared_facts(workspace: Path, job: ResolvedJob) -> PrepareFacts | None:
    """What that preparation found; None, if there is none."""
    earlier = earlier_preparation(workspace, job)
    return PrepareFacts.model_validate(earlier.facts) if earlier else None
