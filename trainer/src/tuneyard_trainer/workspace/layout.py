# SPDX-License-Identifier: Apache-2.0
"""The paths in the workspace of a job, for all stages."""

from fnmatch import fnmatch
from pathlib import Path, PurePath

from tuneyard_api.pod_contract import ADAPTER_FILES, ResolvedJob
from tuneyard_api.registry import StoredBase, published_digest

PREPARED = "prepared"
"""Folder in which prepare leaves its output for train."""
FORMER_ADAPTER = "former-adapter"
"""Folder inside PREPARED with the adapter that the job continues."""
CHECKPOINTS = "checkpoints"
METRICS = "metrics.jsonl"
"""Loss, learning rate and speed of every step."""
ADAPTER = "adapter"
"""The finished adapter, in PEFT's layout."""
MODEL = "model"
"""The finished model of a full fine-tuning or a merge, as transformers and vLLM read it."""
SAMPLES = "evaluation/samples.jsonl"
"""Answers of base and tuned model side by side."""
BASE_MEASURES = "evaluation/base.json"
"""Scores of the base model, measured before training."""
BASE_BENCHMARKS = "evaluation/base-benchmarks.json"
"""Public benchmarks of the base model, asked before training."""
_MODEL_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "chat_template*",
    "LICENSE*",
    "NOTICE*",
)


def is_model_file(name: str) -> bool:
    """Whether a file of a model's folder goes with a tuned one: not pickled weights, not Python, no figures of the base."""
    return any(fnmatch(name, pattern) for pattern in _MODEL_FILES)


def trained_folder(workspace: Path, job: ResolvedJob) -> Path:
    """Where what was trained is: the adapter, or the model of a full fine-tuning."""
    return workspace / (MODEL if job.kind.result == "model" and not job.kind.is_merged else ADAPTER)


def tuned_folder(workspace: Path, job: ResolvedJob) -> Path:
    """Where what is published is: the adapter, or a model."""
    return workspace / (MODEL if job.kind.result == "model" else ADAPTER)


def tuned_files(folder: Path) -> list[str]:
    """Names of the files that make up an adapter or a model, sorted; none if it is not whole."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if set(ADAPTER_FILES) <= set(names):
        return sorted(ADAPTER_FILES)
    files = [name for name in names if is_model_file(name)]
    is_whole = "config.json" in files and any(name.endswith(".safetensors") for name in files)
    return files if is_whole else []


def tuned_digest(folder: Path) -> str:
    """The digest of the adapter or model in a folder."""
    return published_digest(folder, tuned_files(folder))


def stored_base(job: ResolvedJob, commit: str | None) -> StoredBase:
    """The base model as what is published names it: the repository, of which prepare found a commit, or the last part of its path."""
    if job.model.repo is not None:
        return StoredBase(repo=job.model.repo, revision=job.model.revision, commit=commit)
    return StoredBase(name=PurePath(job.model.path or "base").name)
