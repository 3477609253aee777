# SPDX-License-Identifier: Apache-2.0
"""What a forge reads: its CI runs what anyone runs, with no rights and no moving parts; hooks run the locked tools."""

import re
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[2]


def test_ci_runs_the_same_as_anyone_with_read_rights_and_pinned_actions() -> None:
    for path in (REPOSITORY / ".github/workflows").glob("*.yaml"):
        workflow = yaml.safe_load(path.read_text())
        assert workflow["permissions"] == {"contents": "read"}
        steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
        assert [
            step["uses"]
            for step in steps
            if "uses" in step and not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"])
        ] == []
        assert "bash .ci/run" in [step.get("run") for step in steps]


def test_hooks_run_the_locked_tools() -> None:
    [local] = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"
    for hook in local["hooks"]:
        assert hook["entry"].startswith(("uv run --frozen ", "make ")), hook["id"]
