# SPDX-License-Identifier: Apache-2.0
"""Logs in to the API server by the pod's service account, else by a kubeconfig; kopf reads both for us."""

import ssl
import time
from dataclasses import dataclass, field

import kopf

_REFRESH_SECONDS = 60.0
"""How often the token is read again. The kubelet replaces a service account's token long before it expires."""


class NoCredentialsError(Exception):
    """There is neither a service account nor a kubeconfig."""


def log_in() -> kopf.ConnectionInfo:
    """The current credentials.

    Raises:
        NoCredentialsError: says what was looked for.
    """
    settings = kopf.OperatorSettings()
    found = kopf.login_with_service_account(settings=settings) or kopf.login_with_kubeconfig(
        settings=settings
    )
    if found is None:
        raise NoCredentialsError(
            "this pod has no service account token, and neither $KUBECONFIG nor ~/.kube/config exists"
        )
    return found


@dataclass
class Credentials:
    """Credentials that follow a token that is replaced in its file."""

    info: kopf.ConnectionInfo = field(default_factory=log_in)
    _read: float = field(default_factory=time.monotonic)

    @property
    def server(self) -> str:
        """Base URL of the API server."""
        return self.info.server.rstrip("/")

    def headers(self) -> dict[str, str]:
        """The Authorization header."""
        if time.monotonic() - self._read > _REFRESH_SECONDS:
            self.refresh()
        return self.info.as_http_headers()

    def refresh(self) -> None:
        """Read the token again."""
        self.info, self._read = log_in(), time.monotonic()

    def tls(self) -> ssl.SSLContext:
        """TLS with the cluster's CA and, if there is one, the client certificate."""
        return self.info.as_ssl_context()
