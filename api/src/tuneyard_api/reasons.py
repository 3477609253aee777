# SPDX-License-Identifier: Apache-2.0
"""Every reason that a condition, an event or `status.waitingFor` can have, with a sentence and who can fix it.

A constant is what is written to the cluster; `REASONS` says what it means, and docs/reference/reasons.md is made
of it. Failures of stages use the names of `pod_contract.FailureClass`, which are reasons as well.
"""

from dataclasses import dataclass
from enum import StrEnum

from tuneyard_api.pod_contract import FailureClass


class Fixer(StrEnum):
    """Who can do something about it."""

    NOBODY = "nobody has to"
    INPUT = "who wrote the job"
    CLUSTER = "who runs the cluster"
    UPSTREAM = "who runs the service it names"
    BUG = "who wrote Tuneyard or the runtime's image"


@dataclass(frozen=True)
class Meaning:
    """What a reason means."""

    fixer: Fixer
    sentence: str
    is_waiting: bool
    """Whether the job waits for something outside it, and continues by itself when that changes."""


REASONS: dict[str, Meaning] = {}


def _reason(name: str, fixer: Fixer, sentence: str, *, is_waiting: bool = False) -> str:
    REASONS[name] = Meaning(fixer, sentence, is_waiting)
    return name


# Accepted
ACCEPTED = _reason("Accepted", Fixer.NOBODY, "The job, as it is written, can run on its runtime.")
INVALID_SPEC = _reason(
    "InvalidSpec", Fixer.INPUT, "The spec breaks a rule of the contract; the message names each."
)
RUNTIME_MISSING = _reason(
    "RuntimeNotFound",
    Fixer.CLUSTER,
    "The FineTuneRuntime that the job names does not exist yet.",
    is_waiting=True,
)
RUNTIME_INVALID = _reason(
    "RuntimeInvalid", Fixer.CLUSTER, "The FineTuneRuntime can't be read by this operator.", is_waiting=True
)
METHOD_NOT_IN_RUNTIME = _reason(
    "MethodNotInRuntime",
    Fixer.INPUT,
    "The runtime does not have the method; the message names runtimes that do.",
)
PLAN_REFUSED = _reason(
    "PlanRefused", Fixer.INPUT, "Job and runtime do not fit together; the message says where."
)
CLAIM_MISSING = _reason(
    "ClaimMissing",
    Fixer.INPUT,
    "A PersistentVolumeClaim that the job names does not exist yet.",
    is_waiting=True,
)
SECRET_MISSING = _reason(
    "SecretMissing", Fixer.INPUT, "A Secret or key that the job names does not exist yet.", is_waiting=True
)

# Planned
PLANNED = _reason(
    "Planned",
    Fixer.NOBODY,
    "The plan has every number and is stored; the claim of the workspace was created.",
)
DOES_NOT_FIT = _reason(
    "DoesNotFit",
    Fixer.INPUT,
    "The training needs more memory than the GPU product has that the job asks for; the message says how much, and what fits.",
)
PLAN_LOST = _reason(
    "PlanLost",
    Fixer.CLUSTER,
    "The plan was deleted and can't be made again, as job or runtime have changed since.",
)

# Objects that the API server does not take
NAME_CONFLICT = _reason(
    "NameConflict",
    Fixer.CLUSTER,
    "An object that the job does not own has a name that the job needs.",
    is_waiting=True,
)
NOT_ALLOWED = _reason(
    "NotAllowed", Fixer.CLUSTER, "The API server forbids the operator to create an object.", is_waiting=True
)
OBJECT_INVALID = _reason(
    "ObjectInvalid", Fixer.BUG, "The API server rejects an object of the operator as invalid."
)
QUOTA_EXCEEDED = _reason(
    "QuotaExceeded", Fixer.CLUSTER, "A ResourceQuota of the namespace has no room left.", is_waiting=True
)
QUOTA_TOO_SMALL = _reason(
    "QuotaTooSmall",
    Fixer.INPUT,
    "The training asks for more than a whole ResourceQuota or ClusterQueue, so waiting does not help; the message has both numbers.",
)
PODS_REFUSED = _reason(
    "PodsRefused", Fixer.CLUSTER, "The namespace's policy refuses the job's pods.", is_waiting=True
)

