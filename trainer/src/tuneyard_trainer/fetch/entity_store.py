# SPDX-License-Identifier: Apache-2.0
"""Registers a model in a NeMo Entity Store, which a NIM 1.x lists its adapters from."""

from typing import Any
from urllib.parse import quote

from tuneyard_api.pod_contract import FailureClass

from tuneyard_trainer.fetch.data_store import bearer, hub_api
from tuneyard_trainer.fetch.hub import Host, answer_of

_NOT_FOUND, _THERE = 404, 409
_ADVICE = "try a secretRef with a token that the Entity Store takes, and that may register models"
_HOST = Host("the Entity Store", "entityStore of the registry says which", lambda _status, _error: _ADVICE)


def register_model(entity_store: str, model: dict[str, Any], token: str | None) -> None:
    """Makes the entity `model` (a body of POST /v1/models) and its namespace, if they are not there.

    Raises:
        StageFailure: ModelMissing, PermissionDenied or UpstreamUnavailable.
    """
    namespace, name = model["namespace"], model["name"]
    what = f"model {namespace}/{name} of the Entity Store {entity_store}"

    def ask() -> None:
        _ensure(entity_store, "namespaces", namespace, {"id": namespace}, token)
        _ensure(entity_store, "models", f"{namespace}/{name}", model, token)

    answer_of(what, FailureClass.MODEL_MISSING, ask, _HOST)


def _ensure(address: str, collection: str, place: str, body: dict[str, Any], token: str | None) -> None:
    from huggingface_hub.utils import get_session, hf_raise_for_status  # noqa: PLC0415  0.3 s

    url = f"{address.rstrip('/')}/v1/{collection}"
    with hub_api(address, token):
        found = get_session().get(f"{url}/{quote(place)}", headers=bearer(token))
        if found.status_code == _NOT_FOUND:
            found = get_session().post(url, json=body, headers=bearer(token))
        if found.status_code != _THERE:
            hf_raise_for_status(found)
