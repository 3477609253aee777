# SPDX-License-Identifier: Apache-2.0
"""OpenAI's requests, read strictly: all problems are reported at once, and no field is silently ignored."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tuneyard_server.errors import InvalidRequestError

MAX_PROMPTS = 64
MAX_STOPS = 4
COMPLETION_DEFAULT_TOKENS = 16
"""OpenAI's default for /v1/completions."""

# Fields of OpenAI that this server lacks, with the values that have no effect.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1, None),
    "best_of": (1, None),
    "echo": (False, None),
    "suffix": ("", None),
    "logprobs": (False, None),
    "top_logprobs": (0, None),
    "logit_bias": ({}, None),
    "presence_penalty": (0, None),
    "frequency_penalty": (0, None),
    "tools": ([], None),
    "tool_choice": ("none", "auto", None),
    "response_format": ({"type": "text"}, None),
}
COMMON = frozenset(
    {"model", "max_tokens", "temperature", "top_p", "seed", "stop", "stream", "stream_options", "user"}
)
ROLES = frozenset({"system", "user", "assistant"})


def is_text(value: object) -> bool:
    """A string that any tokenizer takes; JSON can also write halves of characters (lone surrogates)."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


@dataclass(frozen=True)
class Sampling:
    """How an answer is generated."""

    max_tokens: int | None
    """Largest number of new tokens; None: as many as fit into the context."""
    temperature: float = 1.0
    """0 is greedy; 1 is OpenAI's default."""
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class GenerationRequest:
    """A completion (`prompts`) or a chat completion (`messages`)."""

    model: str
    """Name of an adapter or of the base model; empty: the base model."""
    sampling: Sampling
    prompts: tuple[str, ...] = ()
    messages: tuple[Mapping[str, str], ...] = ()
    is_stream: bool = False
    has_stream_usage: bool = False

    @property
    def is_chat(self) -> bool:
        """Whether the answer has the shape of a chat completion."""
        return bool(self.messages)


@dataclass
class FieldReader:
    """Reads fields of one JSON object and gathers what is wrong with them."""

    body: Mapping[str, Any]
    problems: list[tuple[str, str]] = field(default_factory=list)

    def add(self, parameter: str, sentence: str) -> None:
        """One more problem."""
        self.problems.append((parameter, sentence))

    def number(self, name: str, low: float, high: float, default: float) -> float:
        """A number from low to high."""
        value = self.body.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            self.add(name, f"must be a number from {low:g} to {high:g} (got {value!r})")
            return default
        return float(value)

    def integer(self, name: str, low: int, high: int, default: int | None) -> int | None:
        """A whole number from low to high."""
        value = self.body.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.add(name, f"must be a whole number from {low} to {high} (got {value!r})")
            return default
        return value

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self.body.get(name)
        if value is not None and not isinstance(value, bool):
            self.add(name, f"must be true or false (got {value!r})")
        return value is True

    def model(self) -> str:
        """The model's name; empty for the base model."""
        return self.text("model", default="")

    def text(self, name: str, default: str | None = None) -> str:
        """A string; one without a default must be there."""
        value = self.body.get(name)
        if value is None and default is not None:
            return default
        if not is_text(value):
            self.add(name, f"must be a string (got {value!r})")
            return ""
        return str(value)

    def stops(self) -> tuple[str, ...]:
        """One stop string or a few."""
        value = self.body.get("stop")
        stops = [] if value is None else [value] if isinstance(value, str) else value
        if not isinstance(stops, list) or len(stops) > MAX_STOPS or not all(is_text(s) and s for s in stops):
            self.add(
                "stop", f"must be a string or at most {MAX_STOPS} strings, none of them empty (got {value!r})"
            )
            return ()
        return tuple(stops)

    def prompts(self) -> tuple[str, ...]:
        """One prompt or a list of them."""
        value = self.body.get("prompt")
        prompts = [value] if isinstance(value, str) else value
        if not isinstance(prompts, list) or not prompts or not all(map(is_text, prompts)):
            self.add(
                "prompt", "must be a string or a list of strings; lists of token ids are not served here"
            )
            return ()
        if len(prompts) > MAX_PROMPTS:
            self.add("prompt", f"has {len(prompts)} prompts; try at most {MAX_PROMPTS} in one request")
        return tuple(prompts)

    def messages(self) -> tuple[Mapping[str, str], ...]:
        """Messages of role and text; OpenAI's list of text parts counts as their concatenation."""
        value = self.body.get("messages")
        if not isinstance(value, list) or not value:
            self.add("messages", "must be a list of at least one message")
            return ()
        messages = []
        for index, message in enumerate(value):
            if not isinstance(message, dict):
                self.add(f"messages[{index}]", f"must be an object with role and content (got {message!r})")
                continue
            role, content = message.get("role"), message.get("content")
            if isinstance(content, list) and all(
                isinstance(p, dict) and isinstance(p.get("text"), str) for p in content
            ):
                content = "".join(part["text"] for part in content)
            if role not in ROLES:
                self.add(
                    f"messages[{index}].role", f"must be one of {', '.join(sorted(ROLES))} (got {role!r})"
                )
            if not is_text(content):
                self.add(f"messages[{index}].content", "must be a string or a list of text parts")
            messages.append({"role": str(role), "content": str(content)})
        return tuple(messages)

    def refuse_unserved(self, served: frozenset[str]) -> None:
        """Refuse fields that would change the answer and that this server does not implement."""
        for name, value in self.body.items():
            if name in served:
                continue
            if name not in NEUTRAL:
                self.add(name, f"is not known; try one of {', '.join(sorted(served))}")
            elif value not in NEUTRAL[name]:
                self.add(name, f"is not served here with the value {value!r}; leave it out")


def parse_request(body: object, *, is_chat: bool) -> GenerationRequest:
    """The request in the body.

    Raises:
        InvalidRequestError: with everything that is wrong with it.
    """
    if not isinstance(body, dict):
        raise InvalidRequestError([("body", "must be a JSON object")])
    reader = FieldReader(body)
    chat_fields = frozenset({"messages", "max_completion_tokens"})
    reader.refuse_unserved(COMMON | (chat_fields if is_chat else {"prompt"}))
    limit = reader.integer("max_tokens", 1, 1_000_000, None if is_chat else COMPLETION_DEFAULT_TOKENS)
    options = body.get("stream_options")
    if options is not None and not (isinstance(options, dict) and set(options) <= {"include_usage"}):
        reader.add("stream_options", f"may only hold include_usage (got {options!r})")
        options = None
    request = GenerationRequest(
        model=reader.model(),
        sampling=Sampling(
            max_tokens=reader.integer("max_completion_tokens", 1, 1_000_000, limit) if is_chat else limit,
            temperature=reader.number("temperature", 0, 2, 1.0),
            top_p=reader.number("top_p", 0, 1, 1.0),
            seed=reader.integer("seed", -(2**63), 2**63 - 1, None),
            stop=reader.stops(),
        ),
        prompts=() if is_chat else reader.prompts(),
        messages=reader.messages() if is_chat else (),
        is_stream=reader.flag("stream"),
        has_stream_usage=bool(options and options.get("include_usage")),
    )
    if reader.problems:
        raise InvalidRequestError(reader.problems)
    return request
