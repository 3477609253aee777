# SPDX-License-Identifier: Apache-2.0
"""A local server of one file, by TLS or not, that fails as servers and networks do; and a proxy in front of it."""

import ipaddress
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


def write_certificate(folder: Path) -> None:
    """A certificate for 127.0.0.1 that is its own authority, and its key."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def context_of(folder: Path) -> ssl.SSLContext:
    """TLS of a server with the certificate that `write_certificate` wrote into `folder`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


class FileServer(ThreadingHTTPServer):
    """Answers every GET with `content`, or the part that is asked for, as web servers and S3 do."""

    daemon_threads = True

    def __init__(self, content: bytes, context: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _FileHandler)
        self.content, self.version = content, "1"
        self.scheme = "https" if context else "http"
        if context:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.troubles: list[str | tuple[int, str]] = []
        """What the next requests meet: `break` within the body, `change` of the file, or a status and its Retry-After."""
        self.asked: list[str] = []
        """The Range of each request."""
        self.has_versions = True

    @property
    def address(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"


class _FileHandler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range", "")
        server.asked.append(asked)
        trouble = server.troubles.pop(0) if server.troubles else ""
        if isinstance(trouble, tuple):
            status, pause = trouble
            self.send_response(status)
            self.send_header("Content-Length", "0")
            if pause:
                self.send_header("Retry-After", pause)
            self.end_headers()
            return
        if trouble == "change":
            server.content, server.version = server.content[::-1], "2"
        tag = f'"{server.version}"'
        if self.headers.get("If-Match", tag) != tag:
            self.send_response(412)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        is_part = bool(asked) and self.headers.get("If-Range", tag) == tag
        start = int(asked.removeprefix("bytes=").rstrip("-")) if is_part else 0
        rest = server.content[start:]
        self.send_response(206 if is_part else 200)
        self.send_header("Content-Length", str(len(rest)))
        if server.has_versions:
            self.send_header("ETag", tag)
        if is_part:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}"
            )
        self.end_headers()
        self.wfile.write(rest[: len(rest) // 2] if trouble == "break" else rest)
        self.close_connection = trouble == "break"

    def log_message(self, *_: object) -> None:
        """Quiet."""


class _Tunnel(socketserver.BaseRequestHandler):
    """Passes bytes on after a request CONNECT."""

    def handle(self) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.request.recv(4096)
        method, target = head.split()[:2]
        self.server.seen.append((method.decode(), target.decode()))  # type: ignore[attr-defined]
        host, _, port = target.decode().partition(":")
        with socket.create_connection((host, int(port))) as other:
            self.request.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=_pass_on, args=(other, self.request), daemon=True)
            back.start()
            _pass_on(self.request, other)
            back.join(5)


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while content := one.recv(1 << 16):
            other.sendall(content)
    with suppress(OSError):
        other.shutdown(socket.SHUT_WR)


class Proxy(socketserver.ThreadingTCPServer):
    """A proxy for TLS."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Tunnel)
        self.seen: list[tuple[str, str]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def running(server: socketserver.BaseServer) -> Iterator[None]:
    """Serves in a thread."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield
    server.shutdown()
    server.server_close()
    thread.join()
