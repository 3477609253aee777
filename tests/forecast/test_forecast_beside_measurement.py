# SPDX-License-Identifier: Apache-2.0
"""The plan's arithmetic against every training whose memory and speed are committed in bench/results."""

import forecast_page
import pytest
from forecast_page import Measured

MEASURED = list(forecast_page.measured())
NAMES = [f"{each.gpu.product}-{each.called}" for each in MEASURED]


@pytest.mark.parametrize("each", MEASURED, ids=NAMES)
def test_memory_is_within_10_percent(each: Measured) -> None:
    assert each.planned_gib == pytest.approx(each.peak_gib, rel=0.1)


@pytest.mark.parametrize("each", MEASURED, ids=NAMES)
def test_speed_is_within_25_percent(each: Measured) -> None:
    assert each.planned_tokens_per_second == pytest.approx(each.tokens_per_second, rel=0.25)


def test_what_is_compared_is_what_the_plan_is_for() -> None:
    """LoRA, QLoRA and SFT; 0.1 to 8 billion parameters; H100 and H200."""
    assert len(MEASURED) >= 20
    assert {each.work.method for each in MEASURED} >= {"lora", "sft"}
    assert {each.work.quantization for each in MEASURED} >= {None, "nf4", "int8", "fp8"}
    assert {each.gpu.product for each in MEASURED} >= {"NVIDIA-H100-80GB-HBM3", "NVIDIA-H200"}
    sizes = [each.work.shape.parameters for each in MEASURED]
    assert min(sizes) < 0.2e9
    assert max(sizes) > 8e9
