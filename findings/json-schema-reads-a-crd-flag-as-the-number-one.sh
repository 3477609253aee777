#!/bin/sh
# A JSON Schema validator reads `exclusiveMinimum: true` of a Kubernetes CRD as the number 1.
# CRDs are written in OpenAPI 3.0, where it is a flag beside `minimum`; since draft 6 of JSON Schema it is the limit
# itself, and Python's True equals 1. So 0.5 is refused ("less than or equal to the minimum of True"), and with
# `maximum: 1` no value passes at all, while the API server accepts 0.5.
# It matters because many tools check manifests with a JSON Schema validator and the CRD's own schema, unchanged.
set -eu
uv=$(command -v uv || "$(dirname "$0")/../tools/bootstrap.sh")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export UV_PYTHON_DOWNLOADS=never
"$uv" venv -q --python python3 "$work/venv"
"$uv" pip install -q --python "$work/venv" jsonschema==4.26.0 openapi-schema-validator==0.7.0

"$work/venv/bin/python" - <<'PYTHON'
import importlib.metadata, sys
import jsonschema, openapi_schema_validator

rate = {"type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": 1}
readers = {
    "jsonschema": jsonschema.Draft202012Validator(rate),
    "openapi-schema-validator": openapi_schema_validator.OAS30Validator(rate),
}
refused = {}
for name, validator in readers.items():
    refused[name] = [value for value in (0, 0.0002, 0.5, 1, 1.5) if not validator.is_valid(value)]
    print(name, importlib.metadata.version(name), "refuses", refused[name])
print(next(readers["jsonschema"].iter_errors(0.5)).message)
if refused != {"jsonschema": [0, 0.0002, 0.5, 1, 1.5], "openapi-schema-validator": [0, 1.5]}:
    sys.exit("CHANGED: other values are refused")
PYTHON
