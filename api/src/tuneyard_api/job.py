# SPDX-License-Identifier: Apache-2.0
"""FineTuneJob as people write it: `spec` only holds fields that work.

Static defaults stand here and so in the CRD; `None` means "planned": `tuneyard_api.planner` fills it from
the FineTuneRuntime and from arithmetic. Rules between fields stand in `job_rules`, as CEL for the CRD and as
the same sentence in Python, so that a laptop and the API server answer alike.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from tuneyard_api import job_rules
from tuneyard_api.base import (
    HUB_REPO,
    METHOD,
    REVISION,
    BaseUrl,
    Contract,
    Label,
    ObjectName,
    Rule,
    VolumePath,
)
from tuneyard_api.places import ClaimSource, S3Registry
from tuneyard_api.pod_values import ConfigKey, LabelValue, NodeLabels, TaintKey
from tuneyard_api.remote_files import HttpFile, S3File
from tuneyard_api.survival import Deadlines, DeletionPolicy, Retry, Ttl


class SecretKey(Contract):
    """One key of a Secret in the job's namespace."""

    name: ObjectName
    """Name of the Secret."""
    key: ConfigKey = "token"
    """Key inside the Secret."""


class HuggingFaceSource(Contract):
    """A repository on a Hugging Face hub (`HF_ENDPOINT` of the runtime says which)."""

    repo: Annotated[
        str,
        Field(
            min_length=1,
            max_length=200,
            pattern=HUB_REPO,
        ),
    ]
    """`owner/name`."""
    revision: Annotated[str, Field(min_length=1, max_length=200, pattern=REVISION)] | None = None
    """Branch, tag or commit; the commit that it meant is kept in status. Absent: of a base model, the revision that a
    server of the runtime serves; else `main`."""
    secret_ref: SecretKey | None = None
    """Token for a gated repository; reaches the prepare pod alone."""


class AdapterSource(Contract):
    """A LoRA adapter to train on, in PEFT's layout: exactly one of the sources."""

    rules: ClassVar[tuple[Rule, ...]] = (job_rules.NO_ADAPTER, job_rules.TWO_ADAPTERS)

    published: Label | None = None
    """Name of an adapter in the job's registry, as an earlier job published it."""
    pvc: ClaimSource | None = None
    """A folder with adapter_config.json and adapter_model.safetensors."""


class ModelSource(Contract):
    """Where the base model comes from: exactly one of the sources."""

    rules: ClassVar[tuple[Rule, ...]] = (job_rules.NO_MODEL, job_rules.TWO_MODELS)

    hugging_face: HuggingFaceSource | None = None
    """A model repository."""
    pvc: ClaimSource | None = None
    """A folder with config.json, tokenizer.json and safetensors."""
    trust_remote_code: bool = False
    """Run Python that comes with the model; refused unless the runtime allows it."""
    adapter: AdapterSource | None = None
    """Go on from this adapter instead of a new one; it must fit the model, and `lora` where that is given."""
    quantization: Literal["nf4", "int8"] | None = None
    """Keep the frozen base model in 4 (QLoRA) or 8 bits; the runtime must have it."""


class HuggingFaceFile(HuggingFaceSource):
    """Files of a data set repository."""

    path: VolumePath
    """File inside the repository, ending in .jsonl, .json or .parquet."""


class DataSource(Contract):
    """Where one split of the data set comes from: exactly one of the sources."""

    rules: ClassVar[tuple[Rule, ...]] = (job_rules.NO_DATA, job_rules.TWO_DATA)

    hugging_face: HuggingFaceFile | None = None
    """A file of a data set repository."""
    pvc: ClaimSource | None = None
    """A .jsonl, .json or .parquet file on a claim."""
    s3: S3File | None = None
    """A file in a bucket."""
    http: HttpFile | None = None
    """A file behind a URL."""


class Template(Contract):
    """How a record of any columns becomes prompt and completion: Jinja2, sandboxed, unknown columns are errors."""

    prompt: Annotated[str, Field(min_length=1, max_length=8192)]
    """For example `{{ question }}\\nAnswer:`."""
    completion: Annotated[str, Field(min_length=1, max_length=8192)]
    """For example ` {{ answer }}`."""


class Dataset(Contract):
    """What the model learns from and is measured on."""

    rules: ClassVar[tuple[Rule, ...]] = (job_rules.ONE_VALIDATION, job_rules.SOMETHING_TO_COMPARE_ON)

    training: DataSource
    """Records to learn from."""
    validation: DataSource | None = None
    """Records to measure the loss on while training."""
    validation_fraction: Annotated[float, Field(ge=0.0, le=0.5)] | None = None
    """Share of the training records held out instead; 0.05 when neither is given."""
    test: DataSource | None = None
    """Records that base and tuned model are compared on; the validation records when absent."""
    format: Literal["auto", "chat", "promptCompletion", "text"] = "auto"
    """`chat`: a `messages` list; `promptCompletion`: `prompt` and `completion`; `text`: `text`."""
    template: Template | None = None
    """Makes prompt and completion out of other columns."""
    loss_on: Literal["completion", "all"] = "completion"
    """Which tokens are learned; `text` records always learn all."""


