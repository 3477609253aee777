# SPDX-License-Identifier: Apache-2.0
"""Writes the sample files: a few lines that work, and every other field with its meaning as a comment."""

from collections.abc import Mapping
from typing import Any

from tuneyard_api import names
from tuneyard_api.crd import Schema
from tuneyard_api.yaml_io import dump

JOB: Mapping[str, Any] = {
    "apiVersion": names.API_VERSION,
    "kind": names.JOB_KIND,
    "metadata": {"name": "support-answers"},
    "spec": {
        "model": {"huggingFace": {"repo": "meta-llama/Llama-3.2-1B", "secretRef": {"name": "hub-token"}}},
        "dataset": {"training": {"pvc": {"claimName": "support-data", "path": "train.jsonl"}}},
        "method": "lora",
    },
}
RUNTIME: Mapping[str, Any] = {
    "apiVersion": names.API_VERSION,
    "kind": names.RUNTIME_KIND,
    "metadata": {"name": "hf"},
    "spec": {
        "image": "registry.example.com/tuneyard/trainer:0.1.0-cuda",
        "accelerator": "nvidia",
        "methods": ["lora"],
        "servedModels": [
            {
                "name": "qwen-2-5-7b",
                "base": {
                    "huggingFace": {
                        "repo": "Qwen/Qwen2.5-7B-Instruct",
                        "revision": "a09a35458c702b33eeacc393d103063234e8bc28",
                    }
                },
                "endpoint": "http://qwen-2-5-7b.models:8000",
                "server": "vllm",
            }
        ],
        "defaults": {"registry": {"claimName": "adapters"}},
    },
}


def write_sample(sample: Mapping[str, Any], schema: Schema, header: str) -> str:
    """`sample` as YAML, with the fields that it leaves out as comments at their places."""
    envelope = {key: value for key, value in sample.items() if key != "spec"}
    lines = _fields(schema["properties"]["spec"], sample["spec"])
    return dump(envelope, header) + "spec:\n" + "".join(f"  {line}\n" for line in lines)


def constraints(schema: Schema) -> str:
    """Type and bounds of a field in words, such as `integer, 1 to 256`."""
    if "enum" in schema:
        return " | ".join(str(choice) for choice in schema["enum"])
    words = [schema.get("type", "object")]
    if words == ["array"]:
        words = [f"list of {schema['items'].get('type', 'object')}s"]
    if isinstance(schema.get("additionalProperties"), dict):
        words = [f"map of {schema['additionalProperties'].get('type', 'value')}s"]
    low, high = schema.get("minimum"), schema.get("maximum")
    if schema.get("exclusiveMinimum"):
        words.append(f"above {low:g}" + ("" if high is None else f", at most {high:g}"))
    elif low is not None and high is not None:
        words.append(f"{low:.10g} to {high:.10g}")
    for bound, unit in (("maxLength", "characters"), ("maxItems", "items"), ("maxProperties", "entries")):
        if bound in schema:
            words.append(f"at most {schema[bound]} {unit}")
    return ", ".join(words)


def _fields(schema: Schema, values: Mapping[str, Any]) -> list[str]:
    """The lines of an object's fields; fields that are not in `values` become comments."""
    lines: list[str] = []
    required = schema.get("required", ())
    for name, part in schema["properties"].items():
        need = "Required. " if name in required else ""
        has_fields, default = "properties" in part, part.get("default")
        bounds = "" if has_fields else f" [{constraints(part)}]"
        lines.append(f"# {need}{part['description'].splitlines()[0]}{bounds}")
        if name not in values and has_fields:
            lines += [f"# {name}:", *(f"#   {line}" for line in _leaves(part))]
        elif name not in values:
            lines += [f"# {line}" for line in _written(name, default).splitlines()]
        elif has_fields:
            lines += [f"{name}:", *(f"  {line}" for line in _fields(part, values[name]))]
        else:
            lines += _written(name, values[name]).splitlines()
    return lines


def _leaves(schema: Schema) -> list[str]:
    """The fields of an object that is left out, one line each, their meaning beside them."""
    lines: list[str] = []
    for name, part in schema["properties"].items():
        value = part.get("default")
        if "properties" in part:
            lines += [f"{name}:  # {part['description'].splitlines()[0]}"]
            lines += [f"  {line}" for line in _leaves(part)]
            continue
        lines.append(
            f"{_written(name, value)}  # {part['description'].splitlines()[0]} [{constraints(part)}]"
        )
    return lines


def _written(name: str, value: Any) -> str:
    return f"{name}:" if value is None else dump({name: value}).rstrip("\n")
