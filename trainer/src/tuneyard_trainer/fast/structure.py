# SPDX-License-Identifier: Apache-2.0
"""Finds out whether a transformers model is built of what the fast path computes, by its parts and not by its name.

Parts must be there, no others may, and what a part computes is tried on numbers where its name does not tell.
"""

import sys
from collections.abc import Iterable
from dataclasses import replace
from itertools import accumulate
from typing import Any

import torch

from tuneyard_trainer.fast import fp8
from tuneyard_trainer.fast.layers import Block, Layer, Norm, turn
from tuneyard_trainer.fast.projection import Projection, merge
from tuneyard_trainer.fast.trained import Trained


class UnknownStructureError(Exception):
    """The model has something that the fast path does not compute; the message says what."""


_PARTS = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
_ATTENTIONS = ({"q_proj", "k_proj", "v_proj", "o_proj"}, {"qkv_proj", "o_proj"})
_HEAD_NORMS = {"q_norm", "k_norm"}
_GATED = ({"gate_proj", "up_proj", "down_proj", "act_fn"}, {"gate_up_proj", "down_proj", "activation_fn"})
_FACTORS = ("scale", "multiplier", "scaling", "softcap", "clip_qkv")
"""Parts of names in a configuration whose values change what is computed, if they are set to anything but 1."""
_COMMON = {"rope_scaling"}
"""Names with such a part that change nothing here: rotary positions are computed by the model's own part."""
_LAYER_TYPES = {"full_attention", "sliding_attention"}


def check_structure(base: Any, longest: int) -> None:
    """Raises unless `base`, a model for causal language modelling, has the known structure; changes nothing.

    `longest` is the number of tokens of the longest sequence: a window that is as wide limits nothing.

    Raises:
        UnknownStructureError: with the first thing that is not known.
    """
    _check_children("the model", base, {"model", "lm_head"})
    config, body = base.config, base.model
    _check_children("the model's body", body, {"embed_tokens", "layers", "norm", "rotary_emb"})
    for name, value in config.to_dict().items():
        if (
            any(part in name for part in _FACTORS)
            and name not in _COMMON
            and value not in (None, 1, 1.0, False)
        ):
            raise UnknownStructureError(f"its configuration has {name} {value}")
    window = getattr(config, "sliding_window", None)
    if window is not None and getattr(config, "use_sliding_window", True) and window < longest:
        raise UnknownStructureError(f"a token looks back on {window} tokens only")
    if other := set(getattr(config, "layer_types", None) or ()) - _LAYER_TYPES:
        raise UnknownStructureError(f"its layers have {_listed(other)}")
    for layer in body.layers:
        _check_layer(layer)
        if not getattr(layer.self_attn, "use_rope", True):
            raise UnknownStructureError("some of its layers have no positions")
    if type(base.lm_head) is not torch.nn.Linear or base.lm_head.bias is not None:
        raise UnknownStructureError("its output head has an adapter or a bias")
    attention = body.layers[0].self_attn
    _check_turns(attention, body.rotary_emb, base.lm_head.weight)


def build_block(base: Any) -> Block:
    """What the layers of a model of known structure have in common."""
    layer = base.model.layers[0]
    attention, mlp = layer.self_attn, layer.mlp
    heads = base.config.num_attention_heads
    groups = getattr(base.config, "num_key_value_heads", None) or heads
    return Block(
        heads,
        groups,
        attention.head_dim,
        norm=norm_of(layer.input_layernorm),
        head_norm=norm_of(attention.q_norm) if hasattr(attention, "q_norm") else None,
        activation=mlp.act_fn if hasattr(mlp, "act_fn") else mlp.activation_fn,
    )


def build_layer(layer: Any, scale: float | None, *, is_merged: bool = True) -> Layer:
    """The tensors of one layer: frozen ones and adapters of this scale, or, without a scale, parameters that are trained.

    If they are to be merged, frozen weights that are used in one product become views of one tensor.
    """
    attention = layer.self_attn
    has_norms = hasattr(attention, "q_norm")
    products = [[getattr(of, name) for name in names] for of, names in _products(layer)]
    return Layer(
        layer.input_layernorm.weight,
        layer.post_attention_layernorm.weight,
        (attention.q_norm.weight, attention.k_norm.weight) if has_norms else None,
        *(map(_trained, products) if scale is None else (_projection(e, scale, is_merged) for e in products)),
    )


