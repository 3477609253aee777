# SPDX-License-Identifier: Apache-2.0
"""`tuneyard plan`: what a FineTuneJob will take before any GPU is asked for."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click
from tuneyard_api.forecast.gpus import Gpu, gpu_of
from tuneyard_api.forecast.memory import GIB
from tuneyard_api.forecast.of_job import Data, asked_product, forecast, steps_of
from tuneyard_api.forecast.work import work_of
from tuneyard_api.job import FineTuneJob
from tuneyard_api.local_runtime import LOCAL_RUNTIMES, build_local_runtime
from tuneyard_api.places import ClaimSource
from tuneyard_api.planner import PlanRefused, make_plan
from tuneyard_api.pod_contract import ResolvedJob
from tuneyard_api.problems import InputRefused
from tuneyard_api.quantities import quantity_value
from tuneyard_api.runtime import FineTuneRuntime
from tuneyard_api.validate import load_runtime, locate, read_job
from tuneyard_api.yaml_io import Document, load

from tuneyard.catalog.runtimes import build_runtime
from tuneyard.checks.memory import gpu_memory_gib
from tuneyard.commands.plan_inputs import UnreadableError, count_sequences, find_shape
from tuneyard.commands.reporting import environment_file, one, root_option
from tuneyard.pipeline import resolve_file
from tuneyard.stack.model import Stack
from tuneyard.views.plan import JobPlan, Planned, Price, json_of, text_of

_USUAL = ("NVIDIA-H200", "NVIDIA-H100-80GB-HBM3", "NVIDIA-A100-SXM4-80GB", "NVIDIA-L40S", "NVIDIA-L4")
"""Products that are compared where neither job nor environment names one."""
_DOES_NOT_FIT = 1


@click.command()
@click.argument("job_file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--environment", help="Environment with the runtime of the job, its GPUs and their prices.")
@click.option(
    "--runtime",
    "runtime_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File with the FineTuneRuntime; absent: that of the environment, or hf and hf-cpu as they are built in.",
)
@click.option("--gpu", "product", help="GPU product to plan for, such as NVIDIA-H200.")
@click.option(
    "--claim",
    "claims",
    multiple=True,
    metavar="NAME=FOLDER",
    help="Folder with the content of a PersistentVolumeClaim; repeatable.",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder with config.json of the model, and its weights if they are there.",
)
@click.option("--sequences", type=click.IntRange(min=1), help="Training sequences after packing.")
@click.option("--price", type=click.FloatRange(min=0), help="What an hour of one GPU costs, in USD.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="Form of the plan.")
@root_option
def command(  # noqa: PLR0917  click passes them by name
    job_file: Path,
    environment: str | None,
    runtime_file: Path | None,
    product: str | None,
    claims: tuple[str, ...],
    model: Path | None,
    sequences: int | None,
    price: float | None,
    output: str,
    root: Path,
) -> None:
    """Say what the FineTuneJob in JOB_FILE will take: memory of each GPU by part, time, GPU hours and cost.

    The model's shape is read from its config.json and the headers of its weights: on the hub (HF_ENDPOINT, HF_TOKEN), in the
    folder of a claim, or in --model. The exit code is 1 if the job does not fit.

    \b
    Examples:
      tuneyard plan job.yaml --gpu NVIDIA-H200
      tuneyard plan job.yaml --environment lab --claim models=/data/models
      tuneyard plan job.yaml --sequences 12000 --price 2.5 -o json
    """
    stack = None if environment is None else _stack(environment, root)
    try:
        plan = _plan(job_file, stack, runtime_file, _Asked(product, claims, model, sequences, price))
    except (InputRefused, UnreadableError) as refused:
        click.echo(str(refused), err=True)
        raise SystemExit(1) from None
    click.echo(
        json.dumps(json_of(plan), indent=2) if output == "json" else text_of(plan), nl=output == "json"
    )
    raise SystemExit(0 if plan.fits else _DOES_NOT_FIT)


@dataclass(frozen=True)
class _Asked:
    product: str | None
    claims: tuple[str, ...]
    model: Path | None
    sequences: int | None
    price: float | None


def _stack(environment: str, root: Path) -> Stack:
    _, stack = one(lambda: resolve_file(environment_file(environment, root)))
    return stack  # type: ignore[no-any-return]


def _plan(job_file: Path, stack: Stack | None, runtime_file: Path | None, asked: _Asked) -> JobPlan:
    document = load(job_file.read_text(encoding="utf-8"), str(job_file))
    job = read_job(document)
    runtime = _runtime(job, document, stack, runtime_file)
    try:
        resolved = make_plan(job, runtime).resolved
    except PlanRefused as refused:
        raise locate(refused, document) from None
    if runtime.spec.customizer is not None:
        message = f"{runtime.metadata.name} lets NeMo Customizer train, of which nothing was measured; try a runtime of Tuneyard's trainer"
        raise InputRefused([document.problem(("spec", "runtime", "name"), message)])
    folders = _folders(asked.claims)
    found = find_shape(job, folders, asked.model)
    data = Data(asked.sequences) if asked.sequences else count_sequences(job, resolved, folders, found.folder)
    counted = data or Data(0)
    work = work_of(resolved, found.shape, longest=counted.longest, record=counted.record)
    is_on_cpu = runtime.spec.accelerator == "none"
    gpus, is_asked = ([_cpu(job, runtime)], True) if is_on_cpu else _gpus(job, runtime, stack, asked.product)
    return JobPlan(
        job=job.metadata.name,
        model=found.name,
        shape=found.shape,
        source=found.source,
        method=_method(resolved),
        runtime=runtime.metadata.name,
        data=data,
        on=tuple(
            Planned(
                forecast(
                    work,
                    gpu,
                    has_micro_batch=is_on_cpu or job.spec.training.micro_batch_size is not None,
                    has_checkpointing=is_on_cpu or job.spec.training.gradient_checkpointing is not None,
                    steps=_steps(resolved, data),
                    quantizations=runtime.spec.quantizations,
                ),
                _price(gpu, stack, asked.price),
            )
            for gpu in gpus
        ),
        is_asked=is_asked,
        is_on_cpu=is_on_cpu,
        budget_gpu_hours=job.spec.budget.gpu_hours,
    )


def _steps(resolved: ResolvedJob, data: Data | None) -> int | None:
    training = resolved.training
    return steps_of(
        epochs=training.epochs,
        max_steps=training.max_steps,
        global_batch=training.global_batch_size,
        sequences=data.sequences if data else None,
    )


def _method(resolved: ResolvedJob) -> str:
    rank = f" of rank {resolved.lora.rank}" if resolved.kind.name in {"lora", "dpo"} else ""
    return f"{resolved.method}{rank}"


def _runtime(job: FineTuneJob, document: Document, stack: Stack | None, file: Path | None) -> FineTuneRuntime:
    """The job's runtime from the file, the environment, or as it is built in."""
    name = job.spec.runtime.name
    if file is not None:
        runtime = load_runtime(file.read_text(encoding="utf-8"), str(file))
    elif stack is not None:
        offered = {each.name: each for each in stack.environment.fine_tuning.runtimes}
        if name not in offered:
            message = f"the environment has {', '.join(sorted(offered)) or 'none'} (got {name})"
            raise InputRefused([document.problem(("spec", "runtime", "name"), message)])
        runtime = FineTuneRuntime.model_validate(build_runtime(stack, offered[name]))
    elif name in LOCAL_RUNTIMES:
        runtime = build_local_runtime(name)
    else:
        message = (
            f"built in are {' and '.join(LOCAL_RUNTIMES)} (got {name}); try --environment or --runtime FILE"
        )
        raise InputRefused([document.problem(("spec", "runtime", "name"), message)])
    defaults = runtime.spec.defaults
    if defaults.any_registry is not None:
        return runtime
    # Where the adapter goes changes nothing about what the training takes.
    defaults = defaults.model_copy(update={"registry": ClaimSource(claim_name="adapters")})
    return runtime.model_copy(update={"spec": runtime.spec.model_copy(update={"defaults": defaults})})


