# SPDX-License-Identifier: Apache-2.0
"""`tuneyard-server`: parses flags, serves, and ends on SIGTERM or when the model can't be loaded."""

import asyncio
import contextlib
import logging
import os
import signal
import sys

from aiohttp import web

from tuneyard_server.app import FAILED, build_app
from tuneyard_server.settings import Settings, parse_settings

SHUTDOWN_SECONDS = 10.0
LOG = logging.getLogger("tuneyard.server")


async def serve(settings: Settings) -> int:
    """Serves until a signal; exit code 1 when the model can't be loaded."""
    app = build_app(settings)
    # The generation ends when its client is gone, because CPU time is scarce here.
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port)
        await site.start()
        LOG.info("listening on %s", ", ".join(f"http://{host}:{port}" for host, port, *_ in runner.addresses))
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        waits = [asyncio.create_task(stop.wait()), asyncio.create_task(app[FAILED].wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await wait
    finally:
        await runner.cleanup()
    return 1 if app[FAILED].is_set() else 0


def main() -> int:
    """The command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    return asyncio.run(serve(parse_settings(sys.argv[1:], os.environ)))


if __name__ == "__main__":
    sys.exit(main())
