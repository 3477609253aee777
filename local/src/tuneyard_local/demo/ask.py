# SPDX-License-Identifier: Apache-2.0
"""Asks an OpenAI-compatible endpoint of the cluster through `kubectl port-forward`, as a person would."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tuneyard_local.errors import ClusterError
from tuneyard_local.paths import script

TIMEOUT_SECONDS = 120


@contextmanager
def forwarded(kubeconfig: Path, namespace: str, service: str, port: int) -> Iterator[str]:
    """The base URL, on a free port of loopback, of a Service's pod while the context lasts."""
    argv = [
        script("kubectl"),
        "--kubeconfig",
        kubeconfig,
        "-n",
        namespace,
        "port-forward",
        f"service/{service}",
        f":{port}",
    ]
    with subprocess.Popen(
        [str(word) for word in argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            found = re.search(r"127\.0\.0\.1:(\d+)", line)
            if found is None:
                raise ClusterError(
                    f"port-forward to {service}: {line or (process.stderr.read() if process.stderr else '')}"
                )
            yield f"http://127.0.0.1:{found[1]}"
        finally:
            process.terminate()


def completion(url: str, model: str, prompt: str, max_tokens: int) -> str:
    """The model's greedy answer, stripped of white space at its ends."""
    body = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
    answer = _call(f"{url}/v1/completions", body)
    return str(answer["choices"][0]["text"]).strip()


def chat_completion(url: str, model: str, messages: Sequence[dict[str, str]], max_tokens: int) -> str:
    """The model's greedy answer to messages, by its chat template, stripped of white space at its ends."""
    body = {"model": model, "messages": messages, "max_tokens": max_tokens, "temperature": 0}
    answer = _call(f"{url}/v1/chat/completions", body)
    return str(answer["choices"][0]["message"]["content"]).strip()


def models(url: str) -> list[str]:
    """Names that the endpoint lists."""
    return [str(model["id"]) for model in _call(f"{url}/v1/models")["data"]]


def first_records(path: Path, count: int) -> Sequence[dict[str, Any]]:
    """The first `count` records of a .jsonl file."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line, _ in zip(lines, range(count), strict=False)]


def _call(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310  always loopback
            result: dict[str, Any] = json.load(answer)
            return result
    except urllib.error.HTTPError as error:
        raise ClusterError(f"{url}: {error.code} {error.read().decode(errors='replace')[:500]}") from error
