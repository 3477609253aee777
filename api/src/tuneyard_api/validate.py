# SPDX-License-Identifier: Apache-2.0
"""Reads a FineTuneJob or FineTuneRuntime from a file, strictly, and says all that is wrong with it at once.

As strict as `kubectl apply --validate=strict` and the CRD together, and before either is there: unknown fields,
types, bounds and rules, each with its line and what was probably meant.
"""

import json
from collections.abc import Iterable
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tuneyard_api import base, names, remote_files
from tuneyard_api.crd import Schema, structural_schema
from tuneyard_api.job import FineTuneJob
from tuneyard_api.planner import PlanRefused
from tuneyard_api.problems import InputRefused, LocatedProblem, Path, closest, shown
from tuneyard_api.runtime import FineTuneRuntime
from tuneyard_api.yaml_io import Document, load

_Kind = TypeVar("_Kind", FineTuneJob, FineTuneRuntime)

_TOP_LEVEL = ("apiVersion", "kind", "metadata", "spec", "status")
_METADATA = (
    *("name", "generateName", "namespace", "labels", "annotations", "finalizers", "ownerReferences", "uid"),
    *(
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ),
    *("managedFields", "selfLink"),
)
_PATTERNS = {
    base.DNS_LABEL: "lower case letters, digits and inner dashes",
    base.DNS_SUBDOMAIN: "lower case letters, digits, inner dashes and dots",
    base.RELATIVE_PATH: "a relative path without parts that begin with a dot, such as data/train.jsonl",
    base.HUB_REPO: "owner/name, of letters, digits, dots and dashes",
    base.METHOD: "a word such as lora",
    base.QUANTITY: "a quantity such as 500m or 4Gi",
    base.HTTP_URL: "an address such as http://nim.models:8000",
    remote_files.BUCKET: "lower case letters, digits, inner dashes and dots",
    remote_files.DATA_KEY: "a key that ends in .jsonl, .json or .parquet",
    remote_files.DATA_URL: "https, or http of a Service (name.namespace.svc), to a path ending in .jsonl, .json or .parquet",
    remote_files.SHA256: "64 lower-case hex digits, as `sha256sum FILE` prints them",
}
_BOUNDS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}
_LENGTHS = {
    "string_too_short": ("at least", "min_length", "characters"),
    "string_too_long": ("at most", "max_length", "characters"),
    "too_short": ("at least", "min_length", "items"),
    "too_long": ("at most", "max_length", "items"),
}
_TYPES = {
    **dict.fromkeys(("int_type", "int_from_float"), "a whole number"),
    **dict.fromkeys(("tuple_type", "list_type"), "a list"),
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), "a mapping"),
    "float_type": "a number",
    "string_type": "a string",
    "bool_type": "true or false",
}


def load_job(text: str, file: str = "<text>") -> FineTuneJob:
    """The FineTuneJob in `text`; `file` is its name in messages.

    Raises:
        InputRefused: with every problem.
    """
    return read_job(load(text, file))


def load_runtime(text: str, file: str = "<text>") -> FineTuneRuntime:
    """The FineTuneRuntime in `text`; `file` is its name in messages.

    Raises:
        InputRefused: with every problem.
    """
    return read_runtime(load(text, file))


def read_job(document: Document) -> FineTuneJob:
    """As `load_job`, of a document that is read already."""
    return _read(document, FineTuneJob, names.JOB_KIND)


def read_runtime(document: Document) -> FineTuneRuntime:
    """As `load_runtime`, of a document that is read already."""
    return _read(document, FineTuneRuntime, names.RUNTIME_KIND)


def locate(refused: PlanRefused, document: Document) -> InputRefused:
    """What a plan was refused for, with the lines of the job's file."""
    return InputRefused(
        document.problem(tuple(problem.path.split(".")), problem.message) for problem in refused.problems
    )


