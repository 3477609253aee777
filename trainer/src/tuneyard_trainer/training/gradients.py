# SPDX-License-Identifier: Apache-2.0
"""Sums gradients over processes that hold the whole model each, while the backward pass still makes other gradients.

Sums travel in messages, whose order is the same in all processes whatever was computed in each: the reverse of the
parameters', as the backward pass comes to the last layers first.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from tuneyard_trainer.model.world import World, in_messages, spread_out

_MESSAGE = 2**24
"""Most numbers of gradients that are sent together; a larger gradient is sent alone."""


@dataclass
class _Message:
    parameters: list[torch.nn.Parameter]
    waits_for: set[int]
    """Identities of the parameters whose gradients are still to come."""


class Gradients:
    """The gradients of parameters that every process has whole."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter], world: World) -> None:
        """Gives each parameter a hook; a world of one process needs none."""
        self._world, self._is_last = world, False
        self._messages = [
            _Message(some, set())
            for some in in_messages(list(reversed(parameters)), _MESSAGE)
            if world.size > 1
        ]
        self._message_of = {
            id(each): at for at, some in enumerate(self._messages) for each in some.parameters
        }
        self._sent: list[Callable[[], None]] = []
        for message in self._messages:
            for parameter in message.parameters:
                parameter.register_post_accumulate_grad_hook(self._made)

    @contextmanager
    def summed(self) -> Iterator[None]:
        """Around the last backward pass of a step: after it, gradients are summed over all processes."""
        for message in self._messages:
            message.waits_for = set(map(id, message.parameters))
        self._sent, self._is_last = [], True
        yield
        self._is_last = False
        # What no backward pass came to here may have a gradient in another process.
        while len(self._sent) < len(self._messages):
            self._send()
        for finish in self._sent:
            finish()
        # They would hold the gradients until the next step's.
        self._sent = []

    def _made(self, parameter: torch.nn.Parameter) -> None:
        if not self._is_last:
            return
        at = self._message_of[id(parameter)]
        if at < len(self._sent):
            raise RuntimeError("a backward pass added to a gradient that was sent already")
        self._messages[at].waits_for.discard(id(parameter))
        while len(self._sent) < len(self._messages) and not self._messages[len(self._sent)].waits_for:
            self._send()

    def _send(self) -> None:
        """Sends the next message."""
        gradients = [_gradient(each) for each in self._messages[len(self._sent)].parameters]
        if len(gradients) == 1 and gradients[0].is_contiguous():
            self._sent.append(self._world.begin_sum(gradients[0]))
            return
        together = torch.cat([gradient.flatten() for gradient in gradients])
        wait = self._world.begin_sum(together)

        def finish() -> None:
            wait()
            spread_out(together, gradients)

        self._sent.append(finish)


def _gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    """The gradient; zeros, if nothing here went through the parameter."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad
