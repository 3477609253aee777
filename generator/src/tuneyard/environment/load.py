# SPDX-License-Identifier: Apache-2.0
"""Reads a file into an Environment, or reports every problem in it with its line and column."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from tuneyard_api.problems import InputRefused, LocatedProblem, Path, shown
from tuneyard_api.yaml_io import Document
from tuneyard_api.yaml_io import load as load_yaml

from tuneyard.environment.model import Environment
from tuneyard.findings import Finding, InputError, did_you_mean

MAX_BYTES = 1024 * 1024
_SECRET_VALUE = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bnvapi-[A-Za-z0-9_-]{20,}|\bhf_[A-Za-z0-9]{20,}|\bAKIA[0-9A-Z]{16}\b"
    r"|\bgh[pousr]_[A-Za-z0-9]{30,}|\beyJ[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}|://[^/\s:@]+:[^/\s:@]+@"
)
_SECRET_KEY = re.compile(r"(password|passwd|secretkey|apikey|accesskey|privatekey|token)$")


@dataclass(frozen=True)
class Loaded:
    """An environment with the file that it was read from."""

    environment: Environment
    source: Document

    def at_place(self, finding: Finding) -> Finding:
        """The finding with the line and column of its path, or of the nearest part of it that was written."""
        return placed(finding, self.source)


def placed(finding: Finding, source: Document) -> Finding:
    """The finding at its place in a file."""
    position = source.position(finding.path)
    return replace(finding, file=source.file, line=position.line, column=position.column)


def load(path: FilePath) -> Loaded:
    """Read one environment file.

    Raises:
        InputError: everything that is wrong with it.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError([Finding("file", f"can't be read: {error.strerror}", file=str(path))]) from error
    if len(raw) > MAX_BYTES:
        problem = f"an environment is at most {MAX_BYTES:,} bytes"
        raise InputError([Finding("file", problem, got=f"{len(raw):,}", file=str(path))])
    loaded = parse(raw, str(path))
    if path.stem not in (loaded.environment.name, "sample"):
        finding = Finding(
            "name-is-file-name",
            "the name differs from the name of the file",
            ("name",),
            repr(loaded.environment.name),
            f"{path.stem!r}, or rename the file",
        )
        raise InputError([loaded.at_place(finding)])
    return loaded


def parse(raw: bytes, name: str) -> Loaded:
    """The environment in `raw`; `name` is what messages call the file."""
    try:
        source = load_yaml(raw.decode(), name)
    except UnicodeDecodeError as error:
        raise InputError(
            [Finding("yaml", "is not UTF-8 text", got=f"byte {error.start}", file=name)]
        ) from error
    except InputRefused as error:
        raise InputError(_yaml_finding(problem) for problem in error.problems) from error
    findings = list(_typed_in_secrets(source.value, ()))
    environment = None
    try:
        environment = Environment.model_validate(source.value, by_alias=True, by_name=False)
    except ValidationError as error:
        findings += [_finding(details, source) for details in error.errors()]
    # Chart values go to Helm, which would have to read what was meant.
    misread = [_yaml_finding(problem) for problem in source.misread]
    said = {finding.path for finding in misread}
    if environment is None or findings or misread:
        others = [placed(finding, source) for finding in findings if finding.path not in said]
        raise InputError([*misread, *others])
    return Loaded(environment, source)


def _yaml_finding(problem: LocatedProblem) -> Finding:
    from tuneyard.environment.reference import path_of  # noqa: PLC0415  needed for messages only

    line, column = problem.position.line, problem.position.column
    return Finding(
        "yaml", problem.message, path_of(problem.path), file=problem.file, line=line, column=column
    )


def _finding(details: ErrorDetails, source: Document) -> Finding:
    """The finding for a pydantic error."""
    path: Path = tuple(details["loc"])
    kind, context, value = details["type"], details.get("ctx", {}), details["input"]
    got = shown(value)
    if kind == "extra_forbidden":
        hint = did_you_mean(str(path[-1]), known_keys(path[:-1]))
        return Finding("unknown-key", "no such key", path, None, hint)
    if kind == "missing":
        return Finding("missing-key", "is needed", path, None, example(path))
    if kind == "literal_error":
        choices = [choice.strip().strip("'") for choice in re.split(r", | or ", str(context["expected"]))]
        return Finding(
            "unknown-value", f"must be {context['expected']}", path, got, did_you_mean(str(value), choices)
        )
    if kind == "string_pattern_mismatch":
        return Finding("wrong-value", f"must match {context['pattern']}", path, got, example(path))
    if kind == "string_type" and (quoted := source.in_quotes(path)) is not None:
        return Finding("wrong-value", "must be a string", path, source.written[path], quoted)
    return Finding("wrong-value", details["msg"][0].lower() + details["msg"][1:], path, got, example(path))


def known_keys(path: Path) -> list[str]:
    """The keys that the model has at `path`; empty when the path is not an object of ours."""
    from tuneyard.environment.reference import model_at  # noqa: PLC0415  needed for messages only

    model = model_at(path)
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def example(path: Path) -> str | None:
    """The documented example of the key at `path`, or None."""
    from tuneyard.environment.reference import example_of, field_at  # noqa: PLC0415

    field = field_at(path)
    return example_of(field) if field else None


def _typed_in_secrets(value: Any, path: Path) -> Iterator[Finding]:
    """Values that look like secrets, and keys of chart values that hold one in plain text."""
    if isinstance(value, dict):
        for key, child in value.items():
            here = (*path, str(key))
            word = str(key).replace("_", "").replace("-", "").lower()
            typed = isinstance(child, str) and child and "values" in path and _SECRET_KEY.search(word)
            if typed and not word.startswith("existing"):
                yield Finding(
                    "no-secrets-in-file",
                    "a secret is typed into the file",
                    here,
                    "a value that is not shown",
                    "an existing Secret's name (most charts have existingSecret); then change the secret",
                )
            else:
                yield from _typed_in_secrets(child, here)
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _typed_in_secrets(child, (*path, index))
    elif isinstance(value, str) and _SECRET_VALUE.search(value):
        yield Finding(
            "no-secrets-in-file",
            "a secret is typed into the file",
            path,
            "a value that is not shown",
            "a Secret in the cluster that is named here; then change the secret",
        )
