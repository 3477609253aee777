# SPDX-License-Identifier: Apache-2.0
"""A Workflow from a WorkflowTemplate, with all that is wrong with its parameters said at once."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

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


class Source(Protocol):
    """Where the WorkflowTemplates of one namespace are, and where Workflows are made: the API server, or Argo's."""

    namespace: str

    def template(self, name: str) -> dict[str, Any] | None:
        """A WorkflowTemplate, or None where there is no such one."""

    def templates(self) -> list[dict[str, Any]]:
        """All of them."""

    def create(self, workflow: Mapping[str, Any]) -> dict[str, Any]:
        """The Workflow as it was made."""


class Forms:
    """The forms of one namespace.

    Raises:
        InputError: from every method, when there is no such form, or no right; its text says what to try.
    """

    def __init__(self, source: Source) -> None:
        """`source`: `ArgoServer`, or what `Client` makes of a kubeconfig."""
        self._source = source

    def form(self, template: str) -> tuple[Parameter, ...]:
        """The parameters of a WorkflowTemplate of the namespace."""
        return parameters_of(self._template(template))

    def submit(
        self, template: str, parameters: Mapping[str, str], *, name: str | None = None, dry_run: bool = False
    ) -> Submitted:
        """Create a Workflow from a WorkflowTemplate; `name` absent: the template's with five characters behind it.

        With `dry_run` only the parameters are checked. InputError says all that is wrong with them.
        """
        workflow = build_workflow(self._template(template), parameters, name)
        made = workflow["metadata"].get("name", "")
        if not dry_run:
            made = self._source.create(workflow)["metadata"]["name"]
        return Submitted(self._source.namespace, made, template, dict(parameters))

    def _template(self, name: str) -> dict[str, Any]:
        found = self._source.template(name)
        if found is None:
            there = [each["metadata"]["name"] for each in self._source.templates()]
            hint = did_you_mean(name, there) or "an environment with the component workflow-templates"
            problem = f"there is no WorkflowTemplate {name} in namespace {self._source.namespace}"
            raise InputError([Finding("job", problem, hint=hint)])
        return found


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
