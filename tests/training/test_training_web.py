# SPDX-License-Identifier: Apache-2.0
"""Data by URL, over TLS from a local server: digest, size, redirects, and who may not be asked."""

import hashlib
import http.server
import threading
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from support.file_servers import context_of, write_certificate
from tuneyard_api.pod_contract import FailureClass, PrepareFacts
from tuneyard_api.remote_files import HttpFile
from tuneyard_trainer.fetch import patience, web
from tuneyard_trainer.fetch.web import Guard, Reach, fetch_url, reach_of, shown_url
from tuneyard_trainer.pod.failures import StageFailure

CONTENT = b"".join(b'{"prompt": "say %d =", "completion": " %d"}\n' % (n, n) for n in range(12))
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """/file.jsonl is the file; /<code>.jsonl answers that code; /to.jsonl?<address> sends there."""

    def do_GET(self):
        path, _, query = self.path.partition("?")
        self.server.seen.append(self.path)
        if path == "/to.jsonl":
            self.send_response(302)
            self.send_header("Location", unquote(query))
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path in {"/file.jsonl", "/short.jsonl", "/endless.jsonl"}:
            self.send_response(200)
            if path != "/endless.jsonl":
                self.send_header("Content-Length", str(len(CONTENT) + 10 * (path == "/short.jsonl")))
            self.end_headers()
            self.wfile.write(CONTENT)
        else:
            self.send_response(int(path[1:4]))
            self.send_header("Content-Length", "0")
            self.end_headers()

    def log_message(self, *_):
        """Quiet."""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A server by TLS that clients of this test trust."""
    write_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    monkeypatch.setattr(patience, "_PAUSES_SECONDS", (0.01,))
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context_of(tmp_path).wrap_socket(server.socket, server_side=True)
    server.seen = []
    server.address = f"https://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def refused(site, tmp_path, path, digest=DIGEST, **options):
    with pytest.raises(StageFailure) as caught:
        fetch_url(HttpFile(url=f"{site.address}{path}", sha256=digest), tmp_path / "f", **options)
    return caught.value.failure_class, str(caught.value)


def test_prepare_reads_training_data_by_url(site, model_files, job_of, pods, tmp_path):
    url = f"{site.address}/file.jsonl?signature=secret"
    job = job_of(model_files, tmp_path, dataset={"training": {"http": {"url": url, "sha256": DIGEST}}})
    code, result = pods.run("prepare", job)
    assert code == 0, result.failure
    assert PrepareFacts.model_validate(result.facts).train_records == 9
    assert "secret" not in (pods.workspace / "prepare-report.json").read_text()


def test_another_file_than_was_meant_is_refused_with_both_digests(site, tmp_path):
    failure_class, message = refused(site, tmp_path, "/file.jsonl", "0" * 64)
    assert failure_class is FailureClass.BAD_INPUT
    assert f"its SHA-256 is {DIGEST} (expected {'0' * 64})" in message


ANSWERS = {
    "what is not there": ("/404.jsonl", FailureClass.DATA_MISSING, "answers 404: there is no such file"),
    "what is private": ("/401.jsonl", FailureClass.PERMISSION_DENIED, "try s3 with a secretRef"),
    "a server in trouble": ("/503.jsonl", FailureClass.UPSTREAM, "answers 503"),
    "a server that wants a pause": ("/429.jsonl", FailureClass.UPSTREAM, "answers 429"),
    "a connection that breaks off": (
        "/short.jsonl",
        FailureClass.UPSTREAM,
        f"broke off after {len(CONTENT)} of {len(CONTENT) + 10} bytes",
    ),
}


@pytest.mark.parametrize(("path", "failure_class", "message"), ANSWERS.values(), ids=ANSWERS.keys())
def test_answer_of_the_server_is_reported_in_the_jobs_words(site, tmp_path, path, failure_class, message):
    failure = refused(site, tmp_path, path)
    assert (failure[0], message in failure[1]) == (failure_class, True), failure[1]


def test_a_host_that_can_be_written_and_not_asked_for_is_no_bug(tmp_path):
    with pytest.raises(StageFailure, match="this leads to no address") as caught:
        fetch_url(HttpFile(url=f"https://{'a' * 70}.example.com/t.jsonl", sha256=DIGEST), tmp_path / "f")
    assert caught.value.failure_class is FailureClass.BAD_INPUT


@pytest.mark.parametrize("path", ["/file.jsonl", "/endless.jsonl"])
def test_more_than_the_limit_is_never_kept(site, tmp_path, path):
    failure_class, message = refused(site, tmp_path, path, limit_bytes=100)
    assert (failure_class, "but a file may have 100" in message) == (FailureClass.BAD_INPUT, True), message
    assert not (tmp_path / "f").exists() or (tmp_path / "f").stat().st_size <= 100


def test_certificate_of_a_stranger_is_refused(site, tmp_path, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    failure_class, message = refused(site, tmp_path, "/file.jsonl")
    assert failure_class is FailureClass.BAD_INPUT
    assert "certificate is not trusted" in message
    assert site.seen == []


def test_server_that_nobody_answers_for_is_unavailable(site, tmp_path):
    site.address = "https://127.0.0.1:9"
    assert refused(site, tmp_path, "/file.jsonl")[0] is FailureClass.UPSTREAM


def test_redirect_is_followed_and_its_file_held_against_the_digest(site, tmp_path):
    file = HttpFile(url=f"{site.address}/to.jsonl?{site.address}/file.jsonl", sha256=DIGEST)
    fetch_url(file, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT


REDIRECTS = {
    "to a host whose name is too long": (
        f"https://{'a' * 70}.example.com/file.jsonl",
        FailureClass.BAD_INPUT,
        "this leads to no address: ",
    ),
    "to half of an address": ("https://[bad/", FailureClass.BAD_INPUT, "this leads to no address: "),
    "out of TLS": ("http://127.0.0.1:1/file.jsonl", FailureClass.BAD_INPUT, "without TLS"),
    "to another protocol": ("ftp://127.0.0.1:1/file.jsonl", FailureClass.BAD_INPUT, "without TLS"),
    "to a file of the pod": ("file:///etc/passwd", FailureClass.DATA_MISSING, "answers 302"),
    "to the metadata of the cloud": (
        "https://169.254.169.254/latest",
        FailureClass.BAD_INPUT,
        "169.254.169.254 is 169.254.169.254, which no data set is fetched from",
    ),
    "to the same in IPv6": (
        "https://[::ffff:169.254.169.254]/latest",
        FailureClass.BAD_INPUT,
        "which no data set is fetched from",
    ),
}


# urllib leaves a socket to the collector where a redirect out of TLS is refused.
@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
@pytest.mark.parametrize(("address", "failure_class", "message"), REDIRECTS.values(), ids=REDIRECTS.keys())
def test_redirect_leads_nowhere(site, tmp_path, address, failure_class, message):
    failure = refused(site, tmp_path, f"/to.jsonl?{quote(address)}")
    assert (failure[0], message in failure[1]) == (failure_class, True), failure[1]
    assert not (tmp_path / "f").exists()


def test_redirect_never_leads_further_inside(site, tmp_path, monkeypatch):
    """The first address passes for a public one; the second is what it is."""
    first = iter([Reach.PUBLIC])
    monkeypatch.setattr(web, "reach_of", lambda address: next(first, None) or reach_of(address))
    failure_class, message = refused(site, tmp_path, f"/to.jsonl?{site.address}/file.jsonl")
    assert failure_class is FailureClass.BAD_INPUT
    assert "the server redirects to 127.0.0.1, which is 127.0.0.1, inside the network" in message
    assert len(site.seen) == 1


REACHES = {
    "1.1.1.1": Reach.PUBLIC,
    "2606:4700::1111": Reach.PUBLIC,
    "10.0.0.1": Reach.PRIVATE,
    "100.64.0.1": Reach.PRIVATE,
    "192.168.1.1": Reach.PRIVATE,
    "fd00::1": Reach.PRIVATE,
    "::ffff:10.0.0.1": Reach.PRIVATE,
    "127.0.0.1": Reach.MACHINE,
    "::1": Reach.MACHINE,
    "169.254.169.254": None,
    "fe80::1%eth0": None,
    "0.0.0.0": None,  # noqa: S104  nothing is bound
    "224.0.0.1": None,
}


@pytest.mark.parametrize(("address", "reach"), REACHES.items())
def test_how_far_inside_an_address_lies(address, reach):
    assert reach_of(address) is reach


@given(st.ip_addresses(), st.ip_addresses())
def test_guard_admits_what_lies_no_further_inside_than_the_start(start, then):
    guard, reach = Guard(), reach_of(str(start))
    assert is_admitted(guard, start) is (reach is not None)
    if reach is not None:
        assert is_admitted(guard, then) is (reach_of(str(then)) is not None and reach_of(str(then)) >= reach)


def is_admitted(guard, address):
    try:
        guard.admit("host", str(address))
    except StageFailure:
        return False
    return True


def test_service_of_the_cluster_may_send_on_to_another_one_and_nowhere_else_without_tls():
    guard = Guard()
    guard.admit_redirect("http://a.data.svc/f.jsonl", "http://b.data.svc.cluster.local/f.jsonl")
    guard.admit_redirect("http://a.data.svc/f.jsonl", "https://example.com/f.jsonl")
    for old, new in (
        ("http://a.data.svc/f.jsonl", "http://example.com/f.jsonl"),
        ("https://a.example/f.jsonl", "http://b.data.svc/f.jsonl"),
    ):
        with pytest.raises(StageFailure, match="without TLS"):
            guard.admit_redirect(old, new)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/f.jsonl",
        "http://a.data.svc.example.com/f.jsonl",
        "https://user:word@example.com/f.jsonl",
        "https://example.com/f.csv",
        "https://example.com/f",
        "ftp://example.com/f.jsonl",
        "file:///f.jsonl",
    ],
)
def test_url_that_the_contract_refuses(url):
    with pytest.raises(ValidationError):
        HttpFile(url=url, sha256=DIGEST)


def test_what_people_are_shown_of_a_url_has_no_signature():
    assert (
        shown_url("https://a.example:8443/d/f.jsonl?X-Signature=secret#x")
        == "https://a.example:8443/d/f.jsonl"
    )
