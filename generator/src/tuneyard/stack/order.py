# SPDX-License-Identifier: Apache-2.0
"""Waves: a component's wave is the longest path of needs below it, so it starts when the last of them is healthy. Pure."""

from collections.abc import Iterable, Mapping

from tuneyard.findings import Finding, InputError
from tuneyard.stack.model import Edge, Stack
from tuneyard.stack.resolve import edges


def longest_paths(needs: Mapping[str, Iterable[str]], weights: Mapping[str, int]) -> dict[str, int]:
    """The largest sum of `weights` over the nodes below each node.

    Raises:
        InputError: the needs form a cycle; the finding names it.
    """
    depth: dict[str, int] = {}
    for start in sorted(needs):
        stack: list[tuple[str, list[str]]] = [(start, sorted(needs[start]))]
        path = [start] if start not in depth else []
        while stack and path:
            node, waiting = stack[-1]
            if waiting:
                child = waiting.pop(0)
                if child in path:
                    circle = [*path[path.index(child) :], child]
                    raise InputError(
                        [
                            Finding(
                                "no-cycles",
                                f"components need each other: {' -> '.join(circle)}",
                                ("components",),
                                None,
                                "removing one of these needs",
                            )
                        ]
                    )
                if child not in depth:
                    path.append(child)
                    stack.append((child, sorted(needs[child])))
                continue
            depth[node] = max((depth[child] + weights[child] for child in needs[node]), default=0)
            stack.pop()
            path.pop()
    return depth


def waves(stack: Stack, links: Iterable[Edge] | None = None) -> dict[str, int]:
    """Component -> wave from 0. External providers, which are not rendered, take no wave of their own."""
    needs: dict[str, set[str]] = {component.name: set() for component in stack.components}
    for edge in edges(stack) if links is None else links:
        needs[edge.component].add(edge.provider)
    weights = {component.name: int(component.is_rendered()) for component in stack.components}
    return longest_paths(needs, weights)
