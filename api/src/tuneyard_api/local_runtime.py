# SPDX-License-Identifier: Apache-2.0
"""The runtimes `hf` and `hf-cpu` as they are where no cluster says otherwise: what this project's trainer can do."""

from tuneyard_api.job import ObjectMeta
from tuneyard_api.methods import METHODS
from tuneyard_api.runtime import FineTuneRuntime, FineTuneRuntimeSpec

LOCAL_RUNTIMES = ("hf", "hf-cpu")


def build_local_runtime(name: str) -> FineTuneRuntime:
    """The abilities of this installation, as a FineTuneRuntime: `hf` for NVIDIA GPUs, `hf-cpu` without."""
    spec = FineTuneRuntimeSpec(
        image="this-installation:local",
        accelerator="nvidia" if name == "hf" else "none",
        methods=tuple(method.name for method in METHODS),
        quantizations=("nf4", "int8", "fp8") if name == "hf" else ("nf4", "int8"),
    )
    return FineTuneRuntime(metadata=ObjectMeta(name=name), spec=spec)
