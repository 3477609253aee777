# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of memory and time against what can be worked out by hand, and the choices that follow from it."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuneyard_api.forecast.choice import changes_that_fit, choose, fits, placed
from tuneyard_api.forecast.duration import seconds_of, seconds_per_step
from tuneyard_api.forecast.gpus import Gpu, gpu_of, products
from tuneyard_api.forecast.memory import GIB, memory_of
from tuneyard_api.forecast.of_job import forecast, steps_of
from tuneyard_api.forecast.work import Work
from tuneyard_api.known_shapes import KNOWN
from tuneyard_api.model_shape import shape_of

EIGHT_B, SEVENTY_B = (shape_of(KNOWN[f"llama-3.1-{size}-instruct"]) for size in ("8b", "70b"))
H200, L40S = gpu_of("NVIDIA-H200"), gpu_of("NVIDIA-L40S")


def work(**changes: Any) -> Work:
    usual = Work(
        shape=EIGHT_B,
        method="lora",
        rank=16,
        targets=None,
        is_dora=False,
        has_dropout=False,
        quantization=None,
        is_bf16=True,
        is_on_gpu=True,
        virtual_tokens=0,
        micro_batch=1,
        accumulation=8,
        sequence=4096,
        record=4096,
        is_recomputing=False,
        processes=1,
    )
    return replace(usual, **changes)


def test_an_adapter_on_all_linear_layers_of_llama_3_1_8b() -> None:
    """41,943,040 parameters at rank 16, as PEFT prints them; float32 with gradient and two moments: 16 bytes each."""
    found = memory_of(work())
    assert work().trained_parameters == 41_943_040
    assert found.trained == 41_943_040 * 4
    assert found.gradients + found.optimizer == 41_943_040 * 12


def test_an_adapter_on_some_layers() -> None:
    assert work(targets=("q_proj", "v_proj")).trained_parameters == 32 * 16 * (4096 + 4096 + 4096 + 1024)


def test_all_weights_take_16_bytes_each_and_no_frozen_copy() -> None:
    found = memory_of(work(method="sft"))
    assert found.weights == 0
    assert found.trained + found.gradients + found.optimizer == EIGHT_B.parameters * 16


@pytest.mark.parametrize(
    ("quantization", "gib"), [(None, 14.96), ("nf4", 5.3), ("int8", 8.46), ("fp8", 14.96)]
)
def test_weights_by_quantization(quantization: str | None, gib: float) -> None:
    """FP8 holds each weight by rows and by columns, so it saves no memory; embeddings and head stay bfloat16."""
    assert memory_of(work(quantization=quantization)).weights / GIB == pytest.approx(gib, rel=0.01)


def test_gpus_share_what_is_trained() -> None:
    given = work(method="sft", accumulation=16)
    one, four = memory_of(given), memory_of(given.on(4))
    assert four.trained + four.gradients + four.optimizer == pytest.approx(
        (one.trained + one.gradients + one.optimizer) / 4
    )


@pytest.mark.parametrize(
    ("given", "product", "is_spread"),
    [
        (work(), "NVIDIA-H200", False),
        (work(is_recomputing=True), "NVIDIA-L4", False),
        (work(), "NVIDIA-L4", True),
        (work(shape=SEVENTY_B), "NVIDIA-H200", True),
        (work(method="sft"), "NVIDIA-H200", True),
        (work(method="sft"), "NVIDIA-B200", False),
        (work(), "Example-GPU-9000", True),
        (work(quantization="nf4"), "Example-GPU-9000", False),
    ],
)
def test_a_model_is_whole_on_each_gpu_where_it_and_what_is_trained_have_room(
    given: Work, product: str, is_spread: bool
) -> None:
    found = placed(given.on(2), gpu_of(product))
    assert found.is_spread is is_spread
    if not is_spread:
        assert memory_of(found).total == pytest.approx(memory_of(given).total)


def test_gradients_beside_activations_are_those_of_an_earlier_pass() -> None:
    several, single = (memory_of(work(accumulation=passes)) for passes in (2, 1))
    assert several.total - single.total == several.gradients == 41_943_040 * 4


