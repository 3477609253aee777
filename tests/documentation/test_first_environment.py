# SPDX-License-Identifier: Apache-2.0
"""The tutorial for platform engineers does what it says, command by command."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from support.pages import run_page

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs/tutorials/first-environment.md"
READ_BY_RENDER = ("charts/tuneyard-operator", "manifests/crds")


def test_the_tutorial_for_platform_engineers_runs(tmp_path: Path) -> None:
    for part in READ_BY_RENDER:
        shutil.copytree(REPOSITORY / part, tmp_path / part)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    someone = {
        f"GIT_{who}_{what}": "reader@example.com"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    problems = run_page(PAGE, tmp_path, {**someone, "PATH": path}, 300)
    assert not problems, "\n\n".join(problems)
