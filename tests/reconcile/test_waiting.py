# SPDX-License-Identifier: Apache-2.0
"""Why a pod does not start, lifted from what Kubernetes says, by the name of what is missing."""

from datetime import timedelta

import pytest
from support.samples import EARLIER, NOW, runtime_spec, seen_job, seen_pod
from tuneyard_api import reasons
from tuneyard_api.pod_contract import Stage
from tuneyard_api.runtime import FineTuneRuntimeSpec
from tuneyard_operator.domain.observed import SeenCondition, SeenEvent, SeenJob, SeenPod
from tuneyard_operator.domain.waiting import Start, needs_events, why_waiting

RUNTIME = FineTuneRuntimeSpec.model_validate(runtime_spec())
NO_GPU = (
    "0/2 nodes are available: 2 Insufficient nvidia.com/gpu. preemption: 0/2 nodes are available: "
    "2 No preemption victims found for incoming pod."
)
QUOTA = 'Error creating: pods "a-train-1-kx7" is forbidden: exceeded quota: gpus, requested: pods=1, used: 4, limited: 4'
NO_CPU_LIMIT = 'Error creating: pods "a-train-1-kx7" is forbidden: failed quota: lim: must specify limits.cpu for: trainer'
FORBIDDEN = "Error creating: pods are forbidden: "
POLICY = 'Error creating: pods "a-train-1-kx7" is forbidden: violates PodSecurity "restricted:latest": seccompProfile'


def unplaced(message: str, reason: str = "Unschedulable") -> SeenPod:
    return seen_pod(unschedulable=SeenCondition(reason, message))


def held(reason: str, message: str) -> SeenPod:
    return seen_pod(scheduled=EARLIER, waiting=SeenCondition(reason, message))


def event(kind: str, name: str, reason: str, message: str, minutes: float = 0) -> SeenEvent:
    return SeenEvent(kind, name, reason, message, NOW - timedelta(minutes=minutes))


