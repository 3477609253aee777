# SPDX-License-Identifier: Apache-2.0
"""Lets another name stand for a published version too, in a registry on a claim."""

import shutil
from pathlib import Path

from tuneyard_api.registry import MARKS, VERSION_FILE, Version, is_name, read_version

from tuneyard_trainer.pod.failures import bad_input
from tuneyard_trainer.registry.claim import ClaimRegistry
from tuneyard_trainer.registry.content import Content


def promote(root: Path, candidate: str, name: str, *, replace: bool) -> Version:
    """Store the version of `candidate` under `name`, and return it; both names stay.

    No job's deletion removes it, as whoever promotes has decided to keep it.

    Raises:
        StageFailure: BadInput, if there is no such candidate or a name is none; AdapterConflict, if `name` stands for
            another version and `replace` is false.
        OSError: what can't be read or written.
    """
    for word in (candidate, name):
        if not is_name(word):
            raise bad_input(f"{word!r} is no name of an adapter; try lower case letters, digits and -")
    folder = root / candidate
    if not folder.is_dir():
        raise bad_input(f"{folder}: nothing is published under this name")
    version = read_version(candidate, folder)

    def describe(target: Path) -> None:
        left_out = {*version.files, VERSION_FILE, MARKS}
        for path in folder.iterdir():
            if path.name not in left_out:
                shutil.copyfile(path, target / path.name)

    promoted = version.model_copy(update={"name": name})
    ClaimRegistry(root).publish(promoted, Content(folder.resolve(), describe), "", replace=replace)
    return promoted
