# SPDX-License-Identifier: Apache-2.0
"""Workflow templates: the forms of Argo Workflows that become FineTuneJobs, for people who press Submit.

Every value that people type gets into the manifest as JSON (which is YAML), so it can never become another field.
`tests/workflows` hold that against Argo's own expressions and a real API server.
"""

from collections.abc import Mapping, Sequence

from tuneyard_api.names import API_VERSION, GROUP, JOB_KIND, JOB_PLURAL

from tuneyard.catalog.objects import build_metadata
from tuneyard.stack.model import Component, Json, Need, Stack

ACCOUNT = "fine-tune"
FORM, SWEEP, TRAIN = "fine-tune", "fine-tune-sweep", "train"
AT_ONCE = 2
"""Trainings of one sweep that run at the same time; the quota of GPUs holds whatever is above it."""
KEPT_SECONDS = 7 * 24 * 3600
"""Seconds for which an ended Workflow is kept. The FineTuneJob keeps the result of the training."""
OUTPUTS: Mapping[str, str] = {
    "state": "{.status.state}",
    "message": "{.status.message}",
    "adapter": "{.status.result.adapter.name}",
    "digest": "{.status.result.adapter.digest}",
    "modelName": "{.status.result.modelName}",
    "endpoint": "{.status.result.endpoint}",
    "baseLoss": "{.status.result.metrics.base.loss}",
    "tunedLoss": "{.status.result.metrics.tuned.loss}",
}
"""Outputs that a workflow reads from an ended FineTuneJob; missing ones are empty."""
NUMBER = "^[0-9]*[.]?[0-9]+([eE][-+]?[0-9]+)?$"


def _json(expression: str) -> str:
    """The expression's value as JSON. A tag inside of a value would be looked at again later, so its braces are escaped."""
    return f"replace(toJson({expression}), '{{' + '{{', '{{\\\\u007b')"


def _tag(name: str, expression: str) -> str:
    """The text in the manifest: an expression (https://expr-lang.org) in which the form's value is called `v`."""
    return f"{{{{=let v = inputs.parameters.{name}; {expression}}}}}"


def _text(name: str) -> str:
    return _tag(name, _json("v"))


def _number(name: str) -> str:
    """A number as it was typed; anything else becomes text, which the API server refuses."""
    return _tag(name, f"v matches '{NUMBER}' ? v : {_json('v')}")


def _optional(name: str, key: str, source: str = "v") -> str:
    """A whole line, or an empty one when nothing was typed."""
    return _tag(name, f"v == '' ? '' : '{key}: ' + {_json(source)}")


CLAIM = "{pvc: {claimName: split(v[4:], '/')[0], path: join(split(v[4:], '/')[1:], '/')} }"
MODEL = (
    f"v startsWith 'pvc:' ? {CLAIM} : "
    "{huggingFace: {repo: split(v, '@')[0], revision: split(v + '@main', '@')[1]} }"
)
DATA = (
    f"v startsWith 'pvc:' ? {CLAIM} : v startsWith 'https://' ? "
    "{http: {url: split(v, '#')[0], sha256: join(split(v, '#')[1:], '#')} } : "
    "{huggingFace: {repo: join(split(v, '/')[:2], '/'), path: join(split(v, '/')[2:], '/')} }"
)
MANIFEST = f"""\
apiVersion: {API_VERSION}
kind: {JOB_KIND}
metadata:
  name: {_text("job")}
  labels:
    workflows.argoproj.io/workflow: {{{{workflow.name}}}}
spec:
  model: {_tag("model", _json(MODEL))}
  dataset:
    training: {_tag("trainingData", _json(DATA))}
    {_optional("testData", "test", DATA)}
  method: {_text("method")}
  runtime:
    name: {_text("runtime")}
  training:
    epochs: {_number("epochs")}
    learningRate: {_number("learningRate")}
    maxSequenceLength: {_number("maxSequenceLength")}
  parallelism:
    gpusPerNode: {_number("gpus")}
  publish:
    adapterName: {_text("adapter")}
  {_optional("endpoint", "serve", "{endpoint: v}")}
"""


