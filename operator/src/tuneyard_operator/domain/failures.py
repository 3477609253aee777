# SPDX-License-Identifier: Apache-2.0
"""Why did a stage fail? The stage's own words first, then what Kubernetes knows, then the exit code.

Every answer is one failure class and one sentence that carries its evidence, so that a person need not look at a
pod that may be gone by then. When several pods fail because one of them did, the first cause counts.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from pydantic import BaseModel, ValidationError
from tuneyard_api.pod_contract import (
    EXIT_CODES,
    FailureClass,
    PrepareFacts,
    PublishFacts,
    Stage,
    StageResult,
    TrainFacts,
)

from tuneyard_operator.domain.observed import SeenEvent, SeenJob, SeenPod, SeenTerminated
from tuneyard_operator.domain.verdict import StageFailure

_CLASS_OF_EXIT: Mapping[int, FailureClass] = {code: kind for kind, code in EXIT_CODES.items()}
_FACTS_OF_STAGE: Mapping[Stage, type[BaseModel]] = {
    Stage.PREPARE: PrepareFacts,
    Stage.TRAIN: TrainFacts,
    Stage.PUBLISH: PublishFacts,
}
_SIGNALS = {6: "SIGABRT", 7: "SIGBUS", 9: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM"}
_SIGBUS, _SIGKILL, _SIGTERM = 7, 9, 15
_FIRST_SIGNAL_EXIT, _LAST_SIGNAL_EXIT = 129, 159
_VAGUE = frozenset({FailureClass.INTERRUPTED, FailureClass.BUG})
"""Failure classes of a stage that lost one of its processes and cannot know why."""
_ECHO = 4
"""Depth of a pod that reports only that it lost the others."""
_MOST_OF_A_LOG = 2000
"""Most characters of the end of a log that are kept; the kubelet tells 2,048 bytes of it."""
_EXCERPT = 300
"""Longest part of a foreign message that is repeated, in characters."""


@dataclass(frozen=True, slots=True)
class Ending:
    """An attempt that is over without a valid Succeeded result."""

    stage: Stage
    attempt: int
    plan_digest: str
    pod: SeenPod | None
    """The pod that is examined, if one is left."""
    job: SeenJob | None
    memory: str
    """Memory limit of the stage's container."""
    events: tuple[SeenEvent, ...] = ()
    """Warnings about its Job and pods, looked up when the pod itself says nothing."""

    @property
    def terminated(self) -> SeenTerminated | None:
        """How the trainer container ended, if it ever ran."""
        return self.pod.terminated if self.pod else None

    def named(self, text: str) -> str:
        """`train attempt 1, pod a-train-1-0-x on node-0: ...`."""
        where = f"Job {self.job.name}" if self.job else "its Job"
        if self.pod is not None:
            where = f"pod {self.pod.name}" + (f" on {self.pod.node}" if self.pod.node else "")
        return f"{self.stage} attempt {self.attempt}, {where}: {text}"


def read_result(pod: SeenPod, stage: Stage, plan_digest: str) -> StageResult | str:
    """The stage's result in the termination message, or why it is none."""
    if pod.terminated is None or not pod.terminated.message:
        return "no termination message"
    try:
        result = StageResult.model_validate_json(pod.terminated.message)
    except ValidationError as error:
        return f"the termination message is not a StageResult ({error.errors()[0]['msg']})"
    if result.stage is not stage:
        return f"the result is of stage {result.stage}"
    if result.plan_digest != plan_digest:
        return f"the result is of another plan ({result.plan_digest[:12]}, not {plan_digest[:12]})"
    return _complaint(result, stage) or result


def good_result(pods: Iterable[SeenPod], stage: Stage, plan_digest: str) -> StageResult | None:
    """The result of a stage that ended well, as soon as a pod has it; the Job reports it a second later."""
    for pod in pods:
        result = read_result(pod, stage, plan_digest)
        if isinstance(result, StageResult) and result.outcome == "Succeeded":
            return result
    return None


def classify(ending: Ending) -> StageFailure:
    """The first explanation that fits."""
    for explain in CHAIN:
        failure = explain(ending)
        if failure is not None:
            said = failure if explain is said_by_the_stage else _with_advice(failure)
            return replace(said, last_lines=last_lines(ending.pod))
    return StageFailure(FailureClass.BUG, ending.named("ended for an unknown reason"))


def last_lines(pod: SeenPod | None) -> str:
    """The end of an ended pod's log: the stage tells it with a failure; of a stage that was killed, the kubelet tells it."""
    message = pod.terminated.message if pod is not None and pod.terminated is not None else ""
    try:
        failure = StageResult.model_validate_json(message).failure
    except ValidationError:
        return message[-_MOST_OF_A_LOG:].strip()
    return (failure.last_lines or "") if failure is not None else ""


