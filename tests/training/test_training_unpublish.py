# SPDX-License-Identifier: Apache-2.0
"""Taking back what a job published: all of it, only its own, and on from wherever an earlier try was killed; without PyTorch.

Every case is tried on a version of the store, and on a plain folder of a former release.
"""

import shutil

import pytest
from click.testing import CliRunner
from support.registry.kills import killed_before
from tuneyard_trainer.main import main
from tuneyard_trainer.registry import claim, publishers
from tuneyard_trainer.registry.claim import ClaimRegistry
from tuneyard_trainer.stages.unpublish import run_unpublish

FILES = {"adapter_config.json": "{}", "adapter_model.safetensors": "weights", "README.md": "card"}
DIGEST, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def registry(tmp_path):
    folder = tmp_path / "registry"
    folder.mkdir()
    return folder


@pytest.fixture(params=["stored", "plain"])
def put(request, registry):
    """Puts an adapter of these publishers under a name; returns the folder of its files."""

    def write(name, *uids):
        folder = registry / name
        if request.param == "stored":
            (registry / name).symlink_to(f".store/{name}/{DIGEST}")
            folder = registry / ".store" / name / DIGEST
        return fill(folder, *uids)

    return write


def fill(folder, *uids):
    folder.mkdir(parents=True)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    for uid in uids:
        publishers.sign(folder, uid)
    return folder


def unpublish(registry, uid):
    return ClaimRegistry(registry).unpublish("a", uid)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def left_in(registry):
    """All names, and all versions."""
    return [
        name
        for folder in (registry, registry / ".store", registry / ".store" / "a")
        if folder.is_dir()
        for name in names_in(folder)
        if name not in {".store", "a" if folder.name == ".store" else ""}
    ]


def test_what_the_job_published_is_gone_and_nothing_else(registry, put):
    put("a", "mine")
    put("b", "mine")
    fill(registry / ".a.tmp-pod-7", "mine")
    fill(registry / ".store" / "a" / f".{OTHER}.tmp-pod-9", "mine")
    fill(registry / ".a.tmp-pod-8", "other")
    assert unpublish(registry, "mine") == f"{registry}/a: removed"
    assert [name for name in left_in(registry) if name != "b"] == [".a.tmp-pod-8"]
    assert set(FILES) <= set(names_in(registry / "b"))


def test_again_or_before_anything_was_published_there_is_nothing_to_do(registry, put):
    put("a", "mine")
    unpublish(registry, "mine")
    assert "nothing of this job, the name is not there" in unpublish(registry, "mine")
    assert "is not there" in unpublish(registry / "sub", "mine")


@pytest.mark.parametrize("signed", [(), ("other",), ("mine-too",)])
def test_an_adapter_that_the_job_did_not_publish_stays(registry, put, signed):
    put("a", *signed)
    assert "the name holds what others published" in unpublish(registry, "mine")
    assert set(FILES) <= set(names_in(registry / "a"))


def test_what_two_jobs_published_goes_with_the_second(registry, put):
    put("a", "mine", "other")
    assert unpublish(registry, "mine").endswith("another job has published the same")
    assert names_in(registry / "a" / publishers.MARKS) == ["other"]
    assert "nothing of this job" in unpublish(registry, "mine")
    assert unpublish(registry, "other").endswith("removed")


def test_what_somebody_put_there_before_stays_when_a_job_that_published_the_same_goes(registry, put):
    publishers.sign_too(put("a"), "mine")
    assert unpublish(registry, "mine").endswith("another job has published the same")
    assert set(FILES) <= set(names_in(registry / "a"))


def test_a_version_that_was_replaced_goes_and_the_name_stays_with_the_other(registry, put):
    fill(registry / ".store" / "a" / OTHER, "mine")
    put("a", "other")
    assert (
        unpublish(registry, "mine")
        == f"{registry}/a: removed the version of this job; the name stands for another one"
    )
    assert set(FILES) <= set(names_in(registry / "a"))
    assert not (registry / ".store" / "a" / OTHER).exists()


def test_the_name_goes_with_the_version_that_replaced_another_and_that_one_stays(registry):
    before, now = (
        fill(registry / ".store" / "a" / d, who) for d, who in ((OTHER, "other"), (DIGEST, "mine"))
    )
    (registry / "a").symlink_to(f".store/a/{DIGEST}")
    assert unpublish(registry, "mine") == f"{registry}/a: removed"
    assert (before.is_dir(), now.exists(), (registry / "a").is_symlink()) == (True, False, False)


@pytest.mark.parametrize("others", [(), ("other",)])
def test_killed_at_any_step_it_continues_and_the_name_never_holds_a_part(registry, put, others):
    for number in range(80):
        shutil.rmtree(registry)
        registry.mkdir()
        put("a", "mine", *others)
        with killed_before(number) as steps:
            unpublish(registry, "mine")
        if not steps.is_dead:
            break
        if (registry / "a").exists():
            assert set(FILES) <= set(names_in(registry / "a"))
        unpublish(registry, "mine")
        assert left_in(registry) in ([["a"], ["a", DIGEST]] if others else [[]])
        assert not others or names_in(registry / "a" / publishers.MARKS) == ["other"]
    assert number >= (2 if others else 8)


def test_after_a_kill_an_adapter_that_another_job_published_since_stays(registry, put):
    folder = put("a", "mine")
    with killed_before(3):  # it is renamed, and not a file is deleted yet
        unpublish(registry, "mine")
    assert not folder.exists()
    fill(folder, "other")
    unpublish(registry, "mine")
    assert left_in(registry) in (["a"], ["a", DIGEST])
    assert set(FILES) <= set(names_in(registry / "a"))


def test_a_job_that_publishes_the_same_in_the_very_moment_keeps_it(registry, put, monkeypatch):
    put("a", "mine")
    real = claim._rename

    def rename(folder, name):
        if ".gone" in name.name:
            publishers.sign_too(folder, "other")
        real(folder, name)

    monkeypatch.setattr(claim, "_rename", rename)
    assert unpublish(registry, "mine").endswith("another job has published the same")
    assert left_in(registry) in (["a"], ["a", DIGEST])
    assert names_in(registry / "a" / publishers.MARKS) == ["other"]


def test_a_publisher_that_comes_a_moment_later_must_publish_again(registry, put):
    folder = put("a", "mine")
    unpublish(registry, "mine")
    with pytest.raises(FileNotFoundError):
        publishers.sign_too(folder, "other")
    assert left_in(registry) == []


def test_what_can_not_be_removed_is_said_with_an_exit_code_of_the_contract(
    registry, put, tmp_path, monkeypatch
):
    put("a", "mine")

    def refuse(_):
        raise PermissionError(13, "Permission denied", "adapter_config.json")

    monkeypatch.setattr(claim.shutil, "rmtree", refuse)
    assert run_unpublish(registry / "a", "mine", tmp_path / "log") == 13
    assert "Permission denied: 'adapter_config.json'" in (tmp_path / "log").read_text()
    monkeypatch.undo()
    assert run_unpublish(registry / "a", "mine", tmp_path / "log") == 0
    assert (tmp_path / "log").read_text() == f"{registry}/a: removed"


def test_the_command_is_what_the_pod_runs(registry, put, tmp_path, monkeypatch):
    put("a", "mine")
    monkeypatch.setenv("TUNEYARD_TERMINATION_LOG", str(tmp_path / "log"))
    done = CliRunner().invoke(main, ["unpublish", str(registry / "a"), "--uid", "mine"])
    assert (done.exit_code, done.output) == (0, f"{registry}/a: removed\n")
    assert left_in(registry) == []
