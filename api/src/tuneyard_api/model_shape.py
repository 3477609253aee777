# SPDX-License-Identifier: Apache-2.0
"""The shape of a model: what its memory and its speed follow from. Read from config.json and the headers of its weights.

A header of safetensors names every tensor with its shape and costs kilobytes, so that a model of 140 GB can be planned for without
its weights.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from tuneyard_api.base import Tolerant

Tensors = Mapping[str, tuple[int, ...]]
"""Shape of each tensor by its name."""

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
MAX_LINEARS = 16
"""Most kinds of linear layers: most models have 4 to 7, and a pod's result has room for so many."""
MAX_HEADER_BYTES = 100_000_000
"""Longest header of a safetensors file, as the library has it."""
_NUMBER = re.compile(r"\.\d+(?=\.|$)")
_OUTSIDE = re.compile(r"(^|\.)(embed\w*|wte|wpe|lm_head|embed_out|output)\.", re.IGNORECASE)
"""Embeddings and output heads: neither adapted nor quantised."""
_FAST_PARTS = frozenset(
    f"{part}.weight"
    for part in (
        *("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "q_norm", "k_norm"),
        *("gate_proj", "up_proj", "down_proj", "gate_up_proj", "input_layernorm", "post_attention_layernorm"),
    )
) | {f"{part}.bias" for part in ("q_proj", "k_proj", "v_proj")}
"""Tensors of a layer that the trainer's fast path knows (fast/structure.py), by the end of their names."""
_FAST_NEEDS = {"input_layernorm.weight", "post_attention_layernorm.weight", "down_proj.weight"}


Positive = Annotated[int, Field(ge=1)]


class ShapeUnknownError(ValueError):
    """The files do not tell the model's shape; the message says what is missing."""


class Linears(Tolerant):
    """Linear layers of one name and one shape."""

    name: Annotated[str, Field(max_length=64)]
    """The last part of their names, such as `q_proj`."""
    out: Positive
    """Outputs of each."""
    inputs: Positive
    """Inputs of each."""
    count: Positive
    """How many there are."""

    @property
    def parameters(self) -> int:
        """Parameters of all of them, without biases."""
        return self.out * self.inputs * self.count


class ModelShape(Tolerant):
    """Sizes of a model for causal language modelling; widths are numbers of a token."""

    model_type: Annotated[str, Field(max_length=64)]
    layers: Positive
    hidden: Positive
    """Width between the layers."""
    queries: Positive
    """Width of all queries of a layer."""
    keys: Positive
    """Width of all keys of a layer; values have the same."""
    feedforward: Positive
    """Width inside the MLP of a layer; of a mixture of experts that of the experts which see one token."""
    vocabulary: Positive
    """Words of the output head."""
    positions: int | None = None
    """Longest sequence in tokens."""
    window: int | None = None
    """Tokens on which a token looks back, if the model limits them."""
    parameters: Positive
    """All of them; weights that are tied count once."""
    active_parameters: Positive
    """Parameters of the linear layers that one token goes through, without the output head."""
    linears: Annotated[tuple[Linears, ...], Field(max_length=MAX_LINEARS)]
    """Linear layers inside the model's layers."""
    is_known_to_fast_path: bool = False
    """Whether its layers have the parts that the trainer's fast path computes, and no others."""

    @property
    def linear_parameters(self) -> int:
        """Parameters of all linear layers, which a quantization stores in fewer bits."""
        return sum(each.parameters for each in self.linears)


def shape_of(config: Mapping[str, Any], tensors: Tensors | None = None) -> ModelShape:
    """The shape by config.json and, where they are known, the headers of the weights; else by what such a config makes.

    Raises:
        ShapeUnknownError: if the configuration lacks a size.
    """
    sizes = _Sizes(config)
    found = tensors or usual_tensors(config)
    linears: Counter[tuple[str, int, int]] = Counter()
    parameters, endings = 0, set()
    for name, shape in found.items():
        parameters += prod(shape)
        if _is_in_layer(name):
            endings.add(".".join(name.split(".")[-2:]))
            if len(shape) == 2 and name.endswith(".weight") and not _OUTSIDE.search(name):  # noqa: PLR2004
                linears[(name.split(".")[-2], shape[0], shape[1])] += 1
    grouped = tuple(
        Linears(name=name, out=out, inputs=inputs, count=count)
        for (name, out, inputs), count in sorted(linears.items())
    )
    if len(grouped) > MAX_LINEARS:
        raise ShapeUnknownError(
            f"the linear layers have {len(grouped)} shapes (at most {MAX_LINEARS} are told apart)"
        )
    heads, size = sizes.needed("num_attention_heads"), sizes.head_size
    experts, used = (
        sizes.get("num_experts", "num_local_experts", "n_routed_experts"),
        sizes.get("num_experts_per_tok"),
    )
    whole = sum(each.parameters for each in grouped)
    return ModelShape(
        model_type=str(config.get("model_type") or "unknown"),
        layers=sizes.needed("num_hidden_layers"),
        hidden=sizes.needed("hidden_size"),
        queries=heads * size,
        keys=(sizes.get("num_key_value_heads") or heads) * size,
        feedforward=sizes.feedforward,
        vocabulary=sizes.needed("vocab_size"),
        positions=sizes.get("max_position_embeddings"),
        window=sizes.window,
        parameters=parameters,
        active_parameters=_active(found, whole, experts, used),
        linears=grouped,
        is_known_to_fast_path=experts is None and endings <= _FAST_PARTS and endings >= _FAST_NEEDS,
    )


def usual_tensors(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tensors of a decoder with gated MLPs, as Llama, Mistral and Qwen have it, by its config.json alone.

    Raises:
        ShapeUnknownError: if the configuration lacks a size.
    """
    sizes = _Sizes(config)
    hidden, words, heads = (
        sizes.needed(name) for name in ("hidden_size", "vocab_size", "num_attention_heads")
    )
    queries, keys = heads * sizes.head_size, (sizes.get("num_key_value_heads") or heads) * sizes.head_size
    experts = sizes.get("num_experts", "num_local_experts", "n_routed_experts")
    inner = sizes.get("moe_intermediate_size") if experts else None
    inner = inner or sizes.needed("intermediate_size")
    mlps = [f"mlp.experts.{number}" for number in range(experts)] if experts else ["mlp"]
    layer: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj.weight": (queries, hidden),
        "self_attn.k_proj.weight": (keys, hidden),
        "self_attn.v_proj.weight": (keys, hidden),
        "self_attn.o_proj.weight": (hidden, queries),
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }
    for mlp in mlps:
        layer |= {f"{mlp}.{name}_proj.weight": (inner, hidden) for name in ("gate", "up")}
        layer[f"{mlp}.down_proj.weight"] = (hidden, inner)
    tensors: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (words, hidden),
        "model.norm.weight": (hidden,),
    }
    if not config.get("tie_word_embeddings", False):
        tensors["lm_head.weight"] = (words, hidden)
    for number in range(sizes.needed("num_hidden_layers")):
        tensors |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
    return tensors


def weight_files(index: str | bytes | None) -> list[str]:
    """Names of the files with weights, by the content of the index beside them; without an index it is one file.

    A folder may have the same weights under other names too.

    Raises:
        ShapeUnknownError: if the index names no files.
    """
    if index is None:
        return [WEIGHTS]
    try:
        return sorted({str(name) for name in json.loads(index)["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ShapeUnknownError(f"{INDEX} has no weight_map") from error


def tensors_in(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shapes in the headers of a folder's weights; empty if the folder has none.

    Raises:
        ShapeUnknownError: if a file is no safetensors file.
        OSError: if a file can't be read.
    """
    index = folder / INDEX
    if not index.is_file() and not (folder / WEIGHTS).is_file():
        return {}
    tensors: dict[str, tuple[int, ...]] = {}
    for name in weight_files(index.read_bytes() if index.is_file() else None):
        with (folder / name).open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 0 < length <= MAX_HEADER_BYTES:
                raise ShapeUnknownError(f"{name} is no safetensors file")
            tensors |= tensors_of_header(stream.read(length))
    return tensors


def tensors_of_header(header: bytes) -> dict[str, tuple[int, ...]]:
    """The shapes in the header of a safetensors file, which is JSON behind its length in the first eight bytes.

    Raises:
        ShapeUnknownError: if it is no such header.
    """
    try:
        entries = json.loads(header)
        return {
            str(name): tuple(int(size) for size in entry["shape"])
            for name, entry in entries.items()
            if name != "__metadata__"
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ShapeUnknownError("this is no header of a safetensors file") from error


class _Sizes:
    """Sizes in a configuration; those of models for several kinds of input are in a part of it."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        inner = config.get("text_config")
        self._config = {**config, **inner} if isinstance(inner, dict) else dict(config)

    def get(self, *names: str) -> int | None:
        for name in names:
            value = self._config.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
        return None

    def needed(self, name: str) -> int:
        value = self.get(name, *_OTHER_NAMES.get(name, ()))
        if value is None:
            raise ShapeUnknownError(f"config.json has no {name}")
        return value

    @property
    def head_size(self) -> int:
        return self.get("head_dim") or self.needed("hidden_size") // self.needed("num_attention_heads")

    @property
    def feedforward(self) -> int:
        used = self.get("num_experts_per_tok")
        expert = self.get("moe_intermediate_size") or self.get("intermediate_size", "n_inner", "ffn_dim")
        if used is not None and expert is not None:
            return used * expert + (self.get("shared_expert_intermediate_size") or 0)
        return expert or 4 * self.needed("hidden_size")

    @property
    def window(self) -> int | None:
        return self.get("sliding_window") if self._config.get("use_sliding_window", True) else None


_OTHER_NAMES = {
    "hidden_size": ("n_embd", "d_model"),
    "num_hidden_layers": ("n_layer", "num_layers"),
    "num_attention_heads": ("n_head", "num_heads"),
}
"""Names of the same size in older families."""


def _is_in_layer(name: str) -> bool:
    return _NUMBER.search(name) is not None


def _active(tensors: Tensors, whole: int, experts: int | None, used: int | None) -> int:
    """The parameters of linear layers that one token goes through."""
    if not experts or not used:
        return whole
    inside = sum(prod(shape) for name, shape in tensors.items() if ".experts." in name and len(shape) > 1)
    among_linears = sum(
        prod(shape)
        for name, shape in tensors.items()
        if ".experts." in name and len(shape) == 2  # noqa: PLR2004
    )
    return whole - among_linears + inside * used // experts
