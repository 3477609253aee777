# SPDX-License-Identifier: Apache-2.0
"""The page of checks names every rule id that a finding can carry, beside the check that gives it."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tuneyard
from tuneyard.checks import FILE_CHECKS, STACK_CHECKS
from tuneyard.checks.job_files import check as check_jobs
from tuneyard.cluster.contradictions import CHECKS as LIVE_CHECKS
from tuneyard.cluster.room import SURVEY_CHECKS
from tuneyard.environment.load import parse
from tuneyard.findings import InputError
from tuneyard.pipeline import build_loaded
from tuneyard.views.pages import checks_page
from tuneyard.views.rules import OTHER_RULES, rules_of

ROOT = Path(__file__).parents[2]
CHECKS: tuple[Callable[..., Any], ...] = (
    *STACK_CHECKS,
    *FILE_CHECKS,
    check_jobs,
    *LIVE_CHECKS,
    *SURVEY_CHECKS,
)
PAGE = checks_page()
LISTED = {rule for check in CHECKS for rule in rules_of(check)}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_check_has_a_rule_id_on_the_page(check: Callable[..., Any]) -> None:
    name = "jobs_in_git" if check is check_jobs else check.__name__
    assert rules_of(check)
    shown = ", ".join(f"`{rule}`" for rule in rules_of(check))
    assert f"| {name} | {shown} |" in PAGE


def test_a_rule_id_of_a_helper_belongs_to_the_check_that_calls_it() -> None:
    by_name = {check.__name__: rules_of(check) for check in CHECKS}
    assert by_name["gpus_are_as_said"] == ("live-gpus",)
    assert by_name["storage_classes_exist"] == ("live-storage-class",)
    assert by_name["kubernetes_is_supported"] == ("kubernetes-is-supported",)
    assert "vllm-takes-rank" in by_name["options_go_together"]


def test_every_rule_id_in_the_code_is_on_the_page_once() -> None:
    written = {
        str(node.args[0].value)
        for file in Path(tuneyard.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding"
        if node.args and isinstance(node.args[0], ast.Constant)
    }
    chosen_while_running = {"chart-value-is-known", "chart-value-fits-schema"}
    assert written | chosen_while_running == LISTED | set(OTHER_RULES)
    assert not LISTED & set(OTHER_RULES)


def test_every_rule_that_an_invalid_environment_breaks_is_listed() -> None:
    broken = set()
    for path in (ROOT / "tests/invalid/environments").glob("*.yaml"):
        try:
            broken |= {
                finding.rule for finding in build_loaded(parse(path.read_bytes(), path.name), ROOT).findings
            }
        except InputError as error:
            broken |= {finding.rule for finding in error.findings}
    assert len(broken) > 40
    assert broken <= LISTED | set(OTHER_RULES)
