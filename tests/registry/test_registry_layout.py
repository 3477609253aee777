# SPDX-License-Identifier: Apache-2.0
"""The names of a registry and what a version says: what is written is read back, and nothing else counts as ours."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.registry.adapters import TINY, publish, write_adapter
from tuneyard_api.registry import (
    MAX_JSON_BYTES,
    StoredBase,
    Version,
    is_name,
    linked_digest,
    pointer_name,
    published_digest,
    read_version,
    version_path,
)

NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)
DIGESTS = st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True)


@given(NAMES, DIGESTS)
def test_a_link_names_its_digest_and_an_object_its_name(name, digest):
    assert linked_digest(name, version_path(name, digest)) == digest
    assert pointer_name(f"{name}.json") == name


LINKS = {
    "another name's": f".store/b/{'0' * 64}",
    "absolute": f"/registry/.store/a/{'0' * 64}",
    "upwards": f"../x/.store/a/{'0' * 64}",
    "no digest": ".store/a/latest",
    "a longer one": f".store/a/{'0' * 65}",
    "with its algorithm": f".store/a/sha256:{'0' * 64}",
    "with a line end": f".store/a/{'0' * 64}\n",
}


@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS.keys())
def test_other_links_are_none_of_a_registry(link):
    assert linked_digest("a", link) is None


@pytest.mark.parametrize(
    "key", ["a", "a.yaml", ".json", "A.json", "x/a.json", "../a.json", f"{'a' * 64}.json"]
)
def test_other_objects_are_no_pointers(key):
    assert pointer_name(key) is None


@pytest.mark.parametrize("name", ["", ".", "..", ".store", "a/b", "a\n", "-a", "a-", "Ü"])
def test_what_would_leave_the_folder_is_no_name(name):
    assert not is_name(name)


def test_a_version_says_the_same_after_it_was_written(tmp_path):
    version = publish(tmp_path, "a", method="lora", rank=8, job={"namespace": "ml", "name": "j", "uid": "1"})
    assert read_version("a", tmp_path / "a") == version
    assert json.loads(version.encode())["base"] == {"repo": "org/tiny", "revision": "v1", "commit": "c0ffee"}


def test_what_a_newer_release_adds_is_no_error():
    content = json.loads(Version(name="a", digest=f"sha256:{'0' * 64}", base=TINY).encode())
    assert Version.model_validate(content | {"later": 1}).base == TINY


def test_a_folder_of_a_former_release_is_what_its_files_say(tmp_path):
    folder = write_adapter(tmp_path / "a", base=StoredBase(repo="org/tiny"))
    version = read_version("a", folder)
    assert (version.digest, version.base) == (
        published_digest(folder),
        StoredBase(repo="org/tiny", name="org/tiny"),
    )


def test_a_configuration_of_any_size_is_not_read_into_memory(tmp_path):
    folder = write_adapter(tmp_path / "a", padding="x" * MAX_JSON_BYTES)
    with pytest.raises(ValueError, match=r"adapter_config.json has more than 1048576 bytes"):
        read_version("a", folder)


AT_V1 = StoredBase(repo="o/m", revision="v1")
FITS = {
    "the same revision": (AT_V1, StoredBase(repo="o/m", revision="v1", commit="c1"), True),
    "the commit that it was": (
        StoredBase(repo="o/m", revision="c1"),
        StoredBase(repo="o/m", revision="main", commit="c1"),
        True,
    ),
    "another revision": (AT_V1, StoredBase(repo="o/m", revision="v2", commit="c2"), False),
    "stored before revisions were": (AT_V1, StoredBase(repo="o/m", name="o/m"), True),
    "a server of any revision": (StoredBase(repo="o/m"), StoredBase(repo="o/m", revision="v2"), True),
    "another repository": (AT_V1, StoredBase(repo="o/n", revision="v1"), False),
    "a folder of that name": (StoredBase(name="m"), StoredBase(name="m"), True),
    "a folder of another name": (StoredBase(name="m"), StoredBase(name="n"), False),
    "a folder as the configuration says it": (StoredBase(name="m"), StoredBase(repo="m", name="m"), True),
    "a repository that is called like the folder": (
        StoredBase(name="m"),
        StoredBase(repo="m", revision="v1", commit="c1"),
        False,
    ),
    "a folder that is called like the repository": (
        StoredBase(repo="m", revision="v1"),
        StoredBase(name="m"),
        False,
    ),
}


@pytest.mark.parametrize(("server", "adapter", "expected"), FITS.values(), ids=FITS.keys())
def test_an_adapter_fits_the_server_of_its_base(server, adapter, expected):
    assert server.is_base_of(adapter) is expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"base_model_name_or_path": "o/m", "revision": "c1"}, StoredBase(repo="o/m", commit="c1")),
        ({"base_model_name_or_path": "o/m", "revision": None}, StoredBase(repo="o/m", name="o/m")),
        ({"base_model_name_or_path": "m"}, StoredBase(repo="m", name="m")),
    ],
)
def test_base_of_a_configuration(config, expected):
    assert StoredBase.of_config(config) == expected


@pytest.mark.parametrize("config", [{}, {"base_model_name_or_path": None}, {"base_model_name_or_path": ""}])
def test_a_configuration_without_a_base_is_refused(config):
    with pytest.raises(ValueError, match="has no base_model_name_or_path"):
        StoredBase.of_config(config)
