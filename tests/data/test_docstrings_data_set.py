# SPDX-License-Identifier: Apache-2.0
"""The docstring data set: splits that share nothing, the same bytes each time, records that the trainer reads."""

import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "docstrings" / "build.py"


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docstrings_build_under_test", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


BUILD = load_script()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as a person builds it, by a process of its own."""
    out = tmp_path_factory.mktemp("docstrings")
    subprocess.run([sys.executable, SCRIPT, out], check=True, timeout=120)
    return out


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Any]]:
    return dict(BUILD.build_splits(BUILD.find_modules()))


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_no_module_is_in_two_splits(splits: dict[str, list[Any]]) -> None:
    modules = {name: {record.module.top_level for record in records} for name, records in splits.items()}
    assert all(modules.values())
    assert not modules["train"] & modules["validation"]
    assert not modules["train"] & modules["test"]
    assert not modules["validation"] & modules["test"]


def test_no_prompt_and_no_answer_is_there_twice(splits: dict[str, list[Any]]) -> None:
    records = [record for split in splits.values() for record in split]
    assert len({record.prompt for record in records}) == len(records)
    assert len({record.completion.lower() for record in records}) == len(records)


def test_there_is_enough_to_learn_and_to_measure(splits: dict[str, list[Any]]) -> None:
    assert len(splits["train"]) >= 1500
    assert len(splits["validation"]) >= 100
    assert len(splits["test"]) >= 100
    first = {record.module.top_level for record in splits["test"][:64]}
    assert len(first) >= 3, "the first records of a split stand for all of it"


def test_the_corpus_of_the_base_model_holds_no_file_of_another_split() -> None:
    modules = BUILD.find_modules()
    corpus = set(BUILD.read_corpus(modules))
    held_out = [module for module in modules if BUILD.get_split(module.top_level) != "train"]
    assert len(corpus) > 100
    assert len(held_out) > 20
    for module in held_out:
        text = module.path.read_text(encoding="utf-8", errors="replace")
        assert len(text) < 200 or text not in corpus, module.name
    assert not any("\nSummary:" in text for text in corpus)


def test_a_second_process_writes_the_same_bytes(built: Path, tmp_path: Path) -> None:
    environment = {"PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, SCRIPT, tmp_path], check=True, timeout=120, env=environment)
    names = sorted(str(path.relative_to(built)) for path in built.rglob("*.json*"))
    assert names == [
        "chat/test.jsonl",
        "chat/train.jsonl",
        "manifest.json",
        "test.jsonl",
        "train.jsonl",
        "validation.jsonl",
    ]
    assert all((tmp_path / name).read_bytes() == (built / name).read_bytes() for name in names)


def test_records_are_plain_prompts_and_completions_within_their_bounds(built: Path) -> None:
    for split in BUILD.SPLITS:
        for record in read(built / f"{split}.jsonl"):
            assert set(record) == {"prompt", "completion"}
            prompt, completion = record["prompt"], record["completion"]
            assert prompt.startswith(("def ", "async def "))
            assert prompt.endswith("\nSummary:")
            assert len(prompt) < 450
            assert completion.startswith(" ")
            assert 16 <= len(completion.strip()) <= 80
            assert completion.isascii()
            assert completion.isprintable()
            assert completion.strip() not in prompt, "the answer stands in the prompt"


def test_chats_are_the_same_records_as_question_and_answer(built: Path) -> None:
    for split, count in BUILD.CHATS.items():
        chats = read(built / "chat" / f"{split}.jsonl")
        records = read(built / f"{split}.jsonl")[:count]
        assert len(chats) == len(records)
        for chat, record in zip(chats, records, strict=True):
            question, answer = chat["messages"]
            assert (question["role"], answer["role"]) == ("user", "assistant")
            assert f"{question['content']}\nSummary:" == record["prompt"]
            assert f" {answer['content']}" == record["completion"]


def test_the_manifest_agrees_with_the_files(built: Path) -> None:
    manifest = json.loads((built / "manifest.json").read_text())
    assert manifest["python"] == ".".join(map(str, sys.version_info[:3]))
    written = [*BUILD.SPLITS, *(f"chat/{name}" for name in BUILD.CHATS)]
    assert set(manifest["files"]) == {f"{name}.jsonl" for name in written}
    for name, facts in manifest["files"].items():
        assert facts["sha256"] == hashlib.sha256((built / name).read_bytes()).hexdigest()
        assert facts["records"] == len(read(built / name))


SOURCE = '''
def documented(a, b=(1, 2)):
    """Add two numbers to a third one.

    More text that is not wanted.
    """
    # why not
    return a + sum(b)

def only_a_docstring():
    """Say something and do nothing at all."""

def cut_in_two():
    """This sentence goes on in the
    next line and is of no use."""
    return 1

def marked_up():
    """Return the `value` of the thing."""
    return 1

def short():
    """Tiny."""
    return 1

class Holder:
    async def method(self, key: str) -> None:
        """Fetch the value of a key slowly."""
        return self.values[key]
'''


def test_what_becomes_a_record_and_what_does_not(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(SOURCE)
    records = list(BUILD.read_records(BUILD.find_modules(tmp_path)[0]))
    assert [(record.prompt, record.completion) for record in records] == [
        (
            "def documented(a, b=(1, 2)):\n    # why not\n    return a + sum(b)\nSummary:",
            " Add two numbers to a third one",
        ),
        (
            "async def method(self, key: str):\n    return self.values[key]\nSummary:",
            " Fetch the value of a key slowly",
        ),
    ]


def test_tests_and_machine_made_modules_are_left_out(tmp_path: Path) -> None:
    for name in (
        "a.py",
        "b/__init__.py",
        "b/test/c.py",
        "site-packages/d.py",
        "_sysconfigdata__linux.py",
        "no-name/e.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert [module.name for module in BUILD.find_modules(tmp_path)] == ["a", "b"]


def test_a_private_twin_is_in_the_split_of_the_public_module() -> None:
    def family(name: str) -> str:
        return str(BUILD.Module(name, Path()).top_level)

    assert family("_pydecimal") == family("decimal")
    assert family("_pyio") == family("io")
    assert family("_collections_abc") == family("collections_abc")
    assert family("json.decoder") == "json"


@pytest.mark.parametrize(
    ("module", "split"),
    [
        ("asyncio", "train"),
        ("json", "train"),
        ("http", "validation"),
        ("mailbox", "validation"),
        ("turtle", "test"),
        ("pydoc", "test"),
    ],
)
def test_splits_stay_as_they_were_when_the_base_model_was_trained(module: str, split: str) -> None:
    assert BUILD.get_split(module) == split


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["--help"]])
def test_a_wrong_call_prints_how_to_call_it(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert BUILD.main(arguments) == 2
    assert "usage" in capsys.readouterr().err
