# SPDX-License-Identifier: Apache-2.0
"""The server's settings, by the names that vLLM gives them: flags, and two environment variables."""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ENV_ADAPTERS = "VLLM_LORA_RESOLVER_CACHE_DIR"
ENV_UPDATING = "VLLM_ALLOW_RUNTIME_LORA_UPDATING"
MAX_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM 0.32.0 accepts for --max-lora-rank. An adapter may have any rank up to that value."""


@dataclass(frozen=True)
class Settings:
    """Everything that can be chosen."""

    model: str
    """Folder with config.json, tokenizer.json and safetensors; adapters must name it by this very string."""
    served_name: str
    """Name of the base model in /v1/models; the string of `model` when not given."""
    adapters: Path | None = None
    """Folder of adapters, `<folder>/<name>/{adapter_config.json,adapter_model.safetensors}`; None: none is found."""
    allows_updating: bool = False
    """Whether requests that name an adapter, and the calls that load and unload, may load adapters."""
    refresh_seconds: float | None = None
    """Seconds between two looks for new adapters in the folder, for a server that can't be asked to load one; None: it never
    looks by itself."""
    max_lora_rank: int = 16
    max_cpu_loras: int = 1
    """Number of adapters in memory. A listed adapter that is not in memory is read again when a request names it."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8000
    """TCP port; 0 takes a free one."""
    threads: int = 1
    """Threads of one generation. More pay for large models on idle cores only: PyTorch's threads wait for each other at
    every layer. 32 tokens of the tiny model on two busy cores: 1.2 s with one thread, 20 s with two."""
    queue: int = 32
    """Requests that may wait or run at once; one more is answered 429."""


def positive_count(text: str) -> int:
    """A whole number of at least 1."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1 (got {text})")
    return int(text)


def positive_seconds(text: str) -> float:
    """A finite number above 0."""
    if not 0 < float(text) < math.inf:
        raise argparse.ArgumentTypeError(f"must be above 0 (got {text})")
    return float(text)


def parse_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Flags over defaults; exits with argparse's message and code 2 when something is wrong."""
    parser = argparse.ArgumentParser(
        prog="tuneyard-server",
        description="OpenAI-compatible server that serves adapters as vLLM does, on CPU. It is not vLLM.",
        epilog=f"{ENV_UPDATING}=true lets it load adapters, {ENV_ADAPTERS} names the folder in which it finds them.",
    )
    parser.add_argument("--model", required=True, help="folder of the base model")
    parser.add_argument("--served-model-name", help="name of the base model, default that of --model")
    parser.add_argument(
        "--max-lora-rank", type=int, choices=MAX_LORA_RANKS, default=16, help="largest rank of an adapter"
    )
    parser.add_argument(
        "--max-loras", type=positive_count, default=1, help="adapters that vLLM uses at the same time"
    )
    parser.add_argument(
        "--max-cpu-loras", type=positive_count, help="adapters in memory, default --max-loras"
    )
    parser.add_argument(
        "--refresh-seconds",
        type=positive_seconds,
        help="look for new adapters in the folder so often, and load none because a request names it",
    )
    # A pod's probes and clients come from outside, so the default is to listen on all addresses.
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on, default all")  # noqa: S104
    parser.add_argument("--port", type=int, default=8000, help="port to listen on, default 8000")
    parser.add_argument(
        "--threads", type=positive_count, default=1, help="CPU threads of a generation, default 1"
    )
    parser.add_argument("--queue", type=positive_count, default=32, help="requests that may wait, default 32")
    found = parser.parse_args(arguments)
    if not (Path(found.model) / "config.json").is_file():
        parser.error(f"--model: no config.json in {found.model}; try the folder that holds the base model")
    slots = found.max_loras if found.max_cpu_loras is None else found.max_cpu_loras
    if slots < found.max_loras:
        parser.error(f"max_cpu_loras ({slots}) must be >= max_loras ({found.max_loras})")
    folder = environment.get(ENV_ADAPTERS)
    allows_updating = environment.get(ENV_UPDATING, "").strip().lower() in {"1", "true"}
    if found.refresh_seconds is not None and (allows_updating or not folder):
        parser.error(f"--refresh-seconds needs {ENV_ADAPTERS}, and not {ENV_UPDATING}=true")
    return Settings(
        model=found.model,
        served_name=found.served_model_name or found.model,
        adapters=Path(folder) if folder else None,
        allows_updating=allows_updating,
        refresh_seconds=found.refresh_seconds,
        max_lora_rank=found.max_lora_rank,
        max_cpu_loras=slots,
        host=found.host,
        port=found.port,
        threads=found.threads,
        queue=found.queue,
    )
