# SPDX-License-Identifier: Apache-2.0
"""Several processes make of records what one makes, and one that is killed is said."""

import json
import os
import signal
import sys
import time

import numpy as np
import pytest
from tuneyard_data import workers
from tuneyard_data.loading import Reading, load_splits
from tuneyard_data.records import DataFile
from tuneyard_data.refused import DataRefused, RecordsRefused
from tuneyard_data.report import build_report
from tuneyard_data.workers import Workers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is one process elsewhere")


@pytest.fixture
def cores(monkeypatch):
    return lambda count: monkeypatch.setenv("RAYON_NUM_THREADS", str(count))


def test_results_come_in_the_order_of_the_batches(cores):
    cores(3)
    here = os.getpid()

    def work(number):
        time.sleep(0.02 * (number % 3))
        return number, os.getpid()

    with Workers(work) as several:
        found = list(several.results(range(30)))
        assert [number for number, _ in found] == list(range(30))
        assert len({process for _, process in found} - {here}) > 1
        assert {process for _, process in found[: workers._ALONE]} == {here}


def test_a_process_that_is_killed_ends_the_work(cores):
    cores(2)

    def work(number):
        if number == 12:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with (
        pytest.raises(MemoryError, match="a process that reads records was killed"),
        Workers(work) as several,
    ):
        list(several.results(range(100)))


def test_what_the_work_raises_is_raised(cores):
    cores(2)

    def work(number):
        if number == 12:
            raise DataRefused("no")
        return number

    with pytest.raises(DataRefused, match="no"), Workers(work) as several:
        list(several.results(range(100)))


def chats(count: int) -> list[str]:
    """Some of them twice, with an address, in another language."""
    texts = ["It is the answer that you want.", "Das ist nicht die Antwort.", "write to a.b@example.org"]
    return [
        json.dumps({"prompt": f"question {n % 1900}?", "completion": texts[n % 3] + " more" * (n % 7)})
        for n in range(count)
    ]


def loaded(folder, lines, name):
    paths = []
    for number, part in enumerate((lines[:1700], lines[1700:])):
        paths.append(folder / f"{name}{number}.jsonl")
        paths[-1].write_text("\n".join(part) + "\n")
    files = [DataFile("training", path, f"t{number}.jsonl") for number, path in enumerate(paths)]
    read = []
    splits = load_splits(Reading(folder=folder), files, None, read.append)
    return splits["training"], build_report(splits, None, 2048, "digest"), read


def test_several_processes_find_what_one_finds(tmp_path, cores):
    lines = chats(3000)
    cores(1)
    alone, report, _ = loaded(tmp_path, lines, "a")
    cores(2)
    several, same, read = loaded(tmp_path, lines, "b")
    assert same.content() == report.content()
    assert np.array_equal(several.exact.array, alone.exact.array)
    assert [str(several.places[at]) for at in (0, 1699, 1700, 2999)] == [
        "t0.jsonl:1:1", "t0.jsonl:1700:1", "t1.jsonl:1:1", "t1.jsonl:1300:1",
    ]  # fmt: skip
    assert read == sorted(read)
    assert read[-1] == 3000


def test_problems_of_all_processes_are_told_in_their_order(tmp_path, cores):
    lines = chats(3000)
    for number in (1500, 1501, 2500):
        lines[number] = json.dumps({"prompt": number, "completion": "yes"})
    lines[1502] = lines[2600] = "no JSON"
    said = []
    for count in (1, 2):
        cores(count)
        with pytest.raises(RecordsRefused) as refused:
            loaded(tmp_path, lines, str(count))
        said.append(str(refused.value))
    assert said[0] == said[1]
    assert [line.split(": ")[0] for line in said[0].splitlines()[1:]] == [
        "t0.jsonl:1501:2", "t0.jsonl:1502:2", "t0.jsonl:1503:1", "t1.jsonl:801:2", "t1.jsonl:901:1",
    ]  # fmt: skip
