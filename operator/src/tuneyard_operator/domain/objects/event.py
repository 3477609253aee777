# SPDX-License-Identifier: Apache-2.0
"""The Event by which people hear of a FineTuneJob with `kubectl describe`."""

import hashlib
from datetime import UTC, datetime
from typing import Any

from tuneyard_api import names

from tuneyard_operator.domain.decision import Note
from tuneyard_operator.domain.observed import Observed

_MAX_NOTE_BYTES = 1024
_ACTION = "Reconcile"
"""What the operator was doing; the API asks for a word, and `reason` says what came of it."""


def build_event(seen: Observed, note: Note, now: datetime) -> dict[str, Any]:
    """An events.k8s.io/v1 Event whose name is a digest of its content, so that the same news is never posted twice."""
    content = f"{seen.uid}\n{note.reason}\n{note.message}"
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {
            "name": f"{seen.name}.{hashlib.sha256(content.encode()).hexdigest()[:16]}",
            "namespace": seen.namespace,
        },
        "regarding": {
            "apiVersion": names.API_VERSION,
            "kind": names.JOB_KIND,
            "namespace": seen.namespace,
            "name": seen.name,
            "uid": seen.uid,
        },
        "type": note.type,
        "reason": note.reason,
        "action": _ACTION,
        "note": _in_bytes(note.message),
        "eventTime": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": names.CONTROLLER,
        # Which replica it was says nothing: one of them works at a time.
        "reportingInstance": names.FIELD_MANAGER,
    }


def _in_bytes(text: str) -> str:
    """The text, cut to the bytes that the API server takes of a note."""
    raw = text.encode()
    return text if len(raw) <= _MAX_NOTE_BYTES else raw[: _MAX_NOTE_BYTES - 3].decode(errors="ignore") + "…"