# Pods that do not start
WAITING_FOR_POD = _reason("WaitingForPod", Fixer.NOBODY, "The pod has no node yet.")
WAITING_FOR_GPU = _reason(
    "WaitingForGPU",
    Fixer.CLUSTER,
    "No node has enough free GPUs; the job starts when a node is added or another job ends.",
    is_waiting=True,
)
UNSCHEDULABLE = _reason(
    "Unschedulable",
    Fixer.CLUSTER,
    "The scheduler finds no node for the pod; the message is the scheduler's.",
    is_waiting=True,
)
QUEUED = _reason(
    "Queued",
    Fixer.CLUSTER,
    "The stage's Job waits in its queue for quota; the message is Kueue's. It costs neither attempts nor deadlines.",
    is_waiting=True,
)
SCHEDULING_GATED = _reason("SchedulingGated", Fixer.CLUSTER, "A queue holds the pod back.", is_waiting=True)
IMAGE_PULL = _reason(
    "ImagePullFailed", Fixer.CLUSTER, "The runtime's image can't be pulled.", is_waiting=True
)
CONTAINER_CONFIG = _reason(
    "ContainerConfigError", Fixer.CLUSTER, "The kubelet can't set up the container.", is_waiting=True
)
VOLUME_TROUBLE = _reason(
    "VolumePending", Fixer.CLUSTER, "A volume is not bound or mounted yet.", is_waiting=True
)
FORMER_POD_ENDING = _reason(
    "FormerPodEnding", Fixer.NOBODY, "The pod of the previous attempt has not ended yet.", is_waiting=True
)

# Stages
PREPARING = _reason("Preparing", Fixer.NOBODY, "Model and data are fetched, checked and tokenised.")
PREPARED = _reason("DataReady", Fixer.NOBODY, "Model and data are in the workspace, ready for training.")
SCHEDULED = _reason("Scheduled", Fixer.NOBODY, "The training pod has its node.")
STARTING = _reason(
    "Starting",
    Fixer.NOBODY,
    "The training pod has its node and pulls its image, mounts volumes or loads the model.",
)
TRAINING = _reason("Training", Fixer.NOBODY, "The training is running.")
TRAINED = _reason("Trained", Fixer.NOBODY, "The training has done its steps.")
EVALUATED = _reason("Evaluated", Fixer.NOBODY, "Base and tuned model were compared on the test records.")
PUBLISHING = _reason("Publishing", Fixer.NOBODY, "The adapter is written to the registry.")
PUBLISHED = _reason("Published", Fixer.NOBODY, "The adapter is in the registry, under its digest.")
RETRYING = _reason("Retrying", Fixer.NOBODY, "An attempt is over, and the stage starts again.")
BACKING_OFF = _reason(
    "BackingOff",
    Fixer.NOBODY,
    "The next attempt waits a while; the message says until when.",
    is_waiting=True,
)
SMALLER_BATCH = _reason(
    "SmallerMicroBatch",
    Fixer.NOBODY,
    "A training ran out of memory and starts again with a smaller micro batch at the same global batch.",
)
ATTEMPTS_EXHAUSTED = _reason(
    "AttemptsExhausted",
    Fixer.CLUSTER,
    "Every attempt that the job allows has failed; the message describes the last one.",
)
INTERRUPTED_TOO_OFTEN = _reason(
    "InterruptedTooOften",
    Fixer.CLUSTER,
    "A stage was interrupted more often than retry.maxInterruptions allows; the message describes the last one.",
)
NODE_LOST = _reason(
    "NodeLost",
    Fixer.CLUSTER,
    "The pod's node does not answer. Nothing is started beside a pod that may still write: bring the node back, delete"
    " its Node object, or taint it node.kubernetes.io/out-of-service.",
    is_waiting=True,
)
ACTIVE_DEADLINE = _reason(
    "ActiveDeadlineExceeded", Fixer.INPUT, "The stages have run longer than deadlines.activeSeconds."
)
PENDING_DEADLINE = _reason(
    "PendingDeadlineExceeded",
    Fixer.CLUSTER,
    "The job has waited longer than deadlines.pendingSeconds; the message says what it waited for.",
)

# Services that train
WAITING_FOR_SERVICE = _reason(
    "WaitingForService",
    Fixer.CLUSTER,
    "The service has the training and has not started it yet.",
    is_waiting=True,
)
SERVICE_UNAVAILABLE = _reason(
    "ServiceUnavailable",
    Fixer.UPSTREAM,
    "A service that the job needs is not reached, is too busy or fails; it is asked again.",
    is_waiting=True,
)
SERVICE_DENIED = _reason(
    "ServiceDenied", Fixer.CLUSTER, "A service does not accept the operator's token.", is_waiting=True
)
SERVICE_LACKS = _reason(
    "ServiceEntityMissing",
    Fixer.CLUSTER,
    "A service lacks an entity that the job needs, such as the target of its model.",
    is_waiting=True,
)
SERVICE_REFUSED = _reason(
    "ServiceRefused", Fixer.INPUT, "A service refuses the job for good; the message has its words."
)
SERVICE_UNEXPECTED = _reason(
    "ServiceAnswerUnexpected",
    Fixer.UPSTREAM,
    "A service answered what its description does not have, as another version may.",
    is_waiting=True,
)
CANCELLED_THERE = _reason(
    "CancelledInService", Fixer.INPUT, "Somebody cancelled the training in the service that carries it."
)
CANCELLING_THERE = _reason(
    "CancellingInService",
    Fixer.NOBODY,
    "The job is being deleted, and its training in the service is cancelled first.",
)

