# SPDX-License-Identifier: Apache-2.0
"""NVIDIA NeMo microservices, generation v1: Entity Store, Customizer and Data Store over HTTP.

No call is repeated here: a pass that meets trouble is made again, and asks what is there before it starts anything.
Every status code has a reason (`trouble_of`), and what a service answers is repeated without the token.
"""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tuneyard_api import reasons
from tuneyard_api.customizer import Customizer

from tuneyard_operator.domain.customizations import (
    CustomizationState,
    Entity,
    Order,
    SeenCustomization,
    SeenOutput,
    ServiceTrouble,
)
from tuneyard_operator.ports import ServiceError

_PAGE_SIZE = 100
_MOST_PAGES = 100
_EXCERPT = 500
_OK, _CREATED, _BAD_REQUEST, _DENIED, _FORBIDDEN, _NOT_FOUND = 200, 201, 400, 401, 403, 404
_CONFLICT, _UNPROCESSABLE, _TIMEOUT, _TOO_MANY, _SERVER_ERROR = 409, 422, 408, 429, 500
_STATES: Mapping[str, CustomizationState] = {
    "created": "waiting",
    "pending": "waiting",
    "running": "running",
    "cancelling": "cancelling",
    "cancelled": "cancelled",
    "failed": "failed",
    "completed": "completed",
    "ready": "completed",
}


class Answer(BaseModel):
    """What a service answered; `unreachable` says why there was no answer."""

    model_config = ConfigDict(frozen=True)

    status: int = 0
    body: bytes = b""
    retry_after: float | None = None
    unreachable: str = ""


Call = Callable[[str, str, Any], Awaitable[Answer]]
"""Sends method, URL and JSON body (or None); never raises."""


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Log(_Lenient):
    message: str | None = None
    detail: str | None = None


class _Point(_Lenient):
    value: float | None = None


class _Values(_Lenient):
    train_loss: list[_Point] | None = None


class _Metrics(_Lenient):
    metrics: _Values | None = None


class _Details(_Lenient):
    steps_completed: int | None = None
    steps_per_epoch: int | None = None
    percentage_done: float | None = None
    train_loss: float | None = None
    val_loss: float | None = None
    elapsed_time: float | None = None
    metrics: _Metrics | None = None
    status_logs: list[_Log] | None = None


class _Hyperparameters(_Lenient):
    epochs: int | None = None
    max_steps: int | None = None


class _Job(_Lenient):
    id: str
    name: str = ""
    status: str = "unknown"
    created_at: str = ""
    custom_fields: dict[str, Any] | None = None
    hyperparameters: _Hyperparameters = Field(default_factory=_Hyperparameters)
    status_details: _Details | None = None


class _Pagination(_Lenient):
    total_pages: int


class _Page(_Lenient):
    data: list[_Job]
    pagination: _Pagination | None = None


class _Artifact(_Lenient):
    status: str
    files_url: str


class _Model(_Lenient):
    artifact: _Artifact | None = None


class _Lfs(_Lenient):
    oid: str


class _File(_Lenient):
    type: str
    path: str
    size: int = 0
    oid: str = ""
    lfs: _Lfs | None = None


