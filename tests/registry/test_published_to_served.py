# SPDX-License-Identifier: Apache-2.0
"""The way from the publish stage's writer by adapter-sync to a server's answer: on a claim and in real S3, to our server and to real vLLM.

All programs are the real ones, and have the variables of the rendered objects (`support.chain`).
"""

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from support.adapter_servers import AdapterServer, Kind, running
from support.chain import Chain
from support.registry.s3_stores import versity_store
from tuneyard_api.pod_contract import ADAPTER_FILES, FailureClass
from tuneyard_api.registry import hex_of, trial_name
from tuneyard_local.parts import build_parts
from tuneyard_local.progress import Progress
from tuneyard_local.vllm import missing_for_vllm
from tuneyard_trainer.pod.failures import StageFailure

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]

WEIGHTS = ADAPTER_FILES[1]
Servers = Callable[[Kind], AdapterServer]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """One server of each kind for all tests, started when the first of them asks."""
    started: dict[Kind, AdapterServer] = {}
    with ExitStack() as stack:

        def start(kind: Kind) -> AdapterServer:
            if kind not in started:
                folder = tmp_path_factory.mktemp(f"served-{kind}")
                started[kind] = stack.enter_context(running(kind, folder))
            return started[kind]

        yield start


IN_S3 = [
    pytest.param(("versitygw", "own"), id="versitygw-own", marks=pytest.mark.cluster),
    pytest.param(("versitygw", "vllm"), id="versitygw-vllm", marks=[pytest.mark.cluster, pytest.mark.long]),
]


@pytest.fixture(params=[pytest.param(("claim", "own"), id="claim-own"), *IN_S3])
def chain(request: pytest.FixtureRequest, tmp_path: Path, servers: Servers) -> Iterator[Chain]:
    """A registry on a claim or in versitygw, which is real S3, and our server or real vLLM."""
    where, kind = request.param
    if kind == "vllm" and (reason := missing_for_vllm()):
        pytest.skip(reason)
    if where == "claim":
        yield Chain.on_claim(servers(kind), tmp_path)
        return
    build_parts(["versitygw"], Progress())
    with versity_store(tmp_path / "store") as store:
        yield Chain.in_s3(servers(kind), tmp_path, store)


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
        stays = f"{name} stays with {second.digest}"
        chain.wait_for_words(stays, name, "refused")
        assert chain.server.text(name) == second_text
    with chain.syncing():
        chain.wait_for_words(stays, name, "refused")
        assert chain.server.text(name) == second_text
        chain.wait_until_gone(trial_name(name, wrong.digest))


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[:-1], lambda whole: bytes(len(whole))], ids=["cut", "altered"]
)
def test_what_was_damaged_after_its_digest_was_taken_is_never_served(
    chain: Chain, name: str, damage: Callable[[bytes], bytes]
) -> None:
    first_text, second_text = chain.right(name, 20), chain.right(name, 21)
    with chain.syncing():
        first = chain.publish(name, 20)
        chain.wait_for(name, first_text)
    second = chain.publish(name, 21)
    whole = chain.stored(second, WEIGHTS)
    chain.put(second, WEIGHTS, damage(whole))
    with chain.syncing():
        chain.wait_for_words(f"(expected {second.digest}): they were cut or altered", name)
        assert chain.server.text(name) == first_text
        assert chain.versions_beside(name) == {hex_of(first.digest)}
        chain.put(second, WEIGHTS, whole)
        chain.wait_for(name, second_text, first_text)


def test_a_name_that_another_job_uses_keeps_its_adapter(chain: Chain, name: str) -> None:
    text = chain.right(name, 22)
    with chain.syncing():
        chain.publish(name, 22)
        chain.wait_for(name, text)
        with pytest.raises(StageFailure, match="the name is taken by another adapter") as refused:
            chain.publish(name, 23, is_replacing=False)
        assert refused.value.failure_class is FailureClass.ADAPTER_CONFLICT
        time.sleep(1.0)
        assert chain.server.text(name) == text


WRONG = {
    "wrong-secret": {"AWS_SECRET_ACCESS_KEY": "told-to-nobody"},
    "unknown-key": {"AWS_ACCESS_KEY_ID": "AKIAWRONG"},
}


@pytest.mark.parametrize("chain", IN_S3, indirect=True)
@pytest.mark.parametrize("changes", WRONG.values(), ids=WRONG.keys())
def test_with_wrong_credentials_what_is_served_stays_until_they_are_right(
    chain: Chain, name: str, changes: dict[str, str]
) -> None:
    first_text, second_text = chain.right(name, 24), chain.right(name, 25)
    with chain.syncing():
        chain.publish(name, 24)
        chain.wait_for(name, first_text)
    chain.publish(name, 25)
    with chain.with_credentials(**changes).syncing():
        chain.wait_for_words("the store answers 40")
        assert "told-to-nobody" not in str(chain.told())
        assert chain.server.text(name) == first_text
    with chain.syncing():
        chain.wait_for(name, second_text, first_text)


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
        time.sleep(1.0)
        assert chain.server.text(name) == first_text
        filler.unlink()
        chain.wait_for(name, second_text, first_text)
