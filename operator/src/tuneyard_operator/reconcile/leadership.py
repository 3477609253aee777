# SPDX-License-Identifier: Apache-2.0
"""Leader election by a coordination.k8s.io Lease, with the semantics of Kubernetes' own controllers.

A lease of another replica counts as expired when it has not changed for its duration by our own steady clock: no two
wall clocks are compared, so clocks that differ or jump do no harm. The holder gives up well before others may
take it, and looks at its steady clock before it creates anything (the process may have been paused). If two replicas work
at once all the same, neither undoes what the other did: a write is create-only, or bound to the version it was decided on.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tuneyard_api import names

from tuneyard_operator.ports import Clock, Cluster, ClusterError, Object

log = logging.getLogger(__name__)
LEASE = names.FIELD_MANAGER
"""Name of the Lease."""
_RENEW_WITHIN, _TRY_EVERY = 10 / 15, 2 / 15
"""Shares of the lease's duration, as in client-go: 15 s, renewed within 10 s, tried every 2 s."""
_MICRO_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


@dataclass
class Leadership:
    """The lease, and whether it is ours."""

    cluster: Cluster
    clock: Clock
    namespace: str
    identity: str
    """Name of this replica. A process that restarts under the same name keeps its own lease at once."""
    seconds: float
    """Duration of the lease."""
    steady: Callable[[], float] = time.monotonic
    _lease: Object | None = None
    """The lease as it was last seen."""
    _since: float = 0.0
    """Time at which this state was first seen, by the steady clock."""
    _said: str = ""
    _renewed: float = float("-inf")
    """When the request that renewed our lease last was sent, by the steady clock."""

    def is_safe(self) -> bool:
        """Whether nobody else can hold the lease: false in a process that was paused, before it knows that it was."""
        return self.steady() - self._renewed < self.seconds

    async def work_while_held(self, work: Callable[[], Awaitable[None]]) -> None:
        """Loop for ever: wait for the lease, run `work` until the lease is lost, cancel it, wait again.

        The lease is released when this is cancelled or `work` raises, so that the next replica need not wait.
        """
        while True:
            while not await self.try_to_hold(self.seconds * _RENEW_WITHIN):  # noqa: ASYNC110  others' doing, no event
                await asyncio.sleep(self.seconds * _TRY_EVERY)
            log.info("%s holds the lease %s/%s and works", self.identity, self.namespace, LEASE)
            working = asyncio.ensure_future(work())
            try:
                await self._renew_until_lost(working)
            except BaseException:
                await _end(working)
                await self._give_back()
                raise
            await _end(working)
            log.warning("the lease %s/%s is lost; %s only watches", self.namespace, LEASE, self.identity)

    async def _renew_until_lost(self, working: asyncio.Future[None]) -> None:
        while True:
            await asyncio.wait({working}, timeout=self.seconds * _TRY_EVERY)
            if working.done():
                working.result()
                raise AssertionError("the work of an operator does not end")
            left = self._renewed + self.seconds * _RENEW_WITHIN - self.steady()
            renewed = left > 0 and await self.try_to_hold(left)
            if not renewed and (left <= 0 or self._holder() != self.identity):
                return

    async def try_to_hold(self, seconds: float) -> bool:
        """Take or renew the lease if that is allowed now, within so many seconds; whether it is ours."""
        try:
            async with asyncio.timeout(seconds):
                if self._holder() == self.identity and await self._write(self._lease):
                    return True  # Renewed without reading it again: nobody has changed it.
                self._see(await self.cluster.read("Lease", self.namespace, LEASE))
                return self._is_free() and await self._write(self._lease)
        except (ClusterError, TimeoutError) as error:
            said = (
                f"can't take or renew the lease {self.namespace}/{LEASE}: {str(error) or 'no answer in time'}"
            )
            if said != self._said:
                log.warning("%s; tries again", said)
            self._said = said
            return False

    def _see(self, lease: Object | None) -> None:
        if _version(lease) != _version(self._lease):
            self._since = self.steady()
        self._lease = lease

    def _holder(self) -> str:
        return str(_spec(self._lease).get("holderIdentity") or "")

    def _is_free(self) -> bool:
        if self._holder() in {"", self.identity}:
            return True
        duration = float(_spec(self._lease).get("leaseDurationSeconds") or self.seconds)
        return self.steady() - self._since >= duration

    async def _write(self, former: Object | None) -> bool:
        """Put our name into the lease as it was last seen; False when somebody else has written it since."""
        now, began = self.clock.now().astimezone(UTC), self.steady()
        body = build_lease(self.namespace, self.identity, self.seconds, now, former)
        written = await (self.cluster.create(body) if former is None else self.cluster.replace(body))
        if written is None:
            return False
        self._see(written)
        self._said, self._renewed = "", began
        return True

    async def _give_back(self) -> None:
        """Release the lease, best effort: it would expire anyway."""
        if self._holder() != self.identity or self._lease is None:
            return
        spec = {**_spec(self._lease), "holderIdentity": "", "leaseDurationSeconds": 1}
        try:
            async with asyncio.timeout(2):
                await self.cluster.replace({**self._lease, "spec": spec})
        except (ClusterError, TimeoutError) as error:
            log.info("the lease could not be released: %s", error)


def build_lease(
    namespace: str, identity: str, seconds: float, now: datetime, former: Object | None
) -> dict[str, Any]:
    """The Lease with `identity` as its holder; `former` is what it replaces."""
    before = _spec(former)
    is_renewed = before.get("holderIdentity") == identity
    moment = now.strftime(_MICRO_TIME)
    spec = {
        "holderIdentity": identity,
        "leaseDurationSeconds": max(1, round(seconds)),
        "acquireTime": (before.get("acquireTime") if is_renewed else None) or moment,
        "renewTime": moment,
        "leaseTransitions": int(before.get("leaseTransitions") or 0)
        + (former is not None and not is_renewed),
    }
    metadata = former["metadata"] if former is not None else {"namespace": namespace, "name": LEASE}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def _spec(lease: Object | None) -> dict[str, Any]:
    return dict((lease or {}).get("spec") or {})


def _version(lease: Object | None) -> str:
    return str((lease or {"metadata": {}})["metadata"].get("resourceVersion", ""))


async def _end(working: asyncio.Future[None]) -> None:
    """Cancel the work and wait for its end; the next pass picks up whatever was half done."""
    working.cancel()
    await asyncio.wait({working})
