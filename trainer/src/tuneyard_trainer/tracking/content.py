# SPDX-License-Identifier: Apache-2.0
"""Parameters, tags and metrics of a job, by the names that a tracker shows."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tuneyard_api.evaluation_facts import EvaluationFacts
from tuneyard_api.methods import LORA_METHODS
from tuneyard_api.names import GROUP
from tuneyard_api.pod_contract import PrepareFacts, ResolvedJob, ResolvedSource, TrainFacts

from tuneyard_trainer.tracking.client import Point

UID, KIND, NUMBER = f"{GROUP}/uid", f"{GROUP}/run", f"{GROUP}/attempt"
"""Tags by which a run is found again: the job's uid, `job` or `attempt`, and the number of the attempt."""
_OF_ATTEMPTS = {"micro_batch_size", "gradient_accumulation", "gradient_checkpointing"}
"""Options that each attempt may have otherwise."""
_NAMES = {
    "loss": "loss",
    "validationLoss": "validation_loss",
    "learningRate": "learning_rate",
    "tokensPerSecond": "tokens_per_second",
}
_MEASURES = (
    "validation_loss",
    "best_step",
    "trained_tokens",
    "seconds",
    "peak_memory_bytes",
)


def parameters(job: ResolvedJob) -> dict[str, str]:
    """What a job was asked to do; nothing that may hold a secret, such as a signed URL."""
    found: dict[str, Any] = {
        "method": job.method,
        "model": _place(job.model),
        "model.revision": job.model.revision,
        "data": _place(job.dataset.training),
        "data.revision": job.dataset.training.revision,
        "quantization": job.quantization,
        "nodes": job.nodes,
        "gpusPerNode": job.gpus_per_node,
        "continues": "an adapter" if job.adapter else None,
        "adapterName": job.adapter_name,
        "runtime": job.runtime.name,
    }
    groups = {
        "training": job.training.model_dump(by_alias=True, exclude=_OF_ATTEMPTS),
        "lora": job.lora.model_dump(by_alias=True) if job.method in LORA_METHODS else {},
        "dpo": job.dpo.model_dump(by_alias=True) if job.dpo else {},
        "pTuning": job.p_tuning.model_dump(by_alias=True) if job.p_tuning else {},
    }
    for group, values in groups.items():
        found |= dict(_flat(group, values))
    return {key: _text(value) for key, value in found.items() if value is not None}


def job_tags(job: ResolvedJob, prepared: PrepareFacts | None) -> dict[str, str]:
    """What a job is, beside its parameters."""
    tags = {
        "mlflow.source.type": "JOB",
        "mlflow.source.name": f"FineTuneJob {job.namespace}/{job.name}",
        f"{GROUP}/job": f"{job.namespace}/{job.name}",
    }
    if prepared is not None:
        tags[f"{GROUP}/data-digest"] = prepared.dataset_digest
        if prepared.model_revision:
            tags[f"{GROUP}/model-revision"] = prepared.model_revision
    return tags


def data_parameters(prepared: PrepareFacts | None) -> dict[str, str]:
    """How much data there was."""
    if prepared is None:
        return {}
    counted = ("train_records", "validation_records", "test_records", "train_tokens", "learned_tokens")
    return {f"data.{name}": str(getattr(prepared, name)) for name in counted}


def curve(lines: Iterable[Mapping[str, Any]], fallback: int) -> Iterator[Point]:
    """Points of lines of metrics.jsonl; `fallback` is the time of those that say none."""
    for line in lines:
        for key, name in _NAMES.items():
            if key in line:
                yield name, line[key], line.get("time", fallback), line["step"]


def measures(trained: TrainFacts, moment: int) -> Iterator[Point]:
    """What the training came to, and base and tuned model on the held-out records."""
    found: dict[str, float] = {"final_loss": trained.final_loss}
    for name in _MEASURES:
        value = getattr(trained, name)
        if value is not None:
            found["best_validation_loss" if name == "validation_loss" else name] = value
    if trained.evaluation is not None:
        found |= _scores(trained.evaluation)
    for name, value in found.items():
        yield name, float(value), moment, trained.steps


def _scores(evaluation: EvaluationFacts) -> dict[str, float]:
    found: dict[str, float] = {}
    for model, scores in (("base", evaluation.base), ("tuned", evaluation.tuned)):
        found |= {f"{model}/{name}": value for name, value in scores.model_dump(by_alias=False).items()}
    for facts in evaluation.benchmarks:
        found |= {
            f"{model}/{facts.name}/{facts.metric}": getattr(facts, model) for model in ("base", "tuned")
        }
    if evaluation.preferences is not None:
        found |= {
            f"preferences/{name}": value
            for name, value in evaluation.preferences.model_dump(by_alias=False).items()
        }
    return found


def _place(source: ResolvedSource) -> str | None:
    if source.s3 is not None:
        return "S3"
    if source.http is not None:
        return "a URL"
    return "/".join(part for part in (source.repo, source.path) if part) or None


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _flat(f"{name}.{key}", child)
    else:
        yield name, value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
