# SPDX-License-Identifier: Apache-2.0
"""Publishing: whole, once, by digest, and over another adapter only if the job says so; without PyTorch."""

import os

from tuneyard_api.pod_contract import (
    EXIT_CODES,
    FailureClass,
    PublishFacts,
)
from tuneyard_api.registry import read_version
from tuneyard_trainer.registry import claim
from tuneyard_trainer.registry.claim import ClaimRegistry
from tuneyard_trainer.workspace import layout


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def written(registry):
    """When each file was written; of marks, only that they are there."""
    return {
        path: 0 if ".published-by" in str(path) else path.lstat().st_mtime_ns for path in registry.rglob("*")
    }


def again(pods, job):
    (pods.workspace / "results/publish.json").unlink(missing_ok=True)
    return pods.run("publish", job)


def stored(registry):
    """The folder of the version that the name stands for."""
    link = (registry / "demo-adapter").readlink()
    assert not link.is_absolute()
    return registry / link


def test_adapter_is_stored_by_digest_with_card_and_picture_and_nothing_else(trained, pods, tmp_path):
    code, result = pods.run("publish", trained())
    assert code == 0
    facts = PublishFacts.model_validate(result.facts)
    registry = tmp_path / "registry"
    assert names_in(registry) == [".store", "demo-adapter"]
    assert stored(registry) == registry / ".store/demo-adapter" / facts.digest.removeprefix("sha256:")
    assert names_in(registry / "demo-adapter") == [
        ".published-by",
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "loss.png",
        "metrics.jsonl",
        "prepare-report.json",
        "report.html",
        "report.md",
        "version.json",
    ]
    assert (facts.size_bytes, facts.path) == (2 + 7, str(registry / "demo-adapter"))
    assert (registry / "demo-adapter/loss.png").read_bytes().startswith(b"\x89PNG")
    card = (registry / "demo-adapter/README.md").read_text()
    for part in (
        facts.digest,
        "| loss, nats per learned token | 3.5000 | 1.2500 |",
        "base_model: base",
        "![Loss",
    ):
        assert part in card


def test_version_says_what_it_is(trained, pods, tmp_path):
    assert pods.run("publish", trained())[0] == 0
    version = read_version("demo-adapter", tmp_path / "registry/demo-adapter")
    assert version.digest.removeprefix("sha256:") == stored(tmp_path / "registry").name
    assert (version.base.name, version.base.repo, version.method, version.rank) == ("base", None, "lora", 4)
    assert (version.job.namespace, version.job.name, version.job.uid) == ("team", "demo", "1")


def test_publishing_again_changes_nothing(trained, pods, tmp_path):
    job = trained()
    first = pods.run("publish", job)[1].facts
    before = written(tmp_path / "registry")
    code, result = again(pods, job)
    assert (code, result.facts) == (0, first)
    assert written(tmp_path / "registry") == before


def test_who_published_it_is_marked_and_so_is_a_second_job_with_the_same(trained, pods, tmp_path):
    assert pods.run("publish", trained())[0] == 0
    marks = tmp_path / "registry/demo-adapter/.published-by"
    assert names_in(marks) == ["1"]
    assert again(pods, trained(uid="2"))[0] == 0
    assert names_in(marks) == ["1", "2"]


def test_an_adapter_that_is_taken_back_in_the_very_moment_is_published_again(
    trained, pods, tmp_path, monkeypatch
):
    assert pods.run("publish", trained())[0] == 0
    registry, real, late = ClaimRegistry(tmp_path / "registry"), claim.sign_too, ["1"]

    def sign_too(folder, uid):
        if late:
            registry.unpublish("demo-adapter", late.pop())
        real(folder, uid)

    monkeypatch.setattr(claim, "sign_too", sign_too)
    assert again(pods, trained(uid="2"))[0] == 0
    target = tmp_path / "registry/demo-adapter"
    assert names_in(target / ".published-by") == ["2"]
    assert (target / "adapter_model.safetensors").read_bytes() == b"weights"


def test_another_adapter_of_the_name_is_never_overwritten(trained, pods, tmp_path):
    assert pods.run("publish", trained())[0] == 0
    code, result = again(pods, trained(content=b"others!"))
    assert code == EXIT_CODES[FailureClass.ADAPTER_CONFLICT]
    assert "the name is taken by another adapter" in result.failure.message
    assert "try another publish.adapterName, or publish.replace: true" in result.failure.message
    assert (tmp_path / "registry/demo-adapter/adapter_model.safetensors").read_bytes() == b"weights"


