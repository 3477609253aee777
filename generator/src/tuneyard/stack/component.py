# SPDX-License-Identifier: Apache-2.0
"""What a component of the catalog is: what it needs and provides, and how its part of the tree is made.

A component is one small module that makes one `Component`, plus one entry of the same name in `components.yaml`.
Needs and provides are capabilities: words such as `postgres` or `crd:nim`. Who provides a capability is decided when an
environment is resolved, so a component never names another one.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tuneyard_api.problems import Path

from tuneyard.environment.model import Environment

if TYPE_CHECKING:
    from tuneyard.stack.model import Stack

Json = dict[str, Any]
Root = Literal["platform", "models"]


@dataclass(frozen=True)
class Need:
    """A capability that must be there first; `because` is the reason that `tuneyard graph` shows."""

    capability: str
    because: str
    path: Path = ()
    """The key of the environment that made the need, for messages."""


@dataclass(frozen=True)
class Service:
    """A Kubernetes Service that a component offers under a capability."""

    name: str
    port: int
    scheme: str = "http"


@dataclass(frozen=True)
class ExpectedSecret:
    """A Secret that must exist. Its keys are named, its values never."""

    name: str
    namespace: str
    keys: tuple[str, ...]
    purpose: str
    type: str = "Opaque"
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Claim:
    """Storage that a component asks for, in GiB."""

    gib: int
    shared: bool = False
    """Whether several nodes mount it (ReadWriteMany)."""
    path: Path = ()


@dataclass(frozen=True)
class GpuRequest:
    """GPUs that a component holds all the time."""

    gpus: int
    product: str | None = None
    path: Path = ()
    per_pod: int = 1
    """GPUs that must be on one node."""


def no_needs(_: Environment) -> tuple[Need, ...]:
    """For components that start from nothing."""
    return ()


def nothing(_: "Stack") -> tuple[Any, ...]:
    """For components without extra objects, secrets or claims."""
    return ()


@dataclass(frozen=True)
class Component:
    """One part of a stack. Rendered as one Argo CD Application unless it has neither values nor objects."""

    name: str
    summary: str
    namespace: str = ""
    provides: tuple[str, ...] = ()
    needs: Callable[[Environment], Iterable[Need]] = no_needs
    after: tuple[str, ...] = ()
    """Capabilities that are waited for only when something provides them."""
    values: Callable[["Stack"], Json] | None = None
    """Chart values; the chart is in the pin."""
    objects: Callable[["Stack"], Iterable[Json]] | None = None
    """Kubernetes objects; without a chart only."""
    services: Callable[[Environment], dict[str, Service]] = lambda _: {}
    """Services by capability."""
    secrets: Callable[["Stack"], Iterable[ExpectedSecret]] = nothing
    claims: Callable[["Stack"], Iterable[Claim]] = nothing
    gpus: Callable[["Stack"], Iterable[GpuRequest]] = nothing
    databases: tuple[str, ...] = ()
    """Owners that each get a database and a user of their own from whoever provides `postgres`."""
    buckets: tuple[str, ...] = ()
    """Owners that each get a bucket of their own from whoever provides `s3`."""
    manifests: bool = False
    """Its pin's `path` holds plain manifests of this repository."""
    root: Root = "platform"
    keeps_data: bool = False
    """Never deleted with its Application: it holds data, or the CRDs of objects that hold data."""
    privileged: bool = False
    """Its pods need the privileged pod security profile."""
    ignore_differences: tuple[Json, ...] = ()
    when: Callable[[Environment], bool] | None = None
    """Part of every environment for which this is true, whatever needs it."""
    beside: str = ""
    """With `when`: only where something provides this capability anyway."""

    def is_rendered(self) -> bool:
        """Whether an Application belongs to it; providers outside of the tree have none."""
        return self.manifests or self.values is not None or self.objects is not None
