# SPDX-License-Identifier: Apache-2.0
"""NeMo Customizer with its models and training settings, and the NeMo operator that runs its training jobs."""

from tuneyard_api.yaml_io import dump

from tuneyard.catalog.nemo import build_nemo, build_otel
from tuneyard.catalog.nim_operator import build_pull_secret
from tuneyard.catalog.objects import build_claim, build_config_map, build_tolerations
from tuneyard.catalog.repositories import private_repository
from tuneyard.catalog.tracking import tracking_url
from tuneyard.catalog.workflows_evaluator import NEMO
from tuneyard.environment.tuning import CustomizerTarget
from tuneyard.stack.model import Claim, Component, ExpectedSecret, Json, Need, Service, Stack

MODELS_CLAIM = "nemo-customizer-models"
NAMESPACE = "nemo-operator"


def _operator(stack: Stack) -> Json:
    """https://docs.nvidia.com/nim-operator/latest/deploy-nemo-microservices.html (nemo-operator 25.6.0)."""
    pull = stack.environment.secrets.ngc_pull
    return {"imagePullSecrets": [{"name": pull}], "controllerManager": {"manager": {"scheduler": "volcano"}}}


def customization_targets(targets: tuple[CustomizerTarget, ...]) -> Json:
    """`customizationTargets`, the same for the object's ConfigMap and for the umbrella chart."""
    return {
        "overrideExistingTargets": True,
        "targets": {
            target.name: {
                "name": target.name.split("/")[1],
                "namespace": target.name.split("/")[0],
                "enabled": True,
                "model_uri": target.model_uri,
                "model_path": target.name.split("/")[1].replace("@", "_"),
                "base_model": target.base_model,
                "num_parameters": target.parameters,
                "precision": "bf16-mixed",
            }
            for target in targets
        },
    }


def customization_templates(targets: tuple[CustomizerTarget, ...], product: str) -> Json:
    """`customizationConfigTemplates`: one template for each target."""
    templates = {}
    for target in targets:
        namespace, _, rest = target.name.partition("/")
        name = f"{rest.split('@')[0]}@v1.0.0+{product}"
        templates[f"{namespace}/{name}"] = {
            "name": name,
            "namespace": namespace,
            "target": target.name,
            "max_seq_length": target.max_sequence_length,
            "prompt_template": "{prompt} {completion}",
            "training_options": [
                {
                    "training_type": "sft",
                    "finetuning_type": option.method,
                    "num_gpus": option.gpus_per_node,
                    "num_nodes": option.nodes,
                    "tensor_parallel_size": option.tensor,
                    "pipeline_parallel_size": option.pipeline,
                    "micro_batch_size": option.micro_batch_size,
                }
                for option in target.options
            ],
        }
    return {"overrideExistingTemplates": True, "templates": templates}


def short_product(stack: Stack) -> str:
    """`A100` of `NVIDIA-A100-SXM4-80GB`, as NVIDIA names its templates; `GPU` without GPUs."""
    nodes = stack.environment.gpus.nodes
    parts = [part for part in nodes[0].product.split("-") if part != "NVIDIA"] if nodes else []
    return parts[0] if parts else "GPU"


def is_shared(stack: Stack) -> bool:
    """Whether some way to train takes several nodes, so that claims must be ReadWriteMany."""
    return any(o.nodes > 1 for t in stack.environment.fine_tuning.customizer.targets for o in t.options)


