# SPDX-License-Identifier: Apache-2.0
"""Adapter-sync in trouble: what is wrong is said once, the others go on, nothing half-written is seen, and it recovers."""

import errno
import itertools
import json
import shutil

import pytest
from support.registry.adapters import publish
from support.registry.bench import make_bench
from support.registry.kills import killed_before
from support.registry.vllm_stand_in import VllmStandIn, running
from tuneyard_api.pod_contract import ADAPTER_FILES
from tuneyard_api.registry import VERSION_FILE, StoredBase
from tuneyard_sync.sources import FolderSource

CONFIG, WEIGHTS = ADAPTER_FILES


def visible(target):
    """What a server can see: each name with its weights; every one is a whole adapter with the server's base."""
    found = {}
    for path in target.iterdir() if target.exists() else ():
        if not path.name.startswith("."):
            assert path.is_symlink()
            assert json.loads((path / CONFIG).read_text())["base_model_name_or_path"] == "/models/tiny"
            found[path.name] = (path / WEIGHTS).read_bytes()
    return found


DAMAGES = {
    "cut": lambda folder: (folder / WEIGHTS).write_bytes(b"on"),
    "altered": lambda folder: (folder / WEIGHTS).write_bytes(b"two"),
    "its configuration altered": lambda folder: (folder / CONFIG).write_text(
        (folder / CONFIG).read_text().replace('"r": 8', '"r": 9')
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_version_that_is_not_what_its_digest_says_is_left_out_until_it_is(bench, damage):
    version = publish(bench.registry, "a", b"one")
    publish(bench.registry, "b", b"other")
    whole = {name: (bench.registry / version.path / name).read_bytes() for name in ADAPTER_FILES}
    damage(bench.registry / version.path)
    status = {each.name: each for each in bench.run(3).adapters}
    assert f"(expected {version.digest}): they were cut or altered" in status["a"].problem
    assert status["a"].loaded is False
    assert bench.served() == {"b": b"other"}
    assert visible(bench.target) == {"b": b"other"}
    assert sum("cut or altered" in line for line in bench.lines) == 1
    for name, content in whole.items():
        (bench.registry / version.path / name).write_bytes(content)
    assert bench.of("a").problem is None
    assert bench.served() == {"a": b"one", "b": b"other"}
    assert "a: well again" in bench.lines


def test_a_damaged_new_version_leaves_the_old_one_where_it_is(bench):
    publish(bench.registry, "a", b"one")
    bench.run()
    second = publish(bench.registry, "a", b"two")
    (bench.registry / second.path / WEIGHTS).unlink()
    status = bench.run().adapters[0]
    assert (status.digest, status.loaded) == (second.digest, False)
    assert "No such file" in status.problem
    bench.vllm.restart()
    bench.run()
    assert bench.served() == visible(bench.target) == {"a": b"one"}


SAYINGS = {
    "another name": ({"name": "b"}, "the version says that it is b"),
    "another digest": ({"digest": f"sha256:{'0' * 64}"}, "the version says that it is a sha256:0000"),
    "nonsense": ({"base": 7}, "base"),
}


@pytest.mark.parametrize(("changes", "said"), SAYINGS.values(), ids=SAYINGS.keys())
def test_a_version_file_that_lies_keeps_what_was_there(bench, changes, said):
    publish(bench.registry, "a", b"one")
    bench.run()
    version = publish(bench.registry, "a", b"two")
    file = bench.registry / version.path / VERSION_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    assert said in bench.of("a").problem
    assert bench.served() == visible(bench.target) == {"a": b"one"}


def test_a_version_file_that_claims_another_base_than_its_configuration_is_refused(bench):
    version = publish(bench.registry, "a", b"one", base=StoredBase(repo="org/large", revision="v1"))
    file = bench.registry / version.path / VERSION_FILE
    file.write_text(file.read_text().replace("org/large", "org/tiny"))
    assert "names the base model org/large (expected org/tiny at v1)" in bench.of("a").problem
    assert bench.served() == {}


def test_a_link_out_of_the_registry_is_not_followed(bench, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    publish(tmp_path / "elsewhere", "a", b"secret")
    (bench.registry / "a").symlink_to(tmp_path / "elsewhere" / "a")
    version = publish(bench.registry, "b", b"one")
    weights = bench.registry / version.path / WEIGHTS
    weights.rename(tmp_path / "secret")
    weights.symlink_to(tmp_path / "secret")
    status = {each.name: each.problem for each in bench.run().adapters}
    assert "which is no version of a" in status["a"]
    assert WEIGHTS in status["b"]
    assert visible(bench.target) == {}


def test_a_registry_that_can_not_be_read_takes_nothing_away(bench):
    publish(bench.registry, "a", b"one")
    bench.run()
    bench.registry.rename(bench.registry.with_name("away"))
    bench.vllm.restart()
    status = bench.run(2)
    assert "registry" in status.registry_problem
    assert status.adapters[0].loaded
    assert bench.served() == visible(bench.target) == {"a": b"one"}
    assert [line for line in bench.lines if line.startswith("registry")] == [
        f"registry: registry {bench.registry}: No such file or directory"
    ]
    bench.registry.with_name("away").rename(bench.registry)
    assert bench.run().registry_problem is None


def test_a_server_that_is_away_gets_everything_when_it_comes(bench):
    publish(bench.registry, "a", b"one")
    port = bench.vllm.port
    away = VllmStandIn(port=0)
    with running(away):
        pass
    bench.vllm.port = away.port
    bench.start()
    status = bench.run(2)
    assert "does not answer" in status.server_problem
    assert visible(bench.target) == {"a": b"one"}
    assert len([line for line in bench.lines if line.startswith("server: ")]) == 1
    bench.vllm.port = port
    bench.start()
    assert bench.run().adapters[0].loaded


def test_what_the_server_refuses_is_reported_in_its_words_and_tried_again(bench):
    publish(bench.registry, "a")
    publish(bench.registry, "b")
    bench.vllm.refuses = {"a": "LoRA rank 64 is greater than max_lora_rank 32."}
    status = {each.name: each for each in bench.run().adapters}
    assert "500: LoRA rank 64 is greater than max_lora_rank 32." in status["a"].problem
    assert status["b"].loaded
    bench.vllm.refuses = {}
    assert bench.of("a").loaded


def test_a_server_that_does_not_allow_loading_is_recognized(bench):
    publish(bench.registry, "a")
    bench.vllm.allows_loading = False
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=true" in bench.of("a").problem


@pytest.mark.parametrize("root", ["/elsewhere/a", ""])
def test_a_name_that_the_server_uses_for_something_else_is_left_to_it(bench, root):
    publish(bench.registry, "a")
    publish(bench.registry, "tiny")
    bench.vllm.loaded["a"] = (root, b"other")
    status = {each.name: each.problem for each in bench.run().adapters}
    assert "the server has something else of this name" in status["a"]
    assert "the server has something else of this name (/models/tiny)" in status["tiny"]
    assert bench.served() == {"a": b"other"}
    (bench.registry / "a").unlink()
    bench.run()
    assert bench.served() == {"a": b"other"}, "only what came from here is unloaded"


class Full:
    """A registry whose first copies meet a full disk."""

    def __init__(self, registry, times):
        self.folder, self.times = FolderSource(registry), times

    def pointers(self):
        return self.folder.pointers()

    def fetch(self, version, folder):
        if version.name == "large" and self.times:
            self.times -= 1
            (folder / CONFIG).write_text("{")
            raise OSError(errno.ENOSPC, "No space left on device")
        self.folder.fetch(version, folder)


def test_a_full_disk_keeps_out_only_what_does_not_fit(bench):
    publish(bench.registry, "large")
    publish(bench.registry, "small", b"two")
    bench.start(source=Full(bench.registry, 2))
    problem = bench.of("large").problem
    assert problem == (
        f"{bench.target}: No space left on device; try a larger volume beside the server, or fewer adapters in the"
        " registry"
    )
    assert bench.served() == visible(bench.target) == {"small": b"two"}
    assert [path.name for path in (bench.target / ".store").iterdir()] == ["small"] or not any(
        (bench.target / ".store/large").iterdir()
    )
    bench.run(2)
    assert set(bench.served()) == {"large", "small"}


def test_a_file_in_the_way_of_a_name_keeps_out_that_name_alone_until_it_is_gone(bench):
    publish(bench.registry, "a")
    publish(bench.registry, "b", b"two")
    in_the_way = bench.target / ".store" / "a"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("")
    bench.start()
    assert bench.of("a").loaded is False
    assert bench.of("a").problem.startswith(f"{bench.target}: ")
    assert bench.served() == visible(bench.target) == {"b": b"two"}
    in_the_way.unlink()
    bench.run(2)
    assert set(bench.served()) == {"a", "b"}


def test_tries_become_rarer_and_a_new_version_is_tried_at_once(bench):
    version = publish(bench.registry, "a")
    (bench.registry / version.path / WEIGHTS).write_bytes(b"cut")
    fetched = []

    class Counted(FolderSource):
        def fetch(self, version, folder):
            fetched.append(bench.now)
            super().fetch(version, folder)

    sync = bench.start(source=Counted(bench.registry))
    for _ in range(200):
        bench.now += 2
        sync.run_once()
    gaps = [later - former for former, later in itertools.pairwise(fetched)]
    assert gaps[:6] == [2, 4, 8, 16, 32, 60]
    assert set(gaps[6:]) == {60}
    publish(bench.registry, "a", b"two")
    bench.now += 2
    sync.run_once()
    assert bench.served() == {"a": b"two"}


def test_killed_at_any_step_it_continues_and_nothing_half_written_is_seen(tmp_path):
    """A copy, a switch and a removal in one pass, killed before each change of the disk."""
    with running(VllmStandIn()) as vllm:
        for step in range(200):
            shutil.rmtree(tmp_path / "x", ignore_errors=True)
            bench = make_bench(tmp_path / "x", vllm)
            bench.start(keep_seconds=0.0)
            publish(bench.registry, "a", b"one")
            publish(bench.registry, "gone", b"gone")
            bench.run()
            publish(bench.registry, "a", b"two")
            publish(bench.registry, "b", b"new")
            (bench.registry / "gone").unlink()
            with killed_before(step) as steps:
                bench.run()
            seen = visible(bench.target)
            assert seen.get("a") in {b"one", b"two"}
            assert seen.get("b") in {None, b"new"}
            assert seen.get("gone") in {None, b"gone"}
            publish(bench.registry, "a", b"one")
            bench.start(keep_seconds=0.0)
            bench.run(2)
            assert bench.served() == {"a": b"one", "b": b"new"}, "also a version whose removal was killed"
            publish(bench.registry, "a", b"two")
            bench.run(2)
            assert visible(bench.target) == bench.served() == {"a": b"two", "b": b"new"}
            left = [path for path in bench.target.rglob(".*") if path.name != ".store"]
            assert left == []
            if not steps.is_dead:
                break
        assert step > 15, "so many changes there are"
