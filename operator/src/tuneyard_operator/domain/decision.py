# SPDX-License-Identifier: Apache-2.0
"""The outcome of a pass: objects to create, the status to write, the time of the next look, and Events for people."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from tuneyard_api.pod_contract import Stage
from tuneyard_api.status import ConditionType, FineTuneJobStatus

from tuneyard_operator.domain.customizations import Order, ServiceTrouble
from tuneyard_operator.domain.frozen import Frozen


@dataclass(frozen=True, slots=True)
class Create:
    """Create one object if it is not there; never change one that is."""

    step: ConditionType
    """Condition that reports it when the API server refuses the object."""
    body: Mapping[str, Any]
    attempt: tuple[Stage, int] | None = None
    """The attempt that this object is, if it is a stage's Job."""
    frozen: Frozen | None = None
    """Content of the plan's ConfigMap, if the object is that ConfigMap."""

    @property
    def kind(self) -> str:
        """`Job`, `ConfigMap`, ..."""
        return str(self.body["kind"])

    @property
    def name(self) -> str:
        """Name of the object."""
        return str(self.body["metadata"]["name"])


@dataclass(frozen=True, slots=True)
class Submit:
    """Start a customization in a service that trains, with the entities that it needs; nothing that is there is changed."""

    step: ConditionType
    """Condition that reports it when the service refuses it."""
    order: Order
    attempt: tuple[Stage, int]

    kind: ClassVar[str] = "Customization"

    @property
    def name(self) -> str:
        """Name of the customization."""
        return self.order.name


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel a customization; one that is over or gone is left as it is."""

    address: str
    """Address of the Customizer."""
    id: str
    name: str

    kind: ClassVar[str] = "Customization"
    step: ClassVar[ConditionType] = ConditionType.TRAINED


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete one object, and no other of its name. Its pods get SIGTERM, and the object stays until they are gone."""

    kind: str
    name: str
    uid: str
    is_by_status: bool = False
    """Whether it is wrong once somebody has written another status or spec: then it is not done."""


@dataclass(frozen=True, slots=True)
class Note:
    """An Event for people who look at the job with `kubectl describe`."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Tell:
    """Post an Event before the next action. A job that is being deleted gets no new status, so Events must tell."""

    note: Note


@dataclass(frozen=True, slots=True)
class SetFinalizers:
    """Replace the FineTuneJob's finalizers; removing the last one lets Kubernetes delete the job."""

    finalizers: tuple[str, ...]


Action = Create | Submit | Cancel | Delete | Tell | SetFinalizers


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome of one pass."""

    actions: tuple[Action, ...]
    status: FineTuneJobStatus
    requeue_after: float | None = None
    """Seconds until the next look unless an event comes first; None: only an event makes the job due."""
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """The API server would not create an object, or a service did not do as asked."""

    action: Create | Submit | Cancel
    cause: Literal["Conflict", "Forbidden", "NamespaceTerminating", "Invalid", "Service"]
    """Conflict: somebody else's object has the name. Forbidden: quota, policy or rights. Invalid: never possible."""
    message: str
    trouble: ServiceTrouble | None = None
    """What a service answered, with cause Service."""
