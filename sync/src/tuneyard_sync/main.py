# SPDX-License-Identifier: Apache-2.0
"""`tuneyard-adapter-sync`: reads its settings from the environment and goes on until SIGTERM."""

import os
import signal
import sys
import threading
import time
from collections.abc import Mapping

from tuneyard_sync.bucket import bucket_source
from tuneyard_sync.copies import Copies
from tuneyard_sync.servers import FolderServer, VllmServer
from tuneyard_sync.settings import Settings
from tuneyard_sync.sources import FolderSource
from tuneyard_sync.status import Log, StatusServer
from tuneyard_sync.syncing import Sync

_WRONG_SETTINGS = 2


def main() -> None:
    """The command."""
    try:
        settings = Settings.of(os.environ)
    except ValueError as error:
        print(error, file=sys.stderr, flush=True)
        sys.exit(_WRONG_SETTINGS)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    run(settings, os.environ, stop)


def run(settings: Settings, environ: Mapping[str, str], stop: threading.Event) -> None:
    """Passes until `stop` is set; a folder that can't be used now is tried again."""
    log = Log(lambda line: print(line, flush=True))
    sync = Sync(
        source=FolderSource(settings.source_dir) if settings.source_dir else bucket_source(settings, environ),
        copies=Copies(settings.target_dir, settings.base_model),
        server=VllmServer(settings.server_port) if settings.server == "vllm" else FolderServer(),
        base=settings.base,
        interval=settings.interval_seconds,
        keep_seconds=settings.keep_seconds,
        clock=time.monotonic,
        log=log,
    )
    board = StatusServer(settings.status_port)
    board.start()
    is_clean = False
    try:
        while not stop.is_set():
            try:
                if not is_clean:
                    sync.copies.clean()
                    is_clean = True
                board.status = sync.run_once()
            except OSError as error:
                log.problems({str(settings.target_dir): error.strerror or str(error)})
            stop.wait(settings.interval_seconds)
    finally:
        board.stop()


if __name__ == "__main__":
    main()
