# SPDX-License-Identifier: Apache-2.0
"""The memory arithmetic against numbers that can be checked by hand."""

import pytest
from tuneyard.checks.memory import KNOWN, RUNTIME_GIB, architecture_of, estimate
from tuneyard.checks.tree import is_canonical
from tuneyard.environment.models import Architecture, ServedModel

EIGHT_B = KNOWN["llama-3.1-8b-instruct"]
HUB = {"repo": "meta-llama/Llama-3.1-8B-Instruct", "revision": "abc"}


def model(**changes: object) -> ServedModel:
    return ServedModel.model_validate(
        {"name": "m", "huggingFace": HUB, "maxSequenceLength": 8192, "maxSequences": 1, **changes}
    )


def test_weights_and_cache_of_llama_3_1_8b() -> None:
    """16.06 GB of weights; 128 KiB of cache for each token (2 * 32 layers * 8 heads * 128 * 2 bytes), so 1 GiB for 8,192."""
    found = estimate(model(), EIGHT_B)
    assert found.weights == pytest.approx(8.03e9 * 2 / 1024**3)
    assert found.kv_cache == pytest.approx(1.0)
    assert found.adapters == 0
    assert found.total == pytest.approx(found.weights + 1.0 + RUNTIME_GIB)


def test_tensor_parallelism_divides_weights_and_cache() -> None:
    one, four = estimate(model(), EIGHT_B), estimate(model(gpus=4), EIGHT_B)
    assert (four.weights, four.kv_cache) == pytest.approx((one.weights / 4, one.kv_cache / 4))


def test_beyond_the_key_value_heads_the_cache_is_copied() -> None:
    eight, sixteen = estimate(model(gpus=8), EIGHT_B), estimate(model(gpus=16), EIGHT_B)
    assert eight.kv_cache == sixteen.kv_cache


def test_pipeline_parallelism_divides_layers() -> None:
    one, two = estimate(model(), EIGHT_B), estimate(model(multiNode={"pipeline": 2}), EIGHT_B)
    assert (two.weights, two.kv_cache) == pytest.approx((one.weights / 2, one.kv_cache / 2))


@pytest.mark.parametrize(("weights", "share"), [("fp8", 0.5), ("int4", 0.275)])
def test_quantised_weights(weights: str, share: float) -> None:
    assert estimate(model(weights=weights), EIGHT_B).weights == pytest.approx(
        estimate(model(), EIGHT_B).weights * share
    )


def test_adapters_grow_with_rank_and_number() -> None:
    small = estimate(model(lora={"maxGpuAdapters": 1, "maxRank": 16}), EIGHT_B).adapters
    large = estimate(model(lora={"maxGpuAdapters": 4, "maxRank": 32}), EIGHT_B).adapters
    assert large == pytest.approx(8 * small)
    # PEFT: r=16 on all linear layers of Llama-3.1-8B trains 41,943,040 parameters, 84 MB in bf16.
    assert small * 1024**3 / 2 == pytest.approx(41_943_040, rel=0.05)


def test_a_typed_architecture_goes_before_a_known_one() -> None:
    typed = {"parametersBillion": 1.0, "layers": 1, "hiddenSize": 64, "keyValueHeads": 1}
    assert architecture_of(model(architecture=typed)) == Architecture.model_validate(typed)
    assert architecture_of(model()) == EIGHT_B
    assert architecture_of(model(huggingFace={"repo": "a/unknown", "revision": "abc"})) is None


@pytest.mark.parametrize(
    ("quantity", "canonical"),
    [("1", True), ("4", True), ("32Gi", True), ("500m", True), ("0", True), ("1024Mi", False), ("4000m", False), ("1.5Gi", False),
     ("1000", False), ("1k", True), ("01", False), ("4 Gi", False), ("1000Gi", True), ("", False)],
)  # fmt: skip
def test_canonical_quantities(quantity: str, canonical: bool) -> None:
    assert is_canonical(quantity) is canonical
