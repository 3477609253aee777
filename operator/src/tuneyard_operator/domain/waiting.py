# SPDX-License-Identifier: Apache-2.0
"""Why does a stage's pod not start? Pods, Jobs and their events tell the reason and what is missing.

What Kubernetes says changes its wording while it retries (`ErrImagePull`, `ImagePullBackOff`); here one trouble has
one reason and one sentence, so that status is not written again for every retry.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from tuneyard_api import reasons
from tuneyard_api.runtime import FineTuneRuntimeSpec
from tuneyard_api.status import WaitingFor

from tuneyard_operator.domain.observed import Observed, SeenEvent, SeenJob, SeenPod
from tuneyard_operator.domain.quotas import (
    advice_for,
    is_exceeded,
    quota_named_in,
    refusal_to_tell,
    too_small_quota,
)
from tuneyard_operator.domain.verdict import Check, Verdict, first_verdict

PATIENCE = timedelta(seconds=2)
"""Age in seconds below which a pod is not reported as waiting, because most early problems pass by themselves."""
LOST_AFTER = timedelta(seconds=30)
"""Seconds after the end of its grace period for which a deleted pod may still exist."""
EVENTS_AFTER = timedelta(seconds=10)
"""How long something may take to start without a reason before its events are looked up."""

_MISSING_CLAIM = re.compile(r'persistentvolumeclaim "([^"]+)" not found')
_MISSING_OBJECT = re.compile(r'(secret|configmap) "([^"]+)" not found')
_BACK_OFF = re.compile(r'^Back-off pulling image "[^"]*"(: Err\w+: |$)')
_IMAGE_REASONS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "ErrImageNeverPull",
        "InvalidImageName",
        "ImageInspectError",
        "RegistryUnavailable",
    }
)
_CONFIG_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_VOLUME_EVENTS = frozenset({"FailedMount", "FailedAttachVolume", "FailedMapVolume"})
_QUIET_STATES = frozenset({"ContainerCreating", "PodInitializing"})


@dataclass(frozen=True, slots=True)
class Start:
    """A stage that has not begun to run."""

    job: SeenJob
    pods: tuple[SeenPod, ...]
    events: tuple[SeenEvent, ...]
    runtime: FineTuneRuntimeSpec
    now: datetime
    has_run: bool = False
    """Whether an attempt of the stage has run: then its quota was larger once, and it is waited for."""


def why_waiting(start: Start) -> Verdict | None:
    """The first trouble that is older than a moment, or None."""
    return first_verdict(CHAIN, start)


def needs_events(job: SeenJob | None, pods: tuple[SeenPod, ...], now: datetime) -> bool:
    """Whether only events can tell what is wrong: no pod at all, or a scheduled one that silently does not start."""
    if job is None or job.failed is not None or job.complete or job.suspended:
        return False
    if not pods:
        return now - job.created >= EVENTS_AFTER
    return any(_is_silent(pod) and pod.scheduled and now - pod.scheduled >= EVENTS_AFTER for pod in pods)


def has_lost_pod(start: Start) -> Verdict | None:
    """Whether a pod that is being deleted does not end."""
    return lost_pod(start.pods, start.now)


def lost_pod(pods: tuple[SeenPod, ...], now: datetime) -> Verdict | None:
    """A pod that should have ended. Its kubelet does not answer, so it may still write."""
    for pod in pods:
        if pod.gone_by is not None and not pod.is_over and now - pod.gone_by >= LOST_AFTER:
            message = (
                f"should have ended by {pod.gone_by:%H:%M:%SZ}, but node {pod.node} does not answer; bring the node back, delete"
                " its Node object, or taint it node.kubernetes.io/out-of-service"
            )
            return _verdict("Pod", pod.name, reasons.NODE_LOST, message)
    return None


def why_former_life(seen: Observed) -> Verdict | None:
    """Pods left by an older FineTuneJob of this name that may still write to the same workspace and adapter.

    Garbage collection removes them in any order and at any time: the workspace may be gone before a Job or a pod is.
    """
    own = {job.uid for job in seen.jobs if job.owner_uid == seen.uid}
    jobs = [("Job", job.name) for job in seen.jobs if job.uid not in own and not job.is_over]
    pods = [("Pod", pod.name) for pod in seen.pods if pod.owner_uid not in own and not pod.is_over]
    unpublishing = [(each.kind, each.name) for each in seen.unpublishing]
    for kind, name in jobs + pods + unpublishing:
        return _verdict(
            kind,
            name,
            reasons.NAME_CONFLICT,
            "belongs to an older job of this name, which must be gone first",
        )
    return None


def has_unbindable_pod(start: Start) -> Verdict | None:
    """The scheduler finds no node, or a claim that the pod names is missing."""
    for pod in _patient(start):
        if pod.unschedulable is None or not pod.unschedulable.reason:
            continue
        message = pod.unschedulable.message.split(" preemption: ")[0].split(", preemption: ")[0].strip()
        missing = _MISSING_CLAIM.search(message)
        if missing:
            return _verdict("PersistentVolumeClaim", missing[1], reasons.CLAIM_MISSING, message)
        if "unbound immediate PersistentVolumeClaims" in message:
            return _verdict("Pod", pod.name, reasons.VOLUME_TROUBLE, message)
        if pod.unschedulable.reason == "SchedulingGated":
            return _verdict("Pod", pod.name, reasons.SCHEDULING_GATED, message)
        gpu = start.runtime.accelerator_resource
        lacks_gpu = gpu is not None and f"Insufficient {gpu}" in message
        reason = reasons.WAITING_FOR_GPU if lacks_gpu else reasons.UNSCHEDULABLE
        return _verdict("Pod", pod.name, reason, message)
    return None


def has_image_trouble(start: Start) -> Verdict | None:
    """The image can't be pulled."""
    for pod in _patient(start):
        if pod.waiting is None or pod.waiting.reason not in _IMAGE_REASONS:
            continue
        cause = _BACK_OFF.sub("", pod.waiting.message) or pod.waiting.reason
        return _verdict(
            "Pod", pod.name, reasons.IMAGE_PULL, f"image {start.runtime.image} can't be pulled: {cause}"
        )
    return None


