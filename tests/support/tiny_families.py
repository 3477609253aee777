# SPDX-License-Identifier: Apache-2.0
"""A tiny model of random weights for every causal family of transformers: the family's own configuration, shrunk."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch

TOKENS = 328
"""Rows of every embedding: more than the tokenizer has, to which some families add tokens of their own."""
_SIZES: dict[str, int] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "text_vocab_size"), TOKENS),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embedding_size", "word_embed_proj_dim"), 32),
    **dict.fromkeys(
        ("emb_dim", "lru_width", "attention_hidden_size", "dim_model", "decoder_hidden_size"), 32
    ),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"), 2),
    **dict.fromkeys(("encoder_layers", "num_decoder_layers", "num_encoder_layers", "num_blocks"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "decoder_attention_heads", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "num_decoder_attention_heads", "linear_num_value_heads"), 4),
    **dict.fromkeys(("swa_num_attention_heads", "mamba_num_heads", "mamba_n_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_global_key_value_heads", "n_kv_heads"), 2),
    **dict.fromkeys(("swa_num_key_value_heads", "linear_num_key_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("intermediate_size", "d_inner", "n_inner", "ffn_dim", "d_ff", "ffn_hidden_size"), 48),
    **dict.fromkeys(("decoder_ffn_dim", "encoder_ffn_dim", "shared_expert_intermediate_size"), 48),
    **dict.fromkeys(("intermediate_size_mlp", "mlp_intermediate_size", "shared_intermediate_size"), 48),
    **dict.fromkeys(("moe_intermediate_size", "expert_ffn_hidden_size", "dense_intermediate_size"), 24),
    **dict.fromkeys(("moe_shared_expert_intermediate_size", "dim_ff", "feed_forward_size"), 24),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "num_experts_per_token", "moe_topk"), 2),
    **dict.fromkeys(("n_group", "topk_group", "moe_num_shared_experts"), 1),
    **dict.fromkeys(("head_dim", "global_head_dim", "attention_head_dim", "v_head_dim", "dim_head"), 16),
    **dict.fromkeys(("qk_nope_head_dim", "kv_channels", "mamba_head_dim", "mamba_d_head"), 16),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "mamba_d_state", "state_size"), 16),
    **dict.fromkeys(("swa_head_dim", "swa_v_head_dim", "index_head_dim", "ssm_state_size"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "rotary_dim", "index_n_heads"), 8),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "o_lora_rank", "hidden_size_per_layer_input"), 16),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length"), 256),
    **dict.fromkeys(("max_target_positions", "max_source_positions", "context_length"), 256),
    **dict.fromkeys(("n_ctx", "decoder_start_token_id"), 256),
    **dict.fromkeys(("sliding_window", "attention_window_size", "attention_chunk_size"), 24),
    **dict.fromkeys(("local_attention", "sliding_window_size"), 24),
    **dict.fromkeys(("index_topk", "keep_window_size"), 16),
    "index_block_size": 8,
    "first_k_dense_replace": 1,
    "decoder_start_token_id": 0,
}
"""Small values by the names that configurations give to sizes."""
_TOKEN_IDS = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 1}
_ALL_HEADS = {"num_key_value_heads": 4}
_BLOCKS = {"layer_types": ["conv", "full_attention"]}
_LINEAR = {"layer_types": ["linear_attention", "full_attention"]}
_STATE = {"num_heads": 4, "head_dim": 16, "n_groups": 2}
_HYBRID = {"num_hidden_layers": 4, "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"]}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_WINDOWS = ("sliding_attention", "full_attention")
_QWEN4 = {
    "layer_types": ["linear_attention", "full_attention"],
    "eos_token_id": 1,
    "hc_lowrank": 8,
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 16,
    "indexer_budget": 16,
    "indexer_compress_ratio": 4,
}
_BYTES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_key_value_heads": 4}
_DOTS_WINDOWS = {
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 4,
    "swa_q_lora_rank": 16,
    "swa_kv_lora_rank": 16,
    "swa_head_dim": 16,
    "swa_qk_nope_head_dim": 8,
    "swa_v_head_dim": 16,
}
_DRAFTER = {"num_hidden_layers": 2, "num_kv_shared_layers": 2, "layer_types": list(_WINDOWS)}
_EXCEPTIONS: Mapping[str, Mapping[str, Any]] = {
    **dict.fromkeys(
        ("axk1", "axk2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite", "glm_moe_dsa"), _ALL_HEADS
    ),
    **dict.fromkeys(("minicpm3", "youtu", "dots3_note_text"), _ALL_HEADS),
    **{name: {"head_dim": 8} for name in ("helium", "hunyuan_v1_dense", "hunyuan_v1_moe", "ministral")},
    **dict.fromkeys(("lfm2", "lfm2_moe", "lfm3"), _BLOCKS),
    **dict.fromkeys(("granitemoehybrid", "qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"), _LINEAR),
    **{key: {"text_config": _LINEAR} for key in ("qwen3_5", "qwen3_5_moe")},
    "cohere_compass_text": {
        "layer_types": list(_WINDOWS),
        "rope_parameters": dict.fromkeys(_WINDOWS, _ROPE),
    },
    "blt": {
        "encoder_hash_byte_group_vocab": 128,
        "local_attention_window_len": 24,
        **dict.fromkeys(("patcher_config", "global_config"), _BYTES),
        **dict.fromkeys(("encoder_config", "decoder_config"), _BYTES | {"hidden_size_global": 32}),
    },
    "dots3_note": {
        "text_config": _ALL_HEADS | _DOTS_WINDOWS,
        "vision_config": {"adapter_in_dim": 32, "adapter_out_dim": 32, "mlp_layer_types": ["dense", "dense"]},
        "audio_config": {
            "adapter_input_size": 32,
            "adapter_out_dim": 32,
            "downsample_hidden_size": 16,
            "feature_size": 16,
        },
    },
    "gemma4_assistant": {
        "backbone_hidden_size": 32,
        "text_config": _DRAFTER | {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0},
    },
    "gemma4_unified": {"vision_config": {"mm_embed_dim": 32, "mm_posemb_size": 16, "output_proj_dims": 32}},
    "gemma4_unified_assistant": {"backbone_hidden_size": 32, "text_config": _DRAFTER},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        "ffn_config": {"hidden_size": 32, "ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "bailing_hybrid": _LINEAR | _ALL_HEADS | {"layer_group_size": 2},
    "bamba": {"attn_layer_indices": [1]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "qwen4_exp": {"text_config": _QWEN4},
    "qwen4_exp_text": _QWEN4,
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "deepseek_v2": {"num_experts_per_tok": 2, "num_key_value_heads": 4, "head_dim": 8},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16},
    "gemma3n_text": {"num_kv_shared_layers": 0, "intermediate_size": 48, "activation_sparsity_pattern": None},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_layers": 2, "window_size": 24},
    "kimi_linear": _LINEAR | {"linear_head_dim": 16, "linear_num_heads": 4, "num_key_value_heads": 4},
    "longcat_flash": {"num_key_value_heads": 4, "head_dim": 8, "zero_expert_num": 2},
    "mamba2": _STATE,
    "nemotron": {"num_key_value_heads": 2, "head_dim": 8},
    "nemotron_h": {"n_groups": 2, "mamba_num_heads": 4, "mamba_head_dim": 16},
    "reformer": {
        "is_decoder": True,
        "attn_layers": ["local", "lsh"],
        "axial_pos_shape": [16, 16],
        "axial_pos_embds_dim": [16, 16],
        "attention_head_size": 8,
        "local_attn_chunk_length": 4,
        "lsh_attn_chunk_length": 4,
        "hash_seed": 0,
    },
    "roc_bert": {
        "pronunciation_embed_dim": 32,
        "pronunciation_vocab_size": 50,
        "shape_embed_dim": 32,
        "shape_vocab_size": 50,
    },
    "xlstm": {"hidden_size": 256, "embedding_dim": 256},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "zamba": _HYBRID
    | {"n_mamba_heads": 2, "attention_head_dim": 16, "attention_hidden_size": 64, "mamba_dt_rank": 4},
    "zamba2": _HYBRID
    | {"n_mamba_heads": 4, "num_key_value_heads": 4, "intermediate_size": 48, "adapter_rank": 4},
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 16},
}


def families() -> list[str]:
    """The model types of all causal language models that transformers has, sorted."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny_config(model_type: str) -> Any:
    """The configuration of a family with two layers of width 32."""
    from transformers import CONFIG_MAPPING

    return _shrunk(CONFIG_MAPPING[model_type], _EXCEPTIONS.get(model_type, {}))


