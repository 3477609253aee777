# SPDX-License-Identifier: Apache-2.0
"""FineTuneRuntime: what a trainer image supports, and what a platform engineer gives every job."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from tuneyard_api import job_rules, registry_rules
from tuneyard_api import pod_contract as pod
from tuneyard_api.base import Contract, ObjectName, Rule
from tuneyard_api.customizer import Customizer
from tuneyard_api.data_stores import DataStoreRegistry
from tuneyard_api.job import ObjectMeta, Toleration
from tuneyard_api.places import ClaimSource, RegistryRetention, S3Registry
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
from tuneyard_api.remote_files import SecretKey
from tuneyard_api.serving import ServedModel
from tuneyard_api.tracking import RuntimeTracking

_PLACES = (
    *(pod.JOB_DIR, pod.WORKSPACE_DIR, pod.REGISTRY_DIR, pod.MODEL_CACHE_DIR, "/", "/tmp", "/dev/shm"),  # noqa: S108
    *(f"{pod.SOURCES_DIR}/{role}" for role in ("model", "adapter", "training", "validation", "test")),
)


class EnvVar(Contract):
    """Environment variable of every pod of the runtime. A secret must not stand here; there are references to Secrets for it."""

    name: Annotated[str, Field(pattern=ENV_NAME, max_length=128)]
    """Name."""
    value: Annotated[str, Field(max_length=4096)]
    """Value."""


class ClaimMount(Contract):
    """A claim of the job's namespace that every pod of the runtime mounts read-only, such as an environment."""

    claim_name: ObjectName
    """Name of the claim."""
    mount_path: Annotated[str, Field(pattern=MOUNT_PATH, max_length=256), job_rules.apart_from(_PLACES)]
    """Path of the mount in the pods."""


class CaBundle(Contract):
    """Certificate authorities that every pod of the runtime trusts, from a ConfigMap of the job's namespace."""

    config_map_name: ObjectName
    """Name of the ConfigMap."""
    key: ConfigKey = "ca.crt"
    """Key with the whole bundle in PEM, which replaces the certificate authorities of the image."""


class StageResources(Contract):
    """CPU and memory of a stage's container."""

    rules: ClassVar[tuple[Rule, ...]] = (job_rules.CPU_LIMIT_IS_ENOUGH,)

    cpu: CpuQuantity = "1"
    """CPU request."""
    cpu_limit: CpuQuantity | None = None
    """CPU limit, which a ResourceQuota on `limits.cpu` requires; absent: none, so that the pod can use all free cores."""
    memory: MemoryQuantity = "4Gi"
    """Memory request and limit."""


class RuntimeDefaults(Contract):
    """Values for fields that a job leaves out."""

    rules: ClassVar[tuple[Rule, ...]] = (registry_rules.ONE_DEFAULT_REGISTRY,)

    workspace_size_gib: Annotated[int, Field(ge=1, le=65_536)] = 20
    """Least workspace size in GiB of a job that gives no size."""
    storage_class_name: ObjectName | None = None
    """Workspace storage class."""
    registry: ClaimSource | None = None
    """Adapter registry on a claim of the job's namespace; at most one of registry, registryS3 and registryDataStore."""
    registry_s3: S3Registry | None = None
    """Adapter registry in S3, which servers of any namespace can read."""
    registry_data_store: DataStoreRegistry | None = None
    """Adapter registry in a NeMo Data Store, which a NIM 1.x reads by way of the Entity Store."""
    hub_token: SecretKey | None = None
    """Hub token of jobs that name none. If the Secret is not in the job's namespace, the hub is asked without a token."""
    micro_batch_size: Annotated[int, Field(ge=1, le=65_536)] = 1
    """Micro batch size of a job that gives none; it is lowered until it divides the sequences of a GPU."""

    @property
    def any_registry(self) -> ClaimSource | S3Registry | DataStoreRegistry | None:
        """The adapter registry, wherever it is."""
        return self.registry or self.registry_s3 or self.registry_data_store


def _usual_resource(fields: dict[str, Any]) -> str | None:
    is_asked = fields.get("accelerator") == "nvidia" and fields.get("device_class_name") is None
    return "nvidia.com/gpu" if is_asked else None


class FineTuneRuntimeSpec(Contract):
    """A trainer image, and what its jobs get."""

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
    """DeviceClass by which GPUs are claimed (dynamic resource allocation, Kubernetes 1.34) instead of an extended resource."""
    accelerator_resource: ResourceName | None = Field(default_factory=_usual_resource)
    """Extended resource by which a pod requests GPUs; absent: `nvidia.com/gpu` with accelerator nvidia, otherwise none."""
    methods: Annotated[tuple[Annotated[str, Field(max_length=40)], ...], Field(min_length=1, max_length=16)]
    """Training methods that the image supports."""
    model_families: Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=64)] = ()
    """Accepted values of `model_type` in config.json; empty: all."""
    precisions: Annotated[tuple[Literal["bf16", "fp32"], ...], Field(min_length=1, max_length=4)] = (
        "bf16",
        "fp32",
    )
    """Precisions that the image supports, in order of preference."""
    quantizations: Annotated[tuple[Literal["nf4", "int8", "fp8"], ...], Field(max_length=4)] = ()
    """Quantizations of the base model that the image supports; empty: none."""
    allow_trust_remote_code: bool = False
    """Whether a job may run Python that comes with a model."""
    env: Annotated[tuple[EnvVar, ...], Field(max_length=64)] = ()
    """Environment variables of every pod."""
    ca_bundle: CaBundle | None = None
    """Certificate authorities for downloads; absent: those of the image."""
    mounts: Annotated[tuple[ClaimMount, ...], Field(max_length=8), job_rules.MOUNTS_APART] = ()
    """Claims that every pod mounts read-only."""
    model_cache: ObjectName | None = None
    """Claim that keeps downloaded models by revision; absent: the job's workspace keeps them."""
    prepare_resources: StageResources = StageResources()
    """CPU and memory of prepare and publish pods."""
    train_resources: StageResources = StageResources(cpu="4", memory="32Gi")
    """CPU and memory of training pods."""
    runtime_class_name: ObjectName | None = None
    """RuntimeClass of training pods, such as `nvidia`."""
    node_selector: NodeLabels | None = None
    """Labels that the nodes of training pods must have."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] = ()
    """Tolerations of training pods."""
    served_models: Annotated[tuple[ServedModel, ...], Field(max_length=32)] = ()
    """Servers that read the runtime's registry and serve adapters of their base model; empty: jobs end after publish."""
    customizer: Customizer | None = None
    """NeMo microservices whose Customizer trains; the image then only prepares the data. Absent: pods of the image train."""
    registry_retention: RegistryRetention | None = None
    """Earlier versions of an adapter that its registry keeps; absent: all."""
    tracking: RuntimeTracking | None = None
    """Experiment tracking, to which training and publish write parameters, loss curve and metrics; absent: none."""
    defaults: RuntimeDefaults = RuntimeDefaults()
    """Defaults of jobs."""

    @property
    def asks_for_gpus(self) -> bool:
        """Whether training pods request GPUs, by a resource or by a DeviceClass."""
        return self.accelerator_resource is not None or self.device_class_name is not None


class FineTuneRuntime(Contract):
    """A FineTuneRuntime as read from a file or from the cluster."""

    model_config = ConfigDict(extra="ignore")
    rules: ClassVar[tuple[Rule, ...]] = (job_rules.RUNTIME_NAME,)

    metadata: ObjectMeta
    spec: FineTuneRuntimeSpec
