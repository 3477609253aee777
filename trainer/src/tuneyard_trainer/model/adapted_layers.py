# SPDX-License-Identifier: Apache-2.0
"""The layers of a model that get a LoRA adapter, and the weights that none reaches."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from tuneyard_api.pod_contract import ResolvedJob

from tuneyard_trainer.pod.failures import bad_input

_MAX_SHOWN = 4
_SMALL_SHARE = 0.05
"""Routers and convolutions are a few percent of a model; experts are most of it."""
_EXPERTS_ROWS_COLUMNS = 3
_OF_MAMBA = frozenset({"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"})


def target_modules(base: Any, job: ResolvedJob) -> list[str]:
    """Ends of the names of the layers that get an adapter, as PEFT matches them: the last name, as vLLM and NIM read it.

    Those asked for, else every linear layer that text goes through, but the output head. Where another part has the same
    last name, more of the layer's name is given: `ffn.0` beside a list of blocks that has a `0` too.

    Raises:
        StageFailure: BadInput, if the model lacks a layer that was asked for, or has no linear layers.
    """
    inside = _text_part(base)
    linear = {name for name, part in base.named_modules() if name.startswith(inside) and is_linear(part)}
    head = {name for name, part in base.named_modules() if part is base.get_output_embeddings()}
    kept_out = _refused_by_peft(base, linear)
    adapted = linear - head - kept_out
    taken = {end for name, _ in base.named_modules() if name not in adapted for end in _ends_of(name)}
    names = sorted({next((end for end in _ends_of(name) if end not in taken), name) for name in adapted})
    if not names:
        raise bad_input(
            f"method: {type(base).__name__} has no linear layers that an adapter could be put on; try method: sft"
        )
    if job.lora.target_modules is None:
        return names
    asked = [
        end for end in job.lora.target_modules if any(ends_with(name, [end]) for name in linear - kept_out)
    ]
    tensors = expert_tensors(base)
    if unknown := [
        end for end in job.lora.target_modules if end not in asked and not _are_named(tensors, end)
    ]:
        raise bad_input(
            "lora.targetModules: the model has no linear layers that take an adapter and are named"
            f" {', '.join(unknown)}; try {', '.join([*names, *_short(tensors)])}"
        )
    return asked


def target_parameters(base: Any, job: ResolvedJob) -> list[str]:
    """What `lora.targetModules` names beside layers: tensors of all experts, as PEFT's `target_parameters` names them.

    Raises:
        StageFailure: BadInput, if the job asks for what PEFT does not have with them, or nobody tried.
    """
    tensors, layers = expert_tensors(base), target_modules(base, job)
    named = [end for end in job.lora.target_modules or () if end not in layers and _are_named(tensors, end)]
    without = f"; try to leave {', '.join(named)} out of lora.targetModules, or "
    for is_asked, why in (
        (job.lora.dropout > 0, f"lora.dropout: PEFT has none for tensors of experts{without}dropout 0"),
        (job.lora.dora, f"lora.dora: PEFT does not have it for tensors of experts{without}dora: false"),
        (
            job.quantization,
            f"model.quantization: tensors of experts stay as they are{without}no quantization",
        ),
        (
            job.training.data_parallel > 1,
            f"lora.targetModules: tensors of experts need one GPU{without}one GPU",
        ),
    ):
        if named and is_asked:
            raise bad_input(why)
    return named


def expert_tensors(base: Any) -> list[str]:
    """Names of the tensors of three dimensions that hold all experts of a layer: PEFT can put an adapter on each expert."""
    inside = _text_part(base)
    return [
        name
        for name, weight in base.named_parameters()
        if name.startswith(inside)
        and weight.dim() == _EXPERTS_ROWS_COLUMNS
        and name.split(".")[-2] == "experts"
    ]


def _are_named(tensors: list[str], end: str) -> bool:
    return any(ends_with(name, [end]) for name in tensors)


def _short(tensors: Iterable[str]) -> list[str]:
    return sorted({".".join(name.split(".")[-2:]) for name in tensors})


def _text_part(base: Any) -> str:
    """The beginning of the names of all parts that text goes through; empty for a model of text alone.

    Models that see or hear have other parts too, such as a vision tower, which learn nothing from text.
    """
    try:
        is_text_alone = base.config.get_text_config() is base.config
    except ValueError:  # several parts read text
        is_text_alone = True
    if is_text_alone:
        return ""
    decoder = base.get_decoder()
    return next((f"{name}." for name, part in base.named_modules() if part is decoder and name), "")


def is_linear(part: torch.nn.Module) -> bool:
    """Whether PEFT can put a LoRA adapter on a part; GPT-2's Conv1D is a linear layer whose weight lies on its side.

    A model's own kind of linear layer is asked for its result: that of a router, for example, is scores and choices.
    """
    from transformers.pytorch_utils import Conv1D  # noqa: PLC0415  seconds

    if not isinstance(part, (torch.nn.Linear, Conv1D)):
        return False
    is_own = type(part).__module__.startswith(("transformers.models.", "transformers_modules."))
    return not is_own or type(part).forward is torch.nn.Linear.forward or _maps_rows(part)


def _maps_rows(part: Any) -> bool:
    try:
        with torch.no_grad():
            result = part(part.weight.new_zeros(1, part.in_features))
    except Exception:  # noqa: BLE001  a forward of somebody else
        return False
    return isinstance(result, torch.Tensor) and result.shape == (1, part.out_features)


def ends_with(name: str, ends: Iterable[str]) -> bool:
    """Whether a layer's name is one of these names or ends with one of them, as PEFT compares."""
    return any(name == end or name.endswith(f".{end}") for end in ends)