def test_a_job_that_may_replace_moves_the_name_and_the_version_before_stays(trained, pods, tmp_path):
    assert pods.run("publish", trained())[0] == 0
    before = stored(tmp_path / "registry")
    assert again(pods, trained(content=b"others!", uid="2", replace=True))[0] == 0
    assert (tmp_path / "registry/demo-adapter/adapter_model.safetensors").read_bytes() == b"others!"
    assert (before / "adapter_model.safetensors").read_bytes() == b"weights"
    assert names_in(before.parent) == sorted([before.name, stored(tmp_path / "registry").name])


def test_earlier_versions_are_retired_as_the_runtime_says(trained, pods, tmp_path, capsys):
    retention = {"keepVersions": 0, "keepDays": 0}
    assert pods.run("publish", trained())[0] == 0
    before = stored(tmp_path / "registry")
    changes = {"content": b"others!", "uid": "2", "replace": True, "retention": retention}
    assert again(pods, trained(**changes))[0] == 0
    assert before.is_dir()  # its name left it just now, and a reader may still copy it
    for path in [before / "version.json", *(before / ".published-by").iterdir()]:
        os.utime(path, (1, 1))
    assert again(pods, trained(**changes))[0] == 0
    assert not before.exists()
    assert f"retired demo-adapter {before.name}" in capsys.readouterr().out


def test_what_can_not_be_retired_does_not_fail_the_job(trained, pods, tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(ClaimRegistry, "retire", refuse)
    assert pods.run("publish", trained(retention={"keepVersions": 0, "keepDays": 0}))[0] == 0
    assert "could not be retired: [Errno 13]" in capsys.readouterr().out


def test_a_full_registry_is_said_with_what_helps(trained, pods, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    job = trained()
    monkeypatch.setattr(claim.shutil, "copyfile", full)
    code, result = pods.run("publish", job)
    assert code == EXIT_CODES[FailureClass.DISK_FULL]
    assert result.failure.message == (
        f"{tmp_path}/registry: the registry is full (No space left on device); try a larger claim, or registryRetention in"
        " the runtime, which removes earlier versions"
    )
    assert names_in(tmp_path / "registry") == [".store"]
    monkeypatch.undo()
    assert again(pods, job)[0] == 0


def test_a_stored_version_that_was_altered_is_refused(trained, pods, tmp_path):
    job = trained()
    assert pods.run("publish", job)[0] == 0
    (stored(tmp_path / "registry") / "adapter_model.safetensors").write_bytes(b"cut")
    (tmp_path / "registry/demo-adapter").unlink()
    code, result = again(pods, job)
    assert code == EXIT_CODES[FailureClass.ADAPTER_CONFLICT]
    assert "was cut or altered after it was stored" in result.failure.message
    assert not (tmp_path / "registry/demo-adapter").exists()


def test_foreign_folder_of_the_name_is_a_conflict(trained, pods, tmp_path):
    (tmp_path / "registry/demo-adapter").mkdir(parents=True)
    (tmp_path / "registry/demo-adapter/mine.txt").write_text("keep")
    code, result = pods.run("publish", trained())
    assert code == EXIT_CODES[FailureClass.ADAPTER_CONFLICT]
    assert "there is no whole adapter" in result.failure.message
    assert (tmp_path / "registry/demo-adapter/mine.txt").read_text() == "keep"


def test_left_over_of_a_killed_publish_is_removed(trained, pods, tmp_path):
    job = trained()
    digest = layout.tuned_digest(pods.workspace / "adapter").removeprefix("sha256:")
    torn = tmp_path / f"registry/.store/demo-adapter/.{digest}.tmp-7"
    torn.mkdir(parents=True)
    (torn / "adapter_config.json").write_text("{")
    assert pods.run("publish", job)[0] == 0
    assert names_in(torn.parent) == [digest]


def test_failing_in_the_middle_leaves_nothing(trained, pods, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ValueError("card")

    monkeypatch.setattr("tuneyard_trainer.stages.publish.render_card", fail)
    assert pods.run("publish", trained())[0] == EXIT_CODES[FailureClass.BUG]
    assert names_in(tmp_path / "registry/.store/demo-adapter") == []


def test_digest_knows_names_and_contents(trained, pods):
    folder = pods.workspace / "adapter"
    trained()
    first = layout.tuned_digest(folder)
    (folder / "adapter_config.json").write_text("{}w")
    (folder / "adapter_model.safetensors").write_bytes(b"eights")
    assert layout.tuned_digest(folder) != first
    assert first.startswith("sha256:")


def test_without_training_there_is_nothing_to_publish(trained, pods):
    job = trained()
    (pods.workspace / "results/train.json").unlink()
    code, result = pods.run("publish", job)
    assert code == EXIT_CODES[FailureClass.BAD_INPUT]
    assert "run stage train first" in result.failure.message
