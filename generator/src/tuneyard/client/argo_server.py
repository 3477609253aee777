# SPDX-License-Identifier: Apache-2.0
"""Argo Workflows' own server, for people who have a token and no kubeconfig.

The API is https://argo-workflows.readthedocs.io/en/release-3.7/swagger/. Every request carries the token, and the server acts
with the rights of the token's owner.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from tuneyard.findings import Finding, InputError

Json = dict[str, Any]
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_TIMEOUT_S = 30.0
_TOKEN_HINT = "ARGO_TOKEN=$(kubectl create token workflow-user --namespace NAMESPACE)"  # noqa: S105  a command
_OK, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND = 300, 401, 403, 404


def _failed(problem: str, hint: str | None = None) -> InputError:
    return InputError([Finding("argo-server", problem, hint=hint)])


@dataclass(frozen=True)
class Access:
    """An address and the token that goes with every request."""

    url: str
    """`https://host:port`, without a slash at the end."""
    token: str
    ca_file: Path | None = None
    """Authorities that the server's certificate is checked by; None: those of the machine."""

    @classmethod
    def of(cls, server: str, token: str | None = None, ca_file: Path | None = None) -> Self:
        """Access to `https://host:port` or `host:port`; `token` absent: ARGO_TOKEN, as Argo's own command has it.

        Raises:
            InputError: the address is none, is not encrypted, or there is no token.
        """
        url = urlsplit(server if "://" in server else f"https://{server}")
        if url.scheme != "https" or not url.hostname or url.username:
            raise _failed(f"{server} is no address of a server with TLS", "https://<host>:2746")
        found = (token or os.environ.get("ARGO_TOKEN") or "").strip().removeprefix("Bearer ").strip()
        if not found:
            raise _failed("Argo's server asks for a token, and there is none", _TOKEN_HINT)
        if not found.isascii() or any(character.isspace() for character in found):
            raise _failed("the token has characters that no token has", _TOKEN_HINT)
        return cls(f"https://{url.netloc}{url.path.rstrip('/')}", found, ca_file)

    @property
    def is_local(self) -> bool:
        """Whether the address is this machine, as `kubectl port-forward` gives it."""
        return urlsplit(self.url).hostname in _LOOPBACK


class ArgoServer:
    """WorkflowTemplates and Workflows of one namespace.

    Raises:
        InputError: from every method, when the server does not answer, or refuses the token or what is asked.
    """

    def __init__(self, access: Access, namespace: str) -> None:
        """The certificate is checked, but for addresses of this machine.

        Argo's server signs its own certificate anew at each start; behind `kubectl port-forward` the way to it is encrypted
        and checked by kubectl.
        """
        from urllib3 import PoolManager  # noqa: PLC0415  comes with the extra

        self.namespace, self._access = namespace, access
        unchecked = access.is_local and access.ca_file is None
        trust: Json = {"cert_reqs": "CERT_NONE", "assert_hostname": False} if unchecked else {"cert_reqs": "CERT_REQUIRED"}  # fmt: skip
        if access.ca_file:
            trust["ca_certs"] = str(access.ca_file)
        self._pool = PoolManager(**trust)

    def template(self, name: str) -> Json | None:
        """A WorkflowTemplate, or None where there is no such one.

        It is looked up in the list, which the server reads with the rights of the token: Argo 3.7.6 reads a single template
        with its own.
        """
        return next((each for each in self.templates() if each["metadata"]["name"] == name), None)

    def templates(self) -> list[Json]:
        """The WorkflowTemplates of the namespace."""
        return list((self._asked("GET", f"workflow-templates/{self.namespace}") or {}).get("items") or ())

    def create(self, workflow: Mapping[str, Any]) -> Json:
        """The Workflow as the server made it."""
        made = self._asked("POST", f"workflows/{self.namespace}", {"workflow": workflow})
        if made is None:
            raise _failed(f"{self._access.url} does not take workflows of namespace {self.namespace}")
        return made

    def _asked(self, method: str, path: str, body: Json | None = None) -> Json | None:
        import warnings  # noqa: PLC0415

        from urllib3.exceptions import HTTPError, InsecureRequestWarning  # noqa: PLC0415  comes with the extra

        headers = {"Authorization": f"Bearer {self._access.token}", "Accept": "application/json"}
        content = json.dumps(body) if body is not None else None
        if content is not None:
            headers["Content-Type"] = "application/json"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InsecureRequestWarning)
            try:
                answer = self._pool.request(
                    method,
                    f"{self._access.url}/api/v1/{path}",
                    body=content,
                    headers=headers,
                    timeout=_TIMEOUT_S,
                    redirect=False,
                    retries=False,
                )
            except HTTPError as error:
                raise _failed(f"{self._access.url} does not answer: {error}") from error
        return self._good(answer.status, bytes(answer.data), path)

    def _good(self, status: int, body: bytes, path: str) -> Json | None:
        if status == _NOT_FOUND:
            return None
        try:
            found = json.loads(body)
        except ValueError:
            found = None
        if status < _OK and isinstance(found, dict):
            return found
        said = found.get("message") if isinstance(found, dict) else None
        words = said or body[:200].decode(errors="replace")
        if status == _UNAUTHORIZED:
            raise _failed(f"{self._access.url} refuses the token: {words}", _TOKEN_HINT.replace("NAMESPACE", self.namespace))  # fmt: skip
        hint = (
            f"the rights of the token's owner in namespace {self.namespace}" if status == _FORBIDDEN else None
        )
        raise _failed(f"{path}: {words} (HTTP {status})", hint)
