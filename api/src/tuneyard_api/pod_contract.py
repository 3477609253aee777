# SPDX-License-Identifier: Apache-2.0
"""The pod contract, schema version 1: what the operator gives a pod and what a pod gives back.

Any image can be a FineTuneRuntime if it keeps this module. One container `trainer` is run as
`tuneyard-trainer stage <stage>`, reads the resolved job from `JOB_FILE`, works in `WORKSPACE_DIR`, ends with one
StageResult in `TERMINATION_LOG` and `<workspace>/results/<stage>.json` (a rerun that finds a valid Succeeded result
of the same plan returns it), and with an exit code of `FailureClass`. SIGTERM means: checkpoint and leave.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from tuneyard_api import names
from tuneyard_api.base import Contract, Tolerant
from tuneyard_api.data_stores import ResolvedDataStore
from tuneyard_api.evaluation_facts import EvaluationFacts
from tuneyard_api.job import Checkpoint, Dpo, EarlyStopping, Evaluation, Lora, PTuning, Trial
from tuneyard_api.job_inputs import DataFormat, Template
from tuneyard_api.ledger import PhaseTimes
from tuneyard_api.methods import Method, method_of
from tuneyard_api.model_shape import ModelShape
from tuneyard_api.places import RegistryRetention, S3Prefix
from tuneyard_api.remote_files import HttpFile, S3Object
from tuneyard_api.tracking import ResolvedTracking

SCHEMA_VERSION = 1
CONTAINER = "trainer"
COMMAND = ("tuneyard-trainer", "stage")
UNPUBLISH = ("tuneyard-trainer", "unpublish")
"""The command that, with `--uid <uid> <registry>/<name>`, removes what the FineTuneJob of that uid published there. No stage: neither job.json
nor workspace is there any more, and the termination message is one sentence for people."""

CA_FOLDER = "/etc/tuneyard-ca"
CA_FILE = f"{CA_FOLDER}/ca.crt"
"""File with the authorities of the runtime's `caBundle`, as PEM."""
CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE")
"""Variables that name this file to libraries that download: OpenSSL and httpx, requests, curl, botocore."""

JOB_DIR = "/etc/tuneyard"
JOB_FILE = "/etc/tuneyard/job.json"
WORKSPACE_DIR = "/workspace"
SOURCES_DIR = "/sources"
"""Claims of model, adapter and data appear under /sources/{model,adapter,training,validation,test}."""
REGISTRY_DIR = "/registry"
MODEL_CACHE_DIR = "/model-cache"
TERMINATION_LOG = "/dev/termination-log"
MAX_RESULT_BYTES = 4096
MAX_MESSAGE, MAX_LAST_LINES = 1500, 1500
"""Longest message of a failure, and most of the end of its log, in characters."""
PROGRESS_PORT, PROGRESS_PORT_NAME = 9470, "progress"
"""GET /progress: Progress as JSON; GET /metrics: Prometheus text. Live and best effort."""

ENV_JOB_FILE, ENV_WORKSPACE, ENV_ATTEMPT = "TUNEYARD_JOB_FILE", "TUNEYARD_WORKSPACE", "TUNEYARD_ATTEMPT"
ENV_TERMINATION_LOG, ENV_PORT = "TUNEYARD_TERMINATION_LOG", "TUNEYARD_PORT"
ENV_MICRO_BATCH = "TUNEYARD_MICRO_BATCH_SIZE"
"""Set only in a training pod, where the micro batch is not that of job.json, which is frozen: it was chosen when the model was
known, or an attempt ran out of memory."""
ENV_GRADIENT_CHECKPOINTING = "TUNEYARD_GRADIENT_CHECKPOINTING"
"""`true` or `false`, likewise."""
ENV_HUB_TOKEN = "HF_TOKEN"  # noqa: S105  the name of a variable
"""Only in the prepare pod, as the next ones. Training processes find torchrun's PET_NNODES, PET_NPROC_PER_NODE, PET_NODE_RANK,
PET_MASTER_ADDR and PET_MASTER_PORT in their environment."""
ENV_S3 = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
"""Credentials of S3. The keys of the job's Secret have the same names; the last one is optional."""

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ADAPTER_FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)
"""What PEFT, NIM and vLLM read of an adapter: `<registry>/<adapter>/` holds both."""


