# SPDX-License-Identifier: Apache-2.0
"""What was measured of each family of models: whether it can be trained, and what keeps packed records apart in it.

families.json is written by `make families`, which trains a tiny random model of every causal family that the locked
transformers has. No flag of transformers says these things of its families, so that they are measured. Needs no PyTorch.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Literal

Way = Literal["bounds", "positions", "mask"]
"""bounds: attention that is told where records begin. positions: transformers sees in the positions where one begins.
mask: a mask of all pairs of tokens."""
_FAILED = "train: InternalError: "


@dataclass(frozen=True)
class Family:
    """One family; of a family that was not measured only this is known: nothing."""

    ways: tuple[Way, ...] = ()
    """What keeps packed records apart, best first; none: records must not be packed."""
    is_causal: bool = True
    """No token sees a later one, with the configuration that the family has by default."""
    failures: Mapping[str, str] = field(default_factory=dict)
    """How the training of its tiny model failed, by `lora` and `sft`; a method that works is not in it."""
    is_measured: bool = True

    @classmethod
    def of(cls, model_type: str) -> "Family":
        """What was measured of a family."""
        found = _measured().get(model_type)
        if found is None:
            return cls(is_measured=False)
        failures = {
            method: found[method].removeprefix(_FAILED)
            for method in ("lora", "sft")
            if found.get(method, "").startswith(_FAILED)
        }
        return cls(tuple(found["packing"]), found["causal"], failures)

    def keeps_windows(self) -> bool:
        """Whether packing leaves an attention window as it is; a mask of all pairs takes its place."""
        return "positions" in self.ways or ("bounds" in self.ways and "mask" not in self.ways)


@cache
def _measured() -> Mapping[str, Any]:
    content = json.loads((files("tuneyard_trainer.model") / "families.json").read_text(encoding="utf-8"))
    measured: Mapping[str, Any] = content["families"]
    return measured
