# SPDX-License-Identifier: Apache-2.0
"""The checks of `tuneyard doctor`: tools on this machine, settings of Argo CD. Each prints ok, warning or failure."""

import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from tuneyard.checks.versions import PROVED_ARGOCD
from tuneyard.cluster.facts import ClusterFacts
from tuneyard.health import argocd_entries

GATE = "resource.customizations.health.argoproj.io_Application"
REFUSED = (401, 403)
TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Look:
    """One result of a check."""

    level: str
    """`ok`, `warning` or `failure`."""
    what: str
    says: str

    def __str__(self) -> str:
        return f"{self.level:<8} {self.what}: {self.says}"


def tools() -> Iterator[Look]:
    """Programs and extras that some commands use; none is needed to render."""
    for program, use in (
        ("git", "to commit the tree"),
        ("kubectl", "to look around"),
        ("helm", "to render values by hand"),
    ):
        there = shutil.which(program)
        yield Look("ok" if there else "warning", program, there or f"not found; used {use}")
    for module, extra in (("kubernetes", "cluster"), ("jsonschema", "schemas")):
        is_there = find_spec(module) is not None
        says = "installed" if is_there else f"not installed; tuneyard[{extra}]"
        yield Look("ok" if is_there else "warning", module, says)


def argocd_settings(
    facts: ClusterFacts, settings: Mapping[str, Any] | None, parameters: Mapping[str, Any]
) -> Iterator[Look]:
    """Checks what the order relies on: health checks, wave delay, sync timeout, Argo CD's version, and the CRDs."""
    if settings is None:
        yield Look("failure", "Argo CD", "no argocd-cm; install Argo CD, or set argocd.namespace")
        return
    yield _version(facts)
    for crd in ("applications.argoproj.io", "appprojects.argoproj.io"):
        yield Look("ok" if crd in facts.crds else "failure", crd, "there" if crd in facts.crds else "missing")
    wanted = argocd_entries()
    if GATE not in settings:
        yield Look(
            "failure", "the gate", f"argocd-cm has no {GATE}: waves do not wait; try `tuneyard bootstrap`"
        )
    elif settings[GATE].strip() != wanted[GATE].strip():
        yield Look(
            "failure",
            "the gate",
            "argocd-cm has another check of Application; try `tuneyard bootstrap --force`",
        )
    else:
        yield Look("ok", "the gate", "argocd-cm has ours")
    rest = [key for key in wanted if key != GATE and settings.get(key, "").strip() != wanted[key].strip()]
    says = f"{len(rest)} missing or other: {', '.join(rest[:3])}" if rest else f"all {len(wanted) - 1} there"
    yield Look("failure" if rest else "ok", "health checks", says)
    delay = int(parameters.get("controller.sync.wave.delay.seconds", 2))
    yield Look("ok" if delay >= 2 else "failure", "wave delay", f"{delay} s")  # noqa: PLR2004  measured
    timeout = int(parameters.get("controller.sync.timeout.seconds", 0))
    says = (
        f"{timeout} s"
        if timeout
        else "none: a child that hangs blocks every later commit; try `tuneyard bootstrap`"
    )
    yield Look("ok" if timeout else "warning", "sync timeout", says)


def _version(facts: ClusterFacts) -> Look:
    numbers = tuple(map(int, re.findall(r"\d+", facts.argocd)[:2]))
    if not facts.argocd:
        return Look("warning", "Argo CD", "its controller was not found, so its version is not known")
    if numbers < (3, 2) or facts.argocd in ("3.3.0", "3.3.1"):
        return Look("failure", "Argo CD", f"{facts.argocd} can't keep the order; 3.2, or 3.3.2 and later")
    level = "ok" if facts.argocd == PROVED_ARGOCD else "warning"
    return Look(
        level,
        "Argo CD",
        facts.argocd + ("" if level == "ok" else f"; the order was proved on {PROVED_ARGOCD}"),
    )


def repositories(urls: Mapping[str, str]) -> Iterator[Look]:
    """Whether each repository answers from here; `urls` maps address -> git, helm or oci. Credentials are not sent."""
    for url, kind in sorted(urls.items()):
        if kind == "oci":
            yield Look("warning", url, "an OCI registry; not looked at")
            continue
        target = (
            f"{url.rstrip('/')}/info/refs?service=git-upload-pack"
            if kind == "git"
            else f"{url.rstrip('/')}/index.yaml"
        )
        yield _reach(url, target)


def _reach(url: str, target: str) -> Look:
    if not target.startswith(("http://", "https://")):
        return Look("warning", url, "no http address; not looked at")
    try:
        request = urllib.request.Request(target, headers={"User-Agent": "tuneyard"})  # noqa: S310  http only, above
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):  # noqa: S310  http only, above
            return Look("ok", url, "answers")
    except urllib.error.HTTPError as error:
        if error.code in REFUSED:
            return Look("ok", url, "answers, and asks for credentials")
        return Look("failure", url, f"answers {error.code}")
    except OSError as error:
        # Argo CD may reach what this machine can't.
        return Look("warning", url, f"does not answer from here: {getattr(error, 'reason', error)}")
