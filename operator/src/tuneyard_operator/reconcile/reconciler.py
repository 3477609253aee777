# SPDX-License-Identifier: Apache-2.0
"""The loop: takes a key, makes one pass over it, and says when it is due again."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tuneyard_operator.domain.decide import decide
from tuneyard_operator.domain.decision import Create, Refusal
from tuneyard_operator.domain.measures import changes_between
from tuneyard_operator.domain.refuse import refuse
from tuneyard_operator.ports import Clock, Cluster, ClusterError, Meter, TrainingServices
from tuneyard_operator.reconcile.apply import apply
from tuneyard_operator.reconcile.gather import Gatherer
from tuneyard_operator.reconcile.patience import Patience
from tuneyard_operator.reconcile.queue import Key, KeyedQueue
from tuneyard_operator.reconcile.report import report
from tuneyard_operator.reconcile.store import Store

log = logging.getLogger(__name__)


@dataclass
class Reconciler:
    """Drives every FineTuneJob of the store towards its end."""

    store: Store
    queue: KeyedQueue
    gatherer: Gatherer
    cluster: Cluster
    services: TrainingServices
    clock: Clock
    meter: Meter
    may_write: Callable[[], bool] = lambda: True
    """Whether no other replica can have begun to work."""
    patience: Patience = field(default_factory=Patience)
    _began: dict[Key, float] = field(default_factory=dict)

    async def run(self, workers: int) -> None:
        """Work until cancelled, on at most `workers` keys at once; that also bounds the requests under way."""
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._work())

    def longest_pass(self) -> float:
        """Seconds that the oldest running pass has taken, for the liveness probe."""
        return time.monotonic() - min(self._began.values(), default=time.monotonic())

    async def reconcile(self, key: Key) -> float | None:
        """Make one pass; returns the seconds until the next one is due, or None."""
        now = self.clock.now()
        seen = await self.gatherer.gather(key, now)
        if seen is None:
            self.gatherer.forget(key)
            self.patience.forget(key)
            self.queue.forget(key)
            return None
        decision = decide(seen, now)
        outcome = await apply(
            self.cluster,
            self.services,
            self.store,
            seen,
            decision.actions,
            may_write=self.may_write,
            now=now,
        )
        if isinstance(outcome, Refusal):
            decision = refuse(seen, decision, outcome, now)
            await apply(
                self.cluster,
                self.services,
                self.store,
                seen,
                decision.actions,
                may_write=self.may_write,
                now=now,
            )
        elif outcome.frozen is not None:
            self.gatherer.remember(key, outcome.frozen)
            if outcome.frozen not in (each.frozen for each in decision.actions if isinstance(each, Create)):
                return 0.0  # An earlier process stored another plan, which counts.
        left = self.patience.left(key, seen, decision, now)
        if left is not None:
            return left if decision.requeue_after is None else min(left, decision.requeue_after)
        if await report(self.cluster, self.store, seen, decision, now):
            self.meter.changed(key.namespace, changes_between(seen.status, decision.status))
        return decision.requeue_after

    async def _work(self) -> None:
        while True:
            key = await self.queue.take()
            self._began[key] = began = time.monotonic()
            failed = True
            try:
                after = await self.reconcile(key)
                failed = False
            except ClusterError as error:
                delay = self.queue.failed(key, at_least=error.retry_after)
                log.warning("%s: %s; again in %.0f s", key, error, delay)
            except asyncio.CancelledError:
                self.queue.done(key, requeue_after=0.0)  # The lease is lost; it may come back.
                raise
            except Exception:
                delay = self.queue.failed(key)
                log.exception("%s: a bug in the operator; again in %.0f s", key, delay)
            else:
                self.queue.done(key, requeue_after=after)
            finally:
                del self._began[key]
                self.meter.passed(time.monotonic() - began, failed=failed)
