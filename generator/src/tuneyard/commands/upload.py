# SPDX-License-Identifier: Apache-2.0
"""`tuneyard upload`: brings a data file to where jobs can read it, once a job would take it, and says how a job names it."""

import os
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from tuneyard_api.data_stores import ENV_DATA_STORE_TOKEN, DataStoreFile
from tuneyard_api.job_inputs import DataSource, Template
from tuneyard_api.remote_files import S3File
from tuneyard_api.s3_clients import s3_client_settings
from tuneyard_api.yaml_io import dump

from tuneyard.commands.data import record_options

_ATTEMPTS = 4
_THERE = frozenset({409, 422})
"""What a Data Store answers to the creation of a namespace that it has."""
_CHARACTERS = 2048


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--data-store", metavar="URL", help="Address of a NeMo Data Store, without /v1.")
@click.option(
    "--repo", metavar="NAMESPACE/NAME", help="Data set of the Data Store; made where it is missing."
)
@click.option("--path", help="Path inside the data set; training/ and the file's name by default.")
@click.option("--s3", metavar="s3://BUCKET/KEY", help="Object of a bucket.")
@click.option("--endpoint", metavar="URL", help="Address of the S3 store; Amazon's by default.")
@click.option("--region", default="us-east-1", show_default=True, help="Region of the bucket.")
@record_options
def command(  # noqa: PLR0917  click passes them by name
    file: Path,
    data_store: str | None,
    repo: str | None,
    path: str | None,
    s3: str | None,
    endpoint: str | None,
    region: str,
    data_format: str,
    prompt: str | None,
    completion: str | None,
) -> None:
    """Check FILE as a job would, upload it, and print the lines that name it in a job.

    A token for the Data Store is read from TUNEYARD_DATA_STORE_TOKEN, keys of a bucket from AWS_ACCESS_KEY_ID and
    AWS_SECRET_ACCESS_KEY. A file that a job would refuse is not uploaded, and the exit code is 1.

    \b
    Examples:
      tuneyard upload answers.jsonl --data-store http://nemo-data-store:8000 --repo team/answers
      tuneyard upload answers.jsonl --s3 s3://data/team/answers.jsonl --endpoint http://versitygw-server.data:7070
    """
    if (data_store is None) == (s3 is None):
        raise click.UsageError("one of --data-store and --s3 is wanted; try one")
    if (data_store is None) != (repo is None):
        raise click.UsageError("--data-store and --repo belong together: they name a data set")
    if (prompt is None) != (completion is None):
        raise click.UsageError("--prompt and --completion belong together: they are one template")
    template = None if prompt is None else Template(prompt=prompt, completion=completion or "")
    source = _source(file, data_store, repo, path, s3, endpoint, region)
    _check(file, data_format, template)
    if source.data_store is not None:
        _to_data_store(file, source.data_store)
    elif source.s3 is not None:
        _to_bucket(file, source.s3)
    dataset: dict[str, Any] = {"training": source.model_dump(exclude_none=True, exclude_defaults=True)}
    if data_format != "auto":
        dataset["format"] = data_format
    if template is not None:
        dataset["template"] = template.model_dump()
    click.echo(dump({"dataset": dataset}), nl=False)


def _source(  # noqa: PLR0917  the options that name a place
    file: Path,
    data_store: str | None,
    repo: str | None,
    path: str | None,
    s3: str | None,
    endpoint: str | None,
    region: str,
) -> DataSource:
    """The place as a job names it, by the rules of a job."""
    place: dict[str, Any]
    if data_store is not None:
        place = {"dataStore": {"endpoint": data_store, "repo": repo, "path": path or f"training/{file.name}"}}
    else:
        bucket, _, key = (s3 or "").removeprefix("s3://").partition("/")
        place = {"s3": {"bucket": bucket, "key": key, "region": region}}
        place["s3"] |= {"endpoint": endpoint} if endpoint else {}
    try:
        return DataSource.model_validate(place)
    except ValidationError as error:
        said = [
            f"{'.'.join(map(str, each['loc']))}: {each['msg']} (got {each['input']})"
            for each in error.errors()
        ]
        raise click.UsageError("; ".join(said)) from None


