# SPDX-License-Identifier: Apache-2.0
"""Every way in which a stage can end badly has its class and one sentence with its evidence."""

import pytest
from support.samples import PUBLISH_FACTS, ended, failure_text, result_text, seen_job, seen_pod
from tuneyard_api.pod_contract import FailureClass, Stage, StageResult
from tuneyard_operator.domain.failures import Ending, classify, read_result
from tuneyard_operator.domain.observed import SeenCondition, SeenJob, SeenPod

FAILED = seen_job(failed=SeenCondition("BackoffLimitExceeded", "Job has reached the specified backoff limit"))
POD = "train attempt 1, pod a-train-1-x: "
NODE_LOW = "The node was low on resource: ephemeral-storage. Container trainer was using 9Gi"
OWN_DISK = "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi"


def died(**changes: object) -> SeenPod:
    return seen_pod(phase="Failed", **changes)


CASES: dict[str, tuple[SeenPod | None, SeenJob | None, FailureClass, str]] = {
    "the stage's own words count before its exit code": (
        died(terminated=ended(1, message=failure_text(Stage.TRAIN, "d", FailureClass.NON_FINITE_LOSS, "loss is NaN at step 7"))),
        FAILED,
        FailureClass.NON_FINITE_LOSS,
        "loss is NaN at step 7",
    ),
    "killed at the memory limit": (
        died(terminated=ended(137, "OOMKilled")),
        FAILED,
        FailureClass.OUT_OF_MEMORY,
        POD + "OOMKilled at its memory limit of 32Gi; try more memory or a smaller batch",
    ),
    "evicted because the node was short": (
        died(reason="Evicted", message=NODE_LOW),
        FAILED,
        FailureClass.INTERRUPTED,
        POD + "Evicted: " + NODE_LOW,
    ),
    "evicted because of its own disk use": (
        died(reason="Evicted", message=OWN_DISK),
        FAILED,
        FailureClass.DISK_FULL,
        POD + "evicted: " + OWN_DISK + "; try a larger workspace.sizeGiB or a smaller checkpoint.keep",
    ),
    "preempted": (
        died(disruption=SeenCondition("PreemptionByScheduler", "preempted to accommodate a higher priority pod"), terminated=ended(143)),
        FAILED,
        FailureClass.INTERRUPTED,
        POD + "PreemptionByScheduler: preempted to accommodate a higher priority pod",
    ),
    "the node went away": (
        died(disruption=SeenCondition("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")),
        FAILED,
        FailureClass.INTERRUPTED,
        POD + "DeletionByTaintManager: Taint manager: deleting due to NoExecute taint",
    ),
    "the kubelet has not heard of its GPUs yet": (
        died(reason="UnexpectedAdmissionError", message="Allocate failed due to no healthy devices present"),
        FAILED,
        FailureClass.INTERRUPTED,
        POD + "its node refused it (UnexpectedAdmissionError: Allocate failed due to no healthy devices present)",
    ),
    "the Job ran past its deadline": (
        died(terminated=ended(143)),
        seen_job(failed=SeenCondition("DeadlineExceeded", "Job was active longer than specified deadline")),
        FailureClass.INTERRUPTED,
        POD + "ran past its active deadline",
    ),
    "the image has no such program": (
        died(terminated=ended(128, "StartError", 'exec: "tuneyard-trainer": executable file not found in $PATH')),
        FAILED,
        FailureClass.BUG,
        POD + 'could not start: exec: "tuneyard-trainer": executable file not found in $PATH; try the pod\'s log',
    ),
    "an exit code of the vocabulary without a sentence": (
        died(terminated=ended(14)),
        FAILED,
        FailureClass.ACCELERATOR_MISSING,
        POD + "exit code 14 (AcceleratorMissing); try the node's driver and the runtime's runtimeClassName",
    ),
    "SIGTERM": (died(terminated=ended(143)), FAILED, FailureClass.INTERRUPTED, POD + "killed by SIGTERM (exit code 143)"),
    "SIGKILL without OOMKilled": (
        died(terminated=ended(137)), FAILED, FailureClass.INTERRUPTED, POD + "killed by SIGKILL (exit code 137)",
    ),
    "SIGBUS is a full /dev/shm": (
        died(terminated=ended(135)), FAILED, FailureClass.OUT_OF_MEMORY, POD + "killed by SIGBUS (exit code 135): /dev/shm was full; try more memory or a smaller batch",
    ),
    "SIGSEGV, as the runtime reports it": (
        died(terminated=ended(255, signal=11)), FAILED, FailureClass.BUG, POD + "killed by SIGSEGV (exit code 255); try the pod's log",
    ),
    "a code outside the vocabulary": (
        died(terminated=ended(3, message="Traceback:\n  boom")), FAILED, FailureClass.BUG, POD + "exit code 3: Traceback: boom; try the pod's log",
    ),
    "exit 0 without a result": (
        seen_pod(phase="Succeeded", terminated=ended(0, "Completed")), seen_job(), FailureClass.BUG, POD + "exit code 0, but no termination message; try the pod's log",
    ),
    "exit 0 with a result of another plan": (
        seen_pod(phase="Succeeded", terminated=ended(0, "Completed", result_text(Stage.TRAIN, "e" * 64))),
        seen_job(),
        FailureClass.BUG,
        POD + "exit code 0, but the result is of another plan (eeeeeeeeeeee, not d); try the pod's log",
    ),
    "exit 0 with facts that say too little": (
        seen_pod(phase="Succeeded", terminated=ended(0, "Completed", result_text(Stage.TRAIN, "d", facts={"steps": 1}))),
        seen_job(),
        FailureClass.BUG,
        POD + "exit code 0, but the facts of the result are incomplete (epochs: Field required); try the pod's log",
    ),
    "the Job was deleted": (
        None, None, FailureClass.INTERRUPTED, "train attempt 1, its Job: was deleted before it had ended",
    ),
    "the pod was deleted": (
        None,
        FAILED,
        FailureClass.INTERRUPTED,
        "train attempt 1, Job a-train-1: its pod was deleted before its result was read (BackoffLimitExceeded: Job has reached the specified backoff limit)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_an_ending_has_its_class_and_its_sentence(name: str) -> None:
    pod, job, kind, sentence = CASES[name]
    failure = classify(Ending(Stage.TRAIN, 1, "d", pod, job, "32Gi"))
    assert (failure.failure_class, failure.message) == (kind, sentence)


def test_a_result_of_another_stage_is_none() -> None:
    pod = seen_pod(terminated=ended(0, "Completed", result_text(Stage.PUBLISH, "d")))
    assert read_result(pod, Stage.TRAIN, "d") == "the result is of stage publish"


def test_a_valid_result_is_read() -> None:
    pod = seen_pod(terminated=ended(0, "Completed", result_text(Stage.PUBLISH, "d")))
    result = read_result(pod, Stage.PUBLISH, "d")
    assert isinstance(result, StageResult)
    assert result.facts == PUBLISH_FACTS


def test_a_failed_result_without_a_failure_is_none() -> None:
    pod = seen_pod(terminated=ended(1, message=result_text(Stage.TRAIN, "d", outcome="Failed")))
    assert read_result(pod, Stage.TRAIN, "d") == "the result says Failed without a reason"