def first_cause(endings: Iterable[Ending], known: StageFailure | None = None) -> StageFailure | None:
    """The failure of the pod that made an attempt's other pods fail; None when all were only interrupted.

    `known` is what this function returned before some of the pods were deleted.
    """
    found = [] if known is None else [(_depth(known, is_disrupted=True), known)]
    for ending in endings:
        failure = classify(ending)
        found.append((_depth(failure, is_disrupted=disrupted(ending) is not None), failure))
    depth, cause = min(found, key=lambda each: each[0])
    return cause if depth < _ECHO else None


def _depth(failure: StageFailure, *, is_disrupted: bool) -> int:
    """How likely another pod's end caused this failure: the greater, the likelier."""
    if failure.failure_class is FailureClass.OUT_OF_MEMORY:
        return 0
    if failure.failure_class not in _VAGUE:
        return 1
    if failure.failure_class is FailureClass.INTERRUPTED:
        return 2 if is_disrupted else _ECHO
    return 3


def said_by_the_stage(ending: Ending) -> StageFailure | None:
    """The stage wrote a valid Failed result. It knows best, except which of its processes the kernel killed."""
    if ending.pod is None:
        return None
    result = read_result(ending.pod, ending.stage, ending.plan_digest)
    if not isinstance(result, StageResult) or result.outcome != "Failed" or result.failure is None:
        return None
    if result.failure.failure_class in _VAGUE and _is_oom_killed(ending):
        return None
    return StageFailure(result.failure.failure_class, result.failure.message)


def out_of_memory(ending: Ending) -> StageFailure | None:
    """The kernel killed the container, or a process in it, at its memory limit."""
    if not _is_oom_killed(ending):
        return None
    text = f"OOMKilled at its memory limit of {ending.memory}"
    return StageFailure(FailureClass.OUT_OF_MEMORY, ending.named(text))


def own_disk_full(ending: Ending) -> StageFailure | None:
    """The pod was evicted for its own disk usage, and would use as much again."""
    pod = ending.pod
    if pod is None or pod.reason != "Evicted" or "ephemeral" not in pod.message:
        return None
    if "node was low" in pod.message:
        return None
    return StageFailure(FailureClass.DISK_FULL, ending.named(_excerpt(f"evicted: {pod.message}")))


def disrupted(ending: Ending) -> StageFailure | None:
    """The pod was evicted or preempted, or its node went away."""
    pod = ending.pod
    if pod is None:
        return None
    if pod.reason in {"Evicted", "NodeLost", "NodeShutdown", "Terminated", "Preempting"}:
        return StageFailure(FailureClass.INTERRUPTED, ending.named(_excerpt(f"{pod.reason}: {pod.message}")))
    if pod.disruption is not None:
        words = _excerpt(f"{pod.disruption.reason}: {pod.disruption.message}")
        return StageFailure(FailureClass.INTERRUPTED, ending.named(words))
    return None


def deadline_exceeded(ending: Ending) -> StageFailure | None:
    """Somebody gave the pod or its Job a deadline; training goes on from its checkpoint."""
    pod_late = ending.pod is not None and ending.pod.reason == "DeadlineExceeded"
    failed = ending.job.failed if ending.job else None
    if not pod_late and (failed is None or failed.reason != "DeadlineExceeded"):
        return None
    return StageFailure(FailureClass.INTERRUPTED, ending.named("ran past its active deadline"))


def never_started(ending: Ending) -> StageFailure | None:
    """The image has no such program, or the runtime could not start it."""
    ended = ending.terminated
    if ended is None or ended.reason not in {"StartError", "ContainerCannotRun"}:
        return None
    return StageFailure(FailureClass.BUG, ending.named(_excerpt(f"could not start: {ended.message}")))


def known_exit_code(ending: Ending) -> StageFailure | None:
    """The stage ended with an exit code of the pod contract, but without a message."""
    ended = ending.terminated
    if ended is None or ended.exit_code not in _CLASS_OF_EXIT:
        return None
    kind = _CLASS_OF_EXIT[ended.exit_code]
    words = f"exit code {ended.exit_code} ({kind}){_said(ended)}"
    return StageFailure(kind, ending.named(words))


def killed_by_signal(ending: Ending) -> StageFailure | None:
    """The exit code is 128 + n, or the container runtime reports a signal."""
    ended = ending.terminated
    if ended is None:
        return None
    number = ended.signal
    if number is None and _FIRST_SIGNAL_EXIT <= ended.exit_code <= _LAST_SIGNAL_EXIT:
        number = ended.exit_code - 128
    if not number:
        return None
    words = f"killed by {_SIGNALS.get(number, f'signal {number}')} (exit code {ended.exit_code})"
    if number in {_SIGTERM, _SIGKILL}:
        return StageFailure(FailureClass.INTERRUPTED, ending.named(words))
    if number == _SIGBUS:
        return StageFailure(FailureClass.OUT_OF_MEMORY, ending.named(f"{words}: /dev/shm was full"))
    return StageFailure(FailureClass.BUG, ending.named(words + _said(ended)))


