# SPDX-License-Identifier: Apache-2.0
"""Checks the adapter that a job continues, before a GPU is requested: it must fit the base model and the job.

Only names and shapes are read, so this needs no PyTorch. A LoRA adapter of rank r holds for a layer of weight
[out, in] the factors A [r, in] and B [out, r].
"""

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from tuneyard_api.job import Lora
from tuneyard_api.pod_contract import (
    ADAPTER_CONFIG,
    ADAPTER_FILES,
    ADAPTER_WEIGHTS,
    FailureClass,
    ResolvedAdapter,
    ResolvedJob,
)

from tuneyard_trainer.model.base import BaseModel
from tuneyard_trainer.model.weights import check_pointer
from tuneyard_trainer.pod.failures import StageFailure, bad_input
from tuneyard_trainer.workspace.layout import FORMER_ADAPTER

Shapes = Mapping[str, tuple[int, ...]]

_FACTOR = re.compile(r"^base_model\.model\.(.+)\.lora_([AB])\.weight$")
_PLAIN: Mapping[str, Any] = {
    "peft_type": "LORA",
    "bias": "none",
    "modules_to_save": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "layers_to_transform": None,
    "layers_pattern": None,
    "trainable_token_indices": None,
    "fan_in_fan_out": False,
    "use_dora": False,
    "use_qalora": False,
    "use_bdlora": None,
    "lora_bias": False,
    "layer_replication": None,
    "target_parameters": None,
    "alora_invocation_tokens": None,
    "velora_config": None,
    "monteclora_config": None,
    "arrow_config": None,
    "kasa_config": None,
    "ensure_weight_tying": False,
}
"""Options of an adapter that must be as they are by default: it then is what vLLM serves, LoRA of one rank on linear layers."""
_KEPT = frozenset(
    {
        *(
            "r",
            "lora_alpha",
            "lora_dropout",
            "use_rslora",
            "target_modules",
            "exclude_modules",
            "init_lora_weights",
        ),
        *("task_type", "auto_mapping", "inference_mode", "runtime_config", "peft_version"),
        *("base_model_name_or_path", "revision", "megatron_config", "megatron_core", "qalora_group_size"),
        *("loftq_config", "eva_config", "corda_config", "lora_ga_config"),
    }
)
"""Options that are kept as the adapter has them, or that only say where it came from."""
_SAFE_STARTS = (True, False, "gaussian", "eva", "orthogonal", None)
"""Values of init_lora_weights that leave the base model as it is; the others subtract the start of the adapter from it."""
_PEFT_RANK = 8
"""Rank and alpha of PEFT where a configuration does not have them."""
_MAX_SHOWN = 8


@dataclass(frozen=True)
class FormerAdapter:
    """An adapter that fits."""

    folder: Path
    base: str
    """Base model, as the adapter names it."""

    def copy_to(self, folder: Path) -> None:
        """Copies the adapter for the training stage, which does not mount the claim."""
        folder.mkdir()
        for name in ADAPTER_FILES:
            shutil.copyfile(self.folder / name, folder / name)

    def warnings(self, job: ResolvedJob) -> list[str]:
        """Warnings, such as a base model of another name, which may still be the same one."""
        own = PurePath(job.model.repo or job.model.path or "").name
        if PurePath(self.base).name == own:
            return []
        base = self.base or "a base model that it does not name"
        said = f"the adapter was trained on {base}, and the job's model is {own}: their shapes agree, but it only helps"
        return [f"{said} if their weights do"]


