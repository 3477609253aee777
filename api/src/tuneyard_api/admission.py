# SPDX-License-Identifier: Apache-2.0
"""Two ValidatingAdmissionPolicies for what a CRD's rules can't express, without a webhook.

By job and runtime together: every FineTuneRuntime is a parameter, and a rule only speaks about the one that the job names. A runtime that does
not exist is allowed, since it may come a moment later: the operator waits for it. What is refused here is refused
by the planner as well, so the policy fails open: an API server takes up to half a minute to find the kind of the
parameters after the CRDs are applied, and would refuse every job until then.

By what a job was before: once it has started, only the fields of `survival.CHANGEABLE` may be edited. A rule of the
CRD would have to compare whole objects, which the API server estimates as a hundred times too dear.
"""

from typing import Any

from tuneyard_api import names
from tuneyard_api.survival import CHANGEABLE

POLICY_NAME = f"finetunejob-fits-runtime.{names.GROUP}"
_IS_OTHER_RUNTIME = "object.spec.runtime.name != params.metadata.name"
_ON_A_CLAIM = (
    "has(object.spec.publish.pvc)"
    " || !has(params.spec.defaults.registryS3) && !has(params.spec.defaults.registryDataStore)"
)
_RULES = (
    (
        "object.spec.method in params.spec.methods",
        (
            "'spec.method: runtime ' + params.metadata.name + ' has ' + params.spec.methods.join(', ')"
            " + ' (got ' + object.spec.method + '); try a runtime that has it'"
        ),
    ),
    (
        "!object.spec.model.trustRemoteCode || params.spec.allowTrustRemoteCode",
        (
            "'spec.model.trustRemoteCode: runtime ' + params.metadata.name + ' does not allow Python that comes with a"
            " model (got true); try false, or a model that transformers knows by itself'"
        ),
    ),
    (
        f"object.spec.deletionPolicy != 'Delete' || {_ON_A_CLAIM}",
        (
            "'spec.deletionPolicy: an adapter in S3 or a Data Store is not removed with its job, and the registry of runtime '"
            " + params.metadata.name + ' is there (got Delete); try Retain, or publish.pvc'"
        ),
    ),
    (
        f"!has(object.spec.model.adapter) || !has(object.spec.model.adapter.published) || {_ON_A_CLAIM}",
        (
            "'spec.model.adapter.published: a published adapter is read from a registry on a claim alone, and the registry"
            " of runtime ' + params.metadata.name + ' is on none (got ' + object.spec.model.adapter.published + '); try"
            " model.adapter.pvc with a copy of it'"
        ),
    ),
)


EDIT_POLICY_NAME = f"finetunejob-stays-as-started.{names.GROUP}"
_MAY_CHANGE = f"{', '.join(CHANGEABLE[:-1])} and {CHANGEABLE[-1]}"
_CHANGED = (
    "(object.spec.map(f, f) + oldObject.spec.map(f, f).filter(f, !(f in object.spec)))"
    f".filter(f, !(f in {list(CHANGEABLE)})"
    " && (!(f in object.spec) || !(f in oldObject.spec) || object.spec[f] != oldObject.spec[f]))"
)


def build_policy() -> dict[str, Any]:
    """The policy on job and runtime; it never refuses an update that leaves the spec unchanged."""
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": POLICY_NAME, "labels": {names.LABEL_APP: "tuneyard"}},
        "spec": {
            "failurePolicy": "Ignore",
            "paramKind": {"apiVersion": names.API_VERSION, "kind": names.RUNTIME_KIND},
            "matchConstraints": {"resourceRules": [_jobs("CREATE", "UPDATE")]},
            "matchConditions": [
                {"name": "spec-is-new", "expression": "oldObject == null || object.spec != oldObject.spec"}
            ],
            "validations": [
                {
                    "expression": f"{_IS_OTHER_RUNTIME} || ({rule})",
                    "messageExpression": message,
                    "reason": "Invalid",
                }
                for rule, message in _RULES
            ],
        },
    }


def build_edit_policy() -> dict[str, Any]:
    """The policy that freezes the spec of a started job; its message names the changed fields and the changeable ones."""
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": EDIT_POLICY_NAME, "labels": {names.LABEL_APP: "tuneyard"}},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [_jobs("UPDATE")]},
            "matchConditions": [
                {
                    "name": "has-started",
                    "expression": "has(oldObject.status)"
                    " && (has(oldObject.status.plan) || has(oldObject.status.ended))",
                }
            ],
            "variables": [{"name": "changed", "expression": _CHANGED}],
            "validations": [
                {
                    "expression": "variables.changed.size() == 0",
                    "messageExpression": (
                        "'spec.' + variables.changed[0] + ' may not change after the job has started (changed: '"
                        f" + variables.changed.join(', ') + '); only {_MAY_CHANGE} may; try a job of another name'"
                    ),
                    "reason": "Invalid",
                }
            ],
        },
    }


def build_binding() -> dict[str, Any]:
    """The binding of the first policy to every namespace, with every runtime as its parameter."""
    return _binding(POLICY_NAME, {"paramRef": {"selector": {}, "parameterNotFoundAction": "Allow"}})


def build_edit_binding() -> dict[str, Any]:
    """The binding of the edit policy to every namespace."""
    return _binding(EDIT_POLICY_NAME, {})


def _binding(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name, "labels": {names.LABEL_APP: "tuneyard"}},
        "spec": {"policyName": name, **parameters, "validationActions": ["Deny"]},
    }


def _jobs(*operations: str) -> dict[str, Any]:
    return {
        "apiGroups": [names.GROUP],
        "apiVersions": [names.VERSION],
        "operations": list(operations),
        "resources": [names.JOB_PLURAL],
    }
