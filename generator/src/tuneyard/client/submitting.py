# SPDX-License-Identifier: Apache-2.0
"""A Workflow from a WorkflowTemplate, with all that is wrong with its parameters said at once."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tuneyard_api.problems import clip

from tuneyard.findings import Finding, InputError, did_you_mean

GROUP_VERSION = "argoproj.io/v1alpha1"
_RULE = "parameter"


@dataclass(frozen=True)
class Parameter:
    """One parameter of a form."""

    name: str
    description: str
    value: str | None
    """Default; None: it must be given."""
    enum: tuple[str, ...]
    """The only values; empty: any."""


@dataclass(frozen=True)
class Submitted:
    """A Workflow that was created."""

    namespace: str
    name: str
    template: str
    parameters: Mapping[str, str]
    """The parameters that were given; the others have their defaults."""


def parameters_of(template: Mapping[str, Any]) -> tuple[Parameter, ...]:
    """The form of a WorkflowTemplate, in its order."""
    found = (template["spec"].get("arguments") or {}).get("parameters") or ()
    return tuple(
        Parameter(
            entry["name"],
            entry.get("description") or "",
            None
            if entry.get("value", entry.get("default")) is None
            else str(entry.get("value", entry.get("default"))),
            tuple(map(str, entry.get("enum") or ())),
        )
        for entry in found
    )


def build_workflow(
    template: Mapping[str, Any], given: Mapping[str, str], name: str | None = None
) -> dict[str, Any]:
    """The Workflow of a template with these parameters; `name` absent: the server adds five characters to the template's.

    Raises:
        InputError: with every parameter that the template does not have, that is missing, or that has a value outside its enum.
    """
    metadata = template["metadata"]
    _refuse(parameters_of(template), given)
    named = {"name": name} if name else {"generateName": f"{metadata['name']}-"}
    return {
        "apiVersion": GROUP_VERSION,
        "kind": "Workflow",
        "metadata": {**named, "namespace": metadata["namespace"]},
        "spec": {
            "workflowTemplateRef": {"name": metadata["name"]},
            "arguments": {
                "parameters": [{"name": parameter, "value": value} for parameter, value in given.items()]
            },
        },
    }


def _refuse(form: Iterable[Parameter], given: Mapping[str, str]) -> None:
    known = {parameter.name: parameter for parameter in form}
    findings = [
        Finding(_RULE, "the form has no such parameter", (name,), hint=did_you_mean(name, known))
        for name in given
        if name not in known
    ]
    for name, parameter in known.items():
        value = given.get(name, parameter.value)
        if value is None:
            wanted = parameter.description or "any text"
            findings.append(Finding(_RULE, "a value is missing", (name,), hint=f"-p {name}=...: {wanted}"))
        elif parameter.enum and value not in parameter.enum:
            allowed = f"one of {', '.join(parameter.enum)}"
            findings.append(Finding(_RULE, "no such value", (name,), got=clip(repr(value), 80), hint=allowed))
    if findings:
        raise InputError(findings)
