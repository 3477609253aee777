# SPDX-License-Identifier: Apache-2.0
"""Creates and deletes what a decision asks for.

It never changes a child: an existing one is ours and equal, or a conflict. Of a FineTuneJob it changes only finalizers.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from tuneyard_api import names

from tuneyard_operator.domain.decision import (
    Action,
    Cancel,
    Create,
    Delete,
    Refusal,
    SetFinalizers,
    Submit,
    Tell,
)
from tuneyard_operator.domain.frozen import Frozen, FrozenUnreadableError, read_frozen
from tuneyard_operator.domain.objects.event import build_event
from tuneyard_operator.domain.observed import Observed
from tuneyard_operator.domain.parsing import made_for, version_of
from tuneyard_operator.ports import (
    Cluster,
    ClusterError,
    Object,
    RefusedError,
    ServiceError,
    TrainingServices,
)
from tuneyard_operator.reconcile.queue import Key
from tuneyard_operator.reconcile.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Applied:
    """All objects are there."""

    frozen: Frozen | None = None
    """Content of the plan's ConfigMap, if it was one of them; it may be older than the requested one."""


async def apply(
    cluster: Cluster,
    services: TrainingServices,
    store: Store,
    seen: Observed,
    actions: Sequence[Action],
    *,
    may_write: Callable[[], bool],
    now: datetime,
) -> Applied | Refusal:
    """Carry out the actions in order, up to the first that is refused.

    Raises:
        ClusterError: when the API server could not be asked or another replica may be at work by now; what was
            created stays and is found again.
    """
    frozen: Frozen | None = None
    for action in actions:
        if not may_write():
            raise ClusterError("the lease may be another replica's by now")
        if isinstance(action, Create):
            created = await _create(cluster, store, seen, action)
            if isinstance(created, Refusal):
                return created
            frozen = created or frozen
            if action.frozen is not None and frozen != action.frozen:
                return Applied(frozen)
        elif isinstance(action, Submit | Cancel):
            try:
                await _ask(services, action)
            except ServiceError as error:
                return Refusal(action, "Service", error.trouble.message, error.trouble)
        else:
            await _carry_out(cluster, store, seen, action, now)
    return Applied(frozen)


async def _create(cluster: Cluster, store: Store, seen: Observed, action: Create) -> Frozen | Refusal | None:
    """Create an object, or take the one that is there; returns the plan that counts, if the object holds one."""
    frozen = action.frozen
    try:
        body = created = await cluster.create(action.body)
    except RefusedError as refused:
        return Refusal(action, refused.cause, refused.message)
    if body is None:
        body = await cluster.read(action.kind, seen.namespace, action.name)
        if body is None:
            raise ClusterError(f"{action.kind} {action.name} was there and is gone")
        conflict = _conflict(seen, action, body)
        if conflict is not None:
            return Refusal(action, "Conflict", conflict)
        frozen = _frozen(body, action.frozen) if action.frozen is not None else None
    if action.kind == "Job":
        store.put("Job", body, is_own=created is not None)
    return frozen


async def _ask(services: TrainingServices, action: Submit | Cancel) -> None:
    if isinstance(action, Submit):
        await services.submit(action.order)
    else:
        await services.cancel(action.address, action.id)


async def _carry_out(
    cluster: Cluster, store: Store, seen: Observed, action: Delete | Tell | SetFinalizers, now: datetime
) -> None:
    if isinstance(action, Delete):
        if action.is_by_status:
            await _check_version(cluster, seen)
        await cluster.delete(action.kind, seen.namespace, action.name, action.uid)
    elif isinstance(action, Tell):
        try:
            await cluster.post_event(seen.namespace, build_event(seen, action.note, now))
        except RefusedError as refused:
            # A namespace that is being deleted accepts no Event, and this must not delay its deletion.
            log.warning("%s/%s: %s (no Event: %s)", seen.namespace, seen.name, action.note.message, refused)
    else:
        await _set_finalizers(cluster, store, seen, action.finalizers)


async def _check_version(cluster: Cluster, seen: Observed) -> None:
    """See that what was decided on still holds: a status is written to one version alone, but a deletion is not.

    Raises:
        ClusterError: when it does not.
    """
    body = await cluster.read(names.JOB_KIND, seen.namespace, seen.name)
    if body is None or version_of(body) != seen.version:
        raise ClusterError("the FineTuneJob has been modified since it was read")


async def _set_finalizers(
    cluster: Cluster, store: Store, seen: Observed, finalizers: tuple[str, ...]
) -> None:
    where = (seen.namespace, seen.name, seen.uid)
    body = await cluster.set_finalizers(*where, finalizers, version=seen.version)
    if body is None or (seen.deletion is not None and not finalizers):
        store.drop_job(Key(seen.namespace, seen.name), seen.version)
    else:
        store.put("FineTuneJob", body, is_own=True)


def _conflict(seen: Observed, action: Create, body: Object) -> str | None:
    """Why an object that has our name is not the one that we would have made."""
    metadata = body["metadata"]
    if made_for(body) != seen.uid:
        owners = [f"{owner['kind']} {owner['name']}" for owner in metadata.get("ownerReferences") or ()]
        return f"exists already and belongs to {', '.join(owners) or 'nobody'} (an older job of this name must be gone first)"
    if metadata.get("deletionTimestamp"):
        return "exists already and is being deleted"
    digest = (metadata.get("annotations") or {}).get(names.ANNOTATION_PLAN)
    wanted = action.body["metadata"]["annotations"][names.ANNOTATION_PLAN]
    if action.frozen is None and digest != wanted:
        return f"exists already for another plan ({str(digest)[:12]}, not {wanted[:12]})"
    return None


def _frozen(body: Object, wanted: Frozen) -> Frozen:
    """The plan that was stored first, which counts."""
    try:
        return read_frozen(body.get("data") or {})
    except FrozenUnreadableError:
        return wanted
