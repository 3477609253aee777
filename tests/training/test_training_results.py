# SPDX-License-Identifier: Apache-2.0
"""Results, failure classes and the one way that a stage ends."""

import errno
import json
import urllib.request

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuneyard_api.durable import write_file
from tuneyard_api.pod_contract import (
    EXIT_CODES,
    MAX_LAST_LINES,
    Failure,
    FailureClass,
    Progress,
    Stage,
    StageResult,
    TrainingMeasures,
)
from tuneyard_data.refused import DataRefused
from tuneyard_trainer.pod.environment import usable_cores
from tuneyard_trainer.pod.failures import StageFailure, classify, is_explained, told
from tuneyard_trainer.pod.progress import Board, describe, served
from tuneyard_trainer.pod.results import earlier_success, encode, result_path, write_result
from tuneyard_trainer.training.launch import root_cause, workers_folder


class OutOfMemoryError(RuntimeError):
    """An error with the name that PyTorch gives it."""


CLASSES = {
    "memory of Python": (MemoryError(), FailureClass.OUT_OF_MEMORY),
    "memory of the GPU": (OutOfMemoryError("CUDA out of memory"), FailureClass.OUT_OF_MEMORY),
    "memory of PyTorch on CPU": (
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        FailureClass.OUT_OF_MEMORY,
    ),
    "full disk": (OSError(errno.ENOSPC, "No space left on device"), FailureClass.DISK_FULL),
    "quota": (OSError(errno.EDQUOT, "Disk quota exceeded"), FailureClass.DISK_FULL),
    "permission": (PermissionError(errno.EACCES, "Permission denied"), FailureClass.PERMISSION_DENIED),
    "read-only volume": (OSError(errno.EROFS, "Read-only file system"), FailureClass.PERMISSION_DENIED),
    "connection": (ConnectionResetError(), FailureClass.UPSTREAM),
    "known": (StageFailure(FailureClass.DATA_MISSING, "x"), FailureClass.DATA_MISSING),
    "data that can't be used": (DataRefused("x"), FailureClass.BAD_INPUT),
    "anything else": (KeyError("x"), FailureClass.BUG),
    "a missing file nobody expected": (FileNotFoundError(errno.ENOENT, "x"), FailureClass.BUG),
    "the keyboard": (KeyboardInterrupt(), FailureClass.INTERRUPTED),
}


@pytest.mark.parametrize(("error", "expected"), CLASSES.values(), ids=CLASSES.keys())
def test_error_is_classified(error, expected):
    assert classify(error).failure_class is expected


@pytest.mark.parametrize("error", [StageFailure(FailureClass.BAD_INPUT, "x"), DataRefused("x")])
def test_what_we_say_ourselves_is_said_as_it_is(error):
    assert classify(error).message == "x"
    assert is_explained(error)
    assert not is_explained(KeyError("x"))


def test_unknown_error_names_the_lines_it_came_from():
    def inner():
        raise KeyError("gone")

    try:
        inner()
    except KeyError as error:
        message = classify(error).message
    assert message.startswith("KeyError: 'gone' in inner (training/test_training_results.py:")


def test_every_failure_class_has_an_exit_code_of_its_own():
    assert len(set(EXIT_CODES.values())) == len(FailureClass) == len(EXIT_CODES)


@given(st.text(max_size=1500), st.lists(st.text(max_size=400), max_size=30))
def test_result_fits_and_stays_readable(message, warnings):
    failure = Failure(failure_class=FailureClass.BAD_INPUT, message=message)
    for result in (
        StageResult(stage=Stage.TRAIN, outcome="Failed", plan_digest="d", failure=failure),
        StageResult(
            stage=Stage.PREPARE, outcome="Succeeded", plan_digest="d", facts={"n": 1, "warnings": warnings}
        ),
    ):
        content = encode(result)
        assert len(content) <= 4096
        again = StageResult.model_validate_json(content)
        assert again.failure is None or message.startswith(again.failure.message.removesuffix("…"))
        assert again.facts.get("n") == result.facts.get("n")


def result_of(digest="d", outcome="Succeeded", stage=Stage.TRAIN):
    return StageResult(stage=stage, outcome=outcome, plan_digest=digest, facts={"steps": 3})


def test_success_of_the_same_plan_is_returned(tmp_path):
    write_result(result_of(), tmp_path, tmp_path / "log")
    assert earlier_success(tmp_path, Stage.TRAIN, "d") == result_of()
    assert (tmp_path / "log").read_bytes() == result_path(tmp_path, Stage.TRAIN).read_bytes()


OTHERS = {
    "another plan": encode(result_of(digest="other")),
    "a failure": encode(result_of(outcome="Failed")),
    "another stage": encode(result_of(stage=Stage.PREPARE)),
    "torn": encode(result_of())[:40],
    "not JSON": b"\x00\xff",
}


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS.keys())
def test_no_other_result_counts_as_done(tmp_path, content):
    path = result_path(tmp_path, Stage.TRAIN)
    path.parent.mkdir()
    path.write_bytes(content)
    assert earlier_success(tmp_path, Stage.TRAIN, "d") is None


