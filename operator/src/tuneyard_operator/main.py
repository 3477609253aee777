# SPDX-License-Identifier: Apache-2.0
"""`tuneyard-operator`: puts the parts together and runs them until SIGTERM or SIGINT."""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, get_args

import aiohttp
import click
from aiohttp import web

from tuneyard_operator.adapters.clock import SystemClock
from tuneyard_operator.adapters.credentials import Credentials, NoCredentialsError, log_in
from tuneyard_operator.adapters.kubernetes import KubernetesCluster
from tuneyard_operator.adapters.metrics import Metrics, build_app
from tuneyard_operator.adapters.nemo import NemoV1
from tuneyard_operator.adapters.progress import HttpProgress
from tuneyard_operator.adapters.replicas import Replicas
from tuneyard_operator.adapters.servers import HttpModelServers
from tuneyard_operator.adapters.service_calls import ServiceCalls
from tuneyard_operator.domain.measures import census_of
from tuneyard_operator.handlers.watching import WatchLostError, build_settings, is_no_lost_watch, watch
from tuneyard_operator.ports import Cluster, ClusterError, NotServedError
from tuneyard_operator.reconcile.gather import Gatherer
from tuneyard_operator.reconcile.leadership import Leadership
from tuneyard_operator.reconcile.queue import KeyedQueue
from tuneyard_operator.reconcile.reconciler import Reconciler
from tuneyard_operator.reconcile.resync import resync
from tuneyard_operator.reconcile.store import Store
from tuneyard_operator.reconcile.trainings import Trainings
from tuneyard_operator.settings import ENV_PREFIX, Settings

log = logging.getLogger("tuneyard_operator")
_SPARE_CONNECTIONS = 4
_RETRY_SECONDS = 2.0


async def operate(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        NoCredentialsError: when there is no API server to log in to.
    """
    store = Store()
    queue = KeyedQueue(store.has_begun)
    store.changed = queue.add
    credentials, clock = Credentials(), SystemClock()
    metrics = Metrics(
        lambda: census_of(store.statuses(), clock.now()),
        lambda: len(queue),
        lambda: leadership.is_safe(),  # noqa: PLW0108  there is none yet, as its requests are counted here
    )
    cluster = KubernetesCluster(credentials, settings.workers + _SPARE_CONNECTIONS, metrics.requested)
    leadership = Leadership(
        cluster,
        clock,
        namespace=credentials.info.default_namespace or "default",
        identity=settings.identity or socket.gethostname(),
        seconds=settings.lease_seconds,
    )
    async with aiohttp.ClientSession() as session:
        calls = ServiceCalls(session, settings.service_token_file)
        services = NemoV1(calls, calls.token)
        gatherer = Gatherer(
            store,
            cluster,
            HttpModelServers(session, Replicas(cluster)),
            HttpProgress(session),
            Trainings(services),
        )
        reconciler = Reconciler(store, queue, gatherer, cluster, services, clock, metrics, leadership.is_safe)
        ready = asyncio.Event()
        pages = build_app(metrics, lambda: reconciler.longest_pass() < settings.stuck_seconds, ready.is_set)
        runner = web.AppRunner(pages, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, settings.host, settings.port).start()
            log.info("probes and metrics on %s", ", ".join(str(address) for address in runner.addresses))
            is_told_to_stop = False
            while not is_told_to_stop:
                is_told_to_stop = await _work_while_watched(settings, reconciler, leadership, ready)
        finally:
            await runner.cleanup()
            await cluster.close()


async def _work_while_watched(
    settings: Settings, reconciler: Reconciler, leadership: Leadership, ready: asyncio.Event
) -> bool:
    """Work until a signal to stop (true) or until the watches are lost (false)."""
    working = asyncio.create_task(_reconcile(settings, reconciler, leadership, ready), name="reconcile")
    watching = asyncio.create_task(_watch(settings, reconciler.store, working, ready), name="kopf")
    for number in (signal.SIGTERM, signal.SIGINT):  # before kopf handles signals and after it stops
        asyncio.get_running_loop().add_signal_handler(number, watching.cancel)
    try:
        await _until_one_ends(working, watching)
    except WatchLostError as error:
        log.warning("%s; the watches are restarted", error)
        return False
    return True


async def _reconcile(
    settings: Settings, reconciler: Reconciler, leadership: Leadership, ready: asyncio.Event
) -> None:
    """Read everything first, then reconcile while the lease is ours, and resync from time to time."""
    cluster, store = reconciler.cluster, reconciler.store
    await _first_sync(cluster, store)
    log.info(
        "the operator knows the objects of the cluster: %s", store.state_counts() or "no FineTuneJob yet"
    )
    ready.set()

    async def work() -> None:
        await _first_sync(cluster, store)  # The watches may lag behind the last writes of the former holder.
        await reconciler.run(settings.workers)

    async with asyncio.TaskGroup() as group:
        group.create_task(leadership.work_while_held(work))
        group.create_task(_resync_for_ever(settings.resync_seconds, cluster, store))


async def _first_sync(cluster: Cluster, store: Store) -> None:
    """Wait, with a log line, until the API server answers and serves our kinds."""
    said = ""
    while True:
        try:
            await resync(cluster, store)
        except ClusterError as error:
            advice = (
                "; waits for manifests/crds to be applied"
                if isinstance(error, NotServedError)
                else "; tries again"
            )
            if said != str(error):
                log.warning("%s%s", error, advice)
            said = str(error)
            await asyncio.sleep(_RETRY_SECONDS)
        else:
            return


async def _resync_for_ever(seconds: float, cluster: Cluster, store: Store) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await resync(cluster, store)
        except ClusterError as error:
            log.warning("could not compare the watches with the cluster: %s", error)


async def _watch(settings: Settings, store: Store, working: asyncio.Task[None], ready: asyncio.Event) -> None:
    """Start kopf once the kinds are served, as it looks for them only at its start."""
    await ready.wait()

    def stop() -> None:
        ready.clear()
        working.cancel()

    await watch(store, log_in, stop, build_settings(settings.watch_seconds))


async def _until_one_ends(working: asyncio.Task[None], watching: asyncio.Task[None]) -> None:
    """Run both until one ends, by a signal or an error; then cancel the other."""
    await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
    if not working.cancelling():  # otherwise the watches have ended by themselves
        watching.cancel()
        working.cancel()
    for outcome in await asyncio.gather(working, watching, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """A flag and an environment variable for every field of Settings."""
    for name, field in reversed(Settings.model_fields.items()):
        choices = get_args(field.annotation)
        command = click.option(
            f"--{name.replace('_', '-')}",
            envvar=f"{ENV_PREFIX}_{name.upper()}",
            type=click.Choice(choices) if choices else field.annotation,
            default=field.default,
            show_default=True,
            show_envvar=True,
            help=field.description,
        )(command)
    return command


@click.command(context_settings={"max_content_width": 110})
@_options
def main(**values: Any) -> None:
    """Carry FineTuneJobs from data to a served adapter, in a cluster or out of it (KUBECONFIG)."""
    try:
        settings = Settings(**values)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    if settings.log_level != "debug":
        logging.getLogger("kopf").setLevel(logging.WARNING)
        for handler in logging.getLogger().handlers:
            handler.addFilter(is_no_lost_watch)
    try:
        _run(operate(settings))
    except NoCredentialsError as error:
        raise click.ClickException(str(error)) from error


def _run(work: Any) -> None:
    """Run on uvloop where it exists, which kopf does only from its own command line."""
    try:
        import uvloop  # noqa: PLC0415  not on every platform
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)


if __name__ == "__main__":
    main()
