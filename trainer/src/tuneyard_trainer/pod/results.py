# SPDX-License-Identifier: Apache-2.0
"""The StageResult that a stage leaves at its end, in the termination log and in the workspace."""

from pathlib import Path

from pydantic import ValidationError
from tuneyard_api import durable
from tuneyard_api.pod_contract import MAX_RESULT_BYTES, Failure, Stage, StageResult
from tuneyard_api.problems import clip


def result_path(workspace: Path, stage: Stage) -> Path:
    """`<workspace>/results/<stage>.json`."""
    return workspace / "results" / f"{stage}.json"


def encode(result: StageResult) -> bytes:
    """`result` as JSON of at most MAX_RESULT_BYTES: last lines, the failure's message and warnings are cut in this order.

    Raises:
        ValueError: if the facts alone are too long, which no stage's facts are.
    """
    content = _json(result)
    while len(content) > MAX_RESULT_BYTES:
        smaller = _shorten(result, len(content) - MAX_RESULT_BYTES)
        if smaller is None:
            raise ValueError(f"the facts of {result.stage} need {len(content)} bytes of {MAX_RESULT_BYTES}")
        result = smaller
        content = _json(result)
    return content


def _json(result: StageResult) -> bytes:
    return result.model_dump_json(exclude_none=True).encode()


def _shorten(result: StageResult, excess_bytes: int) -> StageResult | None:
    failure, warnings = result.failure, result.facts.get("warnings")
    if failure is not None and failure.last_lines:
        # Whole lines from the front; JSON may need several bytes for a character, so it is asked again.
        lines = failure.last_lines[excess_bytes:].partition("\n")[2]
        return result.model_copy(update={"failure": failure.model_copy(update={"last_lines": lines or None})})
    if failure is not None and failure.message != "…":
        # A character is at least one byte, so this always gets shorter, and cuts too much by at most the ellipsis.
        message = clip(failure.message, max(1, len(failure.message) - max(1, excess_bytes // 4)))
        shorter = Failure(failure_class=failure.failure_class, message=message)
        return result.model_copy(update={"failure": shorter})
    if isinstance(warnings, list) and warnings:
        kept = [*warnings[:-2], "further warnings are in the log of the stage"] if len(warnings) > 1 else []
        return result.model_copy(update={"facts": {**result.facts, "warnings": kept}})
    return None


def write_result(
    result: StageResult, workspace: Path, termination_log: Path, *, is_kept: bool = True
) -> None:
    """Writes the result durably to the workspace, and then to the termination log, where the operator reads it.

    With several nodes only the first one writes to the workspace.
    """
    content = encode(result)
    if is_kept:
        durable.write_file(result_path(workspace, result.stage), content)
    # The kubelet created the file and owns its folder, so the file is written in place.
    termination_log.write_bytes(content)


def earlier_success(workspace: Path, stage: Stage, plan_digest: str) -> StageResult | None:
    """The result of an earlier run of the same plan, if it succeeded; a torn or foreign one counts as none."""
    try:
        result = StageResult.model_validate_json(result_path(workspace, stage).read_bytes())
    except (OSError, ValidationError):
        return None
    is_ours = result.stage is stage and result.plan_digest == plan_digest
    return result if is_ours and result.outcome == "Succeeded" else None
