# SPDX-License-Identifier: Apache-2.0
"""Fetches one file by URL and verifies its digest.

The author of a job must not use the prepare pod to reach what only the pod can reach. So a redirect never
leads further inside than the address that the job names (public, private network, this machine), cloud metadata
(link-local) is never asked, and TLS is never left. The address that was judged is the one that is connected to.
"""

import http.client
import ipaddress
import re
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from enum import IntEnum
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit, urlunsplit

from tuneyard_api.pod_contract import FailureClass
from tuneyard_api.problems import clip
from tuneyard_api.remote_files import HttpFile

from tuneyard_trainer.fetch.certificates import untrusted
from tuneyard_trainer.fetch.limits import CHUNK_BYTES, MAX_BYTES, Download
from tuneyard_trainer.fetch.patience import patiently
from tuneyard_trainer.pod.failures import StageFailure, bad_input

TIMEOUT_SECONDS = 60.0
"""Longest time without a byte."""
_SERVICE = re.compile(r"^[a-z0-9-]+\.[a-z0-9-]+\.svc(\.cluster\.local)?$")


class Reach(IntEnum):
    """How far inside an address lies."""

    MACHINE = 0
    PRIVATE = 1
    PUBLIC = 2


def reach_of(address: str) -> Reach | None:
    """The reach of an IP address; None for link-local, multicast and unspecified ones, which are never allowed."""
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None) or getattr(found, "sixtofour", None)
    if mapped is not None:
        found = mapped
    if found.is_link_local or found.is_multicast or found.is_unspecified:
        return None
    if found.is_loopback:
        return Reach.MACHINE
    return Reach.PUBLIC if found.is_global else Reach.PRIVATE


class Guard:
    """Judges every address and every redirect of one fetch."""

    def __init__(self) -> None:
        self._start: Reach | None = None

    def admit(self, host: str, address: str) -> None:
        """Lets an address pass; the first one decides how far inside a redirect may lead.

        Raises:
            StageFailure: BadInput.
        """
        reach = reach_of(address)
        if reach is None:
            raise bad_input(f"{host} is {address}, which no data set is fetched from; try another address")
        if self._start is None:
            self._start = reach
        if reach < self._start:
            raise bad_input(
                f"the server redirects to {host}, which is {address}, inside the network; try the final address in the"
                " job, if that is where the file is"
            )

    def admit_redirect(self, old: str, new: str) -> None:
        """Lets a redirect pass.

        Raises:
            StageFailure: BadInput.
        """
        before, after = urlsplit(old), urlsplit(new)
        is_inside = before.scheme == "http" and _SERVICE.match(after.hostname or "")
        if after.scheme != "https" and not (after.scheme == "http" and is_inside):
            raise bad_input(
                f"the server redirects to {shown_url(new)}, without TLS; try an address that keeps https"
            )


def fetch_url(file: HttpFile, target: Path, limit_bytes: int = MAX_BYTES) -> None:
    """Writes the file to `target`, if its digest is right; what broke off goes on where it broke.

    Raises:
        StageFailure: DataMissing, PermissionDenied, UpstreamUnavailable or BadInput.
    """
    name = shown_url(file.url)
    fetch = _Fetch(file.url, Download(name, target, limit_bytes), name)
    patiently(fetch.ask)
    if fetch.download.is_resumed and fetch.download.sha256 != file.sha256:
        # The parts may be of two versions of the file.
        fetch.download.begin_again()
        patiently(fetch.ask)
    if fetch.download.sha256 != file.sha256:
        raise bad_input(
            f"{name}: not the file that was meant: its SHA-256 is {fetch.download.sha256} (expected {file.sha256}); try that"
            " digest if the file was meant to change"
        )