PodsAndEvents = tuple[tuple[SeenPod, ...], tuple[SeenEvent, ...]]
CASES: dict[str, tuple[PodsAndEvents, tuple[str, str, str, str] | None]] = {
    "no node has the GPUs free": (
        ((unplaced(NO_GPU),), ()),
        ("Pod", "a-train-1-x", reasons.WAITING_FOR_GPU, "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."),
    ),
    "no node has the memory": (
        ((unplaced("0/2 nodes are available: 2 Insufficient memory."),), ()),
        ("Pod", "a-train-1-x", reasons.UNSCHEDULABLE, "0/2 nodes are available: 2 Insufficient memory."),
    ),
    "a claim is missing": (
        ((unplaced('persistentvolumeclaim "adapters" not found'),), ()),
        ("PersistentVolumeClaim", "adapters", reasons.CLAIM_MISSING, 'persistentvolumeclaim "adapters" not found'),
    ),
    "a claim is not bound": (
        ((unplaced("0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims."),), ()),
        ("Pod", "a-train-1-x", reasons.VOLUME_TROUBLE, "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims."),
    ),
    "a queue holds the pod back": (
        ((unplaced("Scheduling is blocked due to non-empty scheduling gates", "SchedulingGated"),), ()),
        ("Pod", "a-train-1-x", reasons.SCHEDULING_GATED, "Scheduling is blocked due to non-empty scheduling gates"),
    ),
    "the image can't be pulled": (
        ((held("ErrImagePull", "not found"),), ()),
        ("Pod", "a-train-1-x", reasons.IMAGE_PULL, "image registry.example/trainer:1 can't be pulled: not found"),
    ),
    "the image still can't be pulled, in other words": (
        ((held("ImagePullBackOff", 'Back-off pulling image "registry.example/trainer:1": ErrImagePull: not found'),), ()),
        ("Pod", "a-train-1-x", reasons.IMAGE_PULL, "image registry.example/trainer:1 can't be pulled: not found"),
    ),
    "an old kubelet only says that it backs off": (
        ((held("ImagePullBackOff", 'Back-off pulling image "registry.example/trainer:1"'),), ()),
        ("Pod", "a-train-1-x", reasons.IMAGE_PULL, "image registry.example/trainer:1 can't be pulled: ImagePullBackOff"),
    ),
    "a secret is missing": (
        ((held("CreateContainerConfigError", 'secret "hub-token" not found'),), ()),
        ("Secret", "hub-token", reasons.SECRET_MISSING, "Secret hub-token does not exist"),
    ),
    "a key of a secret is missing": (
        ((held("CreateContainerConfigError", "couldn't find key token in Secret team/hub-token"),), ()),
        ("Pod", "a-train-1-x", reasons.CONTAINER_CONFIG, "CreateContainerConfigError: couldn't find key token in Secret team/hub-token"),
    ),
    "a volume can't be mounted": (
        ((held("ContainerCreating", ""),), (event("Pod", "a-train-1-x", "FailedMount", "MountVolume.SetUp failed"),)),
        ("Pod", "a-train-1-x", reasons.VOLUME_TROUBLE, "FailedMount: MountVolume.SetUp failed"),
    ),
    "a quota refuses the pod": (
        ((), (event("Job", "a-train-1", "FailedCreate", QUOTA),)),
        ("ResourceQuota", "gpus", reasons.QUOTA_EXCEEDED, "Error creating: pods are forbidden: exceeded quota: gpus, requested: pods=1, used: 4, limited: 4"),
    ),
    "a quota wants a CPU limit": (
        ((), (event("Job", "a-train-1", "FailedCreate", NO_CPU_LIMIT),)),
        ("ResourceQuota", "lim", reasons.PODS_REFUSED, (
            f"{FORBIDDEN}failed quota: lim: must specify limits.cpu for: trainer; try a LimitRange with a default limit for cpu,"
            " which this job's next pods get, or for later jobs trainResources.cpuLimit of the FineTuneRuntime or"
            " resources.cpuLimitCores of the job"
        )),
    ),
    "a quota wants what no field gives": (
        ((), (event("Job", "a-train-1", "FailedCreate", NO_CPU_LIMIT.replace("limits.cpu", "limits.memory")),)),
        ("ResourceQuota", "lim", reasons.PODS_REFUSED, f"{FORBIDDEN}failed quota: lim: must specify limits.memory for: trainer"),
    ),
    "of several quotas the first by name of the last minutes": (
        ((), (
            event("Job", "a-train-1", "FailedCreate", QUOTA.replace("gpus", "aa"), minutes=11),
            event("Job", "a-train-1", "FailedCreate", QUOTA.replace("gpus", "mm"), minutes=9),
            event("Job", "a-train-1", "FailedCreate", QUOTA.replace("gpus", "zz")),
        )),
        ("ResourceQuota", "mm", reasons.QUOTA_EXCEEDED, f"{FORBIDDEN}exceeded quota: mm, requested: pods=1, used: 4, limited: 4"),
    ),
    "the latest of all when it is long ago": (
        ((), (
            event("Job", "a-train-1", "FailedCreate", QUOTA.replace("gpus", "aa"), minutes=30),
            event("Job", "a-train-1", "FailedCreate", QUOTA.replace("gpus", "zz"), minutes=20),
        )),
        ("ResourceQuota", "zz", reasons.QUOTA_EXCEEDED, f"{FORBIDDEN}exceeded quota: zz, requested: pods=1, used: 4, limited: 4"),
    ),
    "a policy refuses the pod": (
        ((), (event("Job", "a-train-1", "FailedCreate", POLICY),)),
        ("Job", "a-train-1", reasons.PODS_REFUSED, 'Error creating: pods are forbidden: violates PodSecurity "restricted:latest": seccompProfile'),
    ),
    "events about others say nothing": (((), (event("Job", "b-train-1", "FailedCreate", QUOTA),)), None),
    "a pod of a moment ago is not yet called waiting": (
        ((seen_pod(created=NOW - timedelta(seconds=1), unschedulable=SeenCondition("Unschedulable", NO_GPU)),), ()),
        None,
    ),
    "a container that is being made is nothing": (((held("ContainerCreating", ""),), ()), None),
    "a running pod is nothing": (((seen_pod(phase="Running", running=True, scheduled=EARLIER),), ()), None),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_a_stage_waits_for_is_named(name: str) -> None:
    (pods, events), expected = CASES[name]
    verdict = why_waiting(Start(seen_job(), pods, events, RUNTIME, NOW))
    if expected is None:
        assert verdict is None
        return
    assert verdict is not None
    assert not verdict.final
    waiting = verdict.waiting_for
    assert waiting is not None
    assert (waiting.kind, waiting.name, waiting.reason, waiting.message) == expected
    assert verdict.reason in reasons.WAITING
    assert verdict.message == f"waits for {waiting.kind} {waiting.name}: {waiting.message}"


def test_for_a_stage_that_a_job_has_no_say_in_only_the_runtime_s_field_is_named() -> None:
    refused = event("Job", "a-prepare-1", "FailedCreate", NO_CPU_LIMIT)
    verdict = why_waiting(Start(seen_job(Stage.PREPARE), (), (refused,), RUNTIME, NOW))
    assert verdict is not None
    assert verdict.message.endswith("or for later jobs prepareResources.cpuLimit of the FineTuneRuntime")


TOO_SMALL = (
    'Error creating: pods "a-train-1-kx7" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=8, '
    "used: requests.nvidia.com/gpu=2, limited: requests.nvidia.com/gpu=4"
)


def test_a_pod_above_its_whole_quota_ends_the_job_with_both_numbers() -> None:
    refused = event("Job", "a-train-1", "FailedCreate", TOO_SMALL)
    verdict = why_waiting(Start(seen_job(), (), (refused,), RUNTIME, NOW))
    assert verdict is not None
    assert (verdict.final, verdict.reason, verdict.waiting_for) == (True, reasons.QUOTA_TOO_SMALL, None)
    assert verdict.message == (
        "ResourceQuota gpus can never hold this training: the pod asks for 8 of requests.nvidia.com/gpu, and the whole "
        "quota is 4; try fewer GPUs, or ask for more quota and submit it again"
    )


@pytest.mark.parametrize(
    ("message", "has_run"),
    [
        (TOO_SMALL.replace("gpu=8", "gpu=4"), False),
        (TOO_SMALL.replace("gpu=8", "gpu=4k").replace("limited: requests.nvidia.com/gpu=4", "limited: requests.nvidia.com/gpu=5k"), False),
        (TOO_SMALL.replace("gpu=8", "gpu=x"), False),
        (TOO_SMALL, True),
    ],
    ids=["it is only full", "in thousands", "no number", "the training has run before"],
)  # fmt: skip
def test_a_quota_that_may_have_room_later_is_waited_for(message: str, *, has_run: bool) -> None:
    refused = event("Job", "a-train-1", "FailedCreate", message)
    verdict = why_waiting(Start(seen_job(), (), (refused,), RUNTIME, NOW, has_run))
    assert verdict is not None
    assert (verdict.final, verdict.reason) == (False, reasons.QUOTA_EXCEEDED)


SILENT = held("ContainerCreating", "")


@pytest.mark.parametrize(
    ("job", "pods", "asked"),
    [
        pytest.param(seen_job(), (), True, id="a Job of minutes without a pod"),
        pytest.param(seen_job(created=NOW), (), False, id="a Job of this moment"),
        pytest.param(seen_job(), (SILENT,), True, id="a placed pod that says nothing"),
        pytest.param(seen_job(), (unplaced(NO_GPU),), False, id="the scheduler says it all"),
        pytest.param(seen_job(), (held("ErrImagePull", "x"),), False, id="the kubelet says it all"),
        pytest.param(
            seen_job(), (seen_pod(phase="Running", running=True, scheduled=EARLIER),), False, id="it runs"
        ),
        pytest.param(seen_job(failed=SeenCondition("x", "")), (), False, id="the Job is over"),
        pytest.param(None, (), False, id="no Job"),
    ],
)
def test_events_are_asked_for_only_where_nothing_else_tells(
    job: SeenJob | None, pods: tuple[SeenPod, ...], asked: bool
) -> None:
    assert needs_events(job, pods, NOW) is asked