class Lora(Contract):
    """Low-rank adaptation (Hu et al. 2021)."""

    rank: Annotated[int, Field(ge=1, le=256)] = 16
    """Rank r of the update."""
    alpha: Annotated[int, Field(ge=1, le=1024)] = 32
    """The update is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0.0, le=0.9)] = 0.0
    """Dropout before the low-rank projection."""
    target_modules: (
        Annotated[
            tuple[Annotated[str, Field(min_length=1, max_length=64)], ...], Field(min_length=1, max_length=32)
        ]
        | None
    ) = None
    """Names of linear layers; absent: every linear layer but the output head."""


class EarlyStopping(Contract):
    """Ends a training whose validation loss does not get better any more."""

    patience: Annotated[int, Field(ge=1, le=1000)] = 3
    """Measurements in a row, one with each checkpoint, without a better one."""
    min_delta: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Nats per learned token by which a loss must be lower to be better."""


class Training(Contract):
    """The optimisation."""

    rules: ClassVar[tuple[Rule, ...]] = (job_rules.ONE_LENGTH,)

    epochs: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Passes over the training records; 1 when neither is given."""
    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Optimizer steps instead of epochs."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-4
    """Peak learning rate of AdamW."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Decay after the warm-up."""
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Optimizer steps of linear warm-up."""
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """AdamW's decoupled weight decay."""
    max_grad_norm: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Gradients are clipped to this norm."""
    global_batch_size: Annotated[int, Field(ge=1, le=1_048_576)] = 8
    """Sequences in one optimizer step, over all GPUs."""
    micro_batch_size: Annotated[int, Field(ge=1, le=65_536)] | None = None
    """Sequences in one forward pass of one GPU; planned when absent."""
    max_sequence_length: Annotated[int, Field(ge=16, le=1_048_576)] = 1024
    """Tokens; longer records are cut and counted."""
    packing: bool = True
    """Put several records into one sequence, each attending only to itself."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """`auto`: the first of the runtime's precisions that the accelerator has."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 42
    """Seeds data order, dropout and initial adapter."""
    early_stopping: EarlyStopping | None = None
    """Ends the training when the validation loss gets no better; absent: never."""


class Parallelism(Contract):
    """Where the work is spread. Data parallel size = nodes x GPUs; the model is spread over all of them (FSDP2)."""

    nodes: Annotated[int, Field(ge=1, le=64)] = 1
    """Nodes, one training pod on each; more than one need a storage class for ReadWriteMany."""
    gpus_per_node: Annotated[int, Field(ge=1, le=16)] = 1
    """GPUs, and so processes, of each training pod."""


class RuntimeRef(Contract):
    """The FineTuneRuntime that runs the job."""

    name: Label = "hf"
    """Name of a FineTuneRuntime (cluster-scoped)."""


class Workspace(Contract):
    """The claim that the stages of the job share."""

    size_gib: Annotated[int, Field(ge=1, le=65_536)] | None = None
    """Size in GiB; absent: estimated from model and method, and at least what the runtime says."""
    storage_class_name: ObjectName | None = None
    """Storage class; from the runtime, else the cluster's default."""
    access_mode: Literal["ReadWriteOnce", "ReadWriteMany"] | None = None
    """Absent: ReadWriteMany for several nodes, else ReadWriteOnce."""


class Resources(Contract):
    """What the training pod asks for besides GPUs (requests and limits alike for memory)."""

    rules: ClassVar[tuple[Rule, ...]] = (job_rules.CORES_WITHIN_LIMIT,)

    cpu_cores: Annotated[float, Field(ge=0.001, le=1024)] | None = None
    """CPU cores requested."""
    cpu_limit_cores: Annotated[float, Field(ge=0.001, le=1024)] | None = None
    """CPU cores at most, which a ResourceQuota on `limits.cpu` asks for; absent: as the runtime says."""
    memory_gib: Annotated[float, Field(ge=0.001, le=16_384)] | None = None
    """Memory in GiB, requested and limited."""


class Toleration(Contract):
    """A Kubernetes toleration."""

    rules: ClassVar[tuple[Rule, ...]] = (job_rules.TOLERATION_KEY, job_rules.TOLERATION_VALUE)

    key: TaintKey | None = None
    """Taint key; absent with Exists: all taints."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """How the value is compared."""
    value: LabelValue | None = None
    """Taint value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Taint effect; absent: all."""


class Scheduling(Contract):
    """Where the training pod may run."""

    gpu_product: Annotated[LabelValue, Field(min_length=1)] | None = None
    """Value of the node label `nvidia.com/gpu.product`."""
    node_selector: NodeLabels | None = None
    """Labels that the node must have."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] | None = None
    """Taints that are accepted."""
    priority_class_name: ObjectName | None = None
    """PriorityClass of the training pod."""