class Stage(StrEnum):
    """The pods of a job, in order."""

    PREPARE = "prepare"
    TRAIN = "train"
    PUBLISH = "publish"


GRACE_SECONDS: dict[Stage, int] = {Stage.PREPARE: 30, Stage.TRAIN: 120, Stage.PUBLISH: 30}
"""Seconds between SIGTERM and SIGKILL of each stage's pod, in which a training writes a checkpoint."""


class FailureClass(StrEnum):
    """Why a stage failed, and therefore who can fix it."""

    BAD_INPUT = "BadInput"
    DATA_MISSING = "DataMissing"
    MODEL_MISSING = "ModelMissing"
    PERMISSION_DENIED = "PermissionDenied"
    ACCELERATOR_MISSING = "AcceleratorMissing"
    OUT_OF_MEMORY = "OutOfMemory"
    NON_FINITE_LOSS = "NonFiniteLoss"
    DISK_FULL = "DiskFull"
    ADAPTER_CONFLICT = "AdapterConflict"
    INTERRUPTED = "Interrupted"
    UPSTREAM = "UpstreamUnavailable"
    HUNG = "Hung"
    GATE_FAILED = "GateFailed"
    BUG = "InternalError"


EXIT_CODES: dict[FailureClass, int] = {
    FailureClass.BUG: 1,
    FailureClass.BAD_INPUT: 10,
    FailureClass.DATA_MISSING: 11,
    FailureClass.MODEL_MISSING: 12,
    FailureClass.PERMISSION_DENIED: 13,
    FailureClass.ACCELERATOR_MISSING: 14,
    FailureClass.OUT_OF_MEMORY: 15,
    FailureClass.NON_FINITE_LOSS: 16,
    FailureClass.DISK_FULL: 17,
    FailureClass.ADAPTER_CONFLICT: 18,
    FailureClass.UPSTREAM: 19,
    FailureClass.INTERRUPTED: 20,
    FailureClass.HUNG: 21,
    FailureClass.GATE_FAILED: 22,
}
RETRIED: dict[FailureClass, str] = {
    FailureClass.INTERRUPTED: "from the last checkpoint, within retry.maxInterruptions",
    FailureClass.UPSTREAM: "within retry.maxAttempts",
    FailureClass.HUNG: "from the last checkpoint, within retry.maxAttempts",
    FailureClass.OUT_OF_MEMORY: "training: with a smaller micro batch, until it is 1",
}
"""Classes whose stage is started again, and how. All others would fail in the same way again."""


class ResolvedSource(Contract):
    """A model or a split: a repository of a hub or Data Store, a path that the pod can read, an object in a bucket, or a URL."""

    repo: str | None = None
    revision: str | None = None
    path: str | None = None
    """File inside the repository of a data set when `repo` is set; absolute path in the pod otherwise."""
    s3: S3Object | None = None
    http: HttpFile | None = None
    data_store: str | None = None
    """Address of the NeMo Data Store that has `repo`, without /v1; absent: a hub has it."""


class ResolvedAdapter(Contract):
    """An adapter to train on."""

    path: str
    """Absolute path in the prepare pod."""
    must_match_lora: bool
    """Whether the job sets `lora` options. If so, an adapter with other options is refused; otherwise the adapter's apply."""


class ResolvedDataset(Contract):
    """The data with its rules filled in."""

    training: ResolvedSource
    validation: ResolvedSource | None
    validation_fraction: float
    """0 when `validation` is given."""
    test: ResolvedSource | None
    format: DataFormat
    template: Template | None
    loss_on: Literal["completion", "all"]


