# SPDX-License-Identifier: Apache-2.0
"""Packed records do not see each other, in every family, and batches on a GPU have few shapes."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from support.tiny_families import tiny_config  # noqa: E402
from tuneyard_data.tokenization import TokenizedRecord  # noqa: E402
from tuneyard_trainer.fast.attention import Bounds, attend  # noqa: E402
from tuneyard_trainer.model.loading import Device  # noqa: E402
from tuneyard_trainer.model.record_bounds import take_bounds, takes_bounds  # noqa: E402
from tuneyard_trainer.training import batches  # noqa: E402
from tuneyard_trainer.training.batches import Batch, Frame, block_diagonal, collate, summed_loss  # noqa: E402
from tuneyard_trainer.workspace.prepared import Split  # noqa: E402

pytestmark = pytest.mark.torch
CPU = Device(torch.device("cpu"), torch.float32, is_autocast=False)
GPU = Device(torch.device("cuda", 0), torch.bfloat16, is_autocast=True)
BARE = Frame()
LENGTHS = [9, 3, 12, 7, 1, 20]
ROWS = [[0, 1, 2], [3, 4], [5]]

SMALL = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
GROUPED = SMALL | {"num_key_value_heads": 2}
FAMILIES = {
    "llama": ("Llama", GROUPED),
    "mistral that looks back on 8 tokens": ("Mistral", GROUPED | {"sliding_window": 8}),
    "qwen2": ("Qwen2", GROUPED),
    "qwen3": ("Qwen3", GROUPED | {"head_dim": 16}),
    "phi3": ("Phi3", GROUPED),
    "gemma": ("Gemma", GROUPED | {"head_dim": 16}),
    "gemma3, some layers with a window": ("Gemma3Text", GROUPED | {"head_dim": 16, "sliding_window": 8}),
    "gpt_neox": ("GPTNeoX", SMALL),
    "gpt2 with learned positions": ("GPT2", SMALL | {"attn_pdrop": 0.0}),
    "gpt2 with dropout in attention": ("GPT2", SMALL),
    "falcon, which can't be told": ("Falcon", SMALL | {"multi_query": False}),
}
CAN_NOT = {"gpt2 with dropout in attention", "falcon, which can't be told"}


def model_of(name, options):
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**options)
    head = {"GPT2": "GPT2LMHeadModel", "Gemma3Text": "Gemma3ForCausalLM"}.get(name, f"{name}ForCausalLM")
    return getattr(transformers, head)._from_config(config, attn_implementation="sdpa").eval()


@pytest.fixture(params=FAMILIES.items(), ids=FAMILIES.keys())
def family(request):
    called, (name, options) = request.param
    return called, model_of(name, options)


@pytest.fixture
def split():
    draw = np.random.default_rng(0)
    records = [
        TokenizedRecord(draw.integers(2, 96, n).astype(np.int32), draw.random(n) < 0.7, n, 1) for n in LENGTHS
    ]
    return lambda rows: Split.of(records, rows)


def alone(split):
    return split([[index] for index in range(len(LENGTHS))])


def loss_of(model, split, indices=None, frame=BARE):
    return summed_loss(model, collate(split, indices or range(len(split)), CPU, frame), CPU)


def gradient_of(model, loss):
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_packed_records_cost_what_they_cost_alone(family, split):
    called, model = family
    apart = [loss_of(model, alone(split), [index]) for index in range(len(LENGTHS))]
    expected = gradient_of(model, sum(apart))
    assert take_bounds(model) == takes_bounds(model) == (called not in CAN_NOT)
    together = loss_of(model, split(ROWS))
    assert float(together.detach()) == pytest.approx(float(sum(apart).detach()), rel=1e-5)
    assert gradient_of(model, together) == pytest.approx(expected, abs=2e-4)


def test_without_bounds_the_loss_is_another(family, split):
    """The test above can fail."""
    _, model = family
    take_bounds(model)
    batch = collate(split(ROWS), range(3), CPU)
    positions = torch.arange(batch.tokens.shape[1]).expand_as(batch.positions)
    blind = Batch(batch.tokens, positions, None, batch.labels)
    with torch.no_grad():
        assert abs(float(summed_loss(model, blind, CPU) - summed_loss(model, batch, CPU))) > 1e-2


def test_a_batch_that_is_filled_up_costs_the_same(family, split):
    _, model = family
    take_bounds(model)
    with torch.no_grad():
        bare = float(loss_of(model, split(ROWS)))
        assert float(loss_of(model, split(ROWS), frame=Frame(5, 32, 64))) == pytest.approx(bare, rel=1e-5)


def test_no_mask_of_all_pairs_is_made(split, monkeypatch):
    """Neither here nor by transformers, packed or not; only a model that can't be told gets one."""
    from transformers import masking_utils

    made = []
    monkeypatch.setattr(batches, "block_diagonal", lambda *of: made.append(of) or block_diagonal(*of))
    monkeypatch.setattr(masking_utils, "and_masks", lambda *_: made.append("transformers"))
    loss_of(model_of(*FAMILIES["falcon, which can't be told"]), split(ROWS))
    assert len(made) == 1
    model = model_of(*FAMILIES["llama"])
    take_bounds(model)
    loss_of(model, split(ROWS))
    loss_of(model, alone(split))
    assert len(made) == 1


