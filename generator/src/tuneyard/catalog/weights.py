# SPDX-License-Identifier: Apache-2.0
"""The claim that holds a served model's weights. Tuneyard creates it, for NIM and vLLM alike, so that it outlives both."""

from tuneyard.catalog.objects import build_claim
from tuneyard.environment.models import ServedModel
from tuneyard.stack.model import Json, Stack


def weights_claim(model: ServedModel) -> str:
    """The claim's name, which stays the same whatever is changed about the model."""
    return f"{model.name}-cache"


def build_weights_claim(stack: Stack, model: ServedModel, *, shared: bool) -> Json:
    """The claim; a shared one can be mounted by several nodes."""
    storage_class = stack.storage_class(shared=shared)
    return build_claim(weights_claim(model), model.namespace, model.cache_gib, storage_class, shared=shared)