def has_config_trouble(start: Start) -> Verdict | None:
    """A Secret or ConfigMap is missing, or the container can't be made."""
    for pod in _patient(start):
        if pod.waiting is None or pod.waiting.reason not in _CONFIG_REASONS:
            continue
        missing = _MISSING_OBJECT.search(pod.waiting.message)
        if missing and missing[1] == "secret":
            return _verdict(
                "Secret", missing[2], reasons.SECRET_MISSING, f"Secret {missing[2]} does not exist"
            )
        return _verdict(
            "Pod", pod.name, reasons.CONTAINER_CONFIG, f"{pod.waiting.reason}: {pod.waiting.message}"
        )
    return None


def has_volume_trouble(start: Start) -> Verdict | None:
    """A scheduled pod whose volumes can't be mounted: only events tell."""
    for pod in _patient(start):
        event = _latest(start.events, pod.name, _VOLUME_EVENTS) if _is_silent(pod) else None
        if event is not None:
            return _verdict("Pod", pod.name, reasons.VOLUME_TROUBLE, f"{event.reason}: {event.message}")
    return None


def has_refused_pods(start: Start) -> Verdict | None:
    """The Job controller may not make the pod: quota, pod security, a missing service account."""
    event = None if start.pods else refusal_to_tell(start.events, start.job, start.now)
    if event is None:
        return None
    never = None if start.has_run else too_small_quota(event.message)
    if never is not None:
        return never
    message = _without_pod_name(event.message) + advice_for(event.message, start.job.stage)
    quota = quota_named_in(event.message)
    if quota is None:
        return _verdict("Job", start.job.name, reasons.PODS_REFUSED, message)
    reason = reasons.QUOTA_EXCEEDED if is_exceeded(event.message) else reasons.PODS_REFUSED
    return _verdict("ResourceQuota", quota, reason, message)


CHAIN: tuple[Check[Start], ...] = (
    has_lost_pod,
    has_unbindable_pod,
    has_image_trouble,
    has_config_trouble,
    has_volume_trouble,
    has_refused_pods,
)


def _patient(start: Start) -> list[SeenPod]:
    """The pods that are old enough to be worried about."""
    return [pod for pod in start.pods if start.now - pod.created >= PATIENCE and not pod.is_over]


def _is_silent(pod: SeenPod) -> bool:
    return (
        not pod.running and not pod.is_over and (pod.waiting is None or pod.waiting.reason in _QUIET_STATES)
    )


def _latest(events: tuple[SeenEvent, ...], pod: str, wanted: frozenset[str]) -> SeenEvent | None:
    about = [event for event in events if (event.kind, event.name) == ("Pod", pod) and event.reason in wanted]
    return max(about, key=lambda event: event.at, default=None)


def _without_pod_name(message: str) -> str:
    """The Job controller names the pod it could not make, another one each time it tries."""
    return re.sub(r'pods "[^"]*" is forbidden', "pods are forbidden", message)


def _verdict(kind: str, name: str, reason: str, message: str) -> Verdict:
    waiting = WaitingFor(kind=kind, name=name, reason=reason, message=message[:2048])
    return Verdict(reason, f"waits for {kind} {name}: {message}", waiting_for=waiting)