def _read(document: Document, model: type[_Kind], kind: str) -> _Kind:
    value = document.value
    if not isinstance(value, dict):
        raise InputRefused(
            [document.problem((), f"a {kind} is a mapping (got {shown(value)}); try apiVersion, kind, ...")]
        )
    problems = [*_envelope_problems(document, kind)]
    result: _Kind | None = None
    try:
        result = model.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        schema = _schema_of(model)
        for details in error.errors(include_url=False):
            problems += _explained(document, details, schema)
    if problems or result is None:
        raise InputRefused(problems)
    return result


@cache
def _schema_of(model: type[BaseModel]) -> Schema:
    return structural_schema(model)


def _envelope_problems(document: Document, kind: str) -> Iterable[LocatedProblem]:
    """What the models do not look at, as the cluster sets more of it than people write."""
    value = document.value
    for key, wanted in (("apiVersion", names.API_VERSION), ("kind", kind)):
        if value.get(key) != wanted:
            got = f"got {shown(value[key])}" if key in value else "got nothing"
            yield document.problem((key,), f"not a {kind} that is known here ({got}); try {wanted}")
    yield from _unknown_keys(document, (), value, _TOP_LEVEL)
    metadata = value.get("metadata")
    if isinstance(metadata, dict):
        yield from _unknown_keys(document, ("metadata",), metadata, _METADATA)


def _unknown_keys(
    document: Document, path: Path, value: dict[str, Any], known: Iterable[str]
) -> Iterable[LocatedProblem]:
    for key in value:
        if key not in known:
            yield document.problem((*path, key), _unknown_field(key, known))


def _unknown_field(key: str, known: Iterable[str]) -> str:
    meant = closest(key, known)
    return f"unknown field; try {meant or 'one of ' + ', '.join(sorted(known))}"


def _explained(document: Document, details: ErrorDetails, schema: Schema) -> Iterable[LocatedProblem]:
    """One error of pydantic in the words of the house."""
    path, kind, context = tuple(details["loc"]), details["type"], details.get("ctx", {})
    if kind == "rule":
        for field, message in context["broken"]:
            yield document.problem((*path, *filter(None, field.split("."))), message)
        return
    if kind != "default_factory_not_called":  # only ever follows another problem
        yield document.problem(path, _message(kind, context, details, _schema_at(schema, path)))


def _message(kind: str, context: dict[str, Any], details: ErrorDetails, schema: tuple[Schema, Schema]) -> str:
    got, (here, around) = shown(details["input"]), schema
    message = f"{details['msg']} (got {got})"
    if kind == "extra_forbidden":
        message = _unknown_field(str(details["loc"][-1]), around.get("properties", {}))
    elif kind == "missing":
        message = "required, but not there; try adding it"
    elif kind in {"literal_error", "enum"}:
        allowed = [str(choice) for choice in here.get("enum", ())]
        likely = closest(str(details["input"]), allowed) or allowed[0]
        message = f"not one of {', '.join(allowed)} (got {got}); try {likely}"
    elif kind == "string_pattern_mismatch":
        form = _PATTERNS.get(context["pattern"], f"the form {context['pattern']}")
        message = f"not as it has to be written (got {got}); try {form}"
    elif kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        message = f"out of bounds (got {got}); try {words} {context[bound]:.10g}"
    elif kind in _LENGTHS:
        words, bound, unit = _LENGTHS[kind]
        message = f"too {kind.rpartition('_')[2]} (got {len(details['input'])} {unit}); try {words} {context[bound]} {unit}"
    elif kind in _TYPES:
        may_be_left_out = details["loc"][-1] not in around.get("required", ())
        message = f"{'empty' if details['input'] is None else 'wrong type'} (got {got}); try {_TYPES[kind]}"
        message += ", or leave the field out" if details["input"] is None and may_be_left_out else ""
    return message


def _schema_at(schema: Schema, path: Path) -> tuple[Schema, Schema]:
    """The schema of the value at `path`, and of what holds it; empty where the path leads nowhere."""
    around: Schema = {}
    for part in path:
        around = schema
        inner = schema.get("items") if isinstance(part, int) else schema.get("properties", {}).get(part)
        schema = inner or schema.get("additionalProperties") or {}
    return schema, around
