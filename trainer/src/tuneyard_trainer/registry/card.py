# SPDX-License-Identifier: Apache-2.0
"""The model card that goes with an adapter or a model, and the picture of its loss curve.

Nothing in it depends on the time or the machine: the same training gives the same card but for its speed.
"""

from importlib.resources import files
from pathlib import Path

import jinja2
from tuneyard_api.methods import LORA_METHODS
from tuneyard_api.pod_contract import StageResult, TrainFacts
from tuneyard_api.registry import Version

from tuneyard_trainer.model.former_adapter import lora_as_trained
from tuneyard_trainer.pod.context import StageContext
from tuneyard_trainer.record.text import inline
from tuneyard_trainer.workspace.layout import PREPARED
from tuneyard_trainer.workspace.metrics import read_metrics
from tuneyard_trainer.workspace.prepared import Index, prepared_facts

PICTURE = "loss.png"


def render_card(context: StageContext, trained: StageResult, version: Version, *, has_picture: bool) -> str:
    """README.md of the adapter, from the results of the stages before."""
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  Markdown, not HTML
    )
    environment.filters["inline"] = inline
    template = files(__package__).joinpath("model-card.md.j2").read_text(encoding="utf-8")
    index = Index.load(context.workspace)
    return environment.from_string(template).render(
        job=context.job,
        lora=lora_as_trained(context.job, context.workspace / PREPARED),
        is_model=context.job.kind.result == "model",
        has_lora=context.job.method in LORA_METHODS,
        base=version.base.repo or version.base.name,
        index=index,
        data=prepared_facts(context.workspace, context.job),
        training=TrainFacts.model_validate(trained.facts),
        digest=version.digest,
        picture=PICTURE if has_picture else None,
    )


def draw_loss_curve(metrics: Path, picture: Path, unit: str) -> bool:
    """Training and validation loss over steps as a PNG, in this unit; False if there is nothing to draw."""
    lines = read_metrics(metrics)
    if not lines:
        return False
    # A second of imports; the object-oriented interface needs no display and no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for key, label, marker in (("loss", "training", ""), ("validationLoss", "validation", "o")):
        points = [(line["step"], line[key]) for line in lines if key in line]
        if points:
            axes.plot(*zip(*points, strict=True), linewidth=1, marker=marker, markersize=4, label=label)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(f"loss, {unit}")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(picture, metadata={"Software": None})
    return True
