# SPDX-License-Identifier: Apache-2.0
"""The API server by plain requests: reads, patches, deletions, and watches."""

import contextlib
import http.client
import json
import ssl
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from tuneyard_local.cluster import Cluster

Json = dict[str, Any]
MERGE = "application/merge-patch+json"
CONNECT_SECONDS = 30.0
WATCH_SECONDS = 300


class ApiWatch:
    """The API of one cluster, used by its administrator."""

    def __init__(self, cluster: Cluster) -> None:
        folder = cluster.folder.certificates
        self._tls = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        self._tls.load_cert_chain(folder / "admin.crt", folder / "admin.key")
        self._address = urlsplit(cluster.plan.server)
        self._kept = threading.local()
        self._all_kept: list[http.client.HTTPSConnection] = []

    def close(self) -> None:
        """Closes what all threads have kept, when none of them asks any more."""
        for connection in self._all_kept:
            connection.close()

    def _connect(self, seconds: float = CONNECT_SECONDS) -> http.client.HTTPSConnection:
        assert self._address.hostname
        return http.client.HTTPSConnection(
            self._address.hostname, self._address.port, context=self._tls, timeout=seconds
        )

    def send(
        self, method: str, path: str, body: Any = None, content: str = "application/json"
    ) -> tuple[int, Any]:
        """Status and JSON answer."""
        kept = getattr(self._kept, "connection", None)
        self._kept.connection = None
        connection = kept or self._connect()
        if kept is None:
            self._all_kept.append(connection)
        text = None if body is None else json.dumps(body)
        try:
            connection.request(method, path, text, {"Content-Type": content})
            response = connection.getresponse()
        except ConnectionError:
            if kept is None:
                raise
            connection.close()
            return self.send(method, path, body, content)  # the server had closed it meanwhile, being idle
        with response as answer:
            said = answer.read()
            if not answer.will_close:
                self._kept.connection = connection
            return answer.status, json.loads(said) if said.startswith(b"{") else said.decode()

    def get(self, path: str) -> Any:
        """The object, or None when it is not there."""
        status, answer = self.send("GET", path)
        return answer if status == 200 else None

    def items(self, path: str) -> list[Json]:
        """The objects of a list, without those of kinds that are not there."""
        return list((self.get(path) or {"items": []})["items"])

    def watch(self, path: str, version: str) -> Iterator[Json]:
        """Events after a list's resource version, until the server ends the watch."""
        # No short time limit: a socket can't be read any more after a read that timed out.
        connection = self._connect(WATCH_SECONDS + CONNECT_SECONDS)
        connection.request("GET", f"{path}?watch=1&resourceVersion={version}&timeoutSeconds={WATCH_SECONDS}")
        with contextlib.closing(connection), connection.getresponse() as answer:
            if answer.status != http.client.OK:
                yield {"type": "ERROR", "object": {"code": answer.status}}
                return
            for line in answer:
                yield json.loads(line)
