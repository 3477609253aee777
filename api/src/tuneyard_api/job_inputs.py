# SPDX-License-Identifier: Apache-2.0
"""What a FineTuneJob starts from: the base model, an adapter to go on with, and the data."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tuneyard_api import job_rules
from tuneyard_api.base import HUB_REPO, REVISION, Contract, Label, Rule, VolumePath
from tuneyard_api.data_stores import DataStoreFile
from tuneyard_api.places import ClaimSource
from tuneyard_api.remote_files import HttpFile, S3File, SecretKey

DataFormat = Literal["auto", "chat", "promptCompletion", "text", "preference"]
"""What the columns of a data set mean; `auto`: the first training record decides."""


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
    """Branch, tag or commit; status records the commit that it resolved to. Absent: for a base model, the revision that
    a server of the runtime serves; otherwise `main`."""
    secret_ref: SecretKey | None = None
    """Token for a gated repository; only the prepare pod gets it."""


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
    """Continue training this adapter instead of a new one. It must fit the model and, if they are given, the options in `lora`."""
    quantization: Literal["nf4", "int8", "fp8"] | None = None
    """Quantize the frozen base model to 4 bits (QLoRA) or 8 bits; the runtime must support it. `fp8` also makes products in
    8 bits, on GPUs that have FP8: it saves time and no memory."""


class HuggingFaceFile(HuggingFaceSource):
    """Files of a data set repository."""

    path: VolumePath
    """File inside the repository, ending in .jsonl, .json, either with .gz, or .parquet."""


class DataSource(Contract):
    """Where one split of the data set comes from: exactly one of the sources."""

    rules: ClassVar[tuple[Rule, ...]] = (job_rules.NO_DATA, job_rules.TWO_DATA)

    hugging_face: HuggingFaceFile | None = None
    """A file of a data set repository."""
    pvc: ClaimSource | None = None
    """A .jsonl, .json (either may have .gz behind it) or .parquet file on a claim."""
    s3: S3File | None = None
    """A file in a bucket."""
    http: HttpFile | None = None
    """A file behind a URL."""
    data_store: DataStoreFile | None = None
    """A file of a data set in a NeMo Data Store."""


class Template(Contract):
    """Jinja2 templates that make prompt and completion from a record's columns. They are sandboxed; an unknown column is an error."""

    prompt: Annotated[str, Field(min_length=1, max_length=8192)]
    """For example `{{ question }}\\nAnswer:`."""
    completion: Annotated[str, Field(min_length=1, max_length=8192)]
    """For example ` {{ answer }}`."""


class Dataset(Contract):
    """The records that the model is trained on and measured on."""

    rules: ClassVar[tuple[Rule, ...]] = (job_rules.ONE_VALIDATION, job_rules.SOMETHING_TO_COMPARE_ON)

    training: DataSource
    """Records for the training."""
    validation: DataSource | None = None
    """Records on which the loss is measured during the training."""
    validation_fraction: Annotated[float, Field(ge=0.0, le=0.5)] | None = None
    """Share of the training records that is held out instead; 0.05 if both are absent."""
    test: DataSource | None = None
    """Records on which the base model and the tuned model are compared; absent: the validation records."""
    format: DataFormat = "auto"
    """`chat`: a `messages` list; `promptCompletion`: `prompt` and `completion`; `text`: `text`; `preference`:
    `prompt`, `chosen` and `rejected`, as strings or lists of messages, which method dpo has."""
    template: Template | None = None
    """Makes prompt and completion from other columns."""
    loss_on: Literal["completion", "all"] = "completion"
    """Which tokens count in the loss; in `text` records all of them do."""
