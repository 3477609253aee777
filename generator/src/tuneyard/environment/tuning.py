# SPDX-License-Identifier: Apache-2.0
"""What an environment says about fine-tuning: runtimes, namespaces with quotas, queues, NeMo Customizer's models."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue
from tuneyard_api.base import RELATIVE_PATH, Contract, HttpUrl, Label, ObjectName, VolumePath
from tuneyard_api.places import RegistryRetention
from tuneyard_api.remote_files import BUCKET, REGION
from tuneyard_api.serving import ServedRepository

from tuneyard.environment.cluster import GiB

Positive = Annotated[int, Field(ge=1, le=65_536)]


class Runtime(Contract):
    """One FineTuneRuntime."""

    name: Label
    """Name that jobs refer to. Example: `hf`."""
    accelerator: Literal["nvidia", "none"] = "nvidia"
    """`none` trains on CPU, for trying."""
    trained_by: Literal["pods", "nemo-customizer"] = "pods"
    """`nemo-customizer`: NeMo Customizer trains the targets that have `huggingFace`; pods of the image only prepare the data."""
    publish_to: Literal["registry", "data-store"] = "registry"
    """`registry`: on claims or in S3; `data-store`: NeMo Data Store, whose Entity Store lists adapters for NIMs with
    `lora.source: entity-store`. NeMo Customizer publishes there in any case."""
    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """Trainer image; absent: `registries.trainerImage`."""
    methods: Annotated[tuple[Literal["lora", "sft", "dpo", "ia3", "pTuning"], ...], Field(min_length=1)] = (
        "lora",
    )
    """Methods that the image has."""
    served_models: Annotated[tuple[ObjectName, ...], Field(max_length=32)] | None = None
    """Names of the `models` that serve adapters of this runtime's jobs; absent: all that can, empty: none."""
    spec: dict[str, JsonValue] = Field(default={})
    """More fields of the FineTuneRuntime's spec, laid over what is derived, such as `servedModels` with a server
    that is not in `models`. Example: `{defaults: {workspaceSizeGiB: 50}}`."""


Group = Annotated[str, Field(pattern=r"^[A-Za-z0-9/][A-Za-z0-9 ._:@/-]*$", max_length=128)]


class TuningNamespace(Contract):
    """A namespace in which people run FineTuneJobs."""

    name: Label
    """Namespace. Example: `team-a`."""
    gpus: Annotated[int, Field(ge=0, le=100_000)] = 1
    """Quota of GPUs. With Kueue, those that are idle are lent to the other namespaces; a job of this namespace takes them
    back at once, and the borrower's job saves a checkpoint and goes on later."""
    storage_gib: GiB = 200
    """Quota of storage in GiB."""
    jobs: Positive = 100
    """Quota of FineTuneJob objects."""
    jobs_folder: Annotated[str, Field(pattern=RELATIVE_PATH, max_length=200)] | None = None
    """Folder of this repository with FineTuneJobs that Argo CD applies to this namespace and never deletes; absent:
    people apply their jobs themselves. Example: `jobs/team-a`."""
    groups: Annotated[tuple[Group, ...], Field(max_length=16)] = ()
    """Groups of `workflows.singleSignOn` whose members may submit forms of Argo Workflows here. Example: `[team-a]`."""


class CustomizerOption(Contract):
    """A way to train a target in NeMo Customizer."""

    method: Literal["lora", "lora_merged", "all_weights"] = "lora"
    """`finetuning_type`."""
    gpus_per_node: Positive = 1
    """`num_gpus`."""
    nodes: Positive = 1
    """`num_nodes`."""
    tensor: Positive = 1
    """`tensor_parallel_size`."""
    pipeline: Positive = 1
    """`pipeline_parallel_size`."""
    micro_batch_size: Positive = 1
    """`micro_batch_size`."""


class CustomizerTarget(Contract):
    """A base model that NeMo Customizer can tune."""

    name: Annotated[
        str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*/[a-z0-9][a-z0-9._-]*@[A-Za-z0-9._-]+$", max_length=128)
    ]
    """`<namespace>/<name>@<version>`. Example: `meta/llama-3.2-1b-instruct@2.0`."""
    base_model: Annotated[str, Field(pattern=r"^[a-z0-9._-]+/[a-z0-9._-]+$", max_length=128)]
    """Name of the model in its NIM. Example: `meta/llama-3.2-1b-instruct`."""
    model_uri: Annotated[str, Field(pattern=r"^(ngc|hf)://[^\s]+$", max_length=300)]
    """Source of the weights. Example: `ngc://nvidia/nemo/llama-3_2-1b-instruct:2.0`."""
    parameters: Annotated[int, Field(ge=1_000_000)]
    """Number of parameters. Example: `1000000000`."""
    hugging_face: ServedRepository | None = None
    """The model as FineTuneJobs name it, which its tokenizer is read from; absent: no FineTuneJob trains it. Example:
    `{repo: meta-llama/Llama-3.2-1B-Instruct, revision: 9213176726f574b556790deb65791e0c5aa438b6}`."""
    max_sequence_length: Annotated[int, Field(ge=128, le=1_048_576)] = 4096
    """Longest sequence, in tokens."""
    options: Annotated[tuple[CustomizerOption, ...], Field(min_length=1, max_length=16)] = (
        CustomizerOption(),
    )
    """Ways to train it."""


class Customizer(Contract):
    """NeMo Customizer."""

    targets: Annotated[tuple[CustomizerTarget, ...], Field(max_length=32)] = ()
    """Models that can be tuned."""
    workspace_gib: GiB = 50
    """Workspace of one training job in GiB."""
    models_gib: GiB = 100
    """Downloaded base models in GiB."""


class RegistryInS3(Contract):
    """An adapter registry in a bucket that exists already."""

    bucket: Annotated[str, Field(min_length=3, max_length=63, pattern=BUCKET)]
    """Bucket. Example: `adapters`."""
    prefix: VolumePath | None = None
    """Beginning of the keys; absent: the whole bucket. Example: `tuneyard`."""
    endpoint: HttpUrl | None = None
    """Address of the store; absent: Amazon's. Example: `https://s3.internal`."""
    region: Annotated[str, Field(min_length=1, max_length=63, pattern=REGION)] = "us-east-1"
    """Region."""
    secret: ObjectName = "adapter-registry"  # noqa: S105  the name of a Secret
    """Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. It is expected in each namespace of jobs, where it may write,
    and in each namespace of models with adapters from it, where reading is enough."""


class FineTuning(Contract):
    """Fine-tuning by FineTuneJob and by NeMo Customizer."""

    runtimes: Annotated[tuple[Runtime, ...], Field(max_length=16)] = ()
    """FineTuneRuntimes; empty: none is rendered."""
    namespaces: Annotated[tuple[TuningNamespace, ...], Field(max_length=64)] = ()
    """Namespaces of jobs, with quotas."""
    registry_gib: GiB = 50
    """Adapter registry on a claim of each namespace of jobs in GiB; not used with `registryS3`."""
    registry_s3: RegistryInS3 | None = None
    """Adapter registry in S3, from which models of any namespace are served; absent: a claim in each namespace of jobs, which
    is read by models of the same namespace."""
    registry_retention: RegistryRetention | None = None
    """Earlier versions of an adapter that the registry keeps; absent: all. Example: `{keepVersions: 5, keepDays: 30}`."""
    model_cache_gib: GiB = 100
    """Cache of downloaded base models in GiB: one claim in each namespace of jobs."""
    customizer: Customizer = Customizer()
    """NeMo Customizer's models; used when it is part of the environment."""
