# SPDX-License-Identifier: Apache-2.0
"""Why a request gets no answer: each error knows its HTTP status and OpenAI's type and code."""

from typing import ClassVar


class RequestError(Exception):
    """A request that is refused, with a sentence for the person who sent it."""

    status: ClassVar[int]
    code: ClassVar[str]
    kind: ClassVar[str] = "invalid_request_error"
    parameter: str | None = None
    """The field that is wrong, if it is one."""


class InvalidRequestError(RequestError):
    """Fields are wrong; `problems` holds (parameter, sentence) pairs."""

    status, code = 400, "invalid_request"

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{parameter}: {sentence}" for parameter, sentence in problems))
        self.problems = problems
        self.parameter = problems[0][0] if len(problems) == 1 else None


class PromptRefusedError(RequestError):
    """The tokenizer or its chat template can't take the prompt."""

    status, code = 400, "invalid_request"


class UnknownModelError(RequestError):
    """No model of that name is served; the message lists what is."""

    status, code, parameter = 404, "model_not_found", "model"


class PromptTooLongError(RequestError):
    """Prompt and answer do not fit into the context; the message has the numbers."""

    status, code = 413, "context_length_exceeded"


class QueueFullError(RequestError):
    """As many requests are waiting as may wait."""

    status, code, kind = 429, "queue_full", "rate_limit_error"


class NotReadyError(RequestError):
    """The model is still being loaded, or the server is going down."""

    status, code, kind = 503, "not_ready", "server_error"
