# SPDX-License-Identifier: Apache-2.0
"""The tutorial for data scientists does what it says, command by command, on real pods, with the tiny Llama as its model."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from support.bench import Bench
from support.pages import run_page
from tuneyard_local import installation, smollm2
from tuneyard_local.demo import main_job
from tuneyard_local.paths import REPOSITORY, ClusterFolder

PAGE = REPOSITORY / "docs/tutorials/first-fine-tune.md"


@pytest.mark.e2e
@pytest.mark.timeout(1500)
def test_the_tutorial_for_data_scientists_runs(bench: Bench, tmp_path: Path) -> None:
    assert bench.namespace == main_job.NAMESPACE
    kubeconfig = shutil.copy(bench.cluster.kubeconfig, tmp_path)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    page = tmp_path / PAGE.name
    page.write_text(PAGE.read_text().replace(smollm2.NAME, installation.BASE_MODEL))
    problems = run_page(page, tmp_path, {"KUBECONFIG": kubeconfig, "PATH": path}, 1400)
    assert not problems, "\n\n".join(problems)


def test_the_tutorial_tunes_the_model_of_the_demo() -> None:
    assert f"path: {smollm2.NAME}}}" in main_job.JOB_FILE.read_text()
    assert PAGE.read_text().count(f"path: {smollm2.NAME}}}") == 2
    assert installation.BASE_MODEL not in PAGE.read_text()


def test_the_tutorial_names_the_kubeconfig_of_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    kubeconfig = ClusterFolder(main_job.CLUSTER).kubeconfig("admin")
    assert f"export KUBECONFIG=~/{kubeconfig.relative_to('/home/someone')}\n" in PAGE.read_text()
