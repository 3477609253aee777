# SPDX-License-Identifier: Apache-2.0
"""Finds the file behind each split of the data set."""

import os
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from tuneyard_api.data_stores import ENV_SOURCE_STORE_TOKEN
from tuneyard_api.pod_contract import FailureClass, ResolvedDataset, ResolvedSource
from tuneyard_data.records import SUFFIXES, DataFile, suffix_of, wrong_suffix

from tuneyard_trainer.fetch import object_store
from tuneyard_trainer.fetch.data_store import fetch_from_data_store
from tuneyard_trainer.fetch.hub import fetch_data_file
from tuneyard_trainer.fetch.web import fetch_url, shown_url
from tuneyard_trainer.pod.failures import StageFailure, bad_input

SPLITS = ("training", "validation", "test")
_OF_ARROW = ("state.json", "dataset_dict.json")
"""Files beside the records of a data set in Arrow."""


def find_data_files(dataset: ResolvedDataset, cache: Path, downloads: Path) -> list[DataFile]:
    """One file for each split that the job names, in the order of SPLITS.

    `cache` keeps what comes from a hub, by commit; `downloads` is a folder for what comes from S3 or a URL.

    Raises:
        StageFailure: for the first split that has none.
    """
    return [_find(split, source, cache, downloads) for split, source in _sources(dataset)]


def _sources(dataset: ResolvedDataset) -> Iterator[tuple[str, ResolvedSource]]:
    for split in SPLITS:
        source = getattr(dataset, split)
        if source is not None:
            yield split, source


def _find(split: str, source: ResolvedSource, cache: Path, downloads: Path) -> DataFile:
    if source.s3 is not None:
        name = object_store.name_of(source.s3)
        path = downloads / f"{split}{suffix_of(source.s3.key) or ''}"
        object_store.fetch_object(source.s3, path, os.environ)
    elif source.http is not None:
        name = shown_url(source.http.url)
        path = downloads / f"{split}{suffix_of(name) or ''}"
        fetch_url(source.http, path)
    elif source.data_store is not None:
        name = f"{source.repo}/{source.path}"
        path = fetch_from_data_store(source, cache, os.environ.get(ENV_SOURCE_STORE_TOKEN) or None)
    elif source.repo is not None:
        name = f"{source.repo}/{source.path}"
        path = fetch_data_file(source, cache)
    else:
        path = _inside_folder(split, Path(source.path or ""))
        name = str(path)
    if suffix_of(name) is None:
        raise bad_input(f"dataset.{split}: {wrong_suffix(name)}")
    return DataFile(split, path, name)


def _inside_folder(split: str, path: Path) -> Path:
    """`path` itself, or the one data file of a folder."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise StageFailure(
            FailureClass.DATA_MISSING, f"dataset.{split}: {path}: there is no such file{_near(path)}"
        )
    if any((path / name).is_file() for name in _OF_ARROW):
        raise bad_input(
            f"dataset.{split}: {path}: this is what save_to_disk of Hugging Face's datasets writes; try"
            ' datasets.load_from_disk(FOLDER).to_parquet("train.parquet"), a file for each split'
        )
    files = sorted(child for child in path.iterdir() if suffix_of(child.name) and child.is_file())
    if not files:
        raise StageFailure(
            FailureClass.DATA_MISSING,
            f"dataset.{split}: {path}: no file here ends in {', '.join(SUFFIXES)}{_there(path)}",
        )
    if len(files) > 1:
        raise bad_input(
            f"dataset.{split}: {path}: the folder has {len(files)} data files; try pvc.path with one of"
            f" {', '.join(file.name for file in files[:8])}"
        )
    return files[0]


def _near(path: Path) -> str:
    parent = path.parent
    while not parent.is_dir() and parent != parent.parent:
        parent = parent.parent
    names = [child.name for child in parent.iterdir()]
    match = get_close_matches(path.name, names, n=1)
    return f"; did you mean {parent / match[0]}?" if match else _there(parent)


def _there(folder: Path) -> str:
    names = sorted(child.name for child in folder.iterdir())
    return f"; {folder} has {', '.join(names[:12]) or 'nothing'}"
