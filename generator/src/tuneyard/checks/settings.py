# SPDX-License-Identifier: Apache-2.0
"""Checks settings that need or exclude each other, and overlays that would undo what the derived values avoid."""

from collections.abc import Iterator
from typing import Any

from tuneyard_api.problems import Path

from tuneyard.checks.tree import NULL, walk
from tuneyard.findings import Finding, Severity
from tuneyard.render.images import fixed_images
from tuneyard.stack.model import Stack


def external_services_are_described(stack: Stack) -> Iterator[Finding]:
    """Every external service that is used is described, and every described one is used."""
    environment = stack.environment
    described = {
        "external-postgres": ("externalPostgres", "postgres", environment.external_postgres),
        "external-s3": ("externalS3", "s3", environment.external_s3),
        "external-mlflow": ("externalMlflow", "tracking", environment.external_mlflow),
    }
    enabled = {component.name for component in stack.components}
    for name, (key, use, value) in described.items():
        if name in enabled and value is None:
            yield Finding(
                "external-is-described",
                f"{name} is used but not described",
                ("use", use),
                repr(name),
                f"{key}: ...",
            )
        if value is not None and name not in enabled:
            yield Finding(
                "external-is-used",
                "is described but not used",
                (key,),
                None,
                f"use.{use}: {name}",
                Severity.WARNING,
            )


def the_data_store_has_a_plain_database(stack: Stack) -> Iterator[Finding]:
    """The Data Store's database answers without TLS: the NIM Operator 3.1.2 always sets GITEA__DATABASE__SSL_MODE=disable."""
    if stack.component("nemo-data-store") and stack.providers["postgres"].name == "external-postgres":
        yield Finding(
            "data-store-without-tls",
            "the NIM Operator connects the Data Store without TLS, which a database that demands TLS refuses",
            ("externalPostgres",),
            None,
            "a database that also takes plain connections, from the cluster's network only",
            Severity.WARNING,
        )


def the_adapter_knows_its_prometheus(stack: Stack) -> Iterator[Finding]:
    """What serves the metric of autoscaling knows its Prometheus; the address of an existing one is not in the environment."""
    adapter = stack.component("prometheus-adapter")
    values = stack.options("prometheus-adapter").values.get("prometheus")
    has_address = isinstance(values, dict) and "url" in values
    if adapter and not stack.component("kube-prometheus-stack") and not has_address:
        yield Finding(
            "adapter-knows-prometheus",
            "prometheus-adapter serves what models are scaled by, and nobody says where the existing Prometheus is",
            ("use", "metrics"),
            None,
            "components.prometheus-adapter.values.prometheus: {url: ..., port: ...}, or components.existing-pod-metrics.enabled: true",
        )


def ingress_has_a_domain(stack: Stack) -> Iterator[Finding]:
    """An ingress has a domain, and a domain has an ingress: host names need both."""
    cluster = stack.environment.cluster
    if cluster.ingress and not cluster.domain:
        yield Finding(
            "ingress-has-domain", "an ingress needs a domain", ("cluster", "ingress"), None, "cluster.domain"
        )
    if cluster.domain and not cluster.ingress:
        yield Finding(
            "ingress-has-domain",
            "a domain needs an ingress",
            ("cluster", "domain"),
            repr(cluster.domain),
            "cluster.ingress",
        )


def air_gap_has_mirrors(stack: Stack) -> Iterator[Finding]:
    """An air gap has mirrors; without them Argo CD and kubelets wait for what they can't reach."""
    registries = stack.environment.registries
    if registries.air_gapped:
        for key, value in (("mirror", registries.mirror), ("charts", registries.charts)):
            if value is None:
                yield Finding(
                    "air-gap-has-mirrors",
                    f"an air gap needs registries.{key}",
                    ("registries", "airGapped"),
                    "true",
                    f"registries.{key}",
                )