class NemoV1:
    """The TrainingServices port."""

    def __init__(self, call: Call, secret: Callable[[], str] = lambda: "") -> None:
        self._call, self._secret = call, secret

    async def customizations(self, address: str, namespace: str, uid: str) -> tuple[SeenCustomization, ...]:
        """See `ports.TrainingServices`. Nothing documented filters by owner, so all of the namespace are listed."""
        found: list[SeenCustomization] = []
        for number in range(1, _MOST_PAGES + 1):
            query = f"page={number}&page_size={_PAGE_SIZE}&sort=created_at&filter%5Bnamespace%5D={quote(namespace)}"
            raw = await self._get("Customizer", address, f"/v1/customization/jobs?{query}")
            page = self._read(_Page, raw, "Customizer", address)
            found += [seen for job in page.data if (seen := _seen(job)).made_for == uid]
            if page.pagination is None or number >= page.pagination.total_pages:
                break
        return tuple(found)

    async def customization(self, address: str, id: str) -> SeenCustomization | None:  # noqa: A002
        """See `ports.TrainingServices`."""
        raw = await self._get("Customizer", address, f"/v1/customization/jobs/{quote(id)}", may_be_gone=True)
        return None if raw is None else _seen(self._read(_Job, raw, "Customizer", address))

    async def submit(self, order: Order) -> None:
        """See `ports.TrainingServices`."""
        for entity in order.needs:
            await self._ensure(entity)
        answer = await self._call("POST", f"{order.address}/v1/customization/jobs", dict(order.body))
        if answer.status != _CONFLICT:
            self._check(answer, "Customizer", order.address)

    async def cancel(self, address: str, id: str) -> None:  # noqa: A002
        """See `ports.TrainingServices`."""
        answer = await self._call("POST", f"{address}/v1/customization/jobs/{quote(id)}/cancel", None)
        if answer.status not in {_NOT_FOUND, _CONFLICT}:
            self._check(answer, "Customizer", address)

    async def output(self, service: Customizer, model: str) -> SeenOutput | None:
        """See `ports.TrainingServices`. The digest is over what the Data Store says of its files, in the order of their names."""
        raw = await self._get(
            "Entity Store", service.entity_store, f"/v1/models/{quote(model)}", may_be_gone=True
        )
        artifact = (
            None if raw is None else self._read(_Model, raw, "Entity Store", service.entity_store).artifact
        )
        if artifact is None:
            return None
        if artifact.status != "upload_completed":
            is_failed = artifact.status == "upload_failed"
            return SeenOutput("failed" if is_failed else "uploading", artifact.files_url)
        repo, _, revision = artifact.files_url.rpartition("://")[2].removeprefix("models/").partition("@")
        path = f"/v1/hf/api/models/{quote(repo)}/tree/{quote(revision or 'main', safe='')}?recursive=true"
        raw = await self._get("Data Store", service.data_store, path)
        try:
            files = sorted(map(_File.model_validate, orjson.loads(raw or b"")), key=lambda each: each.path)
        except (ValueError, TypeError) as error:
            raise self._unexpected("Data Store", service.data_store, error) from error
        digest = hashlib.sha256()
        for file in files:
            digest.update(f"{file.path}\0{file.size}\0{file.lfs.oid if file.lfs else file.oid}\n".encode())
        size = sum(file.size for file in files)
        return SeenOutput("complete", artifact.files_url, f"sha256:{digest.hexdigest()}", size)

    async def _ensure(self, entity: Entity) -> None:
        path = f"{entity.collection}/{quote(entity.place)}"
        if await self._get(entity.service, entity.address, path, may_be_gone=True) is not None:
            return
        if entity.body is None:
            message = f"{entity.collection.rpartition('/')[2]} has no {entity.place}"
            raise ServiceError(ServiceTrouble(entity.service, entity.address, reasons.SERVICE_LACKS, message))
        answer = await self._call("POST", f"{entity.address}{entity.collection}", dict(entity.body))
        if answer.status != _CONFLICT:
            self._check(answer, entity.service, entity.address)

    async def _get(self, service: str, address: str, path: str, *, may_be_gone: bool = False) -> bytes | None:
        answer = await self._call("GET", f"{address}{path}", None)
        if may_be_gone and answer.status == _NOT_FOUND:
            return None
        self._check(answer, service, address)
        return answer.body

    def _read(self, model: type[BaseModel], raw: bytes | None, service: str, address: str) -> Any:
        try:
            return model.model_validate_json(raw or b"")
        except ValidationError as error:
            raise self._unexpected(service, address, error) from error

    def _unexpected(self, service: str, address: str, error: Exception) -> ServiceError:
        said = " ".join(str(error).split())[:_EXCERPT]
        trouble = ServiceTrouble(service, address, reasons.SERVICE_UNEXPECTED, self._without_secret(said))
        return ServiceError(trouble)

    def _check(self, answer: Answer, service: str, address: str) -> None:
        trouble = trouble_of(answer, service, address)
        if trouble is not None:
            message = self._without_secret(trouble.message)
            raise ServiceError(
                ServiceTrouble(
                    service, address, trouble.reason, message, trouble.final, again_after=trouble.again_after
                )
            )

    def _without_secret(self, text: str) -> str:
        secret = self._secret()
        return text.replace(secret, "***") if secret else text


def trouble_of(answer: Answer, service: str, address: str) -> ServiceTrouble | None:
    """What is wrong with an answer, for every status code; None: nothing."""
    status, final = answer.status, False
    if answer.unreachable:
        return ServiceTrouble(service, address, reasons.SERVICE_UNAVAILABLE, answer.unreachable)
    if status in {_OK, _CREATED}:
        return None
    if status in {_BAD_REQUEST, _UNPROCESSABLE}:
        reason, final = reasons.SERVICE_REFUSED, True
    elif status in {_DENIED, _FORBIDDEN}:
        reason = reasons.SERVICE_DENIED
    elif status == _NOT_FOUND:
        reason = reasons.SERVICE_LACKS
    elif status in {_TIMEOUT, _TOO_MANY} or status >= _SERVER_ERROR:
        reason = reasons.SERVICE_UNAVAILABLE
    else:
        reason = reasons.SERVICE_UNEXPECTED
    said = " ".join(answer.body[:_EXCERPT].decode(errors="replace").split())
    message = f"answered {status}" + (f": {said}" if said else "")
    return ServiceTrouble(service, address, reason, message, final, answer.retry_after)


def _seen(job: _Job) -> SeenCustomization:
    details = job.status_details or _Details()
    values = details.metrics.metrics.train_loss if details.metrics and details.metrics.metrics else None
    logs = details.status_logs or []
    words = [text for text in (logs[-1].detail, logs[-1].message) if text] if logs else []
    return SeenCustomization(
        id=job.id,
        name=job.name,
        made_for=str((job.custom_fields or {}).get("tuneyard.io/uid", "")),
        created=job.created_at,
        state=_STATES.get(job.status, "unknown"),
        step=details.steps_completed or 0,
        of=_all_steps(job.hyperparameters, details),
        loss=values[-1].value if values else details.train_loss,
        best_loss=details.train_loss,
        validation_loss=details.val_loss,
        seconds=details.elapsed_time or 0.0,
        message=" ".join(words[0].split())[:_EXCERPT] if words else "",
    )


def _all_steps(wanted: _Hyperparameters, details: _Details) -> int | None:
    """Optimizer steps of the whole training, by the first of the service's numbers that tells it."""
    if wanted.max_steps:
        return wanted.max_steps
    if details.steps_per_epoch and wanted.epochs:
        return details.steps_per_epoch * wanted.epochs
    if details.percentage_done and details.steps_completed:
        return round(details.steps_completed * 100 / details.percentage_done)
    return None
