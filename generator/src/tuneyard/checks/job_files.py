# SPDX-License-Identifier: Apache-2.0
"""Checks FineTuneJobs in git, so that what the API server would refuse is reported before it is committed."""

from collections.abc import Iterator
from pathlib import Path

from tuneyard_api.problems import InputRefused, LocatedProblem, Position
from tuneyard_api.yaml_io import Document, load_all

from tuneyard.findings import Finding
from tuneyard.stack.model import Stack

READ_BY_ARGOCD = (".yaml", ".yml", ".json")


def check(stack: Stack, root: Path) -> Iterator[Finding]:
    """Every `jobsFolder` exists and holds only FineTuneJobs of its namespace."""
    for index, namespace in enumerate(stack.environment.fine_tuning.namespaces):
        if namespace.jobs_folder is None:
            continue
        files = [p for p in sorted((root / namespace.jobs_folder).rglob("*")) if p.suffix in READ_BY_ARGOCD]
        if not files:
            path = ("fineTuning", "namespaces", index, "jobsFolder")
            problem, hint = "no FineTuneJob is in this folder", "committing one first"
            yield Finding("jobs-are-there", problem, path, namespace.jobs_folder, hint)
        for file in files:
            for wrong in _problems(file, file.relative_to(root).as_posix(), namespace.name):
                at = wrong.position
                where = f"{wrong.path}: " if wrong.path else ""
                yield Finding(
                    "job-is-accepted",
                    where + wrong.message,
                    file=wrong.file,
                    line=at.line,
                    column=at.column,
                )


def _problems(file: Path, name: str, namespace: str) -> Iterator[LocatedProblem]:
    try:
        documents = load_all(file.read_text(encoding="utf-8"), name)
    except UnicodeDecodeError:
        yield LocatedProblem(name, Position(1, 1), "", "is not UTF-8 text")
        return
    except InputRefused as refused:
        yield from refused.problems
        return
    for document in documents:
        yield from _problems_of(document, namespace)


def _problems_of(document: Document, namespace: str) -> Iterator[LocatedProblem]:
    from tuneyard_api.validate import read_job, refused_nulls  # noqa: PLC0415  slow to import, seldom needed

    try:
        read_job(document)
    except InputRefused as refused:
        yield from refused.problems
        return
    yield from refused_nulls(document)
    said = document.value["metadata"].get("namespace", namespace)
    if said != namespace:
        message = f"jobs of this folder are of another namespace (got {said}); try leaving it out"
        yield document.problem(("metadata", "namespace"), message)
