# SPDX-License-Identifier: Apache-2.0
"""Reads the code blocks of a documentation page and runs them as a reader would: in one shell, from top to bottom.

A block with a title (```yaml title="job.yaml") is a file that the reader saves. In a `console` block each line that
begins with `$ ` is a command, and the lines below it are what it prints, with `...` for what differs from run to run.
Blocks of all other languages are for reading.
"""

import ast
import doctest
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(
    r'^```(?P<language>\w*)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.DOTALL | re.MULTILINE
)
_DONE = "--- done with line"


def named_tests(cell: str) -> list[tuple[str, str]]:
    """File and name of each test in a cell of a table, which has nothing else."""
    named = re.findall(r"`(tests/[^`]+\.py)::(test_\w+)`", cell)
    assert cell == ", ".join(f"`{path}::{name}`" for path, name in named), cell
    return named


def names_of_tests(file: Path) -> set[str]:
    """The names of a file's tests."""
    tree = ast.parse(file.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    language: str
    title: str
    """Path of the file that the reader saves; empty for none."""
    text: str
    line: int
    """Line of the page on which its text begins."""


@dataclass(frozen=True)
class Command:
    """One command of a page."""

    words: str
    shown: str
    """Output that the page shows; empty when the page shows none, and then the command must succeed."""
    line: int


def read_blocks(page: Path) -> list[Block]:
    """All fenced blocks, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(found["language"], found["title"] or "", found["text"], text.count("\n", 0, found.start()) + 2)
        for found in _FENCE.finditer(text)
    ]


def read_commands(block: Block) -> Iterator[Command]:
    """The commands of a console block; a line that ends in a backslash goes on in the next one."""
    words: list[str] = []
    shown: list[str] = []
    start = block.line
    for number, line in enumerate(block.text.splitlines(), block.line):
        if words and words[-1].endswith("\\"):
            words.append(line)
        elif line.startswith("$ "):
            if words:
                yield Command("\n".join(words), "\n".join(shown), start)
            words, shown, start = [line.removeprefix("$ ")], [], number
        else:
            shown.append(line)
    if words:
        yield Command("\n".join(words), "\n".join(shown), start)


def run_page(page: Path, folder: Path, env: Mapping[str, str], seconds: float) -> list[str]:
    """Follow a page in `folder`; returns one text for each command that did not do what the page says."""
    script: list[str] = ["exec 2>&1"]
    commands: list[Command] = []
    for block in read_blocks(page):
        if block.title:
            script += [f"cat > '{block.title}' <<'END-OF-BLOCK'", block.text.rstrip("\n"), "END-OF-BLOCK"]
        elif block.language == "console":
            for command in read_commands(block):
                commands.append(command)
                script += [command.words, f'echo "{_DONE} {command.line}, exit code $?"']
    script += ["kill $(jobs -p) 2>/dev/null || true"]
    ran = subprocess.run(
        # It ends the whole process group, and what was printed until then is still read.
        ["timeout", "--kill-after=5", str(seconds), "bash", "-c", "\n".join(script)],
        cwd=folder,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return list(_differences(page, commands, ran.stdout))


def _differences(page: Path, commands: list[Command], printed: str) -> Iterator[str]:
    for command in commands:
        got, mark, printed = printed.partition(f"{_DONE} {command.line}, exit code ")
        code, _, printed = printed.partition("\n")
        where = f"{page.name}:{command.line}: $ {command.words}"
        if not mark:
            yield f"{where}\nnever came to its end; the last output was\n{got[-2000:]}"
            return
        if command.shown and not agrees(command.shown, got):
            yield f"{where}\nthe page shows\n{command.shown}\nit printed\n{got[-4000:]}"
        elif not command.shown and code != "0":
            yield f"{where}\nended with exit code {code}\n{got[-4000:]}"


def agrees(shown: str, printed: str) -> bool:
    """Whether an output is what a page shows; `...` stands for anything, white space at the ends counts for nothing."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return doctest.OutputChecker().check_output(shown.strip() + "\n", printed.strip() + "\n", flags)
