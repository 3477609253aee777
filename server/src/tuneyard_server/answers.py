# SPDX-License-Identifier: Apache-2.0
"""OpenAI's answers: pure builders of the JSON that clients know."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Json = dict[str, Any]


class AnswerLike(Protocol):
    """What the engine returns; its module needs PyTorch, this one does not."""

    @property
    def text(self) -> str:
        """The generated text."""

    @property
    def finish_reason(self) -> str:
        """`stop` or `length`."""

    @property
    def prompt_tokens(self) -> int:
        """Number of tokens of the prompt."""

    @property
    def completion_tokens(self) -> int:
        """Number of tokens of the answer."""


@dataclass(frozen=True)
class Envelope:
    """The fields that are the same in every part of one answer."""

    model: str
    is_chat: bool
    created: int = field(default_factory=lambda: int(time.time()))
    key: str = field(default_factory=lambda: uuid.uuid4().hex)

    def build(self, choices: list[Json], *, is_chunk: bool) -> Json:
        """Build the object around the choices."""
        kind = (
            ("chat.completion.chunk" if is_chunk else "chat.completion")
            if self.is_chat
            else "text_completion"
        )
        prefix = "chatcmpl" if self.is_chat else "cmpl"
        return {
            "id": f"{prefix}-{self.key}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }


def build_usage(answers: Sequence[AnswerLike]) -> Json:
    """Token counts over all prompts of a request."""
    prompt, completion = sum(a.prompt_tokens for a in answers), sum(a.completion_tokens for a in answers)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def build_answer(envelope: Envelope, answers: Sequence[AnswerLike]) -> Json:
    """The whole answer at once."""
    choices = [
        {"index": index, "finish_reason": answer.finish_reason, "logprobs": None}
        | (
            {"message": {"role": "assistant", "content": answer.text}}
            if envelope.is_chat
            else {"text": answer.text}
        )
        for index, answer in enumerate(answers)
    ]
    return envelope.build(choices, is_chunk=False) | {"usage": build_usage(answers)}


def build_chunk(envelope: Envelope, index: int, *, text: str = "", finish_reason: str | None = None) -> Json:
    """A piece of the text of one choice, or its end."""
    content: Json = {"delta": {"content": text} if text else {}} if envelope.is_chat else {"text": text}
    return envelope.build(
        [content | {"index": index, "finish_reason": finish_reason, "logprobs": None}], is_chunk=True
    )


def build_role_chunk(envelope: Envelope) -> Json:
    """The first chunk of a chat answer, which has the role."""
    delta = {"role": "assistant", "content": ""}
    return envelope.build(
        [{"delta": delta, "index": 0, "finish_reason": None, "logprobs": None}], is_chunk=True
    )


def build_usage_chunk(envelope: Envelope, answers: Sequence[AnswerLike]) -> Json:
    """The last chunk, when `stream_options.include_usage` asks for it."""
    return envelope.build([], is_chunk=True) | {"usage": build_usage(answers)}


def build_model_entry(name: str, *, root: str, parent: str | None, created: int) -> Json:
    """One row of /v1/models: the folder that it was loaded from, and the base of an adapter."""
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "tuneyard",
        "root": root,
        "parent": parent,
    }


def build_error(message: str, *, kind: str, status: int, parameter: str | None = None) -> Json:
    """OpenAI's error object as vLLM fills it: the code is the HTTP status."""
    return {"error": {"message": message, "type": kind, "param": parameter, "code": status}}
