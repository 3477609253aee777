# SPDX-License-Identifier: Apache-2.0
"""FineTuneJob as people write it: `spec` has only fields that take effect.

Static defaults are written here, and the CRD takes them from here. `None` means that `tuneyard_api.planner` computes
the value from the FineTuneRuntime and from other fields. Rules between fields are in `job_rules`, as CEL for the CRD
and as the same sentence in Python, so that a laptop and the API server give the same answer.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, StringConstraints

from tuneyard_api import gate_rules, job_rules, registry_rules
from tuneyard_api.base import (
    DNS_SUBDOMAIN,
    MANAGER,
    METHOD,
    BaseUrl,
    Contract,
    Label,
    ObjectName,
    Rule,
)
from tuneyard_api.benchmarks import Benchmarks
from tuneyard_api.data_stores import DataStoreRegistry
from tuneyard_api.gate import Gate
from tuneyard_api.job_inputs import Dataset, ModelSource
from tuneyard_api.places import ClaimSource, S3Registry
from tuneyard_api.pod_values import LabelValue, NodeLabels, TaintKey
from tuneyard_api.survival import Budget, Deadlines, DeletionPolicy, Retry, Ttl
from tuneyard_api.tracking import Tracking


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
    """Names of linear layers, or of tensors that hold all experts, such as `experts.down_proj`; absent: every linear layer but the
    output head."""
    dora: bool = False
    """Weight-decomposed adaptation (DoRA, Liu et al. 2024): the magnitude of each output of a layer is trained too. The tuned
    model is published merged, as no server loads such adapters."""


class Dpo(Contract):
    """Direct preference optimization (Rafailov et al. 2023) of a LoRA adapter; the reference is the model without it."""

    beta: Annotated[float, Field(ge=0.001, le=10.0)] = 0.1
    """How much a preference weighs: the loss of a pair is -log(sigmoid(beta x margin)), where margin says by how many nats the
    chosen answer has gained on the rejected one."""


class PTuning(Contract):
    """P-tuning (Liu et al. 2021): virtual tokens before each record."""

    virtual_tokens: Annotated[int, Field(ge=1, le=1024)] = 20
    """Number of virtual tokens; they count in the model's positions, not in maxSequenceLength."""


class EarlyStopping(Contract):
    """Ends a training whose validation loss no longer improves."""

    patience: Annotated[int, Field(ge=1, le=1000)] = 3
    """Number of validations in a row without an improvement; there is one with each checkpoint."""
    min_delta: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Least decrease of the validation loss that counts as an improvement, in nats per learned token."""


class Training(Contract):
    """Options of the optimization."""

    rules: ClassVar[tuple[Rule, ...]] = (job_rules.ONE_LENGTH,)

    epochs: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Passes over the training records; 1 if maxSteps is absent too."""
    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Number of optimizer steps, instead of epochs."""
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
    """Sequences in one forward pass of one GPU; absent: planned, where the GPU product is known; otherwise the runtime's default."""
    max_sequence_length: Annotated[int, Field(ge=16, le=1_048_576)] = 1024
    """Longest sequence in tokens; longer records are cut, and the report counts them."""
    packing: bool = True
    """Put several records into one sequence, each attending only to itself."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """`auto`: the first of the runtime's precisions that the accelerator has."""
    gradient_checkpointing: bool | None = None
    """Recompute activations in the backward pass: less memory, about a third more time. Absent: planned, where the GPU product is
    known; otherwise off."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 42
    """Seed of the data order, the dropout and the initial adapter."""
    early_stopping: EarlyStopping | None = None
    """Ends the training when the validation loss no longer improves; absent: never."""


class Parallelism(Contract):
    """Nodes and GPUs of the training. The data-parallel size is nodes x GPUs.

    Each GPU holds the whole model, and what training keeps of it, if it has room; otherwise FSDP2 shards the model over
    all of them.
    """

    nodes: Annotated[int, Field(ge=1, le=64)] = 1
    """Number of nodes, each with one training pod; more than one needs a storage class for ReadWriteMany."""
    gpus_per_node: Annotated[int, Field(ge=1, le=16)] = 1
    """GPUs of each training pod; each GPU has one process."""


class RuntimeRef(Contract):
    """The FineTuneRuntime that runs the job."""

    name: Label = "hf"
    """Name of a FineTuneRuntime (cluster-scoped)."""


class Workspace(Contract):
    """The PersistentVolumeClaim that the stages of the job share."""

    size_gib: Annotated[int, Field(ge=1, le=65_536)] | None = None
    """Size in GiB; absent: estimated from model and method, but at least the runtime's default."""
    storage_class_name: ObjectName | None = None
    """Storage class; absent: the runtime's default, or the cluster's."""
    access_mode: Literal["ReadWriteOnce", "ReadWriteMany"] | None = None
    """Access mode; absent: ReadWriteMany for several nodes, otherwise ReadWriteOnce."""


