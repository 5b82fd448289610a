"""Checkpoints as Hugging Face has them, for the tests of lap convert, and a reader of the GGUF files that it writes.

A checkpoint is made of random numbers, or of a GGUF file that the reference converter wrote: then converting it must
give that file back. The names on both sides stand in tables of this file, written from the references of the formats
and not from models/*.convert.
"""
import json
import os
import random
import struct

# ==== GGUF ====

BLOCK = {0: (1, 4), 2: (32, 18), 6: (32, 22), 8: (32, 34), 12: (256, 144), 14: (256, 210), 26: (1, 4), 30: (1, 2)}
SCALAR = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}


class Gguf:
    """keys: name -> (type or [element type], value); tensors: name -> (type, row-major shape, bytes)."""

    def __init__(self, path):
        with open(path, "rb") as f:
            self.data = f.read()
        self.at = 24
        magic, version, n_tensors, n_keys = struct.unpack_from("<4sIQQ", self.data)
        assert magic == b"GGUF" and version == 3
        self.keys = {}
        for _ in range(n_keys):
            name = self.string()
            assert name not in self.keys
            self.keys[name] = self.value(self.take("<I"))
        infos = [self.info() for _ in range(n_tensors)]
        align = self.keys.get("general.alignment", (4, 32))[1]
        start = -(-self.at // align) * align
        self.tensors = {}
        for name, shape, kind, offset in infos:
            elems, size = BLOCK[kind]
            count = 1
            for d in shape:
                count *= d
            n = count // elems * size
            assert name not in self.tensors and offset % align == 0 and start + offset + n <= len(self.data)
            self.tensors[name] = kind, shape, self.data[start + offset:start + offset + n]

    def take(self, fmt):
        v, = struct.unpack_from(fmt, self.data, self.at)
        self.at += struct.calcsize(fmt)
        return v

    def string(self):
        n = self.take("<Q")
        self.at += n
        return self.data[self.at - n:self.at].decode()

    def value(self, kind):
        if kind == 8:
            return kind, self.string()
        if kind == 9:
            kind = self.take("<I")
            return [kind], [self.value(kind)[1] for _ in range(self.take("<Q"))]
        return kind, self.take(SCALAR[kind])

    def info(self):
        name = self.string()
        shape = tuple(reversed([self.take("<Q") for _ in range(self.take("<I"))]))
        return name, shape, self.take("<I"), self.take("<Q")


# ==== Names ====

ATTENTION = {
    "attn_norm.weight": "input_layernorm.weight", "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight", "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight", "attn_q_norm.weight": "self_attn.q_norm.weight",
    "attn_k_norm.weight": "self_attn.k_norm.weight", "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight", "ffn_down.weight": "mlp.down_proj.weight",
}
GEMMA = dict(ATTENTION, **{
    "post_attention_norm.weight": "post_attention_layernorm.weight",
    "ffn_norm.weight": "pre_feedforward_layernorm.weight", "post_ffw_norm.weight": "post_feedforward_layernorm.weight",
    "layer_output_scale.weight": "layer_scalar",
    "ffn_gate_inp.weight": "router.proj.weight", "ffn_gate_inp.scale": "router.scale",
    "ffn_gate_up_exps.weight": "experts.gate_up_proj", "ffn_down_exps.weight": "experts.down_proj",
    "ffn_down_exps.scale": "router.per_expert_scale", "pre_ffw_norm_2.weight": "pre_feedforward_layernorm_2.weight",
    "post_ffw_norm_1.weight": "post_feedforward_layernorm_1.weight",
    "post_ffw_norm_2.weight": "post_feedforward_layernorm_2.weight",
    "inp_gate.weight": "per_layer_input_gate.weight", "proj.weight": "per_layer_projection.weight",
    "post_norm.weight": "post_per_layer_input_norm.weight",
})
DFLASH = dict(ATTENTION, **{"ffn_norm.weight": "post_attention_layernorm.weight"})
GEMMA_WHOLE = {
    "token_embd.weight": "embed_tokens.weight", "output_norm.weight": "norm.weight",
    "per_layer_token_embd.weight": "embed_tokens_per_layer.weight",
    "per_layer_model_proj.weight": "per_layer_model_projection.weight",
    "per_layer_proj_norm.weight": "per_layer_projection_norm.weight",
}
ASSISTANT_WHOLE = {  # either dialect
    "nextn.pre_projection.weight": "pre_projection.weight", "nextn.post_projection.weight": "post_projection.weight",
    "mtp.pre_projection.weight": "pre_projection.weight", "mtp.post_projection.weight": "post_projection.weight",
    "masked_embd_centroids.weight": "masked_embedding.centroids.weight",
    "masked_embd_ordering": "masked_embedding.token_ordering",
    "mtp.centroids.weight": "masked_embedding.centroids.weight",
    "mtp.token_ordering.weight": "masked_embedding.token_ordering",
}
DFLASH_WHOLE = {"fc.weight": "fc.weight", "enc.output_norm.weight": "hidden_norm.weight", "output_norm.weight": "norm.weight"}


def hf_name(name, kind, prefix):
    """The checkpoint's name of a GGUF tensor; None: it has none."""
    if name == "rope_freqs.weight":
        return None
    if kind == "dflash":
        prefix = ""
    if name.startswith("blk."):
        _, layer, rest = name.split(".", 2)
        return "%slayers.%s.%s" % (prefix, layer, (DFLASH if kind == "dflash" else GEMMA)[rest])
    if kind == "dflash":
        return DFLASH_WHOLE[name]
    return ASSISTANT_WHOLE[name] if name in ASSISTANT_WHOLE else prefix + GEMMA_WHOLE[name]


# ==== config.json ====

def rope(c):
    return {"sliding_attention": {"rope_type": "default", "rope_theta": c["rope_theta_sliding"]},
            "full_attention": {"rope_type": "proportional", "rope_theta": c["rope_theta_full"],
                               "partial_rotary_factor": c["partial_rotary_factor"]}}


def text_config(c):
    """From the flat config of golden.json."""
    moved = ("rope_theta_sliding", "rope_theta_full", "partial_rotary_factor", "backbone_hidden_size",
             "use_ordered_embeddings", "num_centroids", "centroid_top_k")
    t = {k: v for k, v in c.items() if k not in moved}
    t.update(rope_parameters=rope(c), hidden_activation="gelu_pytorch_tanh", attention_bias=False)
    t.setdefault("num_experts", None)
    t.setdefault("final_logit_softcapping", None)
    return t


def target_config(c):
    return {"architectures": ["Gemma4ForConditionalGeneration"], "model_type": "gemma4", "tie_word_embeddings": True,
            "text_config": text_config(c), "vision_config": {"hidden_size": 3}}


def assistant_config(c):
    out = {"architectures": ["Gemma4AssistantForCausalLM"], "model_type": "gemma4_assistant",
           "tie_word_embeddings": True, "text_config": text_config(c), "num_centroids": 2048,
           "centroid_intermediate_top_k": 32}
    out.update({k: c[k] for k in ("backbone_hidden_size", "use_ordered_embeddings", "num_centroids") if k in c})
    if "centroid_top_k" in c:
        out["centroid_intermediate_top_k"] = c["centroid_top_k"]
    return out


# ==== safetensors ====

SIZE = {"BF16": 2, "F16": 2, "F32": 4, "I32": 4, "I64": 8}


def write_safetensors(path, tensors):
    """tensors: name -> (dtype, shape, bytes)."""
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(head)) + head)
        for _, _, data in tensors.values():
            f.write(data)


