# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ARG002  a fake takes what the port gives
"""What the operator asks besides the API server: an inference server, a training pod; and who measures it."""

from tuneyard_api.pod_contract import Progress
from tuneyard_api.serving import Destination
from tuneyard_operator.domain.measures import Changes
from tuneyard_operator.domain.observed import AskedAdapter, ReplicaAnswer


class FakeServers:
    """A server whose replicas say what they are told to."""

    def __init__(self) -> None:
        self.replicas: tuple[ReplicaAnswer, ...] = (ReplicaAnswer("10.0.0.1:8000", completed=True),)
        self.models: tuple[str, ...] | None = ("base",)
        self.asked: list[AskedAdapter] = []

    async def listed(self, destination: Destination) -> tuple[str, ...] | None:
        return self.models

    async def ask(self, destination: Destination, adapter: AskedAdapter) -> tuple[ReplicaAnswer, ...]:
        self.asked.append(adapter)
        return self.replicas


class FakeProgress:
    """A training pod's port."""

    def __init__(self) -> None:
        self.answer: Progress | None = None
        self.asked: list[str] = []

    async def read(self, address: str) -> Progress | None:
        self.asked.append(address)
        return self.answer


class FakeMeter:
    def __init__(self) -> None:
        self.changes: list[Changes] = []
        """What each status write added, without those that added nothing."""

    def passed(self, seconds: float, *, failed: bool) -> None:
        pass

    def changed(self, namespace: str, changes: Changes) -> None:
        if changes != Changes():
            self.changes.append(changes)
