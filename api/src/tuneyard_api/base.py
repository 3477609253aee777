# SPDX-License-Identifier: Apache-2.0
"""The one base of every model of the contract: camelCase outside, unknown keys refused, frozen."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints
from pydantic.alias_generators import to_camel


def to_api_name(name: str) -> str:
    """camelCase, with units as they are written: `size_gib` is `sizeGiB`."""
    return to_camel(name).removesuffix("Gib") + "GiB" if name.endswith("_gib") else to_camel(name)


class Contract(BaseModel):
    """A part of the contract, written in camelCase by people and in snake_case in code."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_api_name, populate_by_name=True, serialize_by_alias=True,
        use_attribute_docstrings=True,
    )


class Tolerant(Contract):
    """A part that a newer writer may have extended: what is unknown is dropped."""

    model_config = ConfigDict(extra="ignore")


DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
RELATIVE_PATH = r"^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$"
"""A path inside a volume: no leading slash, no part that begins with a dot, so never `..`."""

ObjectName = Annotated[str, StringConstraints(pattern=DNS_LABEL, min_length=1, max_length=63)]
VolumePath = Annotated[str, StringConstraints(pattern=RELATIVE_PATH, min_length=1, max_length=512)]
