# SPDX-License-Identifier: Apache-2.0
"""Every image that an environment pulls, with its name in the mirror: a mirror for an air gap needs all of them."""

from collections.abc import Iterable, Iterator
from typing import Any

from tuneyard.render.files import HEADER, File
from tuneyard.stack.model import Stack

_KEYS = ("image", "modelPuller", "imageName")


def images_by_component(stack: Stack, files: Iterable[File]) -> dict[str, tuple[str, ...]]:
    """Images by component, under their public names: those pinned for charts and those in rendered objects."""
    found: dict[str, set[str]] = {}
    for component in stack.components:
        if component.is_rendered() and (pin := stack.pin(component.name)):
            found.setdefault(component.name, set()).update(pin.deploys + pin.fixed_images)
    for file in files:
        for entry in file.objects if file.path.startswith("manifests/") else ():
            found.setdefault(file.component, set()).update(images_in(entry.get("spec")))
    if stack.component("tuneyard-operator"):
        found.setdefault("tuneyard-operator", set()).add(stack.environment.registries.operator_image)
    mirror = f"{stack.environment.registries.mirror}/"
    return {
        name: tuple(sorted({image.removeprefix(mirror) for image in images}))
        for name, images in sorted(found.items())
        if images
    }


def images_in(value: Any, key: str = "") -> Iterator[str]:
    """Images in an object, written as text or as repository and tag."""
    if isinstance(value, dict):
        if isinstance(value.get("repository"), str) and isinstance(value.get("tag"), str):
            yield f"{value['repository']}:{value['tag']}"
        for name, child in value.items():
            yield from images_in(child, "image" if key == "evaluationImages" else name)
    elif isinstance(value, list):
        for child in value:
            yield from images_in(child)
    elif isinstance(value, str) and key in _KEYS:
        yield value


def unseen_charts(stack: Stack) -> list[str]:
    """Components whose images are not known, because their chart was not available."""
    return [
        component.name
        for component in stack.components
        if component.values and (pin := stack.pin(component.name)).chart and not pin.deploys
    ]


def fixed_images(stack: Stack) -> dict[str, tuple[str, ...]]:
    """Components and the images that their operator names itself, which no setting takes from the mirror."""
    pinned = {c.name: stack.pin(c.name).fixed_images for c in stack.components if c.is_rendered()}
    return {name: images for name, images in pinned.items() if images}


def images_page(stack: Stack, files: Iterable[File]) -> str:
    """manifests/<env>/images.md."""
    mirror = stack.environment.registries.mirror
    lines = [
        f"<!-- {HEADER.format(name=stack.environment.name)} -->",
        f"# Images that {stack.environment.name} pulls",
        "",
        "The GPU Operator's driver image carries the nodes' operating system after its version (`595.91.07-ubuntu24.04`).",
    ]
    if unseen := unseen_charts(stack):
        lines.append(f"Not known, because their charts need an account: the images of {', '.join(unseen)}.")
    if mirror and (names := fixed_images(stack)):
        lines.append(
            f"The NIM Operator itself names an image of {', '.join(names)}: nodes pull it from docker.io, or by a mirror of "
            "docker.io in their containerd's settings, or they have it already."
        )
    lines += ["", "| component | image |" + (" in the mirror |" if mirror else "")]
    lines.append("| --- | --- |" + (" --- |" if mirror else ""))
    fixed = fixed_images(stack)
    for component, images in images_by_component(stack, files).items():
        for image in images:
            place = "none: see above" if image in fixed.get(component, ()) else stack.mirrored(image)
            lines.append(f"| {component} | {image} |" + (f" {place} |" if mirror else ""))
    return "\n".join(lines) + "\n"
