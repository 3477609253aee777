# SPDX-License-Identifier: Apache-2.0
"""Writes docs/reference/methods.md from the trainer's methods and what was measured; `--check` fails when the page is stale."""

import json
import sys
from pathlib import Path

from committed import keep
from tuneyard_api.methods import METHODS, Method, method_of

_ROOT = Path(__file__).resolve().parents[1]
_MEASURED = _ROOT / "tests/support/method_matrix.json"
_FAMILIES = _ROOT / "trainer/src/tuneyard_trainer/model/families.json"
_PAGE = _ROOT / "docs/reference/methods.md"
_EXAMPLES = {
    "lora": "smollm2-lora.yaml",
    "dora": "methods/dora.yaml",
    "sft": "methods/sft.yaml",
    "dpo": "methods/dpo.yaml",
    "ia3": "methods/ia3.yaml",
    "pTuning": "methods/p-tuning.yaml",
}
_PUBLISHED = {
    "adapter": "a LoRA adapter in PEFT's layout",
    "model": "a model, as transformers reads it",
    "prompt": "virtual tokens in PEFT's layout",
}
_SERVERS = {
    "adapter": ("beside others", "beside others", "beside others"),
    "model": (
        "started on the folder",
        "started on the folder, if NIM knows the family",
        "started on the folder",
    ),
    "prompt": ("no", "no", "no"),
}
_NOT_MEASURED = "not measured"
_HEAD = """# Training methods

`spec.method` names the method; the runtime must list it. The CRD checks that options go with their method.

## Method and server

A server of adapters (vLLM, NIM, the small server of the demo) loads LoRA adapters beside each other. What it can't load is
never published into its registry: a job that would do so is refused, with another claim as the way out.

| method | trains | published | vLLM | NIM | server of the demo | example |
| --- | --- | --- | --- | --- | --- | --- |
"""
_MERGED = """
- Merged: the base model is read again, what was trained is merged into its weights, and the result is read back and compared
  with what was evaluated. The adapter stays in the workspace, as plain PEFT reads it.
- vLLM refuses adapters with `use_dora`, and needs the rank of an adapter, which neither IA3 nor virtual tokens have. NIM reads
  adapters of LoRA alone.
- `dpo` compares the model with itself without the adapter, so that no second model is held. Batches count pairs, and a pair is
  two rows. Its validation loss is that of
  pairs; the evaluation gives the loss of the chosen answers, and how often each model prefers the chosen answer.
- A quantized base model goes with `lora` and `dpo`, but not with `lora.dora`, as a quantized model can't be merged into.
- `pTuning` trains on one GPU. Bottleneck adapters (Houlsby et al. 2019) are not offered: PEFT does not have
  them, and the library `adapters` 1.3.0 needs transformers 4.
- Learning rates that people begin with: `lora` 2e-4, `sft` 2e-5, `dpo` 5e-6, `ia3` 1e-2, `pTuning` 3e-3.

## Method and model family

Each cell is a tiny model of random weights that went through the stages prepare, train and publish on a CPU with transformers
{version}; `refused` gives the words of prepare, before a GPU is asked for. [Model families](families.md) has `lora` and `sft`
for all families.

| family | {columns} |
| --- | {line} |
"""


def page() -> str:
    """The page, in Markdown."""
    measured, families = (json.loads(path.read_text(encoding="utf-8")) for path in (_MEASURED, _FAMILIES))
    rows = [_method_row(method.name, method) for method in METHODS]
    rows.insert(1, _method_row("dora", method_of("lora", dora=True)))
    columns = ["lora", "sft", *next(iter(measured["families"].values()))]
    head = _MERGED.format(
        version=measured["transformers"],
        columns=" | ".join(_called(column) for column in columns),
        line=" | ".join("---" for _ in columns),
    )
    body = []
    for family, row in sorted(measured["families"].items()):
        cells = families["families"].get(family, dict.fromkeys(("lora", "sft"), _NOT_MEASURED)) | row
        body.append(f"| `{family}` | {' | '.join(_outcome(cells[column]) for column in columns)} |\n")
    return _HEAD + "".join(rows) + head + "".join(body)


def _called(column: str) -> str:
    return "`lora.dora`" if column == "dora" else f"`{column}`"


def _method_row(name: str, method: Method) -> str:
    published = _PUBLISHED[method.result] + (", merged" if method.is_merged else "")
    trains = "an adapter, and the magnitude of each output of a layer" if name == "dora" else method.trains
    example = _EXAMPLES[name]
    cells = (_called(name), trains, published, *_SERVERS[method.result], f"[job](../../examples/{example})")
    return f"| {' | '.join(cells)} |\n"


def _outcome(said: str) -> str:
    if said.startswith(("works", _NOT_MEASURED)):
        return said.partition(";")[0]
    stage, failure, words = said.split(": ", 2)
    words = words.removeprefix("method: ")
    return f"refused: {words}" if stage == "prepare" else f"fails in {stage}, {failure}: {words}"


def main() -> int:
    """Exit code 1 if `--check` finds another page."""
    return keep({_PAGE: page()})


if __name__ == "__main__":
    sys.exit(main())
