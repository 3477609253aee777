# SPDX-License-Identifier: Apache-2.0
"""When a server is asked again: one rule for hubs, stores and web servers."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from tuneyard_api.pod_contract import FailureClass

from tuneyard_trainer.pod.failures import StageFailure

_PAUSES_SECONDS = (1.0, 2.0, 4.0)
"""Pauses before each further try at what failed on the way or at the server, unless the server asks for a longer one."""
_LONGEST_PAUSE_SECONDS = 120.0
"""Where a server asks for more than this, the stage fails and the operator tries it again later."""

_Answer = TypeVar("_Answer")


def patiently(ask: Callable[[], _Answer]) -> _Answer:
    """The answer of a server, which is asked again after UpstreamUnavailable, as such failures pass by themselves.

    Raises:
        StageFailure: of the last try; of another class, of the first.
    """
    for pause in _PAUSES_SECONDS:
        try:
            return ask()
        except StageFailure as failure:
            wanted = max(pause, pause_asked_for(failure))
            if failure.failure_class is not FailureClass.UPSTREAM or wanted > _LONGEST_PAUSE_SECONDS:
                raise
            time.sleep(wanted)
    return ask()


def pause_asked_for(failure: BaseException) -> float:
    """Seconds of the header Retry-After of the answer behind a failure, a number or a date; 0 where there is none."""
    error: BaseException | None = failure
    while error is not None:
        headers = _headers_of(error)
        value = str(headers.get("Retry-After") or headers.get("retry-after") or "").strip()
        if value.isdecimal():
            return float(value)
        if value:
            return _seconds_until(value)
        error = error.__cause__
    return 0.0


def _headers_of(error: BaseException) -> Mapping[str, str]:
    """The headers of an answer as httpx, urllib or botocore keep it with their errors."""
    answer = getattr(error, "response", None)
    if isinstance(answer, dict):
        found = answer.get("ResponseMetadata", {}).get("HTTPHeaders")
    else:
        found = getattr(answer, "headers", None) or getattr(error, "headers", None)
    headers: Mapping[str, str] = found or {}
    return headers


def _seconds_until(date: str) -> float:
    try:
        at = parsedate_to_datetime(date)
    except ValueError:
        return 0.0
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())
