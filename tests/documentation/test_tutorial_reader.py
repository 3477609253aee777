# SPDX-License-Identifier: Apache-2.0
"""A tutorial that does not do what it says is found, and so is one whose commands no longer run."""

from pathlib import Path

import pytest
from support.pages import read_blocks, read_commands, run_page

PAGE = """# A page
```yaml title="a/file.txt"
one
```

```console
$ cat a/file.txt
one
$ X=two; \\
  echo $X
tw...
$ test "$X" = two
```

```sh
exit 7
```
"""


def problems(tmp_path: Path, page: str) -> list[str]:
    (tmp_path / "a").mkdir()
    (tmp_path / "page.md").write_text(page)
    return run_page(tmp_path / "page.md", tmp_path, {}, 10)


def test_files_are_saved_and_commands_share_one_shell(tmp_path: Path) -> None:
    assert problems(tmp_path, PAGE) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("one\n$ X", "two\n$ X"), "the page shows\ntwo\nit printed\none"),
        (("= two\n", "= three\n"), "ended with exit code 1"),
        (("$ test", "$ exit 0\n$ test"), "never came to its end"),
    ],
)
def test_what_differs_is_named(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    [found] = problems(tmp_path, PAGE.replace(*change))
    assert words in found
    assert "page.md:" in found


def test_a_page_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("```console\n$ sleep 60 & sleep 60\n```\n")
    [found] = run_page(tmp_path / "page.md", tmp_path, {}, 0.5)
    assert "page.md:2: $ sleep 60 & sleep 60\nnever came to its end" in found


def test_commands_know_their_lines(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(PAGE)
    file, console, shell = read_blocks(tmp_path / "page.md")
    assert (file.title, console.title, shell.language) == ("a/file.txt", "", "sh")
    assert [command.line for command in read_commands(console)] == [7, 9, 12]
