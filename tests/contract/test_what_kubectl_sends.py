# SPDX-License-Identifier: Apache-2.0
"""What a file says, what kubectl makes of it, and who refuses it: a table that the real kubectl and API server are held to.

The table is tests/contract/what_kubectl_sends.txt. Argo CD and Helm read with the same library as kubectl.
"""

import json
import math
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tuneyard_api.problems import InputRefused
from tuneyard_api.validate import load_job
from tuneyard_api.yaml_scalars import is_plain, misreading, read_by_kubectl
from tuneyard_local.cluster import Cluster
from tuneyard_local.installation import install_kinds
from tuneyard_local.paths import script

TABLE = Path(__file__).parent / "what_kubectl_sends.txt"
NOTHING = "nothing"
JOB = """\
apiVersion: tuneyard.io/v1alpha1
kind: FineTuneJob
metadata: {{name: {name}}}
spec:
  model: {{pvc: {{claimName: models}}}}
  dataset: {{training: {{pvc: {{claimName: data, path: train.jsonl}}}}}}
  method: lora
  {field}
"""
FIELDS = {"string": "lora: {{targetModules: [{}]}}", "number": "training: {{seed: {}}}"}


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    written: str
    arrives: str
    """JSON, or `nothing` where kubectl refuses the file."""
    refused: dict[str, str]
    """Who refuses a value, by the type of the field (`string` or `number`): nobody, laptop or both."""


def rows() -> list[Row]:
    lines = [line for line in TABLE.read_text().splitlines() if not line.startswith("#")]
    cells = [[cell.strip() for cell in line.split(" | ")] for line in lines]
    return [Row(written, arrives, {"string": s, "number": n}) for written, arrives, s, n in cells]


ROWS = rows()


def read_by_the_real_kubectl(values: list[str]) -> list[Any] | None:
    """The values of a list as kubectl would send them; None where it refuses the file. No cluster is asked."""
    text = "apiVersion: v1\nkind: Any\nmetadata: {name: any}\nvalues:\n" + "".join(f"- {v}\n" for v in values)
    read = subprocess.run(
        [script("kubectl"), "patch", "--local", "-f", "-", "--type=merge", "-p", "{}", "-o", "json"],
        input=text, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if read.returncode:
        assert "error converting YAML to JSON" in read.stderr
        return None
    found: list[Any] = json.loads(read.stdout)["values"]
    return found


def same(ours: Any, theirs: Any) -> bool:
    kinds = [
        bool if isinstance(v, bool) else float if isinstance(v, int | float) else type(v)
        for v in (ours, theirs)
    ]
    if kinds == [float, float]:
        return math.isclose(ours, theirs, rel_tol=1e-12)
    return kinds[0] is kinds[1] and ours == theirs


def job(row: Row, field: str, name: str = "answers") -> str:
    return JOB.format(name=name, field=FIELDS[field].format(row.written))


def test_the_table_holds_every_word_of_yaml_1_1() -> None:
    words = [word for low in ("y", "yes", "n", "no", "on", "off") for word in (low, low.title(), low.upper())]
    assert {*words, "1_000", "017", ".inf"} <= {row.written for row in ROWS}


def test_what_arrives_is_what_the_real_kubectl_reads() -> None:
    sent = [row for row in ROWS if row.arrives != NOTHING]
    assert [json.dumps(v) for v in read_by_the_real_kubectl([row.written for row in sent]) or ()] == [
        row.arrives for row in sent
    ]
    for row in ROWS:
        if row.arrives == NOTHING:
            assert read_by_the_real_kubectl([row.written]) is None, row.written


@settings(deadline=None, max_examples=8)
@given(
    st.lists(
        st.from_regex(r"\A[-+]?[0-9._][0-9a-fA-FxXoObB_.eE+:-]{0,6}\Z")
        | st.from_regex(r"\A[yYnNoOtTfF~.][a-zA-Z]{0,4}\Z"),
        min_size=100,
        max_size=500,
    )
)
def test_kubectl_reads_as_we_say_it_does(texts: list[str]) -> None:
    # What is no plain scalar at all is another matter.
    texts = [t for t in texts if t not in {"-", "..."} and not t.startswith("---") and not t.endswith(":")]
    ours = [(text, read_by_kubectl(text)) for text in texts]
    ours = [(text, v) for text, v in ours if not isinstance(v, float) or math.isfinite(v)]
    theirs = read_by_the_real_kubectl([text for text, _ in ours])
    assert theirs is not None
    assert [(t, v, read) for (t, v), read in zip(ours, theirs, strict=True) if not same(v, read)] == []


@given(st.text() | st.sampled_from([row.written for row in ROWS]))
def test_what_we_write_plain_is_no_word_to_kubectl(text: str) -> None:
    if is_plain(text):
        assert read_by_kubectl(text) == text
        assert misreading(text) is None


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.written)
def test_a_laptop_refuses_what_the_table_says(row: Row, field: str) -> None:
    if row.refused[field] == "nobody":
        load_job(job(row, field))
        return
    with pytest.raises(InputRefused) as refused:
        load_job(job(row, field))
    (problem,) = refused.value.problems
    assert problem.position.line == 8
    if row.refused[field] == "laptop":
        assert problem.message.endswith(f'"{row.written}" in quotes')


@pytest.mark.cluster
@pytest.mark.parametrize("field", FIELDS)
def test_the_api_server_refuses_what_the_table_says(
    control_plane: Cluster, namespace: str, field: str
) -> None:
    install_kinds(control_plane)
    options = ("create", "--validate=strict", "--dry-run=server", "-n", namespace, "-o", "name", "-f", "-")
    sent = {f"r{number}": row for number, row in enumerate(ROWS) if row.arrives != NOTHING}
    text = "---\n".join(job(row, field, name) for name, row in sent.items())
    taken = control_plane.kubectl(*options, stdin=text).stdout.split()
    assert {row.written for name, row in sent.items() if f"finetunejob.tuneyard.io/{name}" in taken} == {
        row.written for row in sent.values() if row.refused[field] != "both"
    }
