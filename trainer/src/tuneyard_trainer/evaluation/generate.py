# SPDX-License-Identifier: Apache-2.0
"""Generates greedy, deterministic answers for the evaluation. A serving program must give the same ones.

From prompt token ids: the likeliest next token (the lowest id of several) until one of `stop_ids` or until
`max_new_tokens`; the ids before it decoded without special tokens, and stripped. No sampling, no penalties, no
settings of generation_config.json.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from tuneyard_trainer.model.adapter_config import prompt_length
from tuneyard_trainer.model.world import World

BATCH = 16
"""Number of prompts in one batch."""


def complete(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    stop_ids: Sequence[int],
    max_new_tokens: int,
    decode: Callable[[Sequence[int]], str],
    device: torch.device,
    batch_done: Callable[[int], None] = lambda _: None,
    world: World | None = None,
) -> list[str]:
    """The answer to each prompt. Only prompts of equal length share a batch, so that nothing is ever padded.

    Processes of a `world` share the batches, and each returns all answers. `batch_done` is called with the
    number of answered prompts, equally often in every process; if it raises, generation ends.
    """
    world = world or World()
    batches = list(_equal_lengths(prompts))
    answers: dict[int, str] = {}
    for first in range(0, len(batches), world.size):
        mine = first + world.rank
        # A process without a batch must still take part in every forward pass.
        numbers = batches[mine if mine < len(batches) else first]
        ids = torch.tensor([list(prompts[number]) for number in numbers], dtype=torch.int64, device=device)
        with torch.no_grad():
            batch = _greedy(model, ids, stop_ids, max_new_tokens, world)
        for number, answer in zip(numbers, batch, strict=True):
            answers[number] = decode(answer).strip()
        batch_done(sum(map(len, batches[: first + world.size])))
    together = {number: answer for part in world.gather(answers) for number, answer in part.items()}
    return [together[number] for number in range(len(prompts))]


def _equal_lengths(prompts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Indices of at most BATCH prompts of one length."""
    by_length: dict[int, list[int]] = {}
    for number, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(number)
    for _, numbers in sorted(by_length.items()):
        for at in range(0, len(numbers), BATCH):
            yield numbers[at : at + BATCH]


def _greedy(
    model: Any, prompt: torch.Tensor, stop_ids: Sequence[int], max_new_tokens: int, world: World
) -> list[list[int]]:
    """New ids for `prompt`, int64 [B, S], without the stop token."""
    stops = torch.tensor(list(stop_ids), device=prompt.device)
    is_done = torch.zeros(len(prompt), dtype=torch.bool, device=prompt.device)
    new: list[torch.Tensor] = []
    feed, cache = prompt, None
    # PEFT would put virtual tokens before each new token; they are in the cache already.
    following = model.get_base_model() if prompt_length(model) else model
    is_cached = _has_cache(model)
    for _ in range(max_new_tokens):
        output = (model if cache is None else following)(
            input_ids=feed, past_key_values=cache, use_cache=is_cached, logits_to_keep=1
        )
        # Families such as Mamba, RWKV and the first GPT have no cache of this form: they read everything again.
        cache = getattr(output, "past_key_values", None)
        token = output.logits[:, -1].float().argmax(dim=-1)
        is_done |= torch.isin(token, stops)
        new.append(torch.where(is_done, -1, token))
        if not world.is_any(not is_done.all()):
            break
        feed = token[:, None] if cache is not None else torch.cat((feed, token[:, None]), dim=1)
    return [[int(token) for token in row if token >= 0] for row in torch.stack(new, dim=1).tolist()]


def _has_cache(model: Any) -> bool:
    """Whether transformers can make a cache for this configuration; that of blt has no number of layers, which it asks for."""
    from transformers import DynamicCache  # noqa: PLC0415  seconds

    try:
        DynamicCache(config=model.config)
    except (AttributeError, ValueError):
        return False
    return True