class _Fetch:
    """The requests for one file."""

    def __init__(self, url: str, download: Download, name: str) -> None:
        self._url, self.download, self._name = url, download, name
        self._version: str | None = None
        """What the server calls the version of the file that is there in part."""

    def ask(self) -> None:
        """Asks for the file, or for the rest of it."""
        name, guard = self._name, Guard()
        opener = urllib.request.build_opener(_Plain(guard), _Tls(guard), _Redirects(guard))
        request = urllib.request.Request(self._url, headers=self._headers())  # noqa: S310  the contract allows http and https alone
        try:
            with opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
                length, headers = answer.headers.get("Content-Length"), answer.headers
                self._version = _version_of(headers)
                self.download.take(
                    _chunks(name, answer),
                    int(length) if length and length.isdecimal() else None,
                    headers.get("Content-Range") if answer.status == HTTPStatus.PARTIAL_CONTENT else None,
                )
        except StageFailure as failure:
            said = str(failure)
            told = said if said.startswith(name) else f"{name}: {said}"
            raise StageFailure(failure.failure_class, told) from failure.__cause__
        except urllib.error.HTTPError as error:
            with error:
                if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and self.download.size:
                    self.download.begin_again()
                    raise StageFailure(
                        FailureClass.UPSTREAM,
                        f"{name}: the server no longer has the file that it began to send",
                    ) from error
                raise _refused(name, error.code) from error
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            raise _unreachable(name, error) from error
        except ValueError as error:
            # A name of a host that can be written in an address and not be asked for, here or behind a redirect.
            raise bad_input(f"{name}: this leads to no address: {error}; try another address") from error

    def _headers(self) -> dict[str, str]:
        headers = {"User-Agent": "tuneyard", "Accept-Encoding": "identity"}
        if self.download.size:
            headers["Range"] = f"bytes={self.download.size}-"
            if self._version:
                headers["If-Range"] = self._version
        return headers


def _version_of(headers: Message) -> str | None:
    """What If-Range may name: an ETag that is not weak, or the date of the last change."""
    tag = headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


def shown_url(url: str) -> str:
    """`url` without parts that may be secret: the query with its signature, and the user."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _chunks(name: str, answer: Any) -> Iterator[bytes]:
    """The body piece by piece; what breaks while it is read is no failure of the disk that it is written to."""
    while True:
        try:
            chunk = answer.read(CHUNK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise StageFailure(FailureClass.UPSTREAM, f"{name}: the connection broke off: {error}") from error
        if not chunk:
            return
        yield chunk


def _refused(name: str, status: int) -> StageFailure:
    said = f"{name}: the server answers {status}"
    if status in {401, 403, 407}:
        return StageFailure(
            FailureClass.PERMISSION_DENIED,
            f"{said}: only files that anyone may read can be fetched; try s3 with a secretRef, or a claim (pvc)",
        )
    if status in {408, 425, 429} or status >= 500:  # noqa: PLR2004
        return StageFailure(FailureClass.UPSTREAM, said)
    return StageFailure(FailureClass.DATA_MISSING, f"{said}: there is no such file")


def _unreachable(name: str, error: Exception) -> StageFailure:
    reason = getattr(error, "reason", error)
    return untrusted(name, error) or StageFailure(
        FailureClass.UPSTREAM, f"{name}: the server can't be reached: {clip(str(reason), 500)}"
    )


def _connect(guard: Guard, host: str, port: int, timeout: float | None) -> socket.socket:
    """A connection to the first address of `host` that answers; every address is checked before it is tried."""
    trouble: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        guard.admit(host, str(address[0]))
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(timeout)
            connection.connect(address)
        except OSError as error:
            connection.close()
            trouble = error
        else:
            return connection
    raise trouble


class _PlainConnection(http.client.HTTPConnection):
    def __init__(self, guard: Guard, host: str, **rest: Any) -> None:
        super().__init__(host, **rest)
        self._guard = guard

    def connect(self) -> None:
        self.sock = _connect(self._guard, self.host, self.port, self.timeout)


class _TlsConnection(http.client.HTTPSConnection):
    def __init__(self, guard: Guard, host: str, *, context: ssl.SSLContext, **rest: Any) -> None:
        super().__init__(host, context=context, **rest)
        self._guard, self._tls, self._is_tunnelled = guard, context, False

    def set_tunnel(self, *arguments: Any, **named: Any) -> None:
        """Sets up the tunnel of a proxy, which connects for us and decides what may be reached."""
        self._is_tunnelled = True
        super().set_tunnel(*arguments, **named)

    def connect(self) -> None:
        if self._is_tunnelled:
            super().connect()
            return
        plain = _connect(self._guard, self.host, self.port, self.timeout)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)


class _Plain(urllib.request.HTTPHandler):
    def __init__(self, guard: Guard) -> None:
        super().__init__()
        self._guard = guard

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_PlainConnection, self._guard), req)


class _Tls(urllib.request.HTTPSHandler):
    def __init__(self, guard: Guard) -> None:
        self._tls = ssl.create_default_context()
        super().__init__(context=self._tls)
        self._guard = guard

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_TlsConnection, self._guard), req, context=self._tls)


class _Redirects(urllib.request.HTTPRedirectHandler):
    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def redirect_request(  # noqa: PLR0917  as the base class has it
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        try:
            self._guard.admit_redirect(req.full_url, newurl)
        except StageFailure:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
