# SPDX-License-Identifier: Apache-2.0
"""What a namespace offers, the fields of a form, and the WorkflowTemplate around a form or a stage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuneyard_api.names import LABEL_MANAGED_BY
from tuneyard_api.pod_security import POD_SECURITY

Json = dict[str, Any]
ACCOUNT = "fine-tune"
"""ServiceAccount of all pods of these workflows."""
KEPT_SECONDS = 7 * 24 * 3600
"""Seconds for which an ended Workflow is kept. The FineTuneJob keeps the result of the training."""


@dataclass(frozen=True)
class Offer:
    """What the templates of one namespace can use."""

    namespace: str
    runtimes: tuple[str, ...]
    """Names of FineTuneRuntimes that publish where `promote` can move names; the first is the default."""
    methods: tuple[str, ...]
    """Methods that any of them has; the first is the default."""
    image: str
    """Trainer image, in which records are curated and endpoints are asked."""
    image_pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    """Names of Secrets that pull the image."""
    mounts: tuple[tuple[str, str], ...] = ()
    """Claims that the image needs, each with the path where it is mounted to read."""
    registry_claim: str | None = "adapters"
    """Claim with the adapter registry; None: it is in S3, where no template moves a name."""
    elsewhere: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Other FineTuneRuntimes with their methods: services that publish by themselves. Forms that promote leave them out."""

    most_gpus: int | None = None
    """GPUs of the namespace's whole quota, with all that it may borrow; None: not known, or no job needs one."""

    @property
    def promotes(self) -> bool:
        """Whether there is anything whose name a template can move."""
        return self.registry_claim is not None and bool(self.runtimes)

    def choices(self, *, promoted: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The runtimes and the methods of a form; `promoted`: the form gives its result another name."""
        if promoted:
            return self.runtimes, self.methods
        methods = (*self.methods, *(method for each in self.elsewhere.values() for method in each))
        return (*self.runtimes, *self.elsewhere), tuple(dict.fromkeys(methods))


@dataclass(frozen=True)
class Field:
    """One parameter of a form. Argo's parameters are strings."""

    name: str
    description: str
    value: str | None = None
    """Default; None: people must fill it in."""
    enum: tuple[str, ...] = ()
    """The only values; empty: any."""
    pattern: str = ""
    """Regular expression that a value has to match; empty: any value does."""
    most: int | None = None
    """Largest whole number that is taken; None: any value is."""

    def parameter(self) -> Json:
        """The parameter of a WorkflowTemplate."""
        found: Json = {"name": self.name, "description": self.description}
        if self.value is not None:
            found["value"] = self.value
        if self.enum:
            found["enum"] = list(self.enum)
        return found


def inputs(fields: Sequence[Field]) -> Json:
    """The inputs of a template that takes these fields."""
    return {"parameters": [{"name": field.name} for field in fields]}


def arguments(**values: str) -> Json:
    """The arguments of a step."""
    return {"parameters": [{"name": name, "value": value} for name, value in values.items()]}


def passed(fields: Sequence[Field], **changes: str) -> dict[str, str]:
    """Arguments that hand on the inputs of a template, with `changes`."""
    return {field.name: f"{{{{inputs.parameters.{field.name}}}}}" for field in fields} | changes


def build_template(
    offer: Offer, name: str, summary: str, fields: Sequence[Field], templates: list[Json], **spec: Any
) -> Json:
    """A WorkflowTemplate whose entrypoint has its name. `spec`: more fields of its spec.

    Fields: argoproj.io/v1alpha1 WorkflowTemplate (https://argo-workflows.readthedocs.io/en/release-3.7/fields/).
    """
    pull_secrets = [{"name": secret} for secret in offer.pull_secrets]
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "WorkflowTemplate",
        "metadata": {
            "name": name,
            "namespace": offer.namespace,
            "labels": {LABEL_MANAGED_BY: "tuneyard"},
            "annotations": {"workflows.argoproj.io/description": summary},
        },
        "spec": {
            "entrypoint": name,
            "serviceAccountName": ACCOUNT,
            "arguments": {"parameters": [field.parameter() for field in fields]},
            "ttlStrategy": {"secondsAfterCompletion": KEPT_SECONDS},
            "podGC": {"strategy": "OnPodSuccess"},
            "securityContext": dict(POD_SECURITY),
            **({"imagePullSecrets": pull_secrets} if pull_secrets else {}),
            **spec,
            "templates": templates,
        },
    }
