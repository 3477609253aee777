#!/bin/sh
# transformers loads an adapter that happens to lie beside the weights of a base model, without being asked.
# AutoModelForCausalLM.from_pretrained(FOLDER) on a folder with model.safetensors and adapter_config.json returns the
# base with the adapter inside, also when that adapter names another base. PEFT then puts a new adapter on top of it.
# It matters because the new adapter is then trained and evaluated on another model than the weights in the folder,
# its target modules are called base_layer and default, and no message says so.
set -eu
uv=$(command -v uv || "$(dirname "$0")/../tools/bootstrap.sh")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export UV_PYTHON_DOWNLOADS=never HF_HUB_OFFLINE=1
"$uv" venv -q --python python3 "$work/venv"
"$uv" pip install -q --python "$work/venv" torch==2.15.0 numpy==2.4.6 transformers==5.23.0 peft==0.21.2

"$work/venv/bin/python" - "$work" <<'PYTHON'
import copy, sys
import peft, torch, transformers
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

folder = f"{sys.argv[1]}/model"
torch.manual_seed(0)
shape = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
base = LlamaForCausalLM(LlamaConfig(**shape, initializer_range=0.2)).eval()
base.save_pretrained(folder)
bare = AutoModelForCausalLM.from_pretrained(folder)

adapter = get_peft_model(copy.deepcopy(base), LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
adapter.peft_config["default"].base_model_name_or_path = "another-organisation/another-model"
adapter.save_pretrained(folder)
both = AutoModelForCausalLM.from_pretrained(folder)

tokens = torch.arange(1, 17)[None]
with torch.no_grad():
    differ = (both.eval()(tokens).logits - bare.eval()(tokens).logits).abs().max().item()
layers = {name.rpartition(".")[2] for name, module in both.named_modules() if isinstance(module, torch.nn.Linear)}
print("transformers", transformers.__version__, "peft", peft.__version__)
print(f"the same folder, before and after the adapter's files came: logits differ by {differ:.2f}")
print("names of its linear layers now:", " ".join(sorted(layers)))
if differ < 0.01 or "base_layer" not in layers:
    sys.exit("CHANGED: the adapter is not loaded any more")
PYTHON
