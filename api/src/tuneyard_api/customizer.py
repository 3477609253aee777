# SPDX-License-Identifier: Apache-2.0
"""A runtime whose training is carried by NVIDIA NeMo microservices (generation v1) instead of pods.

Only the prepare pod is ours there: it checks the records and uploads them. docs/adr/0012-jobs-carried-by-a-service.md has
the reasons.
"""

from typing import Annotated, Literal

from pydantic import Field

from tuneyard_api.base import Contract, HttpUrl
from tuneyard_api.job_inputs import ModelSource
from tuneyard_api.remote_files import SecretKey
from tuneyard_api.serving import ServedBase

TARGET = r"^[a-z0-9][a-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*(@[A-Za-z0-9][A-Za-z0-9._+-]*)?$"
MODEL_URI = r"^(hf|ngc)://[A-Za-z0-9][A-Za-z0-9._/-]*([:@][A-Za-z0-9][A-Za-z0-9._-]*)?$"


class NewTarget(Contract):
    """A customization target that is made when the Customizer does not have it."""

    model_uri: Annotated[str, Field(max_length=512, pattern=MODEL_URI)]
    """Where the Customizer downloads the model from, such as `ngc://nvidia/nemo/llama-3_2-1b-instruct:2.0`."""
    parameters: Annotated[int, Field(ge=1, le=10_000_000_000_000)]
    """Number of the model's parameters."""
    precision: Literal["bf16", "bf16-mixed", "fp16", "fp32"] | None = None
    """Precision of its weights; absent: bf16-mixed. It has no default, as Argo CD compares lists as a whole."""


class CustomizerModel(Contract):
    """A base model that the Customizer trains."""

    base: ServedBase
    """The model as a job names it; the prepare pod reads its tokenizer there."""
    target: Annotated[str, Field(max_length=256, pattern=TARGET)]
    """The Customizer's target, such as `meta/llama-3.2-1b-instruct@2.0`."""
    create: NewTarget | None = None
    """How the target is made if it is not there; absent: a missing target is waited for."""


class Customizer(Contract):
    """The services that a job of the runtime is carried by. Entities are in the NeMo namespace of the job's namespace."""

    endpoint: HttpUrl
    """Address of the Customizer, without /v1."""
    entity_store: HttpUrl
    """Address of the Entity Store, without /v1."""
    data_store: HttpUrl
    """Address of the Data Store, without /v1."""
    data_store_token: SecretKey | None = None
    """Token for uploads, which only the prepare pod gets; absent: the Data Store asks for none."""
    models: Annotated[tuple[CustomizerModel, ...], Field(min_length=1, max_length=32)]
    """Base models, the first that fits a job is trained."""

    def model_of(self, model: ModelSource) -> CustomizerModel | None:
        """The model that a job names, if the Customizer trains it."""
        return next((each for each in self.models if each.base.is_base_of(model)), None)