def size(config: Any) -> int:
    """Number of parameters of a configuration's model; nothing is allocated."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return sum(parameter.numel() for parameter in model.parameters())


def _shrunk(kind: Any, exceptions: Mapping[str, Any]) -> Any:
    options = {name: value for name, value in _defaults(kind) if name in _SIZES or name in _TOKEN_IDS}
    aliases = set(getattr(kind, "attribute_map", {}))
    small = {
        name: (_SIZES | _TOKEN_IDS)[name]
        for name, default in options.items()
        if name not in aliases
        and not isinstance(default, (list, dict, tuple))
        and not (default is None and name in _SIZES)
    }
    rest = dict(exceptions)
    for name, part in getattr(kind, "sub_configs", {}).items():
        own = part if hasattr(part, "model_type") else _class_of_part(kind, name)
        if hasattr(own, "model_type"):
            small[name] = _shrunk(own, rest.pop(name, {})).to_dict()
    return kind(**(small | rest))


def _class_of_part(kind: Any, name: str) -> Any:
    """The class of a part for which any configuration may stand: the one that the family has by default."""
    from transformers import CONFIG_MAPPING

    default = getattr(kind, "sub_configs_defaults", {}).get(name)
    if model_type := getattr(default, "model_type", None):
        return CONFIG_MAPPING[model_type]
    return type(getattr(kind(), name))


def _defaults(kind: Any) -> Iterator[tuple[str, Any]]:
    for name, parameter in inspect.signature(kind.__init__).parameters.items():
        if parameter.default is not parameter.empty:
            yield name, parameter.default
