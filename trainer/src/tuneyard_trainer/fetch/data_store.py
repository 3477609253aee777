# SPDX-License-Identifier: Apache-2.0
"""Uploads a folder to a NeMo Data Store, which speaks the protocol of a Hugging Face hub.

All files are one commit, so that an upload that is cut leaves nothing, and another one begins anew.
"""

from functools import partial
from pathlib import Path
from typing import Any

from tuneyard_api.pod_contract import FailureClass

from tuneyard_trainer.fetch.hub import answer_of

_THERE = frozenset({409, 422})
"""What the Data Store answers to the creation of a namespace that it has."""
_NO_TOKEN = "none"  # noqa: S105  the client wants one, and a Data Store without tokens takes any
_ADVICE = "customizer.dataStore of the runtime says which"


def upload_dataset(data_store: str, repo: str, folder: Path, token: str | None) -> str:
    """Puts the files of `folder` into the data set `namespace/name`; returns the commit.

    Raises:
        StageFailure: DataMissing, PermissionDenied or UpstreamUnavailable.
    """
    from huggingface_hub import HfApi, constants  # noqa: PLC0415  0.3 s

    constants.HF_HUB_DISABLE_XET = True  # The Data Store has LFS alone.
    constants.HF_HUB_OFFLINE = False  # That is said of hubs outside, and all of them have been asked.
    api = HfApi(endpoint=f"{data_store.rstrip('/')}/v1/hf", token=token or _NO_TOKEN)
    what = f"data set {repo} of the Data Store {data_store}"

    def upload() -> Any:
        _make_namespace(data_store, repo.partition("/")[0], token)
        api.create_repo(repo, repo_type="dataset", exist_ok=True)
        return api.upload_folder(
            repo_id=repo, folder_path=folder, repo_type="dataset", commit_message="Records"
        )

    return str(answer_of(what, FailureClass.DATA_MISSING, partial(upload), _ADVICE).oid)


def _make_namespace(data_store: str, namespace: str, token: str | None) -> None:
    from huggingface_hub.utils import get_session, hf_raise_for_status  # noqa: PLC0415

    headers = {"Authorization": f"Bearer {token or _NO_TOKEN}"}
    url = f"{data_store.rstrip('/')}/v1/datastore/namespaces"
    response = get_session().post(url, data={"namespace": namespace}, headers=headers)
    if response.status_code not in _THERE:
        hf_raise_for_status(response)