class ResolvedTraining(Contract):
    """The optimisation with every number decided: global = micro * data parallel * accumulation."""

    epochs: float | None
    max_steps: int | None
    learning_rate: float
    schedule: Literal["cosine", "linear", "constant"]
    warmup_steps: int
    weight_decay: float
    max_grad_norm: float
    global_batch_size: int
    micro_batch_size: int
    data_parallel: int
    gradient_accumulation: int
    max_sequence_length: int
    packing: bool
    precision: Literal["auto", "bf16", "fp32"]
    gradient_checkpointing: bool
    seed: int
    early_stopping: EarlyStopping | None = None


class ResolvedRuntime(Contract):
    """What the pod must know of its runtime."""

    name: str
    accelerator: Literal["nvidia", "none"]
    precisions: tuple[Literal["bf16", "fp32"], ...]
    model_families: tuple[str, ...]
    trust_remote_code: bool
    """True only if the job asked and the runtime allows."""


class ResolvedJob(Contract):
    """job.json: everything a pod needs, with nothing left to decide."""

    schema_version: Literal[1] = 1
    name: str
    namespace: str
    uid: str
    runtime: ResolvedRuntime
    model: ResolvedSource
    dataset: ResolvedDataset
    adapter: ResolvedAdapter | None = None
    quantization: Literal["nf4", "int8", "fp8"] | None = None
    """Quantization of the frozen base model."""
    method: str
    lora: Lora
    dpo: Dpo | None = None
    """Options of method dpo."""
    p_tuning: PTuning | None = None
    """Options of method pTuning."""
    training: ResolvedTraining
    nodes: int = 1
    gpus_per_node: int = 1
    checkpoint: Checkpoint
    evaluation: Evaluation
    benchmarks_path: str | None = None
    """Absolute path in the prepare pod of the folder with the files of evaluation.benchmarks; absent: there are none."""
    adapter_name: str
    replace: bool = False
    """Whether a name that stands for another version may stand for this one."""
    trial: Trial = Trial()
    registry_path: str | None = None
    """Absolute path of the registry in the publish pod; absent: it is elsewhere."""
    registry_s3: S3Prefix | None = None
    """The registry in S3; absent: it is elsewhere."""
    registry_data_store: ResolvedDataStore | None = None
    """The registry in a NeMo Data Store; absent: it is elsewhere."""
    retention: RegistryRetention | None = None
    """Earlier versions of the name that the registry keeps; absent: all."""
    data_store: str | None = None
    """NeMo Data Store, without /v1, to which prepare uploads the records for a service that trains; absent: pods train."""
    tracking: ResolvedTracking | None = None
    """Where training and publish write the record of the job; absent: nowhere. The plan's digest leaves it out."""

    @property
    def uploads_to(self) -> str:
        """The repository of the records in the Data Store, `namespace/name`."""
        return f"{self.namespace}/{names.dataset_name(self.name, self.uid)}"

    @property
    def kind(self) -> Method:
        """The method, and what it leaves behind."""
        return method_of(self.method, dora=self.lora.dora)


class Failure(Tolerant):
    """A failure: one sentence for people, and a class for machines."""

    failure_class: FailureClass
    message: Annotated[str, Field(max_length=MAX_MESSAGE)]
    """What is wrong, with file:line:column where it applies, and what to try."""
    last_lines: Annotated[str, Field(max_length=MAX_LAST_LINES)] | None = None
    """End of the log, which goes with its pod."""


class StageResult(Tolerant):
    """The result that a stage writes when it ends; at most MAX_RESULT_BYTES as JSON."""

    schema_version: Literal[1] = 1
    stage: Stage
    outcome: Literal["Succeeded", "Failed"]
    plan_digest: str
    """Digest of the job.json that the result belongs to."""
    failure: Failure | None = None
    facts: dict[str, JsonValue] = Field(default_factory=dict)
    """PrepareFacts, TrainFacts or PublishFacts as JSON."""
    times: PhaseTimes | None = None
    """Absent: the image does not measure them."""


