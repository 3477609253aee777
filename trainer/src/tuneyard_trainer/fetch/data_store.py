# SPDX-License-Identifier: Apache-2.0
"""Reads from a NeMo Data Store and writes to it: it speaks the protocol of a Hugging Face hub below /v1/hf, with LFS.

The files of an upload are one commit, so that an upload that is cut leaves nothing, and another one begins anew.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tuneyard_api.pod_contract import FailureClass, ResolvedSource

from tuneyard_trainer.fetch.hub import Host, answer_of

_THERE = frozenset({409, 422})
"""What the Data Store answers to the creation of a namespace that it has."""
_NO_TOKEN = "none"  # noqa: S105  the client wants one, and a Data Store without tokens takes any
_TO_TRAIN = "customizer.dataStore of the runtime says which"
_TO_READ = "dataStore.endpoint of the data set says which"


def host_of(says_which: str) -> Host:
    """A Data Store, whose address is in the field that `says_which` names."""
    advice = "try a secretRef with a token that the Data Store takes, and that may do this"
    return Host("the Data Store", says_which, lambda _status, _error: advice)


@contextmanager
def hub_api(data_store: str, token: str | None) -> Iterator[Any]:
    """The hub's client (HfApi) for a Data Store.

    What is said of hubs outside, such as HF_HUB_OFFLINE, is not said of a Data Store.
    """
    from huggingface_hub import HfApi, constants  # noqa: PLC0415  0.3 s

    before = constants.HF_HUB_DISABLE_XET, constants.HF_HUB_OFFLINE
    constants.HF_HUB_DISABLE_XET = True  # The Data Store has LFS alone.
    constants.HF_HUB_OFFLINE = False
    hidden: BaseException | None = None
    try:
        yield HfApi(endpoint=f"{data_store.rstrip('/')}/v1/hf", token=token or _NO_TOKEN)
    except RuntimeError as error:
        if error.__cause__ is None:
            raise
        hidden = error.__cause__  # why something could not be sent by LFS
    finally:
        constants.HF_HUB_DISABLE_XET, constants.HF_HUB_OFFLINE = before
    if hidden is not None:
        raise hidden


def fetch_from_data_store(source: ResolvedSource, cache: Path, token: str | None) -> Path:
    """One file of a data set; `cache` keeps it by store and commit.

    Raises:
        StageFailure: DataMissing, PermissionDenied or UpstreamUnavailable.
    """
    store, repo, path = source.data_store or "", source.repo or "", source.path or ""
    # Names of a hub's repositories may be those of a Data Store's.
    folder = cache / f"data-store-{hashlib.sha256(store.encode()).hexdigest()[:12]}"
    what = f"data set {repo}@{source.revision} file {path} of the Data Store {store}"

    def ask() -> Any:
        with hub_api(store, token) as api:
            return api.hf_hub_download(
                repo, path, repo_type="dataset", revision=source.revision, cache_dir=folder
            )

    return Path(answer_of(what, FailureClass.DATA_MISSING, ask, host_of(_TO_READ)))


def upload_dataset(data_store: str, repo: str, folder: Path, token: str | None) -> str:
    """Puts the files of `folder` into the data set `namespace/name`; returns the commit.

    Raises:
        StageFailure: DataMissing, PermissionDenied or UpstreamUnavailable.
    """
    what = f"data set {repo} of the Data Store {data_store}"

    def upload() -> Any:
        make_repository(data_store, repo, "dataset", token)
        with hub_api(data_store, token) as api:
            return api.upload_folder(
                repo_id=repo, folder_path=folder, repo_type="dataset", commit_message="Records"
            )

    return str(answer_of(what, FailureClass.DATA_MISSING, partial(upload), host_of(_TO_TRAIN)).oid)


def make_repository(data_store: str, repo: str, kind: str, token: str | None) -> None:
    """A repository `namespace/name` of this kind (`dataset` or `model`) with its namespace, if they are not there.

    Raises:
        HfHubHTTPError: what the Data Store refuses; or an error of the way to it.
    """
    from huggingface_hub.utils import get_session, hf_raise_for_status  # noqa: PLC0415

    with hub_api(data_store, token) as api:
        url = f"{data_store.rstrip('/')}/v1/datastore/namespaces"
        response = get_session().post(url, data={"namespace": repo.partition("/")[0]}, headers=bearer(token))
        if response.status_code not in _THERE:
            hf_raise_for_status(response)
        api.create_repo(repo, repo_type=kind, exist_ok=True)


def bearer(token: str | None) -> dict[str, str]:
    """The header that carries a token."""
    return {"Authorization": f"Bearer {token or _NO_TOKEN}"}
