# SPDX-License-Identifier: Apache-2.0
"""Deletes FineTuneJobs as the API server does, with finalizers, and tracks what is left in the registry.

A deletion in the foreground is a finalizer like any other: the garbage collector takes it off when no child is left.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from tuneyard_api import names, reasons
from tuneyard_api.pod_contract import Stage
from tuneyard_operator.domain.conditions import api_time, read_time
from tuneyard_operator.domain.parsing import owner_uid
from tuneyard_operator.ports import ClusterError

from support.world.shape import AnyWorld

UNPUBLISH = names.unpublish_name("a")
FOREGROUND = "foregroundDeletion"
OVER = {"Succeeded", "Failed"}


def is_of_a_stage(body: Mapping[str, Any]) -> bool:
    """Whether a Job or pod mounts the workspace; an unpublish Job mounts the registry only."""
    return names.LABEL_STAGE in body["metadata"]["labels"]


def delete_finetunejob(world: AnyWorld, *, is_foreground: bool = False) -> None:
    """Delete the job as a person does: with finalizers it is marked, otherwise removed. A later call may set another propagation policy."""
    body = world.cluster.objects[names.JOB_KIND, "team", "a"]
    metadata = body["metadata"]
    finalizers = [each for each in metadata.get("finalizers", ()) if each != FOREGROUND]
    marked = {"deletionTimestamp": api_time(world.now()), **metadata}
    _store(world, body, marked, [*finalizers, FOREGROUND] if is_foreground else finalizers)
    world.collect_garbage()


def set_finalizers(
    world: AnyWorld, where: tuple[str, str], uid: str, finalizers: Sequence[str], version: int
) -> Mapping[str, Any] | None:
    """Replace finalizers as the API server does. A job may go only if its adapter is gone, or if an Event told that it is left."""
    body = world.cluster.objects.get((names.JOB_KIND, *where))
    if body is None:
        return None
    metadata = body["metadata"]
    if metadata["uid"] != uid or metadata["resourceVersion"] != str(version):
        raise ClusterError("the object has been modified")
    is_deleted = "deletionTimestamp" in metadata
    if is_deleted and set(finalizers) - set(metadata["finalizers"]):
        raise ClusterError("no new finalizers can be added if the object is being deleted")
    if is_deleted and names.FINALIZER in set(metadata["finalizers"]) - set(finalizers):
        _judge_going(world, body)
    return _store(world, body, metadata, finalizers)


def take_finalizers_off(world: AnyWorld) -> None:
    """A person removes the finalizers by hand, which should never be needed."""
    body = world.cluster.objects[names.JOB_KIND, "team", "a"]
    _store(world, body, body["metadata"], [])


def release_finetunejob(world: AnyWorld) -> None:
    """Remove the garbage collector's finalizer, when no child is left."""
    body = world.cluster.objects[names.JOB_KIND, "team", "a"]
    finalizers = [each for each in body["metadata"]["finalizers"] if each != FOREGROUND]
    _store(world, body, body["metadata"], finalizers)


def foreground_garbage(world: AnyWorld) -> Iterator[tuple[str, str, bool]]:
    """The children for which a FineTuneJob that is deleted in the foreground waits: as in `World.garbage`."""
    job = world.cluster.objects.get((names.JOB_KIND, "team", "a"))
    if job is None or FOREGROUND not in job["metadata"].get("finalizers", ()):
        return
    uid = job["metadata"]["uid"]
    children = [
        (kind, body) for (kind, _, _), body in world.cluster.objects.items() if owner_uid(body) == uid
    ]
    for kind, body in children:
        if "deletionTimestamp" not in body["metadata"]:
            yield kind, body["metadata"]["name"], False
    if not children:
        yield names.JOB_KIND, "a", True


def has_outlived(world: AnyWorld, body: Mapping[str, Any]) -> bool:
    """Whether a finished Job must be removed by its spec.ttlSecondsAfterFinished."""
    seconds = body.get("spec", {}).get("ttlSecondsAfterFinished")
    conditions = (body.get("status") or {}).get("conditions", ()) if seconds is not None else ()
    ends = (read_time(each["lastTransitionTime"]) for each in conditions)
    return any(world.now() >= end + timedelta(seconds=seconds) for end in ends)


def note_publisher(world: AnyWorld, pod: str) -> None:
    """Note that a pod runs: from now on a publish pod may have published, whatever happens to it."""
    maker = world.makers[pod]
    if maker["metadata"]["labels"].get(names.LABEL_STAGE) == Stage.PUBLISH:
        uid = owner_uid(maker)
        assert uid not in world.let_go, f"{pod} publishes for a job that has unpublished and is gone"
        world.registry.add(uid)


def end_unpublish(world: AnyWorld, pod: str, *, succeeds: bool = True) -> None:
    """The pod of the unpublish Job has ended."""
    if not succeeds:
        world.end_pod(pod, exit_code=13, reason="Error", message="Permission denied: '/registry/a'")
        return
    world.registry.discard(world.makers[pod]["metadata"]["annotations"][names.ANNOTATION_UID])
    world.end_pod(pod, message="/registry/a: removed")


def unpublish(world: AnyWorld, *, succeeds: bool = True) -> None:
    """The Job controller and the kubelet carry the unpublish Job to its end."""
    pod = world.make_pod(UNPUBLISH)
    world.run_pod(pod)
    end_unpublish(world, pod, succeeds=succeeds)
    if succeeds:
        world.set_job(UNPUBLISH, active=0, succeeded=1, conditions=[{"type": "Complete", "status": "True"}])
    else:
        world.fail_job(UNPUBLISH)


def live_unpublishers(world: AnyWorld) -> list[str]:
    """Unpublish Jobs and pods that run or may still run."""
    jobs = [
        body["metadata"]["name"]
        for body in world.cluster.of_kind("Job")
        if not is_of_a_stage(body)
        and "deletionTimestamp" not in body["metadata"]
        and not (body.get("status") or {}).get("conditions")
    ]
    pods = [
        body["metadata"]["name"]
        for body in world.cluster.of_kind("Pod")
        if not is_of_a_stage(body) and body["status"]["phase"] not in OVER
    ]
    return jobs + pods


def _store(
    world: AnyWorld, body: Mapping[str, Any], metadata: Mapping[str, Any], finalizers: Sequence[str]
) -> Mapping[str, Any]:
    """Store a FineTuneJob; a deleted one exists as long as it has a finalizer."""
    body = {**body, "metadata": {**metadata, "finalizers": list(finalizers)}}
    if "deletionTimestamp" in metadata and not finalizers:
        world.cluster.remove(names.JOB_KIND, "a")
        world.collect_garbage()
        return body
    return world.cluster.store(names.JOB_KIND, body)


def _judge_going(world: AnyWorld, body: Mapping[str, Any]) -> None:
    uid = body["metadata"]["uid"]
    told = {event["reason"] for event in world.cluster.events if event["regarding"]["uid"] == uid}
    if body["spec"].get("deletionPolicy") != "Delete" or reasons.LEFT_BEHIND in told:
        return
    if "Event" not in world.cluster.refuse:
        assert uid not in world.registry, "left behind without a word: what was published"
        world.let_go.add(uid)
