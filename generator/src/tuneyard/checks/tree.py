# SPDX-License-Identifier: Apache-2.0
"""Checks what must be true of every rendered tree: mostly that the catalog's modules do their part."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from tuneyard_api.problems import Path

from tuneyard.catalog.foundation import namespaces_of
from tuneyard.findings import Finding, Severity
from tuneyard.render.files import File
from tuneyard.render.images import images_in, unseen_charts
from tuneyard.stack.model import Stack
from tuneyard.stack.order import waves
from tuneyard.stack.resolve import edges

Json = dict[str, Any]
_URL = re.compile(r"\b([a-z0-9-]+)\.([a-z0-9-]+)\.svc(?:\.cluster\.local)?(?::(\d+))?\b")
_CANONICAL = re.compile(r"0|[1-9][0-9]*(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei)?")
_QUANTITY_PARENTS = frozenset({"limits", "requests"})
_NVIDIA = ("apps.nvidia.com/", "nvidia.com/")
_OBJECT_SOURCES = ("secretName", "existingSecret", "authSecret", "pullSecret", "apiKeySecret")
TRUE_BY_DEFAULT = frozenset({"serveDirect", "httpRoutesEnabled"})
"""Fields of NVIDIA's objects that are true unless they are said (CRDs of NIM Operator 3.1.2), and that Go leaves out when false."""
NULL = "Argo CD drops a null when it stores the values, so the Application would differ for ever"
MOST_INLINED = 100_000
"""Largest size of values as JSON, in bytes. Argo CD keeps 14 copies: spec, last comparison, ten of the history, operation and its result;
with 110,916 bytes an API server on etcd 3.7 still stored them, with 112,970 no more."""
CLUSTER_SCOPED = frozenset(
    {"Namespace", "ClusterQueue", "ResourceFlavor", "Queue", "FineTuneRuntime", "ClusterRole"}
)


