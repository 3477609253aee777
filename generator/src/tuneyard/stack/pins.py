# SPDX-License-Identifier: Apache-2.0
"""The pinned version of a chart and its images: what an entry of components.yaml says. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tuneyard_api.yaml_io import load

Evidence = Literal["rendered", "source", "documentation"]


@dataclass(frozen=True)
class Pin:
    """What a component installs, exactly."""

    name: str
    chart: str = ""
    repository: str = ""
    """https:// of a Helm repository, or an OCI registry without scheme."""
    version: str = ""
    versions: tuple[str, ...] = ()
    """Every version that the derived values were written for."""
    path: str = ""
    """A chart in this repository instead of a published one."""
    images: Mapping[str, str] = field(default_factory=dict)
    deploys: tuple[str, ...] = ()
    """Every image that the chart runs with our values; empty where the chart could not be had."""
    fixed_images: tuple[str, ...] = ()
    """Images that its operator names itself, so that no setting can take them from a mirror."""
    licence: str = ""
    """What must be accepted before it can be pulled; empty: nothing."""
    private: bool = False
    """Whether its repository asks for credentials."""
    evidence: Evidence = "documentation"
    source: str = ""
    """Where the value paths are documented."""
    unconfirmed: str = ""
    """What of this entry could not be confirmed; `tuneyard check -v` lists it as a warning."""
    kubernetes: str = "1.31"
    """Lowest Kubernetes."""

    @property
    def is_oci(self) -> bool:
        """Whether `repository` is an OCI registry."""
        return bool(self.repository) and "://" not in self.repository


def read_pins(text: str) -> dict[str, Pin]:
    """The pins in a text like components.yaml."""
    entries: dict[str, dict[str, Any]] = load(text, "components.yaml").value["components"]
    return {name: _pin(name, entry) for name, entry in entries.items()}


def _pin(name: str, entry: dict[str, Any]) -> Pin:
    lists = {key: tuple(entry.get(key, ())) for key in ("versions", "deploys", "fixed_images")}
    return Pin(name=name, **{**entry, **lists})