class Checkpoint(Contract):
    """What an interrupted training goes on from."""

    every_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    """Optimizer steps between checkpoints."""
    keep: Annotated[int, Field(ge=1, le=100)] = 2
    """Newest checkpoints kept, besides the one that is to be published."""
    publish: Literal["best", "last"] = "best"
    """What is evaluated and published: the checkpoint of the lowest validation loss, or the last one."""


class Evaluation(Contract):
    """The comparison of base and tuned model on the test records."""

    max_prompts: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Test records that are generated for; the loss is over all of them."""
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 64
    """Longest answer, in tokens; decoding is greedy."""


class Publish(Contract):
    """Registry of the adapter, or with method sft of the model; it is stored by name and digest. At most one of pvc and s3."""

    rules: ClassVar[tuple[Rule, ...]] = (job_rules.TWO_REGISTRIES,)

    adapter_name: Label | None = None
    """Name that the endpoint lists; the job's name when absent."""
    replace: bool = False
    """If the name stands for another version, let it stand for this one; false: a name that is taken is refused."""
    pvc: ClaimSource | None = None
    """Registry on a claim; absent: the runtime's registry."""
    s3: S3Registry | None = None
    """Registry in S3, which servers of any namespace can read; absent: the runtime's registry."""


class Serve(Contract):
    """The server that must answer with the adapter before the job has succeeded: at most one of model, endpoint, disabled."""

    rules: ClassVar[tuple[Rule, ...]] = (job_rules.ONE_SERVER,)

    model: Label | None = None
    """Name of one of the runtime's served models; absent: the first one of the job's base model."""
    endpoint: BaseUrl | None = None
    """Base URL of an OpenAI-compatible server of your own, without /v1, which reads the job's registry."""
    disabled: bool = False
    """The job has succeeded when the adapter is published."""
    timeout_seconds: Annotated[int, Field(ge=10, le=86_400)] = 600
    """How long the server may take to answer with the adapter."""


class FineTuneJobSpec(Contract):
    """What a data scientist asks for; model, dataset and method are enough."""

    rules: ClassVar[tuple[Rule, ...]] = (
        job_rules.OPTIONS_OF_METHOD,
        job_rules.QUANTIZED_IS_FROZEN,
        job_rules.ADAPTER_IS_LORA,
        job_rules.NO_DELETE_FROM_S3,
        job_rules.NO_ADAPTER_FROM_S3,
        job_rules.BATCH_DIVIDES,
        job_rules.BACKOFF_HAS_ROOM,
    )

    model: ModelSource
    """The base model."""
    dataset: Dataset
    """The data."""
    method: Annotated[str, Field(min_length=1, max_length=40, pattern=METHOD)]
    """A method that the runtime has: `lora` trains an adapter, `sft` all weights."""
    lora: Lora | None = None
    """Options of method lora."""
    training: Training = Training()
    """The optimisation."""
    parallelism: Parallelism = Parallelism()
    """Nodes and GPUs."""
    runtime: RuntimeRef = RuntimeRef()
    """What runs it."""
    workspace: Workspace = Workspace()
    """Scratch space."""
    resources: Resources = Resources()
    """CPU and memory of the training pod."""
    scheduling: Scheduling = Scheduling()
    """Placement of the training pod."""
    checkpoint: Checkpoint = Checkpoint()
    """Checkpoints."""
    suspend: bool = False
    """Stop at the next checkpoint, give the GPUs back, and go on from there when this is false again."""
    retry: Retry = Retry()
    """Attempts."""
    deadlines: Deadlines = Deadlines()
    """Longest times."""
    ttl: Ttl = Ttl()
    """Clean-up after the end."""
    deletion_policy: DeletionPolicy = "Retain"
    """What becomes of the published adapter when the FineTuneJob is deleted; `Delete` removes it from a registry on a claim."""
    evaluation: Evaluation = Evaluation()
    """Comparison with the base model."""
    publish: Publish = Publish()
    """Adapter registry."""
    serve: Serve | None = None
    """Proof by a server; where the runtime serves no model and the job names no endpoint, it ends after publish."""


class ObjectMeta(Contract):
    """The parts of Kubernetes metadata that are read; the rest is ignored."""

    model_config = ConfigDict(extra="ignore")

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 1


class FineTuneJob(Contract):
    """A FineTuneJob as read from a file or from the cluster, without its status."""

    model_config = ConfigDict(extra="ignore")
    rules: ClassVar[tuple[Rule, ...]] = (
        job_rules.JOB_NAME_LENGTH,
        job_rules.JOB_NAME_LABEL,
        job_rules.SERVICE_NAME,
    )

    metadata: ObjectMeta
    spec: FineTuneJobSpec
