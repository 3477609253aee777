# SPDX-License-Identifier: Apache-2.0
"""The form `finetune-pipeline`: from raw records to an adapter that was curated, trained, evaluated, approved and served."""

from tuneyard_api.base import DNS_LABEL

from tuneyard_workflows import stages
from tuneyard_workflows.checks import build_check, build_check_step
from tuneyard_workflows.fine_tune import CANCELLED, FORM, ON_CANCEL, build_cancelled, job_fields
from tuneyard_workflows.form import Field, Json, Offer, arguments, build_template, inputs, passed

PIPELINE = "finetune-pipeline"
REQUIRED, NOT_ASKED = "required", "none"
_SHARE = "^(0([.][0-9]*)?|[.][0-9]+|1([.]0*)?)$"
_MADE = ("trainingData", "testData")
"""Fields of a job that the stage curate fills in."""
_TUNED = "steps.fine-tune.outputs.parameters"


def pipeline_fields(offer: Offer) -> list[Field]:
    """The whole form."""
    return [
        Field("name", "Name of the adapter once it is approved, as the endpoint will list it", pattern=DNS_LABEL),
        *stages.CURATE_FIELDS,
        *(field for field in job_fields(offer, promoted=True) if field.name not in _MADE),
        Field("minRougeL", "Least mean ROUGE-L of the endpoint's answers, 0 to 1", "0", pattern=_SHARE),
        Field("approval", "Whether a person must approve it before it takes its name", REQUIRED, (REQUIRED, NOT_ASKED)),
        stages.PATIENCE,
        stages.REPLACE,
        Field("prompt", "Text that the approved adapter continues at the end", "def read_lines(path):"),
        ON_CANCEL,
    ]  # fmt: skip


def build_pipeline(offer: Offer) -> Json:
    """The WorkflowTemplate `finetune-pipeline`.

    The training publishes under the name of the workflow. That is the candidate, which people can ask at the endpoint
    before they approve it; only then does it take the name of the form.
    """
    fields = pipeline_fields(offer)
    curated, served = "{{steps.curate.outputs.parameters.%s}}", f"{{{{={_get('endpoint')} != ''}}}}"
    tune = passed(
        [field for field in job_fields(offer, promoted=True) if field.name not in _MADE],
        name="",
        trainingData=curated % "trainingData",
        testData=curated % "testData",
        onCancel="{{inputs.parameters.onCancel}}",
    )
    at = {"endpoint": _tag("endpoint"), "modelName": _tag("modelName")}
    approved = (
        f"inputs.parameters.approval == '{NOT_ASKED}' || "
        f"steps.approve.outputs.parameters.approved == '{stages.APPROVED}'"
    )
    steps = [
        _step(stages.CURATE, passed(stages.CURATE_FIELDS)),
        _step(FORM, tune),
        _step(
            stages.EVALUATE,
            {
                **at,
                "evaluationData": curated % "testData",
                "maxPrompts": "64",
                "maxNewTokens": "64",
                "minRougeL": "{{inputs.parameters.minRougeL}}",
            },
            served,
        ),
        _step(
            stages.APPROVE,
            {"what": f"{_tag('adapter')}: {_tag('metrics')}", "patience": "{{inputs.parameters.patience}}"},
            f"{{{{=inputs.parameters.approval != '{NOT_ASKED}'}}}}",
        ),
        _step(
            stages.PROMOTE,
            {
                "candidate": _tag("adapter"),
                "name": "{{inputs.parameters.name}}",
                "replace": "{{inputs.parameters.replace}}",
            },
            f"{{{{={approved}}}}}",
        ),
        _step(
            stages.INFER,
            {
                "endpoint": _tag("endpoint"),
                "modelName": "{{inputs.parameters.name}}",
                "prompt": "{{inputs.parameters.prompt}}",
                "maxNewTokens": "64",
                "patience": "600",
            },
            f"{{{{=({approved}) && {_get('endpoint')} != ''}}}}",
        ),
    ]
    form = {
        "name": PIPELINE,
        "inputs": inputs(fields),
        "steps": [[step] for step in (build_check_step(fields), *steps)],
        "outputs": {"parameters": _outputs(approved)},
    }
    return build_template(
        offer,
        PIPELINE,
        "From raw records to an approved adapter behind an endpoint",
        fields,
        [form, *build_check(fields), *build_cancelled("{{workflow.name}}")],
        onExit=CANCELLED,
    )


def _get(output: str) -> str:
    """An output of the training, in an expression, where its step's name would be a subtraction."""
    return f"steps['{FORM}'].outputs.parameters.{output}"


def _tag(output: str) -> str:
    return f"{{{{{_TUNED}.{output}}}}}"


def _step(stage: str, values: dict[str, str], when: str | None = None) -> Json:
    step: Json = {
        "name": stage,
        "templateRef": {"name": stage, "template": stage},
        "arguments": arguments(**values),
    }
    return step | ({"when": when} if when is not None else {})


def _outputs(approved: str) -> list[Json]:
    """The results; whoever was not approved has none, and the workflow fails with that sentence."""
    refusal = "sprig.fail('not approved: the candidate ' + " + _get("adapter") + " + ' keeps its own name')"
    name: Json = {"expression": f"({approved}) ? inputs.parameters.name : {refusal}"}
    maybe = [*((stages.EVALUATE, output) for output in stages.EVALUATED[1:]), (stages.INFER, "answer")]
    return [
        {"name": "modelName", "valueFrom": name},
        *(
            {"name": output, "valueFrom": {"parameter": _tag(output)}}
            for output in ("digest", "metrics", "endpoint")
        ),
        *(
            {
                "name": output,
                "valueFrom": {
                    "parameter": f"{{{{steps.{step}.outputs.parameters.{output}}}}}",
                    "default": "",
                },
            }
            for step, output in maybe
        ),
    ]
