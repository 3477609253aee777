# SPDX-License-Identifier: Apache-2.0
"""What an environment says about the cluster: where it is, its GPUs, its storage, its registries and its secrets."""

import re
from typing import Annotated, Literal

from pydantic import Field
from tuneyard_api.base import Contract, Label, ObjectName
from tuneyard_api.pod_values import LabelValue

from tuneyard.environment.taints import Taint

Url = Annotated[
    str, Field(pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$", max_length=512)
]
GitUrl = Annotated[str, Field(pattern=r"^(https?://|ssh://|git@)[^\s]+$", max_length=512)]
HostName = Annotated[
    str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", max_length=253)
]
RegistryHost = Annotated[str, Field(pattern=r"^[a-z0-9.-]+(:[0-9]{1,5})?(/[a-z0-9._/-]+)?$", max_length=253)]
GiB = Annotated[int, Field(ge=1, le=1_048_576)]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]


PLACEHOLDER_REGISTRY = "registry.example.com"
"""Stands for a registry of the reader's own (RFC 2606): nothing can be pulled from it."""


class Ingress(Contract):
    """How services are reached from outside the cluster."""

    class_name: ObjectName
    """IngressClass. Example: `nginx`."""
    tls_secret: ObjectName | None = None
    """Secret with the wildcard certificate of `cluster.domain`; absent: plain HTTP."""


class Cluster(Contract):
    """The Kubernetes cluster."""

    kubernetes: Annotated[str, Field(pattern=r"^1\.[0-9]{2}$")] = "1.33"
    """Minor version, in quotes. Example: `"1.34"`."""
    distribution: Literal["kubernetes", "k3s", "rke2", "openshift"] = "kubernetes"
    """Decides where the container runtime keeps its configuration."""
    server: Url = "https://kubernetes.default.svc"
    """API server as Argo CD knows it; the default is the cluster that Argo CD runs in."""
    domain: HostName | None = None
    """Services get `<service>.<domain>`; needs `cluster.ingress`. Example: `lab.example.com`."""
    ingress: Ingress | None = None
    """Absent: services are reached inside of the cluster only."""
    network_policies: bool = True
    """Whether namespaces of jobs and models refuse traffic that nobody needs."""


class ArgoCd(Contract):
    """The Argo CD that follows this tree."""

    repo_url: GitUrl
    """The repository that this tree is committed to. Example: `https://git.example.com/platform/gitops.git`."""
    revision: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9._/-]+$")] = "main"
    """Branch, tag or commit that the roots follow."""
    version: Annotated[str, Field(pattern=r"^3\.[0-9]+\.[0-9]+$")] = "3.2.11"
    """Argo CD's version; 3.2.11 is the one that the order was proved on."""
    namespace: Label = "argocd"
    """Namespace of Argo CD."""
    project: ObjectName | None = None
    """AppProject that is rendered; absent: `tuneyard-<name>`."""
    teardown: Literal["keep", "cascade"] = "keep"
    """What is deleted with an Application. `keep`: only the Application; `cascade`: its objects too, in
    reverse order, but never model caches, databases or their operators."""
    wave_delay_seconds: Annotated[int, Field(ge=0, le=600)] = 2
    """`controller.sync.wave.delay.seconds`; under 2 the gate may judge an old object."""
    sync_timeout_minutes: Annotated[int, Field(ge=5, le=1440)] = 30
    """Longest sync of a root, all its retries and waves included; after it only a commit or a hand starts another."""


