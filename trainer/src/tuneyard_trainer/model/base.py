# SPDX-License-Identifier: Apache-2.0
"""Finds the base model and checks its files before a GPU is requested."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuneyard_api.pod_contract import FailureClass, ResolvedJob
from tuneyard_data.pretrained import carries_state, read_config

from tuneyard_trainer.fetch.hub import fetch_model
from tuneyard_trainer.model.families import Family
from tuneyard_trainer.model.weights import check_pointer, check_weights, fewer_bits
from tuneyard_trainer.pod.failures import StageFailure, bad_input

_WEIGHTS, _INDEX, _ADAPTER = "model.safetensors", "model.safetensors.index.json", "adapter_config.json"
_OTHER_TOKENIZERS = (
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
)
"""Files of tokenizers that are not read here."""
_READ_AS_TEXT = (".json", ".jinja")
_CONSOLIDATED = "consolidated.safetensors"
_QUANTIZED = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")
"""Files beside weights in formats of fewer bits (GPTQ, AWQ, ModelOpt)."""
_QUANTIZATION = ("quantization_config", "compression_config", "quantization")
"""Keys of config.json that say how weights were made smaller; the last one is of MLX."""
_SIZES = frozenset(
    (
        *("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size"),
        *("n_embd", "n_layer", "n_head", "d_model"),
    )
)
"""Sizes in config.json that every model which has them needs."""
_PICKLED = re.compile(r"(pytorch_model.*\.bin|.*\.(pt|pth|ckpt|pkl))$")


@dataclass(frozen=True)
class BaseModel:
    """A model folder that has what training needs."""

    folder: Path
    revision: str | None
    """Commit of a hub model."""
    config: dict[str, Any]
    licence: str | None
    """Licence, as the model card names it."""

    carries_state: bool = False
    """Layers carry a state from token to token, so that records of one sequence would see each other."""

    @property
    def model_type(self) -> str:
        """The family, such as `llama`."""
        return str(self.config["model_type"])

    @property
    def vocabulary_size(self) -> int | None:
        """Number of rows of the embedding."""
        return self._number("vocab_size")

    @property
    def positions(self) -> int | None:
        """The longest sequence that the model supports, in tokens."""
        return self._number("max_position_embeddings")

    @property
    def attention_window(self) -> int | None:
        """Number of earlier tokens that a token attends to, if the model limits it."""
        window = self._number("sliding_window")
        return window if self.config.get("use_sliding_window", True) else None

    def _number(self, name: str) -> int | None:
        text_config = self.config.get("text_config")
        value = self.config.get(name, text_config.get(name) if isinstance(text_config, dict) else None)
        return value if isinstance(value, int) and not isinstance(value, bool) else None


def find_base_model(job: ResolvedJob, cache: Path) -> BaseModel:
    """The model of a job, downloaded if it comes from a hub.

    Raises:
        StageFailure: with everything that the folder lacks, or why the runtime may not run it.
    """
    revision = None
    if job.model.repo is not None:
        folder, revision, names = fetch_model(job.model, cache, with_weights=job.data_store is None)
        called = f"model {job.model.repo}@{revision[:12]}"
    else:
        folder = Path(job.model.path or "")
        called = f"model {folder}"
        if not folder.is_dir():
            raise StageFailure(
                FailureClass.MODEL_MISSING, f"{called}: there is no such folder{_neighbours(folder)}"
            )
        names = sorted(path.name for path in folder.iterdir())
    if job.data_store is None:
        weights = _check_files(called, folder, names)
    else:
        # A service trains, from weights of its own.
        weights = []
        _check_named(called, names, _missing_of_tokenizer(folder))
    config = _read_config(called, folder)
    _check_sizes(called, config)
    _check_format(called, folder, config)
    check_weights(called, weights, _weight_index(folder) if weights else {})
    model = BaseModel(folder, revision, config, _licence(folder))
    _check_runtime(called, model, job)
    if config.get("auto_map"):
        return model  # only its own Python knows what it is
    values = read_config(folder)
    _check_family(called, model, values)
    return replace(model, carries_state=carries_state(values))


def _check_sizes(called: str, config: dict[str, Any]) -> None:
    for part in (config, config.get("text_config")):
        for name, value in part.items() if isinstance(part, dict) else ():
            is_number = isinstance(value, int) and not isinstance(value, bool)
            if name in _SIZES and is_number and value < 1:
                raise bad_input(
                    f"{called}: config.json: {name} is {value}, and a model needs at least 1; try the config.json that belongs to"
                    " the weights"
                )


def _check_format(called: str, folder: Path, config: dict[str, Any]) -> None:
    """The weights are plain numbers, and not some format of fewer bits, in which nothing can be trained here."""
    for part in (config, config.get("text_config")):
        values = part if isinstance(part, dict) else {}
        own = next((values[key] for key in _QUANTIZATION if values.get(key)), None)
        if own is not None:
            method = own.get("quant_method") if isinstance(own, dict) else None
            raise bad_input(fewer_bits(called, str(method or "quantized")))
    if kind := next((name for name in _QUANTIZED if (folder / name).is_file()), None):
        raise bad_input(fewer_bits(called, kind))


def _check_family(called: str, model: BaseModel, values: dict[str, Any]) -> None:
    family = Family.of(model.model_type)
    if not family.is_causal and not values.get("is_decoder"):
        raise bad_input(
            f"{called}: with this config.json a token of {model.model_type} sees later tokens too; try a model that generates"
            ' text, or "is_decoder": true in config.json if it was trained so'
        )


def _check_files(called: str, folder: Path, names: list[str]) -> list[Path]:
    """The files of the weights, all of them there."""
    for file in sorted(folder.iterdir()):
        if file.suffix in _READ_AS_TEXT and file.is_file():
            check_pointer(called, file)
    missing = _missing_of_tokenizer(folder)
    shards = sorted(set(_weight_index(folder).values()))
    if shards:
        missing += [shard for shard in shards if not (folder / shard).is_file()]
    elif not (folder / _WEIGHTS).is_file():
        pickled = sorted(name for name in names if _PICKLED.match(name))
        if pickled:
            raise bad_input(
                f"{called}: the weights are pickled ({', '.join(pickled[:3])}), which can run code when they are read;"
                " try a revision with *.safetensors, or convert them"
            )
        packed = sorted(name for name in names if name.endswith(".gguf"))
        if packed:
            raise bad_input(
                f"{called}: {packed[0]} is a model for llama.cpp, which can't be trained; try the repository that it was"
                " converted from, with *.safetensors"
            )
        if (folder / _CONSOLIDATED).is_file():
            raise bad_input(
                f"{called}: the weights are in Mistral's own format ({_CONSOLIDATED}); try a revision with {_WEIGHTS}"
            )
        missing.append(_WEIGHTS)
    if (folder / _ADAPTER).is_file():
        raise bad_input(
            f"{called}: the folder has an {_ADAPTER} too, and transformers would load that adapter into the base model; try"
            " to remove it, or to name its folder in model.adapter"
        )
    _check_named(called, names, missing)
    # transformers reads the one file where a folder has both.
    is_one = (folder / _WEIGHTS).is_file()
    return [folder / name for name in sorted({*shards, *([_WEIGHTS] if is_one else [])})]


def _missing_of_tokenizer(folder: Path) -> list[str]:
    return [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]


def _check_named(called: str, names: list[str], missing: list[str]) -> None:
    if missing:
        hint = ""
        if "tokenizer.json" in missing and any(name in _OTHER_TOKENIZERS for name in names):
            hint = "; try a revision with tokenizer.json, which AutoTokenizer's save_pretrained writes"
        raise StageFailure(
            FailureClass.MODEL_MISSING,
            f"{called}: missing {', '.join(missing[:8])}; there is {', '.join(names[:12]) or 'nothing'}{hint}",
        )


def _weight_index(folder: Path) -> dict[str, str]:
    try:
        content = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise bad_input(f"{folder / _INDEX}: malformed JSON: {error}") from None
    names: Any = content.get("weight_map") if isinstance(content, dict) else None
    files = list(names.values()) if isinstance(names, dict) else []
    if not files or not all(isinstance(name, str) and "/" not in name for name in files):
        raise bad_input(
            f"{folder / _INDEX}: it has no weight_map from tensors to files; try to fetch it again"
        )
    found: dict[str, str] = names
    return found


def _read_config(called: str, folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise bad_input(f"{called}: config.json: malformed JSON: {error}") from None
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise bad_input(f"{called}: config.json names no model_type")
    return config


def _check_runtime(called: str, model: BaseModel, job: ResolvedJob) -> None:
    families = job.runtime.model_families
    if model.config.get("auto_map") and not job.runtime.trust_remote_code:
        raise bad_input(
            f"{called}: it comes with its own Python (auto_map in config.json), which is not run; try a model that"
            f" transformers knows by itself, or model.trustRemoteCode: true if runtime {job.runtime.name} allows it"
        )
    if families and model.model_type not in families:
        raise bad_input(
            f"{called}: runtime {job.runtime.name} trains {', '.join(families)} (got model_type {model.model_type})"
        )


def _neighbours(folder: Path) -> str:
    try:
        names = sorted(path.name for path in folder.parent.iterdir())
    except OSError:
        return ""
    return f"; {folder.parent} has {', '.join(names[:12]) or 'nothing'}"


def _licence(folder: Path) -> str | None:
    """`license:` of the model card's front matter."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    front = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    match = re.search(r"^license:\s*(\S+)", front[1], re.MULTILINE) if front else None
    return match[1].strip("'\"") if match else None
