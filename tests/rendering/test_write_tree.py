# SPDX-License-Identifier: Apache-2.0
"""Writing: what is there afterwards is the rendered tree, or exactly what was there before."""

import os
from pathlib import Path
from typing import Any

import pytest
from tuneyard.disk.write import compare, is_inside, write
from tuneyard.findings import InputError
from tuneyard.render.files import File, index_of, yaml_file


def tree(**texts: str) -> tuple[File, ...]:
    """Files of the environment `e`: name -> value, with their index."""
    files = tuple(
        yaml_file(f"manifests/e/{name}/values.yaml", {"v": text}, "e", name)
        for name, text in sorted(texts.items())
    )
    return (*files, index_of(files, "e"))


def on_disk(root: Path) -> dict[str, str]:
    return {str(p.relative_to(root)): p.read_text() for p in sorted(root.rglob("*")) if p.is_file()}


def test_a_first_render_adds_everything_and_a_second_changes_nothing(tmp_path: Path) -> None:
    files = tree(a="1", b="2")
    assert len(write(files, "e", tmp_path).added) == 3
    assert on_disk(tmp_path) == {file.path: file.text for file in files}
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert not write(files, "e", tmp_path)
    assert times == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}


def test_what_is_no_longer_rendered_goes_with_its_empty_folder(tmp_path: Path) -> None:
    write(tree(a="1", b="2"), "e", tmp_path)
    assert write(tree(a="1"), "e", tmp_path).removed == ("manifests/e/b/values.yaml",)
    assert not (tmp_path / "manifests/e/b").exists()


def test_files_that_people_made_stay(tmp_path: Path) -> None:
    write(tree(a="1", b="2"), "e", tmp_path)
    note = tmp_path / "manifests/e/b/README.md"
    note.write_text("mine")
    (tmp_path / "manifests/e/a/values.yaml").write_text("mine: too\n")
    write(tree(), "e", tmp_path)
    assert on_disk(tmp_path).keys() == {
        "manifests/e/a/values.yaml",
        "manifests/e/b/README.md",
        "manifests/e/index.yaml",
    }


def test_a_person_s_file_in_the_way_stops_the_write(tmp_path: Path) -> None:
    path = tmp_path / "manifests/e/a/values.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("mine: true\n")
    with pytest.raises(
        InputError, match=r"manifests/e/a/values.yaml: a file that the generator did not write"
    ):
        write(tree(a="1", b="2"), "e", tmp_path)
    assert on_disk(tmp_path) == {"manifests/e/a/values.yaml": "mine: true\n"}


@pytest.mark.parametrize(
    "kind",
    [
        "file instead of a folder",
        "link instead of a folder",
        "folder instead of a file",
        "link instead of a file",
    ],
)
def test_what_is_no_file_of_this_tree_stops_the_write(tmp_path: Path, kind: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = tmp_path / "root/manifests/e/a"
    folder.parent.mkdir(parents=True)
    if kind == "file instead of a folder":
        folder.write_text("x")
    elif kind == "link instead of a folder":
        folder.symlink_to(elsewhere)
    elif kind == "folder instead of a file":
        (folder / "values.yaml").mkdir(parents=True)
    else:
        folder.mkdir()
        (folder / "values.yaml").symlink_to(elsewhere / "target")
    with pytest.raises(InputError, match="of this tree; try moving it away"):
        write(tree(a="1"), "e", tmp_path / "root")
    assert list(elsewhere.iterdir()) == []
    assert not (tmp_path / "root/manifests/e/index.yaml").exists()


def test_a_full_disk_half_way_leaves_the_tree_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tree(a="1", b="2"), "e", tmp_path)
    before = on_disk(tmp_path)
    opened, real = [], os.fdopen

    def full(handle: int, *arguments: Any, **named: Any) -> Any:
        opened.append(handle)
        if len(opened) == 2:
            os.close(handle)
            raise OSError(28, "No space left on device")
        return real(handle, *arguments, **named)

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(InputError, match="No space left on device; nothing was changed"):
        write(tree(a="3", c="4"), "e", tmp_path)
    monkeypatch.undo()
    assert on_disk(tmp_path) == before
    assert not (tmp_path / "manifests/e/c").exists()


def test_no_write_permission_is_an_error_and_not_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(InputError, match="can't be written: Permission denied"):
        write(tree(a="1"), "e", tmp_path)


def test_a_crash_between_renames_is_repaired_by_the_next_render(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tree(a="1", b="2"), "e", tmp_path)
    real, count = Path.replace, []

    def dying(self: Path, target: Path) -> Path:
        count.append(self)
        if len(count) == 2:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", dying)
    with pytest.raises(KeyboardInterrupt):
        write(tree(a="3", c="4"), "e", tmp_path)
    monkeypatch.undo()
    write(tree(a="3", c="4"), "e", tmp_path)
    assert {path: text for path, text in on_disk(tmp_path).items() if "/." not in path} == {
        f.path: f.text for f in tree(a="3", c="4")
    }


def test_a_check_touches_nothing(tmp_path: Path) -> None:
    assert compare(tree(a="1"), "e", tmp_path).added
    assert on_disk(tmp_path) == {}


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("manifests/e/a/values.yaml", True),
        ("argocd-apps/e/platform.yaml", True),
        ("manifests/other/a.yaml", False),
        ("manifests/e/../other/a.yaml", False),
        ("/etc/passwd", False),
        ("manifests/crds/a.yaml", False),
    ],
)
def test_an_index_can_t_name_files_of_others(path: str, inside: bool) -> None:
    assert is_inside(path, "e") is inside


def test_a_forged_index_removes_nothing_outside(tmp_path: Path) -> None:
    write(tree(a="1"), "e", tmp_path)
    victim = tmp_path / "manifests/crds/job.yaml"
    victim.parent.mkdir()
    victim.write_text("# Generated by `tuneyard render`; do not edit.\n")
    index = tmp_path / "manifests/e/index.yaml"
    index.write_text(
        index.read_text() + "  manifests/crds/job.yaml: abc\n  manifests/e/../crds/job.yaml: abc\n"
    )
    write(tree(a="1"), "e", tmp_path)
    assert victim.exists()
