# SPDX-License-Identifier: Apache-2.0
"""What a service that trains is asked for, and what it says: the same words for every generation of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

CustomizationState = Literal[
    "waiting", "running", "cancelling", "cancelled", "failed", "completed", "unknown"
]
OVER = frozenset({"cancelled", "failed", "completed"})


@dataclass(frozen=True, slots=True)
class ServiceTrouble:
    """A service that did not do as asked."""

    service: str
    """`Customizer`, `Entity Store` or `Data Store`."""
    address: str
    reason: str
    """A constant of `tuneyard_api.reasons`."""
    message: str
    """What it answered, without any secret."""
    final: bool = False
    """Whether the same request would be refused again."""
    again_after: float | None = None
    """Seconds that the service asks clients to wait."""


@dataclass(frozen=True, slots=True)
class SeenCustomization:
    """One customization job of a FineTuneJob, as the service describes it."""

    id: str
    name: str
    made_for: str
    """uid of the FineTuneJob."""
    created: str
    """Time of its creation, which orders jobs of one name."""
    state: CustomizationState
    step: int = 0
    of: int | None = None
    """Optimizer steps of the whole training, if the service says enough to know."""
    loss: float | None = None
    """Latest training loss."""
    best_loss: float | None = None
    """Training loss of the best checkpoint, which is the one that is published."""
    validation_loss: float | None = None
    """Validation loss of that checkpoint."""
    seconds: float = 0.0
    message: str = ""
    """Last words of the service about it."""

    @property
    def is_over(self) -> bool:
        """Whether nothing of it runs any more."""
        return self.state in OVER


@dataclass(frozen=True, slots=True)
class SeenOutput:
    """The model that a customization left, in the Entity Store and the Data Store."""

    state: Literal["uploading", "failed", "complete"]
    place: str
    """Such as `hf://team/a@1f0c-1`."""
    digest: str = ""
    """`sha256:` over name, size and id of each file."""
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Entity:
    """An entity that must be there before a customization starts."""

    service: str
    address: str
    collection: str
    """Path of its kind, such as `/v1/customization/targets`."""
    place: str
    """Path below the collection, such as `meta/llama@2.0`."""
    body: Mapping[str, Any] | None
    """What it is made of when it is not there; None: only others make it."""


@dataclass(frozen=True, slots=True)
class Order:
    """A customization job to start, and the entities that it needs, in order."""

    address: str
    name: str
    needs: tuple[Entity, ...]
    body: Mapping[str, Any]