def _check(file: Path, data_format: str, template: Template | None) -> None:
    """Say what is wrong with the data; end with exit code 1 where a job would refuse it."""
    try:
        from tuneyard_data.checking import check_files  # noqa: PLC0415  an extra, and NumPy
        from tuneyard_data.loading import Reading  # noqa: PLC0415
    except ImportError as error:
        raise _missing(error) from None
    reading = Reading(data_format, template, "completion", _CHARACTERS)
    checked = check_files({"training": [file]}, None, reading, has_page=False)
    for warning in checked.warnings:
        click.echo(f"warning: {warning}", err=True)
    for problem in checked.problems:
        click.echo(problem, err=True)
    if checked.problems:
        click.echo("nothing was uploaded", err=True)
        raise SystemExit(1)


def _to_data_store(file: Path, place: DataStoreFile) -> None:
    try:
        from huggingface_hub import HfApi, constants  # noqa: PLC0415  an extra
        from huggingface_hub.errors import HfHubHTTPError, HTTPError  # noqa: PLC0415
        from huggingface_hub.utils import get_session, hf_raise_for_status  # noqa: PLC0415
    except ImportError as error:
        raise _missing(error) from None
    constants.HF_HUB_DISABLE_XET = True  # The Data Store has LFS alone.
    token = os.environ.get(ENV_DATA_STORE_TOKEN) or "none"
    base = place.endpoint.rstrip("/")
    api = HfApi(endpoint=f"{base}/v1/hf", token=token)
    try:
        made = get_session().post(
            f"{base}/v1/datastore/namespaces",
            data={"namespace": place.repo.partition("/")[0]},
            headers={"Authorization": f"Bearer {token}"},
        )
        if made.status_code not in _THERE:
            hf_raise_for_status(made)
        api.create_repo(place.repo, repo_type="dataset", exist_ok=True)
        commit = api.upload_file(
            path_or_fileobj=file, path_in_repo=place.path, repo_id=place.repo, repo_type="dataset"
        )
    except (HfHubHTTPError, HTTPError, RuntimeError, OSError) as error:
        advice = (
            f"try {ENV_DATA_STORE_TOKEN} with a token that may write" if _is_denied(error) else "try again"
        )
        raise _failed(f"{place.repo} of {base}", error, advice) from None
    click.echo(f"uploaded {file} to {place.repo} of {base}, commit {commit.oid}", err=True)


def _to_bucket(file: Path, place: S3File) -> None:
    try:
        import boto3  # noqa: PLC0415  an extra
        from boto3.exceptions import Boto3Error  # noqa: PLC0415
        from botocore import UNSIGNED  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415
    except ImportError as error:
        raise _missing(error) from None
    settings = s3_client_settings(place.endpoint, place.region, os.environ, attempts=_ATTEMPTS)
    config = Config(**settings.config, **({} if settings.is_signed else {"signature_version": UNSIGNED}))
    where = f"s3://{place.bucket}/{place.key}"
    try:
        client = boto3.session.Session().client("s3", config=config, **settings.client)
        client.upload_file(str(file), place.bucket, place.key)
        arrived = client.head_object(Bucket=place.bucket, Key=place.key)["ContentLength"]
    except (Boto3Error, BotoCoreError, ClientError) as error:
        raise _failed(where, error, "try AWS_ACCESS_KEY_ID with a key that may write there") from None
    if arrived != file.stat().st_size:
        raise click.ClickException(
            f"{where}: {arrived} bytes have arrived of {file.stat().st_size}; try again"
        )
    click.echo(f"uploaded {file} to {where}", err=True)


def _is_denied(error: Exception) -> bool:
    answer = getattr(error, "response", None)
    return getattr(answer, "status_code", None) in {401, 403}


def _failed(where: str, error: Exception, advice: str) -> click.ClickException:
    said = " ".join(str(error.__cause__ or error).split())
    return click.ClickException(f"{where}: {said}; {advice}")


def _missing(error: ImportError) -> click.ClickException:
    name = (error.name or "tuneyard_data").partition(".")[0]
    return click.ClickException(f"{name} is not installed; try the extra tuneyard[upload]")
