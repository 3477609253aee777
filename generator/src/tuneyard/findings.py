# SPDX-License-Identifier: Apache-2.0
"""Findings of checks. Each carries its place, so that people see all problems at once and fix each at its line."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from tuneyard_api.problems import Path, closest, path_text


class Severity(StrEnum):
    """An error stops rendering; a warning is a decision that someone should have made on purpose."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Finding:
    """One problem. `rule` is an id that scripts can rely on; one check may give several; line and column count from 1, 0 means unknown."""

    rule: str
    problem: str
    path: Path = ()
    got: str | None = None
    hint: str | None = None
    severity: Severity = Severity.ERROR
    file: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        where = f"{place} {path_text(self.path)}".strip()
        got = f" (got {self.got})" if self.got is not None else ""
        hint = f"; try {self.hint}" if self.hint else ""
        mark = "warning: " if self.severity is Severity.WARNING else ""
        return f"{where}: {mark}{self.problem}{got}{hint}" if where else f"{mark}{self.problem}{got}{hint}"


class InputError(Exception):
    """The user's input is wrong; carries every finding."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("\n".join(map(str, self.findings)))


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The nearest known words as a hint, or all of them when there are few, or None."""
    words = sorted(known)
    if near := closest(word, words):
        return near
    if len(words) == 1:
        return words[0]
    return f"one of {', '.join(words)}" if 1 < len(words) <= 12 else None  # noqa: PLR2004


def has_errors(findings: Iterable[Finding]) -> bool:
    """Whether anything must be fixed before rendering."""
    return any(finding.severity is Severity.ERROR for finding in findings)


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """The findings ordered by place, then rule, without duplicates."""
    return sorted(
        set(findings), key=lambda f: (f.file, f.line, f.column, tuple(map(str, f.path)), f.rule, f.problem)
    )


def as_text(findings: Sequence[Finding]) -> str:
    """The findings as text, one line each."""
    return "".join(f"{finding}\n" for finding in findings)


def as_json(findings: Sequence[Finding]) -> str:
    """A JSON list of objects with rule, severity, file, line, column, path, problem, got and try."""
    rows: list[dict[str, Any]] = [
        {
            "rule": f.rule,
            "severity": f.severity.value,
            "file": f.file,
            "line": f.line,
            "column": f.column,
            "path": path_text(f.path),
            "problem": f.problem,
            "got": f.got,
            "try": f.hint,
        }
        for f in findings
    ]
    return json.dumps(rows, indent=2) + "\n"


def as_sarif(findings: Sequence[Finding]) -> str:
    """SARIF 2.1.0, as code hosts read it."""
    results = [
        {
            "ruleId": f.rule,
            "level": f.severity.value,
            "message": {"text": str(replace(f, file="", line=0, severity=Severity.ERROR))},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": f.file},
                        "region": {"startLine": max(f.line, 1), "startColumn": max(f.column, 1)},
                    }
                }
            ],
        }
        for f in findings
    ]
    driver = {"name": "tuneyard", "rules": [{"id": rule} for rule in sorted({f.rule for f in findings})]}
    document = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }
    return json.dumps(document, indent=2) + "\n"


FORMATS = {"text": as_text, "json": as_json, "sarif": as_sarif}