def write_checkpoint(folder, config, tensors, shards=1):
    os.makedirs(folder)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f)
    if shards == 1:
        write_safetensors(os.path.join(folder, "model.safetensors"), tensors)
        return
    names = list(tensors)
    index = {}
    for k in range(shards):
        file = "model-%05d-of-%05d.safetensors" % (k + 1, shards)
        part = names[k::shards]
        write_safetensors(os.path.join(folder, file), {n: tensors[n] for n in part})
        index.update({n: file for n in part})
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as f:
        json.dump({"metadata": {"total_size": 0}, "weight_map": index}, f)


def bf16_of_f32(data):
    """The upper halves; the lower ones are zero in the fixtures."""
    assert not any(data[0::4]) and not any(data[1::4])
    out = bytearray(len(data) // 2)
    out[0::2], out[1::2] = data[2::4], data[3::4]
    return bytes(out)


def f32_of_bf16(data):
    out = bytearray(2 * len(data))
    out[2::4], out[3::4] = data[0::2], data[1::2]
    return bytes(out)


def checkpoint_of_gguf(g, kind, prefix):
    """Tensors of the checkpoint that a converted file came from."""
    out = {}
    for name, (stored, shape, data) in g.tensors.items():
        hf = hf_name(name, kind, prefix)
        if hf is None:
            continue
        if stored == 26:
            wide = struct.pack("<%dq" % (len(data) // 4), *struct.unpack("<%di" % (len(data) // 4), data))
            out[hf] = "I64", shape, wide
        else:
            out[hf] = "BF16", shape, bf16_of_f32(data) if stored == 0 else data
    return out


# ==== Random checkpoints ====

def noise(rng, shape, scale=0.05, around=0.0):
    """BF16 bytes of normal numbers."""
    n = 1
    for d in shape:
        n *= d
    data = struct.pack("<%df" % n, *(around + rng.gauss(0, scale) for _ in range(n)))
    out = bytearray(2 * n)
    out[0::2], out[1::2] = data[2::4], data[3::4]
    return "BF16", shape, bytes(out)


def assistant(rng, c):
    """An MTP assistant of the flat config."""
    D, B, F, H, V = (c[k] for k in ("hidden_size", "backbone_hidden_size", "intermediate_size", "num_attention_heads",
                                    "vocab_size"))
    t = {"model.embed_tokens.weight": noise(rng, (V, D)), "model.norm.weight": noise(rng, (D,), 0.2, 1),
         "pre_projection.weight": noise(rng, (D, 2 * B)), "post_projection.weight": noise(rng, (B, D))}
    for i, kind in enumerate(c["layer_types"]):
        hd = c["head_dim"] if kind == "sliding_attention" else c["global_head_dim"]
        shapes = {"input_layernorm.weight": (D,), "self_attn.q_proj.weight": (H * hd, D),
                  "self_attn.o_proj.weight": (D, H * hd), "self_attn.q_norm.weight": (hd,),
                  "post_attention_layernorm.weight": (D,), "pre_feedforward_layernorm.weight": (D,),
                  "mlp.gate_proj.weight": (F, D), "mlp.up_proj.weight": (F, D), "mlp.down_proj.weight": (D, F),
                  "post_feedforward_layernorm.weight": (D,), "layer_scalar": (1,)}
        t.update({"model.layers.%d.%s" % (i, n): noise(rng, s) for n, s in shapes.items()})
    if c["use_ordered_embeddings"]:
        order = list(range(V))
        rng.shuffle(order)
        t["masked_embedding.centroids.weight"] = noise(rng, (c["num_centroids"], D))
        t["masked_embedding.token_ordering"] = "I64", (V,), struct.pack("<%dq" % V, *order)
    return t


def dflash_config(layers=5, hidden=64, window=20):
    return {"architectures": ["DFlashDraftModel"], "model_type": "qwen3", "hidden_size": hidden,
            "num_hidden_layers": layers, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
            "intermediate_size": 96, "hidden_act": "silu", "attention_bias": False, "rms_norm_eps": 1e-6,
            "rope_theta": 1000000, "rope_scaling": None, "max_position_embeddings": 4096, "sliding_window": window,
            "layer_types": ["sliding_attention"] * (layers - 1) + ["full_attention"], "block_size": 16,
            "dflash_config": {"mask_token_id": 4, "target_layer_ids": [1, 6, 11, 17, 22, 27]}, "num_target_layers": 30,
            "final_logit_softcapping": 30.0, "vocab_size": 512, "tie_word_embeddings": True, "dtype": "bfloat16"}


def dflash(rng, c):
    D, F = c["hidden_size"], c["intermediate_size"]
    Q, K, hd = c["num_attention_heads"] * c["head_dim"], c["num_key_value_heads"] * c["head_dim"], c["head_dim"]
    t = {"fc.weight": noise(rng, (D, 6 * D)), "hidden_norm.weight": noise(rng, (D,)), "norm.weight": noise(rng, (D,))}
    for i in range(c["num_hidden_layers"]):
        shapes = {"input_layernorm.weight": (D,), "self_attn.q_proj.weight": (Q, D), "self_attn.k_proj.weight": (K, D),
                  "self_attn.v_proj.weight": (K, D), "self_attn.o_proj.weight": (D, Q), "self_attn.q_norm.weight": (hd,),
                  "self_attn.k_norm.weight": (hd,), "post_attention_layernorm.weight": (D,),
                  "mlp.gate_proj.weight": (F, D), "mlp.up_proj.weight": (F, D), "mlp.down_proj.weight": (D, F)}
        t.update({"layers.%d.%s" % (i, n): noise(rng, s) for n, s in shapes.items()})
    return t


ASSISTANT = {"vocab_size": 128, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4,
             "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "global_head_dim": 64,
             "layer_types": ["sliding_attention"] * 3 + ["full_attention"], "sliding_window": 24,
             "attention_k_eq_v": False, "enable_moe_block": False, "hidden_size_per_layer_input": 0,
             "num_kv_shared_layers": 4, "use_double_wide_mlp": False, "rms_norm_eps": 1e-6, "rope_theta_sliding": 1e4,
             "rope_theta_full": 1e6, "partial_rotary_factor": 0.25, "max_position_embeddings": 4096,
             "backbone_hidden_size": 96, "use_ordered_embeddings": True, "num_centroids": 16, "centroid_top_k": 3}


def rng_of(seed):
    return random.Random(seed)
