# SPDX-License-Identifier: Apache-2.0
"""What transformers reads of a model folder: its tokenizer and its configuration; without PyTorch.

This is the one module of the data reader that imports transformers. A process that must stay small hides PyTorch from it
first: then the import takes 3 s and 80 MB instead of 8 s and 700 MB (transformers 5.23, measured on one core).
"""

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tuneyard_data.refused import DataRefused

_ATTENTION = frozenset(
    {
        *("full_attention", "sliding_attention", "chunked_attention", "indexed_attention", "attention"),
        *("mlp", "moe"),
    }
)
"""Kinds of layers that see other tokens through an attention mask, or not at all."""
_LAYER_KINDS = ("layer_types", "layers_block_type", "block_types")
_STATE_KEYS = re.compile(r"(^|_)(mamba|ssm|lru|conv|conv1d|time_step)(_|$)")
"""Keys of a configuration whose model carries a state from token to token."""
_STATE_FAMILIES = ("rwkv", "xlstm", "mamba")


def hide_pytorch() -> None:
    """Makes this process work as if PyTorch were not installed; before transformers is imported, or never."""
    sys.modules["torch"] = None  # type: ignore[assignment]
    # Otherwise transformers says on standard error that there is none.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer as transformers loads it, offline and without running code that comes with a model.

    Raises:
        DataRefused: if transformers can't load it, if it runs in Python alone, or if a token gets another id than its file says.
    """
    from transformers import AutoTokenizer  # noqa: PLC0415  seconds
    from transformers.utils import logging  # noqa: PLC0415

    logging.set_verbosity_error()
    try:
        loaded = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001  the libraries raise bare Exception and much else
        raise DataRefused(f"{folder}: this is no readable tokenizer: {_first_line(error)}") from None
    if not getattr(loaded, "is_fast", False):
        raise DataRefused(
            f"{folder}: the tokenizer {type(loaded).__name__} runs in Python alone and can't say which characters a token"
            " covers; try a revision of the model with a tokenizer.json"
        )
    _check_ids(folder / "tokenizer.json", loaded)
    return loaded


def _check_ids(file: Path, loaded: Any) -> None:
    """Every added token has the id that its file says, which is the row of it in the model.

    tokenizers 0.23.3 does not read that id: an added token that the vocabulary lacks gets the number of entries so far. Where the
    vocabulary has a gap that is the id of another token, and each of its words is then read as the added token.
    """
    if not file.is_file():
        return
    for added in json.loads(file.read_bytes()).get("added_tokens") or ():
        token, said = added["content"], added["id"]
        given = loaded.convert_tokens_to_ids(token)
        if given != said:
            raise DataRefused(
                f"{file}: the token {token!r} has id {said} in this file, and the library tokenizers gives it id {given}, as ids"
                " of its vocabulary are missing; try a tokenizer.json whose ids have no gap"
            )


def plain_rendering(tokenizer: Any) -> Callable[[dict[str, Any]], str]:
    """What apply_chat_template does to messages that are a role and a text, with the template that it compiles, in a third of the time.

    For each chat apply_chat_template copies all messages, to make other values plain, and Jinja all globals and their names.
    """
    from jinja2.runtime import new_context  # noqa: PLC0415  beside transformers alone
    from transformers.utils.chat_template_utils import _compile_jinja_template  # noqa: PLC0415  seconds

    compiled = _compile_jinja_template(tokenizer.get_chat_template())
    always = {**compiled.globals, **tokenizer.special_tokens_map, "tools": None, "documents": None}

    def render(values: dict[str, Any]) -> str:
        context = new_context(
            compiled.environment, compiled.name, compiled.blocks, always | values, shared=True
        )
        return "".join(compiled.root_render_func(context))

    return render


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a model with all defaults of its family.

    Raises:
        DataRefused: if transformers does not know the family, can't read the values, or has no causal language model of it.
    """
    from transformers import CONFIG_MAPPING, AutoConfig, __version__  # noqa: PLC0415  seconds
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES  # noqa: PLC0415

    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001  a configuration can be wrong in any way
        family = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
        if family not in CONFIG_MAPPING:
            raise DataRefused(
                f"{folder / 'config.json'}: transformers {__version__} does not know the model_type {family}; try a model of"
                " another family, or a runtime whose image has a newer transformers"
            ) from None
        raise DataRefused(f"{folder / 'config.json'}: {_first_line(error)}") from None
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise DataRefused(
            f"{folder / 'config.json'}: transformers has no causal language model of the family {config.model_type};"
            " try a model that generates text"
        )
    values: dict[str, Any] = config.to_dict()
    return values


def carries_state(config: dict[str, Any]) -> bool:
    """Whether layers of a model carry a state from token to token, which no attention mask stops.

    `config` is of `read_config`. Such layers are convolutions, state spaces, linear attention and recurrences.
    """
    text = config.get("text_config")
    values = config | text if isinstance(text, dict) else config
    kinds = {kind for key in _LAYER_KINDS for kind in values.get(key) or ()}
    is_known = str(values.get("model_type", "")).startswith(_STATE_FAMILIES)
    return is_known or bool(kinds - _ATTENTION) or any(map(_STATE_KEYS.search, values))


def _first_line(error: Exception) -> str:
    """The first line of a message, and the next one where it only says that something follows."""
    lines = str(error).strip().splitlines()
    if len(lines) > 1 and lines[0].endswith(":"):
        return f"{lines[0]} {lines[1].strip()}"
    return lines[0] if lines else type(error).__name__
