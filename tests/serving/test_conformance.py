# SPDX-License-Identifier: Apache-2.0
"""What a server of adapters does, asked of real vLLM and of our own small server in the same words.

Whoever works with such a server (the operator, adapter-sync, a client) relies on what stands here. Where vLLM 0.32.0
does something that our server is better without, the test names vLLM alone.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from support.adapter_servers import CPU_SLOTS, MAX_RANK, SERVED, AdapterServer, Kind, running
from support.tiny_adapters import RANK, weights_of_another_shape
from tuneyard.checks.models import VLLM_RANKS
from tuneyard_local import vllm
from tuneyard_local.progress import Progress

MARKS = {"vllm": pytest.mark.vllm, "own": pytest.mark.torch}
LONG_PROMPT = "the quick brown fox jumps over the lazy dog " * 30
BLOCK = 128
"""Tokens of a block of vLLM's prefix cache on CPU; the long prompt has more than two."""

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module", params=[pytest.param(kind, marks=MARKS[kind]) for kind in get_args(Kind)])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AdapterServer]:
    with running(request.param, tmp_path_factory.mktemp(f"conformance-{request.param}")) as server:
        assert list(server.listed()) == [SERVED], "adapters that nobody named"
        yield server


def error(status: int, kind: str, message: str, parameter: str | None = None) -> tuple[int, dict[str, Any]]:
    return status, {"error": {"message": message, "type": kind, "param": parameter, "code": status}}


def unknown(name: str) -> tuple[int, dict[str, Any]]:
    message = f"The model `{name}` does not exist. Valid aliases: {SERVED}."
    return error(404, "NotFoundError", message, "model")


def not_loadable(name: str) -> tuple[int, dict[str, Any]]:
    return error(400, "BadRequestError", f"LoRA adapter '{name}' was found but could not be loaded.")


def test_the_base_model_is_listed_with_its_folder(server: AdapterServer) -> None:
    entry = server.listed()[SERVED]
    assert (entry["object"], entry["root"], entry["parent"]) == ("model", server.model, None)


def test_an_adapter_is_listed_from_the_first_request_that_names_it(server: AdapterServer) -> None:
    folder = server.publish("named")
    assert "named" not in server.listed()
    before = server.text(SERVED)
    answer = server.text("named")
    assert answer != before
    entry = server.listed()["named"]
    assert (entry["object"], entry["root"], entry["parent"]) == ("model", str(folder), SERVED)
    assert server.text(SERVED) == before
    assert server.text("named") == answer


def test_a_folder_that_appears_later_answers_at_its_first_request(server: AdapterServer) -> None:
    assert server.complete("later") == unknown("later")
    server.publish("later", seed=2)
    assert server.text("later") != server.text(SERVED)


def test_a_chat_loads_an_adapter_too(server: AdapterServer) -> None:
    body = {"messages": [{"role": "user", "content": "lazy"}], "temperature": 0, "max_tokens": 8}
    assert server.ask("/v1/chat/completions", body | {"model": "talks"}) == unknown("talks")
    server.publish("talks", seed=3)
    answers = {name: server.ask("/v1/chat/completions", body | {"model": name}) for name in (SERVED, "talks")}
    texts = {}
    for name, (status, answer) in answers.items():
        assert (status, answer["object"], answer["model"]) == (200, "chat.completion", name)
        (choice,) = answer["choices"]
        assert (choice["index"], choice["message"]["role"]) == (0, "assistant")
        assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + 8
        texts[name] = choice["message"]["content"]
    assert texts["talks"] != texts[SERVED]
    status, stream = server.ask("/v1/chat/completions", body | {"model": "talks", "stream": True})
    *parts, last = [line.removeprefix("data: ") for line in stream.split("\n\n") if line]
    assert (status, last) == (200, "[DONE]")
    choices = [json.loads(part)["choices"][0] for part in parts]
    assert choices[0]["delta"]["role"] == "assistant"
    assert "".join(choice["delta"].get("content") or "" for choice in choices) == texts["talks"]
    assert choices[-1]["finish_reason"] == "length"


def test_an_unknown_name_is_404_and_says_which_base_there_is(server: AdapterServer) -> None:
    assert server.complete("nobody") == unknown("nobody")


