# SPDX-License-Identifier: Apache-2.0
"""The server's settings: flags, and for the three of NIM's that it keeps the environment variables of NIM."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ENV_ADAPTERS = "NIM_PEFT_SOURCE"
ENV_REFRESH = "NIM_PEFT_REFRESH_INTERVAL"
ENV_SERVED_NAME = "NIM_SERVED_MODEL_NAME"


@dataclass(frozen=True)
class Settings:
    """Everything that can be chosen; a flag wins over its environment variable."""

    model: Path
    """Folder with config.json, tokenizer.json and safetensors."""
    served_name: str
    """Name of the base model in /v1/models; the folder's name when not given."""
    adapters: Path | None
    """The registry, `<registry>/<adapter>/{adapter_config.json,adapter_model.safetensors}`; None serves the base alone."""
    refresh_seconds: float = 30.0
    """Seconds between two looks at the registry."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8000
    """TCP port; 0 takes a free one."""
    threads: int = 1
    """Threads of one generation. More pay for large models on idle cores only: PyTorch's threads wait for each other at
    every layer. 32 tokens of the tiny model on two busy cores: 1.2 s with one thread, 20 s with two."""
    queue: int = 32
    """Requests that may wait or run at once; one more is answered 429."""


def positive_seconds(text: str) -> float:
    """A number of seconds of at least 0.1."""
    seconds = float(text)
    if not 0.1 <= seconds <= 86_400:  # noqa: PLR2004  one look a day is the least that makes sense
        raise argparse.ArgumentTypeError(f"must be 0.1 to 86400 seconds (got {text})")
    return seconds


def positive_count(text: str) -> int:
    """A whole number of at least 1."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1 (got {text})")
    return int(text)


def parse_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Flags over environment over defaults; exits with argparse's message and code 2 when something is wrong."""
    parser = argparse.ArgumentParser(
        prog="tuneyard-server",
        description="OpenAI-compatible server that keeps NIM's contract for adapters, on CPU. It is not NIM.",
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument(
        "--served-name",
        default=environment.get(ENV_SERVED_NAME),
        help=f"name of the base model [{ENV_SERVED_NAME}]",
    )
    parser.add_argument(
        "--adapters",
        type=Path,
        default=environment.get(ENV_ADAPTERS),
        help=f"folder of adapters, one folder each [{ENV_ADAPTERS}]",
    )
    parser.add_argument(
        "--refresh-seconds",
        type=positive_seconds,
        default=environment.get(ENV_REFRESH, "30"),
        help=f"seconds between two looks at it, default 30 [{ENV_REFRESH}]",
    )
    # A pod's probes and clients come from outside: as NIM does, listen everywhere unless told otherwise.
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on, default all")  # noqa: S104
    parser.add_argument("--port", type=int, default=8000, help="port to listen on, default 8000")
    parser.add_argument(
        "--threads", type=positive_count, default=1, help="CPU threads of a generation, default 1"
    )
    parser.add_argument("--queue", type=positive_count, default=32, help="requests that may wait, default 32")
    found = parser.parse_args(arguments)
    if not (found.model / "config.json").is_file():
        parser.error(f"--model: no config.json in {found.model}; try the folder that holds the base model")
    return Settings(
        model=found.model,
        served_name=found.served_name or found.model.resolve().name,
        adapters=found.adapters,
        refresh_seconds=found.refresh_seconds,
        host=found.host,
        port=found.port,
        threads=found.threads,
        queue=found.queue,
    )
