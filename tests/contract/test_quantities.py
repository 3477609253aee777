# SPDX-License-Identifier: Apache-2.0
"""Quantities are numbers as Kubernetes reads them, and CPU limits are held against them."""

from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError
from support.plans import make_job, make_runtime, problems
from tuneyard_api.planner import make_plan
from tuneyard_api.quantities import quantity_value


@pytest.mark.parametrize(
    ("quantity", "value"),
    [
        ("7", 7),
        ("0.5", Decimal("0.5")),
        ("1500m", Decimal("1.5")),
        ("100k", 100_000),
        ("1.5G", 1_500_000_000),
        ("512Mi", 2**29),
        ("32Gi", 32 * 2**30),
        ("2Ti", 2**41),
        ("0.1Gi", Decimal("107374182.4")),
    ],
)
def test_a_quantity_is_a_number(quantity: str, value: Decimal) -> None:
    assert quantity_value(quantity) == value


@pytest.mark.parametrize(("cpu", "limit", "is_enough"), [("2", "1999m", False), ("1500m", "1.5", True)])
def test_a_stage_s_cpu_limit_is_at_least_its_request(cpu: str, limit: str, *, is_enough: bool) -> None:
    resources = {"cpu": cpu, "cpuLimit": limit}
    if is_enough:
        assert make_runtime(trainResources=resources).spec.train_resources.cpu_limit == limit
        return
    with pytest.raises(ValidationError, match=r"cpuLimit is at least cpu \(got 1999m and 2\)"):
        make_runtime(trainResources=resources)


@pytest.mark.parametrize(
    ("wishes", "own", "words"),
    [
        (
            {"cpuLimitCores": 2},
            {"cpu": "2500m"},
            "spec.resources.cpuLimitCores: runtime hf asks for 2500m CPU for training (got 2); try 2.5, or resources.cpuCores as well",
        ),
        (
            {"cpuCores": 10.5},
            {"cpu": "4", "cpuLimit": "10"},
            "spec.resources.cpuCores: runtime hf limits training to 10 CPU (got 10.5); try 10, or resources.cpuLimitCores as well",
        ),
    ],
)
def test_a_limit_of_one_and_a_request_of_the_other_must_fit(
    wishes: dict[str, Any], own: dict[str, Any], words: str
) -> None:
    runtime = make_runtime(trainResources=own)
    assert problems(make_job(resources=wishes), runtime) == [words]
    both = {"cpuCores": 10.5, "cpuLimitCores": 11}
    assert make_plan(make_job(resources=both), runtime)
    assert make_plan(make_job(), runtime)
