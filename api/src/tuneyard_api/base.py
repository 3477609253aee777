# SPDX-License-Identifier: Apache-2.0
"""The one base of every model of the contract: camelCase outside, unknown keys refused, frozen, with rules."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StringConstraints,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

_VALIDATIONS = "x-kubernetes-validations"


def to_api_name(name: str) -> str:
    """camelCase, with units as they are written: `size_gib` is `sizeGiB`."""
    return to_camel(name).removesuffix("Gib") + "GiB" if name.endswith("_gib") else to_camel(name)


@dataclass(frozen=True)
class Rule:
    """A rule about an object or a value, in two forms: as CEL for the API server and in Python for a laptop.

    Both must say the same; the files of tests/invalid/jobs are put before both. A rule between the fields of an
    object stands in its `Contract.rules`; a rule of one value stands in the value's `Annotated`.
    """

    cel: str
    """CEL expression that is true when `self`, the object or value, is right; evaluated after defaulting."""
    cel_message: str
    """CEL expression of the message."""
    broken: Callable[[Any], str | None]
    """Returns the same message for a value that breaks the rule, and None for one that keeps it."""
    sentence: str
    """The rule itself, for the reference page, and for the API server where it can't evaluate the rule."""
    field: str = ""
    """Field that the message is about, such as `training.globalBatchSize`; empty: the object or value."""

    def as_validation(self) -> dict[str, str]:
        """The entry of `x-kubernetes-validations`."""
        validation = {
            "rule": self.cel,
            "message": self.sentence,
            "messageExpression": self.cel_message,
        }
        # An API server has no schema of metadata, and so takes no path into it.
        has_path = self.field and not self.field.startswith("metadata.")
        return {**validation, "fieldPath": f".{self.field}"} if has_path else validation

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """The value's schema with the rule behind it."""
        return core_schema.no_info_after_validator_function(self._kept, handler(source))

    def __get_pydantic_json_schema__(
        self, inner: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The value's JSON schema with the rule as CEL."""
        schema = handler(inner)
        return {**schema, _VALIDATIONS: [*schema.get(_VALIDATIONS, ()), self.as_validation()]}

    def _kept(self, value: Any) -> Any:
        raise_where_broken((self,), value)
        return value


def raise_where_broken(rules: Iterable[Rule], value: Any) -> None:
    """Raises PydanticCustomError with every rule that `value` breaks, if there is one."""
    broken = [(rule.field, message) for rule in rules if (message := rule.broken(value)) is not None]
    if broken:
        sentences = "; ".join(f"{field}: {message}" if field else message for field, message in broken)
        raise PydanticCustomError("rule", "{sentences}", {"sentences": sentences, "broken": broken})


class Contract(BaseModel):
    """A part of the contract, written in camelCase by people and in snake_case in code."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=to_api_name,
        populate_by_name=True,
        serialize_by_alias=True,
        use_attribute_docstrings=True,
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _keep_rules(self) -> Self:
        raise_where_broken(self.rules, self)
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, inner: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The JSON schema with the class's rules as CEL."""
        schema = handler(inner)
        if cls.rules:
            handler.resolve_ref_schema(schema)[_VALIDATIONS] = [rule.as_validation() for rule in cls.rules]
        return schema


class Tolerant(Contract):
    """A part that a newer writer may have extended: unknown fields are dropped.

    Its numbers are finite: JSON has no other ones, and would carry nan as null.
    """

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
RELATIVE_PATH = r"^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$"
"""A path inside a volume: no leading slash, no part that begins with a dot, so never `..`."""
HUB_REPO = r"^[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)?$"
REVISION = r"^[A-Za-z0-9][A-Za-z0-9_./-]*$"
MANAGER = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
METHOD = r"^[a-z][A-Za-z0-9]*$"
HTTP_URL = r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._/-]*)?$"

Label = Annotated[str, StringConstraints(pattern=DNS_LABEL, min_length=1, max_length=63)]
"""A name that also becomes part of other names."""
ObjectName = Annotated[str, StringConstraints(pattern=DNS_SUBDOMAIN, min_length=1, max_length=253)]
"""Name of a Kubernetes object that others made."""
VolumePath = Annotated[str, StringConstraints(pattern=RELATIVE_PATH, min_length=1, max_length=512)]
HttpUrl = Annotated[str, StringConstraints(pattern=HTTP_URL, max_length=512)]
"""Address of an HTTP server."""
_API_PATH = r"/v1(/models|/completions|/chat/completions)?/*$"
BEFORE_V1 = Rule(
    cel=f"!self.matches('{_API_PATH}')",
    cel_message=(
        "'the address of a server ends before /v1, which is added to it (got ' + self + '); try '"
        " + self.substring(0, self.lastIndexOf('/v1'))"
    ),
    broken=lambda url: (
        f"the address of a server ends before /v1, which is added to it (got {url}); try {url[: url.rfind('/v1')]}"
        if re.search(_API_PATH, url)
        else None
    ),
    sentence="the address of a server ends before /v1, which is added to it",
)
BaseUrl = Annotated[HttpUrl, BEFORE_V1]
"""Base URL of an OpenAI-compatible server."""