def model_mirror_is_described(stack: Stack) -> Iterator[Finding]:
    """A mirror of models in S3 has a region, without which no request can be signed; others have neither region nor endpoint."""
    mirror = stack.environment.registries.models
    if mirror is None:
        return
    path: Path = ("registries", "models")
    if mirror.url.startswith("s3://"):
        if mirror.region is None:
            yield Finding(
                "model-mirror-is-described",
                "s3:// needs a region",
                (*path, "url"),
                repr(mirror.url),
                "region: ...",
            )
        return
    for key, value in (("region", mirror.region), ("endpoint", mirror.endpoint)):
        if value is not None:
            yield Finding(
                "model-mirror-is-described",
                "only s3:// has it",
                (*path, key),
                repr(value),
                "leaving it out",
            )


def nodes_bring_images_that_nothing_moves(stack: Stack) -> Iterator[Finding]:
    """In an air gap no operator names an image itself; where one does, only the nodes can bring it."""
    fixed = fixed_images(stack)
    if stack.environment.registries.air_gapped and fixed:
        images = sorted({image for named in fixed.values() for image in named})
        yield Finding(
            "air-gap-has-fixed-image",
            f"the NIM Operator starts {', '.join(fixed)} with {', '.join(images)}, which no setting moves to the mirror",
            ("registries", "airGapped"),
            None,
            "a mirror of docker.io in the containerd of the nodes, or the image loaded on them",
            Severity.WARNING,
        )


def proxy_exempts_hosts_by_name(stack: Stack) -> Iterator[Finding]:
    """NO_PROXY exempts hosts by name: half of the programs do not understand a network there."""
    proxy = stack.environment.proxy
    for index, entry in enumerate(proxy.exempt if proxy else ()):
        if "/" in entry:
            yield Finding(
                "proxy-exempts-by-name",
                "urllib, aiohttp and botocore do not read networks, and ask the proxy for these hosts",
                ("proxy", "exempt", index),
                repr(entry),
                "the names of the hosts, or a suffix such as '.internal'",
                Severity.WARNING,
            )


def secrets_have_a_store(stack: Stack) -> Iterator[Finding]:
    """external-secrets has a store that values come from."""
    secrets = stack.environment.secrets
    if secrets.provider == "external-secrets" and secrets.store is None:
        yield Finding(
            "secrets-have-store",
            "external-secrets needs a store",
            ("secrets", "provider"),
            "'external-secrets'",
            "secrets.store: {name: ...}",
        )
    if secrets.provider != "external-secrets" and secrets.store is not None:
        yield Finding(
            "secrets-have-store",
            "only external-secrets uses it",
            ("secrets", "store"),
            None,
            "provider: external-secrets",
            Severity.WARNING,
        )


def customizer_has_volcano(stack: Stack) -> Iterator[Finding]:
    """NeMo Customizer has Volcano, as its training jobs are Volcano gangs."""
    if (
        stack.has("crd:nemo-training")
        and stack.has("scheduler")
        and stack.providers["scheduler"].name != "volcano"
    ):
        yield Finding(
            "customizer-has-volcano",
            "NeMo Customizer schedules its training jobs with Volcano",
            ("use", "scheduler"),
            repr(stack.providers["scheduler"].name),
            "'volcano'",
        )


def evaluator_has_milvus(stack: Stack) -> Iterator[Finding]:
    """The evaluator has Milvus, whose protocol it uses for vectors."""
    if stack.has("evaluator") and stack.providers["vector-db"].name != "milvus":
        yield Finding(
            "evaluator-has-milvus",
            "NeMo Evaluator supports only Milvus",
            ("use", "vectorDb"),
            repr(stack.providers["vector-db"].name),
            "'milvus', or nemo-evaluator with enabled: false",
        )


def gpus_exist_where_needed(stack: Stack) -> Iterator[Finding]:
    """A stack that needs GPUs has some, or it would wait for ever."""
    if stack.has("gpu") and not stack.environment.gpus.nodes:
        why = next(iter(name for name, why in stack.reasons.items() if why.startswith("gpu for")), "")
        reason = next((text for text in stack.reasons.values() if text.startswith("gpu for ")), why)
        yield Finding(
            "gpu-nodes-are-declared",
            f"{reason.removeprefix('gpu for ') or 'something'} needs GPUs, and no node has one",
            ("gpus",),
            None,
            "gpus.nodes",
        )