# Suspended
SUSPENDING = _reason(
    "Suspending",
    Fixer.NOBODY,
    "spec.suspend is true or the budget is spent, and the running stage writes its checkpoint and ends.",
)
SUSPENDED = _reason("Suspended", Fixer.INPUT, "spec.suspend is true, and nothing of the job runs.")
BUDGET_SPENT = _reason(
    "BudgetSpent",
    Fixer.INPUT,
    "The training has spent spec.budget.gpuHours, has written a checkpoint and holds no GPU; with a larger budget it continues.",
)
RESUMED = _reason(
    "Resumed", Fixer.NOBODY, "spec.suspend is false again, or spec.budget.gpuHours is more than was spent."
)

# Served
WAITING_FOR_ENDPOINT = _reason(
    "WaitingForEndpoint", Fixer.UPSTREAM, "The server does not answer with the adapter yet.",
    is_waiting=True,
)  # fmt: skip
ENDPOINT_UNREACHABLE = _reason("EndpointUnreachable", Fixer.UPSTREAM, "The endpoint did not answer in time.")
SERVE_TIMEOUT = _reason("AdapterNotServed", Fixer.UPSTREAM, "The endpoint did not serve the adapter in time.")
TRIAL_FAILED = _reason(
    "TrialFailed",
    Fixer.UPSTREAM,
    "The server was tried with the new version and did not answer as the evaluation had, or could not load it. The name"
    " stays with the former version there.",
)
SERVED = _reason("Served", Fixer.NOBODY, "Every ready replica of the server answered with the adapter.")
BASE_NOT_SERVED = _reason(
    "BaseNotServed", Fixer.CLUSTER, "The server does not list the base model that the runtime says it serves."
)
SUCCEEDED = _reason("Succeeded", Fixer.NOBODY, "Every step of the job is complete.")

# Deleted
UNPUBLISHING = _reason(
    "Unpublishing",
    Fixer.NOBODY,
    "The job is being deleted, and its published adapter is removed first (deletionPolicy).",
)
UNPUBLISHED = _reason(
    "Unpublished", Fixer.NOBODY, "The published adapter is gone; the message says what was done."
)
LEFT_BEHIND = _reason(
    "LeftBehind",
    Fixer.CLUSTER,
    "The job was deleted, and its published adapter could not be removed; the message says where it is and why.",
)

_FAILURES = {
    FailureClass.BAD_INPUT: (Fixer.INPUT, "The data or an option can't be used; the message has file, line and column."),
    FailureClass.DATA_MISSING: (Fixer.INPUT, "The data set is empty, or is not at the place that the job names."),
    FailureClass.MODEL_MISSING: (Fixer.INPUT, "The model is incomplete, or is not at the place that the job names."),
    FailureClass.PERMISSION_DENIED: (Fixer.INPUT, "The hub or a volume does not let the job read or write."),
    FailureClass.ACCELERATOR_MISSING: (Fixer.CLUSTER, "The runtime needs a GPU, and the pod sees none."),
    FailureClass.OUT_OF_MEMORY: (Fixer.INPUT, "The GPU or the pod ran out of memory; a training has already tried the smallest micro batch."),
    FailureClass.NON_FINITE_LOSS: (Fixer.INPUT, "The loss is no longer a finite number; a lower learning rate may help."),
    FailureClass.DISK_FULL: (Fixer.INPUT, "The workspace or the registry is full."),
    FailureClass.ADAPTER_CONFLICT: (Fixer.INPUT, "The registry holds another adapter under this name."),
    FailureClass.INTERRUPTED: (Fixer.CLUSTER, "The pod was stopped from outside. The stage starts again from its checkpoint, and this costs no attempt."),
    FailureClass.HUNG: (Fixer.BUG, "The training made no step for three times the median step time, and at least 120 s. It is started again."),
    FailureClass.GATE_FAILED: (Fixer.INPUT, "The tuned model does not meet evaluation.gate, so nothing is published; the message says by how much."),
    FailureClass.UPSTREAM: (Fixer.UPSTREAM, "A service that the job needs did not answer. The stage is tried again."),
    FailureClass.BUG: (Fixer.BUG, "An error of Tuneyard or of the image; the pod's log has the traceback."),
}  # fmt: skip
for _class, (_fixer, _sentence) in _FAILURES.items():
    _reason(_class.value, _fixer, _sentence)

WAITING = frozenset(name for name, meaning in REASONS.items() if meaning.is_waiting)
"""Reasons with which a job waits for something outside it."""
