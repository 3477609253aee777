# SPDX-License-Identifier: Apache-2.0
"""What `tuneyard explain` says of a key is what other values of that key do to the rendered tree, for every key that there is.

The other values are written down here, by hand and by key: they are not those that `explain` itself tries.
"""

import copy
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from tuneyard.catalog import catalog, pins
from tuneyard.checks import unmet_preconditions
from tuneyard.environment.examples import example_value
from tuneyard.environment.model import Environment
from tuneyard.environment.reference import rows
from tuneyard.findings import InputError
from tuneyard.pipeline import Built, build
from tuneyard.render.tree import local_paths, render
from tuneyard.stack.resolve import resolve
from tuneyard.views.diff import component_of
from tuneyard.views.influence import Influences
from tuneyard_api.problems import Path as KeyPath
from tuneyard_api.problems import path_text

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ("airgapped", "demo", "lab", "open")

NODE = {"product": "NVIDIA-T4", "gpusPerNode": 2, "memoryGiB": 16}
HUB = {"repo": "org/model", "revision": "v1"}
MODEL = {"name": "third", "image": {"repository": "nvcr.io/nim/third", "tag": "1.0.0"}, "huggingFace": HUB}
ARCHITECTURE = {"parametersBillion": 3, "layers": 8, "hiddenSize": 512, "keyValueHeads": 4}
TARGET = {"name": "a/b@1", "baseModel": "a/b", "modelUri": "hf://a/b", "parameters": 1000000}