def hold_in_fp8(layer: Any, built: Layer) -> Layer:
    """The layer that was `built` with frozen weights in FP8; in the model they take the place of those that it had.

    Raises:
        UnknownStructureError: if a weight has a shape that products in FP8 don't take; nothing is changed then.
    """
    found = (built.qkv, built.out, built.gate_up, built.down)
    projections = [each for each in found if isinstance(each, Projection)]
    for projection in projections:
        if odd := [size for size in projection.frozen[0].shape if size % fp8.MULTIPLE]:
            raise UnknownStructureError(f"a layer is {odd[0]} wide, which is no multiple of {fp8.MULTIPLE}")
    held = [projection.in_fp8() for projection in projections]
    for (of, names), projection in zip(_products(layer), held, strict=True):
        rows, scales, *_ = projection.frozen
        start = 0
        for name, end in zip(names, projection.ends, strict=True):
            linear = getattr(of, name)
            bias = None if projection.bias is None else projection.bias[start:end]
            frozen = fp8.Fp8Linear(rows[start:end], scales[start:end], bias)
            if hasattr(linear, "base_layer"):
                linear.base_layer = frozen
            else:
                setattr(of, name, frozen)
            start = end
    qkv, out, gate_up, down = held
    return replace(built, qkv=qkv, out=out, gate_up=gate_up, down=down)


def _products(layer: Any) -> tuple[tuple[Any, tuple[str, ...]], ...]:
    """The linear layers of each product, by the part that has them and their names there."""
    attention, mlp = layer.self_attn, layer.mlp
    return (
        (attention, ("q_proj", "k_proj", "v_proj") if hasattr(attention, "q_proj") else ("qkv_proj",)),
        (attention, ("o_proj",)),
        (mlp, ("gate_proj", "up_proj") if hasattr(mlp, "gate_proj") else ("gate_up_proj",)),
        (mlp, ("down_proj",)),
    )


def norm_of(module: Any) -> Norm:
    """The RMSNorm that `module` computes.

    Raises:
        UnknownStructureError: if it computes something else.
    """
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    weight = getattr(module, "weight", None)
    if isinstance(eps, float) and weight is not None and getattr(module, "bias", None) is None:
        x = _numbers(3, weight.shape[0], like=weight) * 2
        with torch.no_grad():
            # All processes meet here, if each has a part of it.
            whole = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
            made = torch.func.functional_call(module, {"weight": whole}, x).float()
            for norm in (Norm(eps, plus_one=False), Norm(eps, plus_one=True)):
                if _is_close(norm(x, whole).float(), made):
                    return norm
    raise UnknownStructureError(f"{type(module).__name__} is no RMSNorm")


def adapter_of(linear: Any) -> tuple[Any, torch.Tensor | None, torch.Tensor | None, float | None]:
    """The frozen layer inside of a linear layer with or without a LoRA adapter, the adapter's A and B, and its scale."""
    if type(linear) is torch.nn.Linear:
        return linear, None, None, None
    if not hasattr(linear, "lora_A"):
        raise UnknownStructureError(f"{type(linear).__name__} is no linear layer")
    name = "default"
    if list(linear.lora_A) != [name] or type(linear.base_layer) is not torch.nn.Linear:
        raise UnknownStructureError(f"an adapter on {type(linear.base_layer).__name__}")
    if not isinstance(linear.lora_dropout[name], torch.nn.Identity):
        raise UnknownStructureError("lora.dropout: each adapter would need its own copy of the input")
    if getattr(linear, "lora_variant", {}) or linear.lora_bias[name]:
        raise UnknownStructureError("the adapter is more than two factors")
    return linear.base_layer, linear.lora_A[name].weight, linear.lora_B[name].weight, linear.scaling[name]


