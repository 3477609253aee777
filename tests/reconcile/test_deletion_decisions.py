# SPDX-License-Identifier: Apache-2.0
"""What is decided of a job with deletionPolicy Delete while it is being deleted: one line for each thing it may find."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from support.samples import NOW, job_spec, observed
from tuneyard_api import names
from tuneyard_api.status import FineTuneJobStatus, PlanStatus
from tuneyard_operator.domain.decide import decide
from tuneyard_operator.domain.decision import Create, Delete, SetFinalizers, Tell
from tuneyard_operator.domain.observed import Deletion, Leftover, SeenCondition, SeenUnpublish

UNPUBLISH = names.unpublish_name("a")
PLAN = PlanStatus(
    digest="d",
    gpus=1,
    micro_batch_size=1,
    gradient_accumulation=1,
    registry_claim="adapters",
    adapter_path="/registry/a",
)
IN_S3 = PLAN.model_copy(update={"registry_claim": None, "adapter_path": "s3://adapters/a"})
OURS = SeenUnpublish(UNPUBLISH, "u", "uid-a")
FAILED = SeenCondition("BackoffLimitExceeded", "Job has reached the specified backoff limit")
RUNNING = Leftover("Job", "a-train-1", "t")


@pytest.mark.parametrize(
    ("what", "deletion", "changes", "actions", "words"),
    [
        ("nothing runs", {}, {}, [Tell, Create], "removes /registry/a on claim adapters"),
        ("training runs", {"running": (RUNNING,)}, {}, [Tell, Delete], "waits for a-train-1 to end"),
        ("a publish pod ends", {"writers": ("a-publish-1-x",)}, {}, [Tell], "waits for a-publish-1-x"),
        ("it is being removed", {"unpublish": replace(OURS, said="pulls")}, {}, [Tell], f"waits for Job {UNPUBLISH}: pulls"),
        ("an earlier life's Job", {"unpublish": replace(OURS, made_for="b")}, {}, [Tell, Delete], "does not belong to this job"),
        ("a Job of somebody else", {"unpublish": replace(OURS, made_for="")}, {}, [Tell], "does not belong to this job"),
        ("removed", {"unpublish": replace(OURS, complete=True, said="gone")}, {}, [Tell, Delete, SetFinalizers], "gone"),
        ("failed", {"unpublish": replace(OURS, failed=FAILED)}, {}, [Tell, Delete, SetFinalizers], "left behind /registry/a on claim adapters: Job a-unpublish failed: Job has reached"),
        ("no claim", {"has_registry": False}, {}, [Tell, SetFinalizers], "claim adapters is deleted or being deleted"),
        ("no runtime", {}, {"runtimes": {}}, [Tell], "waits for FineTuneRuntime hf, which does not exist"),
        ("no readable runtime", {}, {"runtimes": {"hf": {}}}, [Tell], "which can't be read"),
        ("Retain by now", {"unpublish": OURS}, {"spec": job_spec()}, [Delete, SetFinalizers], ""),
        ("an old status", {}, {"status": FineTuneJobStatus()}, [Tell, SetFinalizers], "does not say where"),
        ("a registry in S3", {}, {"status": FineTuneJobStatus(plan=IN_S3)}, [Tell, SetFinalizers], "left behind s3://adapters/a: only what is on a claim is removed"),
        ("too late, a pod is lost", {"since": NOW - timedelta(minutes=15), "writers": ("p",)}, {}, [Tell, SetFinalizers], "after 15 minutes it still waits for p to end"),
        ("too late, it hangs", {"since": NOW - timedelta(minutes=15), "unpublish": OURS}, {}, [Tell, Delete, SetFinalizers], "still waits for Job"),
        ("a clock that went back", {"since": NOW + timedelta(days=1)}, {}, [Tell, Create], "removes"),
    ],
    ids=lambda value: value if isinstance(value, str) and "claim" not in value else "",
)  # fmt: skip
def test_what_is_done_of_a_job_that_goes(
    what: str, deletion: dict[str, Any], changes: dict[str, Any], actions: list[type], words: str
) -> None:
    fields = {"since": NOW, **deletion}
    seen = observed(
        **{
            "spec": job_spec(deletionPolicy="Delete"),
            "status": FineTuneJobStatus(plan=PLAN),
            "finalizers": ("other.io/x", names.FINALIZER),
            "deletion": Deletion(**fields),
            **changes,
        }
    )
    decision = decide(seen, NOW)
    assert [type(action) for action in decision.actions] == actions, what
    assert words in "".join(action.note.message for action in decision.actions if isinstance(action, Tell))
    assert decision.status == seen.status
    lets_go = [action.finalizers for action in decision.actions if isinstance(action, SetFinalizers)]
    assert lets_go in ([], [("other.io/x",)])
    assert (decision.requeue_after is None) == bool(lets_go)