OTHERS: dict[str, list[Any]] = {
    "name": ["other"], "preset": ["nemo-microservices", "nemo-helix", "open"],
    "cluster.kubernetes": ["1.35"], "cluster.distribution": ["k3s", "openshift"], "cluster.server": ["https://10.0.0.1:6443"],
    "cluster.domain": ["cluster.example.org", None], "cluster.ingress": [{"className": "traefik"}, None],
    "cluster.ingress.className": ["traefik"], "cluster.ingress.tlsSecret": ["wildcard"], "cluster.networkPolicies": [False],
    "argocd.repoUrl": ["git@git.example.org:platform.git"], "argocd.revision": ["release"], "argocd.version": ["3.3.6"],
    "argocd.namespace": ["gitops"], "argocd.project": ["everything"], "argocd.teardown": ["keep", "cascade"],
    "argocd.waveDelaySeconds": [11], "argocd.syncTimeoutMinutes": [77],
    "gpus.nodes": [[], [NODE]], "gpus.nodes[]": [{**NODE, "tolerations": ["other"]}], "gpus.nodes[].product": ["NVIDIA-T4"],
    "gpus.nodes[].nodes": [9], "gpus.nodes[].gpusPerNode": [16], "gpus.nodes[].memoryGiB": [141],
    "gpus.nodes[].tolerations": [[], ["other"]], "gpus.nodes[].tolerations[]": ["other"],
    "gpus.driver": ["operator", "preinstalled"], "gpus.driverVersion": ["570.10.1"], "gpus.toolkit": ["preinstalled"],
    "gpus.timeSlicing": [{"replicas": 3}], "gpus.mig": [{"partsPerGpu": 3, "memoryGiB": 20, "config": "all-2g.20gb"}],
    "storage.readWriteOnce": [{"className": "other"}], "storage.readWriteOnce.className": ["other"],
    "storage.readWriteOnce.capacityGiB": [3], "storage.readWriteMany": [{"className": "other"}, None],
    "storage.readWriteMany.className": ["other"], "storage.readWriteMany.capacityGiB": [3],
    "registries.mirror": ["mirror.example.org"], "registries.charts": ["mirror.example.org/charts"],
    "registries.airGapped": [True, False], "registries.models": [{"url": "https://models.example.org"}],
    "registries.models.url": ["s3://other"], "registries.models.region": ["us-west-2"], "registries.models.endpoint": ["https://s3.example.org"],
    "registries.models.secret": ["other"], "registries.models.keys": [["TOKEN"]],
    "registries.trainerImage": ["example.org/t:2"], "registries.operatorImage": ["example.org/o:2"],
    "proxy": [{"https": "http://proxy.example.org:8080"}], "secrets.provider": ["manual", "external-secrets"],
    "secrets.store": [{"name": "other"}, None], "secrets.store.name": ["other"], "secrets.store.kind": ["SecretStore"],
    "secrets.store.prefix": ["elsewhere"], "secrets.ngc": ["other"], "secrets.ngcPull": ["other"], "secrets.huggingFace": ["other"],
    "sizing": ["small", "large"], "use.gpu": ["dra-driver", "existing-gpus", "device-plugin"], "use.postgres": ["external-postgres", "postgres"],
    "use.s3": ["external-s3", "minio", "versitygw"], "use.vectorDb": ["milvus", "pgvector"], "use.scheduler": ["kueue", "kube-scheduler", "volcano"],
    "use.tracking": ["external-mlflow", "mlflow"], "use.metrics": ["kube-prometheus-stack", "existing-prometheus"],
    "use.nemo": ["chart", "operator"], "use.serving": ["vllm", "nim"],
    "externalPostgres": [{"host": "db.example.org"}], "externalPostgres.host": ["db.example.org"], "externalPostgres.port": [6432],
    "externalS3": [{"endpoint": "https://s3.example.org"}], "externalS3.endpoint": ["https://s3.example.org"],
    "externalS3.region": ["us-west-2"], "externalS3.bucketPrefix": ["house"], "externalMlflow": ["https://mlflow.example.org"],
    "components": [{"gpu-operator": {"enabled": False}}, {"mlflow": {"values": {"a": 1}}}], "components.<name>": [{"enabled": True}],
    "components.<name>.enabled": [True, False], "components.<name>.version": ["1.2.3"], "components.<name>.values": [{"a": 1}],
    "components.<name>.storageGiB": [3], "components.<name>.values.prometheus": [{"url": "https://other.example.org"}],
    "components.<name>.values.prometheus.url": ["https://other.example.org"], "components.<name>.values.prometheus.port": [9090],
    "models": [[], [MODEL]], "models[]": [MODEL], "models[].name": ["third"], "models[].namespace": ["other", "fine-tuning"],
    "models[].image": [{"repository": "nvcr.io/nim/other", "tag": "2.0.0"}], "models[].image.repository": ["nvcr.io/nim/other"],
    "models[].image.tag": ["2.0.0", "1.8.7"], "models[].engine": ["nim", "vllm"], "models[].huggingFace": [HUB],
    "models[].huggingFace.repo": ["org/model"], "models[].huggingFace.revision": ["v1"], "models[].architecture": [ARCHITECTURE, None],
    "models[].architecture.parametersBillion": [3.0], "models[].architecture.layers": [3], "models[].architecture.hiddenSize": [64],
    "models[].architecture.keyValueHeads": [1], "models[].architecture.headSize": [64], "models[].weights": ["fp8", "int4", "bf16"],
    "models[].profile": ["abc"], "models[].nimEngine": ["vllm", "tensorrt_llm"], "models[].gpuProduct": ["NVIDIA-L40S", None],
    "models[].gpus": [3], "models[].replicas": [0, 3], "models[].autoscaling": [{"maxReplicas": 3}, None],
    "models[].autoscaling.minReplicas": [3], "models[].autoscaling.maxReplicas": [7], "models[].autoscaling.targetRequests": [3],
    "models[].multiNode": [{"pipeline": 3}, None], "models[].multiNode.pipeline": [3], "models[].maxSequenceLength": [1024],
    "models[].maxSequences": [33], "models[].cacheGiB": [77], "models[].lora": [{"source": "folder"}, {"source": "entity-store"}, None],
    "models[].lora.maxGpuAdapters": [3], "models[].lora.maxCpuAdapters": [77], "models[].lora.maxRank": [64],
    "models[].lora.refreshSeconds": [77], "models[].lora.source": ["folder", "entity-store"],
    "fineTuning.runtimes[].publishTo": ["data-store", "registry"],
    "models[].lora.baseModel": [{"repo": "other/model", "revision": "c0ffee"}], "models[].lora.baseModel.repo": ["other/model"],
    "models[].lora.baseModel.revision": ["c0ffee"], "models[].env": [[{"name": "A", "value": "b"}]],
    "pipelines": [[{"name": "both", "models": ["llama-3-1-8b"]}]],
    "fineTuning.runtimes": [[], [{"name": "other"}]], "fineTuning.runtimes[]": [{"name": "other"}], "fineTuning.runtimes[].name": ["other"],
    "fineTuning.runtimes[].accelerator": ["nvidia", "none"], "fineTuning.runtimes[].image": ["example.org/t:3"],
    "fineTuning.runtimes[].methods": [["lora"], ["sft"]], "fineTuning.runtimes[].methods[]": ["lora", "sft"],
    "fineTuning.runtimes[].servedModels": [["llama-3-1-8b"], ["qwen-2-5-7b"], []],
    "certificateAuthority": [{"configMap": "house-ca"}], "registries.huggingFace": ["https://hub.example.org"],
    "secrets.imagePull": ["registry"], "fineTuning.runtimes[].spec": [{"precisions": ["bf16"]}, {}],
    "fineTuning.namespaces": [[], [{"name": "other"}]], "fineTuning.namespaces[]": [{"name": "other"}],
    "fineTuning.namespaces[].name": ["other"], "fineTuning.namespaces[].gpus": [3, 5], "fineTuning.namespaces[].storageGiB": [333],
    "fineTuning.namespaces[].groups": [["team"]], "workflows.singleSignOn": [{"issuer": "https://login.example.org", "url": "https://w.example.org"}],
    "fineTuning.namespaces[].jobs": [3], "fineTuning.namespaces[].jobsFolder": ["jobs/other", None],
    "fineTuning.registryS3": [{"bucket": "adapters"}, None], "fineTuning.registryS3.bucket": ["other"], "fineTuning.registryS3.prefix": ["other"],
    "fineTuning.registryS3.endpoint": ["https://s3.example.org"], "fineTuning.registryS3.region": ["us-west-2"],
    "fineTuning.registryS3.secret": ["other"], "fineTuning.registryRetention": [{"keepVersions": 7, "keepDays": 7}, None],
    "fineTuning.registryRetention.keepVersions": [3], "fineTuning.registryRetention.keepDays": [3],
    "fineTuning.registryGiB": [33], "fineTuning.modelCacheGiB": [33], "fineTuning.customizer.targets": [[], [TARGET]],
    "fineTuning.customizer.targets[]": [TARGET], "fineTuning.customizer.targets[].name": ["a/b@1"],
    "fineTuning.customizer.targets[].baseModel": ["a/b"], "fineTuning.customizer.targets[].modelUri": ["hf://a/b"],
    "fineTuning.customizer.targets[].parameters": [3000000], "fineTuning.customizer.targets[].maxSequenceLength": [1024],
    "fineTuning.customizer.targets[].options": [[{"tensor": 3}]], "fineTuning.customizer.targets[].options[]": [{"tensor": 3}],
    "fineTuning.customizer.targets[].options[].method": ["lora_merged", "all_weights"],
    "fineTuning.customizer.targets[].options[].gpusPerNode": [3], "fineTuning.customizer.targets[].options[].nodes": [3],
    "fineTuning.customizer.targets[].options[].tensor": [3], "fineTuning.customizer.targets[].options[].pipeline": [3],
    "fineTuning.customizer.targets[].options[].microBatchSize": [3], "fineTuning.customizer.workspaceGiB": [33],
    "fineTuning.customizer.modelsGiB": [33], "fineTuning.customizer.targets[].huggingFace": [HUB, None],
    "fineTuning.customizer.targets[].huggingFace.repo": ["org/model"],
    "fineTuning.customizer.targets[].huggingFace.revision": ["v1"],
    "fineTuning.runtimes[].trainedBy": ["pods", "nemo-customizer"],
}  # fmt: skip
"""Other values by key; those that an environment has already are passed over."""
TOGETHER = {
    "externalPostgres": {"host": "db.example.org"},
    "externalS3": {"endpoint": "https://s3.example.org"},
    "externalMlflow": "https://mlflow.example.org",
}
"""What `use` chooses must be described, so these stand beside a choice that can't be rendered alone."""
MADE_UP = re.compile("^(model-|pipeline-|jobs-)(third|both|other)")
"""Components with a name out of this table; `explain` made up others."""
NO_OTHER = {
    ("airgapped", "use.vectorDb"): "NeMo Evaluator supports only Milvus",
    ("lab", "use.vectorDb"): "NeMo Evaluator supports only Milvus",
    ("lab", "preset"): "fine-tuning needs customizer (runtime nemo-customizer), and nothing provides it",
    (
        "demo",
        "fineTuning.runtimes[0].trainedBy",
    ): "fine-tuning needs customizer (runtime hf-cpu), and nothing provides it",
    (
        "open",
        "fineTuning.runtimes[0].trainedBy",
    ): "fine-tuning needs customizer (runtime hf), and nothing provides it",
    (
        "open",
        "fineTuning.runtimes[1].trainedBy",
    ): "fine-tuning needs customizer (runtime hf-cpu), and nothing provides it",
    (
        "lab",
        "models[0].autoscaling",
    ): "model-llama-3-2-1b needs metrics (what it scales by), and nothing provides it",
    (
        "lab",
        "models[1].autoscaling",
    ): "model-llama-3-1-8b needs metrics (what it scales by), and nothing provides it",
    (
        "open",
        "models[0].autoscaling",
    ): "model-qwen-2-5-7b needs metrics (what it scales by), and nothing provides it",
}
"""Keys that have no other value alone, and why not."""


