# SPDX-License-Identifier: Apache-2.0
"""Collects the input of one pass. Most of it is in the store; the rest is requested if a decision needs it."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime

from tuneyard_api import names
from tuneyard_api.pod_contract import PROGRESS_PORT, Progress, Stage
from tuneyard_api.status import ConditionType, State

from tuneyard_operator.domain.cleanup import cleaning_due
from tuneyard_operator.domain.conditions import is_true
from tuneyard_operator.domain.decide import needs_claims
from tuneyard_operator.domain.deletion import published_by
from tuneyard_operator.domain.frozen import Frozen, FrozenUnreadableError, read_frozen
from tuneyard_operator.domain.observed import (
    AskedAdapter,
    Deletion,
    Leftover,
    Observed,
    ReplicaAnswer,
    SeenEvent,
    SeenJob,
    SeenPod,
    SeenQueue,
)
from tuneyard_operator.domain.parsing import may_unpublish, owner_uid, parse_job, parse_pod, parse_unpublish
from tuneyard_operator.domain.progress import READ_EVERY
from tuneyard_operator.domain.quotas import remember
from tuneyard_operator.domain.steps.publish import published_adapter
from tuneyard_operator.domain.waiting import needs_events
from tuneyard_operator.domain.watchdog import Pulse, next_pulse
from tuneyard_operator.ports import Cluster, ModelServers, Object, ProgressReader
from tuneyard_operator.reconcile.queue import Key
from tuneyard_operator.reconcile.store import Store, Stored
from tuneyard_operator.reconcile.trainings import Trainings


@dataclass
class _Known:
    """State of a running job that is kept between passes."""

    uid: str
    frozen: Frozen | None = None
    """Plan, runtime and spec, as in the job's ConfigMap."""
    has_plan_map: bool = False
    looked: datetime | None = None
    """Time at which its progress was last requested."""
    pulse: Pulse | None = None
    refusals: tuple[SeenEvent, ...] = ()
    """Refusals of the pods of its newest Job."""


