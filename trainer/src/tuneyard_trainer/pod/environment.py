# SPDX-License-Identifier: Apache-2.0
"""Reads a stage's environment variables, and sets those that libraries read when they are imported."""

import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from tuneyard_api import pod_contract as pod


@dataclass(frozen=True)
class PodEnvironment:
    """Paths and numbers of the pod contract, from the environment's variables."""

    job_file: Path
    workspace: Path
    termination_log: Path
    attempt: int
    port: int | None
    """Port of the progress; None when the variable is empty, and then nothing is served."""
    micro_batch_size: int | None = None
    """Micro batch that replaces that of job.json."""
    gradient_checkpointing: bool | None = None
    """Gradient checkpointing that replaces that of job.json."""
    node_rank: int = 0
    """Rank of this node among those that train together; the first one keeps the result."""

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "PodEnvironment":
        """Reads the variables; each has the contract's path as its default."""
        port = environ.get(pod.ENV_PORT, str(pod.PROGRESS_PORT))
        return cls(
            job_file=Path(environ.get(pod.ENV_JOB_FILE, pod.JOB_FILE)),
            workspace=Path(environ.get(pod.ENV_WORKSPACE, pod.WORKSPACE_DIR)),
            termination_log=Path(environ.get(pod.ENV_TERMINATION_LOG, pod.TERMINATION_LOG)),
            attempt=int(environ.get(pod.ENV_ATTEMPT, "1")),
            port=int(port) if port else None,
            micro_batch_size=int(environ.get(pod.ENV_MICRO_BATCH) or 0) or None,
            gradient_checkpointing=_flag(environ.get(pod.ENV_GRADIENT_CHECKPOINTING)),
            node_rank=int(environ.get("PET_NODE_RANK", "0")),
        )

    @property
    def model_cache(self) -> Path:
        """The runtime's model cache if this pod may write it, else a folder of the workspace."""
        shared = Path(pod.MODEL_CACHE_DIR)
        return shared if os.access(shared, os.W_OK) else self.workspace / "models"


def _flag(said: str | None) -> bool | None:
    return said == "true" if said else None


def as_chosen(job: pod.ResolvedJob, environment: PodEnvironment) -> pod.ResolvedJob:
    """The job with the micro batch and the gradient checkpointing of its pod, and the same global batch.

    Its plan, and so its digest, stays the old one.

    Raises:
        ValueError: if the global batch is no multiple of the micro batch.
    """
    chosen = environment.gradient_checkpointing
    if chosen is not None and chosen != job.training.gradient_checkpointing:
        training = job.training.model_copy(update={"gradient_checkpointing": chosen})
        job = job.model_copy(update={"training": training})
    size = environment.micro_batch_size
    if size is None or size == job.training.micro_batch_size:
        return job
    share = job.training.micro_batch_size * job.training.gradient_accumulation
    if share % size:
        raise ValueError(f"{pod.ENV_MICRO_BATCH}: {share} sequences are no multiple of {size}")
    changes = {"micro_batch_size": size, "gradient_accumulation": share // size}
    return job.model_copy(update={"training": job.training.model_copy(update=changes)})


def settle_libraries(environ: MutableMapping[str, str], workspace: Path, stage: pod.Stage) -> None:
    """Set caches to the workspace, as HOME may be read-only, threads to the pod's cores, and no hub after prepare.

    Must run before PyTorch, transformers, huggingface_hub or matplotlib are imported.
    """
    cache = workspace / ".cache"
    for variable in (
        "HF_HOME",
        "MPLCONFIGDIR",
        "TRITON_CACHE_DIR",
        "TORCHINDUCTOR_CACHE_DIR",
        "XDG_CACHE_HOME",
    ):
        environ[variable] = str(cache / variable.lower())
        Path(environ[variable]).mkdir(parents=True, exist_ok=True)
    environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    environ["TOKENIZERS_PARALLELISM"] = "true"
    environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # On shared cores, threads that wait by spinning take time from the threads that they wait for.
    environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for variable in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS"):
        environ.setdefault(variable, str(usable_cores()))
    if stage is not pod.Stage.PREPARE:
        environ["HF_HUB_OFFLINE"] = "1"


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may use: its affinity, or less if a CPU quota (cgroup v2) says so; at least 1."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, _, period = (cgroup / "cpu.max").read_text().partition(" ")
        return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):
        return cores
