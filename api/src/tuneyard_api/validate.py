# SPDX-License-Identifier: Apache-2.0
"""Reads a FineTuneJob or FineTuneRuntime from a file, strictly, and reports all problems at once.

As strict as `kubectl apply --validate=strict` and the CRD together, and before either is there: unknown fields,
types, bounds and rules, each with its line and what was probably meant. Stricter in one thing: words and numbers that
kubectl reads as something else than what is written are refused also where the API server would take what it gets.
"""

import json
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from tuneyard_api import base, customizer, data_stores, job_rules, names, pod_values, remote_files
from tuneyard_api.base import Contract
from tuneyard_api.crd import Schema, structural_schema
from tuneyard_api.job import FineTuneJob
from tuneyard_api.planner import PlanRefused
from tuneyard_api.problems import InputRefused, LocatedProblem, Path, closest, shown
from tuneyard_api.runtime import FineTuneRuntime
from tuneyard_api.yaml_io import Document, load

_Model = TypeVar("_Model", bound=BaseModel)

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
    base.REVISION: "a branch, tag or commit",
    base.METHOD: "a word such as lora",
    base.MANAGER: "a controller such as example.com/other",
    pod_values.LABEL_VALUE: "letters, digits and inner dashes, dots and underscores",
    pod_values.CONFIG_KEY: "letters, digits, dashes, dots and underscores, without two dots in front",
    pod_values.IMAGE: "a lower-case name such as registry.example.com/trainer:1.0",
    pod_values.ENV_NAME: "a name such as HF_HOME",
    pod_values.MOUNT_PATH: "an absolute path such as /opt/environment",
    pod_values.CPU: "cores such as 2, 0.5 or 500m, at least 1m",
    pod_values.MEMORY: "a quantity such as 4Gi or 500Mi",
    base.HTTP_URL: "an address such as http://nim.models:8000",
    remote_files.BUCKET: "lower case letters, digits, inner dashes and dots",
    remote_files.REGION: "a region such as us-east-1",
    remote_files.DATA_KEY: "a key that ends in .jsonl, .json, .jsonl.gz, .json.gz or .parquet",
    remote_files.DATA_URL: "https, or http of a Service (name.namespace.svc), to a path ending in .jsonl, .json, .jsonl.gz, .json.gz or .parquet",
    data_stores.STORE_REPO: "namespace/name, of letters, digits, dots and dashes",
    customizer.TARGET: "a target such as meta/llama-3.2-1b-instruct@2.0",
    customizer.MODEL_URI: "ngc://org/team/model:version, or hf://owner/model",
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


class _Metadata(Contract):
    """The metadata fields that people write; the API server validates them without the CRD."""

    model_config = ConfigDict(extra="ignore")

    namespace: base.Label | None = None
    labels: Annotated[dict[str, pod_values.LabelValue], job_rules.LABEL_KEYS] | None = None
    annotations: Annotated[dict[str, str], job_rules.ANNOTATION_KEYS] | None = None


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
    """Does the same as `load_job` for a document that was read before."""
    return _read(document, FineTuneJob, names.JOB_KIND)


def read_runtime(document: Document) -> FineTuneRuntime:
    """Does the same as `load_runtime` for a document that was read before."""
    return _read(document, FineTuneRuntime, names.RUNTIME_KIND)


def refused_nulls(document: Document) -> Iterable[LocatedProblem]:
    """The nulls of a FineTuneJob that a server-side apply refuses, as Argo CD does it, though `kubectl apply` drops them.

    A null in the place of a default is dropped by both, and so is one in labels and annotations.
    """
    message = "a null that a server-side apply refuses (got null); try leaving the field out"
    for path in _nulls(document.value, _schema_of(FineTuneJob), ()):
        if path[:1] != ("metadata",):
            yield document.problem(path, message)


def _nulls(value: Any, schema: Schema, path: Path) -> Iterator[Path]:
    """The paths of nulls that no default replaces."""
    if value is None and "default" not in schema:
        yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ())
    for key, part in parts:
        yield from _nulls(part, _schema_at(schema, (key,))[0], (*path, key))


def locate(refused: PlanRefused, document: Document) -> InputRefused:
    """The problems of a refused plan, with their lines in the job's file."""
    return InputRefused(
        document.problem(tuple(problem.path.split(".")), problem.message) for problem in refused.problems
    )


def _read(document: Document, model: type[_Model], kind: str) -> _Model:
    value = document.value
    if not isinstance(value, dict):
        raise InputRefused(
            [document.problem((), f"a {kind} is a mapping (got {shown(value)}); try apiVersion, kind, ...")]
        )
    result, wrong = _checked(document, (), model)
    # What kubectl misreads is no other value's fault.
    misread = {problem.path for problem in document.misread}
    others = [each for each in (*_envelope_problems(document, kind), *wrong) if each.path not in misread]
    if others or document.misread or result is None:
        raise InputRefused([*document.misread, *others])
    return result


