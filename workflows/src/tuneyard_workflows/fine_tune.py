# SPDX-License-Identifier: Apache-2.0
"""The form `fine-tune`, which is also the stage of that name: creates a FineTuneJob and follows it to its end."""

import json
from collections.abc import Mapping, Sequence

from tuneyard_api.base import DNS_LABEL
from tuneyard_api.names import API_VERSION, JOB_KIND
from tuneyard_api.status import State

from tuneyard_workflows.checks import build_check, build_check_step
from tuneyard_workflows.expressions import text
from tuneyard_workflows.form import Field, Json, Offer, arguments, build_template, inputs, passed
from tuneyard_workflows.job_manifest import GATES, build_manifest

FORM, JOB, SUSPEND, CANCELLED = "fine-tune", "job", "suspend", "cancelled"
OUTPUTS: Mapping[str, str] = {
    "state": "{.status.state}",
    "message": "{.status.message}",
    "adapter": "{.status.result.adapter.name}",
    "digest": "{.status.result.adapter.digest}",
    "modelName": "{.status.result.modelName}",
    "endpoint": "{.status.result.endpoint}",
    "metrics": "{.status.result.metrics}",
    "baseLoss": "{.status.result.metrics.base.loss}",
    "tunedLoss": "{.status.result.metrics.tuned.loss}",
    "tunedRougeL": "{.status.result.metrics.tuned.rougeL}",
    "tunedExactMatch": "{.status.result.metrics.tuned.exactMatch}",
}
"""Outputs that a workflow reads from an ended FineTuneJob; missing ones are empty."""
ON_CANCEL = Field(
    "onCancel",
    "What a running job does when its workflow is stopped: suspend (it saves a checkpoint) or continue",
    "suspend",
    ("suspend", "continue"),
)
ADAPTER = "(inputs.parameters.name == '' ? workflow.name : inputs.parameters.name)"
LOST = {"limit": "5", "retryPolicy": "OnError"}
"""Retry only if the pod was lost, because the API server would refuse the same object again."""
_STOPPED = "workflow.status != 'Succeeded' && workflow.failures contains 'with strategy'"
"""Whether the workflow was stopped: its nodes then say with which strategy."""


def job_fields(offer: Offer, *, promoted: bool) -> list[Field]:
    """The fields that become a FineTuneJob, in the order in which people see them; `promoted`: as in `Offer.choices`."""
    runtimes, methods = offer.choices(promoted=promoted)
    return [
        Field("model", "Base model: owner/name of the hub, perhaps with @revision, or pvc:<claim>/<path>"),
        Field(
            "trainingData",
            "Training records (.jsonl, .json, .parquet): pvc:<claim>/<path>, owner/name/<path> of the hub, "
            "or https://<file>#<sha256>",
        ),
        Field("testData", "Records on which base and tuned model are compared; empty: some training records are held out", ""),
        Field("method", "Training method, as spec.method of a FineTuneJob", methods[0], methods),
        Field("runtime", "FineTuneRuntime that runs the job", runtimes[0], runtimes),
        Field("epochs", "Passes over the training records", "1"),
        Field("learningRate", "Peak learning rate", "2e-4"),
        Field("maxSequenceLength", "Longest sequence in tokens; longer records are cut", "1024"),
        Field("gpus", "GPUs, all on one node", "1", most=offer.most_gpus),
        Field("endpoint", "Address of the server that must answer with the result; empty: the runtime's", ""),
        Field("gate", "What the tuned model must reach to be published: none, or a loss that is not above the base model's", *GATES[:1], GATES),
    ]  # fmt: skip


def fine_tune_fields(offer: Offer, *, promoted: bool = False) -> list[Field]:
    """The whole form."""
    about = "Name of the adapter as the endpoint will list it; empty: the name of the workflow"
    name = Field("name", about, "", pattern=f"^$|{DNS_LABEL}")
    return [name, *job_fields(offer, promoted=promoted), ON_CANCEL]


def build_fine_tune(offer: Offer) -> Json:
    """The WorkflowTemplate `fine-tune`."""
    fields = fine_tune_fields(offer)
    job = passed(job_fields(offer, promoted=False), job="{{workflow.name}}", adapter=f"{{{{={ADAPTER}}}}}")
    outputs = "steps.job.outputs.parameters"
    # A job that failed has no result: what stands in for it are the job's own words.
    result = f"{outputs}.state == 'Succeeded' ? {outputs}.adapter : sprig.fail({outputs}.message)"
    others = [name for name in OUTPUTS if name not in ("state", "message", "adapter")]
    form = {
        "name": FORM,
        "inputs": inputs(fields),
        "steps": [
            [build_check_step(fields)],
            [{"name": "job", "template": JOB, "arguments": arguments(**job)}],
        ],
        "outputs": {
            "parameters": [
                {"name": "adapter", "valueFrom": {"expression": result}},
                *({"name": name, "valueFrom": {"parameter": f"{{{{{outputs}.{name}}}}}"}} for name in others),
            ]
        },
    }
    return build_template(
        offer,
        FORM,
        "Fine-tune a model and serve it",
        fields,
        [form, _job(list(job)), *build_check(fields), *build_cancelled("{{workflow.name}}")],
        onExit=CANCELLED,
    )


def _job(names: Sequence[str]) -> Json:
    """Creates a FineTuneJob and waits until it succeeds or fails; the caller gives the messages.

    `apply` under a name that follows from the workflow's, and no owner: a pod that is started again finds the job that it
    made, so nothing is trained twice, and a Workflow that is deleted or expires takes no training with it.
    """
    return {
        "name": JOB,
        "inputs": {"parameters": [{"name": name} for name in names]},
        "retryStrategy": dict(LOST),
        "resource": {
            "action": "apply",
            "manifest": build_manifest(),
            "successCondition": f"status.state in ({State.SUCCEEDED}, {State.FAILED})",
        },
        "outputs": {
            "parameters": [{"name": name, "valueFrom": {"jsonPath": path}} for name, path in OUTPUTS.items()]
        },
    }


def build_cancelled(job: str, each: str | None = None) -> list[Json]:
    """The exit handler: what a stopped workflow does with its jobs. `job` is a job's name, perhaps made from an item of `each`."""
    step: Json = {
        "name": "suspend",
        "template": SUSPEND,
        "when": f"{{{{={_STOPPED} && workflow.parameters.{ON_CANCEL.name} == 'suspend'}}}}",
        "arguments": arguments(job=job),
        # A workflow that is stopped early has made no job yet.
        "continueOn": {"failed": True, "error": True},
    }
    if each is not None:
        step["withParam"] = each
    patch = {
        "apiVersion": API_VERSION,
        "kind": JOB_KIND,
        "metadata": {"name": "NAMETAG"},
        "spec": {"suspend": True},
    }
    manifest = json.dumps(patch).replace('"NAMETAG"', text("job"))
    return [
        {"name": CANCELLED, "steps": [[step]]},
        {
            "name": SUSPEND,
            "inputs": {"parameters": [{"name": "job"}]},
            "retryStrategy": dict(LOST),
            "resource": {"action": "patch", "mergeStrategy": "merge", "manifest": manifest},
        },
    ]
