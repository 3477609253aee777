# SPDX-License-Identifier: Apache-2.0
"""Folders are there whole or not at all, also when two processes write the same one."""

import shutil

import pytest
from tuneyard_api import durable


def test_a_folder_that_another_process_removes_while_it_is_written_never_gets_its_name_in_part(
    tmp_path, monkeypatch
):
    target = tmp_path / "whole"
    real = shutil.rmtree

    def slow_rmtree(folder, *args, **more):
        """The other process is about to rename its folder when half of it is deleted."""
        for path in sorted(folder.glob("*"))[:1]:
            path.unlink()
            if first.exists():
                first.rename(target)
        real(folder, *args, **more)

    first = tmp_path / ".whole.tmp-other-1"
    first.mkdir()
    for name in ("a", "b"):
        (first / name).write_text(name)
    monkeypatch.setattr(shutil, "rmtree", slow_rmtree)
    with durable.folder_being_written(target) as second:
        assert not target.exists()
        for name in ("a", "b"):
            (second / name).write_text(name)
    assert sorted(path.name for path in target.iterdir()) == ["a", "b"]
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_a_folder_that_is_there_is_not_replaced(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole/a").write_text("a")
    with pytest.raises(OSError, match="not empty"), durable.folder_being_written(tmp_path / "whole"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]
