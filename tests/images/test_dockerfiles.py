# SPDX-License-Identifier: Apache-2.0
"""What the Dockerfiles promise: a base pinned by digest, one base for all, and a numeric user that is not root."""

import re
import tomllib
from pathlib import Path

import pytest

IMAGES = Path(__file__).parents[2] / "images"
DOCKERFILES = sorted(IMAGES.glob("*/Dockerfile"))


def test_there_is_one_for_each_program() -> None:
    assert [path.parent.name for path in DOCKERFILES] == ["operator", "server", "trainer"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_the_last_user_is_numeric_and_not_root(path: Path) -> None:
    users = re.findall(r"^USER (\S+)$", path.read_text(), re.MULTILINE)
    assert users
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1])


def test_python_is_pinned_once_by_digest() -> None:
    bases = {
        base
        for path in DOCKERFILES
        for base in re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", path.read_text(), re.MULTILINE)
    }
    assert len(bases) == 1
    assert re.fullmatch(r"python:[\d.]+-slim-\w+@sha256:[0-9a-f]{64}", bases.pop())


def test_every_stage_starts_from_a_pinned_argument() -> None:
    for path in DOCKERFILES:
        for base in re.findall(r"^FROM (\S+)", path.read_text(), re.MULTILINE):
            assert base in {"${PYTHON_IMAGE}", "${TRAINER_IMAGE}"}, f"{path}: {base}"


def test_uv_is_the_version_that_the_bootstrap_installs() -> None:
    bootstrap = (IMAGES.parent / "tools" / "bootstrap.sh").read_text()
    version = re.search(r"^version=(\S+)$", bootstrap, re.MULTILINE)
    assert version
    for name in ("operator", "trainer"):
        assert f"uv=={version[1]}" in (IMAGES / name / "Dockerfile").read_text()


def test_installed_packages_have_byte_code() -> None:
    """Pods write none, as their root is read-only: without it each stage compiles PyTorch and transformers anew (18 s of CPU)."""
    for name in ("operator", "trainer"):
        assert " UV_COMPILE_BYTECODE=1 " in (IMAGES / name / "Dockerfile").read_text()


def test_the_cpu_image_has_every_member_that_the_trainer_needs() -> None:
    [line] = re.findall(r"--no-deps (.*);", (IMAGES / "trainer" / "Dockerfile").read_text())
    project = tomllib.loads((IMAGES.parent / "trainer" / "pyproject.toml").read_text())["project"]
    needed = [
        name.removeprefix("tuneyard-") for name in project["dependencies"] if name.startswith("tuneyard-")
    ]
    assert sorted(line.split()) == sorted(f"./{folder}" for folder in [*needed, "trainer"])


def test_the_operator_s_image_has_the_commands_that_are_rendered() -> None:
    [line] = re.findall(r"^RUN uv sync (.*)$", (IMAGES / "operator" / "Dockerfile").read_text(), re.MULTILINE)
    assert re.findall(r"--package (\S+)", line) == ["tuneyard-operator", "tuneyard-sync"]
    project = tomllib.loads((IMAGES.parent / "sync" / "pyproject.toml").read_text())["project"]
    assert "tuneyard-adapter-sync" in project["scripts"]
