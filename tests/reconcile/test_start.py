# SPDX-License-Identifier: Apache-2.0
"""The start of the process: settings from flags and environment, and patience until the kinds are served."""

import asyncio
import logging

import pytest
from click.testing import CliRunner
from support.world.world import World
from tuneyard_api import names
from tuneyard_operator import main as entry
from tuneyard_operator.handlers.watching import build_registry, build_settings
from tuneyard_operator.ports import NotServedError
from tuneyard_operator.settings import Settings


def test_it_waits_aloud_and_once_until_the_crds_are_there(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world, tries = World(), 0
    monkeypatch.setattr(entry, "_RETRY_SECONDS", 0.01)

    async def not_yet(cluster: object, store: object) -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise NotServedError("finetunejobs of tuneyard.io are not served")

    monkeypatch.setattr(entry, "resync", not_yet)
    with caplog.at_level(logging.WARNING):
        asyncio.run(asyncio.wait_for(entry._first_sync(world.cluster, world.operator_store), 5))
    assert tries == 4
    assert caplog.messages == [
        "finetunejobs of tuneyard.io are not served; waits for manifests/crds to be applied"
    ]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings that the command line would have run with."""
    seen: list[Settings] = []

    async def operate(settings: Settings) -> None:
        seen.append(settings)

    monkeypatch.setattr(entry, "operate", operate)
    return seen


def test_flags_win_over_the_environment_and_both_over_defaults(started: list[Settings]) -> None:
    variables = {"TUNEYARD_OPERATOR_WORKERS": "5", "TUNEYARD_OPERATOR_RESYNC_SECONDS": "60"}
    result = CliRunner().invoke(entry.main, ["--workers", "7"], env=variables)
    assert result.exit_code == 0, result.output
    assert started == [Settings(workers=7, resync_seconds=60)]


@pytest.mark.parametrize(
    ("flag", "value"), [("--workers", "0"), ("--workers", "many"), ("--log-level", "loud")]
)
def test_a_setting_that_makes_no_sense_is_refused(started: list[Settings], flag: str, value: str) -> None:
    result = CliRunner().invoke(entry.main, [flag, value])
    assert result.exit_code == 2
    assert started == []
    assert flag.strip("-").split("-")[0] in result.output


def test_every_setting_is_in_the_help_with_its_variable() -> None:
    text = " ".join(CliRunner().invoke(entry.main, ["--help"]).output.split())
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in text
        assert f"TUNEYARD_OPERATOR_{name.upper()}" in text
        assert field.description


def test_kopf_writes_nothing_and_selects_on_the_server() -> None:
    settings = build_settings(300)
    assert settings.posting.enabled is False
    assert settings.peering.standalone is True
    essence = settings.persistence.diffbase_storage.build(body={"spec": {"a": 1}})
    assert settings.persistence.progress_storage.clear(essence=essence) == {}
    assert settings.persistence.diffbase_storage.fetch(body={}) is None
    assert settings.queueing.worker_limit is None, "a worker holds its slot until its object falls silent"
    assert settings.process.ultimate_exiting_timeout is None, "the watches may be begun anew"
    assert settings.watching.server_timeout == 300
    assert settings.watching.client_timeout == 310
    selected = {
        (selector.group, selector.any_name): label
        for selector, label in settings.watching.label_selectors.items()
    }
    assert selected == {("batch", "jobs"): names.LABEL_JOB, ("", "pods"): names.LABEL_JOB}
    registry = build_registry(
        World().operator_store, lambda: pytest.fail("logs in only when kopf asks"), lambda: None
    )
    assert len(registry._watching.get_all_handlers()) == 4
    assert not registry._changing.get_all_handlers(), "they would write annotations of kopf's own"
    assert not registry._spawning.get_all_handlers()