@cache
def built(name: str) -> Built:
    return build(ROOT / f"environments/{name}.yaml", ROOT)


def keys(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Every key and list item, containers before what they hold."""
    if path:
        yield path
    for key, child in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from keys(child, (*path, key))


def pattern(path: KeyPath) -> str:
    """`models[].name` of `models[0].name`, `components.<name>.enabled` of `components.mlflow.enabled`."""
    text = re.sub(r"\[\d+\]", "[]", path_text(path))
    return re.sub(r"^components\.[^.]+", "components.<name>", text)


def other_values(path: KeyPath, current: Any) -> list[Any]:
    """What the table says, and in the free form of a runtime's `spec` something else of the same type."""
    if ".spec." in (key := pattern(path)):
        others: dict[type, list[Any]] = {str: ["other"], int: [3], list: [["other"]], dict: [{"other": "x"}]}
        return others[type(current)]
    return [value for value in OTHERS.get(key, []) if value != current]


def tree(data: Any) -> dict[str, tuple[str, str]] | None:
    """Path -> component and text of what an environment renders; None when it is none, or has no tree."""
    try:
        environment = Environment.model_validate(data)
        stack = resolve(environment, catalog(environment), pins())
    except (ValidationError, InputError):
        return None
    if unmet_preconditions(stack):
        return None
    files = render(stack, dict.fromkeys(local_paths(stack), "0" * 64))
    return {
        file.path: (file.component or component_of(file.path), file.text)
        for file in files
        if not file.path.endswith("/index.yaml")
    }


def changed(before: dict[str, tuple[str, str]], data: Any, path: KeyPath, value: Any) -> set[str] | None:
    """The components whose part of the tree is another one with `value` at `path`; None when there is no tree."""
    altered = copy.deepcopy(data)
    holder = altered
    for part in path[:-1]:
        holder = holder[part]
    holder[path[-1]] = value
    after = tree(altered)
    if after is None:
        missing = {key: value for key, value in TOGETHER.items() if altered[key] is None}
        after = tree({**altered, **missing})
    if after is None:
        return None
    differing = {p for p in before.keys() | after.keys() if before.get(p) != after.get(p)}
    return {MADE_UP.sub(r"\1<name>", (before.get(p) or after[p])[0]) for p in differing}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_explain_knows_what_every_key_changes(name: str) -> None:
    data = built(name).loaded.environment.model_dump(mode="json")
    before = tree(data)
    assert before
    explained = Influences(built(name), ROOT)
    seen: dict[KeyPath, set[str]] = {}
    wrong = []
    for path in reversed(list(keys(data))):
        current: Any = data
        for part in path:
            current = current[part]
        found = [changed(before, data, path, value) for value in other_values(path, current)]
        below = [seen[other] for other in seen if other[:-1] == path]
        truth = seen[path] = set().union(*(entry for entry in found if entry), *below)
        said = explained.of(path)
        refused = "" if said.tried else said.refused
        if (
            refused != NO_OTHER.get((name, path_text(path)), "")
            or not truth <= said.components
            or bool(truth) != bool(said.components)
        ):
            wrong.append((path_text(path), said, truth))
    assert wrong == []


@pytest.mark.filterwarnings("ignore:The '.*alias' attribute")
@pytest.mark.parametrize(
    ("key", "field"), list(rows()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_example_of_every_key_is_valid(key: str, field: FieldInfo) -> None:
    value = example_value(key.rsplit(".", maxsplit=1)[-1], field.annotation, field)
    annotation: Any = Annotated[field.annotation, field]
    TypeAdapter(annotation).validate_python(value)
