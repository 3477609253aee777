# SPDX-License-Identifier: Apache-2.0
"""The commands, as people call them: what they print, what they write, how they exit."""

import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tuneyard.main import cli

ROOT = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with what the components deploy from it."""
    for folder in ("charts/tuneyard-operator", "manifests/crds", "environments", "jobs"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return tmp_path


def run(root: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, [arguments[0], *arguments[1:], "--root", str(root)])


def test_the_first_ten_seconds(root: Path) -> None:
    shutil.rmtree(root / "environments")
    assert run(root, "init").exit_code == 0
    result = run(root, "render")
    assert result.exit_code == 0
    assert "operatorImage and trainerImage still have their default names" in result.stderr
    assert (root / "argocd-apps/my/platform.yaml").is_file()
    assert run(root, "render", "--check").exit_code == 0


def test_init_takes_flags_and_never_overwrites(root: Path) -> None:
    arguments = (
        "init",
        "dgx",
        "--preset",
        "nemo-microservices",
        "--gpu",
        "NVIDIA-H100-80GB-HBM3:8:80:2",
        "--shared-storage-class",
        "nfs",
    )
    assert run(root, *arguments).exit_code == 0
    assert run(root, "query", "dgx", "gpus.nodes[0].nodes").output == "2\n"
    again = run(root, *arguments)
    assert (again.exit_code, "is there already" in again.stderr) == (1, True)
    assert run(root, *arguments, "--force").exit_code == 0


@pytest.mark.parametrize("gpu", ["H100", "H100:8", "H100:eight:80", "H100:8:80:2:1"])
def test_init_says_how_gpus_are_written(root: Path, gpu: str) -> None:
    result = run(root, "init", "x", "--gpu", gpu)
    assert (result.exit_code, "NVIDIA-L40S:4:48:2" in result.stderr) == (2, True)


def test_init_asks_when_it_is_asked_to(root: Path) -> None:
    answers = "open\n1.34\nhttps://git.example.com/x.git\nnone\nfast\n"
    result = CliRunner().invoke(cli, ["init", "asked", "--ask", "--root", str(root)], input=answers)
    assert result.exit_code == 0
    assert run(root, "query", "asked", "storage.readWriteOnce.className").output == "fast\n"
    assert run(root, "check", "asked").exit_code == 0


@pytest.mark.parametrize(("style", "first"), [("text", "bad.yaml"), ("json", "["), ("sarif", "{")])
def test_check_prints_findings_and_exits_with_1(root: Path, style: str, first: str) -> None:
    (root / "environments/bad.yaml").write_text(
        (ROOT / "tests/invalid/environments/unknown-key.yaml").read_text()
    )
    result = run(root, "check", "bad", "--format", style)
    assert result.exit_code == 1
    text = result.stderr if style == "text" else result.stdout
    assert first in text.splitlines()[0]
    if style != "text":
        assert json.loads(text)


def test_check_gives_its_verdict_first_as_in_the_readme(root: Path) -> None:
    result = run(root, "check")
    assert (result.exit_code, result.stdout) == (0, "")
    first, *rest = result.stderr.splitlines()
    assert f"\n{first}\n" in (ROOT / "README.md").read_text()
    own = "registries:"
    places = ["registries.airGapped:", "externalPostgres:", own, own]
    assert [line.split()[1:3] for line in rest] == [[place, "warning:"] for place in places]


def test_check_says_all_good_where_nothing_is_left_to_do(root: Path) -> None:
    assert run(root, "check", "demo").stderr == "1 environment checked, all good\n"


def test_check_lists_on_request_what_could_not_be_confirmed(root: Path) -> None:
    first, *rest = run(root, "check", "lab", "-v").stderr.splitlines()
    assert first == "1 environment checked, no errors, 1 warning; 2 details could not be confirmed:"
    places = ["nemo-data-store", "nemo-operator"]
    assert sorted(line.split()[1] for line in rest) == [
        *(f"components.{name}:" for name in places),
        "registries:",
    ]
    rows = json.loads(run(root, "check", "lab", "--format", "json").stdout)
    assert {row["rule"] for row in rows} == {"pin-is-confirmed", "image-is-real"}


def test_check_folds_no_other_warning(root: Path) -> None:
    path = root / "environments/lab.yaml"
    path.write_text(path.read_text().replace("argocd:\n", "argocd:\n  version: 3.2.0\n"))
    result = run(root, "check", "lab")
    first, *rest = result.stderr.splitlines()
    assert result.exit_code == 0
    assert first.startswith(
        "1 environment checked, no errors, 2 warnings; 2 details could not be confirmed ("
    )
    places = ["argocd.version:", "registries:"]
    assert sorted(line.split()[1] for line in rest) == places


def test_nothing_is_written_when_one_of_several_is_wrong(root: Path) -> None:
    (root / "environments/bad.yaml").write_text(
        (ROOT / "tests/invalid/environments/too-many-gpus.yaml").read_text()
    )
    assert run(root, "render", "open", "bad").exit_code == 1
    assert not (root / "argocd-apps").exists()


def test_several_environments_in_one_call(root: Path) -> None:
    assert run(root, "render", "open", "lab", "airgapped").exit_code == 0
    assert sorted(p.name for p in (root / "argocd-apps").iterdir()) == ["airgapped", "lab", "open"]


def test_diff_shows_a_change_by_component(root: Path) -> None:
    run(root, "render", "open")
    assert run(root, "diff", "open", "--exit-code").output == "no difference\n"
    path = root / "environments/open.yaml"
    path.write_text(path.read_text() + "components:\n  mlflow: {values: {replicaCount: 2}}\n")
    result = run(root, "diff", "open", "--exit-code")
    assert result.exit_code == 1
    assert result.output.splitlines()[0] == "mlflow: changed (2 files, +2 -0)"
    assert "+replicaCount: 2" in result.output


def test_diff_of_two_environments_ignores_their_names(root: Path) -> None:
    text = (root / "environments/open.yaml").read_text()
    (root / "environments/twin.yaml").write_text(text.replace("name: open\n", "name: twin\n"))
    assert run(root, "diff", "open", "twin").output == "no difference\n"
    (root / "environments/twin.yaml").write_text(text.replace("name: open\n", "name: twin\nsizing: medium\n"))
    assert {
        line.split(":")[0] for line in run(root, "diff", "open", "twin", "--summary").output.splitlines()
    } == {"versitygw-server", "postgres"}


def test_graph_in_every_style(root: Path) -> None:
    text = run(root, "graph", "lab").output
    assert "needs cert-manager: cert-manager, its webhook's certificate" in text
    assert text.count("after the platform: the root models is the platform's last wave") == 2
    assert "flowchart TB" in run(root, "graph", "lab", "--format", "mermaid").output
    svg = ET.fromstring(run(root, "graph", "lab", "--format", "svg").output)  # noqa: S314  our own
    titles = [node.text for node in svg.iter("{http://www.w3.org/2000/svg}title")]
    assert "nemo-entity-store needs nemo-data-store: data-store, where data sets and adapters are" in titles


def test_query_prints_resolved_values(root: Path) -> None:
    assert run(root, "query", "lab", "use.postgres").output == "postgres\n"
    assert (
        run(root, "query", "lab", "derived.urls.entity-store").output
        == "http://nemo-entity-store.nemo.svc.cluster.local:8000\n"
    )
    assert json.loads(run(root, "query", "lab", "models[0].lora").output)["maxRank"] == 32
    missing = run(root, "query", "lab", "cluster.kubernets")
    assert (missing.exit_code, "try kubernetes" in missing.stderr) == (1, True)


def test_explain_says_what_where_from_and_what_for(root: Path) -> None:
    text = run(root, "explain", "lab", "argocd.syncTimeoutMinutes").output
    assert "value: 30" in text
    assert "from: default" in text
    assert "influences: argocd-cmd-params-cm.patch" in text
    assert "from: preset nemo-microservices" in run(root, "explain", "lab", "use.s3").output
    assert "lab.yaml:5:3" in run(root, "explain", "lab", "cluster.kubernetes").output
    assert "needs postgres from postgres" in run(root, "explain", "lab", "components.mlflow").output
    assert "nemo-microservices" in run(root, "explain", "lab", "use.nemo").output
    alone = run(root, "explain", "lab", "use.vectorDb").output
    assert "influences: not found out; with another value there is no tree (NeMo Evaluator supports" in alone
    assert "nothing by itself" in run(root, "explain", "lab", "derived.urls.s3").output


def test_docs_are_checked_and_written(root: Path) -> None:
    assert run(root, "docs", "--check").exit_code == 1
    assert run(root, "docs").exit_code == 0
    assert run(root, "docs", "--check").exit_code == 0


def test_the_sample_is_a_valid_environment_with_every_key(root: Path) -> None:
    from tuneyard.environment.reference import rows

    assert run(root, "check", "sample").exit_code == 0
    text = (root / "environments/sample.yaml").read_text()
    for key, field in rows():
        assert f"{key.split('.')[-1].removesuffix('[]')}:" in text, key
        assert field.description, key


def test_objects_are_held_against_the_schemas_that_people_gave(root: Path) -> None:
    """Our own CRDs stand for those of others; one that lacks a field makes every object that has it a finding."""
    crd = root / "runtimes.yaml"
    text = (root / "manifests/crds/finetuneruntimes.tuneyard.io.yaml").read_text()
    crd.write_text(text)
    added = run(root, "schemas", "add", str(crd))
    assert (added.exit_code, added.output) == (0, "tuneyard.io/v1alpha1 FineTuneRuntime\n")
    assert run(root, "check", "open").exit_code == 0
    shutil.rmtree(root / ".tuneyard")
    crd.write_text(text.replace("              modelCache:\n", "              modelCash:\n"))
    run(root, "schemas", "add", str(crd))
    result = run(root, "check", "open")
    assert result.exit_code == 1
    assert "finetuneruntime-hf.yaml spec: there is no field 'modelCache'" in result.stderr
    nothing = run(root, "schemas", "add", str(root / "environments/open.yaml"))
    assert (nothing.exit_code, "no CustomResourceDefinition" in nothing.stderr) == (1, True)


def test_no_environment_at_all_is_a_wrong_call(tmp_path: Path) -> None:
    result = run(tmp_path, "render")
    assert (result.exit_code, "try `tuneyard init`" in result.stderr) == (2, True)


def test_a_repository_without_the_charts_says_so(tmp_path: Path) -> None:
    run(tmp_path, "init")
    result = run(tmp_path, "render")
    assert result.exit_code == 1
    assert "charts/tuneyard-operator: is deployed by a component, but not in the repository" in result.stderr


@pytest.mark.parametrize(
    "command", ["init", "check", "render", "diff", "graph", "explain", "query", "docs", "schemas"]
)
def test_every_command_has_help_with_examples(command: str) -> None:
    result = CliRunner().invoke(cli, [command, "--help"])
    assert result.exit_code == 0
    assert "Examples:" in result.output


def cpu_seconds(*arguments: str) -> float:
    before = os.times()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def test_checking_one_environment_is_quick() -> None:
    """Aimed at: 0.5 s with start-up on an idle machine. A slow or busy machine slows what it is compared with, too."""
    start = cpu_seconds("-c", "import pydantic, typer, yaml")
    code = "from tuneyard.main import main; main()"
    assert cpu_seconds("-c", code, "check", "lab", "--root", str(ROOT)) < 10 * start


def test_what_did_not_change_is_not_rendered_again(root: Path) -> None:
    assert "open: 57 files" in run(root, "render", "open", "lab").output
    again = run(root, "render", "open", "lab")
    assert "open: unchanged since the last render" in again.stdout
    assert "pin-is-confirmed" not in again.stderr
    assert "datastore 25.01" in again.stderr  # warnings are said again
    file = root / "manifests/open/versitygw-server/values.yaml"
    good = file.read_text()
    file.write_text(good + "#")
    assert "open: 57 files, 0 added, 1 changed" in run(root, "render", "open").output
    assert file.read_text() == good
    (root / "charts/tuneyard-operator/values.yaml").write_text("# other\n")
    assert "open: 57 files" in run(root, "render", "open").output
    path = root / "environments/open.yaml"
    path.write_text(path.read_text() + "sizing: medium\n")
    assert "unchanged" not in run(root, "render", "open").output
    shutil.rmtree(root / "argocd-apps/open/models")
    assert "1 added" in run(root, "render", "open").output


def test_a_tree_whose_environment_is_gone_is_removed(root: Path) -> None:
    run(root, "render")
    (root / "environments/open.yaml").unlink()
    (root / "manifests/open/notes.md").write_text("mine\n")
    listed = run(root, "render", "--check")
    assert (listed.exit_code, "57 files would be removed" in listed.output) == (1, True)
    assert (root / "argocd-apps/open/platform.yaml").is_file()
    assert "environments/open.yaml is gone, 57 files removed" in run(root, "render").output
    assert [p.name for p in (root / "manifests/open").rglob("*")] == ["notes.md"]
    assert not (root / "argocd-apps/open").exists()
    assert (root / "argocd-apps/lab/platform.yaml").is_file()
    assert run(root, "render", "--check").exit_code == 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    result = CliRunner().invoke(cli, ["completion", shell])
    assert (result.exit_code, "_TUNEYARD_COMPLETE" in result.output) == (0, True)


def test_every_command_shows_examples() -> None:
    for name in cli.list_commands(None):  # type: ignore[arg-type]
        text = CliRunner().invoke(cli, [name, "--help"]).output
        assert "Examples:" in text, name
        assert f"tuneyard {name}" in text, name


def test_doctor_without_a_cluster(root: Path) -> None:
    result = run(root, "doctor", "--offline")
    assert (result.exit_code, "kubernetes: installed" in result.output) == (0, True)
    assert "\x1b[" not in result.output


def test_upgrade_without_a_file_says_what_it_needs() -> None:
    result = CliRunner().invoke(cli, ["upgrade"])
    assert result.exit_code == 2
    assert (
        "FILE is needed, because no version is looked up: give a Renovate branch's components.yaml"
        in result.output
    )


def test_upgrade_from_a_list(tmp_path: Path) -> None:
    (tmp_path / "new.yaml").write_text("versions: {mlflow: {version: 99.0.0, notes: read me}}\n")
    result = CliRunner().invoke(cli, ["upgrade", str(tmp_path / "new.yaml"), "--exit-code"])
    assert (
        result.exit_code,
        "mlflow: 1.11.5 -> 99.0.0  major" in result.output,
        "read me" in result.output,
    ) == (1, True, True)


def chart(folder: Path, values: str) -> Path:
    folder.mkdir()
    (folder / "Chart.yaml").write_text("apiVersion: v2\nname: mlflow\nversion: 0.0.0\n")
    (folder / "values.yaml").write_text(values)
    return folder


def test_values_are_held_against_a_chart_that_was_given(root: Path, tmp_path: Path) -> None:
    given = chart(
        root / "given", "replicaCount: 1\nservice: {type: ClusterIP, port: 80}\nimage: {repository: x}\n"
    )
    (given / "values.schema.json").write_text('{"properties": {"replicaCount": {"type": "integer"}}}')
    added = run(root, "schemas", "add", str(given), "--chart-version", "1.11.5")
    assert added.output == "chart mlflow 1.11.5\n"
    assert "chart mlflow 1.11.5" in run(root, "schemas", "list").output
    path = root / "environments/open.yaml"
    path.write_text(
        path.read_text() + "components:\n  mlflow: {values: {replicaCout: 2, replicaCount: two}}\n"
    )
    rows = json.loads(run(root, "check", "open", "--format", "json").stdout)
    mine = {row["path"]: row for row in rows if row["file"].endswith("open.yaml")}
    assert mine["components.mlflow.values.replicaCout"]["try"] == "replicaCount"
    assert mine["components.mlflow.values.replicaCount"]["severity"] == "error"
    assert any(row["file"] == "manifests/open/mlflow/values.yaml" for row in rows)


def test_an_archive_is_read_as_its_folder_is(root: Path) -> None:
    given = chart(root / "mlflow", "replicaCount: 1\n")
    subprocess.run(["tar", "-czf", root / "mlflow-0.0.0.tgz", "-C", root, given.name], check=True)
    assert run(root, "schemas", "add", str(root / "mlflow-0.0.0.tgz")).output == "chart mlflow 0.0.0\n"
    (root / "bad.tgz").write_bytes(b"no archive")
    bad = run(root, "schemas", "add", str(root / "bad.tgz"))
    assert (bad.exit_code, "can't be read" in bad.stderr) == (1, True)
