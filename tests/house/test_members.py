# SPDX-License-Identifier: Apache-2.0
"""Each member of the workspace is seen by everything that looks at all of them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.repository import MEMBERS, REPOSITORY, SETTINGS


def package_of(member: str) -> str:
    [package] = [path.parent.name for path in REPOSITORY.glob(f"{member}/src/*/__init__.py")]
    return package


def contract(name: str) -> dict[str, Any]:
    [found] = [each for each in SETTINGS["importlinter"]["contracts"] if each["name"].startswith(name)]
    return found


def words_of(file: str, start: str) -> list[str]:
    """The words of the one line that begins so."""
    [line] = [line for line in (REPOSITORY / file).read_text().splitlines() if line.startswith(start)]
    return line.removeprefix(start).replace(",", " ").replace('"', " ").strip(" ()").split()


@pytest.mark.parametrize("member", MEMBERS)
def test_a_member_is_linted_typed_held_to_contracts_and_built(member: str) -> None:
    package = package_of(member)
    assert member in words_of("Makefile", "PYTHON_FOLDERS =")
    assert f"{member}/src" in words_of("Makefile", "MYPY_FOLDERS =")
    assert f"{member}/src" in SETTINGS["mypy"]["mypy_path"]
    assert package in SETTINGS["importlinter"]["root_packages"]
    assert package in contract("No circles")["ancestors"]
    assert (
        package == "tuneyard_api" or package in contract("The contract imports nobody")["forbidden_modules"]
    )
    assert member in words_of("tools/removals.py", "MEMBERS =")
    assert f"!{member}" in (REPOSITORY / ".dockerignore").read_text().split()


@pytest.mark.parametrize(
    "way_back",
    [
        "from pack import first\n",
        "def later():\n    from pack import first\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pack import first\n",
    ],
    ids=["at the top", "inside a function", "for types alone"],
)
def test_a_circle_is_seen_wherever_its_import_is(tmp_path: Path, way_back: str) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack/__init__.py").touch()
    (tmp_path / "pack/first.py").write_text("from pack import second\n")
    (tmp_path / "pack/second.py").write_text(way_back)
    circles = contract("No circles")
    (tmp_path / "linter.toml").write_text(
        '[tool.importlinter]\nroot_packages = ["pack"]\n[[tool.importlinter.contracts]]\n'
        f'name = "circles"\ntype = "{circles["type"]}"\nancestors = ["pack"]\n'
    )
    program = [Path(sys.executable).with_name("lint-imports"), "--config", "linter.toml", "--no-cache"]
    linted = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert linted.returncode == 1, linted.stdout
    assert "circles BROKEN" in linted.stdout
