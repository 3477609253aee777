# SPDX-License-Identifier: Apache-2.0
"""A random Llama and adapters for it, written as files without PyTorch, and a server process on them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HIDDEN, LAYERS, MLP, VOCABULARY, CONTEXT, RANK, ALPHA = 64, 2, 96, 320, 128, 4, 8
ADAPTED = ("q_proj", "v_proj")
START_SECONDS = 240


def adapted_weight(layer: int, module: str) -> str:
    return f"model.layers.{layer}.self_attn.{module}"


def random_weights(seed: int) -> dict[str, Any]:
    numpy = pytest.importorskip("numpy")
    rng = numpy.random.default_rng(seed)
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "lm_head.weight": (VOCABULARY, HIDDEN)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        shapes |= {
            f"{prefix}.self_attn.{m}.weight": (HIDDEN, HIDDEN)
            for m in ("q_proj", "k_proj", "v_proj", "o_proj")
        }
        shapes |= {f"{prefix}.mlp.{m}.weight": (MLP, HIDDEN) for m in ("gate_proj", "up_proj")}
        shapes[f"{prefix}.mlp.down_proj.weight"] = (HIDDEN, MLP)
    weights = {name: rng.normal(0, 0.15, shape).astype("float32") for name, shape in sorted(shapes.items())}
    norms = [
        f"model.layers.{n}.{kind}_layernorm.weight"
        for n in range(LAYERS)
        for kind in ("input", "post_attention")
    ]
    return weights | {name: numpy.ones(HIDDEN, dtype="float32") for name in [*norms, "model.norm.weight"]}


def write_model(
    folder: Path, weights: dict[str, Any], *, chat_template: str | None = None, end: int = 1
) -> Path:
    tokenizers = pytest.importorskip("tokenizers")
    save_file = pytest.importorskip("safetensors.numpy").save_file
    folder.mkdir(parents=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": MLP,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": end,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>"]
    words = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(["the quick brown fox jumps over the lazy dog and the sleeping cat"] * 3, words)
    bpe.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    bpe.save(str(folder / "tokenizer.json"))
    names: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
    }
    if chat_template:
        names["chat_template"] = chat_template
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder


def adapter_weights(seed: int) -> dict[str, Any]:
    rng = pytest.importorskip("numpy").random.default_rng(seed)
    shapes = {"lora_A": (RANK, HIDDEN), "lora_B": (HIDDEN, RANK)}
    return {
        f"base_model.model.{adapted_weight(layer, module)}.{part}.weight": rng.normal(0, 0.4, shape).astype(
            "float32"
        )
        for layer in range(LAYERS)
        for module in ADAPTED
        for part, shape in shapes.items()
    }


def write_adapter(
    folder: Path, seed: int = 1, *, weights: dict[str, Any] | None = None, **config: Any
) -> Path:
    """Published as the trainer does it: written under a name that begins with a dot, then renamed."""
    save_file = pytest.importorskip("safetensors.numpy").save_file
    hidden = folder.with_name(f".{folder.name}")
    hidden.mkdir(parents=True)
    content = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA, "bias": "none"}
    content |= {"target_modules": list(ADAPTED), "base_model_name_or_path": "base"} | config
    (hidden / "adapter_config.json").write_text(json.dumps(content))
    save_file(
        weights or adapter_weights(seed), hidden / "adapter_model.safetensors", metadata={"format": "pt"}
    )
    return hidden.rename(folder)


@dataclass
class RunningServer:
    """A real server process."""

    url: str
    registry: Path

    def ask(self, path: str, body: Any = None) -> tuple[int, Any]:
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                status, raw = response.status, response.read()
        except urllib.error.HTTPError as error:
            status, raw = error.code, error.read()
            error.close()
        try:
            return status, json.loads(raw)
        except ValueError:
            return status, raw.decode()

    def complete(self, model: str, prompt: str = "the quick", **options: Any) -> str:
        body = {"model": model, "prompt": prompt, "temperature": 0, "max_tokens": 12} | options
        status, answer = self.ask("/v1/completions", body)
        assert status == 200, answer
        return str(answer["choices"][0]["text"])

    def models(self) -> dict[str, Any]:
        return {row["id"]: row for row in self.ask("/v1/models")[1]["data"]}

    def wait_for(self, is_so: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < end, (
                f"not within {seconds} s; ready says {self.ask('/v1/health/ready')}"
            )
            time.sleep(0.1)


@pytest.fixture(scope="session")
def running_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """The server as a pod runs it, by NIM's environment variables; one for all tests, as PyTorch starts slowly."""
    root = tmp_path_factory.mktemp("serving")
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    model = write_model(root / "base", random_weights(0), chat_template=template)
    registry = root / "registry"
    environment = os.environ | {
        "NIM_PEFT_SOURCE": str(registry),
        "NIM_PEFT_REFRESH_INTERVAL": "0.2",
        "NIM_SERVED_MODEL_NAME": "base",
        "HF_HUB_OFFLINE": "1",
    }
    command = [
        sys.executable,
        "-m",
        "tuneyard_server.main",
        "--model",
        model,
        "--host",
        "127.0.0.1",
        "--port",
        "0",
    ]
    log = root / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(command, env=environment, stderr=stream)
    try:
        end = time.monotonic() + START_SECONDS
        while not (found := re.search(r"listening on (http://\S+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        server = RunningServer(found[1], registry)
        assert server.ask("/v1/health/live")[0] == 200
        server.wait_for(
            lambda: process.poll() is not None or server.ask("/v1/health/ready")[0] == 200, START_SECONDS
        )
        assert process.poll() is None, log.read_text()
        yield server
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def adapter_writer() -> Callable[..., Path]:
    return write_adapter


@pytest.fixture(scope="session")
def model_writer() -> Callable[..., Path]:
    return write_model


@pytest.fixture(scope="session")
def base_weights() -> dict[str, Any]:
    return random_weights(0)


@pytest.fixture
def merged_weights(base_weights: dict[str, Any]) -> dict[str, Any]:
    """The base model with adapter 1 added into its matrices, W + alpha / r * B A (Hu et al. 2021), without PEFT."""
    update = adapter_weights(1)
    merged = dict(base_weights)
    for layer in range(LAYERS):
        for module in ADAPTED:
            name = adapted_weight(layer, module)
            a, b = (update[f"base_model.model.{name}.{part}.weight"] for part in ("lora_A", "lora_B"))
            merged[f"{name}.weight"] = merged[f"{name}.weight"] + ALPHA / RANK * b @ a
    return merged
