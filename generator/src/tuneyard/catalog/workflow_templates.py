# SPDX-License-Identifier: Apache-2.0
"""The templates of the member `workflows`, for each namespace of jobs."""

from tuneyard_workflows.form import Offer
from tuneyard_workflows.templates import build_account, build_templates

from tuneyard.catalog.runtimes import REGISTRY_CLAIM
from tuneyard.environment.model import Environment
from tuneyard.stack.model import Component, Json, Need, Stack


def _runtimes(environment: Environment) -> tuple[str, ...]:
    """Names of the runtimes that forms offer: no template moves a name in a Data Store."""
    runtimes = environment.fine_tuning.runtimes
    return tuple(runtime.name for runtime in runtimes if runtime.publish_to == "registry")


def _offer(stack: Stack, namespace: str) -> Offer:
    environment = stack.environment
    tuning, pull_secret = environment.fine_tuning, environment.secrets.image_pull
    methods = dict.fromkeys(method for runtime in tuning.runtimes for method in runtime.methods)
    images = [runtime.image for runtime in tuning.runtimes if runtime.trained_by == "pods" and runtime.image]
    return Offer(
        namespace=namespace,
        runtimes=_runtimes(environment),
        methods=tuple(methods),
        image=images[0] if images else stack.mirrored(environment.registries.trainer_image),
        pull_secrets=(pull_secret,) if pull_secret else (),
        registry_claim=REGISTRY_CLAIM if tuning.registry_s3 is None else None,
    )


def _objects(stack: Stack) -> list[Json]:
    objects: list[Json] = []
    for namespace in (entry.name for entry in stack.environment.fine_tuning.namespaces):
        objects += build_account(namespace)
        objects += build_templates(_offer(stack, namespace))
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
        when=lambda environment: bool(_runtimes(environment) and environment.fine_tuning.namespaces),
        beside="workflows",
    ),
)