def test_progress_port_answers():
    board = Board(Stage.TRAIN, is_quiet=True)
    board.update(phase="training", step=4, of=10, loss=2.5, tokens_per_second=100.0, eta_seconds=6)
    board.update(
        training=TrainingMeasures(trained_tokens=800, tokens_per_second=90.0, peak_memory_bytes=4096)
    )
    with served(board, 0) as port:
        base = f"http://127.0.0.1:{port}"
        with urllib.request.urlopen(f"{base}/progress") as answer:
            assert Progress.model_validate(json.load(answer)).step == 4
        with urllib.request.urlopen(f"{base}/metrics") as answer:
            lines = answer.read().decode().splitlines()
            for name, value in (("loss", 2.5), ("trained_tokens", 800), ("peak_memory_bytes", 4096)):
                assert f'tuneyard_{name}{{stage="train",phase="training"}} {value}' in lines
            assert not any("validation" in line for line in lines), "nothing was measured yet"
        with urllib.request.urlopen(f"{base}/healthz") as answer:
            assert answer.read() == b"ok\n"
        with pytest.raises(urllib.error.HTTPError, match="404") as refused:
            urllib.request.urlopen(f"{base}/other")
        refused.value.close()
        with served(Board(Stage.TRAIN), port) as second:
            assert second is None


def test_the_board_measures_each_phase_and_what_is_not_saved(monkeypatch):
    """The process that does the work measures; another one takes its times over."""
    now = [100.0]
    monkeypatch.setattr("tuneyard_trainer.pod.progress.time.monotonic", lambda: now[0])
    board = Board(Stage.TRAIN, is_quiet=True)
    for phase, seconds in (("evaluating", 5), ("training", 20), ("checkpointing", 30), ("training", 2)):
        now[0] += seconds
        board.update(phase=phase)
        if phase == "training" and seconds == 2:
            board.saved()
    now[0] += 7
    times = board.read().times
    assert times.seconds == {"loading": 5, "evaluating": 20, "training": 30 + 7, "checkpointing": 2}
    assert times.unsaved_seconds == 7
    other = Board(Stage.TRAIN, is_quiet=True)
    now[0] += 50
    other.times_of(times)
    assert other.read().times == times


def test_progress_is_described_in_one_line():
    progress = Progress(
        stage=Stage.TRAIN, phase="training", step=4, of=10, loss=2.5, tokens_per_second=99.6, eta_seconds=6
    )
    assert describe(progress) == "train: training 4/10, loss 2.5000, 100 tokens/s, 6 s left"


@pytest.mark.parametrize(
    ("content", "most"), [("max 100000", 10**6), ("100000 100000", 1), ("50000 100000", 1), ("x", 10**6)]
)
def test_usable_cores_keep_to_the_quota(tmp_path, content, most):
    (tmp_path / "cpu.max").write_text(content)
    assert 1 <= usable_cores(tmp_path) <= most


def test_root_cause_of_a_training_is_what_any_node_knows_better_than_interrupted(tmp_path):
    """Also where the node that is asked only noticed that another one was gone."""
    said = {
        (0, 0): (FailureClass.INTERRUPTED, "another process of the training is gone"),
        (1, 0): (FailureClass.INTERRUPTED, "another process of the training is gone"),
        (1, 1): (FailureClass.OUT_OF_MEMORY, "the GPU is full"),
    }
    for (node, rank), (kind, message) in said.items():
        failure = Failure(failure_class=kind, message=message)
        result = StageResult(stage=Stage.TRAIN, outcome="Failed", plan_digest="d", failure=failure)
        write_file(workers_folder(tmp_path, node) / f"rank-{rank}.json", encode(result))
    cause = root_cause(tmp_path / "results", "d")
    assert (cause.failure_class, str(cause)) == (FailureClass.OUT_OF_MEMORY, "the GPU is full")


def test_the_end_of_the_log_goes_with_a_failure_and_gives_way_to_its_message():
    board = Board(Stage.TRAIN)
    for number in range(30):
        board.say(f"line {number}")
    failure = told(KeyError("x"), board)
    lines = failure.last_lines.splitlines()
    assert lines[-1] == "KeyError: 'x'"
    assert "line 29" in lines
    assert "line 9" not in lines, "the last twenty are enough"
    board.say("x" * 10_000)
    assert len(told(StageFailure(FailureClass.BUG, "m"), board).last_lines) == MAX_LAST_LINES
    wide = Failure(failure_class=FailureClass.BUG, message="é" * 1500, last_lines="\n".join(["ü" * 9] * 150))
    content = encode(StageResult(stage=Stage.TRAIN, outcome="Failed", plan_digest="d" * 64, failure=wide))
    assert len(content) <= 4096
    read = StageResult.model_validate_json(content).failure
    assert read.message == wide.message
    assert set((read.last_lines or "").splitlines()) <= {"ü" * 9}, "whole lines"


def test_a_worker_s_last_lines_are_those_of_its_stage(tmp_path):
    board = Board(Stage.TRAIN)
    board.keep("one\ntwo")
    board.keep(None)
    assert board.last_lines == "one\ntwo"
