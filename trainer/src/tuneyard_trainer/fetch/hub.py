# SPDX-License-Identifier: Apache-2.0
"""Fetches from a Hugging Face hub, and explains its refusals in terms of the job.

HF_ENDPOINT and HF_TOKEN are read by huggingface_hub itself. It keeps what it downloads by commit, under a lock per
file, so that several prepare pods may share a cache.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from tuneyard_api.model_shape import INDEX, WEIGHTS, weight_files
from tuneyard_api.pod_contract import FailureClass, ResolvedSource
from tuneyard_api.problems import clip

from tuneyard_trainer.fetch.certificates import untrusted
from tuneyard_trainer.fetch.patience import patiently
from tuneyard_trainer.pod.failures import StageFailure

_SUFFIXES = (".json", ".jinja")
_CHUNK_BYTES = 2**20
"""What is lost at most where a connection breaks: the library resumes behind its last whole chunk, else of 10 MiB."""
_AT_ONCE = 4

_Answer = TypeVar("_Answer")
Missing = Literal[FailureClass.MODEL_MISSING, FailureClass.DATA_MISSING]


def fetch_model(
    source: ResolvedSource, cache: Path, *, with_weights: bool = True
) -> tuple[Path, str, list[str]]:
    """Folder of a model repository, its commit, and the names of all files that the hub has.

    Only what transformers reads is downloaded: never pickled weights, Python, or the weights once more in another format.

    Raises:
        StageFailure: ModelMissing, PermissionDenied or UpstreamUnavailable.
    """
    from huggingface_hub import HfApi  # noqa: PLC0415  0.3 s

    repo = source.repo or ""
    what = f"model {repo}@{source.revision}"
    missing: Missing = FailureClass.MODEL_MISSING
    information = answer_of(what, missing, partial(HfApi().model_info, repo, revision=source.revision))
    names = [sibling.rfilename for sibling in information.siblings or []]
    commit = information.sha
    if commit is None:
        raise StageFailure(
            FailureClass.UPSTREAM, f"{what}: the hub names no commit; HF_ENDPOINT says which hub"
        )

    def fetch(name: str) -> Path:
        return _fetch_file(f"{what} file {name}", missing, repo, name, commit, cache)

    chosen = [name for name in names if _is_read(name)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        fetched = dict(zip(chosen, pool.map(fetch, chosen), strict=True))
        wanted = _weights_among(names, fetched.get(INDEX)) if with_weights else []
        weights = list(pool.map(fetch, wanted))
    folder = next((path.parent for name, path in fetched.items() if "/" not in name), None)
    if folder is None and not weights:
        raise StageFailure(missing, f"{what}: the repository has no file of a model")
    return folder or weights[0].parent, commit, names


def _is_read(name: str) -> bool:
    """Whether a file beside the weights is read: of the repository's own folder, or a chat template of another name."""
    folder, _, file = name.rpartition("/")
    if folder:
        return folder == "additional_chat_templates" and file.endswith(".jinja")
    return file.endswith(_SUFFIXES) or file == "README.md" or file.startswith("LICENSE")


def _weights_among(names: Iterable[str], index: Path | None) -> list[str]:
    """The files of weights that are read: those that the index names, else the one of the usual name, else all."""
    known = [name for name in names if "/" not in name and name.endswith(".safetensors")]
    if index is None:
        return [WEIGHTS] if WEIGHTS in known else known
    try:
        named = weight_files(index.read_text(encoding="utf-8"))
    except ValueError:  # ShapeUnknownError is one, and so is a file that is not UTF-8
        return known  # what reads the model says what is wrong with its index
    return [name for name in known if name in named]


def fetch_data_file(source: ResolvedSource, cache: Path) -> Path:
    """One file of a data set repository.

    Raises:
        StageFailure: DataMissing, PermissionDenied or UpstreamUnavailable.
    """
    repo, path = source.repo or "", source.path or ""
    what = f"data set {repo}@{source.revision} file {path}"
    return _fetch_file(what, FailureClass.DATA_MISSING, repo, path, source.revision, cache, "dataset")


def _fetch_file(  # noqa: PLR0917  what a file of the hub is named by
    what: str,
    missing: Missing,
    repo: str,
    name: str,
    revision: str | None,
    cache: Path,
    kind: str = "model",
) -> Path:
    from huggingface_hub import constants, hf_hub_download  # noqa: PLC0415

    constants.DOWNLOAD_CHUNK_SIZE = _CHUNK_BYTES
    ask = partial(hf_hub_download, repo, name, repo_type=kind, revision=revision, cache_dir=cache)
    return Path(answer_of(what, missing, ask))


