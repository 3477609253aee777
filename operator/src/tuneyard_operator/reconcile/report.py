# SPDX-License-Identifier: Apache-2.0
"""Writes the outcome of a pass: the status in one request if it changed, then events, never before."""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from tuneyard_api import names
from tuneyard_api.status import FineTuneJobStatus

from tuneyard_operator.domain.conditions import api_time, clip
from tuneyard_operator.domain.decision import Decision, Note
from tuneyard_operator.domain.observed import Observed
from tuneyard_operator.ports import Cluster
from tuneyard_operator.reconcile.store import Store

_MAX_EVENT_MESSAGE = 1024


async def report(cluster: Cluster, store: Store, seen: Observed, decision: Decision, now: datetime) -> None:
    """Write what has changed; the store knows the new status before the next pass can begin.

    Raises:
        ClusterError: when the status could not be written; then no event is posted either.
    """
    if decision.status == seen.status:
        return
    patch = status_patch(seen.status, decision.status)
    body = await cluster.patch_status(seen.namespace, seen.name, seen.uid, patch, version=seen.version)
    if body is None:
        drop_gone(store, seen)  # deleted meanwhile, and nobody is left to tell
        return
    store.put("FineTuneJob", body, is_own=True)
    for note in decision.notes:
        await cluster.post_event(seen.namespace, build_event(seen, note, now))


def drop_gone(store: Store, seen: Observed) -> None:
    """The FineTuneJob is not there any more. The watch may never say so: its children would be made for ever."""
    where = {"namespace": seen.namespace, "name": seen.name, "resourceVersion": str(seen.version)}
    store.drop("FineTuneJob", {"metadata": where})


def status_patch(former: FineTuneJobStatus, status: FineTuneJobStatus) -> dict[str, Any]:
    """The JSON merge patch (RFC 7386) from one status to the other."""
    before = _as_json(former)
    if "state" not in former.model_fields_set:
        del before["state"]  # only the model's default: it was never written
    return _merge_patch(before, _as_json(status))


def build_event(seen: Observed, note: Note, now: datetime) -> dict[str, Any]:
    """A core/v1 Event whose name says what it says, so that the same news is never posted twice."""
    content = f"{seen.uid}\n{note.reason}\n{note.message}"
    moment = api_time(now)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{seen.name}.{hashlib.sha256(content.encode()).hexdigest()[:16]}",
            "namespace": seen.namespace,
        },
        "involvedObject": {
            "apiVersion": names.API_VERSION,
            "kind": names.JOB_KIND,
            "namespace": seen.namespace,
            "name": seen.name,
            "uid": seen.uid,
        },
        "type": note.type,
        "reason": note.reason,
        "message": clip(note.message, _MAX_EVENT_MESSAGE),
        "source": {"component": names.FIELD_MANAGER},
        "reportingComponent": names.FIELD_MANAGER,
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }


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
