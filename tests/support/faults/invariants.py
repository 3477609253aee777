# SPDX-License-Identifier: Apache-2.0
"""Invariants of every FineTuneJob under any faults, checked over the cluster's whole history.

`assert_nothing_lost` is called at the end of every test with faults, and of the soak.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tuneyard_api import names
from tuneyard_api.pod_contract import Stage
from tuneyard_api.registry import STORE, published_digest
from tuneyard_api.status import FineTuneJobStatus

from support.faults.history import Api, Body, Happened, History

CHILDREN = (
    "/apis/batch/v1/namespaces/{}/jobs",
    "/api/v1/namespaces/{}/pods",
    "/api/v1/namespaces/{}/configmaps",
    "/api/v1/namespaces/{}/persistentvolumeclaims",
    "/api/v1/namespaces/{}/services",
)
ENDS = {"Succeeded", "Failed"}
KINDS = ("lost", "doubled", "overlapping", "orphaned", "untrue")
"""Overlapping: two attempts of one job at once. Doubled: one after the other, and the second was not needed."""


@dataclass(frozen=True)
class Attempt:
    """One attempt of one stage of one FineTuneJob."""

    job: str
    """uid of the FineTuneJob."""
    stage: str
    number: int


@dataclass(frozen=True)
class Problem:
    """An invariant that does not hold."""

    kind: str
    """One of KINDS."""
    words: str


def assert_nothing_lost(history: History, namespace: str, registry: Path | None = None) -> None:
    """Raise with every invariant that does not hold in a namespace; `registry`: the folder of published adapters."""
    problems = find_problems(history, namespace, registry)
    assert not problems, "\n".join(f"{problem.kind}: {problem.words}" for problem in problems)


def find_problems(history: History, namespace: str, registry: Path | None = None) -> list[Problem]:
    """All problems in a namespace."""
    history.catch_up()
    happened = history.happened(namespace=namespace)
    jobs = [body for body in history.present("FineTuneJob") if body["metadata"]["namespace"] == namespace]
    return [
        *two_live_attempts(happened),
        *overlapping_runs(happened),
        *repeated_work(happened),
        *ends_that_were_left(happened),
        *(problem for body in jobs for problem in untrue_status(body, happened)),
        *orphans(history.api, namespace),
        *(lost_adapters(jobs, registry) if registry is not None else ()),
    ]


def two_live_attempts(happened: Iterable[Happened]) -> list[Problem]:
    """At no moment has a FineTuneJob (by its name: one workspace) had pods of two Jobs that had not ended."""
    live: dict[str, dict[str, str]] = defaultdict(dict)
    problems = []
    for each in (each for each in happened if each.kind == "Pod"):
        metadata = each.body["metadata"]
        pods, job = live[metadata["labels"][names.LABEL_JOB]], metadata["ownerReferences"][0]
        if each.is_deleted or each.body["status"].get("phase") in ENDS:
            pods.pop(each.uid, None)
        else:
            pods[each.uid] = f"{job['name']} ({job['uid']})"
        if len(set(pods.values())) > 1:
            problems.append(Problem("overlapping", f"two live attempts: {sorted(set(pods.values()))}"))
    return problems


def overlapping_runs(happened: Iterable[Happened]) -> list[Problem]:
    """No two attempts ran at once by the containers' own clock, which also covers what no watch saw."""
    return [
        Problem("overlapping", f"{former[3]} ended at {former[1]}, and {later[3]} began at {later[0]}")
        for each in runs_by_job(happened).values()
        for former, later in pairwise(sorted(each))
        if former[2] != later[2] and later[0] < former[1]
    ]


def runs_by_job(happened: Iterable[Happened]) -> dict[str, list[tuple[str, str, str, str]]]:
    """Start, end, uid of the Job and pod of each finished container, by name of the FineTuneJob."""
    last = {each.uid: each.body for each in happened if each.kind == "Pod"}
    runs: dict[str, list[tuple[str, str, str, str]]] = defaultdict(list)
    for body in last.values():
        for container in body["status"].get("containerStatuses", ()):
            ended = container["state"].get("terminated") or {}
            if ended.get("startedAt") and ended.get("finishedAt"):
                metadata = body["metadata"]
                owner = str(metadata["ownerReferences"][0]["uid"])
                run = (ended["startedAt"], ended["finishedAt"], owner, str(metadata["name"]))
                runs[metadata["labels"][names.LABEL_JOB]].append(run)
    return runs


def repeated_work(happened: Iterable[Happened]) -> list[Problem]:
    """No Job was made twice, and none of a stage that status called done."""
    made: dict[Attempt, str] = {}
    done: dict[tuple[str, str], int] = {}
    problems = []
    for each in happened:
        if each.kind == "FineTuneJob":
            for past in status_of(each.body).attempts:
                if past.outcome == "Succeeded":
                    done.setdefault((each.uid, past.stage), past.number)
        elif each.kind == "Job" and not each.is_deleted:
            attempt = attempt_of(each.body)
            if made.setdefault(attempt, each.uid) != each.uid:
                problems.append(Problem("doubled", f"{attempt} was made twice"))
                made[attempt] = each.uid
            if done.get((attempt.job, attempt.stage), attempt.number) < attempt.number:
                problems.append(Problem("doubled", f"{attempt} was made after the stage was done"))
    return sorted(set(problems), key=lambda problem: problem.words)