def walk(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value inside `value` with its path, starting with `value` itself."""
    yield path, value
    if isinstance(value, dict):
        for key, child in value.items():
            yield from walk(child, (*path, key))
    elif isinstance(value, list | tuple):
        for index, child in enumerate(value):
            yield from walk(child, (*path, index))


def plain_objects(files: Sequence[File]) -> Iterator[tuple[File, Json]]:
    """Objects that components deploy: not Applications, not what `bootstrap` applies."""
    for file in files:
        for entry in file.objects:
            if file.component and entry["kind"] != "Application":
                yield file, entry


def paths_are_written_once(_: Stack, files: Sequence[File]) -> Iterator[Finding]:
    """Two components never write one file."""
    seen: set[str] = set()
    for file in files:
        if file.path in seen:
            yield Finding("path-is-written-once", "two components write this file", file=file.path)
        seen.add(file.path)


def objects_are_unique(_: Stack, files: Sequence[File]) -> Iterator[Finding]:
    """Every (kind, namespace, name) has one owner; two Applications would overwrite each other for ever."""
    seen: dict[tuple[str, str, str], str] = {}
    for file, entry in plain_objects(files):
        key = (entry["kind"], entry["metadata"].get("namespace", ""), entry["metadata"]["name"])
        if key in seen:
            yield Finding("object-has-one-owner", f"{seen[key]} has {'/'.join(key)} too", file=file.path)
        seen[key] = file.path


def namespaces_are_made(stack: Stack, files: Sequence[File]) -> Iterator[Finding]:
    """Every namespaced object is in a namespace that this tree creates."""
    made = {*namespaces_of(stack), "default", stack.environment.argocd.namespace}
    for file, entry in plain_objects(files):
        namespace = entry["metadata"].get("namespace")
        if entry["kind"] not in CLUSTER_SCOPED and namespace not in made:
            yield Finding(
                "namespace-is-made", f"nothing in this tree creates namespace {namespace}", file=file.path
            )


def addresses_are_provided(stack: Stack, files: Sequence[File]) -> Iterator[Finding]:
    """Every in-cluster address names a Service, and the port, of an enabled component."""
    known: dict[tuple[str, str], int] = {}
    for component in stack.components:
        for service in component.services(stack.environment).values():
            known[service.name, component.namespace] = service.port
    for runtime in stack.environment.fine_tuning.runtimes:
        # An address that a person typed is one of a server outside this tree.
        for name, namespace, port in _URL.findall(str(runtime.spec)):
            known[name, namespace] = int(port or 80)
    for file in files:
        for match in _URL.finditer(file.text) if file.path.startswith("manifests/") else ():
            name, namespace, port = match.groups()
            if (name, namespace) == ("kubernetes", "default"):
                continue
            if (name, namespace) not in known:
                yield Finding("address-is-provided", f"no component provides {match[0]}", file=file.path)
            elif port and int(port) != known[name, namespace]:
                yield Finding(
                    "address-is-provided",
                    f"{match[0]} answers on port {known[name, namespace]}",
                    file=file.path,
                )


def secrets_are_listed(stack: Stack, files: Sequence[File]) -> Iterator[Finding]:
    """Every Secret that an object names is in the list of expected secrets, in that namespace."""
    listed = {(s.namespace, s.name) for s in stack.secrets()}
    for file, entry in plain_objects(files):
        namespace = entry["metadata"].get("namespace", "")
        if entry["kind"] == "ExternalSecret":
            continue
        for name in secrets_named(entry):
            if (namespace, name) not in listed:
                yield Finding(
                    "secret-is-listed",
                    f"{namespace}/{name} is used and not in the list of secrets",
                    file=file.path,
                )


def secrets_named(entry: Json) -> set[str]:
    """Names of Secrets that an object refers to."""
    found: set[str] = set()
    for path, value in walk(entry.get("spec")):
        last = path[-1] if path else ""
        if (isinstance(value, str) and (last in _OBJECT_SOURCES or str(last).endswith("Secret"))) or (
            isinstance(value, str) and len(path) > 1 and (path[-2] == "pullSecrets")
        ):
            found.add(value)
        elif isinstance(value, dict) and last in (
            "secretKeyRef",
            "ngcAPISecret",
            "hfSecret",
            "passwordSecret",
        ):
            found.add(str(value.get("name")))
        elif isinstance(value, dict) and last == "secrets" and entry["kind"] == "NemoDatastore":
            found |= {str(name) for name in value.values()}
    return found


def nvidia_objects_have_no_empty_fields(_: Stack, files: Sequence[File]) -> Iterator[Finding]:
    """NVIDIA's objects have no empty fields, and canonical quantities; operators rewrite others: drift for ever."""
    for file, entry in plain_objects(files):
        if not entry["apiVersion"].startswith(_NVIDIA):
            continue
        for path, value in walk(entry["spec"], ("spec",)):
            if value is None or value in ("", {}, []):
                yield Finding(
                    "nvidia-no-empty-fields",
                    "an empty field is dropped by the operator",
                    path,
                    repr(value),
                    file=file.path,
                )
            is_quantity = len(path) > 1 and (
                path[-2] in _QUANTITY_PARENTS or path[-1] in ("size", "sharedMemorySizeLimit")
            )
            if is_quantity and not (isinstance(value, str) and is_canonical(value)):
                yield Finding(
                    "nvidia-canonical-quantities",
                    "the operator writes this quantity in another form",
                    path,
                    repr(value),
                    file=file.path,
                )


def a_false_survives_the_operator(_: Stack, files: Sequence[File]) -> Iterator[Finding]:
    """No object says `false` where the CRD's default is true, unless it has its finalizer.

    The operator's first update, which adds the finalizer, leaves `false` out, and the API server then writes the default.
    """
    for file, entry in plain_objects(files):
        if entry["apiVersion"].startswith(_NVIDIA) and not entry["metadata"].get("finalizers"):
            for path, value in walk(entry["spec"], ("spec",)):
                if value is False and path[-1] in TRUE_BY_DEFAULT:
                    yield Finding(
                        "nvidia-false-survives",
                        "the operator's first update turns this into true",
                        path,
                        "false",
                        "the operator's finalizer in metadata.finalizers",
                        file=file.path,
                    )


def is_canonical(quantity: str) -> bool:
    """Whether Kubernetes would print the quantity as it is: `4`, not `4000m`; `1Gi`, not `1024Mi`."""
    match = re.fullmatch(r"(\d+)([A-Za-z]*)", quantity)
    if not _CANONICAL.fullmatch(quantity) or not match:
        return False
    number, unit = int(match[1]), match[2]
    if unit.endswith("i"):
        return bool(number % 1024) or unit == "Ei"
    return bool(number % 1000) or unit == "E" or number == 0


def images_are_fixed(_: Stack, files: Sequence[File]) -> Iterator[Finding]:
    """Every image has a digest or a tag other than `latest`."""
    for file, entry in plain_objects(files):
        for path, value in walk(entry.get("spec")):
            if (
                path
                and path[-1] == "image"
                and isinstance(value, str)
                and (":" not in value.rsplit("/", 1)[-1] or value.endswith(":latest"))
            ):
                yield Finding(
                    "image-is-fixed",
                    "an image needs a fixed tag or digest",
                    ("spec", *path),
                    repr(value),
                    file=file.path,
                )


def needs_come_first(stack: Stack, _: Sequence[File]) -> Iterator[Finding]:
    """Each need is in an earlier wave, and the platform never waits for a model."""
    depth = waves(stack)
    for edge in edges(stack):
        component, provider = stack.component(edge.component), stack.component(edge.provider)
        if (
            component
            and provider
            and provider.is_rendered()
            and depth[edge.component] <= depth[edge.provider]
        ):
            yield Finding("needs-come-first", f"{edge.component} is not after {edge.provider}")
        if component and provider and component.root == "platform" and provider.root == "models":
            yield Finding(
                "platform-without-models", f"{edge.component} of the platform needs {edge.provider}"
            )


def air_gap_has_every_image(stack: Stack, files: Sequence[File]) -> Iterator[Finding]:
    """In an air gap every image comes from the mirror; charts whose images are unknown are reported."""
    registries = stack.environment.registries
    if not registries.air_gapped or not registries.mirror:
        return
    for file, entry in plain_objects(files):
        for image in sorted(set(images_in(entry.get("spec")))):
            if not image.startswith(f"{registries.mirror}/"):
                yield Finding("air-gap-has-image", f"{image} is not pulled from the mirror", file=file.path)
    if unseen := unseen_charts(stack):
        yield Finding(
            "air-gap-knows-images",
            f"the images of {', '.join(unseen)} are not known, and may not come from the mirror",
            ("registries", "airGapped"),
            None,
            "`helm template` of these charts with manifests/<env>/<component>/values.yaml",
            Severity.WARNING,
        )


def inlined(files: Sequence[File]) -> Iterator[tuple[File, Json]]:
    """The Helm values in each component's Application."""
    for file in files:
        for entry in file.objects:
            if file.component and entry["kind"] == "Application":
                yield file, entry["spec"]["source"].get("helm", {}).get("valuesObject", {})


def inlined_values_have_no_nulls(_: Stack, files: Sequence[File]) -> Iterator[Finding]:
    """Inlined values have no nulls: Argo CD stores them by a merge patch, where a null deletes: drift for ever."""
    for file, values in inlined(files):
        for path, value in walk(values, ("spec", "source", "helm", "valuesObject")):
            if value is None:
                yield Finding("inlined-without-nulls", NULL, path, "null", file=file.path)


def applications_can_be_stored(_: Stack, files: Sequence[File]) -> Iterator[Finding]:
    """Applications fit into etcd (1.5 MiB each) with the values of past syncs, which Argo CD keeps in them."""
    for file, values in inlined(files):
        size = len(json.dumps(values, separators=(",", ":")))
        if size > MOST_INLINED:
            yield Finding(
                "application-can-be-stored",
                f"{file.component} has {size:,} bytes of values, and from about 110,000 on the Application can't be stored "
                "after some syncs",
                file=file.path,
                hint="smaller values, or what is large in a chart or a folder of this repository",
                severity=Severity.WARNING,
            )


CHECKS = (
    inlined_values_have_no_nulls, applications_can_be_stored, air_gap_has_every_image, paths_are_written_once, objects_are_unique, namespaces_are_made, addresses_are_provided, secrets_are_listed,
    nvidia_objects_have_no_empty_fields, a_false_survives_the_operator, images_are_fixed, needs_come_first,
)  # fmt: skip