def _fields(stack: Stack) -> list[Json]:
    """The form, in the order in which people see it."""
    tuning = stack.environment.fine_tuning
    runtimes = [runtime.name for runtime in tuning.runtimes]
    methods = list(dict.fromkeys(method for runtime in tuning.runtimes for method in runtime.methods))
    return [
        _field("name", "Name of the adapter as the endpoint will list it; empty: the name of the workflow", ""),
        _field("model", "Base model: owner/name of the hub, perhaps with @revision, or pvc:<claim>/<path>"),
        _field(
            "trainingData",
            "Training records (.jsonl, .json, .parquet): pvc:<claim>/<path>, owner/name/<path> of the hub, "
            "or https://<file>#<sha256>",
        ),
        _field("testData", "Records on which base and tuned model are compared; empty: some training records are held out", ""),
        _field("method", "Training method, as spec.method of a FineTuneJob", methods[0], methods),
        _field("runtime", "FineTuneRuntime that runs the job", runtimes[0], runtimes),
        _field("epochs", "Passes over the training records", "1"),
        _field("learningRate", "Peak learning rate", "2e-4"),
        _field("maxSequenceLength", "Longest sequence in tokens; longer records are cut", "1024"),
        _field("gpus", "GPUs, all on one node", "1"),
        _field("endpoint", "Address of the server that must answer with the result; empty: the runtime's", ""),
    ]  # fmt: skip


def _field(name: str, description: str, value: str | None = None, enum: Sequence[str] = ()) -> Json:
    field: Json = {"name": name, "description": description}
    if value is not None:
        field["value"] = value
    if enum:
        field["enum"] = list(enum)
    return field


def _train(names: list[str]) -> Json:
    """Creates a FineTuneJob and waits until it succeeds or fails; the caller gives the messages.

    `apply` under a name that follows from the workflow's, and no owner: a pod that is started again finds the job that it
    made, so nothing is trained twice, and a Workflow that is deleted or expires takes no training with it.
    """
    return {
        "name": TRAIN,
        "inputs": {"parameters": [{"name": name} for name in names]},
        # Retry only if the pod was lost, because the API server would refuse the same object again.
        "retryStrategy": {"limit": "5", "retryPolicy": "OnError"},
        "resource": {
            "action": "apply",
            "manifest": MANIFEST,
            "successCondition": "status.state in (Succeeded, Failed)",
        },
        "outputs": {
            "parameters": [{"name": name, "valueFrom": {"jsonPath": path}} for name, path in OUTPUTS.items()]
        },
    }


def _step(fields: list[Json], **changes: str) -> list[Json]:
    """Arguments of `train`: the form's values with `changes`."""
    values = {field["name"]: f"{{{{inputs.parameters.{field['name']}}}}}" for field in fields} | changes
    return [{"name": name, "value": value} for name, value in values.items() if name != "name"]


ADAPTER = "(inputs.parameters.name == '' ? workflow.name : inputs.parameters.name)"


def _form(fields: list[Json]) -> list[Json]:
    outputs = "steps.job.outputs.parameters"
    arguments = _step(fields, job="{{workflow.name}}", adapter=f"{{{{={ADAPTER}}}}}")
    # A job that failed has no result: what stands in for it are the job's own words.
    result = f"{outputs}.state == 'Succeeded' ? {outputs}.adapter : sprig.fail({outputs}.message)"
    others = [name for name in OUTPUTS if name not in ("state", "message", "adapter")]
    form = {
        "name": FORM,
        "inputs": {"parameters": [{"name": field["name"]} for field in fields]},
        "steps": [[{"name": "job", "template": TRAIN, "arguments": {"parameters": arguments}}]],
        "outputs": {
            "parameters": [
                {"name": "adapter", "valueFrom": {"expression": result}},
                *({"name": name, "valueFrom": {"parameter": f"{{{{{outputs}.{name}}}}}"}} for name in others),
            ]
        },
    }
    return [form, _train([argument["name"] for argument in arguments])]


