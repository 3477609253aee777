# SPDX-License-Identifier: Apache-2.0
"""Jobs, runtimes and stage results to build tests from: a test states only what matters to it."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from tuneyard_api.pod_contract import FailureClass, Stage
from tuneyard_api.status import FineTuneJobStatus
from tuneyard_operator.domain.live_settings import read_live_settings
from tuneyard_operator.domain.observed import Observed, SeenJob, SeenPod, SeenTerminated

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
EARLIER = NOW - timedelta(minutes=5)
ENDPOINT = "http://nim.example:8000"

PREPARE_FACTS = {
    "modelType": "llama",
    "modelRevision": "abc123",
    "trainRecords": 100,
    "validationRecords": 5,
    "testRecords": 50,
    "trainSequences": 20,
    "trainTokens": 20000,
    "learnedTokens": 5000,
    "truncatedRecords": 2,
    "datasetDigest": "sha256:data",
}
_SCORES = {"loss": 2.0, "perplexity": 7.4, "exactMatch": 0.1, "rougeL": 0.25, "prompts": 50}
TRAIN_FACTS = {
    "steps": 40,
    "epochs": 1.0,
    "finalLoss": 1.25,
    "trainedTokens": 20000,
    "tokensPerSecond": 1000.0,
    "seconds": 20.0,
    "peakMemoryBytes": 1000,
    "evaluation": {"base": _SCORES, "tuned": {**_SCORES, "loss": 1.5, "rougeL": 0.5}},
}
PUBLISH_FACTS = {"adapterName": "a", "digest": "sha256:adapter", "path": "/registry/a", "sizeBytes": 1234}
FACTS = {Stage.PREPARE: PREPARE_FACTS, Stage.TRAIN: TRAIN_FACTS, Stage.PUBLISH: PUBLISH_FACTS}


def job_spec(**changes: Any) -> dict[str, Any]:
    """The smallest job; `changes` replace top-level fields."""
    spec = {
        "model": {"pvc": {"claimName": "models", "path": "tiny"}},
        "dataset": {"training": {"pvc": {"claimName": "data", "path": "train.jsonl"}}},
        "method": "lora",
    }
    return {**spec, **changes}


def runtime_spec(**changes: Any) -> dict[str, Any]:
    """A GPU runtime with a registry and a server of the job's base model."""
    spec = {
        "image": "registry.example/trainer:1",
        "accelerator": "nvidia",
        "methods": ["lora"],
        "servedModels": [
            {
                "name": "tiny",
                "base": {"pvc": {"claimName": "models", "path": "tiny"}},
                "endpoint": ENDPOINT,
                "server": "vllm",
                "listedAs": "base",
            }
        ],
        "defaults": {"registry": {"claimName": "adapters"}},
    }
    return {**spec, **changes}


def runtime_without_endpoint() -> dict[str, Any]:
    """A runtime whose jobs end after publish."""
    return runtime_spec(servedModels=[])


def result_text(stage: Stage, digest: str, **changes: Any) -> str:
    """A termination message: Succeeded with facts."""
    result = {"stage": stage.value, "outcome": "Succeeded", "planDigest": digest, "facts": FACTS[stage]}
    return json.dumps({**result, **changes})


def failure_text(stage: Stage, digest: str, kind: FailureClass, message: str) -> str:
    """A termination message: Failed with its class."""
    failure = {"failureClass": kind.value, "message": message}
    return result_text(stage, digest, outcome="Failed", failure=failure, facts={})


def observed(**changes: Any) -> Observed:
    """A new job `a` in namespace `team` of a cluster with runtime `hf` and all claims."""
    fields: dict[str, Any] = {
        "namespace": "team",
        "name": "a",
        "uid": "uid-a",
        "generation": 1,
        "spec": job_spec(),
        "status": FineTuneJobStatus(),
        "created": EARLIER,
        "runtimes": {"hf": runtime_spec()},
        "claims": frozenset({"models", "data", "adapters"}),
    }
    fields |= changes
    return Observed(**{"live": read_live_settings(fields["spec"]), **fields})


def seen_job(stage: Stage = Stage.TRAIN, attempt: int = 1, **changes: Any) -> SeenJob:
    """A Job of job `a`."""
    fields: dict[str, Any] = {
        "name": f"a-{stage}-{attempt}",
        "uid": f"uid-{stage}-{attempt}",
        "version": 1,
        "owner_uid": "uid-a",
        "stage": stage,
        "attempt": attempt,
        "plan_digest": "d",
        "created": EARLIER,
    }
    return SeenJob(**{**fields, **changes})


def seen_pod(stage: Stage = Stage.TRAIN, attempt: int = 1, **changes: Any) -> SeenPod:
    """A pod of that Job, five minutes old and pending."""
    fields: dict[str, Any] = {
        "name": f"a-{stage}-{attempt}-x",
        "uid": f"uid-pod-{stage}-{attempt}",
        "version": 1,
        "owner_uid": f"uid-{stage}-{attempt}",
        "stage": stage,
        "attempt": attempt,
        "phase": "Pending",
        "created": EARLIER,
    }
    return SeenPod(**{**fields, **changes})


def ended(
    exit_code: int = 1, reason: str = "Error", message: str = "", signal: int | None = None
) -> SeenTerminated:
    """How a container ended."""
    return SeenTerminated(exit_code, signal, reason, message)
