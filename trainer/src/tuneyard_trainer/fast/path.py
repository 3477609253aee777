# SPDX-License-Identifier: Apache-2.0
"""Training of a model of known structure, or of its adapter, from tokens to the loss.

It computes what transformers and PEFT compute for the same model, with the same parameters in the same places:
checkpoints, evaluation and publication do not see a difference. Why it is faster: layers that read the same input are
one product, adapters are written out, what lies between products is compiled, and the loss is made in pieces.

A model may be spread over processes by FSDP2. Then each layer's parameters are whole only while its forward pass or
its gradient is computed: the fast path runs as the forward pass of the model's own modules, reads their parameters
there and keeps none of them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from tuneyard_trainer.fast.attention import Bounds, attend, attend_rows
from tuneyard_trainer.fast.head import loss_and_gradients, summed_loss
from tuneyard_trainer.fast.structure import (
    UnknownStructureError,
    build_block,
    build_layer,
    check_structure,
    hold_in_fp8,
    norm_of,
    scale_of,
)

_VARIANTS = 64
"""Most variants of a compiled function: by shape, with and without gradient, and the first layer by itself."""
_TOLERANCE = 0.1
"""Relative difference of logits that bfloat16 can make over many layers; another structure makes more."""


class FastPath:
    """The fast path of one model: a PeftModel, whose adapter is trained, or one of transformers, which is trained whole."""

    def __init__(
        self,
        model: Any,
        *,
        longest: int,
        is_compiled: bool,
        is_recomputing: bool = False,
        is_fp8: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Takes sequences of at most `longest` tokens; recomputing keeps no more than each layer's input.

        Layers compute in `dtype`; None: in the type of the weights. With `is_fp8` the layers' frozen weights are held in FP8 from now on, for the plain model too.

        Raises:
            UnknownStructureError: if the model has something that is not known; it is as it was then.
        """
        base = model.get_base_model() if hasattr(model, "peft_config") else model
        check_structure(base, longest)
        self._scale = scale_of(base)
        self._model, self._base, self._body, self._is_recomputing = model, base, base.model, is_recomputing
        self._dtype = dtype or base.lm_head.weight.dtype
        self._block, self._norm = build_block(base), norm_of(base.model.norm)
        is_here = not hasattr(base.lm_head.weight, "full_tensor")
        self._layers = [build_layer(layer, self._scale) for layer in base.model.layers if is_here]
        self._attention_scale = base.model.layers[0].self_attn.scaling
        functions = (self._block.before, self._block.after, self._norm, loss_and_gradients)
        self._before, self._after, self._last, self._piece = functions
        self._check(model)
        if is_fp8:
            for number, layer in enumerate(base.model.layers):
                # In turn, so that no more than one layer is there in both ways.
                self._layers[number] = hold_in_fp8(layer, self._layers[number])
        if is_compiled:
            torch._dynamo.config.recompile_limit = _VARIANTS  # noqa: SLF001  its only door
            self._before, self._after, self._last, self._piece = (
                _compiled(function) for function in functions
            )

    def summed_loss(
        self, tokens: torch.Tensor, positions: torch.Tensor, labels: torch.Tensor, bounds: Bounds | None
    ) -> torch.Tensor:
        """Cross entropy in nats, summed over labels that are not negative.

        `tokens`, `positions` and `labels`, the token after each or -100, are int64 [B, S]; without bounds each row is
        one record.
        """

        def loss(tokens: torch.Tensor) -> torch.Tensor:
            hidden = self._hidden(tokens, positions, bounds)
            return summed_loss(hidden, self._base.lm_head.weight, labels.flatten(), self._piece)

        return _as_forward(self._model, loss, tokens)

    def _hidden(self, tokens: torch.Tensor, positions: torch.Tensor, bounds: Bounds | None) -> torch.Tensor:
        """The input of the output head, [B * S, hidden]."""
        rows = len(tokens)
        x = self._body.embed_tokens(tokens.flatten()).to(self._dtype)
        cosine, sine = self._body.rotary_emb(x[None], positions.flatten()[None])
        turns = (cosine[0, :, None].to(x.dtype), sine[0, :, None].to(x.dtype))
        layer: Callable[..., torch.Tensor] = self._layer
        if self._is_recomputing and torch.is_grad_enabled():
            layer = partial(checkpoint, self._layer, use_reentrant=False)
        for number, module in enumerate(self._body.layers):
            x = _as_forward(module, partial(layer, number), x, turns, rows, bounds)
        return self._last(x, self._body.norm.weight)

    def _layer(
        self,
        number: int,
        x: torch.Tensor,
        turns: tuple[torch.Tensor, torch.Tensor],
        rows: int,
        bounds: Bounds | None,
    ) -> torch.Tensor:
        module = self._body.layers[number]
        layer = self._layers[number] if self._layers else build_layer(module, self._scale, is_merged=False)
        heads = self._before(x, turns, layer.first_norm, layer.head_norms, layer.qkv.arguments())
        scale = self._attention_scale
        attended = (
            attend_rows(*heads, rows, scale=scale) if bounds is None else attend(*heads, bounds, scale=scale)
        )
        projections = (layer.out.arguments(), layer.gate_up.arguments(), layer.down.arguments())
        return self._after(x, attended, layer.second_norm, projections)

    def _check(self, model: Any) -> None:
        """Computes some logits in both ways: the last word on whether the structure is known.

        Raises:
            UnknownStructureError: if they differ.
        """
        device, words = self._base.lm_head.weight.device, len(self._base.lm_head.weight)
        tokens = (torch.arange(24, device=device)[None] * 7919 + 11) % words
        positions = torch.arange(24, device=device)[None]
        was_training = model.training
        model.eval()
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, self._dtype == torch.bfloat16):
            theirs = model(input_ids=tokens, position_ids=positions, use_cache=False).logits[0].float()

        def logits(tokens: torch.Tensor) -> torch.Tensor:
            return self._hidden(tokens, positions, None) @ self._base.lm_head.weight.to(self._dtype).t()

        with torch.no_grad():
            ours = _as_forward(model, logits, tokens).float()
        model.train(was_training)
        difference = float((ours - theirs).norm() / theirs.norm())
        if not difference <= _TOLERANCE:
            raise UnknownStructureError(f"its logits would differ by {difference:.0%}")


def _as_forward(module: Any, function: Callable[..., torch.Tensor], *arguments: Any) -> torch.Tensor:
    """What `function` returns, called in place of the module's forward pass, so that FSDP2 gathers its parameters."""
    module.forward = function
    try:
        # Not by the module's own class: transformers' layers would recompute it all once more.
        made: torch.Tensor = torch.nn.Module.__call__(module, *arguments)
    finally:
        del module.forward
    return made


def _compiled(function: Callable[..., Any]) -> Any:
    return torch.compile(function, dynamic=False)
