# SPDX-License-Identifier: Apache-2.0
"""Data from S3, with the real client against moto, which answers as S3 does and checks signatures and policies."""

import json
import random
import subprocess
import sys
import time
import urllib.request

import pytest
from tuneyard_api.pod_contract import EXIT_CODES, FailureClass, PrepareFacts
from tuneyard_api.remote_files import S3Object
from tuneyard_local.network import pick_ports
from tuneyard_trainer.fetch.object_store import fetch_object, said_by_store
from tuneyard_trainer.pod.failures import StageFailure

boto3 = pytest.importorskip("boto3")
pytest.importorskip("moto")
RECORDS = [{"prompt": f"say {n} =", "completion": f" {n}"} for n in range(12)]
CONTENT = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()
POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::data/team/*"}],
}
SETUP_CALLS = "6"
"""So many calls are answered to anyone; from then on moto looks at signatures and policies."""


@pytest.fixture(scope="module")
def store():
    """Address and credentials of a store with one bucket, of which one folder may be read."""
    port = pick_ports(["moto"], random.SystemRandom())["moto"]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        env={"PATH": "/usr/bin", "INITIAL_NO_AUTH_ACTION_COUNT": SETUP_CALLS, "HOME": "/nonexistent"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/moto-api/data.json")
        options = {
            "endpoint_url": address,
            "region_name": "us-east-1",
            "aws_access_key_id": "setup",
            "aws_secret_access_key": "setup",
        }
        iam, s3 = boto3.client("iam", **options), boto3.client("s3", **options)
        iam.create_user(UserName="reader")
        iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=json.dumps(POLICY))
        key = iam.create_access_key(UserName="reader")["AccessKey"]
        s3.create_bucket(Bucket="data")
        s3.put_object(Bucket="data", Key="team/train.jsonl", Body=CONTENT)
        s3.put_object(Bucket="data", Key="others/train.jsonl", Body=CONTENT)
        yield (
            address,
            {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]},
        )
    finally:
        process.terminate()
        process.wait(120)


def wait_for(address):
    until = time.monotonic() + 180
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def source(address, key="team/train.jsonl", bucket="data"):
    return S3Object(bucket=bucket, key=key, endpoint=address)


def test_prepare_reads_training_data_from_a_bucket(store, model_files, job_of, pods, monkeypatch):
    address, credentials = store
    for name, value in credentials.items():
        monkeypatch.setenv(name, value)
    s3 = source(address).model_dump()
    job = job_of(model_files, model_files, dataset={"training": {"s3": s3}})
    code, result = pods.run("prepare", job)
    assert code == 0, result.failure
    assert PrepareFacts.model_validate(result.facts).train_records == 9
    report = json.loads((pods.workspace / "prepare-report.json").read_text())
    assert report["splits"]["training"]["file"] == "s3://data/team/train.jsonl"
    assert not (pods.workspace / "downloads").exists()


def refused(tmp_path, s3, environ, **options):
    with pytest.raises(StageFailure) as caught:
        fetch_object(s3, tmp_path / "f.jsonl", environ, **options)
    return caught.value.failure_class, str(caught.value)


def test_object_and_size_arrive_whole(store, tmp_path):
    address, credentials = store
    fetch_object(source(address), tmp_path / "f.jsonl", credentials, len(CONTENT))
    assert (tmp_path / "f.jsonl").read_bytes() == CONTENT


def test_object_above_the_limit_is_not_fetched(store, tmp_path):
    address, credentials = store
    failure = refused(tmp_path, source(address), credentials, limit_bytes=len(CONTENT) - 1)
    assert failure[0] is FailureClass.BAD_INPUT
    assert f"{len(CONTENT)} bytes, but a file may have {len(CONTENT) - 1}" in failure[1]
    assert not (tmp_path / "f.jsonl").exists()


REFUSALS = {
    "no credentials": (
        {},
        {},
        FailureClass.PERMISSION_DENIED,
        "s3://data/team/train.jsonl: the store answers 403",
    ),
    "a wrong key": (
        {},
        {"AWS_ACCESS_KEY_ID": "AKIAWRONG", "AWS_SECRET_ACCESS_KEY": "x"},
        FailureClass.PERMISSION_DENIED,
        "InvalidAccessKeyId: try a secretRef whose keys are valid",
    ),
    "a folder that may not be read": (
        {"key": "others/train.jsonl"},
        None,
        FailureClass.PERMISSION_DENIED,
        "AccessDenied: try a secretRef",
    ),
    "an object that is not there": (
        {"key": "team/none.jsonl"},
        None,
        FailureClass.DATA_MISSING,
        "NoSuchKey: there is no such object",
    ),
}


SAID = {
    "a request that took too long": (400, "RequestTimeout", FailureClass.UPSTREAM, "400 RequestTimeout"),
    "too many requests": (503, "SlowDown", FailureClass.UPSTREAM, "503 SlowDown"),
    "a token that has expired": (
        400,
        "ExpiredToken",
        FailureClass.PERMISSION_DENIED,
        "try a secretRef whose keys",
    ),
    "an object in an archive": (
        403,
        "InvalidObjectState",
        FailureClass.DATA_MISSING,
        "try to restore it first",
    ),
    "another time of day": (
        403,
        "RequestTimeTooSkewed",
        FailureClass.PERMISSION_DENIED,
        "the clocks of this node",
    ),
    "another region": (301, "PermanentRedirect", FailureClass.BAD_INPUT, "the bucket is not in region"),
}


@pytest.mark.parametrize(("status", "code", "expected", "message"), SAID.values(), ids=SAID.keys())
def test_what_a_store_says_is_what_people_are_told(status, code, expected, message):
    exceptions = pytest.importorskip("botocore.exceptions")
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    with pytest.raises(StageFailure) as caught, said_by_store("s3://data/a.jsonl", "eu"):
        raise exceptions.ClientError(answer, "GetObject")
    assert (caught.value.failure_class, message in str(caught.value)) == (expected, True), str(caught.value)


@pytest.mark.parametrize(("place", "environ", "expected", "message"), REFUSALS.values(), ids=REFUSALS.keys())
def test_refusal_of_the_store_is_reported_in_the_jobs_words(  # noqa: PLR0917  columns of the table
    store, tmp_path, place, environ, expected, message
):
    address, credentials = store
    failure = refused(tmp_path, source(address, **place), credentials if environ is None else environ)
    assert (failure[0], message in failure[1]) == (expected, True), failure[1]


def test_credentials_of_a_home_folder_are_never_used(store, tmp_path, monkeypatch):
    address, credentials = store
    (tmp_path / "credentials").write_text(
        f"[default]\naws_access_key_id = {credentials['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key = {credentials['AWS_SECRET_ACCESS_KEY']}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    assert refused(tmp_path, source(address), {})[0] is FailureClass.PERMISSION_DENIED


def test_store_that_nobody_answers_for_is_tried_again_by_the_operator(model_files, job_of, pods):
    s3 = source("http://127.0.0.1:9").model_dump()
    code, result = pods.run("prepare", job_of(model_files, model_files, dataset={"training": {"s3": s3}}))
    assert code == EXIT_CODES[FailureClass.UPSTREAM]
    assert "s3://data/team/train.jsonl: the store can't be reached" in result.failure.message