def test_a_request_without_a_model_goes_to_the_base(server: AdapterServer) -> None:
    status, answer = server.ask(
        "/v1/completions", {"prompt": "the quick", "temperature": 0, "max_tokens": 12}
    )
    assert (status, answer["model"], answer["choices"][0]["text"]) == (200, SERVED, server.text(SERVED))


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("by-served-name", lambda _: SERVED),
        ("by-last-part", lambda model: Path(model).name),
        ("with-a-slash", lambda model: f"{model}/"),
        ("in-capitals", lambda model: model.upper()),
    ],
    ids=["the served name", "the last part", "a slash at the end", "capitals"],
)
def test_an_adapter_that_does_not_name_the_very_string_of_the_model_is_not_found(
    server: AdapterServer, name: str, other: Any
) -> None:
    server.publish(name, base_model_name_or_path=other(server.model))
    assert server.complete(name) == unknown(name)
    server.publish(name)
    assert server.complete(name)[0] == 200


def test_the_base_is_not_compared_when_an_adapter_is_loaded_by_its_path(server: AdapterServer) -> None:
    folder = server.publish("other-base", base_model_name_or_path="somebody/else")
    assert server.load("by-path", folder)[0] == 200
    assert server.text("by-path") != server.text(SERVED)


def test_another_method_than_lora_is_not_found(server: AdapterServer) -> None:
    server.publish("ia3", peft_type="IA3")
    assert server.complete("ia3") == unknown("ia3")


@pytest.mark.parametrize("rank", [1, 24, MAX_RANK])
def test_an_adapter_may_have_any_rank_up_to_the_limit(server: AdapterServer, rank: int) -> None:
    server.publish(f"rank-{rank}", rank=rank)
    assert server.complete(f"rank-{rank}")[0] == 200


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "rank above the limit": ({"rank": MAX_RANK + 1}, f"LoRA rank {MAX_RANK + 1} is greater than max_lora_rank {MAX_RANK}."),
    "rank of one module above it": ({"rank_pattern": {"q_proj": 64}}, f"LoRA rank 64 is greater than max_lora_rank {MAX_RANK}."),
    "DoRA": ({"use_dora": True}, "DoRA"),
    "trained bias": ({"bias": "all"}, "bias is not supported"),
    "bias of LoRA": ({"lora_bias": True}, "lora_bias"),
    "saved modules": ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    "PiSSA": ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
    "PiSSA in steps": ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights='pissa_niter_4'"),
    "OLoRA": ({"init_lora_weights": "olora"}, "init_lora_weights='olora'"),
    "LoftQ": ({"init_lora_weights": "loftq"}, "init_lora_weights='loftq'"),
    "activated LoRA": ({"alora_invocation_tokens": [1, 2]}, "aLoRA"),
    "repeated layers": ({"layer_replication": [[0, 2]]}, "layer_replication"),
    "modules that the base lacks": ({"modules": ("nothing_here",)}, "nothing_here"),
    "no rank": ({"without": ("r",)}, "'r'"),
}  # fmt: skip


