# SPDX-License-Identifier: Apache-2.0
"""krew/tuneyard.yaml against krew's rules (internal/index/validation of v0.5.0), and what its archive starts."""

import hashlib
import io
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from tuneyard_api.yaml_io import load

import krew as krew_tool

SAFE_NAME, DIGEST = re.compile(r"[\w-]+"), re.compile(r"[a-f0-9]{64}")
VERSION = re.compile(r"v\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")
MANIFEST = load(krew_tool.MANIFEST.read_text()).value


def test_the_manifest_keeps_krew_s_rules() -> None:
    assert MANIFEST["apiVersion"] == "krew.googlecontainertools.github.com/v1alpha2"
    assert MANIFEST["kind"] == "Plugin"
    name, spec = MANIFEST["metadata"]["name"], MANIFEST["spec"]
    assert SAFE_NAME.fullmatch(name)
    assert krew_tool.MANIFEST.stem == name, "krew takes a plugin's name from its file"
    assert VERSION.fullmatch(spec["version"])
    assert spec["shortDescription"]
    assert not re.search(r"[\r\n]", spec["shortDescription"])
    assert spec["platforms"]
    for platform in spec["platforms"]:
        assert platform["uri"]
        assert DIGEST.fullmatch(platform["sha256"])
        assert platform["bin"]
        assert platform["files"]
        assert all(file["from"] and file["to"] for file in platform["files"])
        assert platform["selector"]["matchLabels"].keys() <= {"os", "arch"}
        assert platform["selector"]["matchLabels"]


def test_the_archive_is_the_one_that_the_manifest_names() -> None:
    content = krew_tool.archive()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        there = set(archive.namelist())
    for platform in MANIFEST["spec"]["platforms"]:
        assert hashlib.sha256(content).hexdigest() == platform["sha256"]
        assert {file["from"] for file in platform["files"]} <= there
        assert platform["bin"] in there


def start(*words: str, python: str) -> "subprocess.CompletedProcess[str]":
    environ = {**os.environ, "TUNEYARD_PYTHON": python}
    command = [str(krew_tool.FILES["kubectl-tuneyard"]), *words]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)


def test_it_starts_the_installed_package() -> None:
    done = start("--help", python=sys.executable)
    assert done.returncode == 0, done.stderr
    assert "Usage: kubectl tuneyard" in done.stdout
    assert "Traceback" not in start("no-such-verb", python=sys.executable).stderr


def test_without_the_package_it_says_what_is_missing(tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\nexit 1\n")
    bare.chmod(0o755)
    done = start("list", python=str(bare))
    assert done.returncode == 1
    assert "has no package tuneyard with its extra cluster" in done.stderr


def test_the_package_installs_the_program() -> None:
    assert (Path(sys.executable).parent / "kubectl-tuneyard").is_file()
