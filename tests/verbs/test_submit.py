# SPDX-License-Identifier: Apache-2.0
"""`tuneyard submit` and Client.submit: a Workflow from a rendered form, or all that is wrong with its parameters."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.api_double import ApiDouble
from support.forms.rendered import rendered
from tuneyard.client import Client, InputError
from tuneyard.main import cli

LIST = "/apis/argoproj.io/v1alpha1/namespaces/team/{}"
NEEDED = ("-p", "model=pvc:models/tiny", "-p", "trainingData=pvc:data/train.jsonl")


def rendered_form(name: str) -> list[dict[str, Any]]:
    template = next(
        each
        for each in rendered("team")
        if each["kind"] == "WorkflowTemplate" and each["metadata"]["name"] == name
    )
    parameters: list[dict[str, Any]] = template["spec"]["arguments"]["parameters"]
    return parameters


@pytest.fixture
def api() -> ApiDouble:
    double = ApiDouble()
    for found in rendered("team"):
        if found["kind"] == "WorkflowTemplate":
            double.put(LIST.format("workflowtemplates"), found)
    return double


@pytest.fixture
def kubeconfig(api: ApiDouble, tmp_path: Path) -> Iterator[Path]:
    with api.served(tmp_path) as config:
        yield config


@pytest.fixture
def run(kubeconfig: Path) -> Any:
    def call(*words: str) -> Result:
        return CliRunner().invoke(cli, ["submit", *words, "--kubeconfig", str(kubeconfig)])

    return call


def workflows(api: ApiDouble) -> dict[str, Any]:
    return {path: body for path, body in api.objects.items() if body["kind"] == "Workflow"}


def test_what_is_given_becomes_a_workflow_of_the_template(api: ApiDouble, run: Any) -> None:
    done = run("fine-tune", *NEEDED, "-p", "epochs=0.5=")
    assert (done.exit_code, done.stdout) == (0, "workflow team/fine-tune-x7k2p is submitted\n"), done.output
    assert workflows(api) == {
        f"{LIST.format('workflows')}/fine-tune-x7k2p": {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "metadata": {"generateName": "fine-tune-", "namespace": "team", "name": "fine-tune-x7k2p"},
            "spec": {
                "workflowTemplateRef": {"name": "fine-tune"},
                "arguments": {
                    "parameters": [
                        {"name": "model", "value": "pvc:models/tiny"},
                        {"name": "trainingData", "value": "pvc:data/train.jsonl"},
                        {"name": "epochs", "value": "0.5="},
                    ]
                },
            },
            "status": {"phase": "Running"},
        }
    }


def test_all_that_is_wrong_is_said_at_once_and_nothing_is_created(api: ApiDouble, run: Any) -> None:
    done = run("fine-tune", "-p", "modle=pvc:models/tiny", "-p", "method=qlora", "-p", "onCancel=Suspend")
    assert done.exit_code == 1
    lines = done.stderr.splitlines()
    assert "modle: the form has no such parameter; try model" in lines
    assert "method: no such value (got 'qlora'); try one of lora, sft" in lines
    assert "onCancel: no such value (got 'Suspend'); try one of suspend, continue" in lines
    missing = [line for line in lines if "a value is missing; try -p" in line]
    assert [line.partition(":")[0] for line in missing] == ["model", "trainingData"]
    assert len(lines) == 5
    assert not workflows(api)


def asked(kubeconfig: Path, typed: str, *words: str) -> Result:
    where = ["--kubeconfig", str(kubeconfig)]
    return CliRunner().invoke(cli, ["submit", "fine-tune", "--ask", *words, *where], input=typed)


def test_a_form_in_the_terminal_asks_for_what_is_not_given(api: ApiDouble, kubeconfig: Path) -> None:
    fields = {entry["name"]: entry for entry in rendered_form("fine-tune")}
    open_ones = [name for name in fields if name not in ("model", "epochs")]
    answers = {"trainingData": "\n   \npvc:data/t.jsonl", "method": "ia3\nsft", "gate": "notWorseThanBase"}
    typed = "\n".join([*(answers.get(name, "") for name in open_ones), "y"]) + "\n"
    done = asked(kubeconfig, typed, "-p", "model=pvc:models/tiny", "-p", "epochs=2")
    assert done.exit_code == 0, done.output
    (workflow,) = workflows(api).values()
    given = {entry["name"]: entry["value"] for entry in workflow["spec"]["arguments"]["parameters"]}
    assert given == {
        "model": "pvc:models/tiny",
        "epochs": "2",
        "trainingData": "pvc:data/t.jsonl",
        "method": "sft",
        "gate": "notWorseThanBase",
    }
    assert done.stdout == f"workflow team/{workflow['metadata']['name']} is submitted\n"
    for place, name in enumerate(open_ones, 1):
        assert f"[{place}/{len(open_ones)}] {fields[name]['description']}" in done.stderr
    assert "a value is needed" in done.stderr
    assert "'ia3' is not one of" in done.stderr
    assert "tuneyard submit fine-tune -p model=pvc:models/tiny -p epochs=2 -p trainingData=" in done.stderr


@pytest.mark.parametrize(
    "typed", ["", "pvc:models/tiny\npvc:data/t.jsonl\n", "NO"], ids=["at once", "midway", "at the end"]
)
def test_a_form_that_is_left_submits_nothing(api: ApiDouble, kubeconfig: Path, typed: str) -> None:
    words: tuple[str, ...] = ()
    if typed == "NO":
        words = tuple(word for entry in rendered_form("fine-tune") for word in ("-p", f"{entry['name']}={entry.get('value', 'pvc:a/b')}"))  # fmt: skip
        typed = "n\n"
    done = asked(kubeconfig, typed, *words)
    assert done.exit_code == 1
    assert "Aborted" in done.stderr
    assert not workflows(api)


def test_a_dry_run_creates_nothing(api: ApiDouble, run: Any) -> None:
    done = run("fine-tune", *NEEDED, "--dry-run")
    assert (done.exit_code, done.stdout) == (0, "the parameters fit fine-tune in namespace team\n")
    assert not workflows(api)


def test_the_fields_of_a_form_are_shown_in_its_order(run: Any) -> None:
    lines = run("finetune-pipeline", "--fields").stdout.splitlines()
    assert lines[0].split() == ["PARAMETER", "DEFAULT", "VALUES", "MEANING"]
    assert [line.split()[0] for line in lines[1:4]] == ["name", "rawData", "keepIn"]
    assert lines[1].split()[1:3] == ["required", "-"]
    [approval] = [line for line in lines if line.startswith("approval ")]
    assert approval.split()[1:4] == ["required", "required,", "none"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("fine-tun",), "there is no WorkflowTemplate fine-tun in namespace team; try fine-tune"),
        (("fine-tune", "-p", "model"), "'model' is not NAME=VALUE"),
        (("fine-tune", "-p", "a=1", "-p", "a=2"), "a is given twice"),
    ],
)
def test_a_wrong_call_says_what_to_try(api: ApiDouble, run: Any, words: tuple[str, ...], said: str) -> None:
    api.groups.add("/apis/argoproj.io/v1alpha1")
    done = run(*words)
    assert done.exit_code != 0
    assert said in done.stderr


def test_the_client_submits_under_a_name_of_ones_own(api: ApiDouble, kubeconfig: Path) -> None:
    client = Client("team", kubeconfig=kubeconfig)
    made = client.submit("infer", {"endpoint": "http://e:8000", "modelName": "m"}, name="ask-it")
    assert (made.namespace, made.name, made.template) == ("team", "ask-it", "infer")
    assert f"{LIST.format('workflows')}/ask-it" in api.objects
    with pytest.raises(InputError, match="endpoint: a value is missing"):
        client.submit("infer", {"modelName": "m"})
