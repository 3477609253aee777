# SPDX-License-Identifier: Apache-2.0
"""The origin and effect of a value, for `query` and `explain`. Pure."""

from collections.abc import Iterable
from typing import Any

from tuneyard_api.problems import Path
from tuneyard_api.yaml_io import Document

from tuneyard.environment.model import Use
from tuneyard.environment.presets import PRESETS
from tuneyard.findings import Finding, InputError, did_you_mean
from tuneyard.stack.model import Stack


def resolved(stack: Stack) -> dict[str, Any]:
    """The environment with all defaults, plus what is derived from it under `derived`."""
    data: dict[str, Any] = stack.environment.model_dump(mode="json")
    use = PRESETS[stack.environment.preset].use.model_dump(mode="json")
    data["use"] = {key: value if value is not None else use.get(key) for key, value in data["use"].items()}
    data["derived"] = {
        "components": {
            c.name: {
                "reason": stack.reasons[c.name],
                "namespace": c.namespace,
                "version": stack.pin(c.name).version,
            }
            for c in stack.components
        },
        "urls": {
            capability: stack.url(capability)
            for capability, provider in sorted(stack.providers.items())
            if capability in provider.services(stack.environment)
        },
        "databases": {
            d.owner: {"host": d.host, "port": d.port, "name": d.name, "secret": d.secret}
            for d in stack.databases()
        },
        "buckets": {
            b.owner: {"endpoint": b.endpoint, "name": b.name, "secret": b.secret} for b in stack.buckets()
        },
        "secrets": [
            {"namespace": s.namespace, "name": s.name, "keys": list(s.keys)} for s in stack.secrets()
        ],
    }
    return data


def value_at(data: Any, path: Path, file: str) -> Any:
    """The value at a path.

    Raises:
        InputError: the path does not exist; the message names the keys that do.
    """
    here: Path = ()
    for part in path:
        keys: Iterable[str] = map(str, data) if isinstance(data, dict) else ()
        there = range(len(data)) if isinstance(data, list) else data if isinstance(data, dict) else ()
        if part in there:
            data = data[part]
        else:
            hint = did_you_mean(str(part), keys) if isinstance(data, dict) else None
            if isinstance(data, list):
                hint = f"an index below {len(data)}"
            raise InputError(
                [Finding("no-such-path", "there is no such key", (*here, part), None, hint, file=file)]
            )
        here = (*here, part)
    return data


def origin(source: Document, path: Path, stack: Stack) -> str:
    """The origin of the value at a path."""
    if path in source.positions:
        position = source.position(path)
        return f"{source.file}:{position.line}:{position.column}"
    if path[:1] == ("derived",):
        return "derived from the environment"
    preset = stack.environment.preset
    if path[:1] == ("use",) and len(path) > 1 and getattr(PRESETS[preset].use, _field(str(path[1])), None):
        return f"preset {preset}"
    return "default"


def _field(key: str) -> str:
    return next((name for name, field in Use.model_fields.items() if key in (name, field.alias)), key)
