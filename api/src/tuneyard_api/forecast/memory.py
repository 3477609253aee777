# SPDX-License-Identifier: Apache-2.0
"""Memory of each GPU in a training, by part.

What is derived: sizes of weights, gradients, optimizer, and what autograd keeps of each layer, by reading which tensors the
trainer's two paths save for the backward pass. Each is held against measurements (tests/training, docs/reference/forecast.md).
"""

from dataclasses import dataclass, fields

from tuneyard_api.forecast.work import Work

GIB = 2**30
_FLOAT32 = 4
_ADAM = 8
"""Bytes of a trained parameter: both moments in float32."""
_NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a parameter: four bits, a byte of scale for 64 of them, and a float32 for 256 scales."""
_PIECE = 4096
"""Most tokens whose logits exist at once on the fast path (trainer: fast/head.py)."""
_FAST_LOGITS = 4
"""Bytes of a word and token: logits and their gradient in bfloat16."""
_PLAIN_LOGITS = 12
"""The same on the plain path, for all tokens at once: log-probabilities and two gradients of them, in float32."""
_TRAINED_HEAD = 8
"""Bytes of a weight of a trained head on the fast path: its gradient in float32, a piece of it and the weight in bfloat16."""
_INT8_KEPT = 16
"""Bytes of each number between layers that LLM.int8() keeps besides; measured, not derived."""
CONTEXT = 1.0 * GIB
"""CUDA, cuBLAS, cuDNN and Triton beside the allocator."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one GPU, at the moment that needs most."""

    weights: float
    """The frozen base model; 0 if all of it is trained."""
    trained: float
    """Adapters, or all weights, in float32."""
    gradients: float
    optimizer: float
    activations: float
    """What the backward pass needs of the layers, and what it needs meanwhile."""
    logits: float
    framework: float
    """CUDA, or Python and PyTorch on a CPU; what the allocator holds free besides it can give back."""

    @property
    def allocated(self) -> float:
        """What PyTorch reports as the peak: all but the framework."""
        return self.total - self.framework

    @property
    def total(self) -> float:
        """What the GPU must have."""
        return sum(self.parts().values())

    def parts(self) -> dict[str, float]:
        """Bytes by part, in order."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def memory_of(work: Work) -> Memory:
    """Memory of each GPU; where FSDP2 spreads the model, it spreads weights, gradients and optimizer over all of them."""
    trained = work.trained_parameters
    weights = 0.0 if work.method == "sft" else _frozen(work)
    share = 1 / work.processes if work.is_spread else 1.0
    kept = kept_of_layer(work) * work.tokens
    # In the backward pass of a layer its widest part has its gradients beside it.
    meanwhile: float = 3 * work.shape.feedforward * _width(work) * work.tokens
    activations: float = work.shape.layers * kept
    if work.is_recomputing:
        each = work.shape.hidden * _width(work) + _kept_in_spite(work)
        activations = work.shape.layers * each * work.tokens
        meanwhile += kept
    activations += _copies(work)
    logits = _logits(work)
    # Logits are there before the first layer's gradients are: only the larger of both counts.
    beyond = max(0.0, meanwhile - logits)
    gradients = trained * _FLOAT32 * share
    if work.accumulation == 1:
        # None are left of an earlier pass: they come as activations go.
        gradients = max(0.0, gradients - activations - logits)
    return Memory(
        weights=weights * share,
        trained=trained * _FLOAT32 * share,
        gradients=gradients,
        optimizer=trained * _ADAM * share,
        activations=activations + beyond + _gathered(work),
        logits=logits,
        framework=CONTEXT,
    )


def _width(work: Work) -> int:
    """Bytes of a number between layers."""
    return 2 if work.is_bf16 else 4


def _frozen(work: Work) -> float:
    """Bytes of a frozen base model, over all GPUs; embeddings, head and norms are never quantised."""
    linear, width = work.shape.linear_parameters, _width(work)
    # In FP8 a weight is held by rows and by columns, each with one float32 for a row.
    each = {"nf4": _NF4, "int8": 1.0, "fp8": 2.0}.get(work.quantization or "", width)
    return linear * each + (work.shape.parameters - linear) * width


def kept_of_layer(work: Work) -> float:
    """Bytes that autograd keeps of a layer for each token."""
    shape, width = work.shape, _width(work)
    hidden, queries, keys, inner = shape.hidden, shape.queries, shape.keys, shape.feedforward
    if work.why_plain is None:
        # Residuals and norms of both halves; queries, keys, values and what attention gives; gate, up and their product.
        return width * (4 * hidden + 2 * queries + 2 * keys + 3 * inner)
    # Both norms keep float32; attention keeps queries, keys, values and its output; the MLP keeps gate, its activation and up.
    common = 8 * hidden + width * (2 * queries + 2 * keys + 3 * inner)
    if work.method == "sft" and work.is_spread:
        # FSDP2 gathers weights in the type of the products: the norms keep what they multiply, and products share their input.
        return common + width * (4 * hidden + inner)
    if work.method == "sft":
        # The residual is float32 and so is what the norms multiply; each product keeps a copy of its input.
        return common + 8 * hidden + width * (5 * hidden + inner)
    if work.quantization in {"nf4", "int8"}:
        # bitsandbytes and PEFT share one copy of the input among the layers that read it.
        more = _INT8_KEPT * hidden if work.quantization == "int8" else 0
        return common + width * (2 * hidden + inner) + more
    if work.method in {"ia3", "pTuning"}:
        return common + width * inner
    # PEFT casts the input of each adapted layer for itself; dropout keeps a byte of each number for its mask.
    inputs = 5 * hidden + queries + inner
    return common + width * inputs + (inputs if work.has_dropout else 0)


def _kept_in_spite(work: Work) -> float:
    """Bytes of a token that LLM.int8() keeps of each layer although they are to be recomputed: the inputs of its products.

    bitsandbytes holds them beside what autograd saves (MatMul8bitLt, `ctx.tensors`).
    """
    if work.quantization != "int8":
        return 0.0
    shape = work.shape
    return _width(work) * (2.0 * shape.hidden + shape.queries + shape.feedforward)


def _copies(work: Work) -> float:
    """Bytes of copies of weights in another type."""
    if work.quantization == "int8":
        return float(work.shape.linear_parameters)
    is_plain = work.why_plain is not None
    if work.method != "sft" or not is_plain or not work.is_bf16 or work.is_spread or work.is_recomputing:
        return 0.0
    # The backward pass uses the bfloat16 weights that autocast made for the forward pass.
    return 2.0 * work.shape.parameters


def _logits(work: Work) -> float:
    """Bytes at the output head, when all activations are there."""
    words = work.shape.vocabulary
    if work.why_plain is not None:
        return work.tokens * words * _PLAIN_LOGITS
    trained = _TRAINED_HEAD * work.shape.hidden * words if work.method == "sft" else 0
    return min(work.tokens, _PIECE) * words * _FAST_LOGITS + trained


def _gathered(work: Work) -> float:
    """Bytes of parameters that FSDP2 has gathered at once: two layers, and what is outside of all layers."""
    if not work.is_spread:
        return 0.0
    shape = work.shape
    outside = shape.parameters - shape.linear_parameters
    return _width(work) * (2 * shape.linear_parameters / shape.layers + outside)
