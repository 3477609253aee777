# SPDX-License-Identifier: Apache-2.0
"""Docstrings begin with what they are about: a noun or a verb, and no bare preposition."""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
FOLDERS = (
    *("api", "operator", "data", "trainer", "workflows", "generator", "server", "sync", "local"),
    *("tests", "bench", "tools"),
)
BARE = frozenset({"Of", "Over", "By", "From", "Between", "Since", "As"})


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Every string that stands alone, with its line: of modules, classes, functions, attributes and constants."""
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)  # that of a lambda is an expression
        for statement in body if isinstance(body, list) else ():
            value = statement.value if isinstance(statement, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value.lineno, value.value.strip()


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_docstring_begins_with_what_it_is_about(folder: str) -> None:
    listed = subprocess.run(
        ["git", "ls-files", f"{folder}/*.py"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    found = [
        f"{path}:{line}: {text.splitlines()[0]}"
        for path in listed.stdout.split()
        if (REPOSITORY / path).exists()
        for line, text in docstrings((REPOSITORY / path).read_text())
        if text.partition(" ")[0] in BARE
    ]
    assert found == []


def test_a_docstring_is_seen_wherever_it_stands() -> None:
    source = '"""Of all."""\nA = 1\n"""Of A."""\nclass C:\n    b: int\n    """Of b."""\n    def f(self):\n        """Of f."""\n'
    assert [text for _, text in docstrings(source)] == ["Of all.", "Of A.", "Of b.", "Of f."]
