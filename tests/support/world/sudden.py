# SPDX-License-Identifier: Apache-2.0
"""Somebody deletes a stage's Job at the very moment at which its pod ends well: the world's roughest coincidence."""

from tuneyard_operator.domain.deadlines import running_attempt
from tuneyard_operator.domain.parsing import owner_uid

from support.world.rough import RoughWorld


def pod_at_work(world: RoughWorld) -> tuple[str, str] | None:
    """The running pod of the attempt that status says is running, and its Job; None when anything about it is in doubt."""
    attempt = None if world.job is None or world.is_deleting else running_attempt(world.status)
    job = None if attempt is None else world.cluster.objects.get(("Job", "team", attempt.job))
    if job is None or "deletionTimestamp" in job["metadata"] or (job.get("status") or {}).get("conditions"):
        return None
    if world.job is None or owner_uid(job) != world.job["metadata"]["uid"]:
        return None
    for pod in world.pods_of_job(job):
        name = pod["metadata"]["name"]
        if pod["status"]["phase"] == "Running" and name not in world.lost:
            return name, job["metadata"]["name"]
    return None


def delete_as_it_succeeds(world: RoughWorld, *, is_swept: bool, lost: str) -> bool:
    """Let the pod succeed and its Job be deleted before any pass; whether there was such a pod.

    Args:
        world: where it happens; all that went before is told and worked on first.
        is_swept: whether the garbage collector has taken the pod as well.
        lost: the kind of which no watch tells what happened; the end of a pod must be told, or still be in the list.

    Raises:
        AssertionError: when what the pod did does not count.
    """
    world.settle()
    found = pod_at_work(world)
    if found is None:
        return False
    pod, job = found
    world._end(pod, "succeed")
    world.cluster.remove("Job", job)
    if is_swept:
        world.cluster.remove("Pod", pod)
    if lost == "Job" or not is_swept:
        world.told = [event for event in world.told if event[0] != lost]
    if lost == "Job":
        world.due.clear()  # Nothing but the pod's end makes it due.
    world.settle()
    outcomes = [each.outcome for each in world.status.attempts if each.job == job]
    assert outcomes[-1:] in (["Running"], ["Succeeded"]), (
        f"work lost: {job} is {outcomes} after {pod} had succeeded"
    )
    return True
