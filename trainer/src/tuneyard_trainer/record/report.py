# SPDX-License-Identifier: Apache-2.0
"""The report on a job, as one page of HTML that needs nothing else and as Markdown: both say the same.

Nothing in it depends on the time. All foreign text (records, answers, names of files, warnings) is escaped where it is
written, and the page forbids scripts and other files besides.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from importlib.resources import files
from math import ceil
from typing import Any

import jinja2
from markupsafe import Markup
from tuneyard_api.benchmarks import BenchmarkFacts
from tuneyard_api.evaluation_facts import EvaluationFacts, Scores
from tuneyard_api.ledger import PhaseTimes
from tuneyard_api.methods import Method
from tuneyard_api.pod_contract import PrepareFacts, ResolvedJob, ResolvedSource, TrainFacts
from tuneyard_api.registry import Version
from tuneyard_data.report import DataReport, text_of
from tuneyard_data.shown_tokens import Learned

from tuneyard_trainer.record.curve import draw_curve
from tuneyard_trainer.record.intervals import Interval, of_mean, of_share
from tuneyard_trainer.record.samples import SHOWN_CHARACTERS, Samples
from tuneyard_trainer.record.text import fenced, inline, readable

_PACKAGES = ("tuneyard-trainer", "torch", "transformers", "peft", "lm-eval")
_DEFAULT_RANK = 16
"""Largest rank that vLLM takes without --max-lora-rank."""
_GIB = 1 << 30


@dataclass(frozen=True)
class Row:
    """One metric of both models; `better` says which way."""

    name: str
    base: str
    tuned: str
    difference: str


@dataclass(frozen=True)
class Findings:
    """All that is known of a job when its adapter is published."""

    job: ResolvedJob
    plan_digest: str
    version: Version
    model_revision: str | None
    evaluation_split: str | None
    prepared: PrepareFacts | None
    data: DataReport | None
    learned: Learned | None
    """Records of the training data token by token."""
    trained: TrainFacts
    times: PhaseTimes | None
    """Times of the attempt that ended the training."""
    metrics: Sequence[dict[str, Any]]
    """The lines of metrics.jsonl."""
    metrics_kept: int
    """How many of them are kept."""
    samples: Samples


def render(findings: Findings) -> tuple[str, str]:
    """The report as HTML and as Markdown."""
    values = _values(findings)
    curve = draw_curve(findings.metrics)
    page = _environment(is_html=True).get_template("report.html.j2")
    text = _environment(is_html=False).get_template("report.md.j2")
    # The curve is made of numbers alone.
    html = page.render(values, curve=None if curve is None else Markup(curve))  # noqa: S704
    return html, text.render(values, curve=curve)


def _environment(*, is_html: bool) -> jinja2.Environment:
    def read(name: str) -> str:
        return files(__package__).joinpath(name).read_text(encoding="utf-8")

    def without_control(value: Any) -> Any:
        return readable(value) if type(value) is str else value

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        loader=jinja2.FunctionLoader(read),
        finalize=without_control,
        autoescape=is_html,  # noqa: S701  in Markdown the filters escape
    )
    environment.filters |= {
        "inline": inline,
        "fenced": fenced,
        "short": partial(readable, most=SHOWN_CHARACTERS),
    }
    return environment


def _values(findings: Findings) -> dict[str, Any]:
    job, trained, scores = findings.job, findings.trained, findings.trained.evaluation
    base = findings.version.base.repo or findings.version.base.name or "base"
    return {
        "findings": findings,
        "job": job,
        "version": findings.version,
        "base": base,
        "revision": findings.model_revision,
        "inputs": _inputs(findings),
        "plan": _plan_and_reality(findings),
        "scores": []
        if scores is None
        else [*_scores(scores.base, scores.tuned, findings.samples), *_pairs(scores)],
        "benchmarks": [] if scores is None else [_benchmark(facts) for facts in scores.benchmarks],
        "samples": findings.samples,
        "data_text": None if findings.data is None else text_of(findings.data),
        "learned": findings.learned.records if findings.learned else (),
        "warnings": (*(findings.prepared.warnings if findings.prepared else ()), *trained.warnings),
        "serve": _serve(findings.version, job.kind, base, findings.model_revision),
        "packages": [(name, found) for name in _PACKAGES if (found := _installed(name))],
        "settings": _settings(job),
    }


def _inputs(findings: Findings) -> list[tuple[str, str]]:
    job, prepared = findings.job, findings.prepared
    rows = [("base model", _source(job.model))]
    if findings.model_revision:
        rows.append(("its commit", findings.model_revision))
    if job.adapter is not None:
        rows.append(("continued from", job.adapter.path))
    rows.append(("training data", _source(job.dataset.training)))
    for name, source in (("validation data", job.dataset.validation), ("test data", job.dataset.test)):
        if source is not None:
            rows.append((name, _source(source)))
    if job.dataset.validation_fraction:
        rows.append(("held out for validation", f"{job.dataset.validation_fraction:g} of the training data"))
    if prepared is not None:
        rows.append(("digest of the rendered records", prepared.dataset_digest))
    rows += [("digest of the plan", findings.plan_digest), ("digest of the result", findings.version.digest)]
    return rows


def _source(source: ResolvedSource) -> str:
    """Where it is; a URL without what follows `?`, which may be a key."""
    if source.http is not None:
        return f"{source.http.url.partition('?')[0]} (sha256:{source.http.sha256})"
    if source.s3 is not None:
        return f"s3://{source.s3.bucket}/{source.s3.key}"
    if source.repo is not None:
        path = f", {source.path}" if source.path else ""
        store = f", {source.data_store}" if source.data_store else ""
        return f"{source.repo}{f' at {source.revision}' if source.revision else ''}{path}{store}"
    return source.path or "unknown"


def _plan_and_reality(findings: Findings) -> list[tuple[str, str, str]]:
    """What, as planned, as it was."""
    plan, trained, prepared = findings.job.training, findings.trained, findings.prepared
    processes = findings.job.nodes * findings.job.gpus_per_node
    steps = plan.max_steps
    if steps is None and prepared is not None:
        sequences = max(1, round((plan.epochs or 1.0) * prepared.train_sequences))
        steps = ceil(sequences / plan.global_batch_size)
    ended = ", stopped early" if trained.stopped_early else ""
    resumed = f", the last attempt from step {trained.resumed_from_step}" if trained.resumed_from_step else ""
    rows = [
        ("optimizer steps", "not known" if steps is None else f"{steps}", f"{trained.steps}{ended}{resumed}"),
        ("epochs", "by steps" if plan.epochs is None else f"{plan.epochs:g}", f"{trained.epochs:g}"),
        ("sequences in a step", f"{plan.global_batch_size}", ""),
        ("sequences at a time", f"{plan.micro_batch_size} in each process", ""),
        ("processes", f"{processes}", f"{trained.processes}"),
        ("tokens", "", f"{trained.trained_tokens}"),
        ("tokens per second", "", f"{trained.tokens_per_second:g}"),
        ("seconds of training", "", f"{trained.seconds:g}"),
        ("peak memory of one process", "", f"{trained.peak_memory_bytes / _GIB:.3f} GiB"),
        ("final training loss", "", f"{trained.final_loss:.4f}"),
    ]
    if findings.times is not None:
        spent = [
            f"{phase} {round(seconds)} s" for phase, seconds in findings.times.seconds.items() if seconds >= 1
        ]
        rows.append(("time of the last attempt", "", ", ".join(spent)))
    if trained.validation_loss is not None:
        at = trained.best_step or trained.steps
        rows.append(
            ("validation loss of what is published", "", f"{trained.validation_loss:.4f}, of step {at}")
        )
    return rows


def _scores(base: Scores, tuned: Scores, samples: Samples) -> list[Row]:
    def number(value: float, interval: Interval | None = None) -> str:
        between = "" if interval is None else f" ({interval.low:.4f} to {interval.high:.4f})"
        return f"{value:.4f}{between}"

    rows = [
        Row(name, number(before), number(after), f"{after - before:+.4f}")
        for name, before, after in (
            ("loss, nats per learned token", base.loss, tuned.loss),
            ("perplexity", base.perplexity, tuned.perplexity),
        )
    ]
    if not base.prompts:
        return rows
    for name, scores, (before, after), interval in (
        ("exact match", samples.exact, (base.exact_match, tuned.exact_match), _of_shares),
        ("ROUGE-L F1", samples.rouge_l, (base.rouge_l, tuned.rouge_l), of_mean),
    ):
        of_base, of_tuned = (interval(each) for each in scores)
        gain = of_mean([b - a for a, b in zip(*scores, strict=True)])
        change = f"{after - before:+.4f}" + (
            "" if gain is None else f" ({gain.low:+.4f} to {gain.high:+.4f})"
        )
        rows.append(Row(name, number(before, of_base), number(after, of_tuned), change))
    return rows


def _pairs(scores: EvaluationFacts) -> list[Row]:
    """Method dpo: both models on the held-out pairs."""
    pairs = scores.preferences
    if pairs is None:
        return []
    return [
        Row(f"{name}, of {pairs.pairs} pairs", f"{before:.4f}", f"{after:.4f}", f"{after - before:+.4f}")
        for name, before, after in (
            ("chosen answer preferred", pairs.base_accuracy, pairs.tuned_accuracy),
            ("margin of the chosen answer, nats", pairs.base_margin, pairs.tuned_margin),
        )
    ]


def _benchmark(facts: BenchmarkFacts) -> Row:
    """A public benchmark with its intervals."""

    def number(value: float, low: float | None, high: float | None, sign: str = "") -> str:
        between = "" if low is None or high is None else f" ({low:{sign}.4f} to {high:{sign}.4f})"
        return f"{value:{sign}.4f}{between}"

    return Row(
        f"{facts.name} {facts.metric}, {facts.documents} records",
        number(facts.base, facts.base_low, facts.base_high),
        number(facts.tuned, facts.tuned_low, facts.tuned_high),
        number(facts.tuned - facts.base, facts.gain_low, facts.gain_high, "+"),
    )


def _of_shares(hits: Sequence[float]) -> Interval | None:
    return of_share(round(sum(hits)), len(hits))


def _serve(version: Version, kind: Method, base: str, revision: str | None) -> str:
    """The command that serves what is published with vLLM, or how it is loaded where no server can."""
    if kind.result == "prompt":
        return f'PeftModel.from_pretrained(base_model, "./{version.name}")  # PEFT alone loads virtual tokens'
    if not version.is_adapter:
        return f"vllm serve ./{version.name} --served-model-name {version.name}"
    model = base if version.base.repo else f"./{base}"
    at = f" --revision {revision}" if revision else ""
    rank = version.rank or _DEFAULT_RANK
    # The ranks that vLLM takes are powers of two.
    room = f" --max-lora-rank {1 << (rank - 1).bit_length()}" if rank > _DEFAULT_RANK else ""
    return f"vllm serve {model}{at} --enable-lora{room} --lora-modules {version.name}=./{version.name}"


def _installed(package: str) -> str | None:
    try:
        return version_of(package)
    except PackageNotFoundError:
        return None


def _settings(job: ResolvedJob) -> str:
    """job.json as planned, without the uid and without what follows `?` in a URL."""

    def without_keys(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                name: part.partition("?")[0]
                if name == "url" and isinstance(part, str)
                else without_keys(part)
                for name, part in value.items()
            }
        return [without_keys(part) for part in value] if isinstance(value, list) else value

    content = job.model_dump(mode="json", exclude_none=True, exclude={"uid"})
    return json.dumps(without_keys(content), indent=2, ensure_ascii=False)
