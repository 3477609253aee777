#!/bin/sh
# transformers reads a saved Youtu model with zeros in the row of the padding token, whatever the file holds.
# The family ties its output head to the embedding, so the head loses the row too. Llama, Gemma, Qwen3 and DeepSeek-V3 with the
# same options are read as they were saved. No warning is given, and no key is reported as missing.
# It matters because training changes that row by way of the head: after save_pretrained and from_pretrained the same
# text has another loss, as every softmax has the padding token in its sum.
set -eu
uv=$(command -v uv || "$(dirname "$0")/../tools/bootstrap.sh")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export UV_PYTHON_DOWNLOADS=never HF_HUB_OFFLINE=1
"$uv" venv -q --python python3 "$work/venv"
"$uv" pip install -q --python "$work/venv" torch==2.15.0 numpy==2.4.6 transformers==5.23.0

"$work/venv/bin/python" - "$work" <<'PYTHON'
import sys
import torch, transformers
from transformers import AutoConfig, AutoModelForCausalLM

shape = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4)
shape |= dict(num_key_value_heads=4, pad_token_id=3, bos_token_id=0, eos_token_id=1, tie_word_embeddings=True)
latent = dict(q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8)
families = {"llama": {}, "gemma3_text": {}, "qwen3": {}, "deepseek_v3": latent, "youtu": latent}
tokens = torch.arange(4, 20)[None]
zeros = []
print("transformers", transformers.__version__)
for family, more in families.items():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **shape, **more)).eval()
    with torch.no_grad():
        model.get_input_embeddings().weight[3] = 1.0
        model.save_pretrained(f"{sys.argv[1]}/{family}")
        again = AutoModelForCausalLM.from_pretrained(f"{sys.argv[1]}/{family}").eval()
        row = again.get_output_embeddings().weight[3]
        losses = [one(input_ids=tokens, labels=tokens).loss.item() for one in (model, again)]
    print(f"{family}: row of the padding token {row[0].item():.1f} (saved 1.0), loss {losses[0]:.4f} -> {losses[1]:.4f}")
    if not row.any():
        zeros.append(family)
if zeros != ["youtu"]:
    sys.exit("CHANGED: the row is zero in " + (", ".join(zeros) or "no family"))
PYTHON
