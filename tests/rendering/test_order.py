# SPDX-License-Identifier: Apache-2.0
"""Waves: each need is earlier, no wave is later than it must be, circles are named."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuneyard.environment.model import Environment
from tuneyard.findings import InputError
from tuneyard.stack.model import Component, Need
from tuneyard.stack.order import longest_paths, waves
from tuneyard.stack.resolve import resolve


@st.composite
def graphs(draw: Any) -> dict[str, set[str]]:
    """Graphs without circles: nodes need only nodes before them, in a random order of names."""
    order = draw(st.permutations([f"c{i}" for i in range(draw(st.integers(1, 12)))]))
    return {
        name: set(draw(st.lists(st.sampled_from(order[:i]), unique=True))) if i else set()
        for i, name in enumerate(order)
    }


@given(graphs(), st.data())
def test_a_wave_is_the_longest_path_below(needs: dict[str, set[str]], data: Any) -> None:
    weights = {name: data.draw(st.integers(0, 1)) for name in needs}

    def longest(name: str) -> int:
        return max((longest(below) + weights[below] for below in needs[name]), default=0)

    assert longest_paths(needs, weights) == {name: longest(name) for name in needs}


@given(graphs())
def test_the_order_of_names_says_nothing(needs: dict[str, set[str]]) -> None:
    weights = dict.fromkeys(needs, 1)
    assert longest_paths(needs, weights) == longest_paths(dict(reversed(needs.items())), weights)


@given(graphs(), st.data())
def test_a_circle_is_an_error_that_names_it(needs: dict[str, set[str]], data: Any) -> None:
    start = data.draw(st.sampled_from(sorted(needs)))
    depth = longest_paths(needs, dict.fromkeys(needs, 1))
    below = start
    while needs[below]:
        below = max(needs[below], key=lambda name: depth[name])
    needs[below].add(start)
    with pytest.raises(InputError, match=r"need each other: c\d+ -> "):
        longest_paths(needs, dict.fromkeys(needs, 1))


def _environment() -> Environment:
    return Environment.model_validate(
        {
            "name": "t",
            "argocd": {"repoUrl": "https://git.example.com/g.git"},
            "storage": {"readWriteOnce": {"className": "a"}},
        }
    )


def _component(name: str, needs: str = "", **more: Any) -> Component:
    needed = tuple(Need(word, "test") for word in needs.split())
    return Component(
        name,
        name,
        "ns",
        provides=(f"cap-{name}",),
        needs=lambda _: needed,
        objects=more.pop("objects", lambda _: []),
        when=lambda _: True,
        **more,
    )


NAMESPACES = Component(
    "namespaces", "", "", provides=("namespaces",), objects=lambda _: [], when=lambda _: True
)
PRESET = [Component(name, "", provides=(name,)) for name in ("tuneyard-operator", "mlflow")]


def test_components_of_a_catalog_get_their_waves() -> None:
    chain = [NAMESPACES, *PRESET, _component("a"), _component("b", "cap-a"), _component("c", "cap-b cap-a")]
    depth = waves(resolve(_environment(), chain, {}))
    assert [depth[name] for name in "abc"] == [1, 2, 3]


def test_what_is_not_rendered_takes_no_wave() -> None:
    outside = _component("b", "cap-a", objects=None)
    depth = waves(
        resolve(_environment(), [NAMESPACES, *PRESET, _component("a"), outside, _component("c", "cap-b")], {})
    )
    assert depth["c"] == depth["a"] + 1


def test_a_soft_need_orders_only_what_is_there() -> None:
    reader = _component("b", after=("cap-a",))
    with_it = waves(resolve(_environment(), [NAMESPACES, *PRESET, _component("a"), reader], {}))
    without = waves(resolve(_environment(), [NAMESPACES, *PRESET, reader], {}))
    assert (with_it["b"], without["b"]) == (2, 1)


def test_components_that_need_each_other_are_an_error() -> None:
    circle = [NAMESPACES, *PRESET, _component("a", "cap-b"), _component("b", "cap-a")]
    with pytest.raises(InputError, match="components need each other: a -> b -> a"):
        waves(resolve(_environment(), circle, {}))
