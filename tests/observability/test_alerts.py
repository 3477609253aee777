# SPDX-License-Identifier: Apache-2.0
"""The alert rules: promtool fires each one and keeps it silent; each asks for series that exist and has its runbook."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from observability.alerts import ALERTS, RUNBOOKS, build_rules
from observability.dashboard import PANELS
from support.prometheus import program
from tuneyard_api import series

REPOSITORY = Path(__file__).parents[2]
CASES = Path(__file__).with_name("alerts.test.yaml")
PAGES = REPOSITORY / "docs/runbooks"


@pytest.mark.cluster
def test_promtool_fires_each_alert_and_keeps_it_silent(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(build_rules()))
    (tmp_path / CASES.name).write_text(CASES.read_text())
    for words in (["check", "rules", "rules.yaml"], ["test", "rules", CASES.name]):
        answer = subprocess.run(
            [program("promtool"), *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert answer.returncode == 0, answer.stdout + answer.stderr


def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    cases = [
        (case["alertname"], bool(case["exp_alerts"]))
        for test in yaml.safe_load(CASES.read_text())["tests"]
        for case in test.get("alert_rule_test", ())
    ]
    for alert in ALERTS:
        assert {fires for name, fires in cases if name == alert.name} == {True, False}, alert.name


def test_each_alert_has_a_runbook_that_says_what_it_means_and_what_to_do() -> None:
    assert sorted(page.stem for page in PAGES.glob("*.md")) == sorted(alert.name for alert in ALERTS)
    for alert in ALERTS:
        text = (PAGES / f"{alert.name}.md").read_text()
        assert text.startswith(f"# {alert.name}\n")
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == [
            "What it means",
            "Find the cause",
            "What to do",
        ]


def test_a_runbook_is_named_by_the_folder_that_the_chart_puts_in() -> None:
    rules = [rule for group in build_rules()["groups"] for rule in group["rules"] if "alert" in rule]
    assert [rule["annotations"]["runbook_url"] for rule in rules] == [
        f"{RUNBOOKS}/{a.name}.md" for a in ALERTS
    ]
    template = (REPOSITORY / "charts/tuneyard-operator/templates/prometheusrule.yaml").read_text()
    assert f'replace "{RUNBOOKS}"' in template


def test_no_series_of_the_operator_has_the_name_of_one_of_a_pod() -> None:
    """Prometheus reads both, and a sum would have both."""
    pods = set(
        re.findall(r"tuneyard_\w+", (REPOSITORY / "trainer/src/tuneyard_trainer/pod/progress.py").read_text())
    )
    assert "tuneyard_tokens_per_second" in pods
    assert not pods & {each.name for each in series.SERIES}


def names_in(expression: str) -> set[str]:
    """The operator's series in an expression."""
    return set(re.findall(r"\btuneyard_\w+", expression))


def test_every_expression_asks_for_series_that_the_operator_has() -> None:
    known = {each.sample for each in series.SERIES}
    asked = [alert.expression for alert in ALERTS] + [q.expression for panel in PANELS for q in panel.queries]
    assert set().union(*map(names_in, asked)) <= known
    labels = {each.sample: set(each.labels) | {"le"} for each in series.SERIES}
    for expression in asked:
        for name, matchers in re.findall(r"\b(tuneyard_\w+)\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)=", matchers)) <= labels[name], expression