class Resources(Contract):
    """CPU and memory of the training pod. Its memory limit equals its memory request."""

    rules: ClassVar[tuple[Rule, ...]] = (job_rules.CORES_WITHIN_LIMIT,)

    cpu_cores: Annotated[float, Field(ge=0.001, le=1024)] | None = None
    """CPU cores requested."""
    cpu_limit_cores: Annotated[float, Field(ge=0.001, le=1024)] | None = None
    """CPU limit in cores, which a ResourceQuota on `limits.cpu` requires; absent: the runtime's."""
    memory_gib: Annotated[float, Field(ge=0.001, le=16_384)] | None = None
    """Memory in GiB, requested and limited."""


class Toleration(Contract):
    """A Kubernetes toleration."""

    rules: ClassVar[tuple[Rule, ...]] = (job_rules.TOLERATION_KEY, job_rules.TOLERATION_VALUE)

    key: TaintKey | None = None
    """Taint key; if it is absent and the operator is Exists, all taints are tolerated."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """How the value is compared."""
    value: LabelValue | None = None
    """Taint value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Taint effect; absent: all effects."""


class Scheduling(Contract):
    """Nodes on which the training pod may run, and the queue in which it waits for quota."""

    queue: Annotated[str, StringConstraints(pattern=DNS_SUBDOMAIN, min_length=1, max_length=63)] | None = None
    """Kueue's LocalQueue for the training; absent: the LocalQueue `default` of the namespace, if there is one."""
    gpu_product: Annotated[LabelValue, Field(min_length=1)] | None = None
    """Value of the node label `nvidia.com/gpu.product`."""
    node_selector: NodeLabels | None = None
    """Labels that the node must have."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] | None = None
    """Taints that the training pod tolerates."""
    priority_class_name: ObjectName | None = None
    """PriorityClass of the training pod; a queue orders and preempts by it too."""


class Checkpoint(Contract):
    """Checkpoints, from which an interrupted training continues."""

    every_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    """Optimizer steps between checkpoints."""
    keep: Annotated[int, Field(ge=1, le=100)] = 2
    """Number of latest checkpoints that are kept, in addition to the one that will be published."""
    publish: Literal["best", "last"] = "best"
    """Checkpoint that is evaluated and published: the one with the lowest validation loss, or the last one."""


class Evaluation(Contract):
    """Comparison of the base model and the tuned model on the test records."""

    max_prompts: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Number of test records for which both models generate an answer. The loss is measured on all test records."""
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 64
    """Longest answer, in tokens; decoding is greedy."""
    benchmarks: Benchmarks | None = None
    """Public benchmarks that both models are asked besides; absent: none."""
    gate: Gate | None = None
    """Conditions without which nothing is published; absent: none."""


class Trial(Contract):
    """What a server is asked before a name that it serves moves to the new version; vLLM with adapter-sync does it."""

    prompts: Annotated[int, Field(ge=0, le=16)] = 4
    """Held-out prompts that are asked, the first short ones; 0: servers move at once."""
    min_similarity: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Mean similarity to the answers of the evaluation that is wanted: 1 is the same text, 0 nothing in common."""


class Publish(Contract):
    """Registry that gets the adapter or the model, by name and digest. At most one of pvc, s3 and dataStore."""

    rules: ClassVar[tuple[Rule, ...]] = (registry_rules.ONE_REGISTRY,)

    adapter_name: Label | None = None
    """Name under which the server lists the adapter; absent: the job's name."""
    replace: bool = False
    """Whether this version replaces another one that has the name; false: a name that is taken is refused."""
    trial: Trial = Trial()
    """How servers try this version before they replace another one by it."""
    pvc: ClaimSource | None = None
    """Registry on a claim; absent: the runtime's registry."""
    s3: S3Registry | None = None
    """Registry in S3, which servers of any namespace can read; absent: the runtime's registry."""
    data_store: DataStoreRegistry | None = None
    """Registry in a NeMo Data Store, which a NIM 1.x reads by way of the Entity Store; absent: the runtime's registry."""

    @property
    def any_registry(self) -> ClaimSource | S3Registry | DataStoreRegistry | None:
        """The registry that the job names."""
        return self.pvc or self.s3 or self.data_store