@pytest.mark.parametrize(("options", "reason"), BAD.values(), ids=BAD)
def test_a_bad_adapter_is_400_and_loading_it_by_its_path_says_why(
    server: AdapterServer, options: dict[str, Any], reason: str, request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.id.partition("-")[2].replace(" ", "-")
    folder = server.publish(name, **options)
    assert server.complete(name) == not_loadable(name)
    status, answer = server.load(name, folder)
    assert (status, answer["error"]["type"], answer["error"]["code"]) == (500, "InternalServerError", 500)
    assert reason in answer["error"]["message"]
    assert name not in server.listed()
    assert server.complete(SERVED)[0] == 200


@pytest.mark.parametrize(
    "options", [{"init_lora_weights": "gaussian"}, {"use_rslora": True}, {"some_new_key": 1}], ids=str
)
def test_what_changes_nothing_for_a_server_is_accepted(
    server: AdapterServer, options: dict[str, Any]
) -> None:
    name = f"fine-{next(iter(options))}"
    server.publish(name, **options)
    assert server.complete(name)[0] == 200


def test_rank_stabilised_lora_scales_by_the_root_of_the_rank(server: AdapterServer) -> None:
    server.publish("root-scaled", seed=4, use_rslora=True, lora_alpha=2)
    server.publish("plainly-scaled", seed=4, lora_alpha=2 * RANK**0.5)
    assert server.text("root-scaled") == server.text("plainly-scaled")


def test_half_a_copy_is_400_until_it_is_whole(server: AdapterServer) -> None:
    folder = server.publish("half")
    weights = folder / "adapter_model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    assert server.complete("half") == not_loadable("half")
    weights.write_bytes(content[:-10])
    assert server.complete("half") == not_loadable("half")
    assert "half" not in server.listed()
    weights.write_bytes(content)
    assert server.complete("half")[0] == 200


@pytest.mark.parametrize("key", ["peft_type", "base_model_name_or_path"])
def test_a_configuration_that_lacks_what_is_compared_is_500(server: AdapterServer, key: str) -> None:
    server.publish(f"without-{key}", without=(key,))
    assert server.complete(f"without-{key}") == error(500, "InternalServerError", f"'{key}'")


def test_a_configuration_that_is_no_json_is_400(server: AdapterServer) -> None:
    folder = server.publish("no-json")
    (folder / "adapter_config.json").write_text("{")
    status, answer = server.complete("no-json")
    assert (status, answer["error"]["type"]) == (400, "BadRequestError")
    assert "line 1 column 2" in answer["error"]["message"]


def test_a_loaded_name_is_not_looked_at_again(server: AdapterServer) -> None:
    folder = server.publish("kept", seed=5)
    before = server.text("kept")
    server.publish("kept", seed=6)
    assert server.text("kept") == before
    shutil.rmtree(folder)
    assert server.text("kept") == before


def test_more_adapters_than_cpu_slots_all_answer(server: AdapterServer) -> None:
    names = [f"slot-{number}" for number in range(CPU_SLOTS + 2)]
    for number, name in enumerate(names):
        server.publish(name, seed=20 + number)
    first = [server.text(name) for name in names]
    assert len(set(first)) == len(names)
    assert [server.text(name) for name in names] == first
    assert set(names) <= set(server.listed())


def test_load_and_unload(server: AdapterServer) -> None:
    folder = server.publish("elsewhere", seed=7)
    assert server.load("given", folder) == (200, "Success: LoRA adapter 'given' added successfully.")
    entry = server.listed()["given"]
    assert (entry["root"], entry["parent"]) == (str(folder), SERVED)
    assert server.text("given") == server.text("elsewhere")
    again = (
        "The lora adapter 'given' has already been loaded. If you want to load the adapter in place, "
        "set 'load_inplace' to True."
    )
    assert server.load("given", folder) == error(400, "InvalidUserInput", again)
    assert server.unload("given") == (200, "Success: LoRA adapter 'given' removed successfully.")
    assert "given" not in server.listed()
    assert server.complete("given") == unknown("given")
    assert server.unload("given") == error(404, "NotFoundError", "The lora adapter 'given' cannot be found.")
    assert server.unload(SERVED) == error(
        404, "NotFoundError", f"The lora adapter '{SERVED}' cannot be found."
    )


def test_what_cannot_be_loaded_by_its_path(server: AdapterServer) -> None:
    folder = server.publish("good", seed=8)
    base = f"The lora adapter '{SERVED}' conflicts with a served base model."
    assert server.load(SERVED, folder) == error(400, "InvalidUserInput", base)
    missing = "Loading lora missing failed: No adapter found for /nowhere/at/all"
    assert server.load("missing", "/nowhere/at/all") == error(404, "NotFoundError", missing)
    empty = "Both 'lora_name' and 'lora_path' must be provided."
    assert server.load("", "") == error(400, "InvalidUserInput", empty)
    for body in ({"lora_name": "x"}, {"lora_path": "x"}, {"lora_name": 1, "lora_path": "x"}, [], b"{"):
        status, answer = server.ask("/v1/load_lora_adapter", body)
        assert (status, answer["error"]["type"], answer["error"]["code"]) == (400, "Bad Request", 400)
    assert server.ask("/v1/unload_lora_adapter", {})[0] == 400
    assert server.ask("/v1/load_lora_adapter")[0] == 405


def test_an_adapter_that_was_unloaded_is_loaded_again_by_a_request(server: AdapterServer) -> None:
    folder = server.publish("back", seed=9)
    before = server.text("back")
    assert server.unload("back")[0] == 200
    assert server.text("back") == before
    assert server.listed()["back"]["root"] == str(folder)


def test_load_in_place_answers_with_the_new_weights_and_rolls_back(server: AdapterServer) -> None:
    assert server.complete(SERVED, LONG_PROMPT)[1]["usage"]["prompt_tokens"] > 2 * BLOCK
    versions = [server.publish(f"digest-{seed}", seed=seed) for seed in (10, 11)]
    expected = [server.text(folder.name, LONG_PROMPT) for folder in versions]
    assert expected[0] != expected[1]
    assert server.load("pointer", versions[0], load_inplace=True)[0] == 200
    for turn in (0, 1, 0, 1):
        loaded = server.load("pointer", versions[turn], load_inplace=True)
        assert loaded == (200, "Success: LoRA adapter 'pointer' added successfully.")
        assert server.text("pointer", LONG_PROMPT) == expected[turn]
        assert server.listed()["pointer"]["root"] == str(versions[turn])


def test_a_bad_adapter_loaded_in_place_leaves_the_old_one(server: AdapterServer) -> None:
    good = server.publish("stays-good", seed=12)
    bad = server.publish("turns-bad", rank=MAX_RANK + 1)
    assert server.load("stays", good)[0] == 200
    before = server.text("stays")
    assert server.load("stays", bad, load_inplace=True)[0] == 500
    assert server.text("stays") == before
    assert server.listed()["stays"]["root"] == str(good)


def test_a_link_is_followed_and_listed_by_its_own_path(server: AdapterServer) -> None:
    folder = server.publish(".store/linked/sha256-1", seed=13)
    link = server.folder / "linked"
    link.symlink_to(Path(".store") / "linked" / "sha256-1")
    answer = server.text("linked")
    assert server.listed()["linked"]["root"] == str(link)
    assert server.load("linked", folder, load_inplace=True)[0] == 200
    assert (server.listed()["linked"]["root"], server.text("linked")) == (str(folder), answer)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        [],
        {"model": SERVED},
        {"model": SERVED, "prompt": "x", "max_tokens": 0},
        {"model": SERVED, "prompt": "x", "temperature": -1},
        {"model": SERVED, "prompt": "x", "max_tokens": 100_000},
        {"model": SERVED, "prompt": "the quick " * 600, "max_tokens": 1},
    ],
    ids=["no JSON", "a list", "no prompt", "no token", "cold", "too many tokens", "too long a prompt"],
)
def test_a_wrong_request_is_400_in_the_form_of_openai(server: AdapterServer, body: Any) -> None:
    status, answer = server.ask("/v1/completions", body)
    assert status == 400
    assert set(answer) == {"error"}
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert answer["error"]["code"] == 400


