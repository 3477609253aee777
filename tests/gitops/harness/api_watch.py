# SPDX-License-Identifier: Apache-2.0
"""The API server by plain requests: reads, patches, deletions, and watches that end when they are told to."""

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
CONNECT_SECONDS = 10.0


class ApiWatch:
    """One cluster's API as its administrator."""

    def __init__(self, cluster: Cluster) -> None:
        folder = cluster.folder.certificates
        self._tls = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        self._tls.load_cert_chain(folder / "admin.crt", folder / "admin.key")
        self._address = urlsplit(cluster.plan.server)
        self._kept = threading.local()

    def _connect(self, seconds: float = CONNECT_SECONDS) -> http.client.HTTPSConnection:
        assert self._address.hostname
        return http.client.HTTPSConnection(
            self._address.hostname, self._address.port, context=self._tls, timeout=seconds
        )

    def send(
        self, method: str, path: str, body: Any = None, content: str = "application/json"
    ) -> tuple[int, Any]:
        """Status and JSON answer."""
        connection = getattr(self._kept, "connection", None) or self._connect()
        self._kept.connection = None
        connection.request(
            method, path, None if body is None else json.dumps(body), {"Content-Type": content}
        )
        with connection.getresponse() as answer:
            text = answer.read()
            if not answer.will_close:
                self._kept.connection = connection
            return answer.status, json.loads(text) if text.startswith(b"{") else text.decode()

    def get(self, path: str) -> Any:
        """The object, or None when it is not there."""
        status, answer = self.send("GET", path)
        return answer if status == 200 else None

    def items(self, path: str) -> list[Json]:
        """The objects of a list, without those of kinds that are not there."""
        return list((self.get(path) or {"items": []})["items"])

    def watch(self, path: str, version: str, is_over: threading.Event) -> Iterator[Json]:
        """Events after a list's resource version, until the server ends the watch or `is_over`."""
        connection = self._connect(1.0)
        connection.request("GET", f"{path}?watch=1&resourceVersion={version}&timeoutSeconds=300")
        with connection.getresponse() as answer:
            buffered = b""
            while not is_over.is_set():
                try:
                    piece = answer.read1(65536)
                except TimeoutError:
                    continue
                if not piece:
                    return
                *lines, buffered = (buffered + piece).split(b"\n")
                for line in lines:
                    yield json.loads(line)
        connection.close()
