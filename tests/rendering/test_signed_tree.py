# SPDX-License-Identifier: Apache-2.0
"""`tuneyard sign` and `verify`: what is seen of a tree that was changed, and of an attestation that can't be trusted.

The test of its form builds the signed bytes as DSSE 1.0 writes them, and not with our function.
"""

import base64
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from tuneyard.main import cli
from tuneyard.signing.envelope import PAYLOAD_TYPE, seal, signed_bytes
from tuneyard.signing.statement import Signed, build_statement, read_statement

ROOT = Path(__file__).parents[2]
PEM = serialization.Encoding.PEM


def write_key(folder: Path, name: str, key: Any = None, password: bytes = b"") -> ed25519.Ed25519PrivateKey:
    """A pair of keys as files."""
    key = key or ed25519.Ed25519PrivateKey.generate()
    cipher = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    (folder / f"{name}.pem").write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, cipher))
    public = key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub").write_bytes(public)
    return key  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose environment `demo` is rendered and signed; the keys lie beside it."""
    root = tmp_path_factory.mktemp("signed") / "repository"
    for folder in ("charts/tuneyard-operator", "manifests/crds", "environments", "jobs"):
        shutil.copytree(ROOT / folder, root / folder)
    for other in (root / "environments").glob("*.yaml"):
        if other.stem != "demo":
            other.unlink()
    write_key(root.parent, "mine")
    write_key(root.parent, "other")
    assert run(root, "render", "demo").exit_code == 0
    result = run(root, "sign", "demo", "--key", str(root.parent / "mine.pem"))
    assert (result.exit_code, result.stderr) == (0, "")
    return root


@pytest.fixture
def root(signed: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    shutil.copytree(signed.parent, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy/repository"


def run(root: Path, *arguments: str, **variables: str) -> Result:
    return CliRunner().invoke(cli, [*arguments, "--root", str(root)], env=variables)


def verify(root: Path, *arguments: str, key: str = "mine") -> Result:
    return run(root, "verify", *(arguments or ("demo",)), "--key", str(root.parent / f"{key}.pub"))


def said(result: Result, root: Path) -> list[str]:
    assert result.exit_code == 1
    return result.stderr.replace(f"{root}/", "").splitlines()


def test_a_tree_that_nobody_touched_is_as_it_was_signed(signed: Path) -> None:
    result = verify(signed)
    files = [path for path in signed.rglob("*") if path.is_file()]
    of_tree = [
        path for path in files if path.relative_to(signed).parts[0] in {"argocd-apps", "charts", "manifests"}
    ]
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"demo: {len(of_tree)} files are as they were signed\n"
    assert len(of_tree) > 30


def test_everything_that_differs_is_said_at_once(root: Path) -> None:
    changed = root / "manifests/demo/tuneyard-operator/values.yaml"
    changed.write_text(changed.read_text() + "hostNetwork: true\n")
    (root / "argocd-apps/demo/platform/zz-more.yaml").write_text("kind: Application\n")
    (root / "manifests/demo/namespaces/namespace-fine-tuning.yaml").unlink()
    (root / "charts/tuneyard-operator/templates/zz.yaml").write_text("kind: ClusterRoleBinding\n")
    next((root / "manifests/crds").rglob("*.yaml")).write_text("{}\n")
    lines = said(verify(root), root)
    assert [line.partition(":")[0] for line in lines] == sorted(line.partition(":")[0] for line in lines)
    assert [line.split(" since ")[0].partition(": ")[2] for line in lines] == [
        "was added", "was added", "was changed", "was removed", "was changed",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["link to a file", "link to a folder", "link in place of the tree", "pipe"])
def test_what_is_no_plain_file_is_never_followed(root: Path, kind: str, tmp_path: Path) -> None:
    tree, away = root / "manifests/demo", tmp_path / "away"
    if kind == "link to a file":
        shutil.move(tree / "secrets.md", away)
        (tree / "secrets.md").symlink_to(away)
    elif kind == "link to a folder":
        (tree / "more").symlink_to(root / "environments")
    elif kind == "link in place of the tree":
        shutil.move(tree, away)
        tree.symlink_to(away)
    else:
        os.mkfifo(tree / "pipe")
    lines = [line for line in said(verify(root), root) if "is a link or no plain file" in line]
    assert len(lines) == 1


def test_another_key_is_refused_and_both_are_named(root: Path) -> None:
    [line] = said(verify(root, key="other"), root)
    assert line.startswith("attestations/demo.json: is signed by ")
    assert "not by this key" in line


def edit(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    def on_envelope(document: dict[str, Any]) -> None:
        payload = json.loads(base64.b64decode(document["payload"]))
        change(payload)
        document["payload"] = base64.b64encode(json.dumps(payload, indent=1).encode()).decode()

    return on_envelope


FORGERIES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "a digest": (edit(lambda p: p["subject"][0]["digest"].update(sha256="0" * 64)), "was changed after this key"),
    "a file less": (edit(lambda p: p["subject"].pop()), "was changed after this key"),
    "a folder less": (edit(lambda p: p["predicate"]["folders"].pop()), "was changed after this key"),
    "the signature": (lambda d: d["signatures"][0].update(sig=base64.b64encode(bytes(64)).decode()), "was changed"),
    "no signature": (lambda d: d["signatures"].clear(), "is signed by nobody"),
    "the type": (lambda d: d.update(payloadType="text/plain"), "has a payload of type 'text/plain'"),
    "no payload": (lambda d: d.pop("payload"), "is no DSSE envelope"),
    "no base64": (lambda d: d.update(payload="{}"), "is no DSSE envelope"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGERIES)
def test_a_changed_attestation_is_refused(root: Path, name: str) -> None:
    file = root / "attestations/demo.json"
    document = json.loads(file.read_text())
    FORGERIES[name][0](document)
    file.write_text(json.dumps(document))
    [line] = said(verify(root), root)
    assert FORGERIES[name][1] in line


def test_a_second_signature_does_not_stand_in_the_way(root: Path) -> None:
    file = root / "attestations/demo.json"
    document = json.loads(file.read_text())
    document["signatures"].insert(0, {"keyid": "another", "sig": base64.b64encode(bytes(64)).decode()})
    file.write_text(json.dumps(document))
    assert verify(root).exit_code == 0


def test_the_attestation_of_another_environment_proves_nothing(root: Path) -> None:
    shutil.copy(root / "environments/demo.yaml", root / "environments/prod.yaml")
    shutil.copy(root / "attestations/demo.json", root / "attestations/prod.json")
    [line] = said(verify(root, "prod"), root)
    assert "is the attestation of 'demo'" in line


def test_a_statement_that_leaves_out_the_trees_folders_proves_nothing(root: Path) -> None:
    pem = (root.parent / "mine.pem").read_bytes()
    key = serialization.load_pem_private_key(pem, None)
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    (root / "attestations/demo.json").write_text(seal(build_statement(Signed("demo", (), {}), "1"), key))
    assert verify(root).exit_code == 1


def test_an_attestation_that_is_not_there_is_an_error_for_every_environment(root: Path) -> None:
    shutil.rmtree(root / "attestations")
    result = run(root, "verify", "--key", str(root.parent / "mine.pub"))
    assert said(result, root) == [
        "attestations/demo.json: can't be read: No such file or directory; try `tuneyard sign`"
    ]


def test_findings_come_as_json_too(root: Path) -> None:
    (root / "manifests/demo/secrets.md").unlink()
    rows = json.loads(verify(root, "demo", "--format", "json").stdout)
    assert [(row["rule"], row["file"]) for row in rows] == [
        ("tree-is-as-signed", "manifests/demo/secrets.md")
    ]


def test_a_tree_that_is_not_as_rendered_is_not_signed(root: Path) -> None:
    (root / "manifests/demo/secrets.md").unlink()
    values = root / "manifests/demo/tuneyard-operator/values.yaml"
    values.write_text(values.read_text() + "x: 1\n")
    before = (root / "attestations/demo.json").read_bytes()
    lines = said(run(root, "sign", "demo", "--key", str(root.parent / "mine.pem")), root)
    assert [line.partition(": ")[0] for line in lines] == [
        "manifests/demo/secrets.md", "manifests/demo/tuneyard-operator/values.yaml",
    ]  # fmt: skip
    assert (root / "attestations/demo.json").read_bytes() == before


def test_files_of_people_are_signed_too_and_named(root: Path) -> None:
    (root / "argocd-apps/demo/platform/mine.yaml").write_text("kind: Application\n")
    result = run(root, "sign", "demo", "--key", str(root.parent / "mine.pem"))
    assert result.exit_code == 0
    assert "did not write: argocd-apps/demo/platform/mine.yaml\n" in result.stderr
    assert verify(root).exit_code == 0


def test_the_same_tree_and_key_give_the_same_attestation(root: Path) -> None:
    before = (root / "attestations/demo.json").read_bytes()
    assert run(root, "sign", "--key", str(root.parent / "mine.pem")).exit_code == 0
    assert (root / "attestations/demo.json").read_bytes() == before


def test_the_password_of_a_key_comes_from_a_variable(root: Path) -> None:
    write_key(root.parent, "locked", password=b"open sesame")
    arguments = ("sign", "demo", "--key", str(root.parent / "locked.pem"))
    for wrong in ({}, {"TUNEYARD_KEY_PASSWORD": "sesame"}):
        result = run(root, *arguments, **wrong)
        assert (result.exit_code, "its password is wrong or missing" in result.stderr) == (1, True)
        assert "sesame" not in result.output.replace("open sesame", "")
    assert run(root, *arguments, TUNEYARD_KEY_PASSWORD="open sesame").exit_code == 0
    assert verify(root, key="locked").exit_code == 0


@pytest.mark.parametrize("kind", ["another kind", "no key"])
def test_a_key_that_is_none_is_refused(root: Path, kind: str) -> None:
    if kind == "another kind":
        write_key(root.parent, "bad", ec.generate_private_key(ec.SECP256R1()))
    else:
        for end in ("pem", "pub"):
            (root.parent / f"bad.{end}").write_text("-----BEGIN NOTHING-----\n")
    for result in (verify(root, key="bad"), run(root, "sign", "--key", str(root.parent / "bad.pem"))):
        assert (result.exit_code, "key" in result.stderr) == (1, True)


def test_the_attestation_is_a_dsse_envelope_with_an_in_toto_statement(signed: Path) -> None:
    document = json.loads((signed / "attestations/demo.json").read_text())
    payload = base64.b64decode(document["payload"])
    assert document["payloadType"] == "application/vnd.in-toto+json"
    # As section 2 of the DSSE protocol 1.0 writes it, with the lengths in decimal.
    covered = f"DSSEv1 28 application/vnd.in-toto+json {len(payload)} ".encode() + payload
    public = serialization.load_pem_public_key((signed.parent / "mine.pub").read_bytes())
    assert isinstance(public, ed25519.Ed25519PublicKey)
    signature = base64.b64decode(document["signatures"][0]["sig"])
    public.verify(signature, covered)
    with pytest.raises(InvalidSignature):
        public.verify(signature, payload)
    statement = json.loads(payload)
    assert (statement["_type"], list(statement["predicate"])) == (
        "https://in-toto.io/Statement/v1", ["environment", "folders", "generator"],
    )  # fmt: skip
    assert {"name", "digest"} == set(statement["subject"][0])


def test_the_bytes_that_are_signed_are_those_of_the_specification() -> None:
    assert signed_bytes(b"hello world", "http://example.com/HelloWorld") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert PAYLOAD_TYPE == "application/vnd.in-toto+json"


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(predicateType="https://slsa.dev/provenance/v1"),
        lambda d: d.pop("subject"),
        lambda d: d["subject"].append(d["subject"][0]),
        lambda d: d["subject"][0].pop("digest"),
        lambda d: d["predicate"].pop("environment"),
    ],
)
def test_another_document_is_no_statement_of_a_tree(change: Callable[[dict[str, Any]], None]) -> None:
    good = build_statement(Signed("x", ("a",), {"a/b": "0"}), "1")
    assert read_statement(good) == Signed("x", ("a",), {"a/b": "0"})
    document = json.loads(good)
    change(document)
    with pytest.raises(ValueError, match="it "):
        read_statement(json.dumps(document).encode())
