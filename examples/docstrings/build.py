# SPDX-License-Identifier: Apache-2.0
"""Builds a data set that nobody here wrote: functions of the standard library and what their docstrings say.

A demo needs real text, and no hub can be counted on. Every Python brings about 10 MB of it: this script reads the
sources of the Python that runs it and writes prompt (signature and first lines of the body) and completion (first
line of the docstring). Nothing of it is committed. Splits are made by top-level module, so that a test prompt
never comes from a file that was trained on. Standard library only; the same Python gives the same bytes.

    python build.py OUT_DIR      writes train.jsonl, validation.jsonl, test.jsonl, manifest.json, and as chats, for models
                                 with a chat template, chat/train.jsonl and a short chat/test.jsonl
"""

import ast
import hashlib
import json
import platform
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "validation", "test")
FORMAT = 2
"""Counts changes of the records' format."""
PROMPT_END = "\nSummary:"
CHATS = {"train": None, "test": 16}
"""Splits that are written as chats too, and how many of their records; of the short one a CPU has soon answered all."""
MAX_BODY_LINES, MAX_BODY_CHARACTERS = 6, 240
MAX_SIGNATURE_CHARACTERS = 160
COMPLETION_CHARACTERS = range(16, 81)

EXCLUDED = frozenset(
    {
        "__phello__",
        "idlelib",
        "lib2to3",
        "pydoc_data",
        "site-packages",
        "dist-packages",
        "test",
        "tests",
        "turtledemo",
    }
)
"""Folders at any depth: tests, programs, data, a dead grammar, and what is not the standard library."""
GENERATED = re.compile(r"_sysconfigdata|_sysconfigdata_.*|sitecustomize|usercustomize|antigravity|this")
"""Modules that differ from machine to machine or hold no functions."""


@dataclass(frozen=True)
class Module:
    """One source file of the standard library."""

    name: str
    """Dotted name, such as `json.decoder`."""
    path: Path

    @property
    def top_level(self) -> str:
        """What the split is made by: `_pydecimal` and `decimal` count as one, as they share their texts."""
        first = self.name.split(".", 1)[0]
        return first.lstrip("_").removeprefix("py") if first.startswith("_py") else first.lstrip("_")


@dataclass(frozen=True)
class Record:
    """One example and the module that it is from."""

    module: Module
    prompt: str
    completion: str


def get_split(top_level: str) -> str:
    """Stable share of 80/10/10 by name alone, whatever else is in this Python."""
    bucket = int.from_bytes(hashlib.sha256(f"tuneyard:{top_level}".encode()).digest()[:4], "big") % 100
    return "train" if bucket < 80 else "validation" if bucket < 90 else "test"  # noqa: PLR2004


def find_modules(stdlib: Path | None = None) -> list[Module]:
    """The Python files of the standard library, sorted by name."""
    root = stdlib or Path(sysconfig.get_path("stdlib"))
    modules = []
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        # config-3.11-x86_64-linux-gnu and lib-dynload are no packages: their names are no identifiers.
        if (
            EXCLUDED.isdisjoint(parts)
            and all(p.isidentifier() for p in parts)
            and not GENERATED.fullmatch(parts[0])
        ):
            modules.append(Module(".".join(p for p in parts if p != "__init__") or "__init__", path))
    return sorted(modules, key=lambda module: module.name)


def read_corpus(modules: Iterable[Module]) -> Iterator[str]:
    """Source text of the training split, file by file: what the base model of the demo is pretrained on."""
    for module in modules:
        if get_split(module.top_level) == "train":
            yield module.path.read_text(encoding="utf-8", errors="replace")


