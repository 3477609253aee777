# SPDX-License-Identifier: Apache-2.0
"""Fetches from a Hugging Face hub, and explains its refusals in terms of the job.

HF_ENDPOINT and HF_TOKEN are read by huggingface_hub itself. It keeps what it downloads by commit, under a lock per
file, so that several prepare pods may share a cache.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from tuneyard_api.pod_contract import FailureClass, ResolvedSource
from tuneyard_api.problems import clip

from tuneyard_trainer.pod.failures import StageFailure

_MODEL_FILES = ["*.safetensors", "*.json", "*.jinja", "README.md", "LICENSE*"]
"""Files that are downloaded: never pickled weights, never Python."""


def fetch_model(source: ResolvedSource, cache: Path) -> tuple[Path, str, list[str]]:
    """Folder of a model repository, its commit, and the names of all files that the hub has.

    Raises:
        StageFailure: ModelMissing, PermissionDenied or UpstreamUnavailable.
    """
    from huggingface_hub import HfApi, snapshot_download  # noqa: PLC0415  0.3 s

    repo = source.repo or ""
    with _hub_errors(f"model {repo}@{source.revision}", FailureClass.MODEL_MISSING):
        information = HfApi().model_info(repo, revision=source.revision)
        names = [sibling.rfilename for sibling in information.siblings or []]
        commit = str(information.sha)
        folder = snapshot_download(repo, revision=commit, cache_dir=cache, allow_patterns=_MODEL_FILES)
    return Path(folder), commit, names


def fetch_data_file(source: ResolvedSource, cache: Path) -> Path:
    """One file of a data set repository.

    Raises:
        StageFailure: DataMissing, PermissionDenied or UpstreamUnavailable.
    """
    from huggingface_hub import hf_hub_download  # noqa: PLC0415

    repo, path = source.repo or "", source.path or ""
    with _hub_errors(f"data set {repo}@{source.revision} file {path}", FailureClass.DATA_MISSING):
        return Path(
            hf_hub_download(repo, path, repo_type="dataset", revision=source.revision, cache_dir=cache)
        )


@contextmanager
def _hub_errors(
    what: str, missing: Literal[FailureClass.MODEL_MISSING, FailureClass.DATA_MISSING]
) -> Iterator[None]:
    from huggingface_hub import errors  # noqa: PLC0415

    try:
        yield
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        raise _refused(what, missing, status, error) from error
    except (errors.LocalEntryNotFoundError, errors.HTTPError, ConnectionError, TimeoutError) as error:
        raise StageFailure(
            FailureClass.UPSTREAM,
            f"{what}: the hub can't be reached: {clip(str(error), 500)}; HF_ENDPOINT says which",
        ) from error
    except errors.HFValidationError as error:
        raise StageFailure(missing, f"{what}: {error}") from error


def _refused(what: str, missing: FailureClass, status: int | None, error: Exception) -> StageFailure:
    if status in {401, 403}:
        return StageFailure(
            FailureClass.PERMISSION_DENIED,
            f"{what}: the hub answers {status}: it is private or gated, or does not exist; try a secretRef with a token"
            " that may read it, and accept its terms on the hub",
        )
    if status == 404:  # noqa: PLR2004  not found
        return StageFailure(missing, f"{what}: the hub answers 404: {_kind_of_404(error)}")
    if status is not None and status < 500 and status != 429:  # noqa: PLR2004
        return StageFailure(missing, f"{what}: the hub answers {status}: {clip(str(error), 500)}")
    return StageFailure(FailureClass.UPSTREAM, f"{what}: the hub answers {status}: {clip(str(error), 500)}")


def _kind_of_404(error: Exception) -> str:
    from huggingface_hub import errors  # noqa: PLC0415

    if isinstance(error, errors.RevisionNotFoundError):
        return "there is no such revision; try main, or a commit"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return "the repository has no such file; try its path inside the repository"
    return "there is no such repository; try owner/name as the hub writes it"
