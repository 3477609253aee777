# SPDX-License-Identifier: Apache-2.0
"""Modules find each other without detours: no circles in what tests share, no lines that move the path of imports, no types in quotes."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.repository import REPOSITORY, modules_of


def quoted_types(source: str) -> Iterator[str]:
    """Annotations in quotes; the words of a Literal and what is beside the type in an Annotated are none."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AnnAssign | ast.arg) and node.annotation is not None:
            yield from _strings(node.annotation)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None:
            yield from _strings(node.returns)


def _strings(annotation: ast.AST) -> Iterator[str]:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        yield annotation.value
    if isinstance(annotation, ast.Subscript):
        name = ast.unparse(annotation.value).rpartition(".")[2]
        if name == "Literal":
            return
        if name == "Annotated" and isinstance(annotation.slice, ast.Tuple):
            yield from _strings(annotation.slice.elts[0])
            return
    for child in ast.iter_child_nodes(annotation):
        yield from _strings(child)


def test_what_tests_share_has_no_circles(tmp_path: Path) -> None:
    """The members are held to it by `make lint`, where the folder of tests is no package."""
    (tmp_path / "linter.toml").write_text(
        '[tool.importlinter]\nroot_packages = ["support"]\n[[tool.importlinter.contracts]]\n'
        'name = "circles"\ntype = "acyclic_siblings"\nancestors = ["support"]\n'
    )
    program = [Path(sys.executable).with_name("lint-imports"), "--config", "linter.toml", "--no-cache"]
    linted = subprocess.run(
        program,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY / "tests")},
    )
    assert "circles KEPT" in linted.stdout, linted.stdout + linted.stderr


def test_no_module_changes_where_modules_are_looked_for() -> None:
    words = "sys." + "path"
    assert [path for path in modules_of("") if words in path.read_text()] == []


def test_the_generator_needs_no_import_for_types_alone_and_no_type_in_quotes() -> None:
    modules = modules_of("generator/src/")
    assert len(modules) > 100
    found = {path.name: list(quoted_types(path.read_text())) for path in modules}
    assert {name: types for name, types in found.items() if types} == {}
    assert [path.name for path in modules if "TYPE_CHECKING" in path.read_text()] == []


@pytest.mark.parametrize(
    ("source", "types"),
    [
        ('def f(a: "A") -> None: ...', ["A"]),
        ('def f(*a: int) -> list["A | None"]: ...', ["A | None"]),
        ('class C:\n    a: "dict[str, A]"', ["dict[str, A]"]),
        ('a: Literal["one", "two"] = "one"', []),
        ('a: Annotated[int, Field(alias="two")]', []),
        ('def f(a: str = "A") -> str: ...', []),
    ],
)
def test_a_type_in_quotes_is_seen(source: str, types: list[str]) -> None:
    assert list(quoted_types(source)) == types