class Serve(Contract):
    """Server that must answer with the adapter before the job succeeds. At most one of model, endpoint and disabled."""

    rules: ClassVar[tuple[Rule, ...]] = (job_rules.ONE_SERVER,)

    model: Label | None = None
    """Name of one of the runtime's served models; absent: the first one of the job's base model."""
    endpoint: BaseUrl | None = None
    """Base URL of an OpenAI-compatible server of your own, without /v1, which reads the job's registry."""
    disabled: bool = False
    """Whether the job succeeds without a server, as soon as the adapter is published."""
    timeout_seconds: Annotated[int, Field(ge=10, le=86_400)] = 600
    """How long the server may take to answer with the adapter."""


class FineTuneJobSpec(Contract):
    """What a data scientist asks for; model, dataset and method are enough."""

    rules: ClassVar[tuple[Rule, ...]] = (
        job_rules.OPTIONS_OF_METHOD,
        job_rules.DPO_OPTIONS,
        job_rules.P_TUNING_OPTIONS,
        job_rules.DPO_COMPARES_ANSWERS,
        job_rules.PREFERENCES_ARE_FOR_DPO,
        job_rules.QUANTIZED_IS_FROZEN,
        job_rules.QUANTIZED_HAS_NO_DORA,
        job_rules.FP8_IS_LORA,
        job_rules.FP8_IS_BF16,
        job_rules.FP8_HAS_NO_DROPOUT,
        job_rules.ADAPTER_IS_LORA,
        job_rules.ADAPTER_HAS_NO_DORA,
        registry_rules.ONLY_CLAIMS_DELETE,
        registry_rules.ONLY_CLAIMS_CONTINUE,
        job_rules.BATCH_DIVIDES,
        job_rules.BACKOFF_HAS_ROOM,
        job_rules.MANAGED_BY_STAYS,
        *gate_rules.RULES,
    )

    model: ModelSource
    """The base model."""
    dataset: Dataset
    """The data set."""
    method: Annotated[str, Field(min_length=1, max_length=40, pattern=METHOD)]
    """Training method, which the runtime must support: `lora` trains an adapter, `sft` trains all weights, `dpo`
    trains an adapter by preferences, `ia3` a few scales, `pTuning` virtual tokens."""
    lora: Lora | None = None
    """Options of the adapter of methods lora and dpo."""
    dpo: Dpo | None = None
    """Options of method dpo."""
    p_tuning: PTuning | None = None
    """Options of method pTuning."""
    training: Training = Training()
    """Options of the optimization."""
    parallelism: Parallelism = Parallelism()
    """Nodes and GPUs."""
    runtime: RuntimeRef = RuntimeRef()
    """FineTuneRuntime that runs the job."""
    workspace: Workspace = Workspace()
    """Storage that the stages of the job share."""
    resources: Resources = Resources()
    """CPU and memory of the training pod."""
    scheduling: Scheduling = Scheduling()
    """Placement of the training pod."""
    checkpoint: Checkpoint = Checkpoint()
    """Checkpoints."""
    suspend: bool = False
    """Whether the training stops with a checkpoint and gives its GPUs back. When this is false again, it continues."""
    budget: Budget = Budget()
    """What the training may spend."""
    retry: Retry = Retry()
    """Repetition of stages that fail."""
    deadlines: Deadlines = Deadlines()
    """Time limits."""
    ttl: Ttl = Ttl()
    """Clean-up after the job has ended."""
    deletion_policy: DeletionPolicy = "Retain"
    """What happens to the published adapter when the FineTuneJob is deleted; `Delete` removes it from a registry on a claim."""
    evaluation: Evaluation = Evaluation()
    """Comparison with the base model."""
    publish: Publish = Publish()
    """Adapter registry."""
    tracking: Tracking = Tracking()
    """Experiment tracking."""
    managed_by: Annotated[str, Field(min_length=1, max_length=63, pattern=MANAGER)] | None = None
    """Controller that works on the job, such as `example.com/other`; absent or `tuneyard.io/operator`: this operator. It leaves
    jobs of others alone, and this can't be changed."""
    serve: Serve | None = None
    """Server that proves the adapter. If the runtime serves no model and the job names no endpoint, the job ends after publish."""


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
