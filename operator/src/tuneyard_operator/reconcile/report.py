# SPDX-License-Identifier: Apache-2.0
"""Writes the outcome of a pass: the status in one request if it changed, then events, never before."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from tuneyard_api.status import FineTuneJobStatus

from tuneyard_operator.domain.decision import Decision
from tuneyard_operator.domain.objects.event import build_event
from tuneyard_operator.domain.observed import Observed
from tuneyard_operator.ports import Cluster
from tuneyard_operator.reconcile.queue import Key
from tuneyard_operator.reconcile.store import Store


async def report(cluster: Cluster, store: Store, seen: Observed, decision: Decision, now: datetime) -> bool:
    """Write what has changed; the store knows the new status before the next pass can begin. Returns whether it was written.

    Raises:
        ClusterError: when the status could not be written; then no event is posted either.
    """
    if decision.status == seen.status:
        return False
    patch = status_patch(seen.status, decision.status)
    body = await cluster.patch_status(seen.namespace, seen.name, seen.uid, patch, version=seen.version)
    if body is None:
        store.drop_job(
            Key(seen.namespace, seen.name), seen.version
        )  # The job was deleted meanwhile, so there is no status to write.
        return False
    store.put("FineTuneJob", body, is_own=True)
    for note in decision.notes:
        await cluster.post_event(seen.namespace, build_event(seen, note, now))
    return True


def status_patch(former: FineTuneJobStatus, status: FineTuneJobStatus) -> dict[str, Any]:
    """The JSON merge patch (RFC 7386) from one status to the other."""
    before = _as_json(former)
    if "state" not in former.model_fields_set:
        del before["state"]  # This is only the model's default; it was never written.
    return _merge_patch(before, _as_json(status))


def _as_json(status: FineTuneJobStatus) -> dict[str, Any]:
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


def _merge_patch(former: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    patch: dict[str, Any] = dict.fromkeys(_gone(former, wanted))
    for name, value in wanted.items():
        before = former.get(name)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            inner = _merge_patch(before, value)
            if inner:
                patch[name] = inner
        elif value != before:
            patch[name] = value
    return patch


def _gone(former: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterable[str]:
    return (name for name in former if name not in wanted)