def test_a_layer_that_does_not_know_the_bounds_fails(split, monkeypatch):
    model = model_of(*FAMILIES["llama"])
    take_bounds(model)
    forward = transformers.models.llama.modeling_llama.LlamaAttention.forward

    def forgetful(self, *arguments, bounds=None, **more):
        return forward(self, *arguments, **more)

    monkeypatch.setattr(transformers.models.llama.modeling_llama.LlamaAttention, "forward", forgetful)
    with pytest.raises(AssertionError, match="LlamaAttention was not told where records begin"):
        loss_of(model, split(ROWS))


def test_attention_is_computed_in_the_type_of_the_products(split, monkeypatch):
    """Weights in float32 leave queries and keys in float32, for which a GPU has no kernel of bounds."""
    from tuneyard_trainer.model import record_bounds

    seen = []
    real = record_bounds.attend
    monkeypatch.setattr(
        record_bounds, "attend", lambda q, *of, **more: seen.append(q.dtype) or real(q, *of, **more)
    )
    model = model_of(*FAMILIES["llama"])
    take_bounds(model)
    for autocast, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        device = Device(torch.device("cpu"), torch.float32, is_autocast=autocast)
        seen.clear()
        summed_loss(model, collate(split(ROWS), range(3), CPU), device).backward()
        assert set(seen) == {dtype}


def test_answers_are_those_of_plain_attention(family):
    _, model = family
    prompt = torch.randint(2, 96, (2, 14), generator=torch.Generator().manual_seed(1))
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    plain = model.generate(prompt, **options)
    take_bounds(model)
    assert torch.equal(model.generate(prompt, **options), plain)


@pytest.mark.parametrize("window", [None, 1, 4, 99])
def test_attention_is_that_of_a_mask(window):
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(30, heads, 8, generator=draw) for heads in (4, 2, 2))
    bounds = Bounds.of([0, 11, 12, 25, 30], torch.device("cpu"))
    mask = block_diagonal(bounds, 1)[0, 0]
    if window:
        mask = mask & torch.ones_like(mask).triu(1 - window)
    queries, keys, values = (each.transpose(0, 1) for each in (query, key, value))
    expected = torch.nn.functional.scaled_dot_product_attention(
        queries, keys.repeat_interleave(2, 0), values.repeat_interleave(2, 0), attn_mask=mask, scale=0.3
    ).transpose(0, 1)
    assert attend(query, key, value, bounds, scale=0.3, window=window) == pytest.approx(expected, abs=1e-5)


def test_mask_is_block_diagonal_and_causal():
    mask = block_diagonal(Bounds.of([0, 2, 3, 4], torch.device("cpu")), 1)[0, 0].int().tolist()
    assert mask == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_batch_of_packed_records(split):
    batch = collate(split(ROWS), [0, 1], CPU, Frame(3, 16, 64))
    assert batch.tokens.shape == (3, 32)
    assert batch.bounds.edges == (0, 9, 12, 24, 32, 39, 40, 64, 96)
    assert batch.bounds.on_device.tolist() == list(batch.bounds.edges)
    assert batch.bounds.longest == 32
    assert batch.positions[0].tolist() == [*range(9), *range(3), *range(20)], "they go on through padding"
    assert (batch.labels[2] == -100).all()


SHAPES = {
    "on a CPU: no more than is needed": (CPU, ROWS, [(1, 3), (2, 24)], [(1, 3), (2, 24)]),
    "packed on a GPU: one width": (GPU, ROWS, [(1, 3), (2, 24), (8, 24)], [(8, 64), (8, 64), (8, 64)]),
    "unpacked on a GPU: multiples of 64": (GPU, None, [(8, 3), (8, 65)], [(8, 64), (8, 128)]),
    "never more than the model is given": (GPU, ROWS, [(8, 190), (8, 200)], [(8, 192), (8, 200)]),
}


@pytest.mark.parametrize("case", SHAPES.values(), ids=SHAPES.keys())
def test_shapes_of_batches(split, job_of, tmp_path, case):
    device, rows, asked, shapes = case
    training = job_of(tmp_path, tmp_path, training={"microBatchSize": 8, "maxSequenceLength": 200}).training
    frame = Frame.of(split(rows) if rows else alone(split), training, device)
    assert [frame.shape(*of) for of in asked] == shapes


def test_a_long_training_on_a_gpu_meets_at_most_four_widths(job_of, tmp_path):
    draw = np.random.default_rng(0)
    records = [
        TokenizedRecord(np.zeros(n, np.int32), np.ones(n, bool), n, 1) for n in draw.integers(5, 3000, 300)
    ]
    split = Split.of(records, [[index] for index in range(300)])
    training = job_of(tmp_path, tmp_path, training={"maxSequenceLength": 4096}).training
    frame = Frame.of(split, training, GPU)
    widths = {frame.shape(2, int(length))[1] for length in split.tokens_per_sequence()}
    assert widths == {768, 1536, 2304, 3072}


def test_attention_of_selected_tokens_is_never_computed_as_attention_of_all():
    """DeepSeek V3.2 lets a token see those that an index selects: no kernel that is told where records begin knows of them."""
    config = tiny_config("deepseek_v32")
    assert config.index_topk < sum(LENGTHS)
    model = transformers.AutoModelForCausalLM.from_config(config)
    assert take_bounds(model)
    with pytest.raises(ValueError, match="selected tokens"):
        model(input_ids=torch.arange(2, 2 + sum(LENGTHS))[None], use_cache=False)
