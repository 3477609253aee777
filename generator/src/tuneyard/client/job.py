# SPDX-License-Identifier: Apache-2.0
"""A FineTuneJob as it was read from the cluster."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from tuneyard_api import names
from tuneyard_api.status import Attempt, Condition, ConditionType, FineTuneJobStatus, State


@dataclass(frozen=True)
class Job:
    """One FineTuneJob."""

    namespace: str
    name: str
    uid: str
    created: datetime
    labels: Mapping[str, str]
    spec: Mapping[str, Any]
    """The spec as it is in the cluster, with defaults."""
    status: FineTuneJobStatus
    generation: int
    """Number of the latest spec; status.observed_generation is the one that the operator has seen."""
    body: Mapping[str, Any]
    """The whole object as JSON."""

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        """Reads the object's JSON; a status that a newer operator wrote is read as far as it is known."""
        metadata = body["metadata"]
        return cls(
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=metadata["uid"],
            created=datetime.fromisoformat(metadata["creationTimestamp"]),
            labels=metadata.get("labels") or {},
            spec=body["spec"],
            status=FineTuneJobStatus.model_validate(body.get("status") or {}),
            generation=metadata.get("generation") or 1,
            body=body,
        )

    @property
    def has_ended(self) -> bool:
        """Whether it has succeeded or failed; such a job is never started again."""
        return self.status.state in {State.SUCCEEDED, State.FAILED}

    @property
    def requested_by(self) -> str:
        """Who asked for it, by its label `tuneyard.io/requested-by`; empty without one."""
        return self.labels.get(names.LABEL_REQUESTED_BY, "")

    @property
    def gpu_hours(self) -> float:
        """GPU hours until status was last written."""
        return self.status.ledger.gpu_seconds / 3600 if self.status.ledger else 0.0

    @property
    def attempt(self) -> Attempt | None:
        """The attempt that runs, or else the last one."""
        attempts = self.status.attempts
        running = (each for each in attempts if each.outcome == "Running")
        return next(running, attempts[-1] if attempts else None)

    def condition(self, kind: ConditionType) -> Condition | None:
        """The condition of a type, if it is set."""
        return next((each for each in self.status.conditions if each.type is kind), None)
