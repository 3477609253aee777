# SPDX-License-Identifier: Apache-2.0
"""The model: transformers and PEFT, float32 on CPU, one answer at a time, used by one thread only.

Greedy answers equal the trainer's evaluation token by token: same precision, same decoding, stop at the end token.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.utils.logging import disable_progress_bar
from tuneyard_api.pod_contract import ADAPTER_CONFIG

from tuneyard_server.adapters import AdapterRefusedError
from tuneyard_server.errors import PromptRefusedError, PromptTooLongError
from tuneyard_server.requests import Sampling

PLACEHOLDER = "placeholder"
"""Name of the adapter of rank 1 that PEFT always needs. It is never switched on."""
REPLACEMENT_CHARACTER = "\ufffd"

OnText = Callable[[str], None]


@dataclass(frozen=True)
class Answer:
    """One generated text."""

    text: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int
    """Number of tokens, with the end token."""


def count_safe_characters(text: str, stops: Sequence[str]) -> int:
    """How much of a growing text can be shown: not half a character, nor what may become a stop string."""
    safe = len(text.rstrip(REPLACEMENT_CHARACTER))
    for stop in stops:
        for size in range(min(len(stop) - 1, safe), 0, -1):
            if text[:safe].endswith(stop[:size]):
                safe -= size
                break
    return safe


def cut_at_stop(text: str, stops: Sequence[str]) -> str | None:
    """The text before the first stop string; None without one."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(places)] if places else None


class Watcher(StoppingCriteria):  # type: ignore[misc]  # transformers has no types here
    """Checks every new token: streams text, and ends the answer at a stop string or when the client is gone."""

    def __init__(
        self,
        decode: Callable[[torch.Tensor], str],
        prompt_tokens: int,
        stops: Sequence[str],
        on_text: OnText | None,
        is_cancelled: Callable[[], bool],
    ) -> None:
        self._decode, self._prompt_tokens, self._stops = decode, prompt_tokens, stops
        self._on_text, self._is_cancelled = on_text, is_cancelled
        self._shown = 0
        self.stopped_text: str | None = None

    def __call__(self, input_ids: torch.Tensor, _scores: torch.Tensor, **_: Any) -> torch.Tensor:
        """`input_ids`: (1, prompt and answer so far); returns (1,) whether to end here."""
        if self._on_text or self._stops:
            text = self._decode(input_ids[0, self._prompt_tokens :])
            self.stopped_text = cut_at_stop(text, self._stops)
            if self.stopped_text is None:
                self.show(text, count_safe_characters(text, self._stops))
        is_over = self.stopped_text is not None or self._is_cancelled()
        return torch.tensor([is_over], dtype=torch.bool, device=input_ids.device)

    def show(self, text: str, end: int) -> None:
        """Streams the text between what was shown before and `end`."""
        if self._on_text and end > self._shown:
            self._on_text(text[self._shown : end])
            self._shown = end


