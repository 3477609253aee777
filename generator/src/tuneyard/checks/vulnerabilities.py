# SPDX-License-Identifier: Apache-2.0
"""Checks what runs against the dated list of known vulnerabilities."""

from collections.abc import Iterator

from tuneyard_api.problems import Path

from tuneyard.catalog import pins, vulnerabilities
from tuneyard.environment.presets import engine_of
from tuneyard.findings import Finding, Severity
from tuneyard.stack.model import Stack


def images_have_no_known_vulnerability(stack: Stack) -> Iterator[Finding]:
    """No image that runs has a vulnerability of the list, whose date the finding says."""
    known = vulnerabilities()
    for path, image in _images(stack):
        found = [entry for entry in known.entries if entry.affects(image)]
        if found:
            what = "; ".join(f"{entry.id}: {entry.about}" for entry in found)
            fixes = [f"{' or '.join(entry.fixed)} for {entry.id}" for entry in found if entry.fixed]
            yield Finding(
                "image-is-not-vulnerable",
                f"has known vulnerabilities (list of {known.as_of}): {what}",
                path,
                image,
                ", ".join(fixes) if len(fixes) == len(found) else "another provider: no image has the fix",
                Severity.WARNING,
            )


def _images(stack: Stack) -> Iterator[tuple[Path, str]]:
    """Every image whose version is known before anything is rendered, with the key that chose it."""
    for component in stack.components:
        if component.is_rendered() and (pin := stack.pin(component.name)):
            for image in sorted({*pin.deploys, *pin.images.values()}):
                yield ("components", component.name), image
    for index, model in enumerate(stack.environment.models):
        if model.image:
            yield ("models", index, "image"), f"{model.image.repository}:{model.image.tag}"
        elif engine_of(stack.environment, model) == "vllm":
            yield ("models", index), pins()["vllm"].images["server"]


CHECKS = (images_have_no_known_vulnerability,)
