# SPDX-License-Identifier: Apache-2.0
"""What an environment says about the models that it serves."""

from typing import Annotated, Literal

from pydantic import Field
from tuneyard_api.base import Contract, Label, ObjectName
from tuneyard_api.pod_values import LabelValue
from tuneyard_api.runtime import EnvVar

from tuneyard.environment.cluster import GiB


class HuggingFaceModel(Contract):
    """A model of the Hugging Face hub."""

    repo: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)
    ]
    """Repository. Example: `meta-llama/Llama-3.1-8B-Instruct`."""
    revision: Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]+$", max_length=100)]
    """Commit or tag; a branch such as `main` is refused, because it moves."""


class Image(Contract):
    """A container image."""

    repository: Annotated[str, Field(pattern=r"^[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)+$", max_length=400)]
    """Repository. Example: `nvcr.io/nim/meta/llama-3.1-8b-instruct`."""
    tag: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$", max_length=128)]
    """Fixed tag, never `latest`. Example: `1.12.0`."""


class Architecture(Contract):
    """Architecture of a model that the catalog does not know, for the memory arithmetic."""

    parameters_billion: Annotated[float, Field(gt=0, le=2000)]
    """Parameters, in 10^9. Example: `8.03`."""
    layers: Annotated[int, Field(ge=1, le=512)]
    """Transformer layers."""
    hidden_size: Annotated[int, Field(ge=64, le=65_536)]
    """Width of the residual stream."""
    key_value_heads: Annotated[int, Field(ge=1, le=512)]
    """Heads of keys and values (grouped-query attention)."""
    head_size: Annotated[int, Field(ge=8, le=1024)] = 128
    """Width of one head."""


class LoraServing(Contract):
    """Adapters over one base model."""

    max_gpu_adapters: Annotated[int, Field(ge=1, le=256)] = 8
    """Adapters that fit in GPU memory at once."""
    max_cpu_adapters: Annotated[int, Field(ge=1, le=4096)] = 16
    """Adapters that are kept in host memory."""
    max_rank: Annotated[int, Field(ge=1, le=512)] = 32
    """Largest LoRA rank."""
    refresh_seconds: Annotated[int, Field(ge=5, le=86_400)] = 30
    """Seconds between two looks for new adapters."""
    source: Literal["entity-store", "folder"] = "folder"
    """`entity-store`: NeMo Entity Store (NIM 1.x only); `folder`: a folder that `adapter-sync` fills from the registry of
    jobs, for vLLM from a claim or S3, for a NIM from S3."""
    base_model: HuggingFaceModel | None = None
    """What jobs call the model of a NIM from NGC, so that their adapters are served here; absent: no job is. Not with
    `huggingFace`, which says it already. Example:
    `{repo: meta-llama/Llama-3.1-8B-Instruct, revision: 0e9e39f249a16976918f6564b8830bc894c89659}`."""


class Autoscaling(Contract):
    """Replicas by load."""

    min_replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    """Fewest."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)]
    """Most."""
    target_requests: Annotated[int, Field(ge=1, le=10_000)] = 8
    """Running requests per replica that are aimed at (metric `num_requests_running`)."""


class MultiNode(Contract):
    """One replica over several nodes, by LeaderWorkerSet."""

    pipeline: Annotated[int, Field(ge=2, le=64)]
    """Nodes of one replica (pipeline parallelism); `gpus` is per node."""


class ServedModel(Contract):
    """One model behind one OpenAI-compatible endpoint."""

    name: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=40)]
    """Name of the endpoint. Example: `llama-3-1-8b`."""
    namespace: Label = "models"
    """Namespace; with `lora.source: folder` the one in which jobs publish, so that both mount its `adapters` claim."""
    image: Image | None = None
    """Container; needed by NIM. vLLM has a pinned default."""
    engine: Literal["nim", "vllm"] | None = None
    """Server; absent: `use.serving`."""
    hugging_face: HuggingFaceModel | None = None
    """Weights from the hub; needed by vLLM. Absent for NIM: the image's own model from NGC."""
    architecture: Architecture | None = None
    """Needed when the catalog does not know the model."""
    weights: Literal["bf16", "fp8", "int4"] = "bf16"
    """Precision of the weights that are served."""
    profile: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=128)] | None = None
    """NIM profile id, the only one that is downloaded; absent: every profile that fits `nimEngine`, `gpus`, `lora` and the
    GPUs of the cluster."""
    nim_engine: Literal["tensorrt_llm", "vllm"] | None = None
    """Backend inside of NIM; absent: `tensorrt_llm` for NIM 1, `vllm` for NIM 2. Not with `profile`."""
    gpu_product: Annotated[LabelValue, Field(min_length=1)] | None = None
    """Runs on nodes with this product only; must be in `gpus.nodes`."""
    gpus: Annotated[int, Field(ge=1, le=64)] = 1
    """GPUs of one pod (tensor parallelism)."""
    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """Pods; not with `autoscaling`."""
    autoscaling: Autoscaling | None = None
    """Replicas by load; not with `multiNode`."""
    multi_node: MultiNode | None = None
    """Spreads one replica over several nodes; needs ReadWriteMany storage."""
    max_sequence_length: Annotated[int, Field(ge=128, le=1_048_576)] = 8192
    """Largest number of tokens of one request, prompt and answer together."""
    max_sequences: Annotated[int, Field(ge=1, le=4096)] = 8
    """Full-length requests at once that the KV cache must hold."""
    cache_gib: GiB = 50
    """Size of the model cache in GiB."""
    lora: LoraServing | None = None
    """Serve adapters; absent: base model only."""
    env: Annotated[tuple[EnvVar, ...], Field(max_length=64)] = ()
    """More environment variables. Never secrets."""


class Pipeline(Contract):
    """NIMs that are deployed together as one NIMPipeline."""

    name: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=40)]
    """Name of the pipeline."""
    models: Annotated[tuple[ObjectName, ...], Field(min_length=1, max_length=16)]
    """Names of `models` with engine nim that belong to it; they get no NIMService of their own."""
