# SPDX-License-Identifier: Apache-2.0
"""The small server as clients and the operator see it: a real process, a real (random) model, real adapters."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.adapter_servers import SERVED, AdapterServer
from support.tiny_adapters import CONTEXT, weights_of_another_shape

pytestmark = pytest.mark.torch


def stream_parts(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_greedy_answers_repeat_and_a_list_of_prompts_equals_single_ones(
    own_server: AdapterServer,
) -> None:
    prompts = ["the quick", "lazy dog", "\N{SNOWMAN} and cat"]
    single = [own_server.text(SERVED, prompt) for prompt in prompts]
    body = {"model": SERVED, "prompt": prompts, "temperature": 0, "max_tokens": 12}
    status, answer = own_server.ask("/v1/completions", body)
    assert status == 200
    assert [choice["text"] for choice in answer["choices"]] == single
    assert answer["usage"]["completion_tokens"] == sum(
        12 if c["finish_reason"] == "length" else 0 for c in answer["choices"]
    )
    assert (
        answer["usage"]["total_tokens"]
        == answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
    )


def test_a_seed_repeats_a_sampled_answer_and_another_seed_does_not(own_server: AdapterServer) -> None:
    def draw(seed: int) -> str:
        return own_server.text(SERVED, temperature=1.5, top_p=0.99, seed=seed, max_tokens=24)

    assert draw(7) == draw(7)
    assert len({draw(seed) for seed in range(4)}) > 1


def test_a_stop_string_ends_the_answer_before_it(own_server: AdapterServer) -> None:
    whole = own_server.text(SERVED, max_tokens=24)
    stop = whole[6:8]
    body = {"model": SERVED, "prompt": "the quick", "temperature": 0, "max_tokens": 24, "stop": [stop]}
    _, answer = own_server.ask("/v1/completions", body)
    assert answer["choices"][0]["text"] == whole[: whole.index(stop)]
    assert answer["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("stop", [None, "zz never zz"])
def test_a_stream_adds_up_to_the_answer(own_server: AdapterServer, stop: str | None) -> None:
    whole = own_server.text(SERVED, max_tokens=24)
    body = {
        "model": SERVED,
        "prompt": "the quick",
        "temperature": 0,
        "max_tokens": 24,
        "stop": stop,
        "stream": True,
    }
    status, text = own_server.ask("/v1/completions", body | {"stream_options": {"include_usage": True}})
    parts = stream_parts(text)
    assert status == 200
    assert len(parts) > 3
    assert "".join(part["choices"][0]["text"] for part in parts[:-1]) == whole
    assert parts[-2]["choices"][0]["finish_reason"] == "length"
    assert parts[-1]["usage"]["completion_tokens"] == 24


def test_a_chat_uses_the_template_and_streams_as_deltas(own_server: AdapterServer) -> None:
    body = {
        "model": SERVED,
        "messages": [{"role": "user", "content": "lazy"}],
        "temperature": 0,
        "max_tokens": 8,
    }
    status, answer = own_server.ask("/v1/chat/completions", body)
    assert status == 200
    message = answer["choices"][0]["message"]
    assert message["role"] == "assistant"
    _, text = own_server.ask("/v1/chat/completions", body | {"stream": True})
    deltas = [part["choices"][0]["delta"] for part in stream_parts(text)]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == message["content"]


@pytest.mark.parametrize("is_stream", [False, True])
def test_too_long_is_refused_with_the_numbers(own_server: AdapterServer, is_stream: bool) -> None:
    status, answer = own_server.complete(SERVED, max_tokens=600, stream=is_stream)
    assert status == 400
    assert {str(CONTEXT), "600"} <= set(answer["error"]["message"].replace(";", "").replace(":", "").split())


def test_weights_of_another_shape_are_refused(own_server: AdapterServer) -> None:
    """Unlike vLLM, which takes them in silence."""
    own_server.publish("other-shape", weights=weights_of_another_shape(), modules=("q_proj",))
    assert own_server.complete("other-shape")[0] == 400


def test_requests_of_many_clients_each_get_their_own_answer(own_server: AdapterServer) -> None:
    own_server.publish("busy", seed=5)
    asked = [(model, prompt) for model in (SERVED, "busy") for prompt in ("the", "lazy", "brown fox")]
    expected = {key: own_server.text(*key) for key in asked}
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda key: (key, own_server.text(*key)), asked * 3))
    assert all(expected[key] == answer for key, answer in answers)
    assert len(set(expected.values())) > 3
