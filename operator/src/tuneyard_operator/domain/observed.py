# SPDX-License-Identifier: Apache-2.0
"""What one pass knows about a FineTuneJob: frozen, small, and complete before anything is decided.

An object here has only the fields that a decision reads, because thousands of them are in memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from tuneyard_api import names
from tuneyard_api.pod_contract import Progress, Stage
from tuneyard_api.status import FineTuneJobStatus

from tuneyard_operator.domain.customizations import SeenCustomization, SeenOutput, ServiceTrouble
from tuneyard_operator.domain.frozen import Frozen
from tuneyard_operator.domain.live_settings import LiveSettings
from tuneyard_operator.domain.watchdog import Pulse


@dataclass(frozen=True, slots=True)
class SeenTerminated:
    """How the trainer container ended."""

    exit_code: int
    signal: int | None
    reason: str
    """`Completed`, `Error`, `OOMKilled`, `StartError`, ..."""
    message: str
    """The termination message: a StageResult when the pod kept the contract."""


@dataclass(frozen=True, slots=True)
class SeenCondition:
    """Why a pod or a Job is as it is, in Kubernetes' words."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class SeenPod:
    """A pod of a stage."""

    name: str
    uid: str
    version: int
    owner_uid: str
    """The batch/v1 Job that made it."""
    stage: Stage
    attempt: int
    phase: str
    created: datetime
    plan_map: str = ""
    """The ConfigMap that it mounts as its plan: it tells whose pod it is when its Job is gone."""
    ip: str | None = None
    node: str | None = None
    reason: str = ""
    """`Evicted`, `NodeLost`, ... from status.reason."""
    message: str = ""
    deleting: bool = False
    gone_by: datetime | None = None
    """Time by which the kubelet should have ended it, if it is being deleted."""
    scheduled: datetime | None = None
    unschedulable: SeenCondition | None = None
    """The PodScheduled condition while it is False."""
    disruption: SeenCondition | None = None
    """The DisruptionTarget condition: eviction, preemption, lost node."""
    waiting: SeenCondition | None = None
    """The trainer container's waiting state."""
    running: bool = False
    started: datetime | None = None
    """Time at which the trainer container started."""
    finished: datetime | None = None
    """Time at which it ended."""
    unready: bool = False
    """Whether the Ready condition is False. Our pods have no probe, so a running pod is not ready only if its node is silent."""
    terminated: SeenTerminated | None = None

    @property
    def is_over(self) -> bool:
        """Whether no process of it can still write to the workspace."""
        return self.phase in {"Succeeded", "Failed"}

    @property
    def is_cut_off(self) -> bool:
        """Whether the pod should run but its node no longer reports it."""
        return self.running and self.unready

    @property
    def is_failing(self) -> bool:
        """Whether the pod has failed or is being removed; a pod on a lost node never reports that it failed."""
        return self.phase == "Failed" or self.disruption is not None


@dataclass(frozen=True, slots=True)
class SeenJob:
    """The batch/v1 Job of one attempt."""

    name: str
    uid: str
    version: int
    owner_uid: str
    stage: Stage
    attempt: int
    plan_digest: str
    created: datetime
    failed: SeenCondition | None = None
    complete: bool = False
    pods_made: bool = False
    """Whether the Job controller has ever made a pod."""
    deleting: bool = False
    queue: str = ""
    """Kueue's LocalQueue that it is in; empty: none."""
    suspended: bool = False
    """Whether spec.suspend holds it: the Job controller makes no pods, and deletes those that run."""
    started: datetime | None = None
    """Time at which a Job in a queue was last let go, from status.startTime, which Kueue takes away with the place."""

    @property
    def is_over(self) -> bool:
        """Whether the Job controller will do nothing more."""
        return self.complete or self.failed is not None


@dataclass(frozen=True, slots=True)
class SeenQueue:
    """What Kueue says of a suspended Job, looked up only while it is suspended."""

    workload: str | None = None
    """Name of the Workload that stands for the Job; None: there is none (yet)."""
    cluster_queue: str | None = None
    """The ClusterQueue that the Job waits for; None: its LocalQueue does not exist."""
    message: str = ""
    """Why the Workload is not admitted, in Kueue's words."""
    position: int | None = None
    """Its position in the ClusterQueue, from 1; None: Kueue does not say it."""
    is_served: bool = True
    """Whether the API server knows Workloads; false: there is no Kueue in the cluster."""