def find_adapter(adapter: ResolvedAdapter, lora: Lora, model: BaseModel) -> FormerAdapter:
    """The adapter at its path.

    Raises:
        StageFailure: ModelMissing, or BadInput with all that differs.
    """
    folder, called = Path(adapter.path), f"model.adapter {adapter.path}"
    missing = [name for name in ADAPTER_FILES if not (folder / name).is_file()]
    if missing:
        there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        raise StageFailure(
            FailureClass.MODEL_MISSING,
            f"{called}: missing {', '.join(missing)}; there is {', '.join(there[:12]) or 'nothing'}",
        )
    for name in ADAPTER_FILES:
        check_pointer(called, folder / name)
    config, factors = _read(called, folder)
    base = _shapes_of(model.folder)
    differences = [
        *_not_plain(config),
        *_no_number(config),
        *(_unlike_job(config, lora) if adapter.must_match_lora else ()),
        *_unlike_base(factors, base, _rank_of(config)),
        *_unlike_targets(factors, base, config),
    ]
    if differences:
        rest = len(differences) - _MAX_SHOWN
        shown = [*differences[:_MAX_SHOWN], *([f"... and {rest} more"] if rest > 0 else [])]
        raise bad_input("\n".join([f"{called}: it can't be trained on:", *shown]))
    return FormerAdapter(folder, str(config.get("base_model_name_or_path") or ""))


