# SPDX-License-Identifier: Apache-2.0
"""Each setting of an environment that a job, vLLM or NIM needs, followed from the file to the pod."""

import json
from typing import Any

import pytest
from tuneyard.catalog import catalog, pins
from tuneyard.environment.model import Environment
from tuneyard.stack.resolve import resolve
from tuneyard_api.job import FineTuneJob
from tuneyard_api.planner import PlanRefused, make_plan
from tuneyard_api.pod_contract import ENV_S3, Stage
from tuneyard_api.runtime import FineTuneRuntime
from tuneyard_operator.domain.frozen import JOB_KEY, Frozen, frozen_data
from tuneyard_operator.domain.objects.metadata import Owner
from tuneyard_operator.domain.objects.pod import build_pod_spec
from tuneyard_operator.domain.objects.storage import build_gpu_claim_template
from tuneyard_sync.settings import Settings

MODELS: list[dict[str, Any]] = [
    {
        "name": "qwen",
        "engine": "vllm",
        "namespace": "team",
        "huggingFace": {"repo": "Qwen/Qwen2.5-7B", "revision": "c0ffee"},
        "lora": {},
    },
    {
        "name": "llama",
        "engine": "nim",
        "image": {"repository": "nvcr.io/nim/meta/llama-3.1-8b-instruct", "tag": "1.8.6"},
    },
]

HUB_MODEL = {"huggingFace": {"repo": "Qwen/Qwen2.5-7B"}}


def rendered(**changes: Any) -> list[dict[str, Any]]:
    """Every object of an environment with a runtime, vLLM and a NIM."""
    base: dict[str, Any] = {
        "name": "test",
        "preset": "open",
        "argocd": {"repoUrl": "https://git.example.com/gitops.git"},
        "cluster": {"kubernetes": "1.36"},
        "storage": {"readWriteOnce": {"className": "local-path"}},
        "gpus": {"nodes": [{"product": "NVIDIA-A100-SXM4-80GB", "gpusPerNode": 8, "memoryGiB": 80}]},
        "models": MODELS,
        "fineTuning": {
            "runtimes": [{"name": "hf"}],
            "namespaces": [{"name": "team", "gpus": 4, "storageGiB": 500}],
        },
    }
    environment = Environment.model_validate({**base, **changes})
    stack = resolve(environment, catalog(environment), pins())
    return [body for component in stack.components if component.objects for body in component.objects(stack)]


