# SPDX-License-Identifier: Apache-2.0
"""What the API server can tell by job and runtime together: a ValidatingAdmissionPolicy, and no webhook of ours.

Every FineTuneRuntime is a parameter, and a rule only speaks about the one that the job names. A runtime that does
not exist is allowed, since it may come a moment later: the operator waits for it. What is refused here is refused
by the planner as well, so the policy fails open: an API server takes up to half a minute to find the kind of the
parameters after the CRDs are applied, and would refuse every job until then.
"""

from typing import Any

from tuneyard_api import names

POLICY_NAME = f"finetunejob-fits-runtime.{names.GROUP}"
_IS_OTHER_RUNTIME = "object.spec.runtime.name != params.metadata.name"
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
)


def build_policy() -> dict[str, Any]:
    """The rules; a job whose spec stays as it is, is never held up by them."""
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": POLICY_NAME, "labels": {names.LABEL_APP: "tuneyard"}},
        "spec": {
            "failurePolicy": "Ignore",
            "paramKind": {"apiVersion": names.API_VERSION, "kind": names.RUNTIME_KIND},
            "matchConstraints": {
                "resourceRules": [
                    {
                        "apiGroups": [names.GROUP],
                        "apiVersions": [names.VERSION],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": [names.JOB_PLURAL],
                    }
                ]
            },
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


def build_binding() -> dict[str, Any]:
    """The rules hold in every namespace, with every runtime as their parameter."""
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": POLICY_NAME, "labels": {names.LABEL_APP: "tuneyard"}},
        "spec": {
            "policyName": POLICY_NAME,
            "paramRef": {"selector": {}, "parameterNotFoundAction": "Allow"},
            "validationActions": ["Deny"],
        },
    }
