# SPDX-License-Identifier: Apache-2.0
"""How the history of writes is judged: the verdict that the tests on Argo CD stand on, case by case."""

import pytest
from support.gitops.write_history import Write, breaches, ready_since

NEEDS = {"b": {"a"}, "c": {"a", "b"}}


@pytest.mark.parametrize(
    ("case", "started", "settled", "guilty"),
    [
        ("in order", {"a": 1, "b": 5, "c": 9}, {"a": 4, "b": 8, "c": 12}, []),
        ("one that came before its need was ready", {"a": 1, "b": 3}, {"a": 4, "b": 8}, ["b"]),
        ("one whose need is not ready at all", {"a": 1, "b": 5}, {"a": None, "b": 8}, ["b"]),
        ("a need of a need", {"a": 1, "c": 3}, {"a": 4, "c": 8}, ["c"]),
        ("a need that did not change", {"b": 5}, {"b": 8}, []),
        ("the need of another", {"a": 6, "b": 5}, {"a": 9, "b": 8}, ["b"]),
    ],
)
def test_a_breach_is_named(
    case: str, started: dict[str, int], settled: dict[str, int | None], guilty: list[str]
) -> None:
    assert [breach.split()[0] for breach in breaches(NEEDS, started, settled)] == guilty, case


def write(version: int, content: str, state: str) -> Write:
    return Write(version, "Probe", "data/versitygw", "a", content, state == "ready", state == "gone")


@pytest.mark.parametrize(
    ("case", "writes", "since"),
    [
        ("never ready", [write(1, "x", "not")], None),
        ("ready later", [write(1, "x", "not"), write(3, "x", "ready")], 3),
        ("still ready", [write(1, "x", "ready"), write(3, "x", "ready")], 1),
        ("ready for what it was before", [write(1, "x", "ready"), write(3, "y", "not")], None),
        ("changed and ready at once", [write(1, "x", "ready"), write(3, "y", "ready")], 3),
        ("lost and ready again", [write(1, "x", "ready"), write(2, "x", "not"), write(5, "x", "ready")], 5),
        ("gone", [write(1, "x", "ready"), write(3, "x", "gone")], None),
    ],
)
def test_an_object_is_ready_from_a_version_on(case: str, writes: list[Write], since: int | None) -> None:
    assert ready_since(writes) == since, case
