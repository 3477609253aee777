# SPDX-License-Identifier: Apache-2.0
"""Keeps the schemas of custom resources (`tuneyard schemas add`) and checks every object against them.

They are in `.tuneyard/schemas/` by digest. Tuneyard ships none, as each CRD has the licence of its project.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tuneyard_api.problems import InputRefused
from tuneyard_api.yaml_io import load_all

from tuneyard.findings import Finding, InputError, Severity
from tuneyard.render.files import File

Key = tuple[str, str]
"""apiVersion and kind."""


def folder(root: Path) -> Path:
    """Folder in which schemas are kept."""
    return root / ".tuneyard/schemas"


_COMBINING = ("allOf", "anyOf", "oneOf", "not")
"""Keywords whose schemas only restrict fields that are declared beside them."""
_OF_EVERY_OBJECT = {
    "apiVersion": {"type": "string"},
    "kind": {"type": "string"},
    "metadata": {"type": "object"},
}


def strict(schema: Any, *, declares: bool = True) -> Any:
    """A CRD's schema as JSON Schema that refuses what an API server with strict field validation refuses.

    Args:
        schema: the schema of a CRD, or a part of it.
        declares: whether fields that it does not name are unknown ones.
    """
    if isinstance(schema, list):
        return [strict(item, declares=declares) for item in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: _strict_part(key, value, declares=declares) for key, value in schema.items()}
    if out.pop("x-kubernetes-int-or-string", False):
        out.pop("anyOf", None)
        out["type"] = ["integer", "string"]
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if out.pop(exclusive, False) and bound in out:
            out[exclusive] = out.pop(bound)
    if out.get("nullable") and "type" in out:
        out["type"] = [*([out["type"]] if isinstance(out["type"], str) else out["type"]), "null"]
    if out.get("x-kubernetes-embedded-resource"):
        out["properties"] = {**_OF_EVERY_OBJECT, **out.get("properties", {})}
    if out.get("type") == "integer" and out.get("format") == "int32":
        out["allOf"] = [*out.get("allOf", ()), {"minimum": -(2**31), "maximum": 2**31 - 1}]
    open_ended = "additionalProperties" in out or out.get("x-kubernetes-preserve-unknown-fields")
    if declares and (out.get("type") == "object" or "properties" in out) and not open_ended:
        out["additionalProperties"] = False
    return out


def _strict_part(key: str, value: Any, *, declares: bool) -> Any:
    if key in ("default", "enum", "example"):
        return value
    if key == "properties":
        return {name: strict(part, declares=declares) for name, part in value.items()}
    return strict(value, declares=declares and key not in _COMBINING)


def as_stored(value: Any, schema: Any) -> Any:
    """The value as an API server validates it: with defaults, kubectl's integers, and no meaningless nulls.

    Args:
        value: of an object, as it is rendered.
        schema: of that value in the CRD.
    """
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return int(value)
    if isinstance(value, list):
        item = schema.get("items") or {}
        return [as_stored(item["default"] if _is_defaulted(e, item) else e, item) for e in value]
    if not isinstance(value, dict):
        return value
    named, rest = schema.get("properties") or {}, schema.get("additionalProperties")
    rest = rest if isinstance(rest, dict) else None
    schemas = {key: named.get(key, rest) for key in value} | named
    out = {key: part["default"] for key, part in named.items() if key not in value and "default" in part}
    for key, child in value.items():
        part = schemas[key]
        if child is None and part is not None and not part.get("nullable") and "default" not in part:
            continue
        out[key] = part["default"] if part is not None and _is_defaulted(child, part) else child
    return {key: as_stored(child, schemas[key] or {}) for key, child in out.items()}


def _is_defaulted(value: Any, schema: Any) -> bool:
    return value is None and not schema.get("nullable") and "default" in schema


def add(paths: Sequence[Path], root: Path) -> list[Key]:
    """Keep the schemas of every CustomResourceDefinition in the files, and in the YAML files of the folders.

    Raises:
        InputError: a file can't be read, or no file has a CRD.
    """
    found: list[Key] = []
    for path in paths:
        files = sorted(p for p in path.rglob("*.y*ml") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            for key, schema in _schemas_in(file):
                text = json.dumps({"apiVersion": key[0], "kind": key[1], "schema": schema}, sort_keys=True)
                folder(root).mkdir(parents=True, exist_ok=True)
                (folder(root) / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json").write_text(text)
                found.append(key)
    if not found:
        raise InputError(
            [Finding("schemas", "no CustomResourceDefinition is in these files", file=str(paths[0]))]
        )
    return found


def _schemas_in(file: Path) -> Iterator[tuple[Key, Any]]:
    try:
        documents = load_all(file.read_text(), str(file))
    except OSError as error:
        raise InputError([Finding("schemas", f"can't be read: {error.strerror}", file=str(file))]) from error
    except (InputRefused, UnicodeDecodeError):
        return  # a template of a chart, or no YAML at all
    for document in documents:
        value = document.value
        if isinstance(value, dict) and value.get("kind") == "CustomResourceDefinition":
            spec = value["spec"]
            for version in spec["versions"]:
                schema = version.get("schema", {}).get("openAPIV3Schema")
                if schema:
                    yield (f"{spec['group']}/{version['name']}", spec["names"]["kind"]), schema


def known(root: Path) -> Mapping[Key, Any]:
    """Every schema that is kept."""
    entries = [json.loads(path.read_text()) for path in sorted(folder(root).glob("*.json"))]
    return {(entry["apiVersion"], entry["kind"]): entry["schema"] for entry in entries}


def check(files: Sequence[File], root: Path) -> list[Finding]:
    """What does not fit the kept schemas; nothing when none is kept."""
    schemas = known(root)
    if not schemas:
        return []
    try:
        from tuneyard.checks.schema_judges import api_server_errors  # noqa: PLC0415  an extra, slow to import
    except ImportError:
        problem = "schemas are kept, but the library that reads them is not installed"
        return [Finding("schemas", problem, hint="tuneyard[schemas]", severity=Severity.WARNING)]
    bodies = {key: _body(schema) for key, schema in schemas.items()}
    judged = {key: strict(body) for key, body in bodies.items()}
    found = []
    for file in files:
        for entry in file.objects:
            kind = (entry["apiVersion"], entry["kind"])
            if kind in bodies:
                value = {key: entry[key] for key in entry.keys() - {"apiVersion", "kind", "metadata"}}
                found += [
                    Finding("fits-schema", error.message[:300], tuple(error.absolute_path), file=file.path)
                    for error in api_server_errors(judged[kind], as_stored(value, bodies[kind]))
                ]
    return found


def _body(schema: Any) -> Any:
    """The schema without the fields of every object that the API server validates itself."""
    out = dict(schema)
    drop = ("apiVersion", "kind", "metadata", "status")
    out["properties"] = {key: value for key, value in schema.get("properties", {}).items() if key not in drop}
    out["required"] = [key for key in schema.get("required", []) if key not in drop]
    return out
