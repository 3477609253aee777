# SPDX-License-Identifier: Apache-2.0
"""Taking back what a job published: all of it, only its own, and on from wherever an earlier try was killed; without PyTorch."""

import shutil

import pytest
from click.testing import CliRunner
from tuneyard_trainer.main import main
from tuneyard_trainer.registry import publishers
from tuneyard_trainer.stages import unpublish as unpublishing
from tuneyard_trainer.stages.unpublish import run_unpublish, unpublish

FILES = {"adapter_config.json": "{}", "adapter_model.safetensors": "weights", "README.md": "card"}


@pytest.fixture
def registry(tmp_path):
    folder = tmp_path / "registry"
    folder.mkdir()
    return folder


def write(folder, *uids):
    folder.mkdir(parents=True)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    for uid in uids:
        publishers.sign(folder, uid)
    return folder


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_the_job_published_is_gone_and_nothing_else(registry):
    write(registry / "a", "mine")
    write(registry / "b", "mine")
    write(registry / ".a.tmp-pod-7", "mine")
    write(registry / ".a.tmp-pod-8", "other")
    assert unpublish(registry / "a", "mine") == f"{registry}/a: removed"
    assert names_in(registry) == [".a.tmp-pod-8", "b"]


def test_again_or_before_anything_was_published_there_is_nothing_to_do(registry):
    write(registry / "a", "mine")
    unpublish(registry / "a", "mine")
    assert "nothing of this job, the name is not there" in unpublish(registry / "a", "mine")
    assert "is not there" in unpublish(registry / "sub" / "a", "mine")


@pytest.mark.parametrize("signed", [(), ("other",), ("mine-too",)])
def test_an_adapter_that_the_job_did_not_publish_stays(registry, signed):
    write(registry / "a", *signed)
    assert "the name holds what others published" in unpublish(registry / "a", "mine")
    assert set(FILES) <= set(names_in(registry / "a"))


def test_what_two_jobs_published_goes_with_the_second(registry):
    write(registry / "a", "mine", "other")
    assert unpublish(registry / "a", "mine").endswith("another job has published the same")
    assert names_in(registry / "a" / publishers.MARKS) == ["other"]
    assert "nothing of this job" in unpublish(registry / "a", "mine")
    assert unpublish(registry / "a", "other").endswith("removed")


def test_what_somebody_put_there_before_stays_when_a_job_that_published_the_same_goes(registry):
    publishers.sign_too(write(registry / "a"), "mine")
    assert unpublish(registry / "a", "mine").endswith("another job has published the same")
    assert set(FILES) <= set(names_in(registry / "a"))


class KilledError(Exception):
    pass


def kill_before(patch, number):
    """SIGKILL before the step of this number; the steps are all that changes the registry."""
    left = [number]

    def guarded(real):
        def step(*args, **more):
            if left[0] == 0:
                raise KilledError
            left[0] -= 1
            return real(*args, **more)

        return step

    for name in ("leave", "erase", "_rename"):
        patch.setattr(unpublishing, name, guarded(getattr(unpublishing, name)))

    def remove(folder):
        for path in sorted(folder.rglob("*"), reverse=True):
            guarded(lambda path=path: path.rmdir() if path.is_dir() else path.unlink())()
        guarded(folder.rmdir)()

    patch.setattr(unpublishing.shutil, "rmtree", remove)


@pytest.mark.parametrize("others", [(), ("other",)])
def test_killed_at_any_step_it_goes_on_and_the_name_never_holds_a_part(registry, monkeypatch, others):
    for number in range(40):
        shutil.rmtree(registry)
        write(registry / "a", "mine", *others)
        with monkeypatch.context() as patch:
            kill_before(patch, number)
            try:
                unpublish(registry / "a", "mine")
                break
            except KilledError:
                pass
        if (registry / "a").exists():
            assert set(FILES) <= set(names_in(registry / "a"))
        unpublish(registry / "a", "mine")
        assert names_in(registry) == (["a"] if others else [])
        assert not others or names_in(registry / "a" / publishers.MARKS) == ["other"]
    assert number >= (2 if others else 8)


def test_after_a_kill_an_adapter_that_another_job_published_since_stays(registry, monkeypatch):
    write(registry / "a", "mine")
    with monkeypatch.context() as patch:
        kill_before(patch, 3)
        with pytest.raises(KilledError):
            unpublish(registry / "a", "mine")
    write(registry / "a", "other")
    unpublish(registry / "a", "mine")
    assert names_in(registry) == ["a"]
    assert set(FILES) <= set(names_in(registry / "a"))


def test_a_job_that_publishes_the_same_in_the_very_moment_keeps_it(registry, monkeypatch):
    write(registry / "a", "mine")
    real = unpublishing._rename

    def rename(folder, name):
        if name.name.startswith(".a.gone"):
            publishers.sign_too(folder, "other")
        real(folder, name)

    monkeypatch.setattr(unpublishing, "_rename", rename)
    assert unpublish(registry / "a", "mine").endswith("another job has published the same")
    assert names_in(registry) == ["a"]
    assert names_in(registry / "a" / publishers.MARKS) == ["other"]


def test_a_publisher_that_comes_a_moment_later_is_told_to_publish_again(registry):
    write(registry / "a", "mine")
    unpublish(registry / "a", "mine")
    with pytest.raises(FileNotFoundError):
        publishers.sign_too(registry / "a", "other")
    assert names_in(registry) == []


def test_what_can_not_be_removed_is_said_with_an_exit_code_of_the_contract(registry, tmp_path, monkeypatch):
    write(registry / "a", "mine")

    def refuse(_):
        raise PermissionError(13, "Permission denied", "adapter_config.json")

    monkeypatch.setattr(unpublishing.shutil, "rmtree", refuse)
    assert run_unpublish(registry / "a", "mine", tmp_path / "log") == 13
    assert "Permission denied: 'adapter_config.json'" in (tmp_path / "log").read_text()
    monkeypatch.undo()
    assert run_unpublish(registry / "a", "mine", tmp_path / "log") == 0
    assert (tmp_path / "log").read_text() == f"{registry}/a: removed"


def test_the_command_is_what_the_pod_runs(registry, tmp_path, monkeypatch):
    write(registry / "a", "mine")
    monkeypatch.setenv("TUNEYARD_TERMINATION_LOG", str(tmp_path / "log"))
    done = CliRunner().invoke(main, ["unpublish", str(registry / "a"), "--uid", "mine"])
    assert (done.exit_code, done.output) == (0, f"{registry}/a: removed\n")
    assert names_in(registry) == []
