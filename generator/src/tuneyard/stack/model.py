# SPDX-License-Identifier: Apache-2.0
"""Component and Stack, the two halves of one idea: a component's parts are functions of the stack that holds it. Pure.

A component is one small module of the catalog that makes one `Component`, plus one entry of the same name in
`components.yaml`. Needs and provides are capabilities: words such as `postgres` or `crd:nim`. Who provides a capability is
decided when an environment is resolved, so a component never names another one.

A stack is what an environment means: which components it has, who provides what, every derived name and address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from tuneyard_api.problems import Path

from tuneyard.environment.model import ComponentOptions, Environment
from tuneyard.stack.pins import Pin

Json = dict[str, Any]
Root = Literal["platform", "models"]
NO_OPTIONS = ComponentOptions()
URL_SAFE = "password: letters and digits only, as services put it into a URL"
"""What is asked of a database's password: the NIM Operator 3.1.2 writes `postgresql://user:password@host` without encoding it."""


@dataclass(frozen=True)
class Need:
    """A capability that must be ready first; `because` is the reason that `tuneyard graph` shows."""

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
    """No needs, for components that need nothing."""
    return ()


def nothing(_: Stack) -> tuple[Any, ...]:
    """An empty tuple, for components without extra objects, secrets or claims."""
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
    values: Callable[[Stack], Json] | None = None
    """Chart values; the chart is in the pin."""
    objects: Callable[[Stack], Iterable[Json]] | None = None
    """Kubernetes objects; without a chart only."""
    services: Callable[[Environment], dict[str, Service]] = lambda _: {}
    """Services by capability."""
    secrets: Callable[[Stack], Iterable[ExpectedSecret]] = nothing
    claims: Callable[[Stack], Iterable[Claim]] = nothing
    gpus: Callable[[Stack], Iterable[GpuRequest]] = nothing
    databases: tuple[str, ...] = ()
    """Owners that each get a database and a user of their own from whoever provides `postgres`."""
    buckets: tuple[str, ...] = ()
    """Owners that each get a bucket of their own from whoever provides `s3`."""
    names_bucket_user: bool = False
    """Whether its object names the user of its bucket, so that it has one only where this tree makes that user."""
    manifests: bool = False
    """Whether the `path` of its pin has plain manifests of this repository."""
    root: Root = "platform"
    keeps_data: bool = False
    """Whether it is never deleted with its Application, because it has data, or the CRDs of objects that have data."""
    privileged: bool = False
    """Whether its pods need the privileged pod security profile."""
    ignore_differences: tuple[Json, ...] = ()
    when: Callable[[Environment], bool] | None = None
    """Part of every environment for which this is true, whatever needs it."""
    beside: str = ""
    """Capability that must be provided anyway for `when` to enable the component; empty: none."""

    def is_rendered(self) -> bool:
        """Whether an Application belongs to it; providers outside of the tree have none."""
        return self.manifests or self.values is not None or self.objects is not None


@dataclass(frozen=True)
class Edge:
    """`component` needs `capability`, which `provider` has; soft if the component also works without it."""

    component: str
    provider: str
    capability: str
    because: str
    soft: bool = False


@dataclass(frozen=True)
class Database:
    """A database and its owner; the password is in `secret` (keys username, password) of the consumer's namespace."""

    owner: str
    name: str
    user: str
    host: str
    port: int
    secret: str


@dataclass(frozen=True)
class Bucket:
    """A bucket; the keys are in `secret` (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) of the consumer's namespace."""

    owner: str
    name: str
    endpoint: str
    region: str
    secret: str


