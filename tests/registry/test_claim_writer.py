# SPDX-License-Identifier: Apache-2.0
"""Writing a registry on a claim: what readers see at each step, killed at each step, on a full disk, and what is retired."""

import errno
import multiprocessing
import os
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from support.registry.adapters import write_adapter
from support.registry.kills import killed_before
from support.registry.writing import adapter
from tuneyard_api.places import RegistryRetention
from tuneyard_api.pod_contract import ADAPTER_FILES, FailureClass
from tuneyard_api.registry import VERSION_FILE, published_digest, read_version
from tuneyard_sync.sources import FolderSource, RegistryError
from tuneyard_trainer.pod.failures import StageFailure
from tuneyard_trainer.registry import claim
from tuneyard_trainer.registry.claim import ClaimRegistry

DAY = 86_400.0
NOW = 1_800_000_000.0


@pytest.fixture
def registry(tmp_path):
    return ClaimRegistry(tmp_path / "registry")


@pytest.fixture
def publish(registry, tmp_path):
    """Publishes weights under a name, as the job of a uid; returns the version."""

    def put(name, weights, uid="mine", *, replace=False):
        version, content = adapter(tmp_path / "scratch", name, weights, uid)
        registry.publish(version, content, uid, replace=replace)
        return version

    return put


def digests_in(registry, name="a"):
    return {path.name for path in (registry.root / ".store" / name).glob("[!.]*")}


def read(registry, name="a"):
    """What adapter-sync reads: the version, checked against its files, without the version that it replaces."""
    version = FolderSource(registry.root).pointers().get(name)
    assert not isinstance(version, RegistryError), version
    if version is not None:
        folder = registry.root / version.path
        folder = folder if folder.is_dir() else registry.root / name
        assert published_digest(folder, ADAPTER_FILES) == version.digest
        version = version.model_copy(update={"replaces": None})
    return version


def test_readers_get_what_was_written(registry, publish):
    first = publish("a", b"one")
    assert read(registry) == first
    assert (first.job.uid, first.rank, str(first.base)) == ("mine", 8, "org/tiny at v1")


def test_a_taken_name_is_refused_and_replaced_only_when_the_job_says_so(registry, publish):
    first = publish("a", b"one")
    with pytest.raises(StageFailure, match="the name is taken by another adapter") as refused:
        publish("a", b"two", "other")
    assert refused.value.failure_class is FailureClass.ADAPTER_CONFLICT
    assert read(registry) == first
    second = publish("a", b"two", "other", replace=True)
    assert read(registry) == second
    assert digests_in(registry) == {first.digest[7:], second.digest[7:]}


def test_publishing_an_earlier_version_again_rolls_back_to_its_very_files(registry, publish):
    first = publish("a", b"one")
    before = (registry.root / first.path / ADAPTER_FILES[1]).stat().st_ino
    publish("a", b"two", "other", replace=True)
    publish("a", b"one", "third", replace=True)
    assert read(registry) == first
    assert (registry.root / first.path / ADAPTER_FILES[1]).stat().st_ino == before


def test_the_command_of_the_how_to_goes_back_to_an_earlier_version(registry, publish):
    page = (Path(__file__).parents[2] / "docs/how-to/replace-adapters.md").read_text()
    (command,) = [line for line in page.splitlines() if "mv -T" in line]
    first = publish("a", b"one")
    publish("a", b"two", "other", replace=True)
    script = f"NAME=a DIGEST={first.digest[7:]}\n{command}"
    subprocess.run(["sh", "-ec", script], cwd=registry.root, check=True)
    assert read(registry) == first


def test_who_is_not_admitted_writes_nothing(registry, tmp_path):
    def refuse(found):
        raise StageFailure(FailureClass.GATE_FAILED, f"not beside {found}")

    version, content = adapter(tmp_path / "scratch", "a", b"one")
    with pytest.raises(StageFailure, match="not beside None"):
        registry.publish(version, replace(content, admit=refuse), "mine", replace=True)
    assert list(registry.root.rglob("*")) == []


def test_a_version_is_admitted_beside_the_one_whose_name_it_takes(registry, publish, tmp_path, monkeypatch):
    """Another job takes the name while the files are stored: it is asked again, beside that one."""
    first, real, quicker, asked = publish("a", b"one"), claim.sign_too, [b"two"], []

    def sign_too(folder, uid):
        if quicker:
            weights = quicker.pop()
            publish("a", weights, "other", replace=True)
        real(folder, uid)

    monkeypatch.setattr(claim, "sign_too", sign_too)
    version, content = adapter(tmp_path / "third", "a", b"three")
    registry.publish(version, replace(content, admit=asked.append), "mine", replace=True)
    assert asked[0] == first
    assert [(each.digest, each.job.uid) for each in asked[1:]] == [(asked[1].digest, "other")]
    assert read(registry) == version