def read_summary(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str | None:
    """The docstring's first line if it is a sentence of plain words, without its full stop; None if it is not."""
    lines = (ast.get_docstring(node) or "").splitlines()
    if not lines or (len(lines) > 1 and lines[1].strip()):
        return None  # The first line is cut in the middle of a sentence.
    line = " ".join(lines[0].split()).removesuffix(".")
    is_sentence = (
        len(line) in COMPLETION_CHARACTERS
        and line.isascii()
        and line.isprintable()
        and line[0].isupper()
        and line[-1].isalnum()
        and not re.search(r"[`<>{}|\\=]|->|\.\.|:\w+:|https?:|XXX|TODO", line)
    )
    return line if is_sentence else None


def build_prompt(node: ast.FunctionDef | ast.AsyncFunctionDef, source_lines: list[str]) -> str | None:
    """Signature and the first lines of the body after the docstring; None if nothing of the body is left."""
    keyword = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    signature = f"{keyword} {node.name}({ast.unparse(node.args)}):"
    if len(node.body) < 2 or len(signature) > MAX_SIGNATURE_CHARACTERS:  # noqa: PLR2004  docstring and one statement
        return None
    docstring, last = node.body[0], node.body[-1]
    lines = [
        line.rstrip() for line in source_lines[docstring.end_lineno or docstring.lineno : last.end_lineno]
    ]
    lines = [line for line in lines if line.strip()]
    indent = min((len(line) - len(line.lstrip()) for line in lines), default=0)
    body: list[str] = []
    for line in lines[:MAX_BODY_LINES]:
        body.append("    " + line[indent:])
        if sum(map(len, body)) > MAX_BODY_CHARACTERS:
            body.pop()
            break
    prompt = "\n".join([signature, *body]) + PROMPT_END
    is_plain = prompt.isascii() and prompt.replace("\n", "").isprintable()
    return prompt if body and is_plain else None


def read_records(module: Module) -> Iterator[Record]:
    """The documented functions and methods of one file, in the order of the file."""
    source = module.path.read_text(encoding="utf-8", errors="replace")
    try:
        tree = ast.parse(source)
    except SyntaxError:  # Templates and deliberately broken files.
        return
    lines = source.split("\n")  # as ast counts them: a form feed, which splitlines() ends a line at, is none
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for node in sorted(functions, key=lambda function: function.lineno):
        summary = read_summary(node)
        prompt = build_prompt(node, lines) if summary else None
        if summary and prompt:
            yield Record(module, prompt, f" {summary}")


def build_splits(modules: Iterable[Module]) -> dict[str, list[Record]]:
    """Records by split, in an order that mixes the modules, so that the first few of a split stand for all of it.

    A prompt or a completion that was there before is dropped: no answer is in two splits.
    """
    splits: dict[str, list[Record]] = {name: [] for name in SPLITS}
    seen: set[str] = set()
    for module in modules:
        for record in read_records(module):
            keys = {record.prompt, record.completion.lower()}
            if seen.isdisjoint(keys):
                splits[get_split(module.top_level)].append(record)
                seen |= keys
    return {
        name: sorted(records, key=lambda r: hashlib.sha256(r.prompt.encode()).digest())
        for name, records in splits.items()
    }


def as_completion(record: Record) -> dict[str, str]:
    """The record for a model that goes on with a text."""
    return {"prompt": record.prompt, "completion": record.completion}


def as_chat(record: Record) -> dict[str, list[dict[str, str]]]:
    """The record for a model that answers: the code is the question, and nothing else asks for anything."""
    question, answer = record.prompt.removesuffix(PROMPT_END), record.completion.strip()
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def write_data_set(out: Path, splits: dict[str, list[Record]]) -> dict[str, object]:
    """Writes the files of records and the manifest; returns the manifest."""
    (out / "chat").mkdir(parents=True, exist_ok=True)
    written = [(f"{name}.jsonl", records, as_completion) for name, records in splits.items()]
    written += [(f"chat/{name}.jsonl", splits[name][:count], as_chat) for name, count in CHATS.items()]
    files = {}
    for name, records, form in written:
        text = "".join(json.dumps(form(record)) + "\n" for record in records)
        (out / name).write_text(text, encoding="utf-8")
        files[name] = {
            "records": len(records),
            "modules": sorted({record.module.top_level for record in records}),
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
        }
    manifest: dict[str, object] = {
        "format": FORMAT,
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "license": "The texts are part of Python, under the PSF licence version 2",
        "files": files,
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


def main(arguments: list[str]) -> int:
    """The command line; exit code 2 for a wrong call, 1 when this Python has too little to learn from."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python build.py OUT_DIR", file=sys.stderr)
        return 2
    splits = build_splits(find_modules())
    counts = {name: len(records) for name, records in splits.items()}
    if min(counts.values()) < 50:  # noqa: PLR2004  fewer test records could not tell base from tuned
        print(
            f"too few records {counts}: is the standard library of {sys.executable} here as source?",
            file=sys.stderr,
        )
        return 1
    write_data_set(Path(arguments[0]), splits)
    print(f"{arguments[0]}: {counts} from Python {platform.python_version()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
