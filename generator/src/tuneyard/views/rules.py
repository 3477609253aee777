# SPDX-License-Identifier: Apache-2.0
"""Which rule ids each check gives its findings: JSON and SARIF print the id, while people know the check."""

import ast
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

# The ids of findings that none of the listed checks gives, and what each one says.
OTHER_RULES = {
    "file": "The environment file cannot be read, or is too large.",
    "yaml": "The environment file is not YAML 1.2, or a value in it has no single meaning.",
    "name-is-file-name": "The environment is not named like its file.",
    "unknown-key": "A key does not exist.",
    "missing-key": "A required key is missing.",
    "unknown-value": "A value is none of the allowed ones.",
    "wrong-value": "A value has the wrong type or form.",
    "no-secrets-in-file": "A secret is typed into the environment file.",
    "known-components": "`components` names a component that does not exist.",
    "needs-are-met": "A component needs something that no enabled component provides.",
    "one-provider-each": "Two enabled components provide the same thing.",
    "path-is-there": "A folder that a component deploys is not in the repository.",
    "fits-schema": "With `--schemas`: a custom object does not fit its CRD.",
    "fits-kubernetes": "With `--schemas`: an object does not fit the API of Kubernetes.",
    "chart-value-is-known": "With `--schemas`: a chart has no such value.",
    "chart-value-fits-schema": "With `--schemas`: a value does not fit the schema of its chart.",
    "schemas": "Schemas cannot be read, or the packages that judge by them are not installed.",
    "live-secrets": "With `--cluster`: expected Secrets are not in the cluster.",
    "snapshot": "`check --snapshot`: the file is none that `tuneyard snapshot` wrote.",
    "job": "`kubectl tuneyard`: there is no such job, or it has not what is asked for.",
    "fetch": "`kubectl tuneyard fetch`: what the job published cannot be copied.",
    "restore": "`kubectl tuneyard restore`: the file is none that `backup` wrote.",
    "argo-server": "`kubectl tuneyard submit --server`: Argo's server does not answer, or refuses the token or what is asked.",
    "cluster": "The cluster cannot be reached, or refuses a request.",
    "foreign-file": "`render`: a file or folder of someone else is where the tree is written.",
    "write": "`render`: the tree cannot be written.",
    "tree-is-as-rendered": "`sign`: a file of the tree is not as its environment renders it.",
    "tree-is-as-signed": "`verify`: a file was changed, added or removed since the tree was signed.",
    "attestation": "`sign`, `verify`: key or attestation cannot be used, or another key has signed.",
    "no-such-path": "`explain`: the environment has no such key.",
    "upgrade": "`upgrade`: the list of new versions cannot be used.",
    "bootstrap": "`bootstrap`: Argo CD is not there, or another manager holds a field.",
}


def rules_of(check: Callable[..., Any]) -> tuple[str, ...]:
    """The rule ids that a check can give, in the order of its code; helpers that it calls are included."""
    found: dict[str, None] = {}
    _collect(check, found, set())
    return tuple(found)


def _collect(function: Callable[..., Any], found: dict[str, None], seen: set[Any]) -> None:
    seen.add(function)
    known = inspect.unwrap(function).__globals__
    for node in ast.walk(ast.parse(inspect.getsource(function))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        first = node.args[0] if node.args else None
        if node.func.id == "Finding" and isinstance(first, ast.Constant):
            found[str(first.value)] = None
        called = known.get(node.func.id)
        if (
            isinstance(called, FunctionType)
            and called.__module__.startswith("tuneyard.")
            and called not in seen
        ):
            _collect(called, found, seen)
