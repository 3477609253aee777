# SPDX-License-Identifier: Apache-2.0
"""What the container is told by its environment; each mistake is one line with the variable's name."""

import pytest
from tuneyard_api.registry import StoredBase
from tuneyard_sync.settings import Settings

CLAIM = {
    "TUNEYARD_SYNC_SOURCE_DIR": "/registry",
    "TUNEYARD_SYNC_TARGET_DIR": "/adapters",
    "TUNEYARD_SYNC_BASE_REPO": "org/tiny",
    "TUNEYARD_SYNC_BASE_REVISION": "v1",
    "TUNEYARD_SYNC_BASE_MODEL": "org/tiny",
    "TUNEYARD_SYNC_SERVER": "vllm",
}


def test_what_is_left_out_has_its_default_and_other_variables_do_not_matter():
    settings = Settings.of(
        CLAIM | {"HOME": "/", "TUNEYARD_SYNC_S3_BUCKET": "", "TUNEYARD_SYNC_SERVER_PORT": "9000"}
    )
    assert (settings.server_port, settings.interval_seconds, settings.status_port) == (9000, 2.0, 9472)
    assert settings.base == StoredBase(repo="org/tiny", revision="v1")


MISTAKES = {
    "two registries": (
        {"S3_BUCKET": "adapters"},
        "give exactly one of TUNEYARD_SYNC_SOURCE_DIR and TUNEYARD_SYNC_S3_BUCKET",
    ),
    "no registry": ({"SOURCE_DIR": ""}, "give exactly one of TUNEYARD_SYNC_SOURCE_DIR"),
    "two bases": (
        {"BASE_NAME": "tiny"},
        "give exactly one of TUNEYARD_SYNC_BASE_REPO and TUNEYARD_SYNC_BASE_NAME",
    ),
    "no target": ({"TARGET_DIR": ""}, "TUNEYARD_SYNC_TARGET_DIR: Field required"),
    "another server": ({"SERVER": "tgi"}, "TUNEYARD_SYNC_SERVER: Input should be 'vllm' or 'nim'"),
    "no number": (
        {"INTERVAL_SECONDS": "soon"},
        "TUNEYARD_SYNC_INTERVAL_SECONDS: Input should be a valid number",
    ),
    "a word that is mistyped": (
        {"INTERVALL": "2"},
        "TUNEYARD_SYNC_INTERVALL: Extra inputs are not permitted",
    ),
}


@pytest.mark.parametrize(("changes", "expected"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_reported_with_the_name_of_its_variable(changes, expected):
    environ = CLAIM | {f"TUNEYARD_SYNC_{name}": value for name, value in changes.items()}
    with pytest.raises(ValueError) as refused:
        Settings.of(environ)
    assert expected in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_all_mistakes_are_reported_at_once():
    with pytest.raises(ValueError) as refused:
        Settings.of({"TUNEYARD_SYNC_SERVER": "x"})
    assert len(str(refused.value).splitlines()) == 3
