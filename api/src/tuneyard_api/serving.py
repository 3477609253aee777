# SPDX-License-Identifier: Apache-2.0
"""The served models and their addresses, and which of them can take the adapter of a job.

An adapter belongs to one base model. So a job is matched by its base and never sent to another one's server.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tuneyard_api import job_rules
from tuneyard_api.base import HUB_REPO, REVISION, BaseUrl, Contract, Label, Rule
from tuneyard_api.job import FineTuneJob, Serve
from tuneyard_api.job_inputs import ModelSource
from tuneyard_api.places import ClaimSource

ServerKind = Literal["vllm", "nim", "openai"]
"""Kinds of servers of adapters."""


class ServedRepository(Contract):
    """A repository on a Hugging Face hub."""

    repo: Annotated[str, Field(min_length=1, max_length=200, pattern=HUB_REPO)]
    """`owner/name`."""
    revision: Annotated[str, Field(min_length=1, max_length=200, pattern=REVISION)]
    """Commit or tag that is served."""


class ServedBase(Contract):
    """The base model of a server, as a job names it: exactly one of the sources."""

    rules: ClassVar[tuple[Rule, ...]] = (job_rules.NO_MODEL, job_rules.TWO_MODELS)

    hugging_face: ServedRepository | None = None
    """A model repository."""
    pvc: ClaimSource | None = None
    """A folder on a claim of the job's namespace."""

    def __str__(self) -> str:
        """`Qwen/Qwen2.5-7B-Instruct at a09a354`, or `claim models, path tiny-llama`."""
        if self.hugging_face is not None:
            return f"{self.hugging_face.repo} at {self.hugging_face.revision}"
        return str(self.pvc)

    def is_base_of(self, model: ModelSource) -> bool:
        """Whether an adapter of `model` fits: the same repository and, if the job names one, the same revision."""
        if self.hugging_face is not None and model.hugging_face is not None:
            asked = model.hugging_face
            return asked.repo == self.hugging_face.repo and asked.revision in {
                None,
                self.hugging_face.revision,
            }
        return self.pvc is not None and self.pvc == model.pvc


class ServedModel(Contract):
    """One server of one base model, to which jobs of the runtime bring adapters."""

    name: Label
    """Name by which a job picks it in `serve.model`."""
    base: ServedBase
    """The base model."""
    endpoint: BaseUrl
    """Base URL of the server, without /v1. If it is a Service of the cluster, each ready replica is asked by its own address."""
    server: ServerKind
    """`vllm`: vLLM; `nim`: NVIDIA NIM for LLMs, which must be a 1.x where the registry is a Data Store; `openai`: any other
    OpenAI-compatible server."""
    listed_as: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """Name under which the server lists its base model; absent: the base is not asked for before training."""
    namespaces: Annotated[tuple[Label, ...], Field(max_length=64)] | None = None
    """Namespaces whose registry on a claim the server reads; absent: those of all namespaces, as with a registry in S3."""
    max_lora_rank: Annotated[int, Field(ge=1, le=512)] | None = None
    """Largest rank that the server takes; absent: any."""


def servers_of(job: FineTuneJob, served: Iterable[ServedModel]) -> tuple[ServedModel, ...]:
    """The servers that fit an adapter of `job` and read its registry, in the order of the runtime."""
    return tuple(
        each for each in served if each.base.is_base_of(job.spec.model) and reads_registry_of(job, each)
    )


def reads_registry_of(job: FineTuneJob, served: ServedModel) -> bool:
    """Whether the server reads the registry that the job publishes to."""
    return served.namespaces is None or job.metadata.namespace in served.namespaces


@dataclass(frozen=True)
class Destination:
    """The server that must answer with the adapter of a planned job."""

    endpoint: str
    server: ServerKind
    listed_as: str | None = None
    """Name of the base model on that server."""


def destination_of(job: FineTuneJob, served: Iterable[ServedModel]) -> Destination | None:
    """The server for an adapter of `job`; None if there is none, which `refusals` reports if needed."""
    serve = job.spec.serve or Serve()
    if serve.disabled:
        return None
    if serve.endpoint is not None:
        return Destination(serve.endpoint, "openai")
    model = served_by(job, served)
    return None if model is None else Destination(model.endpoint, model.server, model.listed_as)


def served_by(job: FineTuneJob, served: Iterable[ServedModel]) -> ServedModel | None:
    """The served model that the job names, or the first one of its base; None if the job wants none or none fits."""
    serve = job.spec.serve or Serve()
    if serve.disabled or serve.endpoint is not None:
        return None
    fitting = servers_of(job, served)
    return next((each for each in fitting if serve.model in {None, each.name}), None)


def base_words(model: ModelSource) -> str:
    """The name of a job's base model for messages."""
    if model.hugging_face is not None:
        hub = model.hugging_face
        return f"{hub.repo} at {hub.revision}" if hub.revision else hub.repo
    return str(model.pvc)
