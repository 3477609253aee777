# SPDX-License-Identifier: Apache-2.0
"""The paths in the workspace of a job, for all stages."""

from fnmatch import fnmatch
from pathlib import Path, PurePath

from tuneyard_api.pod_contract import ResolvedJob

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
"""The finished model of a full fine-tuning, as transformers and vLLM read it."""
SAMPLES = "evaluation/samples.jsonl"
"""Answers of base and tuned model side by side."""
BASE_MEASURES = "evaluation/base.json"
"""Scores of the base model, measured before training."""
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


def tuned_folder(workspace: Path, job: ResolvedJob) -> Path:
    """Where the finished adapter or model is."""
    return workspace / (MODEL if job.method == "sft" else ADAPTER)


def base_name(job: ResolvedJob) -> str:
    """What adapter_config.json calls the base model: the repository, or the last part of its path."""
    return job.model.repo or PurePath(job.model.path or "base").name
