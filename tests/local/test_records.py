# SPDX-License-Identifier: Apache-2.0
"""A process is known by more than its number, found without its record, and ended with what it started."""

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tuneyard_local.errors import ClusterError
from tuneyard_local.progress import wait_until
from tuneyard_local.records import Processes, is_alive, marked_processes, start_ticks

SLEEP = ("/usr/bin/sleep", "300")


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    found = Processes(tmp_path / "records", tmp_path / "logs", tmp_path)
    yield found
    found.stop_all(patience_seconds=0)


def test_a_started_process_is_recorded_and_alive_until_it_is_stopped(processes: Processes) -> None:
    record = processes.start("sleeper", SLEEP)
    assert processes.records() == {"sleeper": record}
    assert processes.is_alive("sleeper")
    processes.stop("sleeper")
    assert not processes.is_alive("sleeper")
    assert start_ticks(record.pid) is None
    assert "sleeper" in processes.records(), "the record stays, to start it again"


def test_starting_twice_leaves_the_first_alone(processes: Processes) -> None:
    assert processes.start("sleeper", SLEEP) == processes.start("sleeper", SLEEP)


def test_a_lock_of_whoever_started_us_is_not_handed_on(processes: Processes, tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        os.set_inheritable(lock.fileno(), True)  # noqa: FBT003  as flock(1) hands its lock to what it runs
        record = processes.start("shell", ["/bin/sh", "-c", "sleep 300 & echo up; wait"])
        # Before it is up it opens and closes files of its own: its libraries.
        wait_until("it to be up", lambda: "up" in processes.log("shell").read_text(), 60)
    targets = [str(entry.readlink()) for entry in Path(f"/proc/{record.pid}/fd").iterdir()]
    assert "/dev/null" in targets
    assert str(tmp_path / "lock") not in targets


def test_starting_again_runs_the_same_words_under_a_new_number(processes: Processes) -> None:
    first = processes.start("sleeper", SLEEP)
    processes.kill("sleeper")
    second = processes.start_again("sleeper")
    assert second.pid != first.pid
    assert second.argv == SLEEP


@pytest.mark.parametrize(
    "change", [{"started": 1}, {"exe": "/usr/bin/other"}], ids=["another start time", "another program"]
)
def test_a_number_that_was_given_to_another_process_is_not_ours(
    processes: Processes, change: dict[str, Any]
) -> None:
    record = processes.start("sleeper", SLEEP)
    assert is_alive(record)
    assert not is_alive(dataclasses.replace(record, **change))


def test_what_is_not_ours_is_not_stopped(processes: Processes, tmp_path: Path) -> None:
    record = processes.start("sleeper", SLEEP)
    path = tmp_path / "records" / "sleeper.json"
    path.write_text(json.dumps(dataclasses.asdict(dataclasses.replace(record, started=1))))
    processes.stop("sleeper")
    assert is_alive(record)


def test_a_process_without_a_record_is_found_by_its_marker(processes: Processes, tmp_path: Path) -> None:
    parent = processes.start("shell", ["/bin/sh", "-c", "sleep 300 & wait"])
    wait_until("the child", lambda: len(marked_processes(tmp_path)) == 2, 60)
    (tmp_path / "records" / "shell.json").unlink()
    assert parent.pid in marked_processes(tmp_path)
    processes.stop_all()
    assert marked_processes(tmp_path) == []


def test_the_marker_of_another_cluster_does_not_match(processes: Processes, tmp_path: Path) -> None:
    processes.start("sleeper", SLEEP)
    assert marked_processes(tmp_path / "x") == []
    assert marked_processes(tmp_path.parent) == []


def test_a_process_that_ignores_sigterm_is_killed(processes: Processes, tmp_path: Path) -> None:
    processes.start(
        "stubborn", ["/bin/sh", "-c", f"trap '' TERM; touch {tmp_path}/set; while :; do sleep 0.05; done"]
    )
    wait_until("its trap", (tmp_path / "set").exists, 60)
    processes.stop("stubborn", patience_seconds=0.2)
    assert not processes.is_alive("stubborn")


def test_a_program_that_ends_at_once_is_reported_with_its_last_words(processes: Processes) -> None:
    processes.start("brief", ["/bin/sh", "-c", "echo the reason; exec sleep 0.1"], becomes="/usr/bin/sleep")
    wait_until("its end", lambda: not processes.is_alive("brief"), 60)
    with pytest.raises(ClusterError, match=r"brief has died(?s:.*)the reason"):
        processes.require_alive()


def test_proxies_and_kubeconfigs_of_the_user_do_not_reach_it(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("KUBECONFIG", "/elsewhere")
    record = processes.start("sleeper", SLEEP)
    environment = Path(f"/proc/{record.pid}/environ").read_bytes()
    assert b"PROXY" not in environment
    assert b"KUBECONFIG" not in environment
