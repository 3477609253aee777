# SPDX-License-Identifier: Apache-2.0
"""One port for the kubelet and for Prometheus: /healthz, /readyz, /metrics.

No series has a job's name: thousands of jobs come and go. Series about jobs come from the replica that holds the Lease
alone, so that sums over replicas are right.
"""

from collections.abc import Callable, Iterable

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from tuneyard_api import series
from tuneyard_api.pod_contract import FailureClass, Stage

from tuneyard_operator.domain.measures import FINAL_ENDINGS, Census, Changes

_PASS_BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 2, 10)
_QUEUE_BUCKETS = (5, 30, 60, 300, 900, 3600, 14_400, 86_400, 604_800)
_SERVED_BUCKETS = (1, 2, 5, 10, 30, 60, 120, 300, 600)


class _Jobs(Collector):
    def __init__(self, census: Callable[[], Census], is_leader: Callable[[], bool]) -> None:
        self._census, self._is_leader = census, is_leader

    def collect(self) -> Iterable[Metric]:
        leads = self._is_leader()
        yield GaugeMetricFamily(*series.LEADER.named, value=float(leads))
        if not leads:
            return
        census = self._census()
        jobs = GaugeMetricFamily(*series.JOBS.named, labels=series.JOBS.labels)
        for labels, count in sorted(census.jobs.items()):
            jobs.add_metric(labels, count)
        yield jobs
        for described, values in ((series.GPUS, census.gpus), (series.LONGEST_WAIT, census.longest_wait)):
            family = GaugeMetricFamily(*described.named, labels=described.labels)
            for state, value in sorted(values.items()):
                family.add_metric([state], value)
            yield family
        yield GaugeMetricFamily(*series.TOKENS_PER_SECOND.named, value=census.tokens_per_second)


class Metrics:
    """The Meter port, and all other metrics that Prometheus reads."""

    def __init__(
        self, census: Callable[[], Census], queued: Callable[[], int], is_leader: Callable[[], bool]
    ) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Jobs(census, is_leader))
        self._seconds = self._histogram(series.PASS_SECONDS, _PASS_BUCKETS)
        self._queue_seconds = self._histogram(series.QUEUE_SECONDS, _QUEUE_BUCKETS)
        self._served_seconds = self._histogram(series.SERVED_SECONDS, _SERVED_BUCKETS)
        self._errors = self._counter(series.PASS_ERRORS)
        self._requests = self._counter(series.API_REQUESTS)
        self._ends = self._counter(series.JOB_ENDS)
        self._failures = self._counter(series.ATTEMPT_FAILURES)
        self._held = self._counter(series.HELD_SECONDS)
        self._useful = self._counter(series.USEFUL_SECONDS)
        self._taken_back = 0
        """What was counted as useful too early, at most 0: the counter stands still until it is made up for."""
        # A series that begins above 0 has no increase for Prometheus, and the first failure would be missed.
        for stage in Stage:
            for failure_class in FailureClass:
                self._failures.labels(stage, failure_class)
        for ending in FINAL_ENDINGS:
            self._ends.labels(*ending)
        depth = Gauge(*series.QUEUE_LENGTH.named, registry=self.registry)
        depth.set_function(queued)

    def passed(self, seconds: float, *, failed: bool) -> None:
        """See `ports.Meter`."""
        self._seconds.observe(seconds)
        if failed:
            self._errors.inc()

    def changed(self, namespace: str, changes: Changes) -> None:
        """See `ports.Meter`."""
        if changes.ended is not None:
            self._ends.labels(*changes.ended).inc()
        for failed in changes.failed:
            self._failures.labels(failed.stage, failed.failure_class).inc()
        for seconds in changes.queue_seconds:
            self._queue_seconds.observe(seconds)
        # The first write of a job adds nothing yet, so the series of its namespace begins at 0 as well.
        self._held.labels(namespace).inc(max(0, changes.held_seconds))
        useful = self._taken_back + changes.useful_seconds
        self._useful.inc(max(0, useful))
        self._taken_back = min(0, useful)
        if changes.served_seconds is not None:
            self._served_seconds.observe(changes.served_seconds)

    def requested(self, verb: str, resource: str, code: int) -> None:
        """Count a finished request to the Kubernetes API."""
        self._requests.labels(verb, resource, str(code)).inc()

    def _counter(self, described: series.Series) -> Counter:
        return Counter(*described.named, described.labels, registry=self.registry)

    def _histogram(self, described: series.Series, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(*described.named, buckets=buckets, registry=self.registry)


def build_app(
    metrics: Metrics, is_alive: Callable[[], bool], is_ready: Callable[[], bool]
) -> web.Application:
    """The web application with the three pages."""

    async def alive(_: web.Request) -> web.Response:
        return _verdict(is_alive())

    async def ready(_: web.Request) -> web.Response:
        return _verdict(is_ready())

    async def scrape(_: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(metrics.registry), content_type="text/plain", charset="utf-8"
        )

    app = web.Application()
    app.add_routes([web.get("/healthz", alive), web.get("/readyz", ready), web.get("/metrics", scrape)])
    return app


def _verdict(good: bool) -> web.Response:
    return web.Response(text="ok\n" if good else "no\n", status=200 if good else 503)