def namespaces_are_apart(stack: Stack) -> Iterator[Finding]:
    """Jobs share no namespace with the platform, as they run under the restricted profile."""
    platform = {c.namespace for c in stack.components if c.root == "platform" and c.is_rendered()}
    for index, namespace in enumerate(stack.environment.fine_tuning.namespaces):
        if namespace.name in platform or namespace.name in (
            "default",
            "kube-system",
            stack.environment.argocd.namespace,
        ):
            yield Finding(
                "namespaces-are-apart",
                "belongs to the platform",
                ("fineTuning", "namespaces", index, "name"),
                repr(namespace.name),
                "a namespace of its own",
            )


_UNDOING: tuple[tuple[str, Path, Any, str], ...] = (
    (
        "gpu-operator",
        ("operator", "upgradeCRD"),
        True,
        "its hook Job would run at every sync; Argo CD applies the CRDs",
    ),
    (
        "nim-operator",
        ("operator", "upgradeCRD"),
        True,
        "its hook Job would run at every sync; Argo CD applies the CRDs",
    ),
    ("gpu-operator", ("gpuCluster", "deployCR"), True, "it excludes clusterPolicy.deployCR"),
    ("nemo-helix", ("postgresql", "enabled"), True, "its password is a constant in the chart"),
)


def overlays_keep_the_lessons(stack: Stack) -> Iterator[Finding]:
    """No overlay sets a value that would bring back a known problem."""
    for name, path, bad, why in _UNDOING:
        value: Any = stack.options(name).values
        for part in path:
            value = value.get(str(part)) if isinstance(value, dict) else None
        if value == bad and value is not None:
            yield Finding(
                "overlay-keeps-lessons",
                why,
                ("components", name, "values", *path),
                str(value).lower(),
                "leaving it out",
            )
    for name, options in stack.environment.components.items():
        yield from _texts(options.values, ("components", name, "values"))


def typed_values_have_no_nulls(stack: Stack) -> Iterator[Finding]:
    """Typed values and specs have no nulls, which get lost when Argo CD inlines them."""
    environment = stack.environment
    typed: list[tuple[Path, Any]] = [
        (("components", name, "values"), options.values) for name, options in environment.components.items()
    ]
    typed += [
        (("fineTuning", "runtimes", index, "spec"), runtime.spec)
        for index, runtime in enumerate(environment.fine_tuning.runtimes)
    ]
    for place, values in typed:
        for path, value in walk(values, place):
            if value is None:
                hint = "the value that is meant, such as `enabled: false` or an empty map"
                yield Finding("inlined-without-nulls", NULL, path, "null", hint)


def _texts(value: Any, path: Path) -> Iterator[Finding]:
    if isinstance(value, dict):
        for key, child in value.items():
            if key == "source_labels":
                yield Finding(
                    "overlay-keeps-lessons",
                    "relabelings are written in camelCase since v26.7",
                    (*path, key),
                    None,
                    "sourceLabels",
                )
            if key == "useOpenKernelModules":
                yield Finding(
                    "overlay-keeps-lessons", "does nothing any more", (*path, key), None, "kernelModuleType"
                )
            yield from _texts(child, (*path, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _texts(child, (*path, index))
    elif isinstance(value, str) and (value.startswith(("bitnami/", "docker.io/bitnami/"))):
        yield Finding(
            "images-still-exist",
            "these images have left Docker Hub",
            path,
            repr(value),
            "bitnamilegacy/..., or an image of your own",
        )


PRECONDITIONS = (external_services_are_described, evaluator_has_milvus)
"""Checks without which nothing can be rendered."""

CHECKS = (
    ingress_has_a_domain, air_gap_has_mirrors, nodes_bring_images_that_nothing_moves, model_mirror_is_described, the_adapter_knows_its_prometheus, the_data_store_has_a_plain_database, proxy_exempts_hosts_by_name, secrets_have_a_store, customizer_has_volcano,
    gpus_exist_where_needed, namespaces_are_apart, overlays_keep_the_lessons,
    typed_values_have_no_nulls,
)  # fmt: skip
