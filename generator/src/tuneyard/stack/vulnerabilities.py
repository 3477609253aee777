# SPDX-License-Identifier: Apache-2.0
"""Known vulnerabilities of images, and whether a version has the fix: what catalog/vulnerabilities.yaml says. Pure."""

import re
from dataclasses import dataclass

from tuneyard_api.yaml_io import load


@dataclass(frozen=True)
class Vulnerability:
    """One entry of the list."""

    id: str
    image: str
    """Name of the image without its registry."""
    fixed: tuple[str, ...]
    """The first version of each branch that has the fix, oldest branch first; empty where no image has it."""
    about: str
    source: str

    def affects(self, image: str) -> bool:
        """Whether an image, such as `docker.io/a/b:v1.2.3`, is one without the fix; without a version in its tag it is not."""
        name, _, tag = image.partition("@")[0].rpartition(":")
        version = _numbers(tag)
        return bool(name.endswith(f"/{self.image}") and version and not self._is_fixed(version))

    def _is_fixed(self, version: tuple[int, ...]) -> bool:
        fixes = [_numbers(text) for text in self.fixed]
        return any(version >= fix and (version[:2] == fix[:2] or fix == fixes[-1]) for fix in fixes)


@dataclass(frozen=True)
class Vulnerabilities:
    """The list."""

    as_of: str
    """Day of the last look, as year-month-day; what was published later is not in it."""
    entries: tuple[Vulnerability, ...]


def read_vulnerabilities(text: str) -> Vulnerabilities:
    """The list in a text like vulnerabilities.yaml."""
    data = load(text, "vulnerabilities.yaml").value
    entries = (
        Vulnerability(**{**entry, "fixed": tuple(entry["fixed"])}) for entry in data["vulnerabilities"]
    )
    return Vulnerabilities(data["as_of"], tuple(entries))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
