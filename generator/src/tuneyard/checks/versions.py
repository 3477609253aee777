# SPDX-License-Identifier: Apache-2.0
"""Checks that versions go together."""

import re
from collections.abc import Iterator

from tuneyard.catalog.nim_cache import RAY_MAJOR, major_of
from tuneyard.environment.presets import engine_of
from tuneyard.findings import Finding, Severity, did_you_mean
from tuneyard.stack.model import Stack

SUPPORTED = (1, 31)
PROVED_ARGOCD = "3.2.11"
DRIVER_BRANCHES = {
    "B200": 570,
    "GB200": 570,
    "B300": 580,
    "GB300": 580,
    "H200": 535,
    "H100": 525,
    "L40S": 525,
    "A100": 450,
}
"""First driver branch that knows a GPU (NVIDIA's data-centre driver release notes)."""
GONE_IN_NIM_2 = ("NIM_MAX_GPU_LORAS", "NIM_MAX_CPU_LORAS", "NIM_MAX_LORA_RANK", "NIM_MAX_MODEL_LEN")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def needed_kubernetes(stack: Stack) -> tuple[tuple[int, ...], str]:
    """The oldest version that all components run on, and the component that asks for it."""
    return max((_numbers(stack.pin(c.name).kubernetes), c.name) for c in stack.components)


def kubernetes_is_supported(stack: Stack) -> Iterator[Finding]:
    """Kubernetes is 1.31 or later, and new enough for each component."""
    version = stack.environment.cluster.kubernetes
    lowest, name = needed_kubernetes(stack)
    if _numbers(version) < lowest:
        wanted = ".".join(map(str, lowest))
        yield Finding(
            "kubernetes-is-supported",
            f"needs Kubernetes {wanted}" if lowest == SUPPORTED else f"{name} needs Kubernetes {wanted}",
            ("cluster", "kubernetes"),
            repr(version),
            repr(wanted),
        )


def chart_versions_are_known(stack: Stack) -> Iterator[Finding]:
    """Every chart has a version that its values were derived for: no range, and not `latest`."""
    for name, options in stack.environment.components.items():
        pin = stack.pins.get(name)
        if options.version is None:
            continue
        path = ("components", name, "version")
        if pin is None or not pin.chart:
            yield Finding(
                "chart-version-is-known",
                "this component has no chart",
                path,
                repr(options.version),
                "leaving it out",
            )
        elif options.version not in pin.versions:
            exact = re.fullmatch(r"v?\d+\.\d+\.\d+([-+][0-9A-Za-z.-]+)?", options.version)
            problem = "is not one of the catalog's versions" if exact else "is not an exact version"
            yield Finding(
                "chart-version-is-known",
                problem,
                path,
                repr(options.version),
                did_you_mean(options.version, pin.versions),
            )


def nim_2_reads_folders_only(stack: Stack) -> Iterator[Finding]:
    """A NIM 2 reads adapters from a local folder, as its documentation says of NIM_PEFT_SOURCE."""
    for index, model in enumerate(stack.environment.models):
        new = model.image is not None and major_of(model.image.tag) >= RAY_MAJOR
        if (
            new
            and engine_of(stack.environment, model) == "nim"
            and model.lora
            and model.lora.source == "entity-store"
        ):
            yield Finding(
                "nim-2-reads-folders-only",
                "NIM 2 does not read adapters from the Entity Store",
                ("models", index, "lora", "source"),
                "'entity-store'",
                "source: folder, or an image 1.x",
            )


def nim_variables_exist(stack: Stack) -> Iterator[Finding]:
    """A NIM 2 gets no variables that it silently ignores, and no keys in an air gap."""
    for index, model in enumerate(stack.environment.models):
        if (
            not model.image
            or major_of(model.image.tag) < RAY_MAJOR
            or engine_of(stack.environment, model) != "nim"
        ):
            continue
        for place, entry in enumerate(model.env):
            path = ("models", index, "env", place, "name")
            if entry.name in GONE_IN_NIM_2:
                yield Finding(
                    "nim-variable-exists",
                    "NIM 2 no longer reads this variable",
                    path,
                    repr(entry.name),
                    "lora: or maxSequenceLength",
                )
            if stack.environment.registries.air_gapped and entry.name in ("NGC_API_KEY", "HF_TOKEN"):
                yield Finding(
                    "nim-2-air-gap-without-keys",
                    "NIM 2 in an air gap must not have keys",
                    path,
                    repr(entry.name),
                    "leaving it out",
                )


