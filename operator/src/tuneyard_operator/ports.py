# SPDX-License-Identifier: Apache-2.0
"""What the reconcile core needs of the world, as Protocols: adapters implement them, tests fake them."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from tuneyard_api.customizer import Customizer
from tuneyard_api.pod_contract import Progress
from tuneyard_api.serving import Destination

from tuneyard_operator.domain.customizations import Order, SeenCustomization, SeenOutput, ServiceTrouble
from tuneyard_operator.domain.measures import Changes
from tuneyard_operator.domain.observed import AskedAdapter, ReplicaAnswer, SeenEvent, SeenQueue

Object = Mapping[str, Any]
"""A Kubernetes object as JSON."""

Watched = Literal["FineTuneJob", "FineTuneRuntime", "Job", "Pod"]
"""Kinds that the operator holds in memory; Jobs and pods only with our label."""


class ClusterError(Exception):
    """The API server was not reached or failed; the same call may work later."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds that the API server asks clients to wait."""


class NotServedError(ClusterError):
    """The API server does not know a kind: its CustomResourceDefinition is not there (yet)."""


class RefusedError(ClusterError):
    """The API server understood the call and refused it; a repetition alone does not help."""

    def __init__(self, cause: Literal["Forbidden", "NamespaceTerminating", "Invalid"], message: str) -> None:
        super().__init__(message)
        self.cause, self.message = cause, message


@dataclass(frozen=True, slots=True)
class Listed:
    """All objects of a kind at one moment."""

    objects: tuple[Object, ...]
    version: int
    """resourceVersion of the list, as a number."""


class Cluster(Protocol):
    """The Kubernetes API, as far as it is used."""

    async def create(self, body: Object) -> Object | None:
        """Create an object; None when one of that name is there already.

        Raises:
            RefusedError: by quota, policy, rights or validation.
            ClusterError: anything else.
        """

    async def read(self, kind: str, namespace: str, name: str) -> Object | None:
        """One object, or None."""

    def pages(self, kind: Watched) -> AsyncIterator[Listed]:
        """All watched objects of a kind, page by page, all pages at one resourceVersion."""

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        """Delete this object in the foreground. One that is gone, or another object of its name, is left alone."""

    async def jobs_of(self, namespace: str, name: str) -> tuple[Object, ...]:
        """The batch/v1 Jobs that are labelled with a FineTuneJob's name."""

    async def queue_of(self, namespace: str, job_uid: str, queue: str) -> SeenQueue:
        """What Kueue says of the Job with this uid, which is in LocalQueue `queue`; also where there is no Kueue."""

    async def pods_of(self, namespace: str, job: str) -> tuple[Object, ...]:
        """The pods of a batch/v1 Job as they are now, not as a watch that may lag behind says."""

    async def all_pods_of(self, namespace: str, name: str) -> tuple[Object, ...]:
        """The pods that are labelled with a FineTuneJob's name, as they are now."""

    async def claims(self, namespace: str) -> frozenset[str]:
        """Names of the PersistentVolumeClaims of a namespace, a few seconds old at most."""

    async def warnings(self, namespace: str) -> tuple[SeenEvent, ...]:
        """Warning events of a namespace but the scheduler's, which pods repeat; some seconds old at most."""

    async def replace(self, body: Object) -> Object | None:
        """Replace an object at its resourceVersion; None when it has changed or is gone."""

    async def set_finalizers(
        self, namespace: str, name: str, uid: str, finalizers: Sequence[str], *, version: int
    ) -> Object | None:
        """Replace a FineTuneJob's finalizers; None when that FineTuneJob is gone.

        Raises:
            ClusterError: also when it is not of resourceVersion `version` any more: others may have set theirs.
        """

    async def patch_status(
        self, namespace: str, name: str, uid: str, status: Object, *, version: int
    ) -> Object | None:
        """Merge `status` into a FineTuneJob's; None when that FineTuneJob is gone.

        Raises:
            ClusterError: also when it is not of resourceVersion `version` any more, so that what was decided on
                something older, by this operator or by another one, is never written.
        """

    async def post_event(self, namespace: str, event: Object) -> None:
        """Post an events.k8s.io/v1 Event; one of that name is left as it is.

        Raises:
            RefusedError: when the namespace takes none, as one that is being deleted.
            ClusterError: anything else.
        """


class ServiceError(Exception):
    """A service that trains did not do as asked."""

    def __init__(self, trouble: ServiceTrouble) -> None:
        super().__init__(f"{trouble.service} at {trouble.address}: {trouble.message}")
        self.trouble = trouble


class TrainingServices(Protocol):
    """The services that train instead of pods. Every call raises ServiceError when the answer is not of use."""

    async def customizations(self, address: str, namespace: str, uid: str) -> tuple[SeenCustomization, ...]:
        """All customizations of the FineTuneJob with this uid, as they are now."""

    async def customization(self, address: str, id: str) -> SeenCustomization | None:  # noqa: A002
        """One customization, or None when it is gone."""

    async def submit(self, order: Order) -> None:
        """Make the entities that are not there, then start the customization. One of its name is left as it is."""

    async def cancel(self, address: str, id: str) -> None:  # noqa: A002
        """Cancel a customization; one that is over or gone is left as it is."""

    async def output(self, service: Customizer, model: str) -> SeenOutput | None:
        """The model `namespace/name@version`, or None while there is none."""


class ModelServers(Protocol):
    """The inference servers that adapters are brought to."""

    async def listed(self, destination: Destination) -> tuple[str, ...] | None:
        """Names of the models that a server lists; None when it does not answer. Never raises."""

    async def ask(self, destination: Destination, adapter: AskedAdapter) -> tuple[ReplicaAnswer, ...]:
        """Whether one token comes back from this version of `adapter`, for each ready replica. Never raises."""


class ProgressReader(Protocol):
    """The live port of a training pod."""

    async def read(self, address: str) -> Progress | None:
        """The pod's progress, or None: best effort. Never raises."""


class Clock(Protocol):
    """The source of the current time."""

    def now(self) -> datetime:
        """The current time, in UTC."""


class Meter(Protocol):
    """Counts what happens, for Prometheus."""

    def passed(self, seconds: float, *, failed: bool) -> None:
        """Count a finished reconcile pass."""

    def changed(self, namespace: str, changes: Changes) -> None:
        """Count what a status write that succeeded has added to a job of this namespace."""
