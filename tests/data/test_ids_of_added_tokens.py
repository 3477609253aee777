# SPDX-License-Identifier: Apache-2.0
"""A tokenizer of which a token would get another id than its file says, which is the row of another token in the model."""

import json
import shutil
from pathlib import Path

import pytest
from tuneyard_data.pretrained import load_tokenizer
from tuneyard_data.refused import DataRefused

MODEL = Path(__file__).parents[2] / "examples" / "models" / "tiny-llama"


def edited(folder: Path, vocabulary: dict[str, int], added: dict[str, int]) -> Path:
    """The tiny model's tokenizer with more entries in its vocabulary and with more added tokens."""
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copyfile(MODEL / name, folder / name)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"] |= vocabulary
    like = content["added_tokens"][0]
    content["added_tokens"] += [like | {"content": token, "id": number} for token, number in added.items()]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


def test_an_added_token_after_the_vocabulary_has_the_id_that_its_file_says(tmp_path):
    loaded = load_tokenizer(edited(tmp_path, {}, {"<|tool|>": 3072, "<|end|>": 3073}))
    assert loaded.convert_tokens_to_ids(["<|tool|>", "<|end|>"]) == [3072, 3073]


@pytest.mark.parametrize(
    ("vocabulary", "said", "given"),
    [
        # The added token fills the gap by its file, and gets the id of the last entry of the vocabulary.
        ({"<first>": 3072, "<last>": 3074}, 3073, 3074),
        # Rows of the model that no token has are counted by the file, and not by the library.
        ({}, 3100, 3072),
    ],
)
def test_an_added_token_that_gets_another_id_is_refused(tmp_path, vocabulary, said, given):
    folder = edited(tmp_path, vocabulary, {"<|end|>": said})
    with pytest.raises(DataRefused) as refused:
        load_tokenizer(folder)
    assert str(refused.value).startswith(
        f"{folder}/tokenizer.json: the token '<|end|>' has id {said} in this file, and the library tokenizers gives it id {given}"
    )
