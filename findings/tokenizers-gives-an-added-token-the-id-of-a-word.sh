#!/bin/sh
# The library tokenizers reads an added token's `id` in tokenizer.json and does not use it: a token that the vocabulary lacks
# gets the number of entries so far. If an added token fills a gap in the ids of the vocabulary, as its file says, that number
# is the id of a word: the text `d` is then read as the end of the text, and the word can't be written any more. Nothing is
# said. It matters because the id is the row of the token in the model: a training learns to stop at a common word.
# With the added token behind the vocabulary, all ids are those of the file. Needs a minute.
set -eu
uv=$(command -v uv || "$(dirname "$0")/../tools/bootstrap.sh")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export UV_PYTHON_DOWNLOADS=never
"$uv" venv -q --python python3 "$work/venv"
"$uv" pip install -q --python "$work/venv" tokenizers==0.23.3

"$work/venv/bin/python" - <<'PYTHON'
import json, sys
import tokenizers


def made(vocabulary, end):
    """The tokenizer of a file with these words and with </s> as an added token."""
    added = {"id": end, "content": "</s>", "special": True, "normalized": False,
             "single_word": False, "lstrip": False, "rstrip": False}
    return tokenizers.Tokenizer.from_str(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [added], "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "a"}}))


print("tokenizers", tokenizers.__version__)
seen = {}
for where, vocabulary, end in (("in a gap", {"a": 0, "b": 1, "c": 2, "d": 4}, 3),
                               ("behind", {"a": 0, "b": 1, "c": 2, "d": 3}, 4)):
    tokenizer = made(vocabulary, end)
    word, given = tokenizer.encode("d").ids, tokenizer.token_to_id("</s>")
    back = tokenizer.decode(word, skip_special_tokens=False)
    print(f"</s> {where}: the file says id {end}, the library {given}; the text 'd' has the ids {word}, which read {back!r}")
    seen[where] = (given, word, back)
if seen != {"in a gap": (4, [4], "</s>"), "behind": (4, [3], "d")}:
    sys.exit("CHANGED: the id of the file is used, or another one is given")
PYTHON