class Engine:
    """A base model with adapters that come and go."""

    def __init__(self, folder: Path, threads: int) -> None:
        """Loads the base model; local files and safetensors only, and no code that comes with a model."""
        torch.set_num_threads(threads)
        disable_progress_bar()
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        self.context: int = getattr(config, "max_position_embeddings", None) or 2048
        self._tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        base = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
        self._end_tokens = self._find_end_tokens(base)
        base.generation_config = (
            GenerationConfig()
        )  # The model's own defaults would apply to fields that a request leaves open.
        placeholder = LoraConfig(r=1, target_modules="all-linear", task_type="CAUSAL_LM")
        self._model = get_peft_model(base, placeholder, adapter_name=PLACEHOLDER).eval()
        self._loaded = 0

    def load_adapter(self, path: Path) -> str:
        """Loads an adapter beside the others and returns its handle.

        Raises:
            AdapterRefusedError: for another model, or otherwise nothing that PEFT loads completely.
        """
        self._loaded += 1
        handle = f"adapter{self._loaded}"  # Names of modules can't have dots, names of adapters can.
        try:
            result = self._model.load_adapter(path, handle, torch_device="cpu", local_files_only=True)
        except Exception as error:  # Any error of PEFT about these files concerns only this adapter.
            self.drop_adapter(handle)
            raise AdapterRefusedError(
                f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
            ) from error
        strangers = [*result.unexpected_keys, *result.missing_keys]
        if strangers:
            self.drop_adapter(handle)
            raise AdapterRefusedError(
                f"weights and {ADAPTER_CONFIG} differ in {len(strangers)} places: {strangers[0]}"
            )
        self._model.eval()
        return handle

    def drop_adapter(self, handle: str) -> None:
        """Frees an adapter, also one that was loaded half-way."""
        self._model.set_adapter(PLACEHOLDER)
        if handle in self._model.peft_config:
            self._model.delete_adapter(handle)

    def encode_prompt(self, prompt: str) -> list[int]:
        """Token ids, with what the tokenizer puts before every text."""
        ids: list[int] = self._tokenizer(prompt, verbose=False).input_ids
        while ids and ids[-1] in self._end_tokens:  # Some tokenizers end every text.
            ids.pop()
        if not ids:
            raise PromptRefusedError(
                "the prompt is empty, and this tokenizer has no begin token to start from"
            )
        return ids

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of the messages in the model's chat template, ready for the assistant's turn."""
        if not self._tokenizer.chat_template:
            raise PromptRefusedError("the model has no chat template; try /v1/completions")
        try:
            text = self._tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # A template is a program of the model and may raise any error.
            raise PromptRefusedError(f"the model's chat template refuses the messages: {error}") from error
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        return ids

    def check_length(self, ids: Sequence[int], sampling: Sampling) -> int:
        """New tokens that the answer may have.

        Raises:
            PromptTooLongError: with the numbers.
        """
        room = self.context - len(ids)
        wanted = sampling.max_tokens if sampling.max_tokens is not None else max(room, 1)
        if wanted > room:
            raise PromptTooLongError(
                f"the prompt has {len(ids)} tokens and max_tokens asks for {wanted}: {len(ids) + wanted} in all, "
                f"but the model's context has {self.context}; try max_tokens {room}"
                if room > 0
                else f"the prompt has {len(ids)} tokens, but the model's context has {self.context} for prompt and answer"
            )
        return wanted

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def generate(
        self,
        handle: str | None,
        ids: Sequence[int],
        sampling: Sampling,
        *,
        on_text: OnText | None = None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> Answer:
        """One answer, by the adapter of that handle or, with None, by the base model."""
        new_tokens = self.check_length(ids, sampling)
        watcher = Watcher(self._decode, len(ids), sampling.stop, on_text, is_cancelled)
        prompt = torch.tensor([list(ids)])
        arguments = {
            "input_ids": prompt,
            "attention_mask": torch.ones_like(prompt),
            "generation_config": self._build_generation_config(sampling, new_tokens),
            "stopping_criteria": StoppingCriteriaList([watcher]),
        }
        if sampling.temperature > 0:
            torch.manual_seed(sampling.seed if sampling.seed is not None else torch.seed())
        if handle is None:
            with self._model.disable_adapter():
                output = self._model.generate(**arguments)
        else:
            self._model.set_adapter(handle)
            output = self._model.generate(**arguments)
        answer = output[0, len(ids) :]
        text = self._decode(answer)
        if watcher.stopped_text is not None:
            text = watcher.stopped_text
        watcher.show(text, len(text))
        is_ended = watcher.stopped_text is not None or int(answer[-1]) in self._end_tokens
        return Answer(text, "stop" if is_ended else "length", len(ids), len(answer))

    def _find_end_tokens(self, base: Any) -> list[int]:
        """Every token that ends an answer, by the tokenizer, the generation settings or the configuration."""
        found = [self._tokenizer.eos_token_id]
        for config in (base.generation_config, base.config):
            end = getattr(config, "eos_token_id", None)
            found += end if isinstance(end, list) else [end]
        return list(dict.fromkeys(token for token in found if token is not None))

    def _build_generation_config(self, sampling: Sampling, new_tokens: int) -> GenerationConfig:
        """The generation settings, all of them explicit, so that no default of the model applies."""
        is_sampled = sampling.temperature > 0
        return GenerationConfig(
            max_new_tokens=new_tokens,
            do_sample=is_sampled,
            temperature=sampling.temperature if is_sampled else 1.0,
            top_p=sampling.top_p if is_sampled else 1.0,
            top_k=0 if is_sampled else 50,  # 0 means off; greedy decoding warns unless it is 50
            repetition_penalty=1.0,
            num_beams=1,
            eos_token_id=self._end_tokens or None,
            pad_token_id=self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else 0,
        )

    def _decode(self, tokens: torch.Tensor) -> str:
        """Text without the end token, be it special or an ordinary word, and without any tidying of spaces."""
        ids = tokens.tolist()
        if ids and ids[-1] in self._end_tokens:
            ids.pop()
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text