def _folders(claims: tuple[str, ...]) -> dict[str, Path]:
    folders = {}
    for claim in claims:
        name, separator, folder = claim.partition("=")
        if not separator or not Path(folder).is_dir():
            raise click.UsageError(f"--claim {claim}: expected NAME=FOLDER with a folder that is there")
        folders[name] = Path(folder)
    return folders


def _gpus(
    job: FineTuneJob, runtime: FineTuneRuntime, stack: Stack | None, asked: str | None
) -> tuple[list[Gpu], bool]:
    """The GPUs to plan for, and whether somebody asks for that one alone."""
    product = asked or asked_product(job.spec, runtime.spec)
    declared = {gpu.product: gpu for gpu in _declared(stack)}
    if product is not None:
        return [declared.get(product) or gpu_of(product)], True
    return list(declared.values()) or [gpu_of(name) for name in _USUAL], len(declared) == 1


def _declared(stack: Stack | None) -> Iterator[Gpu]:
    """The GPUs of the environment, with the memory that it says."""
    if stack is None:
        return
    for nodes in stack.environment.gpus.nodes:
        memory = gpu_memory_gib(stack.environment, nodes.product)
        yield gpu_of(stack.environment.gpus.label_of(nodes.product), memory)


def _cpu(job: FineTuneJob, runtime: FineTuneRuntime) -> Gpu:
    """What stands for a GPU on CPU: the memory limit of the training pod."""
    asked, limit = job.spec.resources.memory_gib, runtime.spec.train_resources.memory
    gib = asked if asked is not None else float(quantity_value(limit)) / GIB
    return replace(gpu_of("cpu"), memory_gib=gib)


def _price(gpu: Gpu, stack: Stack | None, price: float | None) -> Price | None:
    if price is not None:
        return Price(price, "USD")
    if stack is None:
        return None
    gpus = stack.environment.gpus
    prices = {gpus.label_of(nodes.product): nodes.price_per_hour for nodes in gpus.nodes}
    found = prices.get(gpu.product)
    return None if found is None else Price(found, gpus.currency)
