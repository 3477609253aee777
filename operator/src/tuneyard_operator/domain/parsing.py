# SPDX-License-Identifier: Apache-2.0
"""Parses the JSON of Kubernetes objects into the fields that a decision reads.

A child without our labels, or with labels that make no sense, is not ours: the result is None, and it is ignored.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from tuneyard_api import names
from tuneyard_api.pod_contract import CONTAINER, Stage

from tuneyard_operator.domain.conditions import read_time
from tuneyard_operator.domain.observed import (
    SeenCondition,
    SeenEvent,
    SeenJob,
    SeenPod,
    SeenQueue,
    SeenTerminated,
    SeenUnpublish,
)

Object = Mapping[str, Any]


def version_of(body: Object) -> int:
    """ResourceVersion as a number: Kubernetes compares them so, and documents that clients may."""
    return int(body["metadata"].get("resourceVersion") or 0)


def owner_uid(body: Object) -> str:
    """The uid of the controlling owner, or nothing."""
    owners = body["metadata"].get("ownerReferences") or ()
    return next((str(owner["uid"]) for owner in owners if owner.get("controller")), "")


def child_key(body: Object) -> tuple[str, str] | None:
    """(namespace, name) of the FineTuneJob that a child is labelled with."""
    metadata = body["metadata"]
    job = (metadata.get("labels") or {}).get(names.LABEL_JOB)
    return (str(metadata.get("namespace", "")), str(job)) if job else None


def parse_job(body: Object) -> SeenJob | None:
    """A batch/v1 Job of ours."""
    place = _stage_and_attempt(body)
    if place is None:
        return None
    metadata, status = body["metadata"], body.get("status") or {}
    ended = {
        str(condition["type"]): condition
        for condition in status.get("conditions") or ()
        if condition.get("status") == "True"
    }
    failed = ended.get("Failed")
    queue = (metadata.get("labels") or {}).get(names.LABEL_QUEUE, "")
    return SeenJob(
        name=metadata["name"],
        uid=metadata.get("uid") or "",
        version=version_of(body),
        owner_uid=owner_uid(body),
        stage=place[0],
        attempt=place[1],
        plan_digest=(metadata.get("annotations") or {}).get(names.ANNOTATION_PLAN, ""),
        created=read_time(metadata["creationTimestamp"]),
        failed=_condition(failed) if failed else None,
        complete="Complete" in ended,
        pods_made=any(status.get(count) for count in ("active", "succeeded", "failed", "terminating")),
        deleting=bool(metadata.get("deletionTimestamp")),
        queue=queue,
        suspended=bool((body.get("spec") or {}).get("suspend")),
        started=read_time(status["startTime"]) if queue and status.get("startTime") else None,
    )


def parse_pod(body: Object) -> SeenPod | None:
    """A pod of ours."""
    place = _stage_and_attempt(body)
    if place is None:
        return None
    metadata, status = body["metadata"], body.get("status") or {}
    conditions = {str(condition["type"]): condition for condition in status.get("conditions") or ()}
    ready = conditions.get("Ready")
    scheduled, disruption = conditions.get("PodScheduled"), conditions.get("DisruptionTarget")
    is_scheduled = scheduled is not None and scheduled.get("status") == "True"
    state = _trainer_state(status)
    return SeenPod(
        name=metadata["name"],
        uid=metadata.get("uid") or "",
        version=version_of(body),
        owner_uid=owner_uid(body),
        stage=place[0],
        attempt=place[1],
        phase=status.get("phase") or "Pending",
        created=read_time(metadata["creationTimestamp"]),
        plan_map=_plan_map(body.get("spec") or {}),
        ip=status.get("podIP"),
        node=(body.get("spec") or {}).get("nodeName"),
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        deleting=bool(metadata.get("deletionTimestamp")),
        gone_by=read_time(metadata["deletionTimestamp"]) if metadata.get("deletionTimestamp") else None,
        scheduled=_moment(scheduled.get("lastTransitionTime")) if is_scheduled and scheduled else None,
        unschedulable=_condition(scheduled) if scheduled and not is_scheduled else None,
        disruption=_condition(disruption) if disruption and disruption.get("status") == "True" else None,
        waiting=_condition(state["waiting"]) if state.get("waiting") else None,
        running=state.get("running") is not None,
        started=_moment((state.get("running") or state.get("terminated") or {}).get("startedAt")),
        finished=_moment((state.get("terminated") or {}).get("finishedAt")),
        unready=ready is not None and ready.get("status") == "False",
        terminated=_terminated(state["terminated"]) if state.get("terminated") else None,
    )


def parse_unpublish(body: Object, pods: Sequence[Object]) -> SeenUnpublish:
    """The unpublish Job and its pods."""
    metadata = body["metadata"]
    ended = {
        str(condition["type"]): condition
        for condition in (body.get("status") or {}).get("conditions") or ()
        if condition.get("status") == "True"
    }
    own = [pod for pod in pods if owner_uid(pod) == metadata["uid"]]
    newest = max(own, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), default=None)
    return SeenUnpublish(
        name=metadata["name"],
        uid=metadata.get("uid") or "",
        made_for=made_for(body) if not owner_uid(body) else "",
        complete="Complete" in ended,
        failed=_condition(ended["Failed"]) if "Failed" in ended else None,
        said=_said(newest.get("status") or {}) if newest is not None else "",
    )


def made_for(body: Object) -> str:
    """The uid of the FineTuneJob that an object was made for: its owner, or one that must not own it."""
    return owner_uid(body) or unpublishes_for(body)


def unpublishes_for(body: Object) -> str:
    """The uid of the FineTuneJob whose adapter this unpublish Job (or pod of one) removes; empty for other objects."""
    return str((body["metadata"].get("annotations") or {}).get(names.ANNOTATION_UID, ""))


def may_unpublish(body: Object) -> bool:
    """Whether such a Job or pod may still change the registry."""
    status = body.get("status") or {}
    is_over = status.get("phase") in {"Succeeded", "Failed"} or any(
        condition.get("status") == "True" and condition["type"] in {"Complete", "Failed"}
        for condition in status.get("conditions") or ()
    )
    return bool(unpublishes_for(body)) and not is_over


def parse_queue(workload: Object | None, local_queue: Object | None, position: int | None) -> SeenQueue:
    """What a Workload, and the LocalQueue that it is in, say of the Job that they hold back at this position."""
    target = (local_queue.get("spec") or {}).get("clusterQueue") if local_queue is not None else None
    if workload is None:
        return SeenQueue(cluster_queue=target)
    return SeenQueue(workload["metadata"]["name"], target, _why_not_admitted(workload), position)


def _why_not_admitted(workload: Object) -> str:
    """Kueue evicts, looks for quota, then for checks: each says why in a condition of its own."""
    status = workload.get("status") or {}
    conditions = {str(each["type"]): each for each in status.get("conditions") or ()}
    if (workload.get("spec") or {}).get("active") is False:
        return "the Workload is deactivated (its spec.active is false)"
    said = []
    evicted, quota = conditions.get("Evicted") or {}, conditions.get("QuotaReserved") or {}
    if evicted.get("status") == "True":
        said.append(evicted.get("message") or evicted.get("reason") or "")
    if quota.get("status") == "True":
        checks = [each for each in status.get("admissionChecks") or () if each.get("state") != "Ready"]
        said += [
            f"admission check {each.get('name')}: {each.get('message') or each.get('state')}"
            for each in checks
        ]
    else:
        said.append(quota.get("message") or "")
    return "; ".join(dict.fromkeys(filter(None, said)))


def parse_event(body: Object) -> SeenEvent:
    """An Event about a child."""
    about = body.get("involvedObject") or {}
    at = body.get("lastTimestamp") or body.get("eventTime") or body["metadata"]["creationTimestamp"]
    return SeenEvent(
        kind=about.get("kind") or "",
        name=about.get("name") or "",
        reason=body.get("reason") or "",
        message=body.get("message") or "",
        at=read_time(at),
    )


def _stage_and_attempt(body: Object) -> tuple[Stage, int] | None:
    labels = body["metadata"].get("labels") or {}
    stage, attempt = labels.get(names.LABEL_STAGE), labels.get(names.LABEL_ATTEMPT, "")
    if stage not in set(Stage) or not str(attempt).isdecimal():
        return None
    return Stage(stage), int(attempt)


def _plan_map(spec: Object) -> str:
    volumes = {volume.get("name"): volume for volume in spec.get("volumes") or ()}
    return str(((volumes.get(names.PLAN_VOLUME) or {}).get("configMap") or {}).get("name") or "")


def _trainer_state(status: Object) -> Object:
    for container in status.get("containerStatuses") or ():
        if container.get("name") == CONTAINER:
            state: Object = container.get("state") or {}
            return state
    return {}


def _said(status: Object) -> str:
    """The termination message, or why the pod does not start."""
    state = _trainer_state(status)
    ended, waiting = state.get("terminated"), state.get("waiting")
    if ended:
        return str(ended.get("message") or ended.get("reason") or "").strip()
    if waiting:
        return ": ".join(filter(None, (waiting.get("reason"), waiting.get("message"))))
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return condition.get("message") or ""
    return ""


def _condition(condition: Object) -> SeenCondition:
    return SeenCondition(reason=condition.get("reason") or "", message=condition.get("message") or "")


def _moment(text: str | None) -> datetime | None:
    return read_time(text) if text else None


def _terminated(state: Object) -> SeenTerminated:
    return SeenTerminated(
        exit_code=int(state.get("exitCode") or 0),
        signal=state.get("signal"),
        reason=state.get("reason") or "",
        message=state.get("message") or "",
    )