def _ends_of(name: str) -> Iterator[str]:
    """The ends of a name that are more than a number, the shortest first."""
    parts = name.split(".")
    return (".".join(parts[at:]) for at in reversed(range(len(parts))) if not parts[at].isdigit())


def _refused_by_peft(base: Any, linear: set[str]) -> set[str]:
    """The linear layers that PEFT 0.21 puts no adapter on.

    Mamba's kernels read two of their weights past the layer (`tuners_utils.py`). And in families whose experts were layers
    before transformers 5, PEFT takes the names that these had for the tensors of all experts, also where a layer beside them
    has that name still, such as DeepSeek's shared experts (`transformers_weight_conversion.py`).
    """
    of_mamba = ("out_proj", "conv1d") if base.config.model_type in _OF_MAMBA else ()
    refused = (*of_mamba, *_taken_for_experts(base, linear))
    return {name for name in linear if ends_with(name, refused)}


def _taken_for_experts(base: Any, linear: set[str]) -> set[str]:
    """Last names of layers that PEFT takes for something else: it is asked for each."""
    from peft import LoraConfig  # noqa: PLC0415  seconds
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers  # noqa: PLC0415

    taken = set()
    for end in {name.rsplit(".", 1)[-1] for name in linear}:
        config = LoraConfig(target_modules=[end])
        try:
            convert_peft_config_for_transformers(config, base, None)
        except ValueError:  # one of two names that are one tensor
            taken.add(end)
        else:
            taken.update({end} - set(config.target_modules))
    return taken


def said_of_unreached(base: Any, targets: list[str]) -> str | None:
    """A warning with the share of weights that no adapter reaches, such as experts that are one tensor of three dimensions.

    Embeddings, the output head and parts that no text goes through do not count.
    """
    inside = _text_part(base)
    outside = {id(part) for part in (base.get_input_embeddings(), base.get_output_embeddings())}
    total, unreached, is_any_linear = 0, dict[str, int](), False
    for place, part in base.named_modules():
        for name, weight in part.named_parameters(recurse=False):
            if weight.dim() <= 1 or id(part) in outside or isinstance(part, torch.nn.Embedding):
                continue
            if not place.startswith(inside):
                continue
            total += weight.numel()
            is_layer = is_linear(part)
            if not (is_layer and ends_with(place, targets)):
                is_any_linear |= is_layer
                called = ".".join([*place.split(".")[-2:], name])
                unreached[called] = unreached.get(called, 0) + weight.numel()
    share = sum(unreached.values()) / max(total, 1)
    if share < _SMALL_SHARE:
        return None
    largest = sorted(unreached, key=lambda name: (-unreached[name], name))
    why = "PEFT takes no adapter for them" if is_any_linear else "they are no linear layers"
    names = _short(expert_tensors(base))
    asking = f", and lora.targetModules that names {', '.join(names)} the experts" if names else ""
    return (
        f"no adapter reaches {share:.0%} of the weights between embedding and output head, because {why}:"
        f" {', '.join(largest[:_MAX_SHOWN])}; method: sft trains them{asking}"
    )
