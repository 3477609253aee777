# SPDX-License-Identifier: Apache-2.0
"""Does the server serve the adapter? Every ready replica must answer with one real token."""

from dataclasses import dataclass
from datetime import timedelta

from tuneyard_api import reasons
from tuneyard_api.serving import Destination
from tuneyard_api.status import WaitingFor

from tuneyard_operator.domain.observed import ReplicaAnswer
from tuneyard_operator.domain.verdict import Check, Verdict, first_verdict

POLL_EVERY = 2.0
"""Seconds between two looks at a server."""
_NAMED = 8
"""Models that a message names."""


@dataclass(frozen=True, slots=True)
class Serving:
    """A published adapter and what the replicas of its server say."""

    endpoint: str
    adapter: str
    answers: tuple[ReplicaAnswer, ...] | None
    """None: not asked yet; empty: no replica is ready."""
    waited: timedelta
    timeout: timedelta


def why_not_served(serving: Serving) -> Verdict | None:
    """None when every ready replica has answered with the adapter."""
    return first_verdict(CHAIN, serving)


def why_base_is_missing(destination: Destination | None, listed: tuple[str, ...] | None) -> Verdict | None:
    """A server that answers lists the base model of the job's adapter; one that does not answer may still come."""
    if destination is None or destination.listed_as is None or listed is None:
        return None
    if destination.listed_as in listed:
        return None
    names = _names(listed)
    return Verdict(
        reasons.BASE_NOT_SERVED,
        f"{destination.endpoint} lists {names} and not its base model {destination.listed_as}, so it could not load the"
        " adapter; try the runtime's servedModels, or serve.disabled: true in a new job",
        final=True,
    )


def server_was_asked(serving: Serving) -> Verdict | None:
    """The server has been asked at least once."""
    if serving.answers is None:
        return Verdict(reasons.WAITING_FOR_ENDPOINT, f"asks {serving.endpoint} for {serving.adapter}")
    return None


def server_is_reached(serving: Serving) -> Verdict | None:
    """At least one replica is ready and answers."""
    answers = serving.answers or ()
    if any(answer.is_reached for answer in answers):
        return None
    problem = f"does not answer: {answers[0].problem}" if answers else "has no ready replica"
    return _late_or_wait(serving, f"{serving.endpoint} {problem}", late=reasons.ENDPOINT_UNREACHABLE)


def each_replica_completes(serving: Serving) -> Verdict | None:
    """Every ready replica has answered with one token."""
    answers = serving.answers or ()
    missing = [answer for answer in answers if not answer.completed]
    if not missing:
        return None
    refused = [answer for answer in missing if answer.has_refused]
    first = (refused or missing)[0]
    of = f"{len(missing)} of {len(answers)} replicas of " if len(answers) > 1 else ""
    which = f"{first.address} " if len(answers) > 1 else "the server "
    return _late_or_wait(
        serving,
        f"{of}{serving.endpoint} {'do' if len(missing) > 1 else 'does'} not serve {serving.adapter}:"
        f" {which}{first.problem}",
        late=reasons.TRIAL_FAILED if refused else reasons.SERVE_TIMEOUT,
    )


CHAIN: tuple[Check[Serving], ...] = (server_was_asked, server_is_reached, each_replica_completes)


def _names(listed: tuple[str, ...]) -> str:
    names = ", ".join(listed[:_NAMED]) or "no model"
    return names if len(listed) <= _NAMED else f"{names} and {len(listed) - _NAMED} more"


def _late_or_wait(serving: Serving, message: str, late: str) -> Verdict:
    if serving.waited < serving.timeout:
        return _wait(serving, message)
    seconds = int(serving.timeout.total_seconds())
    return Verdict(late, f"after {seconds} s {message}", final=True)


def _wait(serving: Serving, message: str) -> Verdict:
    reason = reasons.WAITING_FOR_ENDPOINT
    waiting = WaitingFor(kind="Endpoint", name=serving.endpoint[:256], reason=reason, message=message)
    return Verdict(reason, message, waiting_for=waiting)
