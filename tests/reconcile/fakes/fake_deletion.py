# SPDX-License-Identifier: Apache-2.0
"""How a FineTuneJob goes: held by finalizers as the API server holds it, and what of it is left in the registry.

The registry is a set of uids: who may have published, and has not taken it back.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tuneyard_api import names, reasons
from tuneyard_api.pod_contract import Stage
from tuneyard_operator.domain.conditions import api_time
from tuneyard_operator.ports import ClusterError

if TYPE_CHECKING:
    from fake_world import World

UNPUBLISH = names.unpublish_name("a")


def delete_finetunejob(world: "World") -> None:
    """A person deletes it: marked while it has finalizers, else gone, and the garbage collector does the rest."""
    body = world.cluster.objects[names.JOB_KIND, "team", "a"]
    if not body["metadata"].get("finalizers"):
        _remove(world)
    elif "deletionTimestamp" not in body["metadata"]:
        metadata = {**body["metadata"], "deletionTimestamp": api_time(world.now())}
        world.cluster.store(names.JOB_KIND, {**body, "metadata": metadata})


def set_finalizers(
    world: "World", where: tuple[str, str], uid: str, finalizers: Sequence[str], version: int
) -> Mapping[str, Any] | None:
    """The API server's part."""
    body = world.cluster.objects.get((names.JOB_KIND, *where))
    if body is None:
        return None
    metadata = body["metadata"]
    if metadata["uid"] != uid or metadata["resourceVersion"] != str(version):
        raise ClusterError("the object has been modified")
    is_deleted = "deletionTimestamp" in metadata
    if is_deleted and set(finalizers) - set(metadata["finalizers"]):
        raise ClusterError("no new finalizers can be added if the object is being deleted")
    body = {**body, "metadata": {**metadata, "finalizers": list(finalizers)}}
    if is_deleted and not finalizers:
        _remove(world)
        return body
    return world.cluster.store(names.JOB_KIND, body)


def note_publisher(world: "World", pod: Mapping[str, Any]) -> None:
    """A pod runs: one that publishes may have done so from now on, whatever becomes of it."""
    if pod["metadata"]["labels"].get(names.LABEL_STAGE) == Stage.PUBLISH:
        job = world.cluster.objects["Job", "team", pod["metadata"]["ownerReferences"][0]["name"]]
        world.registry.add(job["metadata"]["ownerReferences"][0]["uid"])


def end_unpublish(world: "World", pod: str, *, succeeds: bool = True) -> None:
    """The pod of the Job that takes back has ended."""
    if not succeeds:
        world.end_pod(pod, exit_code=13, reason="Error", message="Permission denied: '/registry/a'")
        return
    job = world.cluster.objects["Job", "team", UNPUBLISH]
    world.registry.discard(job["metadata"]["annotations"][names.ANNOTATION_UID])
    world.end_pod(pod, message="/registry/a: removed")


def take_back(world: "World", *, succeeds: bool = True) -> None:
    """The Job controller and the kubelet carry the unpublish Job to its end."""
    pod = world.make_pod(UNPUBLISH)
    world.run_pod(pod)
    end_unpublish(world, pod, succeeds=succeeds)
    if succeeds:
        world.set_job(UNPUBLISH, active=0, succeeded=1, conditions=[{"type": "Complete", "status": "True"}])
    else:
        world.fail_job(UNPUBLISH)


def judge_unpublish(world: "World", created: Mapping[str, Any]) -> None:
    """Nothing is taken back while a pod of that FineTuneJob may still publish."""
    uid = created["metadata"]["annotations"][names.ANNOTATION_UID]
    for job in world.cluster.of_kind("Job"):
        owners = {owner["uid"] for owner in job["metadata"].get("ownerReferences", ())}
        if uid in owners and job["metadata"]["labels"].get(names.LABEL_STAGE) == Stage.PUBLISH:
            phases = {pod["status"]["phase"] for pod in world.pods_of_job(job)}
            is_open = (
                not (job.get("status") or {}).get("conditions") and "deletionTimestamp" not in job["metadata"]
            )
            has_ended = phases and phases <= {"Succeeded", "Failed"}
            assert phases <= {"Succeeded", "Failed"}, f"{UNPUBLISH} beside {job['metadata']['name']}"
            assert has_ended or not is_open, f"{UNPUBLISH} before the pod of {job['metadata']['name']}"


def let_deletion_end(world: "World") -> None:
    """Without further faults a FineTuneJob that is being deleted is gone before long."""
    for _ in range(200):
        body = world.cluster.objects.get((names.JOB_KIND, "team", "a"))
        if body is None or "deletionTimestamp" not in body["metadata"]:
            return
        world.compare()
        world.settle()
        if not world.turn():  # type: ignore[attr-defined]
            world.advance(world.requeue or 2.0)
    raise AssertionError("the deletion does not end")


def _remove(world: "World") -> None:
    body = world.cluster.objects[names.JOB_KIND, "team", "a"]
    uid = body["metadata"]["uid"]
    takes_events = "Event" not in world.cluster.refuse
    told = {event["reason"] for event in world.cluster.events if event["involvedObject"]["uid"] == uid}
    if takes_events and body["spec"].get("deletionPolicy") == "Delete" and uid in world.registry:
        assert reasons.LEFT_BEHIND in told, "what was published is left behind without a word"
    world.cluster.remove(names.JOB_KIND, "a")
    world.collect_garbage()