@dataclass(frozen=True, slots=True)
class SeenEvent:
    """A core/v1 Event about a Job or pod of ours, looked up only where something does not start."""

    kind: str
    name: str
    reason: str
    message: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Leftover:
    """A child of a job that is over, looked up only when it is to be removed."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class SeenUnpublish:
    """The unpublish Job."""

    name: str
    uid: str
    made_for: str
    """uid of the FineTuneJob; empty when the operator has not made it."""
    complete: bool = False
    failed: SeenCondition | None = None
    said: str = ""
    """The last message of its newest pod, or what that pod waits for."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """The facts about a job that is being deleted and has our finalizer, read afresh as watches may lag behind."""

    since: datetime
    running: tuple[Leftover, ...] = ()
    """Jobs of the FineTuneJob that are neither finished nor being deleted."""
    writers: tuple[str, ...] = ()
    """Publish pods that have not ended. No other pods can write to the registry."""
    has_registry: bool = True
    """Whether the claim that it published to exists and is not being deleted."""
    unpublish: SeenUnpublish | None = None


@dataclass(frozen=True, slots=True)
class AskedAdapter:
    """The adapter that a server is asked for."""

    name: str
    digest: str
    """SHA-256 of the version in hex, which the folder of the version is named after."""
    replaces: bool = False
    """Whether the name may have stood for another version before, so that an answer alone proves nothing."""


@dataclass(frozen=True, slots=True)
class ReplicaAnswer:
    """What one replica of a server said."""

    address: str
    """`host:port`."""
    is_reached: bool = True
    completed: bool = False
    """Whether the replica answered with a token from this version of the adapter."""
    problem: str = ""
    """Reason why it did not, in a few words that follow the replica's name."""
    has_refused: bool = False
    """Whether the replica was tried with this version and keeps the former one."""


@dataclass(frozen=True, slots=True)
class Observed:
    """The one input of `decide`."""

    namespace: str
    name: str
    uid: str
    generation: int
    spec: Mapping[str, object]
    live: LiveSettings
    """The fields of spec that can be changed while the job runs."""
    status: FineTuneJobStatus
    """Status as it was last written."""
    created: datetime
    """Creation of the FineTuneJob."""
    runtimes: Mapping[str, Mapping[str, object]]
    """spec of every FineTuneRuntime of the cluster, unparsed."""
    frozen: Frozen | None = None
    """Plan, runtime and spec that the job was started with; None before the start."""
    has_plan_map: bool = False
    """Whether the plan is in the ConfigMap that pods mount; the one of an older operator has another name."""
    claims: frozenset[str] | None = None
    """PersistentVolumeClaims of the namespace; None when they were not looked up."""
    jobs: tuple[SeenJob, ...] = ()
    pods: tuple[SeenPod, ...] = ()
    events: tuple[SeenEvent, ...] = ()
    queue: SeenQueue | None = None
    """What Kueue says of the running attempt's Job; None unless the Job is suspended."""
    served: tuple[ReplicaAnswer, ...] | None = None
    """What the replicas of the job's server say of its adapter; None when they were not asked."""
    listed: tuple[str, ...] | None = None
    """Models that the job's server lists before training; None when it was not asked, or did not answer."""
    progress: Progress | None = None
    version: int = 0
    """resourceVersion of the FineTuneJob: what is decided is written to no other."""
    pulse: Pulse | None = None
    """What the watchdog remembers of the training pod."""
    leftovers: tuple[Leftover, ...] = ()
    unpublishing: tuple[Leftover, ...] = ()
    """Jobs and pods that still remove what an older FineTuneJob of this name published."""
    finalizers: tuple[str, ...] = ()
    deletion: Deletion | None = None
    """Facts about the deletion; None unless the job is being deleted."""

    customizations: tuple[SeenCustomization, ...] | ServiceTrouble | None = None
    """Customizations of this FineTuneJob in the service that trains; None when it was not asked."""
    output: SeenOutput | ServiceTrouble | None = None
    """The model that the service has left; None when it was not asked, or there is none."""

    def job_of(self, stage: Stage, attempt: int) -> SeenJob | None:
        """The Job of one attempt, if it exists and is this FineTuneJob's."""
        for job in self.jobs:
            if (job.stage, job.attempt, job.owner_uid) == (stage, attempt, self.uid):
                return job
        return None

    def pods_of(self, stage: Stage, attempt: int) -> tuple[SeenPod, ...]:
        """The pods of one attempt, oldest first; those of a Job that is not ours are left out."""
        job = self.job_of(stage, attempt)
        ours = (pod for pod in self.pods if (pod.stage, pod.attempt) == (stage, attempt))
        return tuple(
            sorted(
                (pod for pod in ours if job is None or pod.owner_uid == job.uid),
                key=lambda pod: (pod.created, pod.name),
            )
        )

    def own_pods_of(self, stage: Stage, attempt: int) -> tuple[SeenPod, ...]:
        """The pods of one attempt that are surely this FineTuneJob's, also when somebody has deleted their Job."""
        pods, plan = self.pods_of(stage, attempt), names.plan_name(self.name, self.uid)
        if self.job_of(stage, attempt) is not None:
            return pods
        return tuple(pod for pod in pods if pod.plan_map == plan)
