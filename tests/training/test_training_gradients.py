# SPDX-License-Identifier: Apache-2.0
"""Gradients of a model that several processes hold are summed during the last backward pass of a step, and then let go."""

import weakref
from typing import ClassVar

import pytest

torch = pytest.importorskip("torch")

from tuneyard_trainer.model.world import World  # noqa: E402
from tuneyard_trainer.training import gradients as module  # noqa: E402
from tuneyard_trainer.training.gradients import Gradients  # noqa: E402

pytestmark = pytest.mark.torch


class Twice(World):
    """Two processes that do the same; `sent` has the sizes of what they tell each other."""

    sent: ClassVar[list[int]] = []

    def begin_sum(self, values):
        self.sent.append(values.numel())
        values.mul_(2)
        return lambda: None


@pytest.fixture
def world():
    Twice.sent = []
    return Twice(0, 2)


def parameters_of(*sizes):
    return [torch.nn.Parameter(torch.ones(size)) for size in sizes]


def test_the_last_pass_alone_sends_and_small_gradients_go_together(world, monkeypatch):
    monkeypatch.setattr(module, "_MESSAGE", 10)
    parameters = parameters_of(20, 4, 3, 30)
    gradients = Gradients(parameters, world)
    sum(each.sum() for each in parameters).backward()
    assert world.sent == []
    with gradients.summed():
        sum(each.sum() for each in parameters).backward()
        assert world.sent == [30, 7, 20]
    assert [each.grad.unique().tolist() for each in parameters] == [[4.0]] * 4


def test_gradients_are_let_go_after_the_step(world):
    parameters = parameters_of(5, 6)
    gradients = Gradients(parameters, world)
    with gradients.summed():
        sum(each.sum() for each in parameters).backward()
    seen = [weakref.ref(each.grad) for each in parameters]
    for each in parameters:
        each.grad = None
    assert [reference() for reference in seen] == [None, None]


def test_what_is_added_to_a_gradient_that_was_sent_is_an_error(world):
    (parameter,) = parameters_of(5)
    with Gradients([parameter], world).summed():
        parameter.sum().backward()
        with pytest.raises(RuntimeError, match="sent already"):
            parameter.sum().backward()
