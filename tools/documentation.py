# SPDX-License-Identifier: Apache-2.0
"""Checks every link of the hand-written pages and builds the documentation site.

zensical checks links between the pages of the site. It knows nothing outside of docs/, so this program checks what
README and docs say about the repository (links and paths in backticks), and copies the linked files into the site.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs"
START = DOCS / "README.md"
COPIES = "repository"
"""Folder of the site for files that pages link to and that lie outside of docs/."""
READERS_OWN = ("environments", "argocd-apps", "manifests", "jobs")
"""Folders in which pages name files that a reader makes: paths below them are examples."""

_FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
_PLACEHOLDER = re.compile(r"[<>*{$]|\.\.\.")


def pages() -> list[Path]:
    """Every Markdown page that a person reads: the root's and those of docs/."""
    return [*sorted(REPOSITORY.glob("*.md")), *sorted(DOCS.rglob("*.md"))]


def prose(page: Path) -> str:
    """The page without the insides of its code blocks; lines keep their numbers."""
    text = page.read_text(encoding="utf-8")
    return _FENCE.sub(lambda block: "\n" * block[0].count("\n"), text)


def links(page: Path) -> Iterator[tuple[int, str]]:
    """Line and target of each link that does not lead to the web."""
    text = prose(page)
    for match in _LINK.finditer(text):
        if not re.match(r"[a-z]+:", match[1]):
            yield text.count("\n", 0, match.start()) + 1, match[1]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as forges and the site make them."""
    titles = (re.sub(r"[^\w\s-]", "", title).strip().lower() for title in _HEADING.findall(prose(page)))
    return {re.sub(r"\s+", "-", title) for title in titles}


def named_paths(page: Path) -> Iterator[tuple[int, str]]:
    """Line and path of each file or folder of the repository that the page names in backticks."""
    roots = {path.name for path in REPOSITORY.iterdir()} - {*READERS_OWN}
    text = prose(page)
    for match in _CODE.finditer(text):
        path, _, _ = match[1].partition("::")
        is_ours = path.split("/")[0] in roots or "/src/" in path
        if "/" in path and " " not in path and is_ours and not _PLACEHOLDER.search(path):
            yield text.count("\n", 0, match.start()) + 1, path


def link_problems(page: Path) -> Iterator[str]:
    """One line for each link and each path of the page that leads nowhere."""
    where = page.relative_to(REPOSITORY)
    for line, target in links(page):
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or REPOSITORY not in (found, *found.parents):
            yield f"{where}:{line}: {target} is not there"
        elif anchor and anchor not in anchors(found):
            yield f"{where}:{line}: {target}: the page has no such heading"
    for line, path in named_paths(page):
        if not (REPOSITORY / path).exists():
            yield f"{where}:{line}: `{path}` is not there"


def unreachable() -> list[Path]:
    """Pages of docs/ that no chain of links from docs/README.md leads to."""
    seen, waiting = {START}, [START]
    while waiting:
        page = waiting.pop()
        targets = {(page.parent / target.partition("#")[0]).resolve() for _, target in links(page)}
        fresh = {
            path for path in targets - seen if path.suffix == ".md" and DOCS in path.parents and path.exists()
        }
        seen |= fresh
        waiting += fresh
    return sorted(set(DOCS.rglob("*.md")) - seen)


def outside_of_navigation() -> list[Path]:
    """Pages of docs/ that the navigation of zensical.toml does not name."""
    named = set(re.findall(r'= "([^"]+\.md)"', (REPOSITORY / "zensical.toml").read_text(encoding="utf-8")))
    return [page for page in sorted(DOCS.rglob("*.md")) if page.relative_to(DOCS).as_posix() not in named]


def problems() -> list[str]:
    """Everything that is wrong with the pages, one line each."""
    lost = {
        "no link from docs/README.md leads here": unreachable(),
        "zensical.toml's nav lacks it": outside_of_navigation(),
    }
    return [
        *(problem for page in pages() for problem in link_problems(page)),
        *(f"{page.relative_to(REPOSITORY)}: {why}" for why, found in lost.items() for page in found),
    ]


def stage(folder: Path) -> None:
    """Lay out the site's sources: docs/, and below `repository/` each file outside of it that a page links to."""
    shutil.copytree(DOCS, folder)
    waiting = sorted(DOCS.rglob("*.md"))
    copied = set(waiting)
    while waiting:
        page = waiting.pop()
        place = _place(page, folder)
        text = page.read_text(encoding="utf-8")
        for target in {target for _, target in links(page)}:
            path, mark, anchor = target.partition("#")
            found = (page.parent / path).resolve()
            if not path or (DOCS in found.parents and DOCS in page.parents):
                continue
            if found not in copied:
                copied.add(found)
                _place(found, folder).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(found, _place(found, folder))
                waiting += [found] if found.suffix == ".md" else []
            instead = os.path.relpath(_place(found, folder), place.parent)
            text = text.replace(f"]({target})", f"]({instead}{mark}{anchor})")
        place.write_text(text, encoding="utf-8")


def _place(path: Path, folder: Path) -> Path:
    """Where a file of the repository lies among the site's sources."""
    inside = path.relative_to(DOCS) if DOCS in path.parents else Path(COPIES) / path.relative_to(REPOSITORY)
    return folder / inside


def build(output: Path) -> int:
    """Build the site into `output`, which is replaced; the exit code of zensical in strict mode."""
    with tempfile.TemporaryDirectory(prefix="tuneyard-docs-") as name:
        folder = Path(name)
        stage(folder / "docs")
        shutil.copy(REPOSITORY / "zensical.toml", folder)
        ran = subprocess.run(["zensical", "build", "--strict"], cwd=folder, check=False)
        if ran.returncode == 0:
            shutil.rmtree(output, ignore_errors=True)
            shutil.copytree(folder / "site", output)
    return ran.returncode


def main() -> int:
    """Exit code 1 when a link leads nowhere, a page is not reachable or the build has a warning."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "site", help="folder for the built site")
    options = parser.parse_args()
    found = problems()
    if found:
        print("\n".join(found), file=sys.stderr)
        return 1
    return build(options.output)


if __name__ == "__main__":
    sys.exit(main())
