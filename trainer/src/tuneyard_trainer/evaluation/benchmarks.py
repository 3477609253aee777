# SPDX-License-Identifier: Apache-2.0
"""Asks base and tuned model public benchmarks by lm-evaluation-harness, and says how sure the difference is.

Prompts, scoring and metrics are those of the tasks of the pinned version; only the records come from the workspace, without a
network. No examples are put before a question.
"""

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tuneyard_api import durable
from tuneyard_api.benchmarks import BenchmarkFacts, Benchmarks

from tuneyard_trainer.record.intervals import Interval, of_mean, of_share
from tuneyard_trainer.workspace.benchmarks import load_benchmark

_TASKS = {
    "boolq": ("super_glue/boolq/default", ("acc",)),
    "hellaswag": ("hellaswag/hellaswag", ("acc", "acc_norm")),
    "lambada": ("lambada/lambada_openai", ("acc", "perplexity")),
    "piqa": ("piqa/piqa", ("acc", "acc_norm")),
    "race": ("race/race", ("acc",)),
    "wikitext": ("wikitext/wikitext", ("word_perplexity",)),
    "winogrande": ("winogrande/default", ("acc",)),
}
"""File of each task below lm_eval/tasks, and the metrics that are kept of it."""
_RESAMPLES, _SEED = 1000, 20_240_101


@dataclass(frozen=True)
class Asked:
    """One model on one benchmark."""

    digest: str
    """`sha256:` over its records."""
    totals: dict[str, float]
    """Each metric over all records, as the harness has it."""
    each: dict[str, list[tuple[float, float]]]
    """Each metric by record: a value, and what it weighs."""


def ask(lm: Any, wanted: Benchmarks, workspace: Path) -> dict[str, Asked]:
    """The scores of a model, an `LM` of the harness, by name of the benchmark."""
    from lm_eval.evaluator import evaluate  # noqa: PLC0415  seconds

    # It says at length what it does.
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    found: dict[str, Asked] = {}
    for name in wanted.names:
        records, digest = load_benchmark(workspace, name)
        task = _task(name, records)
        answer = evaluate(lm=lm, task_dict={"tasks": {name: task}, "groups": {}}, bootstrap_iters=0)
        metrics = _TASKS[name][1]
        found[name] = Asked(
            digest=digest,
            totals={metric: float(answer["results"][name][f"{metric},none"]) for metric in metrics},
            each={metric: [_weighed(one[metric]) for one in answer["samples"][name]] for metric in metrics},
        )
    return found


def kept_asked(path: Path, plan_digest: str) -> dict[str, Asked] | None:
    """What an earlier attempt of this plan has kept; a torn file or one of another plan counts as none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["planDigest"] != plan_digest:
            return None
        return {name: Asked(**asked) for name, asked in content["asked"].items()}
    except (OSError, ValueError, TypeError, KeyError):
        return None


def keep_asked(path: Path, plan_digest: str, asked: dict[str, Asked]) -> None:
    """Writes what `kept_asked` reads."""
    content = {name: asdict(each) for name, each in asked.items()}
    durable.write_file(path, json.dumps({"planDigest": plan_digest, "asked": content}).encode())


def compare_asked(base: dict[str, Asked], tuned: dict[str, Asked]) -> tuple[BenchmarkFacts, ...]:
    """Both models on each metric of each benchmark, with intervals; records are drawn in pairs for the difference."""
    return tuple(
        _facts(name, metric, before, tuned[name]) for name, before in base.items() for metric in before.totals
    )


def _facts(name: str, metric: str, before: Asked, after: Asked) -> BenchmarkFacts:
    of_base, of_tuned = before.each[metric], after.each[metric]
    mine, theirs = _interval(metric, of_tuned), _interval(metric, of_base)
    gain = _interval_of_gain(metric, of_base, of_tuned)
    return BenchmarkFacts(
        name=name,
        metric=metric,
        documents=len(of_base),
        records_digest=before.digest,
        base=before.totals[metric],
        base_low=theirs and theirs.low,
        base_high=theirs and theirs.high,
        tuned=after.totals[metric],
        tuned_low=mine and mine.low,
        tuned_high=mine and mine.high,
        gain_low=gain and gain.low,
        gain_high=gain and gain.high,
    )


def _task(name: str, records: Sequence[dict[str, Any]]) -> Any:
    """A task of the harness as its own file has it, with these records and no others."""
    import datasets  # noqa: PLC0415  seconds
    import lm_eval.tasks  # noqa: PLC0415
    from lm_eval.api.task import ConfigurableTask  # noqa: PLC0415
    from lm_eval.tasks._yaml_loader import load_yaml  # noqa: PLC0415

    file = Path(lm_eval.tasks.__file__).parent / f"{_TASKS[name][0]}.yaml"
    config = load_yaml(file)
    for split in ("training_split", "validation_split", "test_split", "dataset_path", "dataset_name", "tag"):
        config.pop(split, None)

    def given(**_: Any) -> dict[str, Any]:
        return {"test": datasets.Dataset.from_list(list(records))}

    changes = {"task": name, "test_split": "test", "custom_dataset": given, "num_fewshot": 0}
    return ConfigurableTask(config=config | changes)


def _weighed(value: Any) -> tuple[float, float]:
    """A value of a record; that of a whole text is a sum, and comes with what it is divided by."""
    return (float(value[0]), float(value[1])) if isinstance(value, tuple) else (float(value), 1.0)


def _value(metric: str, pairs: np.ndarray) -> float:
    """The metric over records, float64 [records, 2], as the harness aggregates it."""
    mean = float(pairs[:, 0].sum() / pairs[:, 1].sum())
    return math.exp(min(-mean, 700.0)) if metric.endswith("perplexity") else mean


def _interval(metric: str, pairs: Sequence[tuple[float, float]]) -> Interval | None:
    if metric.endswith("perplexity"):
        return _resampled(lambda drawn: _value(metric, drawn), np.asarray(pairs, dtype=np.float64))
    return of_share(round(sum(value for value, _ in pairs)), len(pairs))


def _interval_of_gain(
    metric: str, base: Sequence[tuple[float, float]], tuned: Sequence[tuple[float, float]]
) -> Interval | None:
    if not metric.endswith("perplexity"):
        return of_mean([b - a for (a, _), (b, _) in zip(base, tuned, strict=True)])
    both = np.concatenate((np.asarray(base), np.asarray(tuned)), axis=1)
    return _resampled(lambda drawn: _value(metric, drawn[:, 2:]) - _value(metric, drawn[:, :2]), both)


def _resampled(measure: Callable[[np.ndarray], float], rows: np.ndarray) -> Interval | None:
    """The percentile bootstrap interval over rows; None of a single one."""
    if len(rows) < 2:  # noqa: PLR2004
        return None
    random = np.random.default_rng(_SEED)
    found = [measure(rows[random.integers(0, len(rows), len(rows))]) for _ in range(_RESAMPLES)]
    low, high = np.percentile(found, (2.5, 97.5)).tolist()
    return Interval(low, high)
