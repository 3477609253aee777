# SPDX-License-Identifier: Apache-2.0
"""The security settings of every pod that is made for a job: Kubernetes' profile `restricted`, and one uid."""

from collections.abc import Mapping
from typing import Any

RUN_AS = 65532
"""uid and gid of every stage. They are numeric, so that the kubelet can verify that the user is not root."""
POD_SECURITY: Mapping[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": RUN_AS,
    "runAsGroup": RUN_AS,
    "fsGroup": RUN_AS,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
