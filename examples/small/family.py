"""What the family's models are made of, and their folders: config.json, model.safetensors in bf16, the tokenizer."""
import json
import pathlib
import shutil

import torch
from safetensors.torch import load_file, save_file

from model import Assistant, DFlash, Target

KINDS = ("dense", "moe")
MASK, STOPS = 4, [1, 106]

# Widths are multiples of 32, the block of Q8_0. Full layers use their keys as values and have one such head.
SIZES = {
    "small": {
        "dense": {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 12},
        "moe": {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 6, "num_experts": 16,
                "top_k_experts": 4, "moe_intermediate_size": 96},
        "heads": {"num_attention_heads": 4, "num_key_value_heads": 2, "num_global_key_value_heads": 1, "head_dim": 64,
                  "global_head_dim": 128, "sliding_window": 256, "max_position_embeddings": 4096},
        "mtp": {"hidden_size": 128, "intermediate_size": 512},
        "dflash": {"intermediate_size": 512, "num_hidden_layers": 3, "head_dim": 64, "sliding_window": 512,
                   "block_size": 8},
        "taps": {"dense": [1, 4, 8, 11], "moe": [1, 3, 5]},
    },
    "tiny": {
        "dense": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 6},
        "moe": {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 6, "num_experts": 4,
                "top_k_experts": 2, "moe_intermediate_size": 32},
        "heads": {"num_attention_heads": 2, "num_key_value_heads": 1, "num_global_key_value_heads": 1, "head_dim": 32,
                  "global_head_dim": 64, "sliding_window": 32, "max_position_embeddings": 1024},
        "mtp": {"hidden_size": 32, "intermediate_size": 64},
        "dflash": {"intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 32, "sliding_window": 48,
                   "block_size": 8},
        "taps": {"dense": [1, 3, 5], "moe": [1, 3, 5]},
    },
}


def sliding_then_full(layers, period):
    """Every period-th layer is full, and the last."""
    full = [i % period == period - 1 or i == layers - 1 for i in range(layers)]
    return ["full_attention" if f else "sliding_attention" for f in full]


def gemma_text(vocab, **more):
    return {
        "model_type": "gemma4_text", "vocab_size": vocab, "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6,
        "attention_k_eq_v": True, "attention_bias": False, "hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0,
        "use_double_wide_mlp": False, "enable_moe_block": False, "tie_word_embeddings": True, "pad_token_id": 0,
        "bos_token_id": 2, "eos_token_id": STOPS, "dtype": "bfloat16",
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": {"rope_type": "proportional", "rope_theta": 1000000.0, "partial_rotary_factor": 0.25}},
        **more}


def target_config(size, kind, vocab):
    s = SIZES[size]
    return gemma_text(vocab, architectures=["Gemma4ForCausalLM"], enable_moe_block=kind == "moe",
                      final_logit_softcapping=30.0, layer_types=sliding_then_full(s[kind]["num_hidden_layers"], 6),
                      **s[kind], **s["heads"])


def mtp_config(size, kind, vocab):
    """Heads and window are the target's: its caches are read."""
    s = SIZES[size]
    text = gemma_text(vocab, num_hidden_layers=4, layer_types=sliding_then_full(4, 4), final_logit_softcapping=None,
                      **s["mtp"], **s["heads"])
    text.update(num_kv_shared_layers=4, vocab_size_per_layer_input=0)
    return {"architectures": ["Gemma4AssistantForCausalLM"], "model_type": "gemma4_assistant",
            "backbone_hidden_size": s[kind]["hidden_size"], "use_ordered_embeddings": False, "tie_word_embeddings": True,
            "dtype": "bfloat16", "text_config": text}


def dflash_config(size, kind, vocab):
    s = SIZES[size]
    heads = {k: s["heads"][k] for k in ("num_attention_heads", "num_key_value_heads", "max_position_embeddings")}
    return {"architectures": ["DFlashDraftModel"], "model_type": "qwen3", "hidden_act": "silu", "attention_bias": False,
            "rms_norm_eps": 1e-6, "rope_theta": 1000000, "rope_scaling": None, "use_sliding_window": True,
            "hidden_size": s[kind]["hidden_size"], "vocab_size": vocab, "tie_word_embeddings": True, "dtype": "bfloat16",
            "layer_types": sliding_then_full(s["dflash"]["num_hidden_layers"], 99), "final_logit_softcapping": 30.0,
            "dflash_config": {"mask_token_id": MASK, "target_layer_ids": s["taps"][kind]},
            "num_target_layers": s[kind]["num_hidden_layers"], **s["dflash"], **heads}


CONFIGS = {"target": target_config, "mtp": mtp_config, "dflash": dflash_config}


def build(config):
    """A model with new weights."""
    name = config["architectures"][0]
    if name == "DFlashDraftModel":
        return DFlash(config)
    if name == "Gemma4AssistantForCausalLM":
        return Assistant({**config["text_config"], "backbone_hidden_size": config["backbone_hidden_size"]})
    return Target(config)


def folder(out, kind, part):
    return pathlib.Path(out) / (kind if part == "target" else "%s-%s" % (kind, part))


def save(model, config, to, tokenizer_from):
    to.mkdir(parents=True, exist_ok=True)
    (to / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    save_file({k: v.detach().to("cpu", torch.bfloat16).contiguous() for k, v in model.state_dict().items()},
              str(to / "model.safetensors"), {"format": "pt"})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(pathlib.Path(tokenizer_from) / name, to / name)
    (to / "generation_config.json").write_text(json.dumps({"bos_token_id": 2, "eos_token_id": STOPS}) + "\n")


def load(where, device):
    model = build(json.loads((where / "config.json").read_text()))
    model.load_state_dict({k: v.float() for k, v in load_file(str(where / "model.safetensors")).items()})
    return model.to(device).eval()


def parameters(model):
    return sum(p.numel() for p in model.parameters())
