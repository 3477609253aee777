#!/bin/sh
# position_ids that start again at 0 keep packed records apart in some families of models and not in others.
# transformers reads such positions as "two records in one row" and masks attention accordingly. Layers with linear
# attention, a state space or a convolution have no mask: their state runs on from the first record into the second.
# It matters because packing is the usual way to train fast, no message says that records see each other, and the loss
# looks healthy.
set -eu
uv=$(command -v uv || "$(dirname "$0")/../tools/bootstrap.sh")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export UV_PYTHON_DOWNLOADS=never HF_HUB_OFFLINE=1
"$uv" venv -q --python python3 "$work/venv"
"$uv" pip install -q --python "$work/venv" torch==2.15.0 numpy==2.4.6 transformers==5.23.0

"$work/venv/bin/python" - <<'PYTHON'
import sys
import torch, transformers
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

logging.set_verbosity_error()
print("transformers", transformers.__version__, "torch", torch.__version__)
shape = dict(vocab_size=128, hidden_size=64, num_hidden_layers=4, num_attention_heads=4, initializer_range=0.2)
families = {
    "llama": dict(shape, intermediate_size=128, num_key_value_heads=2),
    "qwen3_next": dict(shape, intermediate_size=128, num_key_value_heads=2, head_dim=16, num_experts=4,
                       num_experts_per_tok=2, moe_intermediate_size=32, shared_expert_intermediate_size=32),
    "mamba2": dict(shape, num_heads=8, head_dim=16, state_size=16, n_groups=1),
}
del families["mamba2"]["num_attention_heads"]
leak = {}
for family, settings in families.items():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings)).eval()
    first, other, second = (torch.randint(1, 128, (1, n)) for n in (40, 40, 24))
    positions = torch.cat([torch.arange(40), torch.arange(24)])[None]
    takes_positions = family != "mamba2"

    def second_record(before):
        arguments = {"position_ids": positions} if takes_positions else {}
        with torch.no_grad():
            return model(torch.cat([before, second], 1), use_cache=False, **arguments).logits[:, 40:]

    # Another first record must not change the second one.
    leak[family] = (second_record(first) - second_record(other)).abs().max().item()
    print(f"{family}: another first record moves the logits of the second by {leak[family]:.1e}")
if leak["llama"] > 1e-4:
    sys.exit("CHANGED: records leak in a model with attention alone")
if leak["qwen3_next"] < 0.1:
    sys.exit("CHANGED: the state of linear attention is reset between records")
PYTHON
