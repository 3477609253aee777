# SPDX-License-Identifier: Apache-2.0
"""Keeps the values and schemas of charts (`tuneyard schemas add CHART`) and checks our values against them.

Helm silently ignores a misspelt key of a chart's values, and an hour later a pod does something else.
Kept are the chart's values.yaml and values.schema.json, by name and version, in
`.tuneyard/schemas/charts/`; Tuneyard ships no charts of other projects.
"""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tuneyard_api.problems import InputRefused
from tuneyard_api.problems import Path as KeyPath
from tuneyard_api.yaml_io import load

from tuneyard.findings import Finding, InputError, Severity, did_you_mean
from tuneyard.render.tree import derived_values
from tuneyard.stack.model import Stack

MAX_BYTES = 16 * 1024 * 1024
"""Largest size of one file in a chart's archive, in bytes."""
ChartKey = tuple[str, str]
"""Name and version."""


@dataclass(frozen=True)
class KeptChart:
    """The kept values and schema of a chart."""

    name: str
    version: str
    values: Mapping[str, Any]
    schema: Any = None
    subcharts: tuple[str, ...] = ()
    """Names under which values of subcharts may stand."""


def folder(root: Path) -> Path:
    """The folder in which charts' values are kept."""
    return root / ".tuneyard/schemas/charts"


def is_chart(path: Path) -> bool:
    """Whether a path is a chart's folder or archive."""
    return (path / "Chart.yaml").is_file() or path.name.endswith((".tgz", ".tar.gz"))


def add_chart(path: Path, root: Path, version: str | None = None) -> ChartKey:
    """Keep the values of a chart.

    Args:
        path: a chart's folder or .tgz.
        root: the repository.
        version: instead of the one in Chart.yaml, which in a project's git tree is often not the published one.

    Raises:
        InputError: it can't be read, or is no chart.
    """
    chart = _read(path)
    if version:
        chart = KeptChart(chart.name, version, chart.values, chart.schema, chart.subcharts)
    folder(root).mkdir(parents=True, exist_ok=True)
    text = json.dumps(vars(chart), sort_keys=True)
    (folder(root) / f"{chart.name}-{chart.version}.json").write_text(text)
    return chart.name, chart.version


def kept_charts(root: Path) -> dict[ChartKey, KeptChart]:
    """Every chart whose values are kept."""
    entries = [json.loads(path.read_text()) for path in sorted(folder(root).glob("*.json"))]
    return {
        (e["name"], e["version"]): KeptChart(**{**e, "subcharts": tuple(e["subcharts"])}) for e in entries
    }


def _read(path: Path) -> KeptChart:
    files = _files(path)
    try:
        about = load(files["Chart.yaml"], str(path)).value
        values = load(files.get("values.yaml", "{}"), str(path)).value or {}
        schema = json.loads(files["values.schema.json"]) if "values.schema.json" in files else None
        listed = [*about.get("dependencies", ()), *_requirements(files, path)]
        names = tuple(sorted({str(entry.get("alias") or entry["name"]) for entry in listed}))
        return KeptChart(str(about["name"]), str(about["version"]), values, schema, names)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, InputRefused) as error:
        raise InputError([Finding("schemas", f"is not a chart: {error}", file=str(path))]) from error


def _requirements(files: Mapping[str, str], path: Path) -> list[Any]:
    """The dependencies of a chart of Helm 2's time."""
    text = files.get("requirements.yaml")
    return list(load(text, str(path)).value["dependencies"]) if text else []


def _files(path: Path) -> dict[str, str]:
    """The chart's own top-level files by name."""
    import tarfile  # noqa: PLC0415  only `schemas add` opens archives

    try:
        if path.is_dir():
            wanted = ("Chart.yaml", "values.yaml", "values.schema.json", "requirements.yaml")
            return {name: (path / name).read_text() for name in wanted if (path / name).is_file()}
        found = {}
        with tarfile.open(fileobj=io.BytesIO(path.read_bytes()), mode="r:gz") as archive:
            for member in archive:
                parts = PurePosixPath(member.name).parts
                if member.isfile() and len(parts) == 2 and member.size <= MAX_BYTES:  # noqa: PLR2004  <chart>/<file>
                    stream = archive.extractfile(member)
                    if stream and parts[1].endswith((".yaml", ".json")):
                        found[parts[1]] = stream.read().decode()
    except (OSError, tarfile.TarError, EOFError, UnicodeDecodeError) as error:
        raise InputError([Finding("schemas", f"can't be read: {error}", file=str(path))]) from error
    return found


