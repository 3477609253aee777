# SPDX-License-Identifier: Apache-2.0
"""One port for the kubelet and for Prometheus: /healthz, /readyz, /metrics."""

from collections.abc import Callable, Iterable, Mapping

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

_BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 2, 10)


class _JobStates(Collector):
    def __init__(self, counts: Callable[[], Mapping[str, int]]) -> None:
        self._counts = counts

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily("tuneyard_jobs", "FineTuneJobs by state", labels=["state"])
        for state, count in sorted(self._counts().items()):
            family.add_metric([state], count)
        yield family


class Metrics:
    """The Meter port, and all other metrics that Prometheus reads."""

    def __init__(self, states: Callable[[], Mapping[str, int]], queued: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_JobStates(states))
        self._seconds = Histogram(
            "tuneyard_reconcile_seconds",
            "Duration of one pass in seconds",
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._errors = Counter("tuneyard_reconcile_errors", "Number of failed passes", registry=self.registry)
        self._requests = Counter(
            "tuneyard_api_requests",
            "Number of requests to the Kubernetes API without watches; code 0 means no answer",
            ["verb", "resource", "code"],
            registry=self.registry,
        )
        depth = Gauge(
            "tuneyard_queue_length", "Number of FineTuneJobs that wait for a pass", registry=self.registry
        )
        depth.set_function(queued)

    def passed(self, seconds: float, *, failed: bool) -> None:
        """See `ports.Meter`."""
        self._seconds.observe(seconds)
        if failed:
            self._errors.inc()

    def requested(self, verb: str, resource: str, code: int) -> None:
        """Count a finished request to the Kubernetes API."""
        self._requests.labels(verb, resource, str(code)).inc()


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
