# SPDX-License-Identifier: Apache-2.0
"""Schemas of custom resources that people gave (`tuneyard schemas add`), and the check of every object against them.

They are kept in `.tuneyard/schemas/` by digest and are not ours to ship: a CRD's licence is its project's.
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
    """Where schemas are kept."""
    return root / ".tuneyard/schemas"


def strict(schema: Any) -> Any:
    """A CRD's schema as JSON Schema that refuses unknown fields, as strict field validation does."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: value if key == "default" else strict(value) for key, value in schema.items()}
    if out.pop("x-kubernetes-int-or-string", False):
        out = {key: value for key, value in out.items() if key not in ("type", "anyOf", "pattern")}
        out["type"] = ["integer", "string"]
    open_ended = "additionalProperties" in out or out.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(out.get("properties"), dict) and not open_ended:
        out["additionalProperties"] = False
    return out


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
        from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # noqa: PLC0415  an extra, slow to import
    except ImportError:
        problem = "schemas are kept, but jsonschema is not installed"
        return [Finding("schemas", problem, hint="tuneyard[schemas]", severity=Severity.WARNING)]
    validators = {key: Draft202012Validator(strict(_body(schema))) for key, schema in schemas.items()}
    return [
        Finding("fits-schema", error.message[:300], tuple(error.absolute_path), file=file.path)
        for file in files
        for entry in file.objects
        if (validator := validators.get((entry["apiVersion"], entry["kind"])))
        for error in validator.iter_errors(
            {key: entry[key] for key in entry.keys() - {"apiVersion", "kind", "metadata"}}
        )
    ]


def _body(schema: Any) -> Any:
    """The schema without what every object has and the API server looks after."""
    out = dict(schema)
    drop = ("apiVersion", "kind", "metadata", "status")
    out["properties"] = {key: value for key, value in schema.get("properties", {}).items() if key not in drop}
    out["required"] = [key for key in schema.get("required", []) if key not in drop]
    return out
