# SPDX-License-Identifier: Apache-2.0
"""Validates built-in kinds against Kubernetes' schemas for the environment's version, and refuses unknown fields.

The schemas come with the package kubernetes-validate (extra `tuneyard[schemas]`); each object costs about 15 ms, so
`tuneyard check --schemas` asks for it. `custom_kinds` validates custom resources.
"""

from collections.abc import Iterable

from tuneyard.findings import Finding, Severity
from tuneyard.render.files import File

CORE = (
    "v1",
    "apps/v1",
    "batch/v1",
    "networking.k8s.io/v1",
    "rbac.authorization.k8s.io/v1",
    "policy/v1",
    "storage.k8s.io/v1",
)


def check_core_kinds(files: Iterable[File], kubernetes: str) -> list[Finding]:
    """What a strict API server of that version would refuse.

    Args:
        files: the rendered tree.
        kubernetes: minor version, such as `1.34`.
    """
    try:
        from kubernetes_validate import utils as kv  # type: ignore[import-untyped]  # noqa: PLC0415  an extra
    except ImportError:
        problem = "Kubernetes' own kinds were not checked: kubernetes-validate is not installed"
        return [Finding("schemas", problem, hint="tuneyard[schemas]", severity=Severity.WARNING)]
    found: list[Finding] = []
    for file in files:
        for entry in file.objects:
            if entry["apiVersion"] not in CORE:
                continue
            try:
                kv.validate(entry, kubernetes, strict=True)
            except kv.ValidationError as error:
                path = tuple(error.path)
                found.append(Finding("fits-kubernetes", str(error.message)[:300], path, file=file.path))
            except kv.VersionNotSupportedError:
                problem = f"no schemas of Kubernetes {kubernetes} are in the installed kubernetes-validate"
                return [
                    Finding("schemas", problem, hint="a newer kubernetes-validate", severity=Severity.WARNING)
                ]
    return found
