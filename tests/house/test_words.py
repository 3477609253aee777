# SPDX-License-Identifier: Apache-2.0
"""Docstrings begin with what they are about: a noun or a verb, and no bare preposition."""

import ast
from collections.abc import Iterator

import pytest
from support.repository import MEMBERS, REPOSITORY, modules_of

FOLDERS = (*MEMBERS, "tests", "bench", "tools")
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
    found = [
        f"{path.relative_to(REPOSITORY)}:{line}: {text.splitlines()[0]}"
        for path in modules_of(f"{folder}/")
        for line, text in docstrings(path.read_text())
        if text.partition(" ")[0] in BARE
    ]
    assert found == []


def test_a_docstring_is_seen_wherever_it_stands() -> None:
    source = '"""Of all."""\nA = 1\n"""Of A."""\nclass C:\n    b: int\n    """Of b."""\n    def f(self):\n        """Of f."""\n'
    assert [text for _, text in docstrings(source)] == ["Of all.", "Of A.", "Of b.", "Of f."]
