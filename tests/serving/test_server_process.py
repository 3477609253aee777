# SPDX-License-Identifier: Apache-2.0
"""The small server as clients and the operator see it: a real process, a real (random) model, real adapters."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torch


def stream_parts(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_an_adapter_appears_changes_and_goes_without_a_restart(
    running_server: Any, adapter_writer: Any
) -> None:
    server = running_server
    before = server.complete("base")
    folder = adapter_writer(server.registry / "comes.and-goes", seed=1)
    server.wait_for(lambda: "comes.and-goes" in server.models())
    entry = server.models()["comes.and-goes"]
    assert (entry["parent"], entry["root"]) == ("base", str(folder))
    first = server.complete("comes.and-goes")
    assert first != before
    assert server.complete("base") == before

    shutil.rmtree(folder)
    adapter_writer(folder, seed=2)
    server.wait_for(lambda: server.models().get("comes.and-goes", entry)["digest"] != entry["digest"])
    assert server.complete("comes.and-goes") not in {first, before}

    shutil.rmtree(folder)
    server.wait_for(lambda: "comes.and-goes" not in server.models())
    status, answer = server.ask("/v1/completions", {"model": "comes.and-goes", "prompt": "x"})
    assert (status, answer["error"]["code"]) == (404, "model_not_found")
    assert "base" in answer["error"]["message"]
    assert server.complete("base") == before


def test_a_bad_adapter_is_named_with_its_reason_and_stops_nothing(
    running_server: Any, adapter_writer: Any
) -> None:
    server = running_server
    before = server.complete("base")
    numpy = pytest.importorskip("numpy")
    stranger = {
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": numpy.ones((4, 8), dtype="float32")
    }
    folders = [
        adapter_writer(server.registry / "other-shape", weights=stranger),
        adapter_writer(server.registry / "other-modules", target_modules=["nothing_here"]),
        adapter_writer(server.registry / "fewer-modules", target_modules=["q_proj"]),
        adapter_writer(server.registry / "other-method", peft_type="IA3"),
        adapter_writer(server.registry / "base", seed=3),
    ]
    names = {folder.name for folder in folders}

    def refused() -> dict[str, str]:
        return {row["adapter"]: row["message"] for row in server.ask("/v1/health/ready")[1]["refused"]}

    server.wait_for(lambda: names <= set(refused()))
    assert "size mismatch" in refused()["other-shape"]
    assert "nothing_here" in refused()["other-modules"]
    assert "v_proj" in refused()["fewer-modules"]
    assert "LORA" in refused()["other-method"]
    assert "name of the base model" in refused()["base"]
    assert names & set(server.models()) == {"base"}
    good = adapter_writer(server.registry / "good-among-bad", seed=1)
    server.wait_for(lambda: "good-among-bad" in server.models())
    assert server.complete("good-among-bad") != before
    assert server.complete("base") == before
    for folder in [*folders, good]:
        shutil.rmtree(folder)
    server.wait_for(lambda: not refused() and set(server.models()) == {"base"})


def test_a_half_copied_adapter_waits_until_it_is_whole(running_server: Any, adapter_writer: Any) -> None:
    server = running_server
    whole: Path = adapter_writer(server.registry / ".elsewhere" / "copied", seed=1)
    target = server.registry / "copied"
    target.mkdir()
    shutil.copy(whole / "adapter_config.json", target)
    content = (whole / "adapter_model.safetensors").read_bytes()
    (target / "adapter_model.safetensors").write_bytes(content[:-10])
    server.wait_for(lambda: "copied" in json.dumps(server.ask("/v1/health/ready")[1]["incomplete"]))
    assert set(server.models()) == {"base"}
    assert server.ask("/v1/health/ready")[1]["refused"] == []
    (target / "adapter_model.safetensors").write_bytes(content)
    server.wait_for(lambda: "copied" in server.models())
    shutil.rmtree(target)
    shutil.rmtree(server.registry / ".elsewhere")
    server.wait_for(lambda: set(server.models()) == {"base"})


def test_greedy_answers_repeat_and_a_list_of_prompts_equals_single_ones(
    running_server: Any,
) -> None:
    prompts = ["the quick", "lazy dog", "\N{SNOWMAN} and cat"]
    single = [running_server.complete("base", prompt) for prompt in prompts]
    body = {"model": "base", "prompt": prompts, "temperature": 0, "max_tokens": 12}
    status, answer = running_server.ask("/v1/completions", body)
    assert status == 200
    assert [choice["text"] for choice in answer["choices"]] == single
    assert answer["usage"]["completion_tokens"] == sum(
        12 if c["finish_reason"] == "length" else 0 for c in answer["choices"]
    )
    assert (
        answer["usage"]["total_tokens"]
        == answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
    )


def test_a_seed_repeats_a_sampled_answer_and_another_seed_does_not(running_server: Any) -> None:
    def draw(seed: int) -> str:
        return running_server.complete("base", temperature=1.5, top_p=0.99, seed=seed, max_tokens=24)

    assert draw(7) == draw(7)
    assert len({draw(seed) for seed in range(4)}) > 1


def test_a_stop_string_ends_the_answer_before_it(running_server: Any) -> None:
    whole = running_server.complete("base", max_tokens=24)
    stop = whole[6:8]
    body = {"model": "base", "prompt": "the quick", "temperature": 0, "max_tokens": 24, "stop": [stop]}
    _, answer = running_server.ask("/v1/completions", body)
    assert answer["choices"][0]["text"] == whole[: whole.index(stop)]
    assert answer["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("stop", [None, "zz never zz"])
def test_a_stream_adds_up_to_the_answer(running_server: Any, stop: str | None) -> None:
    whole = running_server.complete("base", max_tokens=24)
    body = {
        "model": "base",
        "prompt": "the quick",
        "temperature": 0,
        "max_tokens": 24,
        "stop": stop,
        "stream": True,
    }
    status, text = running_server.ask("/v1/completions", body | {"stream_options": {"include_usage": True}})
    parts = stream_parts(text)
    assert status == 200
    assert len(parts) > 3
    assert "".join(part["choices"][0]["text"] for part in parts[:-1]) == whole
    assert parts[-2]["choices"][0]["finish_reason"] == "length"
    assert parts[-1]["usage"]["completion_tokens"] == 24


def test_a_chat_uses_the_template_and_streams_as_deltas(running_server: Any) -> None:
    body = {
        "model": "base",
        "messages": [{"role": "user", "content": "lazy"}],
        "temperature": 0,
        "max_tokens": 8,
    }
    status, answer = running_server.ask("/v1/chat/completions", body)
    assert status == 200
    message = answer["choices"][0]["message"]
    assert message["role"] == "assistant"
    _, text = running_server.ask("/v1/chat/completions", body | {"stream": True})
    deltas = [part["choices"][0]["delta"] for part in stream_parts(text)]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == message["content"]


@pytest.mark.parametrize("is_stream", [False, True])
def test_too_long_is_413_with_the_numbers(running_server: Any, is_stream: bool) -> None:
    body = {"model": "base", "prompt": "the quick", "max_tokens": 500, "stream": is_stream}
    status, answer = running_server.ask("/v1/completions", body)
    assert (status, answer["error"]["code"]) == (413, "context_length_exceeded")
    assert "128" in answer["error"]["message"]
    assert "500" in answer["error"]["message"]


def test_requests_of_many_clients_each_get_their_own_answer(running_server: Any, adapter_writer: Any) -> None:
    server = running_server
    folder = adapter_writer(server.registry / "busy", seed=5)
    server.wait_for(lambda: "busy" in server.models())
    asked = [(model, prompt) for model in ("base", "busy") for prompt in ("the", "lazy", "brown fox")]
    expected = {key: server.complete(*key) for key in asked}
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda key: (key, server.complete(*key)), asked * 3))
    assert all(expected[key] == answer for key, answer in answers)
    assert len(set(expected.values())) > 3
    shutil.rmtree(folder)
    server.wait_for(lambda: "busy" not in server.models())


def test_it_says_that_it_stands_in_for_nim(running_server: Any) -> None:
    _, metadata = running_server.ask("/v1/metadata")
    assert "NIM" in metadata["standsInFor"]
    assert "not NIM" in metadata["notice"]