def test_a_link_that_somebody_else_made_is_a_conflict(registry, publish, tmp_path):
    write_adapter(tmp_path / "elsewhere")
    registry.root.mkdir()
    (registry.root / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StageFailure, match=r"it links to .*/elsewhere"):
        publish("a", b"one", replace=True)


def test_a_folder_of_a_former_release_becomes_a_version_when_it_is_replaced(registry, publish):
    former = write_adapter(registry.root / "a", b"old")
    digest = published_digest(former)
    second = publish("a", b"new", replace=True)
    assert read(registry) == second
    stored = registry.root / ".store" / "a" / digest[7:]
    assert read_version("a", stored).digest == digest
    assert read_version("a", stored).base.repo == "org/tiny"
    assert (stored / ADAPTER_FILES[1]).read_bytes() == b"old"


def test_a_folder_of_a_former_release_that_is_the_same_stays_as_it_is(registry, publish, tmp_path):
    version, _ = adapter(tmp_path / "scratch", "a", b"old")
    shutil.copytree(tmp_path / "scratch", registry.root / "a")
    assert publish("a", b"old") == version
    assert not (registry.root / "a").is_symlink()
    assert read(registry).digest == version.digest


@pytest.mark.parametrize("before", ["nothing", "a version", "a plain folder", "the same, altered name"])
def test_killed_at_any_step_a_reader_sees_one_whole_version_and_the_next_run_ends_it(
    registry, publish, before
):
    for number in range(120):
        shutil.rmtree(registry.root, ignore_errors=True)
        registry.root.mkdir()
        seen = {None}
        if before == "a version":
            seen = {publish("a", b"one", "other").digest}
        elif before == "a plain folder":
            # No rename puts a link in place of a folder: for one step the name is missing.
            seen |= {published_digest(write_adapter(registry.root / "a", b"old"))}
        elif before == "the same, altered name":
            publish("a", b"two", "other")
            (registry.root / "a").unlink()
        with killed_before(number) as steps:
            publish("a", b"two", replace=True)
        found = read(registry)
        wanted, _ = adapter(registry.root.parent / "scratch", "a", b"two")
        assert (found.digest if found else None) in seen | {wanted.digest}
        if not steps.is_dead:
            break
        assert read(registry) is None or found.digest in seen | {wanted.digest}
        assert publish("a", b"two", replace=True).digest == wanted.digest
        assert read(registry).digest == wanted.digest
        assert list((registry.root / ".store" / "a").glob(f".{wanted.digest[7:]}*")) == []
    assert number >= 6


def test_on_a_disk_that_is_full_at_any_step_nothing_is_torn_and_room_helps(registry, publish, monkeypatch):
    first = publish("a", b"one")
    places = ("folder_being_written", "write_link")
    for place in places:
        with monkeypatch.context() as patch:

            def full(*_, **__):
                raise OSError(errno.ENOSPC, "No space left on device")

            patch.setattr(claim.durable, place, full)
            with pytest.raises(StageFailure, match="the registry is full") as refused:
                publish("a", b"two", replace=True)
        assert refused.value.failure_class is FailureClass.DISK_FULL
        assert read(registry) == first
    second = publish("a", b"two", replace=True)
    assert read(registry) == second
    assert list((registry.root / ".store" / "a").glob(".*")) == list(registry.root.glob(".a*")) == []


def work(root, scratch, number):
    """A pod that publishes again and again, and unpublishes if its number is odd."""
    registry = ClaimRegistry(root)
    version, content = adapter(scratch / str(number), "a", b"%d" % (number % 3), str(number))
    for _ in range(20):
        with suppress_losses():
            registry.publish(version, content, str(number), replace=True)
        if number % 2:
            registry.unpublish("a", str(number))


@contextmanager
def suppress_losses():
    """A job that lost against others five times in a row says so; anything else is a fault."""
    try:
        yield
    except StageFailure as failure:
        if failure.failure_class is not FailureClass.UPSTREAM:
            raise


def test_pods_that_publish_and_unpublish_at_the_same_time_end_with_one_whole_version(registry, tmp_path):
    fork = multiprocessing.get_context("fork")
    pods = [fork.Process(target=work, args=(registry.root, tmp_path / "scratch", n)) for n in range(6)]
    for pod in pods:
        pod.start()
    for pod in pods:
        pod.join(240)
    assert [pod.exitcode for pod in pods] == [0] * 6
    assert read(registry) is not None
    assert [path.name for path in (registry.root / ".store" / "a").glob(".*")] == []


