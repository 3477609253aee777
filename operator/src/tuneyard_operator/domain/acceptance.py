# SPDX-License-Identifier: Apache-2.0
"""May this job start? A chain of checks: the job waits for what may still appear, and fails on what is wrong.

The operator does not read Secrets, so that the operator needs no right to read them: the kubelet names a missing one
(`domain.waiting`), and the only stage that uses one is the first.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError
from tuneyard_api import names, reasons
from tuneyard_api.job import FineTuneJob
from tuneyard_api.planner import Plan, PlanRefused, make_plan
from tuneyard_api.runtime import FineTuneRuntime
from tuneyard_api.status import WaitingFor

from tuneyard_operator.domain.frozen import Frozen
from tuneyard_operator.domain.observed import Observed
from tuneyard_operator.domain.verdict import Check, Verdict, first_verdict


@dataclass
class Application:
    """A job on its way to being accepted: each check may use what the one before has read."""

    seen: Observed
    job: FineTuneJob | None = None
    runtime: FineTuneRuntime | None = None
    plan: Plan | None = None
    runtimes: dict[str, FineTuneRuntime] = field(default_factory=dict)


def accept(seen: Observed) -> Frozen | Verdict:
    """What the job is started with, or why it can't start (yet)."""
    application = Application(seen)
    verdict = first_verdict(CHAIN, application)
    if verdict is not None:
        return verdict
    if application.job is None or application.runtime is None or application.plan is None:
        raise AssertionError("the acceptance chain ended without a verdict and without a plan")
    return Frozen(plan=application.plan, runtime=application.runtime.spec, spec=application.job.spec)


def spec_is_valid(application: Application) -> Verdict | None:
    """The spec is read by the same models that the command line uses."""
    seen = application.seen
    metadata = {
        "name": seen.name,
        "namespace": seen.namespace,
        "uid": seen.uid,
        "generation": seen.generation,
    }
    try:
        application.job = FineTuneJob.model_validate({"metadata": metadata, "spec": seen.spec})
    except ValidationError as error:
        return Verdict(reasons.INVALID_SPEC, problems_of(error), final=True)
    return None


def runtime_exists(application: Application) -> Verdict | None:
    """The FineTuneRuntime is there; it may come later, so its absence is waited out."""
    name = _job(application).spec.runtime.name
    if name in application.seen.runtimes:
        return None
    there = ", ".join(sorted(application.seen.runtimes)) or "none"
    return Verdict(
        reasons.RUNTIME_MISSING,
        f"spec.runtime.name: FineTuneRuntime {name} does not exist; the cluster has: {there}",
        waiting_for=WaitingFor(
            kind=names.RUNTIME_KIND,
            name=name,
            reason=reasons.RUNTIME_MISSING,
            message=f"the cluster has: {there}",
        ),
    )


def runtime_is_valid(application: Application) -> Verdict | None:
    """The runtime is one that this operator can read; its author can still mend it."""
    wanted = _job(application).spec.runtime.name
    for name, spec in sorted(application.seen.runtimes.items()):
        try:
            application.runtimes[name] = read_runtime(name, spec)
        except ValidationError as error:
            if name == wanted:
                message = f"FineTuneRuntime {name} can't be read: {problems_of(error)}"
                return Verdict(reasons.RUNTIME_INVALID, message)
    application.runtime = application.runtimes[wanted]
    return None


def plan_is_possible(application: Application) -> Verdict | None:
    """The arithmetic works out and the runtime has what the job asks for."""
    job, runtime = _job(application), application.runtimes[_job(application).spec.runtime.name]
    try:
        application.plan = make_plan(job, runtime, application.runtimes.values())
    except PlanRefused as refusal:
        only_method = {problem.path for problem in refusal.problems} == {"spec.method"}
        reason = reasons.METHOD_NOT_IN_RUNTIME if only_method else reasons.PLAN_REFUSED
        return Verdict(reason, "\n".join(map(str, refusal.problems)), final=True)
    return None


def claims_exist(application: Application) -> Verdict | None:
    """Every claim that any stage will mount is there now, so that no GPU is used before the last one is missed."""
    claims, plan = application.seen.claims, application.plan
    if claims is None or plan is None:
        return None
    own = names.workspace_name(application.seen.name)
    missing = sorted({mount.claim for mount in plan.mounts} - claims - {own})
    if not missing:
        return None
    message = (
        f"PersistentVolumeClaim {', '.join(missing)} does not exist in namespace {application.seen.namespace}"
    )
    waiting = WaitingFor(
        kind="PersistentVolumeClaim", name=missing[0], reason=reasons.CLAIM_MISSING, message=message
    )
    return Verdict(reasons.CLAIM_MISSING, message, waiting_for=waiting)


CHAIN: tuple[Check[Application], ...] = (
    spec_is_valid,
    runtime_exists,
    runtime_is_valid,
    plan_is_possible,
    claims_exist,
)


def read_runtime(name: str, spec: Mapping[str, object]) -> FineTuneRuntime:
    """A FineTuneRuntime from the API server's JSON."""
    return FineTuneRuntime.model_validate({"metadata": {"name": name}, "spec": spec})


def problems_of(error: ValidationError) -> str:
    """All problems, one a line, under the path that the person wrote."""
    lines = []
    for problem in error.errors(include_url=False):
        path = ".".join(str(part) for part in problem["loc"])
        got = "" if problem["type"] == "missing" else f" (got {problem['input']!r})"
        lines.append(f"{path}: {problem['msg']}{got}")
    return "\n".join(lines)


def _job(application: Application) -> FineTuneJob:
    if application.job is None:
        raise AssertionError("spec_is_valid comes first in the chain")
    return application.job
