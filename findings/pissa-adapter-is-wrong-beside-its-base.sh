#!/bin/sh
# An adapter that PEFT trained with init_lora_weights="pissa" is right only together with its own base weights.
# PiSSA moves the largest singular values from the base weights into the adapter. get_peft_model changes the base
# model in memory, save_pretrained writes the adapter alone, and PEFT loads it again without a word, because it
# repeats the same change. A server that adds B·A to the original base answers with another model.
# It matters because training, reloading and evaluation all look right, and only what is served is wrong.
set -eu
uv=$(command -v uv || "$(dirname "$0")/../tools/bootstrap.sh")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export UV_PYTHON_DOWNLOADS=never HF_HUB_OFFLINE=1
"$uv" venv -q --python python3 "$work/venv"
"$uv" pip install -q --python "$work/venv" torch==2.15.0 numpy==2.4.6 transformers==5.23.0 peft==0.21.2

"$work/venv/bin/python" - "$work" <<'PYTHON'
import copy, json, sys
import peft, torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

work = sys.argv[1]
torch.manual_seed(0)
shape = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
base = LlamaForCausalLM(LlamaConfig(**shape, initializer_range=0.2)).eval()
tokens = torch.arange(1, 17)[None]


def logits(model):
    with torch.no_grad():
        return model.eval()(tokens).logits


def served(folder):
    """The original base plus scaled B·A, as a server of adapters computes it."""
    model, config = copy.deepcopy(base), json.load(open(f"{folder}/adapter_config.json"))
    factors = load_file(f"{folder}/adapter_model.safetensors")
    for name, module in model.named_modules():
        a = factors.get(f"base_model.model.{name}.lora_A.weight")
        if a is not None:
            b = factors[f"base_model.model.{name}.lora_B.weight"]
            module.weight.data += config["lora_alpha"] / config["r"] * b @ a
    return model


print("peft", peft.__version__, "torch", torch.__version__)
far = {}
for init in (True, "pissa"):
    config = LoraConfig(r=8, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=init)
    model = get_peft_model(copy.deepcopy(base), config)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)
    for _ in range(5):
        optimizer.zero_grad()
        model.train()(tokens, labels=tokens).loss.backward()
        optimizer.step()
    folder = f"{work}/{init}"
    model.save_pretrained(folder)
    trained = logits(model)
    again = (logits(PeftModel.from_pretrained(copy.deepcopy(base), folder)) - trained).abs().max().item()
    far[init] = (logits(served(folder)) - trained).abs().max().item()
    print(f"init_lora_weights={init}: loaded by PEFT again differs by {again:.1e}, base + B·A differs by {far[init]:.1e}")
    if again > 1e-3:
        sys.exit("CHANGED: PEFT itself no longer loads the adapter as it was trained")
if far[True] > 1e-3 or far["pissa"] < 0.1:
    sys.exit("CHANGED: a PiSSA adapter can be served beside the original base")
PYTHON
