# SPDX-License-Identifier: Apache-2.0
"""The program itself, as its container runs it: killed in the middle, on a disk that is really full, and told wrong things."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support.registry.adapters import publish
from support.registry.bench import Bench
from tuneyard_api.pod_contract import ADAPTER_FILES
from tuneyard_local.network import pick_ports

WEIGHTS = ADAPTER_FILES[1]
COMMAND = [sys.executable, "-m", "tuneyard_sync.main"]
WAIT_SECONDS = 180


def environment(bench: Bench, status_port: int) -> dict[str, str]:
    values = {
        "SOURCE_DIR": bench.registry,
        "TARGET_DIR": bench.target,
        "BASE_REPO": "org/tiny",
        "BASE_REVISION": "v1",
        "BASE_MODEL": "/models/tiny",
        "SERVER": "vllm",
        "SERVER_PORT": bench.vllm.port,
        "INTERVAL_SECONDS": 0.05,
        "KEEP_SECONDS": 1,
        "STATUS_PORT": status_port,
    }
    proxy = {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    return {f"TUNEYARD_SYNC_{name}": str(value) for name, value in values.items()} | proxy


@contextmanager
def running(bench: Bench) -> Iterator[tuple["subprocess.Popen[str]", Callable[[], Any]]]:
    port = pick_ports(["status"], random.SystemRandom())["status"]
    process = subprocess.Popen(
        COMMAND,
        env=environment(bench, port),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def status() -> Any:
        try:
            with opener.open(f"http://127.0.0.1:{port}/adapters", timeout=5) as answer:
                return json.load(answer)
        except OSError:
            return {"adapters": []}

    try:
        yield process, status
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def rows_when(status: Callable[[], Any], is_so: Callable[[list[Any]], Any]) -> list[Any]:
    """The adapters of the first status of which this is so: what one pass found belongs together."""
    until = time.monotonic() + WAIT_SECONDS
    while True:
        rows: list[Any] = status()["adapters"]
        if is_so(rows):
            return rows
        assert time.monotonic() < until, rows
        time.sleep(0.02)


def test_killed_again_and_again_it_brings_everything_and_shows_no_part_of_it(bench):
    contents = {f"a{number}": os.urandom(4 << 20) for number in range(4)}
    for name, content in contents.items():
        publish(bench.registry, name, content)
    kills, rng = 0, random.Random(5)
    while kills < 12:
        with running(bench) as (process, _):
            time.sleep(rng.uniform(0.4, 1.0))
            process.send_signal(signal.SIGKILL)
            kills += 1
        for name in (path.name for path in bench.target.glob("[!.]*")):
            assert (bench.target / name / WEIGHTS).read_bytes() == contents[name]
    with running(bench) as (process, status):
        rows_when(status, lambda rows: sum(bool(each.get("loaded")) for each in rows) == len(contents))
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_SECONDS) == 0
    assert bench.served() == contents
    assert sorted(path.name for path in bench.target.rglob(".*")) == [".store"]


@pytest.fixture
def small_target(bench: Bench) -> Iterator[None]:
    """The server's folder is a file system of 8 MiB of its own."""
    bench.target.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(bench.target)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets this user mount no small file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(bench.target)], check=True)


@pytest.mark.usefixtures("small_target")
def test_on_a_full_disk_what_fits_is_served_and_the_rest_when_there_is_room(bench):
    for name, mebibytes in (("a-small", 1), ("b-large", 6), ("c-large", 6)):
        publish(bench.registry, name, os.urandom(mebibytes << 20))
    with running(bench) as (_, status):
        small, large, other = rows_when(status, lambda rows: len(rows) == 3 and rows[1].get("loaded"))
        assert (small["loaded"], large["loaded"], other["loaded"]) == (True, True, False)
        assert other["problem"] == (
            f"{bench.target}: No space left on device; try a larger volume beside the server, or fewer adapters in the"
            " registry"
        )
        assert set(bench.served()) == {"a-small", "b-large"}
        assert sorted(path.name for path in bench.target.glob("[!.]*")) == ["a-small", "b-large"]
        (bench.registry / "b-large").unlink()
        rows = rows_when(status, lambda rows: rows and rows[-1].get("loaded") is True)
        assert [each["name"] for each in rows] == ["a-small", "c-large"]


def test_wrong_settings_end_the_program_with_a_line_for_each(bench):
    values = environment(bench, 1) | {"TUNEYARD_SYNC_SERVER": "tgi", "TUNEYARD_SYNC_SORCE_DIR": "/x"}
    done = subprocess.run(COMMAND, env=values, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "TUNEYARD_SYNC_SERVER: Input should be 'vllm' or 'nim'",
        "TUNEYARD_SYNC_SORCE_DIR: Extra inputs are not permitted",
    ]
