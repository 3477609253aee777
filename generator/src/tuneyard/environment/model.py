# SPDX-License-Identifier: Apache-2.0
"""The environment file's model. Sample and reference page are generated from it, so each key is documented here."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue
from tuneyard_api.base import Contract

from tuneyard.environment.cluster import (
    ArgoCd,
    CertificateAuthority,
    Cluster,
    ExternalPostgres,
    ExternalS3,
    GiB,
    Gpus,
    Proxy,
    Registries,
    Secrets,
    Storage,
    Url,
)
from tuneyard.environment.models import Pipeline, ServedModel
from tuneyard.environment.tuning import FineTuning
from tuneyard.environment.workflows import Workflows


class Use(Contract):
    """Which component provides a capability; each line replaces one by another. Absent: the preset's choice."""

    gpu: Literal["device-plugin", "dra-driver", "existing-gpus"] | None = None
    """How pods get GPUs; `existing-gpus`: the cluster offers nvidia.com/gpu already."""
    postgres: Literal["postgres", "external-postgres"] | None = None
    """`postgres`: a CloudNativePG cluster; `external-postgres`: see `externalPostgres`."""
    s3: Literal["versitygw", "minio", "external-s3"] | None = None
    """`versitygw`: in the cluster, one pod; `minio`: not maintained, for what has data in it; `external-s3`: see
    `externalS3`."""
    vector_db: Literal["milvus", "pgvector"] | None = None
    """`pgvector` lives in `postgres`."""
    scheduler: Literal["volcano", "kueue", "kube-scheduler"] | None = None
    """Kueue queues every Job of `fineTuning.namespaces`, and nothing else. Volcano schedules the jobs of NeMo
    Customizer, which needs it; FineTuneJobs do not use it. `kube-scheduler`: no queues."""
    tracking: Literal["mlflow", "external-mlflow"] | None = None
    """Experiment tracking; `external-mlflow`: see `externalMlflow`."""
    metrics: Literal["kube-prometheus-stack", "existing-prometheus"] | None = None
    """ServiceMonitors are rendered only when something reads them."""
    nemo: Literal["operator", "chart"] | None = None
    """NeMo microservices as NIM Operator objects or by NVIDIA's umbrella chart."""
    serving: Literal["nim", "vllm"] | None = None
    """Default `engine` of models."""


class ComponentOptions(Contract):
    """Changes of an environment to one component."""

    enabled: bool | None = None
    """`true`: part of the environment even if nothing needs it; `false`: never."""
    version: Annotated[str, Field(max_length=64)] | None = None
    """Another exact version of the pinned chart, out of those that the catalog knows."""
    values: dict[str, JsonValue] = Field(default={})
    """Chart values that are merged over the derived ones. Never secrets."""
    storage_gib: GiB | None = None
    """Size of its volume in GiB; absent: by `sizing`."""


class Environment(Contract):
    """One cluster and all that runs on it."""

    name: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=20)]
    """Name; the file is `environments/<name>.yaml`."""
    preset: Literal["nemo-microservices", "nemo-helix", "open"] = "open"
    """Starting point: NVIDIA's NeMo microservices, its successor NeMo Helix, or a stack that needs no NVIDIA account."""
    cluster: Cluster = Cluster()
    """The Kubernetes cluster."""
    argocd: ArgoCd
    """The Argo CD that follows this tree."""
    gpus: Gpus = Gpus()
    """The GPUs that the cluster has."""
    storage: Storage
    """Storage classes."""
    registries: Registries = Registries()
    """Where images and charts come from."""
    proxy: Proxy | None = None
    """Outbound proxy of model downloads."""
    certificate_authority: CertificateAuthority | None = None
    """Authorities that downloads trust; absent: those of the images."""
    secrets: Secrets = Secrets()
    """Who brings secrets."""
    sizing: Literal["small", "medium", "large"] = "small"
    """Volumes and replicas of stores: `small` for trying, `medium` for a team, `large` for several."""
    use: Use = Use()
    """Which component provides a capability."""
    external_postgres: ExternalPostgres | None = None
    """The PostgreSQL that is used with `use.postgres: external-postgres`."""
    external_s3: ExternalS3 | None = None
    """The S3 store that is used with `use.s3: external-s3`."""
    external_mlflow: Url | None = None
    """The MLflow server that is used with `use.tracking: external-mlflow`. Example: `https://mlflow.example.com`."""
    components: dict[str, ComponentOptions] = Field(default={})
    """Changes to single components, by name."""
    models: Annotated[tuple[ServedModel, ...], Field(max_length=64)] = ()
    """Models to serve."""
    pipelines: Annotated[tuple[Pipeline, ...], Field(max_length=16)] = ()
    """NIMPipelines."""
    fine_tuning: FineTuning = FineTuning()
    """Fine-tuning."""
    workflows: Workflows = Workflows()
    """Argo Workflows."""
