# SPDX-License-Identifier: Apache-2.0
"""Requests and answers of the double as data, and the faults that a test can switch on."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

UNANSWERED = 0
"""Status of an answer that never arrives: the connection is closed."""


@dataclass(frozen=True)
class Request:
    """One request, its path without the query, unquoted."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    base: str = "http://double"
    """Address that the client used."""

    def json(self) -> Any:
        try:
            return json.loads(self.body or b"null")
        except ValueError:
            raise Unprocessable("body", "is not JSON") from None


@dataclass(frozen=True)
class Reply:
    """One answer."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def reply(content: Any, status: int = 200, **headers: str) -> Reply:
    """An answer in JSON."""
    return Reply(status, json.dumps(content).encode(), {"Content-Type": "application/json", **headers})


class Refused(Exception):  # noqa: N818  an answer, not a fault of the double
    """An answer with `detail` as text, which the client's ErrorResponse has."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail

    def reply(self) -> Reply:
        return reply({"detail": self.detail}, self.status)


class Unprocessable(Refused):
    """422 with `detail` as a list, which the client's HTTPValidationError has."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(422, f"{where}: {what}")
        self.where, self.what = where, what

    def reply(self) -> Reply:
        problem = {"loc": ["body", *self.where.split(".")], "msg": self.what, "type": "value_error"}
        return reply({"detail": [problem]}, 422)


@dataclass
class Fault:
    """What happens to the next `times` requests of a method to paths that match."""

    method: str
    path: str
    """Regular expression that is searched in the path."""
    answer: int | Literal["cut", "lost"]
    """A status; `cut`: the connection is closed and nothing is done; `lost`: all is done, and the answer does not arrive."""
    times: int = 1
    headers: Mapping[str, str] = field(default_factory=dict)

    def applies(self, request: Request) -> bool:
        return (
            self.times > 0
            and self.method in {"*", request.method}
            and re.search(self.path, request.path) is not None
        )

    def meet(self, request: Request, handle: Callable[[Request], Reply]) -> Reply:
        self.times -= 1
        if self.answer == "cut":
            return Reply(UNANSWERED)
        if self.answer == "lost":
            handle(request)
            return Reply(UNANSWERED)
        return reply({"detail": "a fault that was switched on"}, self.answer, **self.headers)