def ends_that_were_left(happened: Iterable[Happened]) -> list[Problem]:
    """A met condition stays met, a terminal condition never changes, and the attempts of a job only grow."""
    problems, former = [], dict[str, FineTuneJobStatus]()
    for each in (each for each in happened if each.kind == "FineTuneJob"):
        name, before, now = each.body["metadata"]["name"], former.get(each.uid), status_of(each.body)
        former[each.uid] = now
        if before is None:
            continue
        if met(before) - met(now):
            problems.append(Problem("lost", f"{name}: {sorted(met(before) - met(now))} had been met"))
        if before.state.value in ENDS and (before.state, before.attempts) != (now.state, now.attempts):
            problems.append(Problem("lost", f"{name}: was {before.state}, then {now.state}"))
        if [(a.stage, a.number) for a in now.attempts][: len(before.attempts)] != [
            (a.stage, a.number) for a in before.attempts
        ]:
            problems.append(Problem("lost", f"{name}: attempts {before.attempts} became {now.attempts}"))
    return problems


def untrue_status(body: Body, happened: Iterable[Happened]) -> list[Problem]:
    """Status names exactly the attempts that were made, and each ended as it says."""
    uid, name, status = body["metadata"]["uid"], body["metadata"]["name"], status_of(body)
    last: dict[Attempt, Body] = {}
    for each in happened:
        if each.kind == "Job" and attempt_of(each.body).job == uid:
            last[attempt_of(each.body)] = each.body
    said = {Attempt(uid, attempt.stage, attempt.number): attempt.outcome for attempt in status.attempts}
    problems = [
        Problem("untrue", f"{name}: no Job was made for {each}") for each in said.keys() - last.keys()
    ]
    problems += [
        Problem("untrue", f"{name}: status does not know {each}") for each in last.keys() - said.keys()
    ]
    is_over = status.state.value in ENDS
    problems += [
        Problem("untrue", f"{name}: is over, and {each} runs")
        for each, outcome in said.items()
        if is_over and outcome == "Running"
    ]
    stages = [attempt.stage for attempt, outcome in said.items() if outcome == "Succeeded"]
    if status.state.value == "Succeeded" and sorted(stages) != sorted(Stage):
        problems.append(Problem("untrue", f"{name}: Succeeded, with the stages {stages}"))
    problems += [
        Problem("untrue", f"{name}: {each} is {outcome}, and its Job {ended_as(last[each])}")
        for each, outcome in said.items()
        if each in last and outcome == "Succeeded" and ended_as(last[each]) == "Failed"
    ]
    return problems


def orphans(api: Api, namespace: str) -> list[Problem]:
    """Every existing child has an existing owner."""
    path = f"/apis/{names.API_VERSION}/namespaces/{namespace}/{names.JOB_PLURAL}"
    children = [body for kind in CHILDREN for body in api.items(kind.format(namespace))]
    there = {body["metadata"]["uid"] for body in (*api.items(path), *children)}
    return [
        Problem("orphaned", f"{body['metadata']['name']}: its owner is gone")
        for body in children
        if names.LABEL_JOB in (body["metadata"].get("labels") or {})
        and not {owner["uid"] for owner in body["metadata"].get("ownerReferences", ())} & there
    ]


def lost_adapters(jobs: Iterable[Body], registry: Path) -> list[Problem]:
    """Every job that is Succeeded has the adapter in the registry that its status names."""
    problems = []
    for body in jobs:
        status = status_of(body)
        if status.state.value != "Succeeded" or status.result is None or status.result.adapter is None:
            continue
        folder = registry / status.result.adapter.name
        torn = [*registry.glob(f".{folder.name}.*"), *(registry / STORE / folder.name).glob(".*")]
        left = [path.name for path in torn]
        if left:
            problems.append(Problem("orphaned", f"{registry}: {left}"))
        found = published_digest(folder) if folder.is_dir() else "nothing"
        if found != status.result.adapter.digest:
            problems.append(Problem("lost", f"{folder}: {found}, not {status.result.adapter.digest}"))
    return problems


def status_of(body: Body) -> FineTuneJobStatus:
    return FineTuneJobStatus.model_validate(body.get("status") or {})


def met(status: FineTuneJobStatus) -> set[str]:
    """Conditions that are met for good.

    Scheduled is not, as the next pod may wait again. Suspended lasts as long as people wish.
    """
    return {each.type.value for each in status.conditions if each.status == "True"} - {
        "Scheduled",
        "Suspended",
    }


def attempt_of(job: Body) -> Attempt:
    metadata = job["metadata"]
    labels = metadata["labels"]
    owner = metadata["ownerReferences"][0]["uid"]
    return Attempt(owner, labels[names.LABEL_STAGE], int(labels[names.LABEL_ATTEMPT]))


def ended_as(job: Body) -> str:
    """`Complete`, `Failed` or nothing."""
    ended = (each for each in job.get("status", {}).get("conditions", ()) if each["status"] == "True")
    return next((each["type"] for each in ended if each["type"] in {"Complete", "Failed"}), "")