class GpuNodes(Contract):
    """A group of equal nodes."""

    product: Annotated[LabelValue, Field(min_length=1)]
    """The label `nvidia.com/gpu.product`, without `-SHARED` or `-MIG-...`, which `timeSlicing` and `mig` add.
    Example: `NVIDIA-A100-SXM4-80GB`."""
    nodes: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Number of nodes."""
    gpus_per_node: Annotated[int, Field(ge=1, le=64)]
    """GPUs of one node."""
    memory_gib: Annotated[int, Field(ge=4, le=1024)]
    """Memory of one GPU in GiB. Example: `80`."""
    price_per_hour: Annotated[float, Field(gt=0, le=10_000)] | None = None
    """What an hour of one GPU costs, in `gpus.currency`, for `tuneyard plan`; absent: not known. Example: `2.5`."""
    tolerations: Annotated[tuple[Taint, ...], Field(max_length=8)] = ()
    """Taints of these nodes that GPU pods, drivers and plugins tolerate, besides `nvidia.com/gpu`: `key`, `key:Effect` or
    `key=value:Effect`; without an effect it is NoSchedule. Example: `[example.com/dedicated]`."""


_FP8 = re.compile(r"\b(H20|H100|H200|H800|GH200|B100|B200|B300|GB200|GB300)\b")
"""Names of the generation Hopper and later in products, such as NVIDIA-H100-80GB-HBM3."""
_PROFILE = re.compile(r"(\d+g\.\d+gb)([.+]me)?$")


class TimeSlicing(Contract):
    """Several pods on one GPU, without isolation of memory."""

    replicas: Annotated[int, Field(ge=2, le=48)]
    """Number of pods that share a GPU."""


class Mig(Contract):
    """GPUs cut into isolated parts."""

    strategy: Literal["single", "mixed"] = "single"
    """`single`: all parts alike, asked for as nvidia.com/gpu; `mixed`: asked for by profile."""
    config: Annotated[str, Field(pattern=r"^[a-z0-9.+-]+$", max_length=63)] = "all-balanced"
    """Name of the MIG Manager's configuration; `all-balanced` cuts unlike parts. Example: `all-1g.10gb`."""
    profile: Annotated[str, Field(pattern=r"^[0-9]g\.[0-9]+gb(\.me)?$", max_length=16)] | None = None
    """Profile that pods ask for; needed by `mixed`, and by `single` where `config` does not end with it.
    Example: `1g.10gb`."""
    parts_per_gpu: Annotated[int, Field(ge=1, le=7)]
    """Parts that one GPU is cut into, for the arithmetic."""
    memory_gib: Annotated[int, Field(ge=4, le=192)]
    """Memory of one part in GiB."""

    @property
    def only_profile(self) -> str | None:
        """The profile of all parts under `single`, as it is in labels: media extensions lose their point."""
        found = _PROFILE.search(self.profile or self.config)
        return f"{found[1]}{'me' if found[2] else ''}" if found else None


class Gpus(Contract):
    """The GPUs that the cluster has."""

    nodes: Annotated[tuple[GpuNodes, ...], Field(max_length=32)] = ()
    """Kinds of GPU nodes; empty: a cluster without GPUs."""
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "USD"
    """Currency of `pricePerHour`, as ISO 4217 has it. Example: `EUR`."""
    driver: Literal["operator", "preinstalled"] = "operator"
    """`preinstalled`: nodes come with the driver (EKS GPU images, GKE, DGX OS)."""
    driver_version: Annotated[str, Field(pattern=r"^[0-9]{3}(\.[0-9]+){1,2}$")] | None = None
    """Driver that the GPU Operator installs; absent: the chart's. Example: `580.95.05`."""
    toolkit: Literal["operator", "preinstalled"] = "operator"
    """NVIDIA Container Toolkit: who installs it."""
    time_slicing: TimeSlicing | None = None
    """Share GPUs by time; not with `mig`."""
    mig: Mig | None = None
    """Cut GPUs into parts; not with `timeSlicing`."""

    def taints(self, product: str | None = None) -> tuple[str, ...]:
        """Taints of nodes with a product, or of all."""
        nodes = [entry for entry in self.nodes if product in (None, entry.product)]
        return tuple(dict.fromkeys(taint for entry in nodes for taint in entry.tolerations))

    def have_fp8(self) -> bool:
        """Whether all GPUs can train with products in FP8 with a scale for each row: Hopper and what came after it."""
        return bool(self.nodes) and all(_FP8.search(entry.product) for entry in self.nodes)

    def label_of(self, product: str) -> str:
        """The label `nvidia.com/gpu.product` that nodes with a product have.

        GPU feature discovery (k8s-device-plugin, internal/lm/resource.go) adds what sharing makes of a GPU; with the
        MIG strategy `mixed` it leaves this label alone.
        """
        if self.mig:
            return f"{product}-MIG-{self.mig.only_profile}" if self.mig.strategy == "single" else product
        return f"{product}-SHARED" if self.time_slicing else product


class StorageClass(Contract):
    """A storage class and what it holds."""

    class_name: ObjectName
    """Name of the StorageClass. Example: `local-path`."""
    capacity_gib: GiB | None = None
    """Capacity in GiB; absent: not checked."""


class Storage(Contract):
    """Storage classes by access mode."""

    read_write_once: StorageClass
    """Class for databases and caches that one node mounts."""
    read_write_many: StorageClass | None = None
    """Class for volumes that several nodes mount: training on several nodes, caches of replicated models."""