def one(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = [body for body in objects if (body["kind"], body["metadata"]["name"]) == (kind, name)]
    return found


def frozen(objects: list[dict[str, Any]], **spec: Any) -> Frozen:
    """The plan of a job of the base model that vLLM serves."""
    runtime = FineTuneRuntime.model_validate(one(objects, "FineTuneRuntime", "hf"))
    job = {
        "model": HUB_MODEL,
        "dataset": {"training": {"pvc": {"claimName": "data", "path": "train.jsonl"}}},
        "method": "lora",
        **spec,
    }
    wanted = FineTuneJob.model_validate({"metadata": {"name": "a", "namespace": "team"}, "spec": job})
    return Frozen(plan=make_plan(wanted, runtime), runtime=runtime.spec, spec=wanted.spec)


def trainer(objects: list[dict[str, Any]], stage: Stage = Stage.TRAIN, **spec: Any) -> dict[str, Any]:
    """The pod of a stage."""
    return build_pod_spec(Owner("team", "a", "uid"), frozen(objects, **spec), stage, 1)


def vllm(objects: list[dict[str, Any]]) -> dict[str, Any]:
    pod: dict[str, Any] = one(objects, "Deployment", "qwen")["spec"]["template"]["spec"]
    return pod


def variables(pod: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in pod["containers"][0]["env"]}


def test_a_job_goes_to_the_vllm_of_its_base_model() -> None:
    plan = frozen(rendered()).plan
    assert plan.destination is not None
    assert (plan.destination.endpoint, plan.destination.server, plan.destination.listed_as) == (
        "http://qwen.team.svc.cluster.local:8000",
        "vllm",
        "qwen",
    )
    assert plan.resolved.model.revision == "c0ffee"


@pytest.mark.parametrize(
    ("gpus", "resource"),
    [
        ({}, "nvidia.com/gpu"),
        (
            {"mig": {"strategy": "single", "config": "all-1g.10gb", "partsPerGpu": 7, "memoryGiB": 10}},
            "nvidia.com/gpu",
        ),
        (
            {"mig": {"strategy": "mixed", "config": "all-3g.40gb", "partsPerGpu": 2, "memoryGiB": 40}},
            "nvidia.com/mig-3g.40gb",
        ),
        ({"timeSlicing": {"replicas": 2}}, "nvidia.com/gpu"),
    ],
)
def test_gpus_are_asked_for_by_the_resource_that_nodes_offer(gpus: dict[str, Any], resource: str) -> None:
    nodes = [{"product": "NVIDIA-A100-SXM4-80GB", "gpusPerNode": 8, "memoryGiB": 80}]
    objects = rendered(gpus={"nodes": nodes, **gpus})
    for container in (trainer(objects)["containers"][0], vllm(objects)["containers"][0]):
        for kind in ("requests", "limits"):
            assert {key: n for key, n in container["resources"][kind].items() if "nvidia" in key} == {
                resource: "1"
            }
    assert one(objects, "NIMService", "llama")["spec"]["resources"]["limits"] == {resource: "1"}
    quota = one(objects, "ResourceQuota", "fine-tuning")["spec"]["hard"]
    assert {key: n for key, n in quota.items() if "nvidia" in key} == {f"requests.{resource}": "4"}


def test_with_dynamic_resource_allocation_nothing_asks_for_an_extended_resource() -> None:
    objects = rendered(use={"gpu": "dra-driver"})
    pod = trainer(objects)
    assert pod["resourceClaims"] == [{"name": "gpus", "resourceClaimTemplateName": "a-gpus"}]
    assert pod["containers"][0]["resources"]["claims"] == [{"name": "gpus"}]
    assert "nvidia.com/gpu" not in str(pod["containers"])
    template = build_gpu_claim_template(
        Owner("team", "a", "uid"), frozen(objects, parallelism={"gpusPerNode": 2})
    )
    exactly = {"deviceClassName": "gpu.nvidia.com", "allocationMode": "ExactCount", "count": 2}
    assert template["spec"]["spec"]["devices"]["requests"] == [{"name": "gpus", "exactly": exactly}]
    server = vllm(objects)
    assert server["resourceClaims"] == [{"name": "gpus", "resourceClaimTemplateName": "qwen"}]
    assert server["containers"][0]["resources"]["claims"] == [{"name": "gpus"}]
    assert one(objects, "ResourceClaimTemplate", "qwen")["metadata"]["namespace"] == "team"
    quota = one(objects, "ResourceQuota", "fine-tuning")["spec"]["hard"]
    assert quota["gpu.nvidia.com.deviceclass.resource.k8s.io/devices"] == "4"
    assert "requests.nvidia.com/gpu" not in quota


@pytest.mark.parametrize("stage", Stage)
def test_a_proxy_reaches_everything_that_downloads(stage: Stage) -> None:
    objects = rendered(proxy={"https": "http://proxy.example.com:3128", "exempt": [".svc"]})
    wanted = {
        "HTTPS_PROXY": "http://proxy.example.com:3128",
        "HTTP_PROXY": "http://proxy.example.com:3128",
        "NO_PROXY": ".svc",
    }
    for pod in (trainer(objects, stage), vllm(objects)):
        assert wanted.items() <= variables(pod).items()
    for kind in ("NIMService", "NIMCache"):
        proxy = next(entry for entry in objects if entry["kind"] == kind)["spec"]["proxy"]
        assert (proxy["httpsProxy"], proxy["noProxy"]) == ("http://proxy.example.com:3128", ".svc")


@pytest.mark.parametrize("stage", Stage)
def test_an_authority_of_the_house_reaches_everything_that_downloads(stage: Stage) -> None:
    objects = rendered(certificateAuthority={"configMap": "house-ca", "key": "bundle.pem"})
    for pod in (trainer(objects, stage), vllm(objects)):
        env = variables(pod)
        assert {env[name] for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")} == {
            "/etc/tuneyard-ca/ca.crt"
        }
        (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "ca"]
        assert volume["configMap"] == {"name": "house-ca", "items": [{"key": "bundle.pem", "path": "ca.crt"}]}
        assert {"name": "ca", "mountPath": "/etc/tuneyard-ca", "readOnly": True} in pod["containers"][0][
            "volumeMounts"
        ]
    assert one(objects, "NIMService", "llama")["spec"]["proxy"] == {"certConfigMap": "house-ca"}


def test_a_mirror_of_the_hub_reaches_jobs_and_vllm() -> None:
    objects = rendered(registries={"huggingFace": "https://hub.internal"})
    for pod in (trainer(objects, Stage.PREPARE), vllm(objects)):
        assert variables(pod)["HF_ENDPOINT"] == "https://hub.internal"
        assert "HF_HUB_OFFLINE" not in variables(pod)


@pytest.mark.parametrize(
    ("mirror", "offline"), [({}, True), ({"huggingFace": "https://hub.internal"}, False)]
)
def test_in_an_air_gap_nobody_asks_the_hub_unless_there_is_a_mirror(
    mirror: dict[str, str], offline: bool
) -> None:
    house = {"airGapped": True, "mirror": "registry.internal", "charts": "registry.internal/charts", **mirror}
    objects = rendered(registries=house)
    copied = {"model": {"pvc": {"claimName": "weights", "path": "qwen"}}, "serve": {"disabled": True}}
    for pod in (trainer(objects, Stage.PREPARE, **(copied if offline else {})), vllm(objects)):
        assert (variables(pod).get("HF_HUB_OFFLINE") == "1") is offline
        assert ("HF_TOKEN" in variables(pod)) is not offline


def test_the_hub_s_secret_reaches_jobs_that_name_none_and_need_not_be_there() -> None:
    objects = rendered(secrets={"huggingFace": "hub"})
    token = {"secretKeyRef": {"name": "hub", "key": "HF_TOKEN", "optional": True}}
    for pod in (trainer(objects, Stage.PREPARE), vllm(objects)):
        assert variables(pod)["HF_TOKEN"] == token
    own = {"huggingFace": {"repo": "Qwen/Qwen2.5-7B", "secretRef": {"name": "mine", "key": "read"}}}
    asked = variables(trainer(objects, Stage.PREPARE, model=own))["HF_TOKEN"]
    assert asked == {"secretKeyRef": {"name": "mine", "key": "read"}}, "what a job asks for must be there"
    for stage in (Stage.TRAIN, Stage.PUBLISH):
        assert "HF_TOKEN" not in variables(trainer(objects, stage))


def test_the_image_pull_secret_reaches_jobs_and_vllm() -> None:
    objects = rendered(secrets={"imagePull": "house-registry"})
    for pod in (trainer(objects), vllm(objects)):
        assert pod["imagePullSecrets"] == [{"name": "house-registry"}]


def test_a_base_model_in_four_bits_is_offered_on_gpus() -> None:
    model = {"huggingFace": {"repo": "Qwen/Qwen2.5-7B"}, "quantization": "nf4"}
    assert frozen(rendered(), model=model).plan.resolved.quantization == "nf4"


@pytest.mark.parametrize(
    ("products", "has"),
    [
        (["NVIDIA-H100-80GB-HBM3"], True),
        (["NVIDIA-H200", "NVIDIA-GB200"], True),
        (["NVIDIA-H100-80GB-HBM3", "NVIDIA-A100-SXM4-80GB"], False),
        (["NVIDIA-L40S"], False),
    ],
)
def test_fp8_is_offered_where_all_gpus_have_it(products: list[str], has: bool) -> None:
    nodes = [{"product": product, "gpusPerNode": 8, "memoryGiB": 80} for product in products]
    model = {"huggingFace": {"repo": "Qwen/Qwen2.5-7B"}, "quantization": "fp8"}
    objects = rendered(gpus={"nodes": nodes})
    if has:
        assert frozen(objects, model=model).plan.resolved.quantization == "fp8"
    else:
        with pytest.raises(PlanRefused, match=r"has nf4, int8 \(got fp8\); try nf4 or int8"):
            frozen(objects, model=model)


def test_taints_of_gpu_nodes_are_tolerated() -> None:
    nodes = [{"product": "A", "gpusPerNode": 8, "memoryGiB": 80, "tolerations": ["dedicated"]}]
    objects = rendered(gpus={"nodes": nodes})
    for pod in (trainer(objects), vllm(objects)):
        assert {"nvidia.com/gpu", "dedicated"} <= {each["key"] for each in pod["tolerations"]}


STORE = {"bucket": "adapters", "prefix": "team", "endpoint": "https://s3.internal", "region": "eu-1"}
IN_S3 = {
    "runtimes": [{"name": "hf"}],
    "namespaces": [{"name": "team", "gpus": 4, "storageGiB": 500}],
    "registryS3": {**STORE, "secret": "registry"},
    "registryRetention": {"keepVersions": 3, "keepDays": 7},
}


@pytest.mark.parametrize("namespace", ["team", "elsewhere"])
def test_a_registry_in_s3_reaches_jobs_and_the_server_of_any_namespace(namespace: str) -> None:
    house = {
        "certificateAuthority": {"configMap": "house-ca"},
        "proxy": {"https": "http://proxy.example.com:3128"},
    }
    objects = rendered(models=[{**MODELS[0], "namespace": namespace}, MODELS[1]], fineTuning=IN_S3, **house)
    plan = frozen(objects).plan
    assert plan.destination is not None
    assert plan.destination.endpoint == f"http://qwen.{namespace}.svc.cluster.local:8000"
    assert plan.resolved.registry_s3 is not None
    assert plan.resolved.registry_s3.model_dump() == STORE
    assert plan.resolved.retention is not None
    assert (plan.resolved.retention.keep_versions, plan.resolved.retention.keep_days) == (3, 7)
    pod = vllm(objects)
    server, sync = pod["containers"]
    values = variables({"containers": [sync]})
    settings = Settings.of({name: value for name, value in values.items() if isinstance(value, str)})
    assert settings.source_dir is None
    assert (settings.s3_bucket, settings.s3_prefix) == ("adapters", "team")
    assert (settings.s3_endpoint, settings.s3_region) == ("https://s3.internal", "eu-1")
    secrets = {name: values[name]["secretKeyRef"]["name"] for name in ENV_S3}
    assert set(secrets.values()) == {"registry"}
    published = variables(trainer(objects, Stage.PUBLISH))
    for name in ENV_S3:
        assert published[name] == values[name]
        assert name not in variables(pod)
    assert values["HTTPS_PROXY"] == "http://proxy.example.com:3128"
    assert values["AWS_CA_BUNDLE"] == "/etc/tuneyard-ca/ca.crt"
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in (server, sync):
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    assert "registry" not in volumes
    claims = {body["metadata"]["name"] for body in objects if body["kind"] == "PersistentVolumeClaim"}
    assert "adapters" not in claims


def test_a_registry_on_a_claim_is_read_in_its_own_namespace_alone() -> None:
    objects = rendered()
    assert frozen(objects).plan.registry_claim == "adapters"
    volumes = {volume["name"]: volume for volume in vllm(objects)["volumes"]}
    assert volumes["registry"]["persistentVolumeClaim"] == {"claimName": "adapters", "readOnly": True}
    elsewhere = rendered(models=[{**MODELS[0], "namespace": "elsewhere"}, MODELS[1]])
    assert "adapter-sync" not in {container["name"] for container in vllm(elsewhere)["containers"]}
    assert "servedModels" not in one(elsewhere, "FineTuneRuntime", "hf")["spec"]


@pytest.mark.parametrize(
    ("chosen", "url"),
    [
        ({"use": {"tracking": "mlflow"}}, "http://mlflow.mlflow.svc.cluster.local:5000"),
        (
            {"use": {"tracking": "external-mlflow"}, "externalMlflow": "https://mlflow.example.org"},
            "https://mlflow.example.org",
        ),
    ],
)
def test_the_tracker_of_the_environment_is_in_the_job_json_of_the_pods(
    chosen: dict[str, Any], url: str
) -> None:
    objects = rendered(**chosen)
    told = json.loads(frozen_data(frozen(objects))[JOB_KEY])["tracking"]
    assert told == {"mlflow": {"url": url}, "experiment": "team/Qwen2.5-7B"}
    (job,) = [each for each in trainer(objects)["volumes"] if each["name"] == "job"]
    assert [item["key"] for item in job["configMap"]["items"]] == [JOB_KEY]
    assert json.loads(frozen_data(frozen(objects, tracking={"disabled": True}))[JOB_KEY])["tracking"] is None
