# SPDX-License-Identifier: Apache-2.0
"""Estimates the size of a workspace before anything is fetched, from the model's name and the method.

A name like `Llama-3.2-1B` tells the parameters; one that does not leaves the choice to the runtime. It is a bound
from above on purpose: a full disk costs a training, an empty one a few cents.
"""

import math
import re

from tuneyard_api.methods import Method

_PARAMETERS = re.compile(r"(?<![A-Za-z0-9.])(?:(\d+)x)?(\d+(?:\.\d+)?)([bm])(?![A-Za-z0-9])", re.IGNORECASE)
_UNIT = {"b": 1e9, "m": 1e6}
_WEIGHT_BYTES = 2
"""bf16, as nearly every model of a hub is stored."""
_TRAINED_BYTES = 12
"""Bytes of one trained parameter in a checkpoint: the fp32 weight and both moments of AdamW."""
_ADAPTER_SHARE = 0.02
"""Share of the parameters that a LoRA of rank 16 on every linear layer trains: 0.011 for 1e9 parameters, less for more."""
_ADAPTER_RANK = 16
_DATA_GIB = 4
"""Prepared data, logs, samples."""


def parameters_in(name: str) -> float | None:
    """Parameters of a model by its name: 8e9 of `meta-llama/Llama-3.1-8B-Instruct`, None if the name has no size."""
    found = _PARAMETERS.search(name.replace("_", "-"))
    if found is None:
        return None
    return float(found[1] or 1) * float(found[2]) * _UNIT[found[3].lower()]


def workspace_gib(
    *, model: str, method: Method, rank: int, checkpoints: int, is_downloaded: bool
) -> int | None:
    """GiB for a training, rounded up; None when the model's name does not tell its size.

    Args:
        model: repository or path.
        method: `sft` trains every parameter, everything else an adapter; one that is merged leaves a whole model too.
        rank: of the adapter.
        checkpoints: that are kept; one more is being written.
        is_downloaded: whether the model itself goes to the workspace.
    """
    parameters = parameters_in(model)
    if parameters is None:
        return None
    trained = parameters if method.name == "sft" else parameters * _ADAPTER_SHARE * rank / _ADAPTER_RANK
    needed = (checkpoints + 1) * trained * _TRAINED_BYTES + trained * _WEIGHT_BYTES
    if method.is_merged:
        needed += parameters * _WEIGHT_BYTES
    if is_downloaded:
        needed += parameters * _WEIGHT_BYTES
    return math.ceil(needed / 2**30) + _DATA_GIB
