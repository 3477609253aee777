# SPDX-License-Identifier: Apache-2.0
"""Does the endpoint serve the adapter? Listed first, then one real token; never an assumption."""

from dataclasses import dataclass
from datetime import timedelta

from tuneyard_api import reasons
from tuneyard_api.status import WaitingFor

from tuneyard_operator.domain.observed import EndpointAnswer
from tuneyard_operator.domain.verdict import Check, Verdict, first_verdict

POLL_EVERY = 3.0
"""Seconds between two looks at an endpoint."""
_NAMED = 8
"""Models that a message names."""


@dataclass(frozen=True, slots=True)
class Serving:
    """A published adapter and what its endpoint says."""

    endpoint: str
    adapter: str
    answer: EndpointAnswer | None
    waited: timedelta
    timeout: timedelta


def why_not_served(serving: Serving) -> Verdict | None:
    """None when the endpoint lists the adapter and answered with it."""
    return first_verdict(CHAIN, serving)


def endpoint_was_asked(serving: Serving) -> Verdict | None:
    """Nothing is known yet."""
    if serving.answer is None:
        return Verdict(reasons.WAITING_FOR_ENDPOINT, f"asks {serving.endpoint} for {serving.adapter}")
    return None


def endpoint_answers(serving: Serving) -> Verdict | None:
    """/v1/models answers at all."""
    answer = serving.answer
    if answer is None or answer.models is not None:
        return None
    return _late_or_wait(
        serving, f"{serving.endpoint} does not answer: {answer.problem}", late=reasons.ENDPOINT_UNREACHABLE
    )


def adapter_is_listed(serving: Serving) -> Verdict | None:
    """/v1/models names the adapter."""
    answer = serving.answer
    if answer is None or answer.models is None or serving.adapter in answer.models:
        return None
    listed = ", ".join(answer.models[:_NAMED]) or "no model"
    if len(answer.models) > _NAMED:
        listed += f" and {len(answer.models) - _NAMED} more"
    return _late_or_wait(serving, f"{serving.endpoint} does not list {serving.adapter}; it lists {listed}")


def adapter_completes(serving: Serving) -> Verdict | None:
    """One token came back."""
    answer = serving.answer
    if answer is None or answer.completed:
        return None
    return _late_or_wait(serving, f"{serving.endpoint} lists {serving.adapter}, but {answer.problem}")


CHAIN: tuple[Check[Serving], ...] = (
    endpoint_was_asked,
    endpoint_answers,
    adapter_is_listed,
    adapter_completes,
)


def _late_or_wait(serving: Serving, message: str, late: str = reasons.SERVE_TIMEOUT) -> Verdict:
    if serving.waited < serving.timeout:
        return _wait(serving, message)
    seconds = int(serving.timeout.total_seconds())
    return Verdict(late, f"after {seconds} s {message}", final=True)


def _wait(serving: Serving, message: str) -> Verdict:
    reason = reasons.WAITING_FOR_ENDPOINT
    waiting = WaitingFor(kind="Endpoint", name=serving.endpoint[:256], reason=reason, message=message)
    return Verdict(reason, message, waiting_for=waiting)
