# SPDX-License-Identifier: Apache-2.0
"""A packed record costs what it costs alone, whichever attention computes it: eager, PyTorch's, or flex_attention.

flash-attn has no CPU build: of it is tested what transformers reads of the trainer's positions, by transformers' own function.
"""

from unittest import mock

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tuneyard_data.tokenization import TokenizedRecord  # noqa: E402
from tuneyard_trainer.model import families  # noqa: E402
from tuneyard_trainer.model.loading import Device  # noqa: E402
from tuneyard_trainer.training.batches import Batch, collate, summed_loss  # noqa: E402
from tuneyard_trainer.workspace.prepared import Split  # noqa: E402

# transformers calls PyTorch with a flag that is to go.
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:_compile flag:DeprecationWarning")]
CPU = Device(torch.device("cpu"), torch.float32, is_autocast=False)
LENGTHS = [9, 3, 20, 7, 5, 20]
ROWS = [[0, 1, 2], [3, 4, 5]]
SIZES = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
MODELS = {
    "llama": ("Llama", {}),
    "mistral that looks back on 8 tokens": ("Mistral", {"sliding_window": 8}),
}


def split_of(rows, learned=None):
    draw = np.random.default_rng(0)
    records = [
        TokenizedRecord(
            draw.integers(2, 96, length).astype(np.int32),
            np.full(length, learned is None or number == learned),
            length,
            1,
        )
        for number, length in enumerate(LENGTHS)
    ]
    return Split.of(records, rows)


def loss_of(model, split, rows):
    with torch.no_grad():
        return float(summed_loss(model, collate(split, range(rows), CPU), CPU))


FLEX_WINDOW = pytest.mark.skip(
    reason="of flex_attention with a window PyTorch 2.15 writes C++ for a CPU that does not compile (cur_kvSplitSize2)"
)


# flex_attention is compiled for every shape, which takes more than a minute.
@pytest.mark.parametrize(
    ("called", "attention"),
    [
        *((called, attention) for called in MODELS for attention in ("eager", "sdpa")),
        pytest.param("llama", "flex_attention", marks=pytest.mark.long),
        pytest.param(
            "mistral that looks back on 8 tokens", "flex_attention", marks=[pytest.mark.long, FLEX_WINDOW]
        ),
    ],
)
def test_a_packed_record_costs_what_it_costs_alone(called, attention):
    name, options = MODELS[called]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SIZES, **options)
    model = getattr(transformers, f"{name}ForCausalLM")._from_config(config, attn_implementation=attention)
    model.eval()
    with mock.patch.object(families.Family, "of", return_value=families.Family(("positions",))):
        for number in range(len(LENGTHS)):
            alone = loss_of(model, split_of([[number]], number), 1)
            packed = loss_of(model, split_of(ROWS, number), len(ROWS))
            assert packed == pytest.approx(alone, rel=1e-4)
    # The comparison can fail: with positions that go on, records see each other.
    batch = collate(split_of(ROWS, 2), range(len(ROWS)), CPU)
    on = torch.arange(batch.tokens.shape[1]).expand_as(batch.positions)
    with torch.no_grad():
        blind = float(summed_loss(model, Batch(batch.tokens, on, None, batch.labels), CPU))
    assert blind != pytest.approx(loss_of(model, split_of([[2]], 2), 1), rel=1e-3)


def test_flash_attention_would_read_the_bounds_of_the_records():
    from transformers.modeling_flash_attention_utils import (
        _is_packed_sequence,
        prepare_fa_kwargs_from_position_ids,
    )

    batch = collate(split_of(ROWS), range(len(ROWS)), CPU)
    assert batch.tokens.shape == (2, 32)
    flat = batch.positions.reshape(1, -1)
    (queries, keys), (longest, _) = prepare_fa_kwargs_from_position_ids(flat)
    assert _is_packed_sequence(flat, 1)
    assert queries.tolist() == keys.tolist() == batch.bounds.on_device.tolist() == [0, 9, 12, 32, 39, 44, 64]
    assert int(longest) == 20


def test_flash_attention_of_transformers_does_not_see_records_in_several_rows():
    """Why the trainer never selects it: transformers looks for packed records only where a batch is one row."""
    from transformers.modeling_flash_attention_utils import _is_packed_sequence

    batch = collate(split_of(ROWS), range(len(ROWS)), CPU)
    assert not _is_packed_sequence(batch.positions, len(batch.positions))