def old(registry, version, left_at, marked_at=0.0):
    folder = registry.root / version.path
    os.utime(folder / VERSION_FILE, (left_at, left_at))
    for mark in (folder / ".published-by").iterdir():
        os.utime(mark, (marked_at, marked_at))


@pytest.mark.parametrize(
    ("keep_versions", "keep_days", "gone"),
    [
        (0, 0, "123"),
        (1, 0, "12"),
        (2, 0, "1"),
        (3, 0, ""),
        (0, 2, "12"),
        (0, 3, "1"),
        (0, 4, ""),
        (2, 1, "1"),
    ],
)
def test_what_is_retired_by_count_and_age(registry, publish, keep_versions, keep_days, gone):
    versions = {name: publish("a", name.encode(), replace=True) for name in "1234"}
    for name, version in versions.items():
        old(registry, version, NOW - (4.5 - int(name)) * DAY)
    other = publish("b", b"1")
    old(registry, other, 0)
    found = registry.retire("a", RegistryRetention(keep_versions=keep_versions, keep_days=keep_days), NOW)
    assert sorted(found) == sorted(versions[name].digest[7:] for name in gone)
    assert digests_in(registry) == {
        version.digest[7:] for name, version in versions.items() if name not in gone
    }
    assert read(registry) == versions["4"]
    assert read(registry, "b") == other


NONE_KEPT = RegistryRetention(keep_versions=0, keep_days=0)


def test_what_is_in_use_is_never_retired(registry, publish):
    earlier, current = publish("a", b"one"), publish("a", b"two", replace=True)
    old(registry, current, 0)
    old(registry, earlier, NOW - 600)
    assert (
        registry.retire("a", NONE_KEPT, NOW) == []
    )  # its name left it ten minutes ago: a reader may copy it
    old(registry, earlier, 0, marked_at=NOW - 600)
    assert registry.retire("a", NONE_KEPT, NOW) == []  # a job published it ten minutes ago
    old(registry, earlier, 0)
    assert registry.retire("a", NONE_KEPT, NOW) == [earlier.digest[7:]]
    assert digests_in(registry) == {current.digest[7:]}


def test_replacing_notes_when_the_version_before_was_left(registry, publish):
    first = publish("a", b"one")
    old(registry, first, 0)
    publish("a", b"two", replace=True)
    assert (registry.root / first.path / VERSION_FILE).stat().st_mtime > 1e9


@pytest.mark.parametrize("comes", ["a rollback", "a publisher", "nobody"])
def test_a_version_that_a_job_comes_back_to_while_it_is_retired_stays(registry, publish, monkeypatch, comes):
    earlier = publish("a", b"one")
    publish("a", b"two", replace=True)
    old(registry, earlier, 0)
    real = claim._rename

    def rename(folder, name):
        if ".gone" in name.name:
            if comes == "a rollback":
                claim.durable.write_link(registry.root / "a", earlier.path)
            elif comes == "a publisher":
                claim.sign_too(folder, "late")
                os.utime(folder / ".published-by" / "late", (NOW, NOW))
        real(folder, name)

    monkeypatch.setattr(claim, "_rename", rename)
    gone = registry.retire("a", NONE_KEPT, NOW)
    assert gone == ([] if comes != "nobody" else [earlier.digest[7:]])
    assert (earlier.digest[7:] in digests_in(registry)) == (comes != "nobody")
    read(registry)


def test_retiring_that_is_killed_at_any_step_continues(registry, publish):
    for number in range(60):
        shutil.rmtree(registry.root, ignore_errors=True)
        earlier, current = publish("a", b"one"), publish("a", b"two", replace=True)
        old(registry, earlier, 0)
        with killed_before(number) as steps:
            registry.retire("a", NONE_KEPT, NOW)
        assert read(registry) == current
        registry.retire("a", NONE_KEPT, NOW)
        assert [path.name for path in (registry.root / ".store" / "a").iterdir()] == [current.digest[7:]]
        if not steps.is_dead:
            break
    assert number >= 4


def test_what_a_kill_left_behind_goes_after_an_hour(registry, publish):
    publish("a", b"one")
    torn = [registry.root / ".store" / "a" / f".{'c' * 64}.tmp-x", registry.root / ".a.tmp-x"]
    torn[0].mkdir()
    torn[1].symlink_to("nowhere")
    registry.retire("a", NONE_KEPT, torn[0].stat().st_mtime + 60)
    assert torn[0].exists()
    registry.retire("a", NONE_KEPT, torn[0].stat().st_mtime + 3700)
    assert not torn[0].exists()
    assert not torn[1].is_symlink()
