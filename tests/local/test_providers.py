# SPDX-License-Identifier: Apache-2.0
"""A provider says what it can't do, and an existing cluster is used only with the user's consent."""

from pathlib import Path

import pytest
from tuneyard_local.errors import ClusterError
from tuneyard_local.images import Image
from tuneyard_local.providers import (
    Existing,
    Kind,
    Native,
    allowed_contexts,
    has_docker,
    kind_config,
    provider_of,
)

OPTIONS = {"provider": "existing", "name": "x", "context": "dev", "nodes": 2, "gpus": 8}


def test_a_context_off_the_allow_list_is_refused_with_the_way_to_allow_it() -> None:
    provider = provider_of(OPTIONS, {"TUNEYARD_ALLOWED_CONTEXTS": "staging, test"})
    assert isinstance(provider, Existing)
    with pytest.raises(
        ClusterError, match=r"'dev' is not allowed .*staging, test.*export TUNEYARD_ALLOWED_CONTEXTS=dev"
    ):
        provider.require_allowed()


def test_a_context_on_the_allow_list_passes() -> None:
    Existing("x", "dev", allowed_contexts({"TUNEYARD_ALLOWED_CONTEXTS": "prod-no, dev"})).require_allowed()


def test_an_empty_allow_list_allows_nothing() -> None:
    assert allowed_contexts({}) == ()
    assert allowed_contexts({"TUNEYARD_ALLOWED_CONTEXTS": " ,"}) == ()


def test_an_existing_cluster_without_a_context_is_refused() -> None:
    with pytest.raises(ClusterError, match="needs --context"):
        provider_of({**OPTIONS, "context": None}, {})


def test_an_existing_cluster_is_not_given_images_by_hand() -> None:
    with pytest.raises(ClusterError, match="REGISTRY"):
        Existing("x", "dev", ("dev",)).load_images(Image("localhost/tuneyard/x:1", {}, ()))


def test_the_default_is_native_with_the_asked_size() -> None:
    provider = provider_of({**OPTIONS, "provider": "native"}, {})
    assert isinstance(provider, Native)
    assert (provider.options.nodes, provider.options.gpus) == (2, 8)


def test_kind_gets_one_worker_for_each_node() -> None:
    assert kind_config(2).count('"worker"') == 2


def test_a_docker_client_whose_daemon_does_not_answer_is_no_docker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docker").write_text("#!/bin/sh\necho 'Cannot connect' >&2\nexit 1\n")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert not has_docker()
    (tmp_path / "docker").write_text("#!/bin/sh\necho 28.2.2\n")
    assert has_docker()


def test_a_missing_kind_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ClusterError, match="kind is not on the search path"):
        Kind("x").load_images(Image("localhost/tuneyard/x:1", {}, ()))
