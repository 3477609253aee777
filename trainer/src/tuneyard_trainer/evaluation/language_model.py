# SPDX-License-Identifier: Apache-2.0
"""The model of a training as lm-evaluation-harness asks one: log-likelihoods of texts, by all processes together."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch.nn import functional

from tuneyard_trainer.evaluation.generate import BATCH
from tuneyard_trainer.model.adapter_config import prompt_length
from tuneyard_trainer.model.world import World

LONGEST = 2048
"""Most tokens that are read at once, as lm-evaluation-harness has it for a model that names no length."""
_TOKENS_AT_ONCE = 8192
"""Tokens of a batch of several texts: their logits are the largest tensor."""
_Request = tuple[Any, list[int], list[int]]
"""What was asked in words, the ids of the context, and those of what is scored."""


class TrainedModel(TemplateLM):  # type: ignore[misc]  # lm_eval has no types
    """Texts of equal length share a batch, so that nothing is padded; every process must ask the same."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        longest: int,
        device: torch.device,
        world: World,
        batch_done: Callable[[int, int], None] = lambda _done, _of: None,
    ) -> None:
        """`tokenizer` is that of transformers; `batch_done` is called with the number of texts done, and of all."""
        super().__init__()
        self.tokenizer = tokenizer
        self.max_length = min(longest, LONGEST)
        self._model, self._where, self._world, self._batch_done = model, device, world, batch_done

    @property
    def eot_token_id(self) -> int:
        """The token before which a text without context begins."""
        found = self.tokenizer.bos_token_id
        return int(self.tokenizer.eos_token_id if found is None else found)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """The ids of a text; a token of the beginning is not put before one that has it."""
        begin = self.tokenizer.decode([self.eot_token_id])
        if add_special_tokens is None:
            add_special_tokens = not (begin and string.startswith(begin))
        return list(self.tokenizer.encode(string, add_special_tokens=add_special_tokens))

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-probability of each whole text in nats, in windows of `max_length` that do not overlap."""
        del disable_tqdm
        asked: list[_Request] = []
        owners: list[int] = []
        for number, request in enumerate(requests):
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            for context, scored in map(make_disjoint_window, windows):
                asked.append((None, list(context), list(scored)))
                owners.append(number)
        totals = [0.0] * len(requests)
        for owner, (value, _) in zip(owners, self._loglikelihood_tokens(asked), strict=True):
            totals[owner] += value
        return totals

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        """No benchmark of ours asks for it."""
        raise NotImplementedError("benchmarks that generate text are not offered")

    def _loglikelihood_tokens(self, requests: Sequence[_Request], **_: Any) -> list[tuple[float, bool]]:
        """Log-probability in nats of what is scored, and whether greedy decoding would say it."""
        batches = list(self._batches(requests))
        found: dict[int, tuple[float, bool]] = {}
        self._model.eval()
        for first in range(0, len(batches), self._world.size):
            mine = first + self._world.rank
            # A process without a batch must still take part in every forward pass.
            numbers = batches[mine if mine < len(batches) else first]
            found |= dict(zip(numbers, self._score([requests[n] for n in numbers]), strict=True))
            self._batch_done(sum(map(len, batches[: first + self._world.size])), len(requests))
        together = {number: score for part in self._world.gather(found) for number, score in part.items()}
        return [together[number] for number in range(len(requests))]

    def _batches(self, requests: Sequence[_Request]) -> list[list[int]]:
        by_length: dict[int, list[int]] = {}
        for number, (_, context, scored) in enumerate(requests):
            by_length.setdefault(min(len(context) + len(scored) - 1, self.max_length), []).append(number)
        batches = []
        for length, numbers in sorted(by_length.items()):
            size = max(1, min(BATCH, _TOKENS_AT_ONCE // max(1, length)))
            batches += [numbers[at : at + size] for at in range(0, len(numbers), size)]
        return batches

    def _score(self, requests: Sequence[_Request]) -> list[tuple[float, bool]]:
        # What is predicted last is not read. Of a text that is too long the end is kept.
        rows = [(context + scored)[-(self.max_length + 1) :] for _, context, scored in requests]
        ids = torch.tensor([row[:-1] for row in rows], dtype=torch.int64, device=self._where)
        wanted = [min(len(scored), len(row) - 1) for (_, _, scored), row in zip(requests, rows, strict=True)]
        keep = max(wanted)
        with torch.no_grad():
            logits = self._model(input_ids=ids, use_cache=False, logits_to_keep=keep).logits[:, -keep:]
        scores = []
        for row, count, some in zip(rows, wanted, logits, strict=True):
            targets = torch.tensor(row[-count:], dtype=torch.int64, device=self._where)
            mine = some[-count:].float()
            total = -float(functional.cross_entropy(mine, targets, reduction="sum"))
            scores.append((total, bool((mine.argmax(dim=-1) == targets).all())))
        return scores


def room_of(model: Any) -> int:
    """Tokens of a text that a model has room for, beside its virtual tokens."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return LONGEST if positions is None else int(positions) - prompt_length(model)
