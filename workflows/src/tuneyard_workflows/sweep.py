# SPDX-License-Identifier: Apache-2.0
"""The form `fine-tune-sweep`: one FineTuneJob for each learning rate; the best takes the name that people asked for."""

from tuneyard_workflows.checks import build_check, build_check_step
from tuneyard_workflows.fine_tune import (
    ADAPTER,
    CANCELLED,
    FORM,
    JOB,
    build_cancelled,
    fine_tune_fields,
    job_fields,
)
from tuneyard_workflows.form import Field, Json, Offer, arguments, build_template, inputs, passed
from tuneyard_workflows.stages import PROMOTE, REPLACE

SWEEP = "fine-tune-sweep"
AT_ONCE = 2
"""Trainings of one sweep that run at the same time; the quota of GPUs holds whatever is above it."""
METRICS = ("loss", "rougeL", "exactMatch")
_ALL = "steps.trainings.outputs.parameters"
_METRIC = "inputs.parameters.metric"
_RATE = "'-' + replace(item, '.', '-')"
_JOB = f"{{{{=workflow.name + {_RATE}}}}}"
_NO_OUTPUTS = f"type({_ALL}) == 'string'"
"""Whether all steps failed: Argo then has no outputs of theirs, but an empty list as text."""
_GOOD = (
    f"let value = {_NO_OUTPUTS} ? [] : fromJSON({_METRIC} == 'rougeL' ? {_ALL}.tunedRougeL : "
    f"{_METRIC} == 'exactMatch' ? {_ALL}.tunedExactMatch : {_ALL}.tunedLoss); "
    "let good = filter(0..len(value) - 1, value[#] != ''); "
)
"""`value` is the metric of each training, empty where it failed; `good` are the places of those that did not."""
_BEST = f"({_METRIC} == 'loss' ? sortBy(good, float(value[#])) : sortBy(good, float(value[#]), 'desc'))[0]"
_NONE = (
    f"sprig.fail({_NO_OUTPUTS} ? 'every training was refused: the message of its step says why' : "
    f"'no training succeeded with a measured ' + {_METRIC} + ': ' + join(fromJSON({_ALL}.message), '; '))"
)


def sweep_fields(offer: Offer) -> list[Field]:
    """The whole form."""
    rates = Field("learningRates", "Peak learning rates to try, as a list", '["1e-4", "2e-4", "5e-4"]')
    metric = Field("metric", "Score on the held-out records by which the best is chosen", METRICS[0], METRICS)
    tune = fine_tune_fields(offer, promoted=offer.promotes)
    fields = [rates if field.name == "learningRate" else field for field in tune]
    return [*fields, metric, *([REPLACE] if offer.promotes else [])]


def build_sweep(offer: Offer) -> Json:
    """The WorkflowTemplate `fine-tune-sweep`. Each training publishes under a name of its own; the best also gets the form's.

    Where `promote` has no registry, no template can give it that name, and the form only says which is the best.
    """
    fields = sweep_fields(offer)
    values = passed(
        job_fields(offer, promoted=offer.promotes),
        learningRate="{{item}}",
        job=_JOB,
        adapter=f"{{{{={ADAPTER} + {_RATE}}}}}",
    )
    trainings = {
        "name": "trainings",
        "templateRef": {"name": FORM, "template": JOB},
        "arguments": arguments(**values),
        "withParam": "{{inputs.parameters.learningRates}}",
        # A job that the API server refuses does not end the others of the sweep.
        "continueOn": {"failed": True, "error": True},
    }
    steps = [[build_check_step(fields)], [trainings], *([[_promotion()]] if offer.promotes else [])]
    outputs = {"best": "adapter", "bestLoss": "tunedLoss", "bestMetrics": "metrics", "digest": "digest"}
    expressions = {
        name: f"{_GOOD}len(good) == 0 ? {_NONE} : string(fromJSON({_ALL}.{source})[{_BEST}])"
        for name, source in outputs.items()
    }
    if offer.promotes:
        expressions["modelName"] = (
            f"{_GOOD}len(good) == 0 ? {_NONE} : steps.promote.outputs.parameters.modelName"
        )
    form = {
        "name": SWEEP,
        "parallelism": AT_ONCE,
        "inputs": inputs(fields),
        "steps": steps,
        "outputs": {
            "parameters": [
                {"name": name, "valueFrom": {"expression": expression}}
                for name, expression in expressions.items()
            ]
        },
    }  # fmt: skip
    return build_template(
        offer,
        SWEEP,
        "Try several learning rates and name the best",
        fields,
        [form, *build_check(fields), *build_cancelled(_JOB, each="{{workflow.parameters.learningRates}}")],
        onExit=CANCELLED,
    )


def _promotion() -> Json:
    best = f"fromJSON({_ALL}.adapter)[{_BEST}]"
    return {
        "name": "promote",
        "templateRef": {"name": PROMOTE, "template": PROMOTE},
        "when": f"{{{{={_GOOD}len(good) > 0}}}}",
        "arguments": arguments(
            candidate=f"{{{{={_GOOD}len(good) == 0 ? '' : {best}}}}}",
            name=f"{{{{={ADAPTER}}}}}",
            replace="{{inputs.parameters.replace}}",
        ),
    }