def check_chart_values(stack: Stack, root: Path) -> list[Finding]:
    """Keys that the kept charts do not have, and values that their schemas refuse; nothing of charts that are not kept."""
    kept = kept_charts(root)
    found: list[Finding] = []
    for component in stack.components if kept else ():
        pin = stack.pin(component.name)
        chart = kept.get((pin.chart, pin.version))
        if chart and component.values:
            values = derived_values(stack, component)
            for path, near in unknown_keys(values, chart.values, chart.subcharts):
                found.append(
                    _placed(stack, component.name, path, f"{pin.chart} {pin.version} has no such value", near)
                )
            found += [_placed(stack, component.name, *rest) for rest in refused_values(values, chart)]
    return found


def _placed(stack: Stack, component: str, path: KeyPath, problem: str, hint: str | None = None) -> Finding:
    """The finding at the value's place in the environment file, or in the rendered values if it is not typed there."""
    typed: Any = stack.options(component).values
    for part in path:
        typed = typed.get(part) if isinstance(typed, dict) else None
    rule, severity = "chart-value-is-known", Severity.WARNING
    if problem.startswith("the chart's schema"):
        rule, severity = "chart-value-fits-schema", Severity.ERROR
    if typed is not None:
        return Finding(rule, problem, ("components", component, "values", *path), None, hint, severity)
    file = f"manifests/{stack.environment.name}/{component}/values.yaml"
    return Finding(rule, problem, path, None, hint, severity, file=file)


def unknown_keys(
    values: Mapping[str, Any], known: Mapping[str, Any], subcharts: tuple[str, ...] = (), path: KeyPath = ()
) -> Iterator[tuple[KeyPath, str | None]]:
    """Keys that a chart's values.yaml does not have, with the nearest that it has.

    A map that is empty or absent there (labels, selectors, resources) may hold anything; so may a subchart's values.
    """
    for key, value in values.items():
        if key not in known:
            if path or key not in (*subcharts, "global"):
                yield (*path, key), did_you_mean(key, map(str, known))
            continue
        inner = known[key]
        is_free = key in _FREE or (not path and key in subcharts)
        if isinstance(value, dict) and isinstance(inner, dict) and inner and not is_free:
            yield from unknown_keys(value, inner, (), (*path, key))


_FREE = frozenset(
    {"resources", "requests", "limits", "nodeSelector", "labels", "annotations", "data", "config"}
)
"""Maps that the API or the program reads, and of which charts name only examples."""


def refused_values(values: Mapping[str, Any], chart: KeptChart) -> Iterator[tuple[KeyPath, str]]:
    """Where and why the chart's schema refuses the values as Helm merges them; empty without a schema."""
    if chart.schema is None:
        return
    try:
        from referencing.exceptions import Unresolvable  # noqa: PLC0415

        from tuneyard.checks.schema_judges import helm_errors  # noqa: PLC0415  an extra
    except ImportError:
        return
    try:
        for error in helm_errors(chart.schema, laid_over(chart.values, values, chart.subcharts)):
            yield tuple(error.absolute_path), f"the chart's schema refuses it: {error.message[:200]}"
    except Unresolvable:
        return  # a schema that points to the network is left to Helm


def laid_over(base: Mapping[str, Any], over: Mapping[str, Any], subcharts: tuple[str, ...] = ()) -> Any:
    """The values merged over a chart's as by Helm: a null removes a key of the chart's values.yaml, and else stays.

    Args:
        base: the chart's values.yaml.
        over: what is laid over it.
        subcharts: names under which values of subcharts stand. Their own defaults are not known here, so that a null is
            taken for one that takes such a default away, unless it stands in place of what the parent says.
    """
    out: dict[str, Any] = dict(base)
    for key, value in over.items():
        if value is None and key in base:
            del out[key]
            out |= {key: {}} if key in subcharts else {}
        else:
            out[key] = _laid_inside(base.get(key), value, of_subchart=key in subcharts)
    return out


def _laid_inside(base: Any, over: Any, *, of_subchart: bool) -> Any:
    if not isinstance(over, dict):
        return over
    known = base if isinstance(base, dict) else {}
    out = dict(known)
    for key, value in over.items():
        if value is not None:
            out[key] = _laid_inside(known.get(key), value, of_subchart=of_subchart)
        elif not of_subchart and known.get(key) is not None:
            del out[key]
        elif not of_subchart or key in known:
            out[key] = None
    return out
