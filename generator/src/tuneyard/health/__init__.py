# SPDX-License-Identifier: Apache-2.0
"""Health checks that Argo CD lacks, one Lua file for each kind, named as argocd-cm names them: `<group>_<Kind>.lua`.

Argo CD runs them in a Lua 5.1 without string and os libraries. A kind without a check is never waited for.
"""

from functools import cache
from importlib import resources

PREFIX = "resource.customizations.health."
GATE = "argoproj.io_Application"


@cache
def health_checks() -> dict[str, str]:
    """`<group>_<Kind>` -> Lua text, sorted."""
    files = resources.files("tuneyard.health").iterdir()
    found = {file.name.removesuffix(".lua"): file.read_text() for file in files if file.name.endswith(".lua")}
    return dict(sorted(found.items()))


def argocd_entries() -> dict[str, str]:
    """The data of argocd-cm that must be there."""
    return {f"{PREFIX}{key}": text for key, text in health_checks().items()}