def scale_of(base: Any) -> float | None:
    """The scale of all adapters of the model; None, if it has none and is trained itself.

    Raises:
        UnknownStructureError: if there is more than one.
    """
    scales = {part.scaling["default"] for part in base.modules() if hasattr(part, "lora_A")}
    if len(scales) > 1:
        raise UnknownStructureError(f"its adapters have {len(scales)} scales")
    return float(scales.pop()) if scales else None


def _trained(linears: list[Any]) -> Trained:
    biases = [linear.bias for linear in linears if linear.bias is not None]
    return Trained(tuple(linear.weight for linear in linears), tuple(biases))


def _projection(linears: list[Any], scale: float, is_merged: bool) -> Projection:
    found = [adapter_of(linear) for linear in linears]
    layers = [frozen for frozen, *_ in found]
    if is_merged:
        weight, bias = merge(layers)
        weights = (weight,)
    else:
        weights = tuple(layer.weight for layer in layers)
        bias = torch.cat([layer.bias for layer in layers]) if layers[0].bias is not None else None
    ends = tuple(accumulate(layer.weight.shape[0] for layer in layers))
    factors = tuple(factor for _, a, b, _ in found for factor in (a, b))
    return Projection(weights, bias, ends, factors, scale)


def _check_layer(layer: Any) -> None:
    _check_children("a layer", layer, _PARTS)
    attention, mlp = layer.self_attn, layer.mlp
    names = {name for name, _ in _active(attention)}
    if names - _HEAD_NORMS not in _ATTENTIONS or names & _HEAD_NORMS not in (set(), _HEAD_NORMS):
        raise UnknownStructureError(f"its attention has the parts {_listed(names)}")
    if {name for name, _ in _active(mlp)} not in _GATED:
        raise UnknownStructureError(f"its MLP has the parts {_listed(name for name, _ in _active(mlp))}")
    norm_of(layer.input_layernorm)
    norm_of(layer.post_attention_layernorm)
    for name in _HEAD_NORMS & names:
        if norm_of(getattr(attention, name)) and getattr(attention, name).weight.shape != (
            attention.head_dim,
        ):
            raise UnknownStructureError(f"{name} is not of a single head")
    linears = [part for name, part in (*_active(attention), *_active(mlp)) if name.endswith("proj")]
    frozen = [adapter_of(linear)[0] for linear in linears]
    if "q_proj" in names and len({linear.bias is None for linear in frozen[:3]}) > 1:
        raise UnknownStructureError("some of its queries, keys and values have a bias")
    if len({linear.weight.dtype for linear in frozen}) > 1:
        raise UnknownStructureError("its weights are of several types")


def _check_turns(attention: Any, rotary: Any, like: torch.Tensor) -> None:
    """Whether positions are turned as `turn` does it: other families pair other numbers."""
    own = getattr(sys.modules[type(attention).__module__], "apply_rotary_pos_emb", None)
    if own is None:
        raise UnknownStructureError("its positions are not rotary")
    heads = _numbers(5, 2, attention.head_dim, like=like)
    with torch.no_grad():
        cosine, sine = rotary(heads[None, :, 0], torch.arange(5, device=like.device)[None] * 7)
        made, _ = own(heads.transpose(0, 1)[None], heads.transpose(0, 1)[None], cosine, sine)
        ours = turn(heads, cosine[0, :, None], sine[0, :, None])
    if not _is_close(ours.transpose(0, 1).float(), made[0].float()):
        raise UnknownStructureError("its rotary positions pair other numbers")


def _check_children(called: str, module: Any, names: set[str]) -> None:
    found = {name for name, _ in _active(module)}
    if found != names:
        raise UnknownStructureError(f"{called} has the parts {_listed(found)}")


def _active(module: Any) -> list[tuple[str, Any]]:
    """Children by name, without dropout that drops nothing."""
    return [
        (name, part)
        for name, part in module.named_children()
        if not (isinstance(part, torch.nn.Dropout) and part.p == 0)
    ]


def _numbers(*shape: int, like: torch.Tensor) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=draw).to(like.device, like.dtype)


def _is_close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Always, for a model without weights: its numbers are tried where it is trained."""
    return ours.is_meta or bool((ours - theirs).norm() <= 0.01 * theirs.norm())


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
