# SPDX-License-Identifier: Apache-2.0
"""A valid value for every key of the environment, made from the model: its default, its example, or a placeholder."""

from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python
from tuneyard_api.yaml_io import load

from tuneyard.environment.reference import example_of, stripped

_PLACEHOLDERS: dict[str, Any] = {
    "name": "sample", "values": {}, "capacityGiB": 1000, "gpusPerNode": 4, "memoryGiB": 80, "replicas": 2, "layers": 32,
    "hiddenSize": 4096, "keyValueHeads": 8, "maxReplicas": 4, "pipeline": 2, "partsPerGpu": 7, "revision": "main",
    "storageGiB": 50, "enabled": True,
}  # fmt: skip


def example_value(key: str, annotation: Any, field: FieldInfo | None = None) -> Any:
    """A valid value of a type; for a model its required fields only.

    Args:
        key: the key's name as people write it, for a placeholder.
        annotation: the type.
        field: the model's field, which may have a default or an example.
    """
    kind = stripped(annotation)
    if field and field.default is not PydanticUndefined and field.default is not None:
        return to_jsonable_python(field.default)
    if field and (example := example_of(field)) is not None:
        return load(example).value
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        fields = {entry.alias or name: entry for name, entry in kind.model_fields.items()}
        return {
            name: example_value(name, entry.annotation, entry)
            for name, entry in fields.items()
            if entry.is_required()
        }
    if get_origin(kind) is tuple:
        return [example_value(key, get_args(kind)[0])]
    if get_origin(kind) in (Literal, dict):
        return get_args(kind)[0] if get_origin(kind) is Literal else {}
    return _PLACEHOLDERS.get(key, f"my-{key.lower() or 'value'}")