@dataclass(frozen=True)
class Stack:
    """A resolved environment. Components are sorted by name."""

    environment: Environment
    components: tuple[Component, ...]
    providers: Mapping[str, Component]
    pins: Mapping[str, Pin]
    reasons: Mapping[str, str]
    """Why each component is there."""

    def has(self, capability: str) -> bool:
        """Whether some component provides the capability."""
        return capability in self.providers

    def component(self, name: str) -> Component | None:
        """An enabled component by name."""
        return next((component for component in self.components if component.name == name), None)

    def options(self, name: str) -> ComponentOptions:
        """The environment's changes to a component."""
        return self.environment.components.get(name) or NO_OPTIONS

    def pin(self, name: str) -> Pin:
        """The pin, with the environment's version if it chose one."""
        pin = self.pins.get(name, Pin(name))
        version = self.options(name).version
        return replace(pin, version=version) if version else pin

    def image(self, name: str, key: str) -> str:
        """A pinned image, from the mirror if there is one."""
        return self.mirrored(self.pin(name).images[key])

    def mirrored(self, image: str) -> str:
        """`registry.internal/nvcr.io/nim/x:1` of `nvcr.io/nim/x:1` when the environment has a mirror."""
        mirror = self.environment.registries.mirror
        return f"{mirror}/{image}" if mirror and not image.startswith(f"{mirror}/") else image

    def service(self, capability: str) -> tuple[Service, str]:
        """The Service behind a capability and its namespace."""
        provider = self.providers[capability]
        return provider.services(self.environment)[capability], provider.namespace

    def host(self, capability: str) -> str:
        """`<service>.<namespace>.svc.cluster.local`."""
        service, namespace = self.service(capability)
        return f"{service.name}.{namespace}.svc.cluster.local"

    def url(self, capability: str) -> str:
        """`http://<host>:<port>` inside of the cluster, without a slash at the end."""
        service, _ = self.service(capability)
        return f"{service.scheme}://{self.host(capability)}:{service.port}"

    def database(self, owner: str) -> Database:
        """The database of a component."""
        external = self.environment.external_postgres
        if self.providers["postgres"].name == "external-postgres" and external:
            host, port = external.host, external.port
        else:
            host, port = self.host("postgres"), self.service("postgres")[0].port
        name = owner.replace("-", "_")
        return Database(owner, name, name, host, port, f"{owner}-database")

    def bucket(self, owner: str) -> Bucket:
        """The bucket of a component."""
        external = self.environment.external_s3
        prefix = self.environment.name
        if self.providers["s3"].name == "external-s3" and external:
            prefix = external.bucket_prefix or prefix
            return Bucket(
                owner, f"{prefix}-{owner}", external.endpoint.rstrip("/"), external.region, f"{owner}-bucket"
            )
        return Bucket(owner, f"{prefix}-{owner}", self.url("s3"), "us-east-1", f"{owner}-bucket")

    def databases(self) -> tuple[Database, ...]:
        """Every database, by owner."""
        return tuple(self.database(owner) for c in self.components for owner in c.databases)

    def buckets(self) -> tuple[Bucket, ...]:
        """Every bucket, by owner."""
        return tuple(map(self.bucket, self.bucket_owners()))

    def bucket_owners(self) -> tuple[str, ...]:
        """Owners of buckets, in the order of components."""
        return tuple(owner for component in self.components for owner in self.buckets_of(component))

    def buckets_of(self, component: Component) -> tuple[str, ...]:
        """The owners among a component's, without those whose bucket's user nobody here makes."""
        theirs = component.names_bucket_user and self.providers["s3"].name == "external-s3"
        return () if theirs else component.buckets

    def storage_class(self, *, shared: bool = False) -> str:
        """Name of the storage class; a shared one falls back to the other, which a check reports."""
        storage = self.environment.storage
        chosen = storage.read_write_many if shared and storage.read_write_many else storage.read_write_once
        return chosen.class_name

    def volume_gib(self, component: str, small: int) -> int:
        """The size of a component's volume: from the environment, else `small` times 1, 4 or 16 by sizing."""
        typed = self.options(component).storage_gib
        return typed or small * {"small": 1, "medium": 4, "large": 16}[self.environment.sizing]

    def secrets(self) -> tuple[ExpectedSecret, ...]:
        """Every Secret that is expected, once, by namespace and name."""
        found = {(s.namespace, s.name): s for component in self.components for s in component.secrets(self)}
        for component in self.components:
            if not component.is_rendered():
                continue
            for owner in component.databases:
                secret = ExpectedSecret(
                    f"{owner}-database",
                    component.namespace,
                    ("username", "password"),
                    f"database user of {owner}; {URL_SAFE}",
                    "kubernetes.io/basic-auth",
                )
                found[secret.namespace, secret.name] = secret
            for owner in self.buckets_of(component):
                secret = ExpectedSecret(
                    f"{owner}-bucket",
                    component.namespace,
                    ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
                    f"bucket of {owner}",
                )
                found[secret.namespace, secret.name] = secret
        return tuple(found[key] for key in sorted(found))

    def claims(self) -> tuple[tuple[str, Claim], ...]:
        """Every claim with its component."""
        return tuple((c.name, claim) for c in self.components for claim in c.claims(self))

    def gpu_requests(self) -> tuple[tuple[str, GpuRequest], ...]:
        """Every standing GPU request with its component."""
        return tuple((c.name, request) for c in self.components for request in c.gpus(self))

    def needs(self, component: Component) -> tuple[Need, ...]:
        """What a component needs, with what its database, bucket and namespace imply."""
        return all_needs(component, self.environment)


def all_needs(component: Component, environment: Environment) -> tuple[Need, ...]:
    """Declared needs and those that follow from having a database, a bucket or an Application."""
    needs = list(component.needs(environment))
    if component.databases:
        needs.append(Need("postgres", "its database"))
    if component.buckets:
        needs.append(Need("s3", "its bucket"))
    if component.is_rendered() and "namespaces" not in component.provides:
        needs.append(Need("namespaces", f"namespace {component.namespace}"))
    return tuple(needs)
