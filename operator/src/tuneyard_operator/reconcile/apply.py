# SPDX-License-Identifier: Apache-2.0
"""Creates and deletes what a decision asks for.

Never changes an object: one that is there is ours and the same, or a conflict.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tuneyard_api import names

from tuneyard_operator.domain.decision import Action, Create, Delete, Refusal
from tuneyard_operator.domain.frozen import Frozen, FrozenUnreadableError, read_frozen
from tuneyard_operator.domain.observed import Observed
from tuneyard_operator.domain.sightings import owner_uid
from tuneyard_operator.ports import Cluster, ClusterError, Object, RefusedError
from tuneyard_operator.reconcile.store import Store


@dataclass(frozen=True, slots=True)
class Applied:
    """All objects are there."""

    frozen: Frozen | None = None
    """What the plan's ConfigMap holds, if it was one of them; it may be older than what was asked for."""


async def apply(
    cluster: Cluster, store: Store, seen: Observed, actions: Sequence[Action], may_write: Callable[[], bool]
) -> Applied | Refusal:
    """Carry the actions out in order, up to the first that is refused.

    Raises:
        ClusterError: when the API server could not be asked or another replica may be at work by now; what was
            created stays and is found again.
    """
    frozen: Frozen | None = None
    for action in actions:
        if not may_write():
            raise ClusterError("the lease may be another replica's by now")
        if isinstance(action, Delete):
            await cluster.delete(action.kind, seen.namespace, action.name, action.uid)
            continue
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
            if action.frozen is not None:
                frozen = _frozen(body, action.frozen)
                if frozen != action.frozen:
                    return Applied(frozen)
        elif action.frozen is not None:
            frozen = action.frozen
        if action.kind == "Job":
            store.put("Job", body, is_own=created is not None)
    return Applied(frozen)


def _conflict(seen: Observed, action: Create, body: Object) -> str | None:
    """Why an object that has our name is not the one that we would have made."""
    metadata = body["metadata"]
    if owner_uid(body) != seen.uid:
        owners = [f"{owner['kind']} {owner['name']}" for owner in metadata.get("ownerReferences") or ()]
        return f"exists already and belongs to {', '.join(owners) or 'nobody'} (an older job of this name goes first)"
    if "deletionTimestamp" in metadata:
        return "exists already and is being deleted"
    digest = (metadata.get("annotations") or {}).get(names.ANNOTATION_PLAN)
    wanted = action.body["metadata"]["annotations"][names.ANNOTATION_PLAN]
    if action.frozen is None and digest != wanted:
        return f"exists already for another plan ({str(digest)[:12]}, not {wanted[:12]})"
    return None


def _frozen(body: Object, wanted: Frozen) -> Frozen:
    """What was written down first is what counts."""
    try:
        return read_frozen(body.get("data") or {})
    except FrozenUnreadableError:
        return wanted