@dataclass
class Gatherer:
    """Reads the world for one key; keeps the plans of running jobs and when their progress was last read."""

    store: Store
    cluster: Cluster
    servers: ModelServers
    progress: ProgressReader
    trainings: Trainings
    _known: dict[Key, _Known] = field(default_factory=dict)

    async def gather(self, key: Key, now: datetime) -> Observed | None:
        """What is known of a FineTuneJob, or None when there is nothing to do for it."""
        stored = self.store.job(key)
        if stored is None or stored.is_over:
            return None
        if stored.deleting is not None:
            return await self._deletion(key, stored, stored.deleting)
        if stored.has_ended:
            return await self._ended(key, stored, now)
        known = self._known.get(key)
        if known is None or known.uid != stored.uid:
            known = self._known[key] = _Known(stored.uid)
        if known.frozen is None and stored.status.plan is not None:
            await self._read_plan(key, known)
        jobs, pods = self.store.children(key)
        pods = await self._with_ended_pods(stored, key.namespace, jobs, pods)
        pods = await self._with_pods_without_job(stored, known, key, jobs, pods)
        if _may_start_again(stored):
            jobs, pods, _ = await self._all_children(key)
        unpublishing: tuple[Leftover, ...] = ()
        if stored.is_again and stored.status.plan is None:
            jobs, pods, unpublishing = await self._all_children(key)
        seen = replace(
            self._itself(key, stored),
            frozen=known.frozen,
            has_plan_map=known.has_plan_map,
            jobs=jobs,
            pods=pods,
            unpublishing=unpublishing,
        )
        claims = await self.cluster.claims(key.namespace) if needs_claims(seen) else None
        progress = await self._progress(seen, known, now)
        return replace(
            seen,
            claims=claims,
            events=await self._events(seen, known, now),
            queue=await self._queue(seen),
            served=await self._served(seen),
            listed=await self._listed(seen),
            progress=progress,
            pulse=known.pulse,
            customizations=await self.trainings.of_running(seen),
            output=await self.trainings.output_of(seen),
        )

    def _itself(self, key: Key, stored: Stored) -> Observed:
        """The stored job and the runtimes, without the job's children."""
        return Observed(
            namespace=key.namespace,
            name=key.name,
            uid=stored.uid,
            version=stored.version,
            generation=stored.generation,
            spec=stored.spec,
            live=stored.live,
            status=stored.status,
            created=stored.created,
            runtimes=self.store.runtimes,
            finalizers=stored.finalizers,
        )

    def remember(self, key: Key, frozen: Frozen) -> None:
        """The plan of a job has been written down."""
        known = self._known[key]
        known.frozen, known.has_plan_map = frozen, True

    def forget(self, key: Key) -> None:
        """The job is over or gone."""
        self._known.pop(key, None)
        self.trainings.forget(key)

    async def _with_ended_pods(
        self, stored: Stored, namespace: str, jobs: tuple[SeenJob, ...], pods: tuple[SeenPod, ...]
    ) -> tuple[SeenPod, ...]:
        """Asks for the pods of a finished Job whose stored pods still run: pods and Jobs come from two watches.

        Judged by a pod watch that lags behind, a stage that has succeeded would be taken for one without a result.
        """
        judged = {(each.stage, each.number) for each in stored.status.attempts if each.outcome != "Running"}
        for job in jobs:
            is_open = job.owner_uid == stored.uid and (job.stage, job.attempt) not in judged
            own = [pod for pod in pods if pod.owner_uid == job.uid]
            if is_open and job.is_over and not (own and all(pod.is_over for pod in own)):
                now = [parse_pod(body) for body in await self.cluster.pods_of(namespace, job.name)]
                fresh = [pod for pod in now if pod is not None and pod.owner_uid == job.uid]
                others = [pod for pod in pods if pod.owner_uid != job.uid or pod.phase == "Succeeded"]
                pods = _with(others, fresh)
        return pods

    async def _with_pods_without_job(
        self, stored: Stored, known: _Known, key: Key, jobs: tuple[SeenJob, ...], pods: tuple[SeenPod, ...]
    ) -> tuple[SeenPod, ...]:
        """Asks for the pods of a running attempt whose Job is gone: one may have ended well, or still run."""
        is_by_service = known.frozen is not None and known.frozen.runtime.customizer is not None
        for attempt in stored.status.attempts:
            place = (attempt.stage, attempt.number)
            is_carried = is_by_service and attempt.stage is Stage.TRAIN
            if attempt.outcome != "Running" or is_carried:
                continue
            if any((job.stage, job.attempt) == place and job.owner_uid == stored.uid for job in jobs):
                continue
            mine = [pod for pod in pods if (pod.stage, pod.attempt) == place]
            if not (mine and all(pod.is_over for pod in mine)):
                bodies = await self.cluster.pods_of(key.namespace, attempt.job)
                fresh = [pod for body in bodies if (pod := parse_pod(body)) is not None]
                pods = _with((pod for pod in pods if pod not in mine or pod.phase == "Succeeded"), fresh)
        return pods

    async def _all_children(
        self, key: Key
    ) -> tuple[tuple[SeenJob, ...], tuple[SeenPod, ...], tuple[Leftover, ...]]:
        """Asks for all current children of the name: a watch may lag behind, or the response to a creation be lost."""
        jobs = await self.cluster.jobs_of(key.namespace, key.name)
        pods = await self.cluster.all_pods_of(key.namespace, key.name)
        bodies = [("Job", body) for body in jobs] + [("Pod", body) for body in pods]
        unpublishing = tuple(
            Leftover(kind, body["metadata"]["name"], body["metadata"]["uid"])
            for kind, body in bodies
            if may_unpublish(body)
        )
        return (
            tuple(job for body in jobs if (job := parse_job(body)) is not None),
            tuple(pod for body in pods if (pod := parse_pod(body)) is not None),
            unpublishing,
        )

    async def _ended(self, key: Key, stored: Stored, now: datetime) -> Observed:
        """A terminal job with the children to remove, once they are due."""
        self.forget(key)
        seen = replace(self._itself(key, stored), runtimes={}, jobs=self.store.children(key)[0])
        seen = await self.trainings.with_all(seen)
        due = cleaning_due(seen)
        return (
            replace(seen, leftovers=await self._leftovers(seen)) if due is not None and now >= due else seen
        )

    async def _deletion(self, key: Key, stored: Stored, since: datetime) -> Observed:
        """A job that is being deleted, with its running pods and its unpublish Job."""
        self.forget(key)
        bodies = await self.cluster.jobs_of(key.namespace, key.name)
        seen = [
            job for body in bodies if (job := parse_job(body)) is not None and job.owner_uid == stored.uid
        ]
        # Includes Jobs that are gone and Jobs that no status mentions, because their pods may still exist.
        bodies_of_pods = await self.cluster.all_pods_of(key.namespace, key.name)
        pods = [pod for body in bodies_of_pods if (pod := parse_pod(body)) is not None]
        unpublish = None
        for body in bodies:
            if body["metadata"]["name"] == names.unpublish_name(key.name):
                unpublish = parse_unpublish(body, bodies_of_pods)
        deletion = Deletion(
            since=since,
            running=tuple(
                Leftover("Job", job.name, job.uid) for job in seen if not job.is_over and not job.deleting
            ),
            writers=tuple(pod.name for pod in pods if pod.stage is Stage.PUBLISH and not pod.is_over),
            has_registry=await self._has_registry(key.namespace, stored),
            unpublish=unpublish,
        )
        return await self.trainings.with_all(replace(self._itself(key, stored), deletion=deletion))

    async def _has_registry(self, namespace: str, stored: Stored) -> bool:
        published = published_by(stored.status)
        if published is None:
            return True
        claim = await self.cluster.read("PersistentVolumeClaim", namespace, published.claim)
        return claim is not None and not claim["metadata"].get("deletionTimestamp")

    async def _leftovers(self, seen: Observed) -> tuple[Leftover, ...]:
        """Children of this very job: Jobs (and with them pods), Services, plan, workspace."""
        bodies = [("Job", body) for body in await self.cluster.jobs_of(seen.namespace, seen.name)]
        wanted = [
            ("PersistentVolumeClaim", names.workspace_name(seen.name)),
            ("ConfigMap", names.plan_name(seen.name, seen.uid)),
            ("ConfigMap", names.former_plan_name(seen.name)),
        ]
        if any(_claims_gpus(body) for _, body in bodies):
            wanted.append(("ResourceClaimTemplate", names.gpu_claim_name(seen.name)))
        wanted += [
            ("Service", body["metadata"]["name"])
            for _, body in bodies
            if (body["spec"].get("completions") or 1) > 1
        ]
        for kind, name in wanted:
            found = await self.cluster.read(kind, seen.namespace, name)
            bodies += [(kind, found)] if found is not None else []
        return tuple(
            Leftover(kind, body["metadata"]["name"], body["metadata"]["uid"])
            for kind, body in bodies
            if owner_uid(body) == seen.uid
        )

    async def _read_plan(self, key: Key, known: _Known) -> None:
        """Read the stored plan, once a job after a restart; another version's plan is made again with the same digest."""
        for name in (names.plan_name(key.name, known.uid), names.former_plan_name(key.name)):
            body = await self.cluster.read("ConfigMap", key.namespace, name)
            if body is None or owner_uid(body) != known.uid:
                continue
            try:
                known.frozen = read_frozen(body.get("data") or {})
            except FrozenUnreadableError:
                continue
            known.has_plan_map = name != names.former_plan_name(key.name)
            return

    async def _events(self, seen: Observed, known: _Known, now: datetime) -> tuple[SeenEvent, ...]:
        """The events, requested only if something does not start and nothing else says why."""
        for attempt in seen.status.attempts:
            job, pods = (
                seen.job_of(attempt.stage, attempt.number),
                seen.pods_of(attempt.stage, attempt.number),
            )
            if attempt.outcome != "Running":
                continue
            is_silent_end = (job is None or job.is_over) and not any(pod.terminated for pod in pods)
            if is_silent_end or needs_events(job, pods, now):
                events = await self.cluster.warnings(seen.namespace)
                known.refusals = remember(known.refusals, events, attempt.job)
                return (*known.refusals, *events)
        return ()

    async def _queue(self, seen: Observed) -> SeenQueue | None:
        """What Kueue says, requested only while it holds the running attempt's Job back."""
        for attempt in seen.status.attempts:
            job = seen.job_of(attempt.stage, attempt.number)
            if attempt.outcome != "Running" or job is None or not job.suspended or job.is_over:
                continue
            return await self.cluster.queue_of(seen.namespace, job.uid, job.queue) if job.queue else None
        return None

    async def _listed(self, seen: Observed) -> tuple[str, ...] | None:
        """The server's models, requested only between the end of the preparation and the first training attempt."""
        destination = seen.frozen.plan.destination if seen.frozen is not None else None
        if destination is None or destination.listed_as is None or seen.status.progress is not None:
            return None
        conditions = seen.status.conditions
        is_due = is_true(conditions, ConditionType.DATA_READY) or any(
            pod.stage is Stage.PREPARE and pod.phase == "Succeeded" for pod in seen.pods
        )
        has_begun = any(attempt.stage is Stage.TRAIN for attempt in seen.status.attempts)
        return await self.servers.listed(destination) if is_due and not has_begun else None

    async def _served(self, seen: Observed) -> tuple[ReplicaAnswer, ...] | None:
        """The replicas' answers, requested only between the end of the publication and Served."""
        destination = seen.frozen.plan.destination if seen.frozen is not None else None
        adapter = published_adapter(seen)
        if destination is None or adapter is None or seen.live.suspend:
            return None
        may_replace = seen.frozen is not None and seen.frozen.plan.resolved.replace
        asked = AskedAdapter(adapter.name, adapter.digest.removeprefix("sha256:"), replaces=may_replace)
        return await self.servers.ask(destination, asked)

    async def _progress(self, seen: Observed, known: _Known, now: datetime) -> Progress | None:
        """The progress, read only while training, and not more often than status may be written."""
        if known.looked is not None and 0 <= (now - known.looked).total_seconds() < READ_EVERY:
            return None
        running = [pod for pod in seen.pods if pod.stage is Stage.TRAIN and pod.running and pod.ip]
        if not running or is_true(seen.status.conditions, ConditionType.EVALUATED):
            return None
        elapsed = (now - known.looked).total_seconds() if known.looked is not None else 0.0
        known.looked = now
        # With several pods, index 0 reports the progress; its name comes first.
        ip = min(running, key=lambda pod: pod.name).ip or ""
        host = f"[{ip}]" if ":" in ip else ip
        progress = await self.progress.read(f"http://{host}:{PROGRESS_PORT}/progress")
        if progress is not None:
            known.pulse = next_pulse(known.pulse, running[0].uid, progress, elapsed)
        return progress


def _with(pods: Iterable[SeenPod], fresh: Collection[SeenPod]) -> tuple[SeenPod, ...]:
    """The pods, each as it was told last."""
    uids = {pod.uid for pod in fresh}
    return (*(pod for pod in pods if pod.uid not in uids), *fresh)


def _may_start_again(stored: Stored) -> bool:
    """Whether a further attempt may start, which must see all that could still write to the workspace."""
    last = stored.status.attempts[-1] if stored.status.attempts else None
    is_over = last is not None and last.outcome in {"Failed", "Stopped"}
    return is_over and stored.status.state is not State.SUSPENDED


def _claims_gpus(job: Object) -> bool:
    """Whether the pods of a batch/v1 Job claim devices, and so have a ResourceClaimTemplate."""
    return "resourceClaims" in (job["spec"].get("template") or {}).get("spec", {})
