# SPDX-License-Identifier: Apache-2.0
"""What `make docs` sees: links and paths that lead nowhere, pages that nobody can reach. And the README's job file."""

import re
from pathlib import Path

import documentation
import pytest
from support.pages import read_blocks
from tuneyard_local.demo import main_job

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with two pages in docs/ and one program."""
    for name in ("REPOSITORY", "DOCS", "START"):
        here = getattr(documentation, name).relative_to(REPOSITORY)
        monkeypatch.setattr(documentation, name, tmp_path / here)
    for name, text in {
        "docs/README.md": "# Start\n[one](how-to/one.md#two-words)\n",
        "docs/how-to/one.md": "# One\n## Two words!\n[program](../../tools/it.py)\n```\n[not](a-link.md)\n```\n",
        "tools/it.py": "",
        "zensical.toml": 'nav = [{ "Start" = "README.md" }, { "One" = "how-to/one.md" }]',
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_page_whose_links_lead_somewhere_is_well(tree: Path) -> None:
    assert documentation.problems() == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[a](two.md)", "two.md is not there"),
        ("[a](../../tools/gone.py)", "../../tools/gone.py is not there"),
        ("[a](../../../passwd)", "../../../passwd is not there"),
        ("[a](one.md#three)", "one.md#three: the page has no such heading"),
        ("[a](#three)", "#three: the page has no such heading"),
        ("the module `tools/gone.py`", "`tools/gone.py` is not there"),
        ("the member `gone/src/gone_member/`", "`gone/src/gone_member/` is not there"),
    ],
)
def test_what_leads_nowhere_is_named_with_its_line(tree: Path, text: str, problem: str) -> None:
    page = tree / "docs/how-to/one.md"
    page.write_text(page.read_text() + text + "\n")
    assert documentation.problems() == [f"docs/how-to/one.md:7: {problem}"]


def test_places_that_a_reader_makes_and_addresses_of_the_web_are_let_be(tree: Path) -> None:
    page = tree / "docs/how-to/one.md"
    places = "`environments/dgx.yaml`, `tools/*.py`, `tools/<name>`, [web](https://example.com/x)\n"
    page.write_text(page.read_text() + places)
    assert documentation.problems() == []


def test_a_page_that_nothing_leads_to_is_named(tree: Path) -> None:
    (tree / "docs/alone.md").write_text("# Alone\n")
    assert documentation.problems() == [
        "docs/alone.md: no link from docs/README.md leads here",
        "docs/alone.md: zensical.toml's nav lacks it",
    ]


def test_files_outside_of_docs_come_along_and_links_lead_to_them(
    tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (tree / "CONTRIBUTING.md").write_text("# C\n[one](docs/how-to/one.md) [program](tools/it.py)\n")
    (tree / "docs/README.md").write_text("# Start\n[one](how-to/one.md) [c](../CONTRIBUTING.md#c)\n")
    site = tmp_path_factory.mktemp("site") / "docs"
    documentation.stage(site)
    assert "[c](repository/CONTRIBUTING.md#c)" in (site / "README.md").read_text()
    assert "[program](../repository/tools/it.py)" in (site / "how-to/one.md").read_text()
    copied = (site / "repository/CONTRIBUTING.md").read_text()
    assert copied == "# C\n[one](../how-to/one.md) [program](tools/it.py)\n"
    assert (site / "repository/tools/it.py").is_file()


def test_the_readme_shows_the_job_that_the_demo_applies() -> None:
    [job] = [block.text for block in read_blocks(REPOSITORY / "README.md") if block.language == "yaml"]
    assert job == main_job.JOB_FILE.read_text()


@pytest.mark.parametrize("page", sorted((REPOSITORY / "docs/adr").glob("*.md")), ids=lambda page: page.stem)
def test_a_decision_has_a_number_a_date_and_three_parts(page: Path) -> None:
    text = page.read_text()
    assert text.startswith(f"# {int(page.stem[:4])}. ")
    assert re.search(r"^Status: \w+ · Date: \d{4}-\d\d-\d\d", text, re.MULTILINE)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]
