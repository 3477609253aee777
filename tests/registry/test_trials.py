# SPDX-License-Identifier: Apache-2.0
"""A served name moves to a new version only after the server was asked with it under a name of its own."""

import shutil
import time

import pytest
from support.registry.adapters import publish
from tuneyard_api.registry import Question, Trial, trial_name
from tuneyard_sync.servers import FolderServer
from tuneyard_sync.trials import alike


def trial(answer, messages=None):
    """Two questions, which the evaluation answered so."""
    questions = tuple(Question(prompt=f"say it {n}", messages=messages, answer=answer) for n in range(2))
    return Trial(questions=questions, max_new_tokens=7)


@pytest.fixture
def first(bench):
    """A version that is served."""
    version = publish(bench.registry, "a", b"the answer of old")
    bench.run()
    return version


def paths(bench):
    return [(path, body["lora_name"]) for path, body in bench.vllm.asked if path.endswith("lora_adapter")]


def test_a_version_that_answers_as_it_was_evaluated_takes_the_name(bench, first):
    bench.vllm.asked.clear()
    second = publish(bench.registry, "a", b"a new answer", trial=trial("a new answer"))
    status = bench.run()
    tried = trial_name("a", second.digest)
    assert paths(bench) == [
        ("/v1/load_lora_adapter", tried),
        ("/v1/unload_lora_adapter", tried),
        ("/v1/load_lora_adapter", "a"),
    ]
    asked = [body for path, body in bench.vllm.asked if path == "/v1/completions"]
    assert [(body["model"], body["prompt"], body["max_tokens"], body["temperature"]) for body in asked] == [
        (tried, f"say it {n}", 7, 0) for n in range(2)
    ]
    assert bench.served() == {"a": b"a new answer"}
    assert (bench.target / "a").readlink().as_posix() == second.path
    assert (status.adapters[0].loaded, status.adapters[0].problem) == (True, None)


def test_a_chat_is_asked_as_a_chat(bench, first):
    messages = ({"role": "user", "content": "say it"},)
    publish(bench.registry, "a", b"a new answer", trial=trial("a new answer", messages))
    bench.run()
    assert [body["messages"] for path, body in bench.vllm.asked if "chat" in path] == [list(messages)] * 2
    assert bench.served() == {"a": b"a new answer"}


def test_a_version_that_answers_something_else_leaves_the_name_where_it_is(bench, first):
    second = publish(bench.registry, "a", b"0123456789 ?!", trial=trial("a new answer"))
    status = bench.run()
    assert bench.served() == {"a": b"the answer of old"}
    assert (bench.target / "a").readlink().as_posix() == first.path
    (adapter,) = status.adapters
    assert (adapter.digest, adapter.loaded) == (second.digest, False)
    assert "answers 2 held-out questions unlike the evaluation did (similarity 0." in adapter.problem
    assert f"a stays with {first.digest}" in adapter.problem
    assert adapter.refused == adapter.problem, "the operator reads it, and ends the job with it"


def test_how_alike_is_enough_is_what_the_job_said(bench, first):
    one_word_off = trial("a new reply").model_copy(update={"min_similarity": 0.99})
    publish(bench.registry, "a", b"a new answer", trial=one_word_off)
    assert "at least 0.99 is wanted" in bench.run().adapters[0].refused
    publish(
        bench.registry, "a", b"a new thing", trial=one_word_off.model_copy(update={"min_similarity": 0.1})
    )
    assert bench.run().adapters[0].refused is None
    assert bench.served() == {"a": b"a new thing"}


def test_it_is_tried_again_and_takes_the_name_when_it_answers_right(bench, first):
    """What was wrong may have been the server."""
    second = publish(bench.registry, "a", b"a new answer", trial=trial("a new answer"))
    bench.vllm.says = {trial_name("a", second.digest): "!!!!!!!!"}
    bench.run()
    assert bench.served() == {"a": b"the answer of old"}
    bench.vllm.says = {}
    assert bench.run().adapters[0].problem is None
    assert bench.served() == {"a": b"a new answer"}


def test_a_version_that_can_not_be_loaded_leaves_the_name_where_it_is(bench, first):
    second = publish(bench.registry, "a", b"a new answer", trial=trial("a new answer"))
    bench.vllm.refuses = {trial_name("a", second.digest): "rank 64 is above 32"}
    assert "rank 64 is above 32" in bench.run().adapters[0].problem
    assert bench.served() == {"a": b"the answer of old"}


@pytest.mark.parametrize("restarts", ["server", "container", "pod"])
def test_the_former_version_comes_back_whatever_restarts(bench, first, restarts):
    second = publish(
        bench.registry, "a", b"0123456789 ?!", trial=trial("a new answer"), replaces=first.digest
    )
    bench.run()
    if restarts == "pod":
        shutil.rmtree(bench.target)
    if restarts != "container":
        bench.vllm.restart()
    if restarts != "server":
        bench.start()
    status = bench.run()
    assert bench.served() == {"a": b"the answer of old"}
    assert status.adapters[0].digest == second.digest
    assert "unlike the evaluation" in status.adapters[0].problem


def test_a_new_pod_serves_the_former_version_until_the_new_one_was_tried(bench, first):
    second = publish(bench.registry, "a", b"a new answer", trial=trial("a new answer"), replaces=first.digest)
    bench.run()
    shutil.rmtree(bench.target)
    bench.vllm.restart()
    bench.vllm.asked.clear()
    bench.start()
    bench.run()
    loads = [body["lora_path"] for path, body in bench.vllm.asked if path == "/v1/load_lora_adapter"]
    assert loads == [str(bench.target / version.path) for version in (first, second, second)]
    assert bench.served() == {"a": b"a new answer"}


def test_without_a_former_version_there_is_nothing_to_keep(bench):
    gone = f"sha256:{'0' * 64}"
    publish(bench.registry, "a", b"0123456789 ?!", trial=trial("a new answer"), replaces=gone)
    bench.run()
    assert bench.served() == {"a": b"0123456789 ?!"}


def test_a_kill_in_the_middle_of_a_trial_leaves_no_name_behind(bench, first):
    second = publish(bench.registry, "a", b"a new answer", trial=trial("a new answer"))
    folder = bench.target / second.path
    bench.vllm.loaded[trial_name("a", second.digest)] = (str(folder), b"a new answer")
    bench.start()
    bench.run()
    assert list(bench.vllm.loaded) == ["a"]


def test_a_server_that_is_not_asked_moves_at_once(bench, tmp_path):
    bench.start(server=FolderServer())
    publish(bench.registry, "a", b"one")
    bench.run()
    second = publish(bench.registry, "a", b"two", trial=trial("something else"))
    bench.run()
    assert (bench.target / "a").readlink().as_posix() == second.path


def test_long_answers_that_repeat_themselves_are_compared_in_no_time():
    began = time.process_time()
    alike("0 " * 50_000, "0 0 1 " * 20_000)
    assert time.process_time() - began < 30, "it was hours"


def test_a_word_that_was_chosen_differently_is_alike_and_noise_is_not():
    answer = "The capital of France is Paris, which lies on the Seine."
    assert alike(answer, "The capital of France is Paris, and it lies at the Seine.") > 0.8
    assert alike(answer, "0 0 0 0 0 0 0 0 0 0 0 0 0") < 0.5
    assert alike(answer, "") == 0
    assert alike("", " \n") == 1
