# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ARG002  a fake takes what the port gives
"""What the operator asks besides the API server: an endpoint, a training pod; and who measures it."""

from tuneyard_api.pod_contract import Progress
from tuneyard_operator.domain.observed import EndpointAnswer


class FakeEndpoint:
    """A server that lists what it is told to."""

    def __init__(self) -> None:
        self.answer = EndpointAnswer(models=("base", "a"), completed=True)
        self.asked = 0

    async def ask(self, endpoint: str, adapter: str) -> EndpointAnswer:
        self.asked += 1
        return self.answer


class FakeProgress:
    """A training pod's port."""

    def __init__(self) -> None:
        self.answer: Progress | None = None
        self.asked: list[str] = []

    async def read(self, address: str) -> Progress | None:
        self.asked.append(address)
        return self.answer


class NoMeter:
    def passed(self, seconds: float, *, failed: bool) -> None:
        pass
