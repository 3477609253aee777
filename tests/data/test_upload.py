# SPDX-License-Identifier: Apache-2.0
"""`tuneyard upload`: a file that a job would take arrives, and what is printed names it in a job; another one stays here."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.nemo.double import NemoDouble, served
from support.registry.s3_stores import BUCKET, Store, moto_store
from tuneyard.main import cli
from tuneyard_api.data_stores import ENV_DATA_STORE_TOKEN
from tuneyard_api.job_inputs import Dataset
from tuneyard_api.pod_contract import ResolvedSource
from tuneyard_api.yaml_io import load
from tuneyard_trainer.fetch.data_store import fetch_from_data_store

# The hub's client sends files in a way that its own HTTP library warns about.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")
GOOD = [{"prompt": f"What is after {n}?\n", "completion": f"It is {n + 1}."} for n in range(12)]


@pytest.fixture
def double() -> NemoDouble:
    return NemoDouble()


@pytest.fixture
def address(double: NemoDouble) -> Iterator[str]:
    with served(double) as base:
        yield base


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with moto_store() as running:
        yield running


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in GOOD))
    return path


def upload(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["upload", *map(str, arguments)])


def printed(result: Result) -> Dataset:
    """The lines on standard output, as a job takes them."""
    content = load(result.stdout, "stdout").value
    return Dataset.model_validate(content["dataset"])


def test_what_is_printed_names_the_file_in_a_data_store(
    double: NemoDouble, address: str, file: Path, tmp_path: Path
) -> None:
    result = upload(file, "--data-store", address, "--repo", "team/answers")
    assert result.exit_code == 0, result.output
    source = printed(result).training.data_store
    assert source is not None
    assert (source.endpoint, source.repo, source.path) == (address, "team/answers", "training/answers.jsonl")
    resolved = ResolvedSource(data_store=source.endpoint, repo=source.repo, revision="main", path=source.path)
    assert fetch_from_data_store(resolved, tmp_path / "cache", None).read_bytes() == file.read_bytes()
    assert upload(file, "--data-store", address, "--repo", "team/answers").exit_code == 0
    assert double.store.namespaces == {"team"}


def test_what_is_printed_names_the_file_in_a_bucket(
    store: Store, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in store.credentials.items():
        monkeypatch.setenv(name, value)
    result = upload(file, "--s3", f"s3://{BUCKET}/team/answers.jsonl", "--endpoint", store.endpoint)
    assert result.exit_code == 0, result.output
    source = printed(result).training.s3
    assert source is not None
    assert (source.bucket, source.key, source.endpoint) == (BUCKET, "team/answers.jsonl", store.endpoint)
    stored = store.client().get_object(Bucket=source.bucket, Key=source.key)
    assert stored["Body"].read() == file.read_bytes()


def test_a_template_is_printed_too(address: str, tmp_path: Path) -> None:
    path = tmp_path / "qa.jsonl"
    path.write_text("".join(json.dumps({"q": f"q{n}", "a": "a"}) + "\n" for n in range(4)))
    place = ("--data-store", address, "--repo", "team/qa")
    assert upload(path, *place).exit_code == 1
    result = upload(path, *place, "--prompt", "{{ q }}", "--completion", " {{ a }}")
    assert result.exit_code == 0, result.output
    template = printed(result).template
    assert template is not None
    assert (template.prompt, template.completion) == ("{{ q }}", " {{ a }}")


def test_a_file_that_a_job_would_refuse_stays_here(double: NemoDouble, address: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "a"\n')
    result = upload(bad, "--data-store", address, "--repo", "team/answers")
    assert result.exit_code == 1
    assert f"{bad}:1:" in result.stderr
    assert result.stderr.endswith("nothing was uploaded\n")
    assert result.stdout == ""
    assert double.requests == []


def test_a_wrong_token_is_said_without_it(
    double: NemoDouble, address: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    double.token = "right-one"
    monkeypatch.setenv(ENV_DATA_STORE_TOKEN, "wrong-one")
    result = upload(file, "--data-store", address, "--repo", "team/answers")
    assert result.exit_code == 1
    assert f"team/answers of {address}: " in result.stderr
    assert f"try {ENV_DATA_STORE_TOKEN} with a token that may write" in result.stderr
    assert "wrong-one" not in result.output
    monkeypatch.setenv(ENV_DATA_STORE_TOKEN, "right-one")
    assert upload(file, "--data-store", address, "--repo", "team/answers").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "one of --data-store and --s3 is wanted; try one"),
        (("--data-store", "http://d"), "--data-store and --repo belong together"),
        (("--data-store", "http://d", "--repo", "answers"), "dataStore.repo: "),
        (("--s3", "s3://bucket/answers.txt"), "s3.key: "),
        (("--s3", "s3://b/a.jsonl", "--prompt", "p"), "--prompt and --completion belong together"),
    ],
)
def test_a_place_that_no_job_could_name_is_refused(file: Path, arguments: tuple[str, ...], said: str) -> None:
    result = upload(file, *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
