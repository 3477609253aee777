# SPDX-License-Identifier: Apache-2.0
"""Why does a job wait or fail? One sentence, what to try, and the evidence. Pure.

Status says most of it. Pods, events and Kueue's Workload are looked at for what status can't say: that no operator
writes it, or what has happened since it was written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tuneyard_api import reasons
from tuneyard_api.names import LABEL_QUEUE
from tuneyard_api.reasons import REASONS, Fixer
from tuneyard_api.status import Condition, ConditionType, State

from tuneyard.client.job import Job

Json = Mapping[str, Any]
_UNSEEN_AFTER = timedelta(seconds=10)
"""How long a job may be without a status before that is strange."""
_SHOWN_EVENTS = 3

_ADVICE = {
    reasons.RUNTIME_MISSING: "kubectl get finetuneruntimes, and a new job with spec.runtime.name of one that exists",
    reasons.RUNTIME_INVALID: "the operator and the CRDs in the same version; the message says what the operator can't read",
    reasons.CLAIM_MISSING: "kubectl get pvc -n {namespace}; create the claim, or name another one in a new job",
    reasons.SECRET_MISSING: "create the Secret with the key in namespace {namespace}; the job goes on by itself",
    reasons.NAME_CONFLICT: "delete the object if nobody needs it, or apply the job under another name",
    reasons.NOT_ALLOWED: "the rights of the operator's service account, and the admission policies of namespace {namespace}",
    reasons.QUOTA_EXCEEDED: "kubectl describe resourcequota -n {namespace}; end another job, or ask for more quota",
    reasons.QUOTA_TOO_SMALL: "kubectl describe resourcequota -n {namespace}; fewer GPUs in a new job, or more quota",
    reasons.PODS_REFUSED: "kubectl describe namespace {namespace}; its policy must admit the pods of jobs",
    reasons.WAITING_FOR_GPU: "kubectl tuneyard top -A, which shows who holds the GPUs; or fewer GPUs in a new job",
    reasons.UNSCHEDULABLE: "what the scheduler says against each node: spec.scheduling and spec.resources of the job must fit one",
    reasons.QUEUED: "kubectl get workloads,localqueues -n {namespace}; the job starts by itself when its queue has quota",
    reasons.SCHEDULING_GATED: "whoever put the gate on the pod: kubectl get pod -n {namespace} {object} -o yaml",
    reasons.IMAGE_PULL: "spec.image and imagePullSecrets of the FineTuneRuntime",
    reasons.CONTAINER_CONFIG: "kubectl describe pod -n {namespace} {object}",
    reasons.VOLUME_TROUBLE: "kubectl get pvc -n {namespace}; a claim that stays Pending needs a StorageClass or a volume",
    reasons.FORMER_POD_ENDING: "wait; two attempts never write to one workspace at once",
    reasons.BACKING_OFF: "wait; `kubectl tuneyard logs {name}` shows what the last attempt said",
    reasons.NODE_LOST: "bring the node back, or kubectl delete node once it is off for good",
    reasons.WAITING_FOR_SERVICE: "wait; the service starts it when its own queue and GPUs allow",
    reasons.SERVICE_UNAVAILABLE: "whether the service that the message names runs; the job goes on when it answers",
    reasons.SERVICE_DENIED: "the token of the operator: serviceTokenFile in the values of its chart",
    reasons.SERVICE_LACKS: "create in the service what the message names; the job goes on by itself",
    reasons.SERVICE_UNEXPECTED: "a version of the service that this operator knows; the message says what differs",
    reasons.WAITING_FOR_ENDPOINT: "whether the server runs and reads the registry; after serve.timeoutSeconds the job fails",
}
"""The advice that follows `try`, by reason. A job with one of these reasons goes on by itself when what it waits for changes."""
_BY_FIXER = {
    Fixer.INPUT: "a corrected job under another name, as one that has ended is never started again",
    Fixer.CLUSTER: "who runs the cluster, and then the job again under another name",
    Fixer.UPSTREAM: "who runs the service that the message names, and then the job again under another name",
    Fixer.BUG: "kubectl tuneyard logs {name}, and report what it shows",
    Fixer.NOBODY: "",
}
_OPERATOR = (
    "kubectl get pods -A -l app.kubernetes.io/name=tuneyard-operator: whether it runs, and what its log says"
)


@dataclass(frozen=True)
class Why:
    """The answer."""

    state: str
    sentence: str
    advice: str
    """What to try; empty when nothing has to be done."""
    evidence: tuple[str, ...] = ()
    """The newest warnings about the job and its pods, and what Kueue says."""


def explain(
    job: Job, pods: Sequence[Json], events: Sequence[Json], workload: Json | None, now: datetime
) -> Why:
    """Why the job is where it is.

    Args:
        job: the job.
        pods: its pods, as JSON.
        events: Warning events of its namespace; those about others are ignored.
        workload: Kueue's Workload of the running attempt's Job, if there is one.
        now: to tell how long something has lasted.
    """
    sentence, advice = _said_by_status(job, now)
    if not job.has_ended:
        silent = _silent_operator(job, pods, now)
        sentence, advice = silent or (sentence, advice)
    about = {job.name, *(str(pod["metadata"]["name"]) for pod in pods)}
    about |= {attempt.job for attempt in job.status.attempts}
    seen = [event for event in events if (event.get("involvedObject") or {}).get("name") in about]
    seen.sort(key=_time_of, reverse=True)
    evidence = [
        f"{event['involvedObject']['kind']} {event['involvedObject']['name']}: {event.get('reason')}: {event.get('message')}"
        for event in seen[:_SHOWN_EVENTS]
    ]
    if workload is not None and job.status.state is State.QUEUED:
        evidence.insert(0, _said_by_kueue(workload))
    waiting = job.status.waiting_for
    names = {"name": job.name, "namespace": job.namespace, "object": waiting.name if waiting else ""}
    return Why(job.status.state.value, sentence, advice.format(**names), tuple(dict.fromkeys(evidence)))


def _said_by_status(job: Job, now: datetime) -> tuple[str, str]:
    status = job.status
    end = job.condition(ConditionType.SUCCEEDED)
    if status.state is State.SUCCEEDED:
        return f"it has succeeded: {status.message}", "kubectl tuneyard fetch {name}"
    if status.state is State.FAILED and end is not None:
        meaning = REASONS.get(end.reason)
        advice = _BY_FIXER[meaning.fixer if meaning else Fixer.BUG]
        return f"it has failed ({end.reason}): {end.message}", advice
    if status.state is State.SUSPENDED:
        return "it is suspended: spec.suspend is true", "kubectl tuneyard resume {name}"
    if status.waiting_for is not None:
        waiting = status.waiting_for
        since = _since(job, waiting.reason)
        lasts = f", for {_length(now - since)} now" if since else ""
        said = status.message or f"waits for {waiting.kind} {waiting.name}: {waiting.message}"
        said = f"it {said}" if said.startswith("waits") else f"it waits: {said}"
        return said.rstrip(".") + lasts, _ADVICE.get(waiting.reason, "")
    progress = status.progress
    done = f"; {progress.text}, {progress.eta} left" if progress and progress.eta else ""
    return f"it is {status.state.lower()}: {status.message or 'it has just begun'}{done}", ""


def _silent_operator(job: Job, pods: Sequence[Json], now: datetime) -> tuple[str, str] | None:
    """Whether nobody writes the job's status."""
    if not job.status.conditions and now - job.created > _UNSEEN_AFTER:
        age = _length(now - job.created)
        return f"no operator has looked at it in the {age} since it was created", _OPERATOR
    seen = job.status.observed_generation
    if seen is not None and seen < job.generation:
        return (
            f"the operator has not seen the latest change of its spec (generation {job.generation}, seen {seen})",
            _OPERATOR,
        )
    attempt = job.attempt
    over = [pod for pod in pods if (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}]
    if attempt is None or attempt.outcome != "Running" or not over:
        return None
    ours = [
        pod for pod in over if attempt.job in {o["name"] for o in pod["metadata"].get("ownerReferences", ())}
    ]
    ended = [moment for pod in ours if (moment := _ended(pod))]
    if ended and len(ours) == len(pods) and now - max(ended) > timedelta(minutes=1):
        return (
            f"the pods of {attempt.job} ended {_length(now - max(ended))} ago, and no operator has taken note of it",
            _OPERATOR,
        )
    return None


def _ended(pod: Json) -> datetime | None:
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        moment = ((container.get("state") or {}).get("terminated") or {}).get("finishedAt")
        if moment:
            return datetime.fromisoformat(moment)
    return None


def _since(job: Job, reason: str) -> datetime | None:
    unmet: list[Condition] = [each for each in job.status.conditions if each.reason == reason]
    return datetime.fromisoformat(unmet[0].last_transition_time) if unmet else None


def _said_by_kueue(workload: Json) -> str:
    conditions = (workload.get("status") or {}).get("conditions") or ()
    said = [each["message"] for each in conditions if each.get("status") == "False" and each.get("message")]
    queue = (workload.get("spec") or {}).get("queueName") or workload["metadata"].get("labels", {}).get(
        LABEL_QUEUE
    )
    return f"Workload {workload['metadata']['name']} in LocalQueue {queue}: {'; '.join(said) or 'not looked at yet'}"


def _time_of(event: Json) -> str:
    return str(
        event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"].get("creationTimestamp")
        or ""
    )


def _length(span: timedelta) -> str:
    minutes, seconds = divmod(max(0, int(span.total_seconds())), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{seconds:02}s" if minutes else f"{seconds}s"
