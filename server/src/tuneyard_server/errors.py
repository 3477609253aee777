# SPDX-License-Identifier: Apache-2.0
"""Why a request gets no answer: each error knows its HTTP status and the type that vLLM gives it."""

from typing import ClassVar


class RequestError(Exception):
    """A request that is refused, with a sentence for the person who sent it."""

    status: ClassVar[int]
    kind: ClassVar[str]
    parameter: str | None = None
    """Name of the wrong field, if a field is wrong."""


class InvalidRequestError(RequestError):
    """Fields are wrong; `problems` holds (parameter, sentence) pairs."""

    status, kind = 400, "BadRequestError"

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{parameter}: {sentence}" for parameter, sentence in problems))
        self.problems = problems
        self.parameter = problems[0][0] if len(problems) == 1 else None


class MalformedRequestError(InvalidRequestError):
    """The body of a call that loads or unloads is not of its form."""

    kind = "Bad Request"


class PromptRefusedError(RequestError):
    """The tokenizer or its chat template can't take the prompt."""

    status, kind = 400, "BadRequestError"


class PromptTooLongError(RequestError):
    """Prompt and answer do not fit into the context; the message has the numbers."""

    status, kind = 400, "BadRequestError"


class UnknownModelError(RequestError):
    """No model of that name is served, and no adapter of it lies in the folder."""

    status, kind, parameter = 404, "NotFoundError", "model"

    def __init__(self, name: str, base: str) -> None:
        super().__init__(f"The model `{name}` does not exist. Valid aliases: {base}.")


class AdapterNotLoadableError(RequestError):
    """An adapter of that name lies in the folder and can't be served."""

    status, kind = 400, "BadRequestError"


class AdapterRequestError(RequestError):
    """A call that loads an adapter and makes no sense."""

    status, kind = 400, "InvalidUserInput"


class AdapterUnknownError(RequestError):
    """No adapter of that name is listed, or none lies in the folder that is given."""

    status, kind = 404, "NotFoundError"


class AdapterFailedError(RequestError):
    """The adapter that is to be loaded can't be; the message says why."""

    status, kind = 500, "InternalServerError"


class QueueFullError(RequestError):
    """Raised when the queue is full: no further request may wait."""

    status, kind = 429, "RateLimitError"


class NotReadyError(RequestError):
    """The model is still being loaded, or the server is going down."""

    status, kind = 503, "ServiceUnavailableError"
