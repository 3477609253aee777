#!/bin/sh
# PEFT saves an adapter of a Laguna model and, on reading it again, leaves the shared experts' part out.
# transformers renames `mlp.shared_expert.` to `mlp.shared_experts.` when it loads this family. PEFT applies the renaming
# to an adapter's own names too, where the dot matches the plural's last letter: `shared_experts.` becomes `shared_experts..`,
# which no layer has. PeftModel.from_pretrained warns of it; load_adapter only returns the names in its result.
# It matters because the adapter then answers as a half-trained one, and its file looks whole.
set -eu
uv=$(command -v uv || "$(dirname "$0")/../tools/bootstrap.sh")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export UV_PYTHON_DOWNLOADS=never HF_HUB_OFFLINE=1
"$uv" venv -q --python python3 "$work/venv"
"$uv" pip install -q --python "$work/venv" torch==2.15.0 numpy==2.4.6 transformers==5.23.0 peft==0.21.2

"$work/venv/bin/python" -W error::UserWarning - "$work" <<'PYTHON'
import sys
import peft, torch, transformers
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from transformers import AutoModelForCausalLM, LagunaConfig

folder = f"{sys.argv[1]}/adapter"
torch.manual_seed(0)
shape = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
heads = dict(num_key_value_heads=2, head_dim=16, num_attention_heads_per_layer=[4, 4])
experts = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24, shared_expert_intermediate_size=48)
kinds = dict(layer_types=["full_attention"] * 2, mlp_layer_types=["dense", "sparse"])
ids = dict(pad_token_id=0, bos_token_id=0, eos_token_id=1)
base = AutoModelForCausalLM.from_config(LagunaConfig(**shape, **heads, **experts, **kinds, **ids, initializer_range=0.2))
layers = ["q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"]
model = get_peft_model(base, LoraConfig(r=4, target_modules=layers, init_lora_weights=False)).eval()
model.save_pretrained(folder)

result = model.load_adapter(folder, "again")
tokens = torch.arange(1, 17)[None]
with torch.no_grad():
    saved = model(tokens).logits
    model.set_adapter("again")
    differ = (model(tokens).logits - saved).abs().max().item()
with safe_open(f"{folder}/adapter_model.safetensors", "pt") as file:
    written = [name for name in file.keys() if "shared_experts" in name]
print("transformers", transformers.__version__, "peft", peft.__version__)
print("in the file:", written[0])
print("looked for as:", result.unexpected_keys[0] if result.unexpected_keys else "the same")
print(f"tensors of shared experts: {len(written)} written, {len(result.missing_keys)} not read; logits differ by {differ:.2f}")
if not result.missing_keys or differ < 0.01:
    sys.exit("CHANGED: the adapter is read as it was written")
PYTHON
