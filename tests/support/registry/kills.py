# SPDX-License-Identifier: Apache-2.0
"""A SIGKILL before the n-th change of a disk: from then on the process changes nothing any more, not even to clean up."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest

CHANGES = ("rename", "replace", "mkdir", "unlink", "symlink", "rmdir", "fsync", "utime")


class Killed(BaseException):
    """It is not an Exception, because code that continues after errors must not continue after this."""


@dataclass
class Steps:
    left: int
    is_dead: bool = False

    def count(self) -> None:
        if self.left == 0 or self.is_dead:
            self.is_dead = True
            raise Killed
        self.left -= 1


@contextmanager
def killed_before(step: int) -> Iterator[Steps]:
    """The block dies before its change number `step`, counted from 0; `is_dead` says whether it came that far."""
    steps = Steps(step)

    def guarded(real: Callable[..., Any]) -> Callable[..., Any]:
        def change(*args: Any, **more: Any) -> Any:
            steps.count()
            return real(*args, **more)

        return change

    real_open = io.open

    def opened(file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
        if set(mode) & set("wax+"):
            steps.count()
        return real_open(file, mode, *args, **more)

    with pytest.MonkeyPatch.context() as patch:
        for name in CHANGES:
            patch.setattr(os, name, guarded(getattr(os, name)))
        patch.setattr(io, "open", opened)
        patch.setattr("builtins.open", opened)
        with suppress(Killed):
            yield steps
