# SPDX-License-Identifier: Apache-2.0
"""Resolves the sources of model, adapter and data for the pods: paths under claims, repositories, objects, URLs."""

from collections.abc import Iterable

from tuneyard_api import pod_contract as pod
from tuneyard_api.data_stores import DataStoreFile
from tuneyard_api.job import FineTuneJob
from tuneyard_api.job_inputs import DataSource, HuggingFaceSource, ModelSource
from tuneyard_api.places import ClaimSource, Registry
from tuneyard_api.remote_files import S3Object, SecretKey


def splits(job: FineTuneJob) -> Iterable[tuple[str, DataSource]]:
    """The splits that the job names, the training data first."""
    dataset = job.spec.dataset
    for name, source in (
        ("training", dataset.training),
        ("validation", dataset.validation),
        ("test", dataset.test),
    ):
        if source is not None:
            yield name, source


def hub_sources(job: FineTuneJob) -> list[tuple[str, HuggingFaceSource]]:
    """Every repository of a hub that the job names under its path, the model's first."""
    sources = [("spec.model", job.spec.model.hugging_face)]
    sources += [(f"spec.dataset.{name}", split.hugging_face) for name, split in splits(job)]
    return [(f"{path}.huggingFace", hub) for path, hub in sources if hub is not None]


def store_files(job: FineTuneJob) -> list[tuple[str, DataStoreFile]]:
    """Every file of a Data Store that the job names under its path, the training data first."""
    return [
        (f"spec.dataset.{name}.dataStore", split.data_store)
        for name, split in splits(job)
        if split.data_store is not None
    ]


def data_stores(job: FineTuneJob) -> list[tuple[str, str]]:
    """The address of the Data Store of each of those files, under its path."""
    return [(f"{path}.endpoint", file.endpoint.rstrip("/")) for path, file in store_files(job)]


def store_tokens(job: FineTuneJob) -> list[tuple[str, SecretKey]]:
    """Every secretRef of those files under its path."""
    return [(f"{path}.secretRef", file.secret_ref) for path, file in store_files(job) if file.secret_ref]


def hub_tokens(job: FineTuneJob) -> list[tuple[str, SecretKey]]:
    """Every secretRef of the job under its path, the model's first."""
    return [(f"{path}.secretRef", hub.secret_ref) for path, hub in hub_sources(job) if hub.secret_ref]


def s3_secrets(job: FineTuneJob) -> list[tuple[str, str]]:
    """Every Secret for S3 under the path of its source."""
    return [
        (f"spec.dataset.{name}.s3.secretRef", split.s3.secret_ref.name)
        for name, split in splits(job)
        if split.s3 is not None and split.s3.secret_ref is not None
    ]


def inside(folder: str, claim: ClaimSource) -> str:
    """The path of a claim that is mounted at `folder`."""
    return f"{folder}/{claim.path}" if claim.path else folder


def resolved_source(role: str, source: ModelSource | DataSource) -> pod.ResolvedSource:
    """The source for a pod, without names of Secrets; `role` is the folder of a claim below SOURCES_DIR."""
    if source.pvc is not None:
        return pod.ResolvedSource(path=inside(f"{pod.SOURCES_DIR}/{role}", source.pvc))
    if isinstance(source, DataSource) and source.s3 is not None:
        return pod.ResolvedSource(s3=S3Object(**source.s3.model_dump(by_alias=False, exclude={"secret_ref"})))
    if isinstance(source, DataSource) and source.http is not None:
        return pod.ResolvedSource(http=source.http)
    if isinstance(source, DataSource) and source.data_store is not None:
        file = source.data_store
        return pod.ResolvedSource(
            data_store=file.endpoint, repo=file.repo, revision=file.revision, path=file.path
        )
    hub = source.hugging_face
    if hub is None:
        raise AssertionError(f"{role} has no source, which its model does not allow")
    return pod.ResolvedSource(repo=hub.repo, revision=hub.revision, path=getattr(hub, "path", None))


def resolved_adapter(job: FineTuneJob, registry: Registry) -> pod.ResolvedAdapter | None:
    """The adapter to train on for the prepare pod, if there is one."""
    claim = adapter_claim(job, registry)
    if claim is None:
        return None
    path = inside(f"{pod.SOURCES_DIR}/adapter", claim)
    return pod.ResolvedAdapter(path=path, must_match_lora=job.spec.lora is not None)


def adapter_claim(job: FineTuneJob, registry: Registry) -> ClaimSource | None:
    """The folder of the adapter that is trained on: one that was published lies in the registry."""
    adapter = job.spec.model.adapter
    if adapter is None or adapter.published is None or not isinstance(registry, ClaimSource):
        return None if adapter is None else adapter.pvc
    folder = f"{registry.path}/{adapter.published}" if registry.path else adapter.published
    return ClaimSource(claim_name=registry.claim_name, path=folder)
