# SPDX-License-Identifier: Apache-2.0
"""The way from the publish stage's writer by adapter-sync to a server's answer: the real programs, on a claim and in real S3."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.adapter_servers import AdapterServer, running
from support.registry.s3_stores import BUCKET, versity_store
from support.tiny_adapters import write_adapter
from tuneyard_api.places import S3Prefix
from tuneyard_api.registry import Question, StoredBase, Trial, Version, hex_of, published_digest, trial_name
from tuneyard_local.network import pick_ports
from tuneyard_local.parts import build_parts
from tuneyard_local.progress import Progress
from tuneyard_trainer.registry.bucket import BucketRegistry
from tuneyard_trainer.registry.claim import ClaimRegistry
from tuneyard_trainer.registry.content import Content

pytestmark = pytest.mark.torch

WAIT_SECONDS = 180
COMMAND = [sys.executable, "-c", "from tuneyard_sync.main import main; main()"]
REPO = "org/random"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdapterServer]:
    with running("own", tmp_path_factory.mktemp("served")) as started:
        yield started


@dataclass
class Chain:
    """A registry with its writer, and adapter-sync beside a server."""

    registry: ClaimRegistry | BucketRegistry
    reads: Mapping[str, str]
    """What tells adapter-sync where the registry is, with credentials."""
    server: AdapterServer
    folder: Path
    status_port: int = 0

    @property
    def target(self) -> Path:
        return self.folder / "beside-the-server"

    def publish(self, name: str, seed: int, answer: str | None = None) -> Version:
        """A version of its own weights; `answer`: what the evaluation is said to have seen of it."""
        files = self.folder / f"trained-{name}-{seed}"
        if not files.exists():
            write_adapter(files, seed, base_model_name_or_path=REPO, revision="c0ffee")
        base = StoredBase(repo=REPO, revision="v1", commit="c0ffee")
        trial = answer and Trial(questions=(Question(prompt="the quick", answer=answer),), max_new_tokens=12)
        version = Version(
            name=name, digest=published_digest(files), base=base, method="lora", trial=trial or None
        )
        self.registry.publish(version, Content(files, lambda _: None), f"job-{seed}", replace=True)
        return version

    def right(self, name: str, seed: int) -> str:
        """What the server answers with these weights, loaded by their path under another name."""
        expected = f"expected-{name}-{seed}"
        folder = self.folder / expected
        if not folder.exists():
            write_adapter(folder, seed, base_model_name_or_path=self.server.model)
            assert self.server.load(expected, folder)[0] == 200
        return self.server.text(expected)

    @contextmanager
    def syncing(self) -> Iterator["subprocess.Popen[bytes]"]:
        self.status_port = pick_ports(["status"], random.SystemRandom())["status"]
        settings = {
            "TARGET_DIR": str(self.target),
            "BASE_REPO": REPO,
            "BASE_REVISION": "v1",
            "BASE_MODEL": self.server.model,
            "SERVER": "vllm",
            "SERVER_PORT": self.server.url.rpartition(":")[2],
            "INTERVAL_SECONDS": "0.1",
            "STATUS_PORT": str(self.status_port),
        }
        variables = {f"TUNEYARD_SYNC_{name}": value for name, value in settings.items()} | self.reads
        process = subprocess.Popen(COMMAND, env={"PATH": os.environ["PATH"]} | variables)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def wait_for_word(self, name: str, field: str, word: str) -> None:
        """Waits until adapter-sync says this of a name, so that it has tried; the name answers all the while."""
        until = time.monotonic() + WAIT_SECONDS
        while word not in self._row(name).get(field, ""):
            assert self.server.complete(name)[0] == 200
            assert time.monotonic() < until, self._row(name)
            time.sleep(0.05)

    def wait_until_gone(self, name: str) -> None:
        """Waits until the server has no such name: between two trials it must not."""
        until = time.monotonic() + WAIT_SECONDS
        while name in self.server.listed():
            assert time.monotonic() < until, "what was tried stays"
            time.sleep(0.05)

    def _row(self, name: str) -> dict[str, str]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self.status_port}/adapters", timeout=30) as answer:
                rows: list[dict[str, str]] = json.load(answer)["adapters"]
        except OSError:  # It has just been started.
            return {}
        return next((row for row in rows if row["name"] == name), {})

    def wait_for(self, name: str, text: str, *others: str) -> None:
        """Waits until the server answers so; until then it has no such adapter, or answers as one of `others`."""
        until = time.monotonic() + WAIT_SECONDS
        while True:
            status, answer = self.server.complete(name)
            found = answer["choices"][0]["text"] if status == 200 else None
            if found == text:
                return
            assert found in {None, *others}, "neither the version before nor the new one"
            assert (found is not None) == bool(others), "a name that was served is never gone"
            assert time.monotonic() < until, answer
            time.sleep(0.05)


@pytest.fixture(params=["claim", pytest.param("versitygw", marks=pytest.mark.cluster)])
def chain(request: pytest.FixtureRequest, tmp_path: Path, server: AdapterServer) -> Iterator[Chain]:
    if request.param == "claim":
        registry = ClaimRegistry(tmp_path / "registry")
        registry.root.mkdir()
        yield Chain(registry, {"TUNEYARD_SYNC_SOURCE_DIR": str(registry.root)}, server, tmp_path)
        return
    build_parts(["versitygw"], Progress())
    with versity_store(tmp_path / "store") as store:
        place = S3Prefix(bucket=BUCKET, prefix="team", endpoint=store.endpoint)
        reads = {"S3_BUCKET": BUCKET, "S3_PREFIX": "team", "S3_ENDPOINT": store.endpoint}
        settings = {f"TUNEYARD_SYNC_{name}": value for name, value in reads.items()}
        written = BucketRegistry.of(place, store.credentials, tmp_path)
        yield Chain(written, {**settings, **store.credentials}, server, tmp_path)


@pytest.fixture
def name(chain: Chain, request: pytest.FixtureRequest) -> Iterator[str]:
    """A name for this test alone, as all tests share a server."""
    own = request.node.name.replace("_", "-").replace("[", "-").rstrip("]")[-50:].strip("-")
    yield own
    chain.server.unload(own)


def test_a_published_adapter_is_served_replaced_and_rolled_back(chain: Chain, name: str) -> None:
    first_text, second_text = chain.right(name, 11), chain.right(name, 12)
    assert first_text != second_text
    with chain.syncing():
        first = chain.publish(name, 11)
        chain.wait_for(name, first_text)
        second = chain.publish(name, 12)
        chain.wait_for(name, second_text, first_text)
        assert hex_of(second.digest) in chain.server.listed()[name]["root"]
        assert chain.publish(name, 11) == first
        chain.wait_for(name, first_text, second_text)
        assert hex_of(first.digest) in chain.server.listed()[name]["root"]


def test_adapter_sync_that_is_killed_while_a_name_is_replaced_ends_with_the_new_version(
    chain: Chain, name: str
) -> None:
    first_text, second_text = chain.right(name, 13), chain.right(name, 14)
    with chain.syncing():
        chain.publish(name, 13)
        chain.wait_for(name, first_text)
    chain.publish(name, 14)
    rng = random.Random(3)
    for _ in range(6):
        with chain.syncing() as process:
            time.sleep(rng.uniform(0.3, 0.9))
            process.send_signal(signal.SIGKILL)
        assert chain.server.text(name) in {first_text, second_text}
    with chain.syncing():
        chain.wait_for(name, second_text, first_text)


def test_a_version_that_answers_otherwise_than_it_was_evaluated_never_takes_the_name(
    chain: Chain, name: str
) -> None:
    first_text, second_text = chain.right(name, 17), chain.right(name, 18)
    assert first_text != second_text
    with chain.syncing():
        chain.publish(name, 17)
        chain.wait_for(name, first_text)
        second = chain.publish(name, 18, answer=second_text)
        chain.wait_for(name, second_text, first_text)
        wrong = chain.publish(name, 19, answer="0123456789" * 4)
        chain.wait_for_word(name, "refused", f"{name} stays with {second.digest}")
        assert chain.server.text(name) == second_text
    with chain.syncing():
        chain.wait_for_word(name, "refused", f"{name} stays with {second.digest}")
        assert chain.server.text(name) == second_text
        chain.wait_until_gone(trial_name(name, wrong.digest))


@pytest.fixture
def fill(chain: Chain) -> Iterator[Callable[[], Path]]:
    """The server's folder is a file system of 1 MiB of its own; what is returned fills it and says with which file."""
    chain.target.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(chain.target)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets this user mount no small file system")

    def to_the_last_byte() -> Path:
        filler = chain.target / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(b"0" * 4096):
                pass
        assert shutil.disk_usage(chain.target).free == 0
        return filler

    try:
        yield to_the_last_byte
    finally:
        subprocess.run(["umount", "--lazy", str(chain.target)], check=True)


def test_on_a_full_disk_the_version_before_keeps_answering_until_there_is_room(
    chain: Chain, name: str, fill: Callable[[], Path]
) -> None:
    first_text, second_text = chain.right(name, 15), chain.right(name, 16)
    with chain.syncing():
        chain.publish(name, 15)
        chain.wait_for(name, first_text)
        filler = fill()
        chain.publish(name, 16)
        chain.wait_for_word(name, "problem", "No space left on device")
        assert chain.server.text(name) == first_text
        filler.unlink()
        chain.wait_for(name, second_text, first_text)
