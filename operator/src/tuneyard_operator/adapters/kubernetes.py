# SPDX-License-Identifier: Apache-2.0
"""The Cluster port on the Kubernetes API: aiohttp and orjson, since generated clients cost several times their CPU."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import aiohttp
import orjson
from tuneyard_api import names

from tuneyard_operator.adapters.credentials import Credentials
from tuneyard_operator.adapters.resources import CLIENT_VERBS, RESOURCES
from tuneyard_operator.adapters.shared import Shared
from tuneyard_operator.domain.observed import SeenEvent, SeenQueue
from tuneyard_operator.domain.parsing import parse_event, parse_queue
from tuneyard_operator.ports import ClusterError, Listed, NotServedError, Object, RefusedError, Watched

_METHODS = {
    "create": "POST",
    "get": "GET",
    "list": "GET",
    "patch": "PATCH",
    "update": "PUT",
    "delete": "DELETE",
}
_JSON, _MERGE = "application/json", "application/merge-patch+json"
_NAMES_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_PAGE = 200
_LABEL_SERVICE = "kubernetes.io/service-name"
_LABEL_JOB_NAME = "batch.kubernetes.io/job-name"
"""Set by the Job controller on its pods."""
"""Number of objects in one page of a list, which bounds the memory of a list."""
_CLAIMS_SECONDS = 1.0
"""How old a list of claims may be, so that a burst of jobs asks only once."""
_WARNINGS_SECONDS = 10.0
"""How old a list of warnings may be: to select events, the API server reads all events of a namespace."""
_MAX_WARNINGS = 500
_POSITIONS_SECONDS = 10.0
"""How old the order of a queue may be: an answer holds up to 1,000 Workloads, and each held job asks."""
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _CONFLICT = 401, 403, 404, 409
_BUSY = frozenset({429, 503})
"""Statuses that come with Retry-After."""
_LONGEST_RETRY_AFTER = 120.0
_INVALID = frozenset({400, 422})
_ERROR = 400
_TIMEOUT = aiohttp.ClientTimeout(total=30)

OnRequest = Callable[[str, str, int], None]
"""Called with verb, resource and HTTP status of every request."""


class KubernetesCluster:
    """One connection pool to one API server; its size is the bound on requests under way."""

    def __init__(self, credentials: Credentials, connections: int, on_request: OnRequest) -> None:
        self._credentials, self._on_request = credentials, on_request
        connector = aiohttp.TCPConnector(limit=connections, ssl=credentials.tls())
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=_TIMEOUT, headers={"User-Agent": names.FIELD_MANAGER}
        )
        self._claims = Shared(self._list_claims, _CLAIMS_SECONDS)
        self._warnings = Shared(self._list_warnings, _WARNINGS_SECONDS)
        self._positions = Shared(self._list_positions, _POSITIONS_SECONDS)

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def create(self, body: Object) -> Object | None:
        """See `ports.Cluster`."""
        namespace = body["metadata"]["namespace"]
        query = {"fieldManager": names.FIELD_MANAGER, "fieldValidation": "Strict"}
        status, answer = await self._call("create", body["kind"], namespace, query=query, body=body)
        if status == _CONFLICT and answer.get("reason") == "AlreadyExists":
            return None
        if status == _FORBIDDEN:
            raise _forbidden(answer)
        if status in _INVALID:
            raise RefusedError("Invalid", _message(answer))
        return _checked(status, answer)

    async def read(self, kind: str, namespace: str, name: str) -> Object | None:
        """See `ports.Cluster`."""
        status, answer = await self._call("get", kind, namespace, name)
        return None if status == _NOT_FOUND else _checked(status, answer)

    async def pages(self, kind: Watched) -> AsyncIterator[Listed]:
        """See `ports.Cluster`."""
        query = {"limit": str(_PAGE)}
        if kind in {"Job", "Pod"}:
            query["labelSelector"] = names.LABEL_JOB
        while True:
            status, answer = await self._call("list", kind, query=query)
            if status == _NOT_FOUND:
                raise NotServedError(f"{RESOURCES[kind].plural} of {RESOURCES[kind].group} are not served")
            metadata = _checked(status, answer).get("metadata") or {}
            yield Listed(_items(status, answer), int(metadata.get("resourceVersion") or 0))
            if not metadata.get("continue"):
                return
            query["continue"] = metadata["continue"]

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        """See `ports.Cluster`."""
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Foreground",
            "preconditions": {"uid": uid},
        }
        status, answer = await self._call("delete", kind, namespace, name, body=options)
        if status not in {_NOT_FOUND, _CONFLICT}:
            _checked(status, answer)

    async def jobs_of(self, namespace: str, name: str) -> tuple[Object, ...]:
        """See `ports.Cluster`."""
        status, answer = await self._call(
            "list", "Job", namespace, query={"labelSelector": f"{names.LABEL_JOB}={name}"}
        )
        return _items(status, answer)

    async def queue_of(self, namespace: str, job_uid: str, queue: str) -> SeenQueue:
        """See `ports.Cluster`."""
        query = {"labelSelector": f"{names.LABEL_WORKLOAD_OF}={job_uid}", "resourceVersion": "0"}
        status, answer = await self._call("list", "Workload", namespace, query=query)
        if status == _NOT_FOUND:
            return SeenQueue(is_served=False)
        workload = next(iter(_items(status, answer)), None)
        local_queue = await self.read("LocalQueue", namespace, queue)
        if workload is None or local_queue is None:
            return parse_queue(workload, local_queue, None)
        positions = await self._positions.get(f"{namespace}/{queue}")
        return parse_queue(workload, local_queue, positions.get(workload["metadata"]["name"]))

    async def pods_of(self, namespace: str, job: str) -> tuple[Object, ...]:
        """See `ports.Cluster`."""
        query = {"labelSelector": f"{_LABEL_JOB_NAME}={job}"}
        status, answer = await self._call("list", "Pod", namespace, query=query)
        return _items(status, answer)

    async def all_pods_of(self, namespace: str, name: str) -> tuple[Object, ...]:
        """See `ports.Cluster`."""
        query = {"labelSelector": f"{names.LABEL_JOB}={name}"}
        status, answer = await self._call("list", "Pod", namespace, query=query)
        return _items(status, answer)

    async def endpoint_slices(self, namespace: str, service: str) -> tuple[Object, ...]:
        """The EndpointSlices of a Service.

        Raises:
            ClusterError: when the API server does not give them.
        """
        query = {"labelSelector": f"{_LABEL_SERVICE}={service}", "resourceVersion": "0"}
        status, answer = await self._call("list", "EndpointSlice", namespace, query=query)
        return _items(status, answer)

    async def claims(self, namespace: str) -> frozenset[str]:
        """See `ports.Cluster`."""
        return await self._claims.get(namespace)

    async def warnings(self, namespace: str) -> tuple[SeenEvent, ...]:
        """See `ports.Cluster`."""
        return await self._warnings.get(namespace)

    async def replace(self, body: Object) -> Object | None:
        """See `ports.Cluster`."""
        metadata, query = body["metadata"], {"fieldManager": names.FIELD_MANAGER}
        status, answer = await self._call(
            "update", body["kind"], metadata["namespace"], metadata["name"], query=query, body=body
        )
        return None if status in {_NOT_FOUND, _CONFLICT} else _checked(status, answer)

    async def patch_status(
        self, namespace: str, name: str, uid: str, status: Object, *, version: int
    ) -> Object | None:
        """See `ports.Cluster`; bound to the version alone, as the status of a custom resource takes any uid."""
        body = {"metadata": {"uid": uid, "resourceVersion": str(version)}, "status": status}
        query = {"fieldManager": names.FIELD_MANAGER}
        code, answer = await self._call(
            "patch", f"{names.JOB_KIND}/status", namespace, name, query=query, body=body, content_type=_MERGE
        )
        return None if code == _NOT_FOUND else _checked(code, answer)

    async def set_finalizers(
        self, namespace: str, name: str, uid: str, finalizers: Sequence[str], *, version: int
    ) -> Object | None:
        """See `ports.Cluster`; the list is written whole, so it is bound to the version it was read at."""
        body = {"metadata": {"uid": uid, "resourceVersion": str(version), "finalizers": list(finalizers)}}
        query = {"fieldManager": names.FIELD_MANAGER}
        code, answer = await self._call(
            "patch", names.JOB_KIND, namespace, name, query=query, body=body, content_type=_MERGE
        )
        return None if code == _NOT_FOUND else _checked(code, answer)

    async def post_event(self, namespace: str, event: Object) -> None:
        """See `ports.Cluster`."""
        status, answer = await self._call("create", "events.k8s.io/Event", namespace, body=event)
        if status == _FORBIDDEN:
            raise _forbidden(answer)
        if status != _CONFLICT:
            _checked(status, answer)

    async def _list_claims(self, namespace: str) -> frozenset[str]:
        kind, query = "PersistentVolumeClaim", {"resourceVersion": "0"}
        status, answer = await self._call("list", kind, namespace, query=query, accept=_NAMES_ONLY)
        return frozenset(item["metadata"]["name"] for item in _items(status, answer))

    async def _list_warnings(self, namespace: str) -> tuple[SeenEvent, ...]:
        query = {"fieldSelector": "type=Warning,reason!=FailedScheduling", "limit": str(_MAX_WARNINGS)}
        status, answer = await self._call("list", "Event", namespace, query=query)
        return tuple(parse_event(item) for item in _items(status, answer))

    async def _list_positions(self, place: str) -> dict[str, int]:
        """The positions in their ClusterQueue, from 1, of the Workloads of a LocalQueue `namespace/name`, by name.

        Empty where Kueue's visibility API gives none: a cluster may run without it, and the reason is told all the same.
        """
        namespace, queue = place.split("/")
        try:
            status, answer = await self._call("get", "PendingWorkloadsSummary", namespace, queue)
        except ClusterError:
            return {}
        pending = answer.get("items") or () if status < _ERROR else ()
        return {each["metadata"]["name"]: each["positionInClusterQueue"] + 1 for each in pending}

    async def _call(
        self,
        verb: str,
        kind: str,
        namespace: str | None = None,
        name: str | None = None,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = _JSON,
        accept: str = _JSON,
    ) -> tuple[int, dict[str, Any]]:
        """HTTP status and parsed answer.

        Raises:
            ClusterError: when there is no answer, or one that says to come back later.
        """
        if verb not in CLIENT_VERBS[kind]:
            raise AssertionError(f"{verb} of {kind} is not among the rights of the operator")
        resource = RESOURCES[kind]
        try:
            async with self._session.request(
                _METHODS[verb],
                self._credentials.server + resource.path(namespace, name),
                params=query,
                data=None if body is None else orjson.dumps(body),
                headers={**self._credentials.headers(), "Content-Type": content_type, "Accept": accept},
            ) as response:
                raw = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._on_request(verb, resource.plural, 0)
            raise ClusterError(f"{verb} {resource.plural}: {type(error).__name__} {error}") from error
        self._on_request(verb, resource.plural, response.status)
        if response.status == _UNAUTHORIZED:
            self._credentials.refresh()
        try:
            answer = orjson.loads(raw) if raw else {}
        except orjson.JSONDecodeError:
            answer = {"message": raw[:200].decode(errors="replace")}
        if response.status in _BUSY:
            after = _seconds(response.headers.get("Retry-After", ""))
            raise ClusterError(f"the API server answered {response.status}: {_message(answer)}", after)
        return response.status, answer


def _forbidden(answer: dict[str, Any]) -> RefusedError:
    """The refusal of a creation; its cause is NamespaceTerminating if the API server says so, else Forbidden."""
    causes = (answer.get("details") or {}).get("causes") or ()
    ends = any(cause.get("reason") == "NamespaceTerminating" for cause in causes)
    return RefusedError("NamespaceTerminating" if ends else "Forbidden", _message(answer))


def _checked(status: int, answer: dict[str, Any]) -> dict[str, Any]:
    if status >= _ERROR:
        raise ClusterError(f"the API server answered {status}: {_message(answer)}")
    return answer


def _items(status: int, answer: dict[str, Any]) -> tuple[Object, ...]:
    """The objects of a list; where only names are asked for, a list of nothing has `"items": null`."""
    return tuple(_checked(status, answer).get("items") or ())


def _seconds(text: str) -> float:
    """Retry-After in seconds, as the API server writes it; proxies may write a date, which is not worth reading."""
    return min(float(text), _LONGEST_RETRY_AFTER) if text.isdecimal() else 0.0


def _message(answer: Mapping[str, Any]) -> str:
    return str(answer.get("message") or answer.get("reason") or "no message")
