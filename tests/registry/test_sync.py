# SPDX-License-Identifier: Apache-2.0
"""What adapter-sync brings, loads and takes away while nothing goes wrong."""

import json
import urllib.request

from support.registry.adapters import publish, write_adapter
from tuneyard_api.pod_contract import ADAPTER_FILES
from tuneyard_api.registry import StoredBase
from tuneyard_sync.servers import FolderServer
from tuneyard_sync.status import StatusServer, SyncStatus


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_adapter_is_copied_with_the_servers_base_and_loaded_from_the_folder_of_its_digest(bench):
    version = publish(bench.registry, "a", b"one")
    status = bench.run()
    folder = bench.target / version.path
    assert names_in(folder) == sorted(ADAPTER_FILES)
    assert json.loads((folder / ADAPTER_FILES[0]).read_text()) == {
        "base_model_name_or_path": "/models/tiny",
        "r": 8,
        "peft_type": "LORA",
        "revision": "c0ffee",
    }
    assert (bench.target / "a").readlink().as_posix() == version.path
    assert bench.vllm.loaded == {"a": (str(folder), b"one")}
    assert [(each.name, each.digest, each.loaded, each.problem) for each in status.adapters] == [
        ("a", version.digest, True, None)
    ]


def test_a_new_name_is_loaded_plainly_and_a_new_version_in_place(bench):
    publish(bench.registry, "a", b"one")
    bench.run()
    second = publish(bench.registry, "a", b"two")
    bench.run()
    loads = [body for path, body in bench.vllm.asked if path == "/v1/load_lora_adapter"]
    assert [(body["lora_name"], body["load_inplace"]) for body in loads] == [("a", False), ("a", True)]
    assert loads[1]["lora_path"] == str(bench.target / second.path)
    assert bench.served() == {"a": b"two"}


def test_a_version_that_nothing_points_to_stays_while_the_server_has_it(bench):
    first = publish(bench.registry, "a", b"one")
    bench.run()
    publish(bench.registry, "a", b"two")
    bench.vllm.refuses = {"a": "out of memory"}
    status = bench.run(20)
    assert (bench.target / first.path).is_dir()
    assert "out of memory" in status.adapters[0].problem
    assert status.adapters[0].loaded is False


def test_files_of_a_version_that_is_replaced_stay_for_requests_that_are_being_answered(bench):
    """Such a request makes vLLM 0.32.0 read its version from disk again."""
    first = publish(bench.registry, "a", b"one")
    bench.run()
    second = publish(bench.registry, "a", b"two")
    bench.run()
    assert bench.served() == {"a": b"two"}
    bench.run(4)
    assert (bench.target / first.path / ADAPTER_FILES[1]).read_bytes() == b"one"
    bench.run(1)
    assert names_in(bench.target / ".store/a") == [second.path.rpartition("/")[2]]


def test_back_to_an_earlier_version_is_a_switch_of_the_pointer(bench):
    first = publish(bench.registry, "a", b"one")
    publish(bench.registry, "a", b"two")
    bench.run()
    publish(bench.registry, "a", b"one")
    bench.run()
    assert bench.vllm.loaded["a"] == (str(bench.target / first.path), b"one")


def test_what_the_registry_has_no_more_is_unloaded_and_removed(bench):
    publish(bench.registry, "a")
    publish(bench.registry, "b")
    bench.run()
    (bench.registry / "a").unlink()
    status = bench.run()
    assert list(bench.vllm.loaded) == ["b"]
    assert names_in(bench.target) == [".store", "b"]
    assert names_in(bench.target / ".store") == ["a", "b"], "a request may still read it"
    assert [each.name for each in status.adapters] == ["b"]
    bench.run(5)
    assert names_in(bench.target / ".store") == ["b"]


def test_after_a_restart_of_the_server_everything_is_loaded_again(bench):
    publish(bench.registry, "a", b"one")
    publish(bench.registry, "b", b"two")
    bench.run()
    bench.vllm.restart()
    assert all(each.loaded for each in bench.run().adapters)
    assert bench.served() == {"a": b"one", "b": b"two"}


