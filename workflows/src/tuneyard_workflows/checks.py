# SPDX-License-Identifier: Apache-2.0
"""The first step of a form: it refuses values in words before anything is done with them.

Argo Workflows shows the values of an enum on its page, and takes any other one from whoever creates a Workflow.
"""

import json
from collections.abc import Sequence

from tuneyard_workflows.form import Field, Json, arguments, inputs, passed

CHECK, NOTHING = "check", "nothing"
CHECKED = "checked"


def build_check(fields: Sequence[Field]) -> list[Json]:
    """The templates of the step: a suspension that is over at once, as steps need a step, and an output that may fail.

    No pod runs for it.
    """
    ruled = _ruled(fields)
    return [
        {
            "name": CHECK,
            "inputs": inputs(ruled),
            "steps": [[{"name": NOTHING, "template": NOTHING}]],
            "outputs": {"parameters": [{"name": CHECKED, "valueFrom": {"expression": _expression(ruled)}}]},
        },
        {"name": NOTHING, "suspend": {"duration": "0"}},
    ]


def build_check_step(fields: Sequence[Field]) -> Json:
    """The step, for a template whose inputs are these fields."""
    return {"name": CHECK, "template": CHECK, "arguments": arguments(**passed(_ruled(fields)))}


def _ruled(fields: Sequence[Field]) -> list[Field]:
    return [field for field in fields if field.enum or field.pattern or field.most is not None]


def _expression(fields: Sequence[Field]) -> str:
    """Fails with all that is wrong."""
    problems = ", ".join(_problem(field) for field in fields)
    return (
        f"let wrong = filter([{problems}], # != ''); len(wrong) == 0 ? 'yes' : sprig.fail(join(wrong, '; '))"
    )


def _problem(field: Field) -> str:
    """What is wrong with the value of a field, or nothing."""
    value = f"inputs.parameters.{field.name}"
    if field.enum:
        test, words = f"{value} in {json.dumps(field.enum)}", f" is none of {', '.join(field.enum)}"
    elif field.most is not None:
        # What is no number is left to the API server, which names the field of the job.
        test = f"!({value} matches '^[0-9]{{1,9}}$') || int({value}) <= {field.most}"
        words = f" is more than the quota of this namespace, which is {field.most}"
    else:
        test, words = f"{value} matches {json.dumps(field.pattern)}", f" does not fit: {field.description}"
    return f"{test} ? '' : {json.dumps(field.name + ': ')} + toJson({value}) + {json.dumps(words)}"
