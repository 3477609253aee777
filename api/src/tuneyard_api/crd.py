# SPDX-License-Identifier: Apache-2.0
"""The CustomResourceDefinitions, built from the models.

A JSON schema of pydantic is not a structural schema: references, unions with null, tuples and a few keywords
have to go (`structural_schema`). The API server then applies defaults, bounds and rules of the models itself.
"""

from typing import Any

from pydantic import BaseModel

from tuneyard_api import names
from tuneyard_api.job import FineTuneJob
from tuneyard_api.runtime import FineTuneRuntime
from tuneyard_api.status import FineTuneJobStatus

Schema = dict[str, Any]

_KEPT = frozenset(
    {
        *("type", "format", "description", "default", "enum", "pattern", "required"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
        *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
    }
)
"""Keywords that mean the same in both; `x-kubernetes-*` comes from the models."""

JOB_COLUMNS = (
    ("State", "string", ".status.state", 0, "Where the job is."),
    ("Progress", "string", ".status.progress.text", 0, "Optimizer steps done, of all."),
    ("Loss", "number", ".status.progress.loss", 0, "Training loss of the last step read."),
    (
        "Tok/s",
        "number",
        ".status.progress.tokensPerSecond",
        0,
        "Tokens trained on in a second, over all GPUs.",
    ),
    ("ETA", "string", ".status.progress.eta", 0, "Time left of the training."),
    ("Waiting", "string", ".status.waitingFor.reason", 0, "Why the job is held up."),
    ("Adapter", "string", ".status.result.adapter.name", 0, "The published adapter."),
    ("Age", "date", ".metadata.creationTimestamp", 0, "Since the job was created."),
    ("Method", "string", ".spec.method", 1, "What is trained."),
    ("Runtime", "string", ".spec.runtime.name", 1, "The FineTuneRuntime."),
    ("GPUs", "integer", ".status.plan.gpus", 1, "GPUs of the training, over all nodes."),
    ("Served as", "string", ".status.result.modelName", 1, "Name to ask the endpoint for."),
    ("Message", "string", ".status.message", 1, "The sentence to read first."),
)
RUNTIME_COLUMNS = (
    ("Accelerator", "string", ".spec.accelerator", 0, "What it trains on."),
    ("Methods", "string", ".spec.methods", 0, "What it can train."),
    ("Precisions", "string", ".spec.precisions", 1, "Number formats, best first."),
    ("Image", "string", ".spec.image", 1, "The trainer image."),
    ("Age", "date", ".metadata.creationTimestamp", 0, "Since the runtime was created."),
)


def build_job_crd() -> dict[str, Any]:
    """FineTuneJob, namespaced, with its status."""
    schema = _object_schema(FineTuneJob)
    schema["properties"]["status"] = _without_defaults(structural_schema(FineTuneJobStatus))
    kind = {"kind": names.JOB_KIND, "plural": names.JOB_PLURAL, "shortNames": [names.JOB_SHORT]}
    return _build_crd(kind, "Namespaced", schema, JOB_COLUMNS, subresources={"status": {}})


def build_runtime_crd() -> dict[str, Any]:
    """FineTuneRuntime, for the whole cluster."""
    kind = {"kind": names.RUNTIME_KIND, "plural": names.RUNTIME_PLURAL, "shortNames": [names.RUNTIME_SHORT]}
    return _build_crd(kind, "Cluster", _object_schema(FineTuneRuntime), RUNTIME_COLUMNS)


def structural_schema(model: type[BaseModel]) -> Schema:
    """The schema of `model` as an API server takes it, without references and unions with null."""
    schema = model.model_json_schema(mode="serialization")
    return _rewritten(schema, schema.get("$defs", {}))


def _rewritten(node: Schema, definitions: Schema) -> Schema:
    node = _resolved(node, definitions)
    result = {key: value for key, value in node.items() if key in _KEPT or key.startswith("x-kubernetes-")}
    for key in ("exclusiveMinimum", "exclusiveMaximum"):
        if key in result:
            result[f"m{key.removeprefix('exclusiveM')}"], result[key] = result[key], True
    if "const" in node:
        result["enum"] = [node["const"]]
    if "items" in node:
        result["items"] = _rewritten(node["items"], definitions)
    if isinstance(node.get("additionalProperties"), dict):
        result["additionalProperties"] = _rewritten(node["additionalProperties"], definitions)
    if "properties" in node:
        result["properties"] = {
            name: _rewritten(part, definitions) for name, part in node["properties"].items()
        }
        computed = {name for name, part in node["properties"].items() if part.get("readOnly")}
        required = [name for name in node.get("required", ()) if name not in computed]
        result.pop("required", None)
        if required:
            result["required"] = required
    if "default" in result:
        result["default"] = _least_default(result)
        if result["default"] is None:
            del result["default"]
    return result


def _resolved(node: Schema, definitions: Schema) -> Schema:
    """`node` with its reference followed and its union with null taken apart; keywords beside them win."""
    while "$ref" in node or "anyOf" in node:
        beside = {key: value for key, value in node.items() if key not in {"$ref", "anyOf"}}
        if "$ref" in node:
            target = definitions[node["$ref"].removeprefix("#/$defs/")]
        else:
            target, *more = [option for option in node["anyOf"] if option != {"type": "null"}]
            if more:
                raise TypeError(f"an API field has one type, or none: {node}")
            if beside.get("default") is not None:
                raise TypeError(f"null in place of a default is lost by `kubectl apply`: {node}")
        node = {**target, **beside}
    return node


def _least_default(schema: Schema) -> Any:
    """A default without the values that the defaults of its parts give anyway: `{}` for most objects."""
    default = schema["default"]
    if not isinstance(default, dict):
        return default
    parts = schema.get("properties", {})
    return {
        name: value
        for name, value in default.items()
        if value is not None and value != parts.get(name, {}).get("default") and value != {}
    }


def _without_defaults(schema: Schema) -> Schema:
    """The schema without defaults: status has only what the operator wrote."""
    result = {key: value for key, value in schema.items() if key != "default"}
    if "properties" in schema:
        result["properties"] = {name: _without_defaults(part) for name, part in schema["properties"].items()}
    if "items" in schema:
        result["items"] = _without_defaults(schema["items"])
    return result


def _object_schema(model: type[BaseModel]) -> Schema:
    schema = structural_schema(model)
    properties = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
    }
    schema["properties"] = {**properties, "spec": schema["properties"]["spec"]}
    return {**schema, "required": ["spec"]}


def _build_crd(
    kind: dict[str, Any],
    scope: str,
    schema: Schema,
    columns: tuple[tuple[str, str, str, int, str], ...],
    subresources: dict[str, Any] | None = None,
) -> dict[str, Any]:
    version = {
        "name": names.VERSION,
        "served": True,
        "storage": True,
        **({"subresources": subresources} if subresources else {}),
        "additionalPrinterColumns": [
            # A priority of 0 is not kept by the API server, and Argo CD would see a difference for ever.
            {"name": name, "type": type_, "jsonPath": path, "description": description}
            | ({"priority": priority} if priority else {})
            for name, type_, path, priority, description in columns
        ],
        "schema": {"openAPIV3Schema": schema},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind['plural']}.{names.GROUP}", "labels": {names.LABEL_APP: "tuneyard"}},
        "spec": {
            "group": names.GROUP,
            "scope": scope,
            "names": {
                **kind,
                "singular": kind["kind"].lower(),
                "listKind": f"{kind['kind']}List",
                "categories": ["tuneyard"],
            },
            "versions": [version],
        },
    }
