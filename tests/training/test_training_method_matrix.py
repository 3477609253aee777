# SPDX-License-Identifier: Apache-2.0
"""Methods on tiny models of the best known families: is what the page of methods says still what is measured?"""

import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from support import method_matrix  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("default")]

SAMPLE = {("gpt2", "dora"), ("mixtral", "ia3"), ("qwen2", "dpo"), ("falcon", "pTuning")}
EVERY = [(family, column) for family in method_matrix.FAMILIES for column in method_matrix.COLUMNS]


@pytest.fixture
def measured(tmp_path, pods, write_tokenizer):
    """The outcome of a method on a family, measured now; `pods` restores what stages settle in the environment."""
    return lambda family, column: method_matrix.measure(
        family, [column], tmp_path / "family", write_tokenizer
    )[column]


@pytest.mark.parametrize(
    ("family", "column"),
    [pytest.param(*each, marks=() if each in SAMPLE else pytest.mark.long) for each in EVERY],
)
def test_a_method_goes_with_a_family_as_the_page_says(measured, family, column):
    committed = json.loads(method_matrix.TABLE.read_text())["families"]
    assert measured(family, column) == committed[family][column]