def _customizer(stack: Stack) -> list[Json]:
    environment = stack.environment
    customizer = environment.fine_tuning.customizer
    shared, storage_class = is_shared(stack), stack.storage_class(shared=is_shared(stack))
    mode = "ReadWriteMany" if shared else "ReadWriteOnce"
    training_image, _, training_tag = stack.image("nemo-customizer", "training").rpartition(":")
    secrets = environment.secrets
    spec: Json = {
        "datastore": {"endpoint": stack.url("data-store")},
        "entitystore": {"endpoint": stack.url("entity-store")},
        "mlflow": {"endpoint": tracking_url(stack)},
        "scheduler": {"type": "volcano"},
        "wandb": {
            "secretName": "nemo-customizer-wandb",
            "apiKeyKey": "apiKey",
            "encryptionKey": "encryptionKey",
        },
        "nemoDatastoreTools": {"image": stack.image("nemo-customizer", "datastore-tools")},
        "modelDownloadJobs": {
            "image": stack.image("nemo-customizer", "customizer-api"),
            "ngcAPISecret": {"name": secrets.ngc, "key": "NGC_API_KEY"},
            "hfSecret": {"name": secrets.hugging_face, "key": "HF_TOKEN"},
            "pollIntervalSeconds": 15,
            "securityContext": {
                "fsGroup": 1000,
                "runAsGroup": 1000,
                "runAsNonRoot": True,
                "runAsUser": 1000,
            },
            "ttlSecondsAfterFinished": 7200,
        },
        "modelConfig": {"name": "nemo-customizer-models"},
        "trainingConfig": {
            "configMap": {"name": "nemo-customizer-training"},
            "image": {"repository": training_image, "tag": training_tag, "pullSecrets": [secrets.ngc_pull]},
            "modelPVC": {"create": False, "name": MODELS_CLAIM, "volumeAccessMode": mode},
            "workspacePVC": {
                "mountPath": "/pvc/workspace",
                "size": f"{customizer.workspace_gib}Gi",
                "storageClass": storage_class,
                "volumeAccessMode": mode,
            },
            "tolerations": build_tolerations(environment.gpus.taints()),
            "sharedMemorySizeLimit": "16Gi",
            "ttlSecondsAfterFinished": 3600,
        },
        "otel": build_otel(stack),
    }
    targets = customizer.targets
    models = {
        "customizationTargets": dump(customization_targets(targets)),
        "customizationConfigTemplates": dump(customization_templates(targets, short_product(stack))),
    }
    return [
        build_config_map("nemo-customizer-models", NEMO, models),
        build_config_map(
            "nemo-customizer-training", NEMO, {"training": dump({"workspace_dir": "/pvc/workspace"})}
        ),
        build_claim(MODELS_CLAIM, NEMO, customizer.models_gib, storage_class, shared=shared),
        build_nemo(stack, "NemoCustomizer", "nemo-customizer", spec),
    ]


def _secrets(stack: Stack) -> list[ExpectedSecret]:
    secrets = stack.environment.secrets
    return [
        build_pull_secret(stack, NEMO),
        ExpectedSecret(secrets.ngc, NEMO, ("NGC_API_KEY",), "downloads models from NGC"),
        ExpectedSecret(
            secrets.hugging_face, NEMO, ("HF_TOKEN",), "downloads models from the Hugging Face hub"
        ),
        ExpectedSecret(
            "nemo-customizer-wandb",
            NEMO,
            ("apiKey", "encryptionKey"),
            "Weights & Biases (any apiKey if it is not used); encryptionKey: 32 bytes, base64",
        ),
    ]


def _claims(stack: Stack) -> list[Claim]:
    customizer, shared = stack.environment.fine_tuning.customizer, is_shared(stack)
    path = ("fineTuning", "customizer")
    return [Claim(customizer.models_gib, shared, path), Claim(customizer.workspace_gib, shared, path)]


COMPONENTS = (
    Component(
        name="nemo-operator",
        summary="Runs the training jobs of NeMo Customizer",
        namespace=NAMESPACE,
        provides=("crd:nemo-training",),
        needs=lambda _: (Need("scheduler", "training jobs are gangs"),),
        values=_operator,
        secrets=lambda stack: [
            build_pull_secret(stack, NAMESPACE),
            *private_repository(stack, "nemo-operator"),
        ],
    ),
    Component(
        name="nemo-customizer",
        summary="NeMo Customizer: fine-tuning by REST",
        namespace=NEMO,
        provides=("customizer",),
        needs=lambda _: (
            Need("crd:nemo", "its object's kind"),
            Need("crd:nemo-training", "its training jobs' kind"),
            Need("data-store", "data sets and adapters"),
            Need("entity-store", "models and data sets by name"),
            Need("tracking", "it writes loss curves there"),
            Need("gpu", "training"),
            Need("otel", "where it sends traces"),
        ),
        objects=_customizer,
        services=lambda _: {"customizer": Service("nemo-customizer", 8000)},
        secrets=_secrets,
        claims=_claims,
        databases=("nemo-customizer",),
        keeps_data=True,
    ),
)
