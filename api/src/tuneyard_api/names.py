# SPDX-License-Identifier: Apache-2.0
"""The names that several programs share: API group, labels, child names.

Nothing here decides anything; a name is written once, here, and imported everywhere else.
"""

import hashlib

GROUP = "tuneyard.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

JOB_KIND, JOB_PLURAL, JOB_SHORT = "FineTuneJob", "finetunejobs", "ftj"
RUNTIME_KIND, RUNTIME_PLURAL, RUNTIME_SHORT = "FineTuneRuntime", "finetuneruntimes", "ftr"

FIELD_MANAGER = "tuneyard-operator"
CONTROLLER = f"{GROUP}/operator"
"""This operator in `spec.managedBy` of a FineTuneJob, and in events."""

LABEL_APP = "app.kubernetes.io/name"
LABEL_INSTANCE = "app.kubernetes.io/instance"
LABEL_COMPONENT = "app.kubernetes.io/component"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
ANNOTATION_RESTORING = f"{GROUP}/restoring"
"""Marks a FineTuneJob that is made again from a backup and does not have its status yet."""
LABEL_JOB = f"{GROUP}/job"
"""Name of the FineTuneJob. Every child has this label, and the operator's watches select by it."""
LABEL_STAGE = f"{GROUP}/stage"
LABEL_ATTEMPT = f"{GROUP}/attempt"
ANNOTATION_PLAN = f"{GROUP}/plan-digest"
"""SHA-256 of the resolved job that a child was built from."""

LABEL_REQUESTED_BY = f"{GROUP}/requested-by"
"""Label of a FineTuneJob that names who asked for it, to add up GPU hours by; nobody checks it."""

LABEL_QUEUE = "kueue.x-k8s.io/queue-name"
"""Kueue's label on a Job: the LocalQueue in which it waits."""
LABEL_WORKLOAD_OF = "kueue.x-k8s.io/job-uid"
"""Kueue's label on a Workload: the uid of the Job that it stands for."""

GPU_PRODUCT_LABEL = "nvidia.com/gpu.product"
"""GPU feature discovery's label on a node: the product, with what sharing makes of it."""

ANNOTATION_UID = f"{GROUP}/uid"
"""uid of the FineTuneJob that a child works for without being owned by it."""
FINALIZER = f"{GROUP}/published"
"""Finalizer of a FineTuneJob whose published adapter must be removed before the FineTuneJob is gone."""

CUSTOMIZATION_FINALIZER = f"{GROUP}/customization"
"""Finalizer of a FineTuneJob whose customization in a service must be cancelled before the FineTuneJob is gone."""
FINALIZERS = frozenset({FINALIZER, CUSTOMIZATION_FINALIZER})

MAX_JOB_NAME = 40
"""Longest FineTuneJob name, in characters: leaves room for `-workspace`, `-plan-` with ten digits, `-prepare-12` and a pod's suffix within 63."""


PLAN_VOLUME = "job"
"""Name of the volume by which a stage's pod mounts that ConfigMap."""


def plan_name(job: str, uid: str) -> str:
    """The immutable ConfigMap that holds the resolved job: another one for each FineTuneJob that ever had the name.

    A kubelet goes on handing out the immutable ConfigMap that it holds under a name, though another one has it by now,
    while it knows any pod that used it. By the uid, and not by the plan's digest: a job that is applied again has the
    same plan, and job.json also says whose it is.
    """
    return f"{job}-plan-{hashlib.sha256(uid.encode()).hexdigest()[:10]}"


def former_plan_name(job: str) -> str:
    """The name of that ConfigMap in the first version of the operator, whose jobs may still run."""
    return f"{job}-plan"


def workspace_name(job: str) -> str:
    """The PersistentVolumeClaim that the stages of a job share."""
    return f"{job}-workspace"


def dataset_name(job: str, uid: str) -> str:
    """The data set in the stores of NeMo microservices that a job's records are uploaded to; another one for each FineTuneJob."""
    return f"{job}-{hashlib.sha256(uid.encode()).hexdigest()[:10]}"


def customization_name(job: str, uid: str, attempt: int) -> str:
    """The customization job of NeMo Customizer that one attempt (from 1) of a training is."""
    return f"{dataset_name(job, uid)}-{attempt}"


def gpu_claim_name(job: str) -> str:
    """The ResourceClaimTemplate of the training pods' GPUs."""
    return f"{job}-gpus"


def unpublish_name(job: str) -> str:
    """The batch/v1 Job that removes what a job published."""
    return f"{job}-unpublish"


def stage_job_name(job: str, stage: str, attempt: int) -> str:
    """The batch/v1 Job of one attempt (from 1) of one stage."""
    return f"{job}-{stage}-{attempt}"
