# SPDX-License-Identifier: Apache-2.0
"""What the parts of a world know of each other, so that none of them imports the world that is made of them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

from tuneyard_api.status import FineTuneJobStatus
from tuneyard_operator.ports import RefusedError

Name = tuple[str, str, str]
"""Kind, namespace and name of an object."""


class AnyCluster(Protocol):
    """The objects of the API server."""

    objects: dict[Name, dict[str, Any]]
    events: list[dict[str, Any]]
    refuse: dict[str, RefusedError]

    def store(self, kind: str, body: Mapping[str, Any]) -> dict[str, Any]: ...

    def remove(self, kind: str, name: str, namespace: str = "team") -> None: ...

    def of_kind(self, kind: str) -> list[dict[str, Any]]: ...


class AnyWorld(Protocol):
    """Objects, a clock, and what controllers and kubelets do."""

    moment: datetime
    told: list[tuple[str, str, dict[str, Any]]]
    makers: dict[str, Mapping[str, Any]]
    taken: set[str]
    registry: set[str]
    let_go: set[str]

    @property
    def cluster(self) -> AnyCluster: ...

    def now(self) -> datetime: ...

    def delete(self, kind: str, name: str) -> None: ...

    def collect_garbage(self) -> None: ...

    def make_pod(self, job: str, suffix: str = "x", **status: Any) -> str: ...

    def run_pod(self, name: str) -> None: ...

    def end_pod(
        self, name: str, *, exit_code: int = 0, message: str = "", reason: str = "Completed", **more: Any
    ) -> None: ...

    def set_job(self, name: str, **status: Any) -> None: ...

    def fail_job(self, name: str) -> None: ...

    def pods_of_job(self, job: Mapping[str, Any]) -> list[dict[str, Any]]: ...


class JudgedWorld(AnyWorld, Protocol):
    """A world that somebody judges."""

    @property
    def job(self) -> dict[str, Any] | None: ...

    @property
    def status(self) -> FineTuneJobStatus: ...

    def live_jobs(self, owner: str | None = None) -> dict[str, str]: ...