def _sweep(fields: list[Json]) -> list[Json]:
    rate = "replace(item, '.', '-')"
    arguments = _step(
        fields,
        learningRate="{{item}}",
        job=f"{{{{=workflow.name + '-' + {rate}}}}}",
        adapter=f"{{{{={ADAPTER} + '-' + {rate}}}}}",
    )
    trainings = {
        "name": "trainings",
        "templateRef": {"name": FORM, "template": TRAIN},
        "arguments": {"parameters": [a for a in arguments if a["name"] != "learningRates"]},
        "withParam": "{{inputs.parameters.learningRates}}",
    }
    outputs = "steps.trainings.outputs.parameters"
    ended = f"let loss = fromJSON({outputs}.tunedLoss); let good = filter(0..len(loss) - 1, loss[#] != ''); "
    none = f"len(good) == 0 ? sprig.fail(join(fromJSON({outputs}.message), '; '))"
    best = "sortBy(good, float(loss[#]))[0]"
    return [
        {
            "name": SWEEP,
            "parallelism": AT_ONCE,
            "inputs": {"parameters": [{"name": field["name"]} for field in fields]},
            "steps": [[trainings]],
            "outputs": {
                "parameters": [
                    {
                        "name": name,
                        "valueFrom": {"expression": f"{ended}{none} : fromJSON({outputs}.{source})[{best}]"},
                    }
                    for name, source in (("best", "adapter"), ("bestLoss", "tunedLoss"))
                ]
            },
        }
    ]


def _template(namespace: str, name: str, summary: str, fields: list[Json], templates: list[Json]) -> Json:
    """Fields: argoproj.io/v1alpha1 WorkflowTemplate (https://argo-workflows.readthedocs.io/en/release-3.7/fields/)."""
    metadata = build_metadata(name, namespace)
    metadata["annotations"] = {"workflows.argoproj.io/description": summary}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "WorkflowTemplate",
        "metadata": metadata,
        "spec": {
            "entrypoint": name,
            "serviceAccountName": ACCOUNT,
            "arguments": {"parameters": fields},
            "ttlStrategy": {"secondsAfterCompletion": KEPT_SECONDS},
            "podGC": {"strategy": "OnPodSuccess"},
            "templates": templates,
        },
    }


def _rights(namespace: str) -> list[Json]:
    """The rights of these workflows' pods: create and read FineTuneJobs, and report workflow results."""
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ACCOUNT}
    account = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}
    metadata = build_metadata(ACCOUNT, namespace)
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": metadata,
            "rules": [
                {"apiGroups": [GROUP], "resources": [JOB_PLURAL], "verbs": ["create", "get", "patch"]},
                {"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]},
            ],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": role,
            "subjects": [account],
        },
    ]  # fmt: skip


def _objects(stack: Stack) -> list[Json]:
    fields = _fields(stack)
    objects: list[Json] = []
    rates = _field("learningRates", "Peak learning rates to try, as a list", '["1e-4", "2e-4", "5e-4"]')
    many = [rates if field["name"] == "learningRate" else field for field in fields]
    for namespace in (entry.name for entry in stack.environment.fine_tuning.namespaces):
        objects += _rights(namespace)
        objects.append(_template(namespace, FORM, "Fine-tune a model and serve it", fields, _form(fields)))
        objects.append(
            _template(namespace, SWEEP, "Try several learning rates and name the best", many, _sweep(many))
        )
    return objects


COMPONENTS = (
    Component(
        name="workflow-templates",
        summary="Forms of Argo Workflows that become FineTuneJobs",
        namespace="argo",
        needs=lambda _: (
            Need("workflows", "what its templates are for"),
            Need("crd:finetune", "what its workflows make"),
            Need("fine-tuning", "the runtimes and namespaces that it offers"),
        ),
        objects=_objects,
        when=lambda environment: bool(
            environment.fine_tuning.runtimes and environment.fine_tuning.namespaces
        ),
        beside="workflows",
    ),
)