def test_ranks_that_a_server_can_be_started_with(server: AdapterServer) -> None:
    accepted = accepted_ranks(server.kind)
    assert accepted == {1, 8, 16, 32, 64, 128, 256, 320, 512}
    assert set(VLLM_RANKS) <= accepted, "an environment may say so, and the server would not start"


def accepted_ranks(kind: Kind) -> set[int]:
    if kind == "own":
        from tuneyard_server.settings import MAX_LORA_RANKS

        return set(MAX_LORA_RANKS)
    script = """
from vllm.config.lora import LoRAConfig
def is_accepted(**options):
    try:
        LoRAConfig(**options)
    except ValueError:
        return False
    return True
assert is_accepted(max_loras=4, max_cpu_loras=4)
assert not is_accepted(max_loras=8, max_cpu_loras=4)
print(*(rank for rank in range(1, 1100) if is_accepted(max_lora_rank=rank)))
"""
    environment = vllm.build_process_environment(vllm.build_vllm_environment(Progress()), {})
    result = subprocess.run(
        [str(vllm.find_python()), "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    return set(map(int, result.stdout.split()))


vllm_alone = pytest.mark.parametrize("server", [pytest.param("vllm", marks=MARKS["vllm"])], indirect=True)
"""What vLLM does and our server does not: it must be known to whoever works with vLLM, and noticed when it changes."""


@vllm_alone
def test_vllm_takes_weights_of_another_shape_in_silence(server: AdapterServer) -> None:
    """The server accepts weights of a narrower model, because it checks only the rank."""
    server.publish("other-shape", weights=weights_of_another_shape(), modules=("q_proj",))
    assert server.complete("other-shape")[0] == 200


@vllm_alone
def test_vllm_mixes_old_and_new_weights_of_one_path(server: AdapterServer) -> None:
    """Its prefix cache knows an adapter by name and path: new weights must be loaded from a path that never held others."""
    old, new = (server.publish(f"weights-{seed}", seed=seed) for seed in (14, 15))
    expected = [server.text(folder.name, LONG_PROMPT) for folder in (old, new)]
    path = server.publish("one-path", seed=14)
    assert server.load("mixed", path)[0] == 200
    assert server.text("mixed", LONG_PROMPT) == expected[0]
    server.publish("one-path", seed=15)
    assert server.load("mixed", path, load_inplace=True)[0] == 200
    assert server.text("mixed", LONG_PROMPT) not in expected
    assert server.load("mixed", new, load_inplace=True)[0] == 200
    assert server.text("mixed", LONG_PROMPT) == expected[1]
