# SPDX-License-Identifier: Apache-2.0
"""FineTuneRuntime: what an image can do, and what a platform engineer wants every job to have."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from tuneyard_api import job_rules
from tuneyard_api import pod_contract as pod
from tuneyard_api.base import Contract, ObjectName, Rule
from tuneyard_api.job import ObjectMeta, SecretKey, Toleration
from tuneyard_api.places import ClaimSource, Registry, RegistryRetention, S3Registry
from tuneyard_api.pod_values import (
    ENV_NAME,
    MOUNT_PATH,
    ConfigKey,
    CpuQuantity,
    ImageName,
    MemoryQuantity,
    NodeLabels,
    ResourceName,
)
from tuneyard_api.serving import ServedModel

_PLACES = (
    *(pod.JOB_DIR, pod.WORKSPACE_DIR, pod.REGISTRY_DIR, pod.MODEL_CACHE_DIR, "/", "/tmp", "/dev/shm"),  # noqa: S108
    *(f"{pod.SOURCES_DIR}/{role}" for role in ("model", "adapter", "training", "validation", "test")),
)


class EnvVar(Contract):
    """An environment variable of every pod of the runtime. Never a secret: those are Secret references."""

    name: Annotated[str, Field(pattern=ENV_NAME, max_length=128)]
    """Name."""
    value: Annotated[str, Field(max_length=4096)]
    """Value."""


class ClaimMount(Contract):
    """A claim of the job's namespace that every pod of the runtime mounts read-only, such as an environment."""

    claim_name: ObjectName
    """Name of the claim."""
    mount_path: Annotated[str, Field(pattern=MOUNT_PATH, max_length=256), job_rules.apart_from(_PLACES)]
    """Where it appears."""


class CaBundle(Contract):
    """Authorities that every pod of the runtime trusts, from a ConfigMap of the job's namespace."""

    config_map_name: ObjectName
    """Name of the ConfigMap."""
    key: ConfigKey = "ca.crt"
    """Its key with the whole bundle as PEM: it takes the place of the image's authorities."""


class StageResources(Contract):
    """CPU and memory of a stage's container."""

    rules: ClassVar[tuple[Rule, ...]] = (job_rules.CPU_LIMIT_IS_ENOUGH,)

    cpu: CpuQuantity = "1"
    """CPU request."""
    cpu_limit: CpuQuantity | None = None
    """CPU limit, which a ResourceQuota on `limits.cpu` asks for; absent: none, so that what a node has free is used."""
    memory: MemoryQuantity = "4Gi"
    """Memory request and limit."""


class RuntimeDefaults(Contract):
    """What a job that does not say gets."""

    rules: ClassVar[tuple[Rule, ...]] = (job_rules.TWO_DEFAULT_REGISTRIES,)

    workspace_size_gib: Annotated[int, Field(ge=1, le=65_536)] = 20
    """Least workspace size in GiB of a job that does not say."""
    storage_class_name: ObjectName | None = None
    """Workspace storage class."""
    registry: ClaimSource | None = None
    """Adapter registry on a claim of the job's namespace; at most one of registry and registryS3."""
    registry_s3: S3Registry | None = None
    """Adapter registry in S3, which servers of any namespace can read."""
    hub_token: SecretKey | None = None
    """Hub token of jobs that name none; where the job's namespace lacks the Secret, the hub is asked without one."""
    micro_batch_size: Annotated[int, Field(ge=1, le=65_536)] = 1
    """Micro batch when the job leaves it open; lowered until it divides."""

    @property
    def any_registry(self) -> Registry | None:
        """The adapter registry, on a claim or in S3."""
        return self.registry or self.registry_s3


def _usual_resource(fields: dict[str, Any]) -> str | None:
    is_asked = fields.get("accelerator") == "nvidia" and fields.get("device_class_name") is None
    return "nvidia.com/gpu" if is_asked else None


class FineTuneRuntimeSpec(Contract):
    """One image and its abilities."""

    rules: ClassVar[tuple[Rule, ...]] = (job_rules.FIXED_IMAGE, job_rules.ONE_WAY_TO_ASK_FOR_GPUS)

    image: ImageName
    """Trainer image, by digest or fixed tag, never `latest`."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """Pull policy."""
    image_pull_secrets: Annotated[tuple[ObjectName, ...], Field(max_length=8)] = ()
    """Pull secrets of the job's namespace."""
    accelerator: Literal["nvidia", "none"]
    """`nvidia`: training without CUDA fails with AcceleratorMissing; `none`: trains on CPU."""
    device_class_name: ObjectName | None = None
    """DeviceClass that GPUs are claimed by (dynamic resource allocation, Kubernetes 1.34) instead of an extended resource."""
    accelerator_resource: ResourceName | None = Field(default_factory=_usual_resource)
    """Extended resource that a GPU is asked by; absent: `nvidia.com/gpu` with accelerator nvidia, else none is asked."""
    methods: Annotated[tuple[Annotated[str, Field(max_length=40)], ...], Field(min_length=1, max_length=16)]
    """Methods that the image has."""
    model_families: Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=64)] = ()
    """`model_type` values of config.json that are accepted; empty: all."""
    precisions: Annotated[tuple[Literal["bf16", "fp32"], ...], Field(min_length=1, max_length=4)] = (
        "bf16",
        "fp32",
    )
    """Precisions, best first."""
    quantizations: Annotated[tuple[Literal["nf4", "int8"], ...], Field(max_length=4)] = ()
    """Bits that the image can keep a base model in; empty: none."""
    allow_trust_remote_code: bool = False
    """Whether a job may run Python that comes with a model."""
    env: Annotated[tuple[EnvVar, ...], Field(max_length=64)] = ()
    """Environment of every pod."""
    ca_bundle: CaBundle | None = None
    """Authorities for downloads; absent: the image's."""
    mounts: Annotated[tuple[ClaimMount, ...], Field(max_length=8), job_rules.MOUNTS_APART] = ()
    """Read-only claims of every pod."""
    model_cache: ObjectName | None = None
    """Claim that downloaded models are kept in, by revision; absent: the job's workspace."""
    prepare_resources: StageResources = StageResources()
    """Of prepare and publish pods."""
    train_resources: StageResources = StageResources(cpu="4", memory="32Gi")
    """Of training pods."""
    runtime_class_name: ObjectName | None = None
    """RuntimeClass of training pods, such as `nvidia`."""
    node_selector: NodeLabels | None = None
    """Labels that the nodes of training pods must have."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] = ()
    """Tolerations of training pods."""
    served_models: Annotated[tuple[ServedModel, ...], Field(max_length=32)] = ()
    """Servers that read the runtime's registry and take adapters of their base model; empty: jobs end after publish."""
    registry_retention: RegistryRetention | None = None
    """Earlier versions of an adapter that its registry keeps; absent: all."""
    defaults: RuntimeDefaults = RuntimeDefaults()
    """Defaults of jobs."""

    @property
    def asks_for_gpus(self) -> bool:
        """Whether training pods ask for GPUs, by either way."""
        return self.accelerator_resource is not None or self.device_class_name is not None


class FineTuneRuntime(Contract):
    """A FineTuneRuntime as read from a file or from the cluster."""

    model_config = ConfigDict(extra="ignore")
    rules: ClassVar[tuple[Rule, ...]] = (job_rules.RUNTIME_NAME,)

    metadata: ObjectMeta
    spec: FineTuneRuntimeSpec