def ended_well_without_result(ending: Ending) -> StageFailure | None:
    """Exit code 0 and no valid result: the image does not keep the pod contract."""
    if ending.pod is None or ending.terminated is None or ending.terminated.exit_code != 0:
        return None
    result = read_result(ending.pod, ending.stage, ending.plan_digest)
    why = result if isinstance(result, str) else f"its result says {result.outcome}"
    return StageFailure(FailureClass.BUG, ending.named(f"exit code 0, but {why}"))


def other_exit_code(ending: Ending) -> StageFailure | None:
    """The exit code is not in the pod contract."""
    ended = ending.terminated
    if ended is None:
        return None
    return StageFailure(FailureClass.BUG, ending.named(f"exit code {ended.exit_code}{_said(ended)}"))


def refused_by_node(ending: Ending) -> StageFailure | None:
    """The kubelet did not admit the pod, such as after a restart, before its device plugin has told it of the GPUs."""
    pod = ending.pod
    if pod is None or ending.terminated is not None or pod.phase != "Failed" or not pod.reason:
        return None
    words = f"its node refused it{_parenthesis(pod.reason, pod.message)}"
    return StageFailure(FailureClass.INTERRUPTED, ending.named(words))


def pod_gone(ending: Ending) -> StageFailure | None:
    """Nothing is left of the pod: it or its Job was deleted."""
    told = _latest_event(ending)
    if ending.job is None:
        return StageFailure(FailureClass.INTERRUPTED, ending.named(f"was deleted before it had ended{told}"))
    words = f"its pod was deleted before its result was read{told}"
    if ending.pod is not None and not ending.pod.deleting:
        words = "its pod failed without a message"
    if ending.job.failed is not None:
        words += _parenthesis(ending.job.failed.reason, ending.job.failed.message)
    return StageFailure(FailureClass.INTERRUPTED, ending.named(words))


ADVICE: Mapping[FailureClass, str] = {
    FailureClass.OUT_OF_MEMORY: "more memory or a smaller batch",
    FailureClass.ACCELERATOR_MISSING: "the node's driver and the runtime's runtimeClassName",
    FailureClass.PERMISSION_DENIED: "a token or a volume that the job may use",
    FailureClass.DISK_FULL: "a larger workspace.sizeGiB or a smaller checkpoint.keep",
    FailureClass.NON_FINITE_LOSS: "a lower training.learningRate",
    FailureClass.BUG: "the pod's log",
}
"""Advice for failures that the stage could not explain itself. Failures that are retried need none."""

CHAIN: tuple[Callable[[Ending], StageFailure | None], ...] = (
    said_by_the_stage,
    out_of_memory,
    own_disk_full,
    disrupted,
    deadline_exceeded,
    never_started,
    known_exit_code,
    killed_by_signal,
    ended_well_without_result,
    other_exit_code,
    refused_by_node,
    pod_gone,
)


def _is_oom_killed(ending: Ending) -> bool:
    return ending.terminated is not None and ending.terminated.reason == "OOMKilled"


def _excerpt(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _EXCERPT else text[: _EXCERPT - 1] + "…"


def _said(ended: SeenTerminated) -> str:
    """The pod's last words. Without a result the kubelet keeps the end of the log as the termination message."""
    text = " ".join(ended.message.split())
    if not text:
        return ""
    return f": {text}" if len(text) <= _EXCERPT else f": …{text[1 - _EXCERPT :]}"


def _latest_event(ending: Ending) -> str:
    """The last warning event about the attempt's pods or Job, in parentheses."""
    event = max(ending.events, key=lambda each: each.at, default=None)
    return _parenthesis(event.reason, event.message) if event else ""


def _with_advice(failure: StageFailure) -> StageFailure:
    """What to do, unless the sentence says so already."""
    advice = ADVICE.get(failure.failure_class)
    if advice is None or "; try " in failure.message:
        return failure
    return replace(failure, message=f"{failure.message}; try {advice}")


def _parenthesis(reason: str, message: str) -> str:
    words = ": ".join(part for part in (reason, message) if part)
    return f" ({_excerpt(words)})" if words else ""


def _complaint(result: StageResult, stage: Stage) -> str | None:
    """What is missing in a result of this outcome."""
    if result.outcome == "Failed":
        return None if result.failure is not None else "the result says Failed without a reason"
    try:
        _FACTS_OF_STAGE[stage].model_validate(result.facts)
    except ValidationError as error:
        problem = error.errors()[0]
        return (
            f"the facts of the result are incomplete ({'.'.join(map(str, problem['loc']))}: {problem['msg']})"
        )
    return None