def driver_knows_gpus(stack: Stack) -> Iterator[Finding]:
    """A pinned driver is new enough for every GPU."""
    version = stack.environment.gpus.driver_version
    if version is None:
        return
    for nodes in stack.environment.gpus.nodes:
        words = nodes.product.split("-")
        for name, branch in DRIVER_BRANCHES.items():
            if name in words and _numbers(version)[0] < branch:
                yield Finding(
                    "driver-knows-gpu",
                    f"{name} needs driver {branch} or later",
                    ("gpus", "driverVersion"),
                    repr(version),
                    "leaving it out: the chart's default is newer",
                )


def driver_version_is_used(stack: Stack) -> Iterator[Finding]:
    """A driver version is set only if the GPU Operator installs the driver."""
    gpus = stack.environment.gpus
    if gpus.driver_version and gpus.driver == "preinstalled":
        yield Finding(
            "driver-version-is-used",
            "nodes come with their driver",
            ("gpus", "driverVersion"),
            repr(gpus.driver_version),
            "gpus.driver: operator, or leaving this out",
        )


def argocd_can_order(stack: Stack) -> Iterator[Finding]:
    """Argo CD is 3.2 or later (retry.refresh), not 3.3.0 or 3.3.1 (broken server-side apply), best the tried one."""
    version = stack.environment.argocd.version
    if _numbers(version) < (3, 2):
        yield Finding(
            "argocd-can-order",
            "needs Argo CD 3.2 (retry.refresh)",
            ("argocd", "version"),
            repr(version),
            repr(PROVED_ARGOCD),
        )
    elif version in ("3.3.0", "3.3.1"):
        yield Finding(
            "argocd-can-order",
            "this release fails when it migrates to server-side apply",
            ("argocd", "version"),
            repr(version),
            "'3.3.2'",
        )
    elif version != PROVED_ARGOCD:
        yield Finding(
            "argocd-is-proved",
            f"the order was proved on {PROVED_ARGOCD}, not on this version",
            ("argocd", "version"),
            repr(version),
            None,
            Severity.WARNING,
        )


def wave_delay_is_long_enough(stack: Stack) -> Iterator[Finding]:
    """The wave delay is at least two seconds; else the health gate may judge the object before the patch."""
    delay = stack.environment.argocd.wave_delay_seconds
    if delay < 2:  # noqa: PLR2004  measured
        yield Finding(
            "wave-delay", "waves must be at least 2 s apart", ("argocd", "waveDelaySeconds"), str(delay), "2"
        )


def dra_needs_kubernetes(stack: Stack) -> Iterator[Finding]:
    """Dynamic resource allocation has Kubernetes 1.34, which the NIM Operator requires."""
    version = stack.environment.cluster.kubernetes
    if stack.has("dra") and _numbers(version) < (1, 34):
        yield Finding(
            "dra-needs-kubernetes",
            "dynamic resource allocation of GPUs needs Kubernetes 1.34",
            ("use", "gpu"),
            repr(version),
            "gpu: device-plugin",
        )


def pins_are_confirmed(stack: Stack) -> Iterator[Finding]:
    """Everything about an enabled component is confirmed; look up the rest before the first sync."""
    for component in stack.components:
        if text := stack.pin(component.name).unconfirmed:
            yield Finding(
                "pin-is-confirmed",
                f"{component.name}: {text}",
                ("components", component.name),
                None,
                "the chart with `tuneyard schemas add`, and a look at its pods",
                Severity.WARNING,
            )


def openshift_is_not_tried(stack: Stack) -> Iterator[Finding]:
    """The cluster is not OpenShift, which was not tried: operators remove fields, and security contexts differ."""
    if stack.environment.cluster.distribution == "openshift":
        yield Finding(
            "openshift-is-not-tried",
            "not tried on OpenShift: Argo CD shows fields that its operators remove as drift for ever",
            ("cluster", "distribution"),
            "'openshift'",
            None,
            Severity.WARNING,
        )


CHECKS = (
    pins_are_confirmed, openshift_is_not_tried, kubernetes_is_supported, chart_versions_are_known, nim_2_reads_folders_only, nim_variables_exist, driver_knows_gpus,
    driver_version_is_used, argocd_can_order, wave_delay_is_long_enough, dra_needs_kubernetes,
)  # fmt: skip
