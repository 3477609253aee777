# SPDX-License-Identifier: Apache-2.0
"""What the stage prepare says of a model's family: whether records may share a sequence, and whether it can be trained."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from tuneyard_api.pod_contract import EXIT_CODES, FailureClass, PrepareFacts
from tuneyard_data.pretrained import carries_state

GOOD = [{"prompt": f"say number {n} =", "completion": f" {n % 7}"} for n in range(20)]


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "lfm2", "num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]},
        {"model_type": "falcon_h1"},
        {"model_type": "mamba2"},
        {"model_type": "qwen3_next"},
        {"model_type": "jamba"},
        {"model_type": "recurrent_gemma"},
    ],
    ids=lambda config: config["model_type"],
)
def test_a_model_that_carries_a_state_is_not_packed(write_model, jsonl, job_of, pods, config):
    folder = write_model()
    (folder / "config.json").write_text(json.dumps({"vocab_size": 320} | config))
    job = job_of(folder, jsonl(GOOD), runtime={"modelFamilies": []})
    facts = PrepareFacts.model_validate(pods.run("prepare", job)[1].facts)
    assert facts.train_sequences == facts.train_records
    assert f"layers of {config['model_type']} carry a state from token to token" in facts.warnings[0]


def test_attention_that_selects_tokens_carries_no_state():
    assert not carries_state({"model_type": "deepseek_v32", "layer_types": ["indexed_attention"] * 2})
    assert carries_state({"model_type": "deepseek_v4", "layer_types": ["heavily_compressed_attention"]})


def test_a_family_that_can_not_be_trained_is_known_without_a_gpu(write_model, jsonl, job_of, pods):
    folder = write_model()
    known = {"nope": "does not know the model_type nope; try", "clip": "no causal language model"}
    for model_type, message in known.items():
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
        code, result = pods.run("prepare", job_of(folder, jsonl(GOOD), runtime={"modelFamilies": []}))
        assert code == EXIT_CODES[FailureClass.BAD_INPUT]
        assert message in result.failure.message


def pointer(folder, name):
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def stale_index(folder):
    save_file({"a": np.zeros(1, np.float32)}, folder / "model.safetensors")
    index = {"weight_map": {"a": "model.safetensors", "b": "model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def llama_cpp(folder):
    (folder / "model.safetensors").rename(folder / "model-Q4_K_M.gguf")


def with_config(**values):
    return lambda folder: (folder / "config.json").write_text(json.dumps(values))


def with_header(change):
    """The weights with another header in front of the same bytes."""

    def spoil(folder):
        path = folder / "model.safetensors"
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        change(header)
        written = json.dumps(header).encode()
        path.write_bytes(len(written).to_bytes(8, "little") + written + content[8 + length :])

    return spoil


def cut_beside_shards(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model-00001-of-00001.safetensors").write_bytes(content)
    index = {"weight_map": {"lm_head.weight": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").write_bytes(content[:-1])


UNUSABLE = {
    "tokenizer.json is a pointer": (
        lambda folder: pointer(folder, "tokenizer.json"),
        FailureClass.MODEL_MISSING,
        "tokenizer.json is the pointer that Git LFS leaves and not the file; try `git lfs pull` there",
    ),
    "config.json is a pointer": (
        lambda folder: pointer(folder, "config.json"),
        FailureClass.MODEL_MISSING,
        "config.json is the pointer that Git LFS leaves",
    ),
    "an index of other files": (
        stale_index,
        FailureClass.BAD_INPUT,
        "the index of the weights names b in model.safetensors, which does not have it; try to fetch both of one revision",
    ),
    "weights of llama.cpp": (llama_cpp, FailureClass.BAD_INPUT, "model-Q4_K_M.gguf is a model for llama.cpp"),
    "fp8": (
        with_config(model_type="llama", vocab_size=320, quantization_config={"quant_method": "fp8"}),
        FailureClass.BAD_INPUT,
        "stored in fewer bits (fp8); try its revision in bfloat16",
    ),
    "fp8, as config.json says inside of text_config": (
        with_config(model_type="llama", text_config={"quantization_config": {"quant_method": "awq"}}),
        FailureClass.BAD_INPUT,
        "stored in fewer bits (awq); try its revision in bfloat16",
    ),
    "MLX": (
        with_config(model_type="llama", quantization={"group_size": 64, "bits": 4}),
        FailureClass.BAD_INPUT,
        "stored in fewer bits (quantized)",
    ),
    "fp8, as only the weights say": (
        with_header(lambda header: header["lm_head.weight"].update(dtype="F8_E4M3", shape=[320, 32])),
        FailureClass.BAD_INPUT,
        "stored in fewer bits (F8_E4M3)",
    ),
    "GPTQ, as only the weights say": (
        with_header(lambda header: header.update({"a.qweight": header.pop("lm_head.weight")})),
        FailureClass.BAD_INPUT,
        "stored in fewer bits (a.qweight)",
    ),
    "int8, as only the weights say": (
        with_header(lambda header: header["lm_head.weight"].update(dtype="I8", shape=[320, 32])),
        FailureClass.BAD_INPUT,
        "stored in fewer bits (lm_head.weight is I8); try its revision in bfloat16",
    ),
    "MXFP4, as only the weights say": (
        with_header(lambda header: header.update({"experts.down_proj_blocks": header.pop("lm_head.weight")})),
        FailureClass.BAD_INPUT,
        "stored in fewer bits (experts.down_proj_blocks)",
    ),
    "no attention heads": (
        with_config(model_type="llama", vocab_size=320, num_attention_heads=0),
        FailureClass.BAD_INPUT,
        "config.json: num_attention_heads is 0, and a model needs at least 1; try the config.json that belongs",
    ),
    "no layers in the part for text": (
        with_config(model_type="llama", text_config={"num_hidden_layers": 0}),
        FailureClass.BAD_INPUT,
        "config.json: num_hidden_layers is 0, and a model needs at least 1",
    ),
    "an index of whole files beside a file that is cut, which transformers reads": (
        cut_beside_shards,
        FailureClass.MODEL_MISSING,
        "model.safetensors is cut",
    ),
    "an index that is a pointer": (
        lambda folder: pointer(folder, "model.safetensors.index.json"),
        FailureClass.MODEL_MISSING,
        "model.safetensors.index.json is the pointer that Git LFS leaves",
    ),
    "an index of another folder's files": (
        lambda folder: (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../a"}}'),
        FailureClass.BAD_INPUT,
        "it has no weight_map from tensors to files",
    ),
    "a tensor of another size than its shape": (
        with_header(lambda header: header["lm_head.weight"].update(shape=[3, 3])),
        FailureClass.BAD_INPUT,
        "model.safetensors is no safetensors file: ",
    ),
    "a kind of number that nobody knows": (
        with_header(lambda header: header["lm_head.weight"].update(dtype="F12")),
        FailureClass.BAD_INPUT,
        "model.safetensors is no safetensors file: ",
    ),
    "a tokenizer of SentencePiece alone": (
        lambda folder: (folder / "tokenizer.json").rename(folder / "tokenizer.model"),
        FailureClass.MODEL_MISSING,
        "try a revision with tokenizer.json, which AutoTokenizer's save_pretrained writes",
    ),
    "no positions": (
        with_config(model_type="llama", vocab_size=320, max_position_embeddings=0),
        FailureClass.BAD_INPUT,
        "config.json: a model needs at least 1 position (got 0)",
    ),
    "ModelOpt": (
        lambda folder: (folder / "hf_quant_config.json").write_text("{}"),
        FailureClass.BAD_INPUT,
        "stored in fewer bits (hf_quant_config.json)",
    ),
    "Python of its own": (
        with_config(model_type="llama", auto_map={"AutoModelForCausalLM": "m.M"}),
        FailureClass.BAD_INPUT,
        "it comes with its own Python",
    ),
    "layers that see later tokens": (
        with_config(model_type="bert", vocab_size=320),
        FailureClass.BAD_INPUT,
        'a token of bert sees later tokens too; try a model that generates text, or "is_decoder": true',
    ),
}


@pytest.mark.parametrize("case", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_model_that_can_not_be_used_is_refused_with_what_helps(write_model, jsonl, job_of, pods, case):
    spoil, failure_class, message = case
    folder = write_model()
    spoil(folder)
    failure = pods.run("prepare", job_of(folder, jsonl(GOOD), runtime={"modelFamilies": []}))[1].failure
    assert (failure.failure_class, message in failure.message) == (failure_class, True), failure.message


def test_an_empty_auto_map_is_no_python_of_its_own(write_model, jsonl, job_of, pods):
    folder = write_model(auto_map={})
    assert pods.run("prepare", job_of(folder, jsonl(GOOD), runtime={"modelFamilies": []}))[0] == 0