def test_the_fast_path_never_has_all_logits_at_once() -> None:
    long, plain = memory_of(work(micro_batch=4)), memory_of(work(micro_batch=4, has_dropout=True))
    assert long.logits == 4096 * 128_256 * 4
    assert plain.logits == 4 * 4096 * 128_256 * 12


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": "dpo"}, "dpo"),
        ({"is_dora": True}, "DoRA"),
        ({"has_dropout": True}, "dropout"),
        ({"is_bf16": False}, "bfloat16"),
        ({"quantization": "nf4"}, "nf4"),
        ({"is_on_gpu": False}, "GPU"),
        ({"shape": EIGHT_B.model_copy(update={"is_known_to_fast_path": False})}, "layers"),
        ({"shape": EIGHT_B.model_copy(update={"window": 1024})}, "window"),
    ],
)
def test_who_takes_the_plain_path_is_told_why(change: dict[str, Any], said: str) -> None:
    assert said in (work(**change).why_plain or "")


@given(
    micro=st.sampled_from([1, 2, 4, 8]),
    sequence=st.sampled_from([256, 1024, 4096]),
    method=st.sampled_from(["lora", "sft", "dpo", "ia3"]),
    quantization=st.sampled_from([None, "nf4"]),
)
def test_more_takes_more_and_checkpointing_less(
    micro: int, sequence: int, method: str, quantization: str | None
) -> None:
    less = work(micro_batch=micro, sequence=sequence, method=method, quantization=quantization)
    assert memory_of(replace(less, micro_batch=2 * micro)).total > memory_of(less).total
    assert seconds_per_step(replace(less, record=2 * 4096), H200) >= seconds_per_step(less, H200)
    assert memory_of(replace(less, sequence=2 * sequence)).total > memory_of(less).total
    assert memory_of(replace(less, is_recomputing=True)).total < memory_of(less).total
    assert seconds_per_step(replace(less, is_recomputing=True), H200) >= seconds_per_step(less, H200)


def test_a_step_takes_as_long_in_passes_of_any_size() -> None:
    """Time follows from tokens; passes that are too small for the GPU only add to it."""
    small, large = work(micro_batch=1, accumulation=8), work(micro_batch=8, accumulation=1)
    assert seconds_per_step(small, H200) == pytest.approx(seconds_per_step(large, H200))


def test_two_hundred_steps_take_twice_as_long_as_one_hundred() -> None:
    one, two = (seconds_of(work(), H200, steps) for steps in (100, 200))
    assert two - one == pytest.approx(100 * seconds_per_step(work(), H200))


def test_checkpointing_is_chosen_only_where_it_is_needed() -> None:
    free = {"has_micro_batch": False, "has_checkpointing": False}
    on_large, on_small = choose(work(), H200, **free), choose(work(), gpu_of("NVIDIA-L4"), **free)
    assert not on_large.is_recomputing
    assert on_small.is_recomputing
    for chosen in (on_large, on_small):
        assert chosen.micro_batch * chosen.accumulation == 8


def test_a_larger_micro_batch_is_chosen_where_small_ones_leave_the_gpu_idle() -> None:
    small = work(shape=shape_of(KNOWN["smollm2-135m-instruct"]), sequence=256, has_dropout=True)
    chosen = choose(small, H200, has_micro_batch=False, has_checkpointing=False)
    assert chosen.micro_batch > 1
    assert chosen.micro_batch * chosen.accumulation == 8


def test_what_the_job_says_is_not_chosen() -> None:
    said = work(micro_batch=4, accumulation=2, is_recomputing=True)
    assert choose(said, H200, has_micro_batch=True, has_checkpointing=True) == said


def test_llama_70b_on_one_48_gb_card_does_not_fit_and_is_told_what_does() -> None:
    found = forecast(
        work(shape=SEVENTY_B),
        L40S,
        has_micro_batch=False,
        has_checkpointing=False,
        steps=None,
        quantizations=("nf4",),
    )
    assert not found.fits
    assert found.memory.weights / GIB == pytest.approx(131.4, rel=0.01)
    assert [change.words for change in found.changes] == [
        "parallelism.gpusPerNode: 8",
        "scheduling.gpuProduct: NVIDIA-B200",
    ]
    assert all(fits(change.memory, change.gpu) for change in found.changes)


