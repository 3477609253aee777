# SPDX-License-Identifier: Apache-2.0
"""Decides when one job can reuse the work of another, such as on more GPUs or with a smaller micro batch.

A plan's digest covers all of job.json. Here irrelevant fields are left out by name, so that a new field counts
until somebody excludes it.
"""

import hashlib
import json
from typing import Any

from tuneyard_api.pod_contract import ResolvedJob

_NAMES = {"schema_version", "name", "namespace", "uid", "adapter_name"}
_PUBLICATION = {
    *(
        "replace",
        "registry_path",
        "registry_s3",
        "registry_data_store",
        "retention",
        "tracking",
        "adapter_server",
    ),
}
_PROCESSES = {"nodes", "gpus_per_node"}
_CUT = {"data_parallel", "micro_batch_size", "gradient_accumulation", "gradient_checkpointing"}
"""Fields of training that change no loss: how a global batch is cut, and what is computed twice to save memory."""
_OPTIMISATION = {
    "epochs",
    "max_steps",
    "learning_rate",
    "schedule",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "global_batch_size",
    "precision",
    "early_stopping",
}


def inputs_of(job: ResolvedJob) -> str:
    """SHA-256, in hex, of all that `prepare` reads: model, data, former adapter, lengths, packing, seed, number of prompts."""
    free: Any = _NAMES | _PUBLICATION | _PROCESSES | {"checkpoint", "method", "quantization", "dpo"}
    if job.adapter is None:
        free |= {"lora"}
    runtime = {"name", "accelerator", "precisions"}
    content = job.model_dump(mode="json", exclude=free | {"training", "runtime"})
    content["runtime"] = job.runtime.model_dump(mode="json", exclude=runtime)
    content["training"] = job.training.model_dump(mode="json", exclude=_CUT | _OPTIMISATION)
    return _digest(content)


def lineage_of(job: ResolvedJob) -> str:
    """SHA-256, in hex, of everything that determines the numbers of a training.

    What ends it early, what is measured besides and what follows may change between two attempts: the same losses come of it.
    """
    free = _NAMES | _PUBLICATION | _PROCESSES | {"checkpoint", "evaluation", "runtime", "dataset", "training"}
    content = job.model_dump(mode="json", exclude=free)
    content["dataset"] = job.dataset.model_dump(mode="json", exclude={"test"})
    content["training"] = job.training.model_dump(mode="json", exclude=_CUT | {"early_stopping"})
    return _digest(content)


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
