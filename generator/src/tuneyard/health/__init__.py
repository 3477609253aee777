# SPDX-License-Identifier: Apache-2.0
"""Health checks that Argo CD lacks, Lua files named as argocd-cm names them: `<group>_<Kind>.lua`.

Argo CD runs them in a Lua 5.1 without string and os libraries. A kind without a check is never waited for.
"""

from functools import cache
from importlib import resources

PREFIX = "resource.customizations.health."
GATE = "argoproj.io_Application"
_SERVICE, _CACHE, _POLICY = (
    "apps.nvidia.com_NIMService",
    "apps.nvidia.com_NIMCache",
    "nvidia.com_ClusterPolicy",
)
READ_LIKE = {
    "apps.nvidia.com_NIMBuild": _CACHE,
    "apps.nvidia.com_NIMPipeline": _SERVICE,
    "apps.nvidia.com_NemoCustomizer": _SERVICE,
    "apps.nvidia.com_NemoDatastore": _SERVICE,
    "apps.nvidia.com_NemoEntitystore": _SERVICE,
    "apps.nvidia.com_NemoEvaluator": _SERVICE,
    "apps.nvidia.com_NemoGuardrail": _SERVICE,
    "nvidia.com_NVIDIADriver": _POLICY,
}
"""Kinds whose status is written like another one's: they have its file."""


@cache
def health_checks() -> dict[str, str]:
    """`<group>_<Kind>` -> Lua text, sorted."""
    files = resources.files("tuneyard.health").iterdir()
    found = {file.name.removesuffix(".lua"): file.read_text() for file in files if file.name.endswith(".lua")}
    found |= {key: found[other] for key, other in READ_LIKE.items()}
    return dict(sorted(found.items()))


def argocd_entries() -> dict[str, str]:
    """The data of argocd-cm that must be there."""
    return {f"{PREFIX}{key}": text for key, text in health_checks().items()}
