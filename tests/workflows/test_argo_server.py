# SPDX-License-Identifier: Apache-2.0
"""Argo's own server, controller and command with the rendered login: who has no token gets nothing, who has one gets the forms."""

import json
import os
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from ssl import CERT_NONE, create_default_context
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from support.cluster.operator_process import until
from support.clusters import Clusters
from support.forms.rendered import rendered, server_values
from tuneyard.client import Access, ArgoServer, Forms, InputError
from tuneyard.main import cli
from tuneyard_local import argo_workflows
from tuneyard_local.cluster import Cluster
from tuneyard_local.parts import program
from tuneyard_workflows.accounts import USER

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(300)]
NAMESPACE, OTHER = "team", "other-team"
NEEDED = {"model": "pvc:models/tiny", "trainingData": "pvc:data/train.jsonl"}
SERVER_ACCOUNT = "server-with-all-rights"
"""The server's own account may do everything here: what people can't do, only their token keeps them from."""


def token(cluster: Cluster, account: str, namespace: str) -> str:
    done = cluster.kubectl("-n", namespace, "create", "token", account, "--duration=10m")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def own_kubeconfig(cluster: Cluster, path: Path) -> Path:
    account = {"name": SERVER_ACCOUNT, "namespace": "argo"}
    cluster.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": SERVER_ACCOUNT},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "cluster-admin",
            },
            "subjects": [{"kind": "ServiceAccount", **account}],
        },
    )
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"] = [{**user, "user": {"token": token(cluster, account=SERVER_ACCOUNT, namespace="argo")}} for user in config["users"]]  # fmt: skip
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture(scope="module")
def argo_server(
    clusters: Clusters, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[argo_workflows.ArgoServer]:
    """Controller and server with the rendered settings; the forms in two namespaces."""
    cluster = clusters("login", local_because="Argo's programs run beside the processes of the local cluster")
    argo = argo_workflows.ArgoWorkflows(cluster, "no-node-is-here")
    argo.install()
    root = Path(__file__).parents[2]
    crd = root / "manifests/crds/finetunejobs.tuneyard.io.yaml"
    cluster.apply(yaml.safe_load(crd.read_text()))
    for namespace in (NAMESPACE, OTHER):
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        cluster.apply(*rendered(namespace))
    argo.start()
    values = server_values()
    words = [f"--auth-mode={mode}" for mode in values["authModes"]]
    folder = tmp_path_factory.mktemp("server")
    server = argo_workflows.ArgoServer(
        cluster, own_kubeconfig(cluster, folder / "kubeconfig"), *words, f"--secure={json.dumps(values['secure'])}"
    )  # fmt: skip
    server.start()
    yield server
    server.stop()
    cluster.processes.stop(argo_workflows.NAME)


def status(server: argo_workflows.ArgoServer, path: str, **headers: str) -> int:
    trust = create_default_context()
    trust.check_hostname, trust.verify_mode = False, CERT_NONE
    request = urllib.request.Request(f"https://{server.address}/api/v1/{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, context=trust, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize(
    "path",
    [
        f"workflow-templates/{NAMESPACE}",
        f"workflow-templates/{NAMESPACE}/fine-tune",
        f"workflows/{NAMESPACE}",
        f"archived-workflows?namespace={NAMESPACE}",
        "userinfo",
        "version",
    ],
)
def test_who_has_no_token_is_refused(argo_server: argo_workflows.ArgoServer, path: str) -> None:
    assert status(argo_server, path) == 401


def test_a_token_lists_the_forms_of_its_namespace_alone(argo_server: argo_workflows.ArgoServer) -> None:
    cluster = argo_server.cluster
    bearer = {"Authorization": f"Bearer {token(cluster, USER, NAMESPACE)}"}
    assert status(argo_server, f"workflow-templates/{NAMESPACE}", **bearer) == 200
    assert status(argo_server, f"workflow-templates/{OTHER}", **bearer) == 403
    assert status(argo_server, f"workflow-templates/{NAMESPACE}", Authorization=f"Bearer {token(cluster, 'default', NAMESPACE)}") == 403  # fmt: skip
    forms = Forms(ArgoServer(Access.of(argo_server.address, token(cluster, USER, NAMESPACE)), NAMESPACE))
    fields = {field.name for field in forms.form("fine-tune")}
    assert {"model", "trainingData", "method"} <= fields
    elsewhere = Forms(ArgoServer(Access.of(argo_server.address, token(cluster, USER, NAMESPACE)), OTHER))
    with pytest.raises(InputError, match="the rights of the token's owner in namespace other-team"):
        elsewhere.form("fine-tune")


def test_python_submits_with_a_token_as_the_account_of_people(
    argo_server: argo_workflows.ArgoServer,
) -> None:
    access = Access.of(f"https://{argo_server.address}", token(argo_server.cluster, USER, NAMESPACE))
    forms = Forms(ArgoServer(access, NAMESPACE))
    made = forms.submit("fine-tune", NEEDED)
    found = argo_server.cluster.kubectl("-n", NAMESPACE, "get", "workflow", made.name, "-o", "json")
    body = json.loads(found.stdout)
    assert body["spec"]["workflowTemplateRef"] == {"name": "fine-tune"}
    assert (
        body["metadata"]["labels"]["workflows.argoproj.io/creator"]
        == f"system-serviceaccount-{NAMESPACE}-{USER}"
    )
    with pytest.raises(
        InputError, match="there is no WorkflowTemplate fine-tun in namespace team; try fine-tune"
    ):
        forms.submit("fine-tun", {})
    with pytest.raises(
        InputError, match=r"refuses the token.*kubectl create token workflow-user --namespace team"
    ):
        Forms(ArgoServer(Access.of(argo_server.address, "made.up.token"), NAMESPACE)).form("fine-tune")


def test_the_command_line_submits_with_the_token_of_the_environment(
    argo_server: argo_workflows.ArgoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARGO_SERVER", argo_server.address)
    monkeypatch.setenv("ARGO_TOKEN", f"Bearer {token(argo_server.cluster, USER, NAMESPACE)}")
    monkeypatch.setenv("KUBECONFIG", "/nonexistent")
    words = [word for name, value in NEEDED.items() for word in ("-p", f"{name}={value}")]
    done = CliRunner().invoke(cli, ["submit", "fine-tune", *words, "-n", NAMESPACE])
    assert done.exit_code == 0, done.output
    assert re.fullmatch(r"workflow team/fine-tune-\w{5} is submitted\n", done.stdout)
    monkeypatch.delenv("ARGO_TOKEN")
    done = CliRunner().invoke(cli, ["submit", "fine-tune", "-n", NAMESPACE])
    assert done.exit_code == 1
    assert "asks for a token, and there is none" in done.stderr


def argo(server: argo_workflows.ArgoServer, bearer: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Argo's own command, at Argo's server: it has a token, and no kubeconfig."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "KUBECONFIG": "/nonexistent",
        "ARGO_SERVER": server.address,
        "ARGO_TOKEN": bearer,
        "ARGO_SECURE": "true",
        "ARGO_INSECURE_SKIP_VERIFY": "true",
        "ARGO_NAMESPACE": NAMESPACE,
    }
    return subprocess.run(
        [program(argo_workflows.COMMAND), *words],
        env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_argo_s_own_command_submits_and_answers_an_approval(argo_server: argo_workflows.ArgoServer) -> None:
    cluster = argo_server.cluster
    bearer = f"Bearer {token(cluster, USER, NAMESPACE)}"
    asked = argo(argo_server, "", "submit", "--from", "workflowtemplate/approve", "-p", "what=x")
    assert asked.returncode != 0
    made = argo(
        argo_server, bearer, "submit", "--from", "workflowtemplate/approve", "-p", "what=x", "-o", "name"
    )
    assert made.returncode == 0, made.stderr
    name = made.stdout.strip()

    def body() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            cluster.kubectl("-n", NAMESPACE, "get", "workflow", name, "-o", "json").stdout
        )
        return found

    until("the question", lambda: body().get("status", {}).get("nodes"))
    # The stage alone is the whole workflow, so its node has the name of the workflow.
    selector = ("--node-field-selector", f"displayName={name}")
    said = argo(argo_server, bearer, "node", "set", name, *selector, "--output-parameter", "approved=yes")
    assert said.returncode == 0, said.stderr
    said = argo(argo_server, bearer, "resume", name, *selector)
    assert said.returncode == 0, said.stderr
    until("the end", lambda: body()["status"].get("phase") == "Succeeded")
    (node,) = body()["status"]["nodes"].values()
    assert {entry["name"]: entry["value"] for entry in node["outputs"]["parameters"]} == {"approved": "yes"}
    gone = argo(argo_server, bearer, "delete", name)
    assert "forbidden" in gone.stderr, "this account deletes nothing"


def test_argo_s_own_command_lints_every_form_and_submits_the_pipeline(
    argo_server: argo_workflows.ArgoServer, tmp_path: Path
) -> None:
    forms = tmp_path / "forms.yaml"
    found = [each for each in rendered(NAMESPACE) if each["kind"] == "WorkflowTemplate"]
    forms.write_text(yaml.safe_dump_all(found))
    bearer = f"Bearer {token(argo_server.cluster, USER, NAMESPACE)}"
    done = argo(argo_server, bearer, "lint", "--strict", str(forms))
    assert done.returncode == 0, done.stdout + done.stderr
    values = {
        "name": "n",
        "rawData": "pvc:raw/records.jsonl",
        "keepIn": "pvc:kept/runs",
        "model": "pvc:models/tiny",
    }
    words = [word for name, value in values.items() for word in ("-p", f"{name}={value}")]
    made = argo(
        argo_server, bearer, "submit", "--from", "workflowtemplate/finetune-pipeline", *words, "-o", "name"
    )
    assert made.returncode == 0, made.stderr
    name = made.stdout.strip()
    # No node is here: what is seen is that the checks have passed and that the first stage has its pod.
    until(
        "the pod of the stage curate",
        lambda: "curate" in argo_server.cluster.kubectl("-n", NAMESPACE, "get", "pods", "-o", "name").stdout,
    )
    assert argo(argo_server, bearer, "stop", name).returncode == 0
