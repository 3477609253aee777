# SPDX-License-Identifier: Apache-2.0
"""FineTuneJob.status: conditions are the truth, `state` is one word derived from them and never read back."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, computed_field

from tuneyard_api.base import Tolerant
from tuneyard_api.evaluation_facts import EvaluationFacts
from tuneyard_api.ledger import LedgerStatus, Time
from tuneyard_api.pod_contract import FailureClass, Stage, TrainingMeasures

Short = Annotated[str, Field(max_length=256)]
Long = Annotated[str, Field(max_length=2048)]


class ConditionType(StrEnum):
    """The steps of a job, in order; Succeeded sums them up (False with a reason: failed for good)."""

    ACCEPTED = "Accepted"
    PLANNED = "Planned"
    DATA_READY = "DataReady"
    SCHEDULED = "Scheduled"
    TRAINED = "Trained"
    EVALUATED = "Evaluated"
    PUBLISHED = "Published"
    SERVED = "Served"
    SUSPENDED = "Suspended"
    """This is no step: it is True while spec.suspend holds the job and nothing of it runs."""
    SUCCEEDED = "Succeeded"


class State(StrEnum):
    """One word for people, printed columns and workflow templates."""

    PENDING = "Pending"
    PREPARING = "Preparing"
    WAITING = "Waiting"
    """A pod of the job exists and can't start, or a service that trains does not do as asked: see status.waitingFor."""
    QUEUED = "Queued"
    """The stage's queue holds it back or has taken its place away: see status.waitingFor."""
    TRAINING = "Training"
    PUBLISHING = "Publishing"
    SERVING = "Serving"
    """Published; waiting for the endpoint to answer with the adapter."""
    SUSPENDED = "Suspended"
    """spec.suspend holds the job, and no pod of it exists."""
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class Condition(Tolerant):
    """A Kubernetes condition."""

    type: ConditionType
    status: Literal["True", "False", "Unknown"]
    reason: Short
    message: Long
    observed_generation: int
    last_transition_time: Time


class ProgressStatus(Tolerant):
    """Progress of the training pod; written at most every 10 s, and only if the step has changed."""

    phase: Literal["evaluating", "training"] = "training"
    """What is counted: prompts that the base model answers before the training, or optimizer steps."""
    step: int
    of: int
    percent: int
    loss: float | None = None
    tokens_per_second: float | None = None
    eta: Short | None = None
    """Time left, such as `3m20s`."""

    @computed_field(  # type: ignore[prop-decorator]
        description="Steps done of all, such as `120/285 (42%)`; what else than training they are of comes first."
    )
    @property
    def text(self) -> Short:
        """The text for the printed column, as a column shows one field."""
        steps = f"{self.step}/{self.of} ({self.percent}%)"
        return steps if self.phase == "training" else f"{self.phase} {steps}"


class WaitingFor(Tolerant):
    """The one object that blocks the job, and what Kubernetes says about it."""

    kind: Short
    name: Short
    reason: Short
    message: Long
    cluster_queue: Short | None = None
    """Kueue's ClusterQueue that the Workload waits in."""
    position: int | None = None
    """Place in that ClusterQueue, from 1, where Kueue's visibility API tells it."""


class Attempt(Tolerant):
    """One attempt of one stage."""

    stage: Stage
    number: int
    job: Short
    """Name of the batch/v1 Job, or of the customization in a service that trains."""
    started: Time
    """Time at which its Job was made, or at which its queue last let it go."""
    ended: Time | None = None
    running_since: Time | None = None
    """Time at which all pods of a training attempt were first seen running, after its queue last let it go."""
    queued_since: Time | None = None
    """Time since which its queue holds it back; absent while it does not."""
    queued_seconds: int = 0
    """Time for which its queue has held it back before that."""
    outcome: Literal["Running", "Succeeded", "Failed", "Stopped"]
    """`Stopped`: ended by the operator because of spec.suspend or a deadline."""
    stopping: Short | None = None
    """Why the operator ends the attempt; written before its Job is deleted."""
    failure_class: FailureClass | None = None
    message: Long | None = None
    last_lines: Long | None = None
    """End of the log of an attempt that failed or was stopped, as far as its pod could say it; of the newest three such attempts."""
    micro_batch_size: int | None = None
    """Micro batch of a training attempt, where it is not that of job.json."""
    charged: int = 0
    """Failed attempts of the stage so far that count against retry.maxAttempts."""
    interrupted: int = 0
    """Interruptions of the stage so far, which count against retry.maxInterruptions."""


class AdapterStatus(Tolerant):
    """The published adapter."""

    name: Short
    digest: Short
    path: Short


class ResultStatus(Tolerant):
    """The result of the job."""

    adapter: AdapterStatus | None = None
    metrics: EvaluationFacts | None = None
    model_name: Short | None = None
    """Model name for requests to the endpoint."""
    endpoint: Long | None = None
    served_after_seconds: float | None = None
    """Seconds from Published to Served."""
    dataset_digest: Short | None = None
    model_revision: Short | None = None
    steps: int | None = None
    seconds: float | None = None


class PlanStatus(Tolerant):
    """The plan, made before anything started."""

    digest: Short
    """SHA-256 of job.json."""
    gpus: int
    """GPUs over all nodes; 0 where the runtime asks for none."""
    micro_batch_size: int
    """Chosen again when the model is known, if the job does not say it."""
    gradient_accumulation: int
    gradient_checkpointing: bool | None = None
    """Whether activations are recomputed; absent until the model is known."""
    gpu_product: Short | None = None
    """GPU product that was planned for, if the job or its runtime names one."""
    memory_gib: float | None = None
    """Forecast memory of each GPU."""
    steps: int | None = None
    """Optimizer steps, if the training does not end early."""
    seconds: int | None = None
    """Forecast time of the training, without queue, loading, evaluation and checkpoints."""
    gpu_hours: float | None = None
    """Forecast GPU hours of the training."""
    registry_claim: Short | None = None
    """PersistentVolumeClaim that the adapter is published to; absent: it is published to S3."""
    customizer: Long | None = None
    """Address of the NeMo Customizer that trains; absent: pods do."""
    adapter_path: Long | None = None
    """Place of the adapter's name: a path in a pod that mounts the claim, or `s3://bucket/prefix/name`."""


class FineTuneJobStatus(Tolerant):
    """All of status."""

    state: State = State.PENDING
    observed_generation: int | None = None
    message: Long | None = None
    """The sentence to read first."""
    conditions: Annotated[
        tuple[Condition, ...],
        Field(
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = ()
    plan: PlanStatus | None = None
    progress: ProgressStatus | None = None
    training: TrainingMeasures | None = None
    """What the training has measured so far; written with progress, and once more at its end."""
    waiting_for: WaitingFor | None = None
    attempts: Annotated[tuple[Attempt, ...], Field(max_length=64)] = ()
    result: ResultStatus | None = None
    started: Time | None = None
    ended: Time | None = None
    active_seconds: int | None = None
    """Time during which finished attempts have run."""
    tracking: Long | None = None
    """Address of the job's run in the tracker."""
    ledger: LedgerStatus | None = None
    """Where the time went."""
    cleaned: Time | None = None
    """When the children and the workspace of the ended job were deleted, after spec.ttl."""