def lora_as_trained(job: ResolvedJob, prepared: Path) -> Lora:
    """The job's LoRA options, or those of the adapter in `prepared` that the job continues."""
    if job.adapter is None:
        return job.lora
    config = json.loads((prepared / FORMER_ADAPTER / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    targets = config.get("target_modules") or ()
    own = {
        "rank": _rank_of(config),
        "alpha": config.get("lora_alpha", _PEFT_RANK),
        "target_modules": (targets,) if isinstance(targets, str) else tuple(sorted(targets)),
    }
    if not job.adapter.must_match_lora:
        own["dropout"] = config.get("lora_dropout", 0.0)
    return job.lora.model_copy(update=own)


def _read(called: str, folder: Path) -> tuple[dict[str, Any], Shapes]:
    from safetensors import SafetensorError  # noqa: PLC0415

    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        factors = _read_shapes(folder / ADAPTER_WEIGHTS)
    except ValueError as error:
        raise bad_input(f"{called}: {ADAPTER_CONFIG}: malformed JSON: {error}") from None
    except SafetensorError as error:
        raise bad_input(f"{called}: {ADAPTER_WEIGHTS}: no readable safetensors: {error}") from None
    if not isinstance(config, dict):
        raise bad_input(f"{called}: {ADAPTER_CONFIG} is no object")
    return config, factors


def _read_shapes(path: Path) -> Shapes:
    from safetensors import safe_open  # noqa: PLC0415

    with safe_open(path, framework="numpy") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  no mapping


def _shapes_of(folder: Path) -> Shapes:
    return {
        name: shape for path in folder.glob("*.safetensors") for name, shape in _read_shapes(path).items()
    }


def _not_plain(config: Mapping[str, Any]) -> Iterator[str]:
    for name, plain in _PLAIN.items():
        value = config.get(name, plain)
        if value != plain and (plain or not _is_nothing(value)):
            yield f"{name} is {json.dumps(value)}, and only {json.dumps(plain)} can be trained and served"
    start = config.get("init_lora_weights")
    if start not in _SAFE_STARTS:
        yield (
            f"init_lora_weights is {json.dumps(start)}, which changed the base model itself; try to convert the adapter with"
            " path_initial_model_for_weight_conversion of PEFT's save_pretrained"
        )
    for name in sorted(config.keys() - _PLAIN.keys() - _KEPT):
        if config[name]:
            yield f"{name} is {json.dumps(config[name])}, and this trainer does not know that option"


def _is_nothing(value: Any) -> bool:
    """Whether a value stands for an option that is not used; 0 is the number of a layer."""
    return value is None or value is False or value in ("", [], {})


def _no_number(config: Mapping[str, Any]) -> Iterator[str]:
    """What PEFT would fail on, or learn nothing by: numbers that are none, or that are out of their range."""
    rank, alpha = _rank_of(config), config.get("lora_alpha", _PEFT_RANK)
    dropout = config.get("lora_dropout", 0.0)
    if not isinstance(rank, int) or rank < 1:
        yield f"r is {json.dumps(rank)}, which is no rank"
    if not isinstance(alpha, int | float) or alpha <= 0:
        yield f"lora_alpha is {json.dumps(alpha)}, and only a number above 0 can be trained"
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        yield f"lora_dropout is {json.dumps(dropout)}, and only a number from 0 to below 1 can be trained"


def _rank_of(config: Mapping[str, Any]) -> Any:
    return config.get("r", _PEFT_RANK)


def _unlike_job(config: Mapping[str, Any], lora: Lora) -> Iterator[str]:
    for name, has, asked in (
        ("rank", _rank_of(config), lora.rank),
        ("alpha", config.get("lora_alpha", _PEFT_RANK), lora.alpha),
    ):
        if has != asked:
            yield f"{name}: the adapter has {has}, lora.{name} asks for {asked}"
    has = config.get("target_modules") or ()
    targets = {has} if isinstance(has, str) else set(has)
    if lora.target_modules is not None and targets != set(lora.target_modules):
        yield (
            f"target modules: the adapter has {_listed(targets)}, lora.targetModules asks for"
            f" {_listed(lora.target_modules)}"
        )


def _unlike_base(factors: Shapes, base: Shapes, rank: Any) -> Iterator[str]:
    if not factors:
        yield "it has no weights"
    layers: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in sorted(factors.items()):
        match = _FACTOR.match(name)
        if match is None:
            yield f"{name} is no factor of a linear layer"
        else:
            layers.setdefault(match[1], {})[match[2]] = shape
    is_comparable = _is_comparable(layers, base)
    for layer, has in layers.items():
        weight = base.get(f"{layer}.weight")
        if weight is None:
            if is_comparable:
                yield f"{layer}: the model has no such layer"
            continue
        wanted = {"A": (rank, weight[-1]), "B": (weight[0], rank)}
        if has != wanted:
            yield (
                f"{layer}: the adapter has {_shapes_text(has)}, a model with weight {list(weight)} and rank {rank}"
                f" needs {_shapes_text(wanted)}"
            )


def _unlike_targets(factors: Shapes, base: Shapes, config: Mapping[str, Any]) -> Iterator[str]:
    """Layers that have weights and are not named, which PEFT would leave out, or the other way round, which would begin anew."""
    if not config.get("target_modules"):
        yield "target_modules names no layers; try the names that the adapter's weights have"
        return
    layers = {match[1] for match in map(_FACTOR.match, factors) if match}
    for layer in sorted(layers):
        if not _is_named(layer, config):
            yield f"{layer}: the adapter has weights for it, and target_modules does not name it"
    if config["target_modules"] == "all-linear" or not _is_comparable(layers, base):
        return
    for layer in sorted(_linear_layers(base) - layers):
        if _is_named(layer, config):
            yield f"{layer}: target_modules names it, and the adapter has no weights for it"


def _is_comparable(layers: Iterable[str], base: Shapes) -> bool:
    """Some families name their weights otherwise in files than in memory; PEFT compares those as it loads them."""
    return any(f"{layer}.weight" in base for layer in layers)


def _linear_layers(base: Shapes) -> set[str]:
    """The layers of a model's files with a weight of rows and columns; experts are one tensor in memory."""
    found = {name for name, shape in base.items() if name.endswith(".weight") and len(shape) == 2}  # noqa: PLR2004  both
    return {name.removesuffix(".weight") for name in found if ".experts." not in name}


def _is_named(layer: str, config: Mapping[str, Any]) -> bool:
    """Whether PEFT puts an adapter on a layer; `all-linear` and other words that stand for layers are left to it."""
    wanted, left_out = config.get("target_modules") or (), config.get("exclude_modules") or ()
    return (wanted == "all-linear" or _matches(layer, wanted)) and not _matches(layer, left_out)


def _matches(layer: str, names: Any) -> bool:
    """Whether a layer is meant, as PEFT compares: by a regular expression, or by names or their ends."""
    if not isinstance(names, str):
        return any(layer == name or layer.endswith(f".{name}") for name in names)
    try:
        return re.fullmatch(names, layer) is not None
    except re.error:
        return False


def _shapes_text(shapes: Mapping[str, tuple[Any, ...]]) -> str:
    return " and ".join(f"{name} {list(shape)}" for name, shape in sorted(shapes.items()))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
