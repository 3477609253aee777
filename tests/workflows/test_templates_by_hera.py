# SPDX-License-Identifier: Apache-2.0
"""Hera's typed models of Argo Workflows read every template that we render, and lose nothing of it."""

from typing import Any

import pytest
from hera.workflows import WorkflowTemplate
from support.forms.rendered import rendered

Json = dict[str, Any]
TEMPLATES = [each for each in rendered("team") if each["kind"] == "WorkflowTemplate"]


def read_by_hera(template: Json) -> Json:
    built: Any = WorkflowTemplate.from_dict(template).build()
    found: Json = built.model_dump(by_alias=True, exclude_none=True, exclude_unset=True)
    return found


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template["metadata"]["name"])
def test_hera_reads_a_template_as_it_is(template: Json) -> None:
    assert read_by_hera(template) == template


def test_hera_refuses_what_argo_has_no_type_for() -> None:
    [template] = [
        each for each in rendered("team") if each["metadata"]["name"] == "approve" and "spec" in each
    ]
    template["spec"]["templates"][0]["suspend"] = ["3d"]
    with pytest.raises(ValueError, match="suspend"):
        read_by_hera(template)


def references(template: Json) -> list[Json]:
    steps = [
        step for each in template["spec"]["templates"] for group in each.get("steps", ()) for step in group
    ]
    return [step for step in steps if "templateRef" in step]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template["metadata"]["name"])
def test_a_step_gives_the_stage_that_it_names_all_its_inputs(template: Json) -> None:
    known = {
        (each["metadata"]["name"], inner["name"]): {
            entry["name"] for entry in inner.get("inputs", {}).get("parameters", ()) if "default" not in entry
        }
        for each in TEMPLATES
        for inner in each["spec"]["templates"]
    }
    for step in references(template):
        wanted = known[step["templateRef"]["name"], step["templateRef"]["template"]]
        assert {entry["name"] for entry in step["arguments"]["parameters"]} == wanted, step["name"]
