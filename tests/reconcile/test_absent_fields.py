# SPDX-License-Identifier: Apache-2.0
"""The API server leaves fields out, or answers them as null: each object is read without any one of them."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.samples import job_spec, runtime_spec
from tuneyard_api import names
from tuneyard_operator.domain.observed import SeenPod
from tuneyard_operator.domain.parsing import (
    may_unpublish,
    parse_event,
    parse_job,
    parse_pod,
    parse_queue,
    parse_unpublish,
)
from tuneyard_operator.reconcile.queue import Key
from tuneyard_operator.reconcile.store import Store

MOMENT = "2026-01-01T12:00:00Z"
ALWAYS_SET = {"name", "namespace", "uid", "resourceVersion", "creationTimestamp"}
"""What the API server gives every object that it stores."""
REQUIRED = {"type", "status"}
"""What every condition has."""
METADATA = {
    "name": "a-train-1",
    "namespace": "team",
    "uid": "uid-1",
    "resourceVersion": "7",
    "generation": 1,
    "creationTimestamp": MOMENT,
    "deletionTimestamp": MOMENT,
    "finalizers": ["x"],
    "annotations": {names.ANNOTATION_PLAN: "d", names.ANNOTATION_UID: "uid-a"},
    "labels": {names.LABEL_JOB: "a", names.LABEL_STAGE: "train", names.LABEL_ATTEMPT: "1"},
    "ownerReferences": [{"kind": "Job", "name": "a", "uid": "uid-a", "controller": True}],
}
CONDITION = {"type": "Failed", "status": "True", "reason": "r", "message": "m", "lastTransitionTime": MOMENT}
JOB = {
    "metadata": METADATA,
    "spec": {"completions": 1},
    "status": {"active": 1, "conditions": [CONDITION]},
}
POD = {
    "metadata": METADATA,
    "spec": {"nodeName": "node"},
    "status": {
        "phase": "Failed",
        "reason": "Evicted",
        "message": "m",
        "podIP": "10.0.0.1",
        "conditions": [
            {**CONDITION, "type": "PodScheduled"},
            {**CONDITION, "type": "Ready", "status": "False"},
            {**CONDITION, "type": "DisruptionTarget"},
        ],
        "containerStatuses": [
            {
                "name": "trainer",
                "state": {
                    "waiting": {"reason": "r", "message": "m"},
                    "running": {"startedAt": MOMENT},
                    "terminated": {"exitCode": 1, "signal": 9, "reason": "Error", "message": "m"},
                },
            }
        ],
    },
}
EVENT = {
    "metadata": METADATA,
    "involvedObject": {"kind": "Job", "name": "a-train-1"},
    "reason": "FailedCreate",
    "message": "m",
    "lastTimestamp": MOMENT,
    "eventTime": MOMENT,
}
WORKLOAD = {
    "metadata": METADATA,
    "spec": {"active": True},
    "status": {
        "conditions": [
            {**CONDITION, "type": "Evicted"},
            {**CONDITION, "type": "QuotaReserved"},
        ],
        "admissionChecks": [{"name": "nodes", "state": "Pending", "message": "m"}],
    },
}
LOCAL_QUEUE = {"metadata": METADATA, "spec": {"clusterQueue": "team"}, "status": {"x": {"y": 1}}}
OURS = {"metadata": {**METADATA, "name": "a"}, "spec": job_spec(), "status": {"message": "m"}}
RUNTIME = {"metadata": {**METADATA, "name": "hf"}, "spec": runtime_spec()}


def put(kind: Any) -> Callable[[Any], Any]:
    return lambda body: Store().put(kind, body)


READERS: dict[str, tuple[dict[str, Any], Callable[[Any], Any]]] = {
    "a Job": (JOB, parse_job),
    "a Job in the store": (JOB, put("Job")),
    "a Job that unpublishes": (JOB, lambda body: parse_unpublish(body, [POD])),
    "a Job that may unpublish": (JOB, may_unpublish),
    "a pod": (POD, parse_pod),
    "a pod in the store": (POD, put("Pod")),
    "a pod that unpublishes": (POD, lambda body: parse_unpublish(JOB, [body])),
    "an event": (EVENT, parse_event),
    "a Workload": (WORKLOAD, lambda body: parse_queue(body, None, None)),
    "a LocalQueue": (LOCAL_QUEUE, lambda body: parse_queue(None, body, None)),
    "a FineTuneJob": (OURS, put("FineTuneJob")),
    "a FineTuneRuntime": (RUNTIME, put("FineTuneRuntime")),
}


def places(body: Any, *path: Any) -> Iterator[tuple[Any, ...]]:
    """The path of each field that may be missing."""
    if isinstance(body, list):
        for place, part in enumerate(body):
            yield from places(part, *path, place)
    if isinstance(body, dict) and path[:1] != ("spec",):
        always = ALWAYS_SET if path == ("metadata",) else REQUIRED if "conditions" in path else {"metadata"}
        for name, part in body.items():
            if name not in always:
                yield (*path, name)
            if name not in {"labels", "annotations", "ownerReferences"}:
                yield from places(part, *path, name)


def without(body: dict[str, Any], path: tuple[Any, ...], *, is_null: bool) -> dict[str, Any]:
    less = copy.deepcopy(body)
    holder: Any = less
    for part in path[:-1]:
        holder = holder[part]
    if is_null:
        holder[path[-1]] = None
    else:
        del holder[path[-1]]
    return less


@pytest.mark.parametrize("is_null", [False, True], ids=["left out", "null"])
@pytest.mark.parametrize("what", READERS)
def test_an_object_without_one_of_its_fields_is_read(what: str, *, is_null: bool) -> None:
    body, read = READERS[what]
    tried = list(places(body))
    assert len(tried) > 2
    for path in tried:
        read(without(body, path, is_null=is_null))


def test_what_is_null_means_the_same_as_what_is_left_out() -> None:
    for path in places(POD):
        read = [parse_pod(without(POD, path, is_null=is_null)) for is_null in (False, True)]
        assert read[0] == read[1], path


def test_a_pod_that_is_not_being_deleted_is_not_taken_for_one() -> None:
    pod = parse_pod(without(POD, ("metadata", "deletionTimestamp"), is_null=True))
    assert isinstance(pod, SeenPod)
    assert (pod.deleting, pod.gone_by) == (False, None)


def test_a_job_without_a_generation_is_of_the_first() -> None:
    store = Store()
    store.put("FineTuneJob", without(OURS, ("metadata", "generation"), is_null=True))
    stored = store.job(Key("team", "a"))
    assert stored is not None
    assert stored.generation == 1
