# SPDX-License-Identifier: Apache-2.0
"""What a job says of its tracking, and what of it counts in the plan."""

from typing import Any

import pytest
from pydantic import ValidationError
from support.plans import make_job, make_runtime
from tuneyard_api.planner import digest_of, make_plan

MLFLOW = {"mlflow": {"url": "http://mlflow.example:5000"}}


@pytest.mark.parametrize(
    ("said", "experiment"),
    [({}, "default/tiny"), ({"experiment": "law titles"}, "law titles"), ({"disabled": True}, None)],
)
def test_the_experiment_of_a_job(said: dict[str, Any], experiment: str | None) -> None:
    found = make_plan(make_job(tracking=said), make_runtime(tracking=MLFLOW)).resolved.tracking
    assert (found.experiment if found else None) == experiment
    if found is not None:
        assert found.mlflow.url == "http://mlflow.example:5000"


def test_a_job_may_name_an_experiment_where_nothing_is_tracked() -> None:
    assert make_plan(make_job(tracking={"experiment": "a"}), make_runtime()).resolved.tracking is None


def test_a_tracker_is_no_part_of_the_work() -> None:
    """A plan with a tracker has the digest of the same plan without one, so no result is lost when a tracker moves."""
    without = make_plan(make_job(), make_runtime())
    tracked = make_plan(make_job(), make_runtime(tracking=MLFLOW))
    assert tracked.resolved != without.resolved
    assert tracked.digest == without.digest == digest_of(tracked.resolved)


@pytest.mark.parametrize("name", ["", "x" * 251])
def test_a_name_that_mlflow_would_refuse_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        make_job(tracking={"experiment": name})