def _checked(
    document: Document, path: Path, model: type[_Model]
) -> tuple[_Model | None, list[LocatedProblem]]:
    """The part of the document at `path` as `model`, and what is wrong with it."""
    value, schema = document.value, _schema_of(model)
    for key in path:
        value = value[key]
    try:
        text = json.dumps(_as_stored(value, schema))
        # By the names of the API alone: an API server does not know the fields by those that code has for them.
        return model.model_validate_json(text, strict=True, by_alias=True, by_name=False), []
    except ValidationError as error:
        found = error.errors(include_url=False)
        return None, [problem for details in found for problem in _explained(document, path, details, schema)]


def _as_stored(value: Any, schema: Schema) -> Any:
    """`value` as the API server takes it: a null is no value, and 8.0 is 8 where a whole number is wanted."""
    if isinstance(value, dict):
        fields, others = schema.get("properties", {}), schema.get("additionalProperties")
        droppable = value.keys() if others else fields.keys() - schema.get("required", ())
        return {
            key: _as_stored(part, fields.get(key, others or {}))
            for key, part in value.items()
            if part is not None or key not in droppable
        }
    if isinstance(value, list):
        return [_as_stored(item, schema.get("items", {})) for item in value]
    is_whole = isinstance(value, float) and value.is_integer() and schema.get("type") == "integer"
    return int(value) if is_whole else value


@cache
def _schema_of(model: type[BaseModel]) -> Schema:
    return structural_schema(model)


def _envelope_problems(document: Document, kind: str) -> Iterable[LocatedProblem]:
    """Problems outside the models' fields: in apiVersion, kind and metadata."""
    value = document.value
    for key, wanted in (("apiVersion", names.API_VERSION), ("kind", kind)):
        if value.get(key) != wanted:
            got = f"got {shown(value[key])}" if key in value else "got nothing"
            yield document.problem((key,), f"not a {kind} that is known here ({got}); try {wanted}")
    yield from _unknown_keys(document, (), value, _TOP_LEVEL)
    metadata = value.get("metadata")
    if isinstance(metadata, dict):
        yield from _unknown_keys(document, ("metadata",), metadata, _METADATA)
        yield from _checked(document, ("metadata",), _Metadata)[1]


def _unknown_keys(
    document: Document, path: Path, value: dict[str, Any], known: Iterable[str]
) -> Iterable[LocatedProblem]:
    for key in value:
        if key not in known:
            yield document.problem((*path, key), _unknown_field(key, known, {}))


def _unknown_field(key: str, known: Iterable[str], schema: Schema) -> str:
    """What to try instead: the field in another case, at its only place in `schema`, or the nearest; else any."""
    meant = next((name for name in known if name.lower() == key.lower()), None)
    elsewhere = [place for place in _places(schema) if place.rpartition(".")[2].lower() == key.lower()]
    if meant is None and len(elsewhere) <= 1:
        meant = elsewhere[0] if elsewhere else closest(key, known)
    return f"unknown field; try {meant or 'one of ' + ', '.join(sorted(known))}"


def _places(schema: Schema, path: str = "") -> Iterator[str]:
    """The path of every field outside lists."""
    for name, part in schema.get("properties", {}).items():
        yield f"{path}{name}"
        yield from _places(part, f"{path}{name}.")


def _explained(
    document: Document, around: Path, details: ErrorDetails, schema: Schema
) -> Iterable[LocatedProblem]:
    """The problem for one pydantic error; `schema` is that of the part at `around`."""
    path, kind, context = (*around, *details["loc"]), details["type"], details.get("ctx", {})
    if kind == "rule":
        for field, message in context["broken"]:
            yield document.problem((*path, *filter(None, field.split("."))), message)
        return
    if kind == "default_factory_not_called" or (
        kind == "too_short" and len(details["input"]) >= context["min_length"]
    ):  # only ever follow another problem
        return
    here, holder = _schema_at(schema, details["loc"])
    message = _message(kind, context, details, (here, holder))
    if kind == "extra_forbidden":
        message = _unknown_field(str(path[-1]), holder.get("properties", {}), schema)
    if kind == "string_type" and (quoted := document.in_quotes(path)) is not None:
        message = f"wrong type (got {document.written[path]}); try {quoted}"
    yield document.problem(path, message)


def _message(kind: str, context: dict[str, Any], details: ErrorDetails, schema: tuple[Schema, Schema]) -> str:
    got, (here, around) = shown(details["input"]), schema
    message = f"{details['msg']} (got {got})"
    if kind == "missing":
        message = "required, but not there; try adding it"
    elif kind in {"literal_error", "enum"}:
        allowed = [str(choice) for choice in here.get("enum", ())]
        likely = closest(str(details["input"]), allowed) or allowed[0]
        message = f"not one of {', '.join(allowed)} (got {got}); try {likely}"
    elif kind == "string_pattern_mismatch":
        message = f"not as it has to be written (got {got}); try {_PATTERNS[context['pattern']]}"
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
