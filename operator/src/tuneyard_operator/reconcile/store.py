# SPDX-License-Identifier: Apache-2.0
"""A cache of the watched objects with the fields that decisions read; a pass in the steady state sends no request.

The store has our own writes at once (from the API server's response), refuses anything older than what it holds,
and calls `changed` only when something has changed that a decision can see.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from tuneyard_api import names
from tuneyard_api.pod_contract import Stage
from tuneyard_api.status import FineTuneJobStatus

from tuneyard_operator.domain.conditions import read_time
from tuneyard_operator.domain.deletion import finalizers_to_set
from tuneyard_operator.domain.live_settings import LiveSettings, read_live_settings
from tuneyard_operator.domain.observed import SeenJob, SeenPod
from tuneyard_operator.domain.parsing import child_key, parse_job, parse_pod, unpublishes_for, version_of
from tuneyard_operator.domain.state import is_terminal
from tuneyard_operator.ports import Object, Watched
from tuneyard_operator.reconcile.queue import Key

_REMEMBERED = 2048
"""Number of the latest deletions that are remembered: enough for the duration of any list request."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A FineTuneJob."""

    uid: str
    version: int
    generation: int
    created: datetime
    deleting: datetime | None
    """Time since which it is being deleted."""
    finalizers: tuple[str, ...]
    spec: Mapping[str, object]
    """The spec; for a job that has ended, only its runtime."""
    live: LiveSettings
    """The live settings; for a job that has ended, only those for its children and its published adapter."""
    status: FineTuneJobStatus
    is_again: bool = False
    """Whether another one of this name was held before: what that has left may not be known."""
    known: frozenset[tuple[Stage, int]] = frozenset()
    """The attempts of a job that has ended."""

    @property
    def has_ended(self) -> bool:
        """Whether no child of the job is started or followed any more."""
        return self.deleting is not None or is_terminal(self.status.conditions)

    @property
    def is_over(self) -> bool:
        """Whether no pass can have anything to do."""
        if self.deleting is not None:
            return not names.FINALIZERS & set(self.finalizers)
        is_done = self.has_ended and self.status.cleaned is not None
        is_done = is_done and names.CUSTOMIZATION_FINALIZER not in self.finalizers
        return is_done and finalizers_to_set(self.live, self.status, self.finalizers) is None


@dataclass(slots=True)
class _Children:
    jobs: dict[str, SeenJob] = field(default_factory=dict)
    pods: dict[str, SeenPod] = field(default_factory=dict)
    results: dict[str, SeenPod] = field(default_factory=dict)
    """Pods that ended well and are gone, by uid, until status says how their attempt ended."""

    @property
    def is_empty(self) -> bool:
        return not self.jobs and not self.pods and not self.results