@dataclass(frozen=True)
class Host:
    """A server that speaks the protocol of a hub, for the sentences about it."""

    name: str
    """Such as `the hub`."""
    says_which: str
    """Where its address comes from."""
    why_denied: Callable[[int, Exception], str]
    """What to try after an answer 401 or 403."""


def answer_of(what: str, missing: Missing, ask: Callable[[], _Answer], host: Host | None = None) -> _Answer:
    """The answer of `host` (None: the hub), which is asked again by the rule of `patiently`.

    Raises:
        StageFailure: of the last try.
    """

    def explained() -> _Answer:
        with _hub_errors(what, missing, host or HUB):
            return ask()

    return patiently(explained)


@contextmanager
def _hub_errors(what: str, missing: Missing, host: Host) -> Iterator[None]:
    from huggingface_hub import errors  # noqa: PLC0415

    try:
        yield
    except errors.HfHubHTTPError as error:
        raise _refused(what, missing, _status_of(error), error, host) from error
    except errors.LocalEntryNotFoundError as error:
        # So the library calls every answer to its question about a file, whatever the hub's reason was.
        if isinstance(error.__cause__, errors.HfHubHTTPError):
            cause = error.__cause__
            raise _refused(what, missing, _status_of(cause), cause, host) from cause
        raise _unreachable(what, error, host) from error
    except (errors.HTTPError, ConnectionError, TimeoutError) as error:
        raise _unreachable(what, error, host) from error
    except errors.HFValidationError as error:
        raise StageFailure(missing, f"{what}: {error}") from error
    except OSError as error:
        if error.errno is not None:
            raise  # of this machine, such as a full disk
        raise StageFailure(
            FailureClass.UPSTREAM, f"{what}: {clip(str(error).partition(chr(10))[0], 500)}"
        ) from error
    except (ValueError, TypeError, KeyError) as error:
        said = f"{type(error).__name__}: {error}"
        raise StageFailure(
            FailureClass.UPSTREAM,
            f"{what}: the answer is none of a hub: {clip(said, 300)}; {host.says_which}",
        ) from error


def _unreachable(what: str, error: Exception, host: Host) -> StageFailure:
    return untrusted(what, error) or StageFailure(
        FailureClass.UPSTREAM,
        f"{what}: {host.name} can't be reached: {clip(str(error), 500)}; {host.says_which}",
    )


def _status_of(error: Any) -> int | None:
    return error.response.status_code if error.response is not None else None


def _refused(
    what: str, missing: FailureClass, status: int | None, error: Exception, host: Host
) -> StageFailure:
    said = f"{what}: {host.name} answers {status}"
    if status in {401, 403}:
        return StageFailure(FailureClass.PERMISSION_DENIED, f"{said}: {host.why_denied(status, error)}")
    if status == 404:  # noqa: PLR2004  not found
        return StageFailure(missing, f"{said}: {_kind_of_404(error)}")
    if status is not None and status < 500 and status not in {408, 429}:  # noqa: PLR2004
        return StageFailure(missing, f"{said}: {clip(str(error), 500)}")
    return StageFailure(FailureClass.UPSTREAM, f"{said}: {clip(str(error), 500)}")


def _why_denied(status: int, error: Exception) -> str:
    from huggingface_hub import errors, get_token  # noqa: PLC0415

    if isinstance(error, errors.GatedRepoError):
        return (
            "the repository is gated; accept its terms on the hub, and try a secretRef with a token of the account that"
            " did, which may read gated repositories"
        )
    is_unknown = isinstance(error, errors.RepositoryNotFoundError)
    if status == 401 and get_token() and not is_unknown:  # noqa: PLR2004  not authenticated
        return "the token is not valid, or has expired; make a new one on the hub, and put it into the Secret of secretRef"
    return (
        "it is private or gated, or does not exist; try a secretRef with a token that may read it, and accept its terms"
        " on the hub"
    )


HUB = Host("the hub", "HF_ENDPOINT says which", _why_denied)


def _kind_of_404(error: Exception) -> str:
    from huggingface_hub import errors  # noqa: PLC0415

    if isinstance(error, errors.RevisionNotFoundError):
        return "there is no such revision; try main, or a commit"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return "the repository has no such file; try its path inside the repository"
    return "there is no such repository; try its full name, as owner/name"