@pytest.mark.parametrize(
    ("given", "gib", "first"),
    [
        (work(micro_batch=8, accumulation=1), 80, "training.microBatchSize: 2"),
        (work(), 24, "training.gradientCheckpointing: true"),
        (
            work(micro_batch=8, accumulation=1),
            21,
            "training.gradientCheckpointing: true and training.microBatchSize: 2",
        ),
        (work(is_recomputing=True), 16, "model.quantization: nf4"),
        (work(), 16, "model.quantization: nf4 with training.gradientCheckpointing: true"),
        (work(method="sft", is_recomputing=True), 80, "parallelism.gpusPerNode: 2"),
        (work(method="sft", accumulation=32), 16, "parallelism: {nodes: 4, gpusPerNode: 8} with"),
    ],
)
def test_the_nearest_change_comes_first(given: Work, gib: int, first: str) -> None:
    changes = changes_that_fit(given, gpu_of("NVIDIA-H100-PCIe", gib), quantizations=("nf4",))
    assert changes[0].words.startswith(first), [change.words for change in changes]


def test_every_change_keeps_the_global_batch() -> None:
    given = work(shape=SEVENTY_B, micro_batch=2, accumulation=8)
    for change in changes_that_fit(given, L40S, quantizations=("nf4",)):
        assert change.work.micro_batch * change.work.accumulation * change.work.processes == 16


def test_a_runtime_without_quantizations_is_not_told_to_quantize() -> None:
    changes = changes_that_fit(work(shape=SEVENTY_B), H200, quantizations=())
    assert "quantization" not in {change.kind for change in changes}


@pytest.mark.parametrize(
    ("product", "memory"),
    [("NVIDIA-H200", 140.4), ("NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", 5.0), ("Tesla-T4-SHARED", 15.0)],
)
def test_gpus_by_their_label(product: str, memory: float) -> None:
    assert gpu_of(product).memory_gib == memory


def test_an_unknown_product_refuses_nothing() -> None:
    unknown = gpu_of("Example-GPU-9000")
    found = forecast(work(shape=SEVENTY_B), unknown, has_micro_batch=False, has_checkpointing=False, steps=10)
    assert found.fits
    assert (found.seconds, found.gpu_hours, unknown.memory_gib) == (None, None, None)
    assert found.work == work(shape=SEVENTY_B)


def test_an_environment_says_the_memory_of_an_unknown_product() -> None:
    assert gpu_of("Example-GPU-9000", 64).memory_gib == 64


def test_part_of_a_gpu_is_slower_than_all_of_it() -> None:
    whole, part = gpu_of("NVIDIA-A100-SXM4-80GB"), gpu_of("NVIDIA-A100-SXM4-80GB-MIG-3g.40gb")
    assert seconds_per_step(work(), part) > 2 * seconds_per_step(work(), whole)


def test_products_are_listed_from_the_largest() -> None:
    sizes = [gpu.memory_gib or 0 for gpu in products()]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(
    ("said", "steps"),
    [
        ({"epochs": None, "max_steps": 28, "sequences": None}, 28),
        ({"epochs": 2.0, "max_steps": None, "sequences": 101}, 26),
        ({"epochs": None, "max_steps": None, "sequences": 8}, 1),
        ({"epochs": 1.0, "max_steps": None, "sequences": None}, None),
    ],
)
def test_steps_are_counted_as_the_loop_counts_them(said: dict[str, Any], steps: int | None) -> None:
    assert steps_of(**said, global_batch=8) == steps


def test_gpu_hours_are_those_of_all_gpus() -> None:
    found = forecast(
        work(processes=2, accumulation=4), H200, has_micro_batch=True, has_checkpointing=True, steps=100
    )
    assert found.seconds is not None
    assert found.gpu_hours == pytest.approx(2 * found.seconds / 3600)
    assert isinstance(found.gpu, Gpu)
