# SPDX-License-Identifier: Apache-2.0
"""Reads paths and applies objects at the API server. The official client handles kubeconfig and TLS.

Secrets are read as metadata only, so their values never arrive here; the exception are Argo CD's repositories, of
which `bootstrap` keeps nothing but the address.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tuneyard.findings import Finding, InputError

Json = dict[str, Any]
MANAGER = "tuneyard"
TIMEOUT_S = 15.0
_METADATA = "application/json;as=PartialObjectMetadata{list};g=meta.k8s.io;v=v1,application/json"


class ApplyConflictError(Exception):
    """Another manager holds a field with another value; the message names manager and field."""


def _failed(problem: str, hint: str) -> InputError:
    return InputError([Finding("cluster", problem, hint=hint)])


class ClusterClient:
    """One API server.

    Raises:
        InputError: from every method, when the server can't be reached or refuses.
    """

    def __init__(self, kubeconfig: Path | None = None, context: str | None = None) -> None:
        try:
            from kubernetes import client, config  # noqa: PLC0415  an extra, slow to import
        except ImportError as error:
            raise _failed("the Kubernetes client is not installed", "the extra tuneyard[cluster]") from error
        self._configuration = client.Configuration()
        # The library reads KUBECONFIG once, when it is imported.
        file = str(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG") or None
        try:
            config.load_kube_config(file, context, client_configuration=self._configuration)
        except config.ConfigException as error:
            raise _failed(f"no cluster is configured: {error}", "--kubeconfig or KUBECONFIG") from error
        self.kubectl_flags = (
            *(("--kubeconfig", str(kubeconfig)) if kubeconfig else ()),
            *(("--context", context) if context else ()),
        )
        """How kubectl is told of the same cluster."""
        self._namespace = _namespace_of(config, file, context)
        self._pool = client.ApiClient(self._configuration).rest_client.pool_manager

    @property
    def server(self) -> str:
        """The server's address."""
        return str(self._configuration.host)

    @property
    def namespace(self) -> str:
        """The namespace of the context; `default` where it names none."""
        return self._namespace

    def get(self, path: str) -> Any:
        """The object or list at a path, or None when it is not there."""
        status, body = self._request("GET", path, None, {})
        if status == 404:  # noqa: PLR2004
            return None
        return self._good(status, body, path)

    def items(self, path: str) -> list[Json]:
        """Everything in the list at a path; empty when the kind is unknown."""
        found: list[Json] = []
        more = ""
        while True:
            answer = self.get(
                f"{path}{'&' if '?' in path else '?'}{urlencode({'limit': 500, 'continue': more})}"
            )
            if answer is None:
                return found
            found += answer["items"]
            more = answer["metadata"].get("continue", "")
            if not more:
                return found

    def lines(self, path: str) -> Iterator[str]:
        """The lines of a text, such as a log, as they come; it may go on for as long as the server sends."""
        from urllib3 import Timeout  # noqa: PLC0415  comes with the extra

        answer = self._ask("GET", path, timeout=Timeout(connect=TIMEOUT_S, read=None), preload_content=False)
        try:
            if answer.status >= 300:  # noqa: PLR2004
                self._good(int(answer.status), bytes(answer.read()), path)
            rest = b""
            for chunk in answer.stream():
                *whole, rest = (rest + chunk).split(b"\n")
                yield from (line.decode(errors="replace") for line in whole)
            if rest:
                yield rest.decode(errors="replace")
        finally:
            answer.release_conn()

    def has_secret(self, namespace: str, name: str) -> bool:
        """Whether a Secret exists, without reading its content."""
        accept = {"Accept": _METADATA.format(list="")}
        status, body = self._request("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}", None, accept)
        return status != 404 and bool(self._good(status, body, f"secret {namespace}/{name}"))  # noqa: PLR2004

    def apply(self, path: str, entry: Json, *, force: bool = False, dry_run: bool = False) -> Json:
        """Server-side apply; only the fields in `entry` become ours.

        Raises:
            ApplyConflictError: somebody else holds one of them, and not `force`.
        """
        query = {"fieldManager": MANAGER, "force": str(force).lower(), "fieldValidation": "Strict"}
        query |= {"dryRun": "All"} if dry_run else {}
        headers = {"Content-Type": "application/apply-patch+yaml"}
        status, body = self._request("PATCH", f"{path}?{urlencode(query)}", json.dumps(entry), headers)
        if status == 409:  # noqa: PLR2004
            raise ApplyConflictError(json.loads(body)["message"])
        return dict(self._good(status, body, path))

    def create(self, path: str, entry: Json) -> Json:
        """The object as the server made it; `path` is that of its list."""
        headers = {"Content-Type": "application/json"}
        status, body = self._request("POST", f"{path}?fieldManager={MANAGER}", json.dumps(entry), headers)
        return dict(self._good(status, body, path))

    def delete(self, path: str) -> None:
        """Delete an object at once; one that is gone already is no error."""
        headers = {"Content-Type": "application/json"}
        options = json.dumps({"gracePeriodSeconds": 0})
        status, body = self._request("DELETE", path, options, headers)
        if status != 404:  # noqa: PLR2004
            self._good(status, body, path)

    def merge(self, path: str, patch: Json) -> Json:
        """A merge patch."""
        headers = {"Content-Type": "application/merge-patch+json"}
        status, body = self._request("PATCH", f"{path}?fieldManager={MANAGER}", json.dumps(patch), headers)
        return dict(self._good(status, body, path))

    def _good(self, status: int, body: bytes, path: str) -> Any:
        if status >= 300:  # noqa: PLR2004
            try:
                message = json.loads(body)["message"]
            except (ValueError, KeyError, TypeError):
                message = body[:200].decode(errors="replace")
            raise _failed(f"{path}: {message}", "the rights of this user (kubectl auth can-i)")
        return json.loads(body)

    def _request(
        self, method: str, path: str, body: str | None, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        answer = self._ask(method, path, body=body, headers=headers, timeout=TIMEOUT_S)
        return int(answer.status), bytes(answer.data)

    def _ask(self, method: str, path: str, *, headers: dict[str, str] | None = None, **how: Any) -> Any:
        from urllib3.exceptions import HTTPError  # noqa: PLC0415  comes with the extra

        headers = {"Accept": "application/json", "User-Agent": "tuneyard", **(headers or {})}
        for setting in self._configuration.auth_settings().values():
            if setting["in"] == "header" and setting["value"]:
                headers[setting["key"]] = setting["value"]
        try:
            return self._pool.request(method, self.server + path, headers=headers, retries=1, **how)
        except HTTPError as error:
            raise _failed(f"{self.server} does not answer: {error}", "kubectl cluster-info") from error


def _namespace_of(config: Any, file: str | None, context: str | None) -> str:
    contexts, current = config.list_kube_config_contexts(file)
    chosen = next((each for each in contexts if each["name"] == context), current)
    return str((chosen.get("context") or {}).get("namespace") or "default")