class Store:
    """The cache of the cluster's objects."""

    def __init__(self) -> None:
        self.changed: Callable[[Key], None] = lambda _: None
        self.runtimes: dict[str, Mapping[str, object]] = {}
        self._runtime_versions: dict[str, int] = {}
        self._jobs: dict[Key, Stored] = {}
        self._children: dict[Key, _Children] = {}
        self._gone: dict[tuple[str, str, str], int] = {}
        self._former: dict[Key, None] = {}

    def job(self, key: Key) -> Stored | None:
        """The FineTuneJob of a key."""
        return self._jobs.get(key)

    def children(self, key: Key) -> tuple[tuple[SeenJob, ...], tuple[SeenPod, ...]]:
        """The Jobs and pods of a FineTuneJob."""
        children = self._children.get(key)
        if children is None:
            return (), ()
        return tuple(children.jobs.values()), (*children.pods.values(), *children.results.values())

    def has_begun(self, key: Key) -> bool:
        """Whether the job has been accepted: such keys are served first."""
        stored = self._jobs.get(key)
        return stored is not None and stored.status.plan is not None

    def state_counts(self) -> dict[str, int]:
        """FineTuneJobs by state."""
        counts: dict[str, int] = {}
        for stored in self._jobs.values():
            counts[stored.status.state.value] = counts.get(stored.status.state.value, 0) + 1
        return counts

    def statuses(self) -> Iterator[FineTuneJobStatus]:
        """The status of every FineTuneJob."""
        return (stored.status for stored in self._jobs.values())

    def put(self, kind: Watched, body: Object, *, is_own: bool = False) -> None:
        """Store an object from the API server; `is_own`: it is the response to our own write, which is no news."""
        if version_of(body) <= self._gone.get(_name_of(kind, body), -1):
            return  # The list is older than the deletion, or the event is late.
        if kind == "FineTuneRuntime":
            self._put_runtime(body)
        elif kind == "FineTuneJob":
            self._put_job(body, is_own=is_own)
        else:
            self._put_child(kind, body, is_own=is_own)

    def drop(self, kind: Watched, body: Object) -> None:
        """Drop a deleted object."""
        if len(self._gone) >= _REMEMBERED:
            del self._gone[next(iter(self._gone))]
        self._gone[_name_of(kind, body)] = version_of(body)
        last = parse_pod(body) if kind == "Pod" else None
        if last is not None:
            self._keep_result(_key_of(kind, body), last)
        self._drop_named(kind, _key_of(kind, body), str(body["metadata"]["name"]), version_of(body))

    def drop_job(self, key: Key, version: int) -> None:
        """Drop a FineTuneJob that is gone at that version: the watch may lose this, and children be made for ever."""
        metadata = {"namespace": key.namespace, "name": key.name, "resourceVersion": str(version)}
        self.drop("FineTuneJob", {"metadata": metadata})

    def drop_absent(self, kind: Watched, present: Collection[tuple[str, str]], version: int) -> None:
        """Drop what a complete list of that version lacks; what was made after the list is kept.

        Watches may lose a deletion while they reconnect.

        Args:
            kind: the kind that was listed.
            present: (namespace, name) of all its objects.
            version: resourceVersion of the list.
        """
        for key, namespace, name, held in list(self._held(kind)):
            if (namespace, name) not in present and held <= version:
                if kind == "Pod" and key is not None:
                    self._keep_result(key, self._children[key].pods[name])
                self._drop_named(kind, key, name, version)

    def _put_runtime(self, body: Object) -> None:
        name, version = str(body["metadata"]["name"]), version_of(body)
        if version <= self._runtime_versions.get(name, -1):
            return
        self._runtime_versions[name], self.runtimes[name] = version, body.get("spec") or {}
        self._wake_unbegun()

    def _put_job(self, body: Object, *, is_own: bool) -> None:
        metadata = body["metadata"]
        key = Key(metadata["namespace"], metadata["name"])
        former = self._jobs.get(key)
        if former is not None and version_of(body) <= former.version:
            return
        if (body.get("spec") or {}).get("managedBy", names.CONTROLLER) != names.CONTROLLER:
            self._drop_named("FineTuneJob", key, key.name, version_of(body))
            return
        stored = Stored(
            uid=metadata["uid"],
            version=version_of(body),
            generation=metadata.get("generation") or 1,
            created=read_time(metadata["creationTimestamp"]),
            deleting=read_time(metadata["deletionTimestamp"]) if metadata.get("deletionTimestamp") else None,
            finalizers=tuple(metadata.get("finalizers") or ()),
            spec=body.get("spec") or {},
            live=read_live_settings(body.get("spec") or {}),
            status=FineTuneJobStatus.model_validate(body.get("status") or {}),
            is_again=key in self._former
            or (former is not None and (former.is_again or former.uid != metadata["uid"])),
        )
        if stored.has_ended:
            stored = _end_of(stored)
            self._children.pop(key, None)
        self._jobs[key] = stored
        self._forget_results(key)
        if former is None or _is_news(former, stored, is_own=is_own):
            self.changed(key)

    def _put_child(self, kind: Watched, body: Object, *, is_own: bool) -> None:
        key = _key_of(kind, body)
        seen = parse_job(body) if kind == "Job" else parse_pod(body)
        parent = self._jobs.get(key) if key else None
        if key is None:
            return
        if seen is None:
            self._note_former(key, unpublishes_for(body))
            return
        if parent is not None and parent.has_ended and not _is_stray(parent, seen):
            return
        if parent is not None and _has_succeeded(parent.status, seen):
            return  # Finished attempts are in status and are never looked at again.
        if _update(self._held_of(kind, self._children.setdefault(key, _Children())), seen) and not is_own:
            self.changed(key)

    def _keep_result(self, key: Key | None, pod: SeenPod) -> None:
        """Keep what a pod that is gone has done: somebody may have deleted it, or its Job, before a pass saw it end."""
        parent = self._jobs.get(key) if key is not None else None
        if key is not None and parent is not None and _has_unread_result(key, parent, pod):
            self._children.setdefault(key, _Children()).results[pod.uid] = pod

    def _forget_results(self, key: Key) -> None:
        """Forget what status says by now, and what was another FineTuneJob's."""
        children, parent = self._children.get(key), self._jobs.get(key)
        if children is None or not children.results:
            return
        children.results = {
            uid: pod
            for uid, pod in children.results.items()
            if parent is not None and _has_unread_result(key, parent, pod)
        }
        if children.is_empty:
            del self._children[key]

    def _note_former(self, key: Key, uid: str) -> None:
        """Remember the older job of an unpublish Job or pod: a new process learns of it in no other way."""
        parent = self._jobs.get(key)
        if parent is not None and uid not in {"", parent.uid}:
            self._jobs[key] = replace(parent, is_again=True)

    @staticmethod
    def _held_of(kind: Watched, children: _Children) -> dict[str, Any]:
        return children.jobs if kind == "Job" else children.pods

    def _drop_named(self, kind: Watched, key: Key | None, name: str, version: int) -> None:
        if kind == "FineTuneRuntime":
            if self._runtime_versions.get(name, version + 1) <= version:
                del self._runtime_versions[name], self.runtimes[name]
                self._wake_unbegun()
        elif key is None:
            return
        elif kind == "FineTuneJob":
            former = self._jobs.get(key)
            if former is not None and former.version <= version:
                del self._jobs[key]
                if len(self._former) >= _REMEMBERED:
                    del self._former[next(iter(self._former))]
                self._former[key] = None
                self._forget_results(key)
                self.changed(key)
        elif key in self._children:
            held = self._held_of(kind, self._children[key])
            if name in held and held[name].version <= version:
                del held[name]
                if self._children[key].is_empty:
                    del self._children[key]
                self.changed(key)

    def _held(self, kind: Watched) -> Iterator[tuple[Key | None, str, str, int]]:
        if kind == "FineTuneRuntime":
            yield from ((None, "", name, version) for name, version in self._runtime_versions.items())
        elif kind == "FineTuneJob":
            yield from ((key, key.namespace, key.name, job.version) for key, job in self._jobs.items())
        else:
            for key, children in self._children.items():
                held = self._held_of(kind, children)
                yield from ((key, key.namespace, name, child.version) for name, child in held.items())

    def _wake_unbegun(self) -> None:
        """Make jobs due that have not begun: a new or changed runtime may be what they wait for."""
        for key, stored in self._jobs.items():
            if stored.status.plan is None and not stored.has_ended:
                self.changed(key)


