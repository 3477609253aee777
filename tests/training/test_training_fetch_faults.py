# SPDX-License-Identifier: Apache-2.0
"""What servers and networks do on bad days, alike for data from S3 and by URL; authorities and proxies for hubs too."""

import hashlib
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from support.file_servers import FileServer, Proxy, context_of, running, write_certificate
from support.hub import COMMIT, running_hub
from tuneyard_api.pod_contract import FailureClass
from tuneyard_api.remote_files import HttpFile, S3Object
from tuneyard_trainer.fetch import patience
from tuneyard_trainer.fetch.object_store import fetch_object
from tuneyard_trainer.fetch.web import fetch_url
from tuneyard_trainer.pod.failures import StageFailure

pytest.importorskip("boto3")
CONTENT = b"".join(b'{"prompt": "say %d =", "completion": " %d"}\n' % (n, n) for n in range(400))
DIGEST = hashlib.sha256(CONTENT).hexdigest()
HALF = f"bytes={len(CONTENT) // 2}-"
FETCH_FROM_HUB = """
import sys, time
from pathlib import Path
time.sleep = lambda seconds: None  # huggingface_hub 2.4 asks five times more, in 23 s, also after a certificate that it refuses
from tuneyard_api.pod_contract import ResolvedSource
from tuneyard_trainer.fetch.hub import fetch_data_file
print(fetch_data_file(ResolvedSource(repo="team/data", revision="main", path="t.jsonl"), Path(sys.argv[1])).read_text())
"""


@pytest.fixture(autouse=True)
def slept(monkeypatch):
    """The pauses that were kept, without keeping them."""
    pauses = []
    monkeypatch.setattr(patience.time, "sleep", pauses.append)
    for name in (
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
        "no_proxy",
        "NO_PROXY",
        "AWS_CA_BUNDLE",
        "REQUESTS_CA_BUNDLE",
    ):
        monkeypatch.delenv(name, raising=False)
    return pauses


@pytest.fixture
def server(tmp_path, monkeypatch):
    write_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    server = FileServer(CONTENT, context_of(tmp_path))
    with running(server):
        yield server


@pytest.fixture(params=["web", "S3"])
def fetch(request, server, tmp_path):
    """Fetches the file and returns what is there."""

    def fetched(digest=DIGEST, **options):
        target = tmp_path / "downloads" / "t.jsonl"
        if request.param == "web":
            fetch_url(HttpFile(url=f"{server.address}/t.jsonl", sha256=digest), target, **options)
        else:
            place = S3Object(bucket="data", key="t.jsonl", endpoint=server.address)
            fetch_object(place, target, os.environ, **options)
        return target.read_bytes()

    return fetched


def test_a_body_that_breaks_off_goes_on_where_it_broke(fetch, server):
    server.troubles = ["break", "break"]
    assert fetch() == CONTENT
    assert server.asked[:2] == ["", HALF]
    assert len(server.asked) == 3


def test_a_file_that_changed_meanwhile_is_begun_again(fetch, server):
    server.troubles = ["break", "change"]
    assert fetch(hashlib.sha256(CONTENT[::-1]).hexdigest()) == CONTENT[::-1]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_in_trouble_is_asked_again(fetch, server, slept, status):
    server.troubles = [(status, ""), (status, "0")]
    assert fetch() == CONTENT
    assert slept == [1.0, 2.0]


def test_a_pause_that_is_asked_for_is_kept(fetch, server, slept):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    server.troubles = [(429, "7"), (503, date)]
    assert fetch() == CONTENT
    assert slept[0] == 7.0
    assert 50 < slept[1] <= 60


def test_a_long_pause_is_left_to_the_operator(fetch, server, slept):
    server.troubles = [(503, "3600")]
    with pytest.raises(StageFailure, match="answers 503") as caught:
        fetch()
    assert (caught.value.failure_class, slept) == (FailureClass.UPSTREAM, [])


def test_a_server_that_stays_in_trouble_is_unavailable(fetch, server, slept):
    server.troubles = [(503, "")] * 9
    with pytest.raises(StageFailure, match="answers 503") as caught:
        fetch()
    assert caught.value.failure_class is FailureClass.UPSTREAM
    assert len(server.asked) == 4


def test_a_body_that_always_breaks_off_says_how_far_it_came(fetch, server):
    server.troubles = ["break"] * 9
    with pytest.raises(StageFailure) as caught:
        fetch()
    assert caught.value.failure_class is FailureClass.UPSTREAM


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_is_not_asked_again(fetch, server, status):
    server.troubles = [(status, "")]
    with pytest.raises(StageFailure):
        fetch()
    assert len(server.asked) == 1


def test_the_limit_holds_over_all_parts(fetch, server):
    server.troubles = ["break"]
    with pytest.raises(StageFailure, match=f"a file may have {len(CONTENT) - 1}"):
        fetch(limit_bytes=len(CONTENT) - 1)


def test_parts_of_two_versions_are_noticed_by_the_digest(server, tmp_path):
    server.has_versions = False
    server.troubles = ["break", "change"]
    changed = HttpFile(url=f"{server.address}/t.jsonl", sha256=hashlib.sha256(CONTENT[::-1]).hexdigest())
    fetch_url(changed, tmp_path / "t.jsonl")
    assert (tmp_path / "t.jsonl").read_bytes() == CONTENT[::-1]
    assert server.asked == ["", HALF, ""]


def test_a_full_disk_is_no_failure_of_the_server(fetch, monkeypatch, slept):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tuneyard_trainer.fetch.limits.Download.take", full)
    with pytest.raises(OSError, match="No space left"):
        fetch()
    assert slept == []


def test_a_certificate_of_a_stranger_is_refused_at_once(fetch, monkeypatch, slept):
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(StageFailure, match=r"certificate is not trusted.*try SSL_CERT_FILE") as caught:
        fetch()
    assert (caught.value.failure_class, slept) == (FailureClass.BAD_INPUT, [])


def test_a_proxy_is_gone_through(fetch, server, monkeypatch):
    proxy = Proxy()
    with running(proxy):
        monkeypatch.setenv("HTTPS_PROXY", proxy.address)
        assert fetch() == CONTENT
    assert ("CONNECT", server.address.removeprefix("https://")) in proxy.seen


def test_a_host_without_proxy_is_asked_directly(fetch, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert fetch() == CONTENT


@pytest.mark.parametrize("is_trusted", [True, False])
def test_a_hub_has_the_same_authorities_and_proxies(tmp_path, is_trusted):
    write_certificate(tmp_path)
    proxy = Proxy()
    with running(proxy), running_hub(context=context_of(tmp_path)) as hub:
        hub.repositories = {("datasets", "team/data"): {"t.jsonl": CONTENT}}
        environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "HTTPS_PROXY": proxy.address}
        environ |= {"SSL_CERT_FILE": str(tmp_path / "cert.pem")} if is_trusted else {}
        done = subprocess.run(
            [sys.executable, "-c", FETCH_FROM_HUB, str(tmp_path / COMMIT)],
            env=environ | {"HF_ENDPOINT": hub.address},
            capture_output=True,
            text=True,
            check=False,
        )
    if is_trusted:
        assert done.stdout == CONTENT.decode() + "\n", done.stderr[-2000:]
    else:
        assert "certificate is not trusted" in done.stderr, done.stderr[-2000:]
    assert ("CONNECT", hub.address.removeprefix("https://")) in proxy.seen