def test_after_a_restart_of_the_container_nothing_is_copied_or_loaded_again(bench):
    publish(bench.registry, "a")
    bench.run()
    before = {path: path.stat().st_mtime_ns for path in bench.target.rglob("*")}
    bench.vllm.asked.clear()
    bench.start()
    assert bench.run().adapters[0].loaded
    assert [path for path, _ in bench.vllm.asked] == ["/v1/models"]
    assert {path: path.stat().st_mtime_ns for path in bench.target.rglob("*")} == before


def test_another_base_string_of_the_server_reaches_copies_that_are_there(bench):
    version = publish(bench.registry, "a")
    bench.run()
    sync = bench.start()
    object.__setattr__(sync.copies, "base_model", "/elsewhere")
    bench.run()
    config = json.loads((bench.target / version.path / ADAPTER_FILES[0]).read_text())
    assert config["base_model_name_or_path"] == "/elsewhere"


def test_only_adapters_of_the_servers_base_are_taken(bench):
    publish(bench.registry, "a")
    publish(bench.registry, "old", base=StoredBase(repo="org/tiny", revision="v0", commit="dead"))
    publish(bench.registry, "other", base=StoredBase(name="tiny"))
    publish(bench.registry, "prompt", method="pTuning")
    publish(bench.registry, "whole", files=("config.json", "model.safetensors"))
    status = bench.run()
    assert list(bench.vllm.loaded) == ["a"]
    assert status.others == {
        "old": "an adapter of org/tiny at v0; the server has org/tiny at v1",
        "other": "an adapter of tiny; the server has org/tiny at v1",
        "prompt": "no adapter, but what method pTuning makes",
        "whole": "no adapter, but what method sft makes",
    }


def test_a_name_that_now_belongs_to_another_base_leaves_the_server(bench):
    publish(bench.registry, "a")
    bench.run()
    publish(bench.registry, "a", b"two", base=StoredBase(name="other"))
    bench.run()
    assert bench.vllm.loaded == {}
    assert names_in(bench.target) == [".store"]


def test_a_folder_of_a_former_release_is_served_and_read_again_when_it_changes(bench):
    write_adapter(bench.registry / "a", b"one", StoredBase(repo="org/tiny"))
    assert bench.run().adapters[0].loaded
    assert bench.served() == {"a": b"one"}
    (bench.registry / "a" / ADAPTER_FILES[1]).write_bytes(b"other")
    bench.run()
    assert bench.served() == {"a": b"other"}


def test_a_server_that_looks_by_itself_keeps_what_it_may_still_read(bench):
    first = publish(bench.registry, "a", b"one")
    bench.start(server=FolderServer(), keep_seconds=300.0)
    assert bench.run().adapters[0].loaded is None
    publish(bench.registry, "a", b"two")
    bench.run(2)
    assert (bench.target / first.path).is_dir()
    assert (bench.target / "a" / ADAPTER_FILES[1]).read_bytes() == b"two"
    bench.run(2)
    assert not (bench.target / first.path).exists()
    assert bench.vllm.asked == []


def test_status_is_answered_as_json(bench):
    publish(bench.registry, "a")
    board = StatusServer(0)
    board.start()
    try:
        board.status = bench.run()
        with urllib.request.urlopen(f"http://127.0.0.1:{board.port}/adapters") as answer:
            assert SyncStatus.model_validate_json(answer.read()) == board.status
        with urllib.request.urlopen(f"http://127.0.0.1:{board.port}/healthz") as answer:
            assert answer.status == 200
    finally:
        board.stop()


def test_each_change_is_one_line_in_the_log(bench):
    version = publish(bench.registry, "a")
    bench.run(3)
    (bench.registry / "a").unlink()
    bench.run(3)
    assert bench.lines == [
        f"a: brought {version.digest}",
        f"a: loaded {version.digest}",
        "a: removed, as the registry has it no more for org/tiny at v1",
        "a: unloaded",
    ]