class PrepareFacts(Tolerant):
    """What prepare found."""

    model_revision: str | None = None
    """Commit of a hub model."""
    model_type: str
    train_records: int
    validation_records: int
    test_records: int
    train_sequences: int
    """Number of sequences after packing."""
    train_tokens: int
    learned_tokens: int
    """Number of tokens that count in the loss."""
    truncated_records: int
    duplicate_records: int = 0
    """Number of training records that repeat an earlier one word for word."""
    leaked_records: int = 0
    """Number of validation and test records that are also in the training data, exactly or in another spelling."""
    personal_data_hints: int = 0
    """Number of places that look like e-mail addresses, phone numbers, card numbers or keys; see prepare-report.json."""
    dataset_digest: str
    model: ModelShape | None = None
    """Sizes of the model, from which memory and time are forecast; absent where its files do not tell them."""
    longest_sequence: int | None = None
    """Tokens of the longest training sequence."""
    warnings: tuple[str, ...] = ()


class TrainFacts(Tolerant):
    """What training did."""

    steps: int
    epochs: float
    final_loss: float
    """Training loss of the last step."""
    validation_loss: float | None = None
    """Validation loss of the published checkpoint."""
    best_step: int | None = None
    """The step whose checkpoint is published, if it is not the last."""
    stopped_early: bool = False
    trained_tokens: int
    tokens_per_second: float
    seconds: float
    peak_memory_bytes: int
    """Peak memory of the process that needed most."""
    path: Literal["fast", "plain"] = "plain"
    """How the losses were computed: written out and compiled, or by transformers and PEFT."""
    path_reason: str | None = None
    """Why it was the plain path."""
    processes: int = 1
    resumed_from_step: int = 0
    warnings: tuple[str, ...] = ()
    """Warnings, for example about checkpoints that could not be used."""
    evaluation: EvaluationFacts | None = None


class PublishFacts(Tolerant):
    """What was published."""

    adapter_name: str
    digest: str
    """`sha256:` over names and contents of the files of the adapter or model."""
    path: str
    size_bytes: int
    tracking: str | None = None
    """Address of the job's run in the tracker, for a browser."""
    warnings: tuple[str, ...] = ()
    """What went wrong beside the publication, such as a tracker that could not be reached."""


class TrainingMeasures(Tolerant):
    """What a training has measured so far, over all its attempts."""

    validation_loss: float | None = None
    """Lowest validation loss so far, or the latest with `checkpoint.publish: last`; nats per learned token."""
    best_step: int | None = None
    """Optimizer step of that validation loss; its checkpoint is published if no later step is better."""
    trained_tokens: int | None = None
    """Tokens of all optimizer steps so far; absent, as the speed: a service trains, which does not say it."""
    tokens_per_second: float | None = None
    """Mean speed so far, over all GPUs; time for validation and checkpoints counts."""
    peak_memory_bytes: int | None = None
    """Peak memory of one GPU, or of one process where there is no GPU: of the first one until the training ends, then of the one
    that needed most."""


class Progress(Tolerant):
    """Answer of GET /progress."""

    stage: Stage
    phase: Literal[
        "loading", "preparing", "compiling", "training", "evaluating", "publishing", "checkpointing", "done"
    ]
    step: int = 0
    of: int = 0
    loss: float | None = None
    tokens_per_second: float | None = None
    eta_seconds: int | None = None
    step_seconds: float | None = None
    """Median of the latest optimizer steps; lets the operator tell a hang from a slow step."""
    times: PhaseTimes | None = None
    """Absent: the image does not measure them."""
    training: TrainingMeasures | None = None
    tracking: str | None = None
    """Address of the job's run in the tracker, as soon as it is known."""
