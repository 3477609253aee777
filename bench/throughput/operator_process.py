# SPDX-License-Identifier: Apache-2.0
"""The operator as it is delivered, with its default settings, as a process of this machine."""

import os
import random
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from tuneyard_local.cluster import Cluster
from tuneyard_local.network import pick_ports
from tuneyard_local.paths import script
from tuneyard_local.progress import tail, wait_until
from tuneyard_local.records import MARKER

from throughput.api_client import MeasuringError

_PATIENCE_SECONDS = 15.0


@contextmanager
def running_operator(cluster: Cluster) -> Iterator[int]:
    """The process id of an operator that is ready; it is ended, and its log's end printed if anything went wrong."""
    port = pick_ports(["operator"], random.SystemRandom())["operator"]
    # The marker lets the cluster's own `down` find it, should this process be killed.
    environment = {
        **os.environ,
        "KUBECONFIG": str(cluster.kubeconfig),
        MARKER: str(cluster.folder.root),
    }
    log = cluster.folder.logs / "tuneyard-operator.log"
    command = [str(script("tuneyard-operator")), "--host", "127.0.0.1", "--port", str(port)]
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        ) as process,
    ):
        try:
            wait_until("the operator", lambda: _is_ready(process, port), 60)
            yield process.pid
        except BaseException:
            print(f"the operator's log ends:\n{tail(log)}", file=sys.stderr)
            raise
        finally:
            process.terminate()
            try:
                process.wait(_PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _is_ready(process: subprocess.Popen[bytes], port: int) -> bool:
    if process.poll() is not None:
        raise MeasuringError(f"the operator ended at once with exit code {process.returncode}")
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
            return True
    except OSError:
        return False
