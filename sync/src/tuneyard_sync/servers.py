# SPDX-License-Identifier: Apache-2.0
"""What the server beside this container has loaded, and the calls that change it.

Measured with vLLM 0.32.0: a name that is loaded keeps its files until `load_inplace` replaces them, and GET /v1/models
lists the folder that was loaded as `root`. A name that was loaded with `load_inplace` is read from disk again at each step of
the engine, so that is asked for only where a name is loaded already. A request that came before a name moved on still
reads the former folder: if it is gone, the engine ends, and with it the server.
"""

import json
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any, Protocol
from urllib.error import HTTPError

from tuneyard_api.registry import Question

_LIST_SECONDS = 5
_LOAD_SECONDS = 300
"""Timeout for loading an adapter. It is long, because a server that compiles or is busy answers late."""
_EXCERPT = 300


class ServerError(Exception):
    """What the server refused, or why it was not reached; a sentence for people."""


class Server(Protocol):
    """A server of adapters."""

    is_tried: bool
    """Whether it can be asked with a version before a name moves to it."""

    def loaded(self) -> Mapping[str, str] | None:
        """Each name that it lists with the folder it was loaded from, in the server's words; None: nobody can know.

        Raises:
            ServerError: it does not answer.
        """

    def load(self, name: str, folder: Path, *, replaces: bool) -> None:
        """The name answers with this folder.

        Raises:
            ServerError: it could not load it.
        """

    def unload(self, name: str) -> None:
        """The name is no longer there.

        Raises:
            ServerError: it was not unloaded.
        """

    def answer(self, name: str, question: Question, max_new_tokens: int) -> str:
        """What the name answers, without chance.

        Raises:
            ServerError: it does not answer.
        """


class FolderServer:
    """A server that looks at its folder by itself."""

    is_tried = False

    def loaded(self) -> None:
        """See `Server`."""

    def load(self, name: str, folder: Path, *, replaces: bool) -> None:
        """Nothing is to be done."""

    def unload(self, name: str) -> None:
        """Nothing is to be done."""

    def answer(self, name: str, question: Question, max_new_tokens: int) -> str:
        """It is never asked."""
        raise NotImplementedError((name, question, max_new_tokens))


@dataclass
class VllmServer:
    """A vLLM that allows adapters to be loaded at run time, on the loopback address."""

    port: int
    is_tried: bool = True
    _opener: urllib.request.OpenerDirector = field(
        # A proxy in the pod's environment cannot reach the loopback address of this pod.
        default_factory=lambda: urllib.request.build_opener(urllib.request.ProxyHandler({}))
    )

    def loaded(self) -> Mapping[str, str]:
        """See `Server`."""
        answer = self._ask("/v1/models", None, _LIST_SECONDS)
        try:
            return {str(model["id"]): str(model.get("root") or "") for model in json.loads(answer)["data"]}
        except (ValueError, KeyError, TypeError) as error:
            raise ServerError(
                f"its list of models can't be read: {type(error).__name__}: {error}; is port {self.port} the server's?"
            ) from None

    def load(self, name: str, folder: Path, *, replaces: bool) -> None:
        """See `Server`."""
        body = {"lora_name": name, "lora_path": str(folder), "load_inplace": replaces}
        self._ask("/v1/load_lora_adapter", body, _LOAD_SECONDS)

    def unload(self, name: str) -> None:
        """See `Server`."""
        self._ask("/v1/unload_lora_adapter", {"lora_name": name}, _LIST_SECONDS)

    def answer(self, name: str, question: Question, max_new_tokens: int) -> str:
        """See `Server`."""
        body: dict[str, Any] = {"model": name, "max_tokens": max_new_tokens, "temperature": 0}
        is_chat = question.messages is not None
        body |= {"messages": question.messages} if is_chat else {"prompt": question.prompt}
        path = "/v1/chat/completions" if is_chat else "/v1/completions"
        raw = self._ask(path, body, _LOAD_SECONDS)
        try:
            choice = json.loads(raw)["choices"][0]
            return str((choice["message"]["content"] if is_chat else choice["text"]) or "")
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ServerError(f"{path}: no answer in what came: {type(error).__name__}: {error}") from None

    def _ask(self, path: str, body: dict[str, Any] | None, seconds: float) -> bytes:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with self._opener.open(request, timeout=seconds) as response:
                return bytes(response.read())
        except HTTPError as error:
            with error:
                raw = error.read(4 * _EXCERPT)
            raise ServerError(f"{path}: {error.code}: {_message(raw)}{_advice(path, error.code)}") from None
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise ServerError(f"{path}: does not answer: {reason}") from None


def _message(raw: bytes) -> str:
    """The sentence of an error that vLLM answers, or the beginning of whatever else came."""
    try:
        message = json.loads(raw)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = raw.decode(errors="replace")
    return str(message)[:_EXCERPT]


def _advice(path: str, status: int) -> str:
    if status == HTTPStatus.NOT_FOUND and path == "/v1/load_lora_adapter":
        return "; does the server run with VLLM_ALLOW_RUNTIME_LORA_UPDATING=true?"
    return ""
