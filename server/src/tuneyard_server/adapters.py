# SPDX-License-Identifier: Apache-2.0
"""Adapters on disk: finds the folder of a name, and checks whether an adapter can be served, with vLLM's rules and messages.

A folder of the adapters' folder counts only if its configuration is of LoRA and names the base model by the very string
of `--model`. adapter_config.json is checked before PyTorch loads a weight.
"""

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from tuneyard_api.pod_contract import ADAPTER_CONFIG

METHOD = "LORA"
REQUIRED = ("lora_alpha", "r", "target_modules")
HARMLESS_INITS = frozenset({"gaussian", "eva", "orthogonal", "mica", "lora_ga"})
"""Initialisations that leave the base model unchanged; PiSSA, OLoRA, CorDA and LoftQ change it."""


class AdapterRefusedError(Exception):
    """The base model can't carry this adapter; the message says why."""


class AdapterMissingError(Exception):
    """Raised when the folder has no adapter."""


class ConfigUnreadableError(Exception):
    """The configuration lacks what is compared (`is_incomplete`), or is no JSON."""

    def __init__(self, message: str, *, is_incomplete: bool) -> None:
        super().__init__(message)
        self.is_incomplete = is_incomplete


def find_adapter(folder: Path, name: str, model: str) -> Path | None:
    """The folder of the adapter that answers to `name`; None: there is none for the base model `model`.

    Names are paths below `folder`, links included; unlike vLLM's, none leads out of it.

    Raises:
        ConfigUnreadableError: its configuration can't be compared.
    """
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\0" in name:
        return None
    path = folder / name
    if not (path / ADAPTER_CONFIG).is_file():
        return None
    try:
        config = json.loads((path / ADAPTER_CONFIG).read_bytes())
        is_ours = (config["peft_type"], config["base_model_name_or_path"]) == (METHOD, model)
    except KeyError as error:
        raise ConfigUnreadableError(str(error), is_incomplete=True) from None
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigUnreadableError(str(error), is_incomplete=False) from None
    return path if is_ours else None


def check_adapter(path: Path, max_rank: int) -> None:
    """Raise what keeps the adapter in `path` from being served.

    Raises:
        AdapterMissingError: no configuration is there.
        AdapterRefusedError: it asks for something that is not served, or its rank is too large.
    """
    try:
        config = json.loads((path / ADAPTER_CONFIG).read_bytes())
    except OSError:
        raise AdapterMissingError from None
    except (ValueError, RecursionError) as error:
        raise AdapterRefusedError(str(error)) from None
    if not isinstance(config, dict):
        raise AdapterRefusedError(f"{ADAPTER_CONFIG} is no JSON object")
    if config.get("peft_type", METHOD) != METHOD:
        raise AdapterRefusedError(f"peft_type {config['peft_type']!r} is not supported.")
    if missing := {name for name in REQUIRED if name not in config}:
        raise AdapterRefusedError(f"Missing required configuration fields: {missing}")
    if problems := unserved_settings(config):
        raise AdapterRefusedError(" ".join(problems))
    ranks = [config["r"], *(config.get("rank_pattern") or {}).values()]
    if not all(isinstance(rank, int) and rank > 0 for rank in ranks):
        raise AdapterRefusedError(f"LoRA ranks must be positive integers, got {ranks}.")
    if max(ranks) > max_rank:
        raise AdapterRefusedError(f"LoRA rank {max(ranks)} is greater than max_lora_rank {max_rank}.")


def unserved_settings(config: Mapping[str, Any]) -> list[str]:
    """A sentence for each setting that changes what an adapter is and that vLLM does not serve."""
    saved = [name for name in config.get("modules_to_save") or () if name not in {"classifier", "score"}]
    init = config.get("init_lora_weights", True)
    found = {
        f"Unsupported modules_to_save: {saved}": saved,
        "DoRA (use_dora) is not supported.": config.get("use_dora"),
        "Adapter bias is not supported.": config.get("bias", "none") != "none",
        "LoRA bias (lora_bias) is not supported.": config.get("lora_bias"),
        f"init_lora_weights={init!r} is not supported: it modifies the base model.": isinstance(init, str)
        and init.lower() not in HARMLESS_INITS,
        "Activated LoRA (aLoRA) is not supported.": config.get("alora_invocation_tokens"),
        "layer_replication is not supported.": config.get("layer_replication"),
        "BD-LoRA (use_bdlora) is not supported.": config.get("use_bdlora"),
        "QALoRA (use_qalora) is not supported.": config.get("use_qalora"),
    }
    return [sentence for sentence, is_asked in found.items() if is_asked]