class ModelMirror(Contract):
    """A mirror of NVIDIA's model repository."""

    url: Annotated[str, Field(pattern=r"^(https|s3|jfrog)://[^\s]+$", max_length=512)]
    """Its address (NIM_REPOSITORY_OVERRIDE). Example: `s3://nim-models`."""
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]+$", max_length=40)] | None = None
    """Region of the bucket (AWS_REGION); needed by `s3://`."""
    endpoint: Url | None = None
    """S3 other than Amazon's (AWS_ENDPOINT_URL). Example: `https://s3.internal`."""
    secret: ObjectName = "model-mirror"  # noqa: S105  a name
    """Secret whose keys become environment variables of the Job that downloads."""
    keys: Annotated[tuple[VariableName, ...], Field(max_length=8)] = ()
    """Keys of the secret; absent: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for `s3://`, and no secret for the others."""

    @property
    def secret_keys(self) -> tuple[str, ...]:
        """The keys that the secret must have."""
        aws = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        return self.keys or (aws if self.url.startswith("s3://") else ())


class Registries(Contract):
    """Where images and charts come from."""

    mirror: RegistryHost | None = None
    """Registry that holds every image under its own path. Example: `registry.internal:5000/mirror`."""
    charts: (
        Annotated[str, Field(pattern=r"^(https?://)?[a-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._/-]*)?$")] | None
    ) = None
    """OCI registry (no scheme) or Helm repository (https://) that holds every chart; absent: their own."""
    air_gapped: bool = False
    """True: nothing may come from outside; needs `mirror` and `charts`."""
    models: ModelMirror | None = None
    """Mirror of NVIDIA's model repository; absent: NGC."""
    hugging_face: Url | None = None
    """Mirror of the Hugging Face hub, for jobs and vLLM (HF_ENDPOINT). Example: `https://hub.internal`."""
    trainer_image: Annotated[str, Field(min_length=1, max_length=512)] = (
        f"{PLACEHOLDER_REGISTRY}/tuneyard/trainer:0.1.0"
    )
    """Our trainer's image, by fixed tag or digest."""
    operator_image: Annotated[str, Field(min_length=1, max_length=512)] = (
        f"{PLACEHOLDER_REGISTRY}/tuneyard/operator:0.1.0"
    )
    """Our operator's image, by fixed tag or digest."""


class Proxy(Contract):
    """Outbound proxy of model downloads."""

    https: Url
    """Proxy for HTTP and HTTPS. Example: `http://proxy.example.com:3128`."""
    exempt: Annotated[tuple[str, ...], Field(max_length=32)] = (
        "localhost",
        "127.0.0.1",
        ".svc",
        ".cluster.local",
    )
    """Hosts and suffixes that are reached directly (NO_PROXY). Write hosts by name: a network such as `10.0.0.0/8` is
    read by Go, requests and httpx, and passed over by Python's urllib, aiohttp and botocore, which then ask the proxy."""


class SecretStore(Contract):
    """The External Secrets store that values come from; operator and store are expected in the cluster."""

    name: ObjectName
    """Name of the store."""
    kind: Literal["ClusterSecretStore", "SecretStore"] = "ClusterSecretStore"
    """Kind of the store."""
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]*$", max_length=200)] = "tuneyard"
    """Remote keys are `<prefix>/<secret name>`."""


class Secrets(Contract):
    """Who brings secrets. Values never appear in this tree: it names them and lists what is expected."""

    provider: Literal["manual", "external-secrets", "sealed-secrets"] = "manual"
    """`external-secrets`: ExternalSecret objects are rendered; otherwise people create what `secrets.md` lists."""
    store: SecretStore | None = None
    """Needed by `external-secrets`."""
    ngc: ObjectName = "ngc-api"
    """Secret with key NGC_API_KEY."""
    ngc_pull: ObjectName = "ngc-pull"
    """Image pull secret for nvcr.io (user `$oauthtoken`)."""
    hugging_face: ObjectName = "hugging-face"
    """Secret with key HF_TOKEN."""
    image_pull: ObjectName | None = None
    """Image pull secret for the mirror, or for the registry of Tuneyard's own images; absent: none is needed."""


class CertificateAuthority(Contract):
    """Authorities that downloads trust, for a proxy or a mirror with a certificate of your own."""

    config_map: ObjectName
    """ConfigMap that is expected in each namespace of jobs and models, as trust-manager makes them. Example: `ca-bundle`."""
    key: Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)] = "ca.crt"
    """Key with the whole bundle as PEM. The bundle replaces the public authorities, so it must contain them."""


class ExternalPostgres(Contract):
    """A PostgreSQL that exists already; one database and user per service is expected in it."""

    host: HostName
    """Host name."""
    port: Annotated[int, Field(ge=1, le=65_535)] = 5432
    """Port."""


class ExternalS3(Contract):
    """An S3 that exists already; one bucket per service is expected in it."""

    endpoint: Url
    """Endpoint. Example: `https://s3.eu-central-1.amazonaws.com`."""
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]+$", max_length=40)] = "us-east-1"
    """Region."""
    bucket_prefix: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=30)] | None = None
    """Buckets are `<prefix>-<service>`; absent: `<environment>-<service>`."""