def _name_of(kind: Watched, body: Object) -> tuple[str, str, str]:
    metadata = body["metadata"]
    return kind, str(metadata.get("namespace", "")), str(metadata["name"])


def _key_of(kind: Watched, body: Object) -> Key | None:
    metadata = body["metadata"]
    if kind == "FineTuneJob":
        return Key(metadata["namespace"], metadata["name"])
    if kind == "FineTuneRuntime":
        return None
    place = child_key(body)
    return Key(*place) if place else None


def _update(held: dict[str, Any], seen: SeenJob | SeenPod) -> bool:
    """Whether anything but the version is new."""
    former = held.get(seen.name)
    if former is not None and seen.uid == former.uid and seen.version <= former.version:
        return False
    held[seen.name] = seen
    return former is None or replace(former, version=seen.version) != seen


def _has_succeeded(status: FineTuneJobStatus, child: SeenJob | SeenPod) -> bool:
    """Whether status says that the child's attempt succeeded."""
    place = (child.stage, child.attempt)
    return any((each.stage, each.number) == place for each in status.attempts if each.outcome == "Succeeded")


def _has_unread_result(key: Key, parent: Stored, pod: SeenPod) -> bool:
    """Whether a pod of this very job ended well, and status does not say yet how its attempt ended."""
    is_own = pod.plan_map == names.plan_name(key.name, parent.uid) and not parent.has_ended
    ended = {(each.stage, each.number) for each in parent.status.attempts if each.outcome != "Running"}
    return is_own and pod.phase == "Succeeded" and (pod.stage, pod.attempt) not in ended


def _is_news(former: Stored, stored: Stored, *, is_own: bool) -> bool:
    """Whether a pass would see something new. In the response to our own write, only changes by others are new."""
    if is_own and not stored.has_ended:
        return (former.generation, former.deleting) != (stored.generation, stored.deleting)
    return replace(former, version=stored.version) != stored


def _is_stray(parent: Stored, seen: SeenJob | SeenPod) -> bool:
    """Whether a Job of a terminal job runs unknown to status, because the response to its creation was lost."""
    if parent.is_over or not isinstance(seen, SeenJob) or seen.is_over or seen.deleting:
        return False
    return seen.owner_uid == parent.uid and (seen.stage, seen.attempt) not in parent.known


def _end_of(stored: Stored) -> Stored:
    """The little that is still needed about a terminal job: its state and when to clean it up."""
    status = stored.status
    return replace(
        stored,
        spec={name: stored.spec[name] for name in stored.spec.keys() & {"runtime"}},
        live=LiveSettings(ttl=stored.live.ttl, deletion_policy=stored.live.deletion_policy),
        status=FineTuneJobStatus(
            state=status.state,
            conditions=status.conditions[-1:],
            plan=status.plan,
            attempts=tuple(each for each in status.attempts if each.stage is Stage.PUBLISH),
            ended=status.ended,
            cleaned=status.cleaned,
        ),
        known=frozenset((each.stage, each.number) for each in status.attempts),
    )
