# SPDX-License-Identifier: Apache-2.0
"""The templates of the member `workflows`, for each namespace of jobs, and the accounts of their pods and of people."""

from tuneyard_workflows.accounts import build_account, build_login, build_user
from tuneyard_workflows.form import Offer
from tuneyard_workflows.templates import build_templates

from tuneyard.catalog.runtimes import REGISTRY_CLAIM
from tuneyard.catalog.workflows_evaluator import ARGO
from tuneyard.environment.tuning import Runtime
from tuneyard.stack.model import Component, Json, Need, Stack


def _is_promoted(runtime: Runtime) -> bool:
    """Whether templates can move names of what it publishes: they can't in the stores of NeMo."""
    return runtime.publish_to == "registry" and runtime.trained_by == "pods"


def _offer(stack: Stack, namespace: str) -> Offer:
    environment = stack.environment
    tuning, pull_secret = environment.fine_tuning, environment.secrets.image_pull
    promoted = [runtime for runtime in tuning.runtimes if _is_promoted(runtime)]
    images = [runtime.image for runtime in tuning.runtimes if runtime.trained_by == "pods" and runtime.image]
    return Offer(
        namespace=namespace,
        runtimes=tuple(runtime.name for runtime in promoted),
        methods=tuple(dict.fromkeys(method for runtime in promoted for method in runtime.methods)),
        elsewhere={each.name: tuple(each.methods) for each in tuning.runtimes if not _is_promoted(each)},
        image=images[0] if images else stack.mirrored(environment.registries.trainer_image),
        pull_secrets=(pull_secret,) if pull_secret else (),
        most_gpus=_most_gpus(stack, namespace),
        registry_claim=REGISTRY_CLAIM if tuning.registry_s3 is None else None,
    )


def _most_gpus(stack: Stack, namespace: str) -> int | None:
    """The GPUs that jobs of a namespace can have at most: Kueue lends those of all namespaces to each."""
    tuning = stack.environment.fine_tuning
    if any(runtime.accelerator == "none" for runtime in tuning.runtimes):
        return None
    lends = stack.has("scheduler") and stack.providers["scheduler"].name == "kueue"
    return sum(entry.gpus for entry in tuning.namespaces if lends or entry.name == namespace) or None


def _objects(stack: Stack) -> list[Json]:
    objects: list[Json] = []
    sign_on = stack.environment.workflows.single_sign_on
    namespaces = stack.environment.fine_tuning.namespaces
    groups = tuple(dict.fromkeys(group for entry in namespaces for group in entry.groups)) if sign_on else ()
    if groups:
        objects += build_login(ARGO, groups)
    for entry in namespaces:
        objects += build_account(entry.name)
        objects += build_user(entry.name, entry.groups if sign_on else ())
        objects += build_templates(_offer(stack, entry.name))
    return objects


COMPONENTS = (
    Component(
        name="workflow-templates",
        summary="Forms of Argo Workflows that become FineTuneJobs",
        namespace=ARGO,
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
