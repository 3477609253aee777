# SPDX-License-Identifier: Apache-2.0
"""The Event by which people hear of a FineTuneJob with `kubectl describe`."""

import hashlib
from datetime import datetime
from typing import Any

from tuneyard_api import names

from tuneyard_operator.domain.conditions import api_time, clip
from tuneyard_operator.domain.decision import Note
from tuneyard_operator.domain.observed import Observed

_MAX_EVENT_MESSAGE = 1024


def build_event(seen: Observed, note: Note, now: datetime) -> dict[str, Any]:
    """A core/v1 Event whose name is a digest of its content, so that the same news is never posted twice."""
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
