#!/usr/bin/env python3
"""Writes GGUF files of the released model sizes with true metadata, names, shapes and Q4_K_M-like types,
and no data: the file is a hole of the right length. make_headers.py FOLDER [NAME..]

Enough for everything that reads only metadata: binding, shape checks, the IR and its passes.
"""
import argparse
import pathlib
import struct

F32, Q5_0, Q8_0, Q4_K, Q6_K, BF16 = 0, 6, 8, 12, 14, 30
BLOCK = {F32: (1, 4), BF16: (1, 2), Q5_0: (32, 22), Q8_0: (32, 34), Q4_K: (256, 144), Q6_K: (256, 210)}
SMALLER = {Q4_K: Q5_0, Q6_K: Q8_0}  # when a row is not whole blocks of 256

# name: layers, D, F, heads, KV sliding, KV full, window, full layer every, shared, P, (experts, used, FE)
GEMMA4 = {
    "gemma4-31b": (60, 5376, 21504, 32, 16, 4, 1024, 6, 0, 0, None),
    "gemma4-26b-a4b": (30, 2816, 2112, 16, 8, 2, 1024, 6, 0, 0, (128, 8, 704)),
    "gemma4-12b": (48, 3840, 15360, 16, 8, 1, 1024, 6, 0, 0, None),
    "gemma4-e4b": (42, 2560, 10240, 8, 2, 2, 512, 6, 18, 256, None),
    "gemma4-e2b": (35, 1536, 6144, 8, 1, 1, 512, 5, 20, 256, None),
}
# name: layers, D, F, heads, KV, head dim, window
GEMMA3 = {
    "gemma3-270m": (18, 640, 2048, 4, 1, 256, 512),
    "gemma3-1b": (26, 1152, 6912, 4, 1, 256, 512),
    "gemma3-4b": (34, 2560, 10240, 8, 4, 256, 1024),
    "gemma3-12b": (48, 3840, 15360, 16, 8, 256, 1024),
    "gemma3-27b": (62, 5376, 21504, 32, 16, 128, 1024),
}
# name: B, F, heads, KV sliding, KV full; 4 layers of 1024
MTP = {
    "gemma4-31b-mtp": (5376, 8192, 32, 16, 4),
    "gemma4-26b-a4b-mtp": (2816, 8192, 16, 8, 2),
}
# name: D, F, heads, layers that are tapped; 5 layers with 8 K/V heads of 128
DFLASH = {
    "gemma4-31b-dflash": (5376, 10752, 64, [1, 12, 23, 35, 46, 57]),
    "gemma4-26b-a4b-dflash": (2816, 5632, 32, [1, 6, 11, 17, 22, 27]),
}
VOCAB = 262144


def string(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


def value(v):
    if isinstance(v, str):
        return struct.pack("<I", 8) + string(v)
    if isinstance(v, bool):
        return struct.pack("<I?", 7, v)
    if isinstance(v, int):
        return struct.pack("<II", 4, v)
    if isinstance(v, float):
        return struct.pack("<If", 6, v)
    kind, code = (7, "?") if isinstance(v[0], bool) else (5, "i")
    return struct.pack("<IIQ", 9, kind, len(v)) + struct.pack(f"<{len(v)}{code}", *v)


class File:
    def __init__(self, arch):
        self.meta = {"general.architecture": arch, "general.file_type": 15}
        self.arch = arch
        self.tensors = []

    def key(self, name, v):
        self.meta[f"{self.arch}.{name}"] = v

    def tensor(self, name, *dims, type=F32):
        """dims row-major, as in the model text"""
        if dims[-1] % BLOCK[type][0]:
            type = SMALLER[type]
        self.tensors.append((name, dims, type))

    def write(self, path):
        out = bytearray(struct.pack("<IIQQ", 0x46554747, 3, len(self.tensors), len(self.meta)))
        for k, v in self.meta.items():
            out += string(k) + value(v)
        offset = 0
        for name, dims, type in self.tensors:
            out += string(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *reversed(dims))
            out += struct.pack("<IQ", type, offset)
            elems = 1
            for d in dims:
                elems *= d
            per, size = BLOCK[type]
            offset += (elems // per * size + 31) // 32 * 32
        out += bytes(-len(out) % 32)
        with open(path, "wb") as f:
            f.write(out)
            f.truncate(len(out) + offset)


def more_bits(i, n):
    return i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2


def gemma4(name):
    L, D, F, H, kv_s, kv_f, window, every, shared, P, moe = GEMMA4[name]
    f = File("gemma4")
    local = [(i + 1) % every != 0 for i in range(L)]
    own = L - shared
    wide = name == "gemma4-e2b"
    ff = [F * 2 if wide and i >= own else F for i in range(L)]
    for k, v in {
        "block_count": L, "context_length": 131072 if P else 262144, "embedding_length": D,
        "feed_forward_length": ff if wide else F, "attention.head_count": H,
        "attention.head_count_kv": kv_s if kv_s == kv_f else [kv_s if s else kv_f for s in local],
        "attention.key_length": 512, "attention.value_length": 512, "attention.key_length_swa": 256,
        "attention.value_length_swa": 256, "attention.sliding_window": window,
        "attention.sliding_window_pattern": local, "attention.shared_kv_layers": shared,
        "attention.layer_norm_rms_epsilon": 1e-6, "rope.freq_base": 1e6, "rope.freq_base_swa": 1e4,
        "rope.dimension_count": 512, "rope.dimension_count_swa": 256, "final_logit_softcapping": 30.0,
        "embedding_length_per_layer_input": P,
    }.items():
        f.key(k, v)
    if moe:
        f.key("expert_count", moe[0])
        f.key("expert_used_count", moe[1])
        f.key("expert_feed_forward_length", moe[2])
    f.tensor("token_embd.weight", VOCAB, D, type=Q6_K)
    f.tensor("output_norm.weight", D)
    f.tensor("rope_freqs.weight", 256)
    if P:
        f.tensor("per_layer_token_embd.weight", VOCAB, L * P, type=Q6_K)
        f.tensor("per_layer_model_proj.weight", L * P, D, type=BF16)
        f.tensor("per_layer_proj_norm.weight", P)
    n_v = sum(1 for i in range(own) if local[i] or P)
    seen_v = 0
    for i in range(L):
        b = f"blk.{i}."
        hd, kv = (256, kv_s) if local[i] else (512, kv_f)
        down = Q6_K if more_bits(i, L) else Q4_K
        for norm in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
            f.tensor(b + norm + ".weight", D)
        f.tensor(b + "layer_output_scale.weight", 1)
        f.tensor(b + "attn_q.weight", H * hd, D, type=Q4_K)
        f.tensor(b + "attn_q_norm.weight", hd)
        f.tensor(b + "attn_output.weight", D, H * hd, type=Q4_K)
        if i < own:
            f.tensor(b + "attn_k.weight", kv * hd, D, type=Q4_K)
            f.tensor(b + "attn_k_norm.weight", hd)
            if local[i] or P:
                f.tensor(b + "attn_v.weight", kv * hd, D, type=Q6_K if more_bits(seen_v, n_v) else Q4_K)
                seen_v += 1
        f.tensor(b + "ffn_gate.weight", ff[i], D, type=Q4_K)
        f.tensor(b + "ffn_up.weight", ff[i], D, type=Q4_K)
        f.tensor(b + "ffn_down.weight", D, ff[i], type=down)
        if moe:
            E, _, FE = moe
            f.tensor(b + "ffn_gate_inp.weight", E, D)
            f.tensor(b + "ffn_gate_inp.scale", D)
            f.tensor(b + "ffn_gate_up_exps.weight", E, 2 * FE, D, type=Q4_K)
            f.tensor(b + "ffn_down_exps.weight", E, D, FE, type=down)
            f.tensor(b + "ffn_down_exps.scale", E)
            for norm in ("pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2"):
                f.tensor(b + norm + ".weight", D)
        if P:
            f.tensor(b + "inp_gate.weight", P, D, type=Q4_K)
            f.tensor(b + "proj.weight", D, P, type=Q4_K)
            f.tensor(b + "post_norm.weight", D)
    return f


def gemma3(name):
    L, D, F, H, kv, hd, window = GEMMA3[name]
    f = File("gemma3")
    for k, v in {
        "block_count": L, "context_length": 32768, "embedding_length": D, "feed_forward_length": F,
        "attention.head_count": H, "attention.head_count_kv": kv, "attention.key_length": hd,
        "attention.value_length": hd, "attention.sliding_window": window,
        "attention.layer_norm_rms_epsilon": 1e-6, "rope.freq_base": 1e6,
    }.items():
        f.key(k, v)
    if L > 30:
        f.key("rope.scaling.factor", 8.0)
    f.tensor("token_embd.weight", VOCAB, D, type=Q6_K)
    f.tensor("output_norm.weight", D)
    for i in range(L):
        b = f"blk.{i}."
        for norm in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
            f.tensor(b + norm + ".weight", D)
        for norm in ("attn_q_norm", "attn_k_norm"):
            f.tensor(b + norm + ".weight", hd)
        f.tensor(b + "attn_q.weight", H * hd, D, type=Q4_K)
        f.tensor(b + "attn_k.weight", kv * hd, D, type=Q4_K)
        f.tensor(b + "attn_v.weight", kv * hd, D, type=Q6_K if more_bits(i, L) else Q4_K)
        f.tensor(b + "attn_output.weight", D, H * hd, type=Q4_K)
        f.tensor(b + "ffn_gate.weight", F, D, type=Q4_K)
        f.tensor(b + "ffn_up.weight", F, D, type=Q4_K)
        f.tensor(b + "ffn_down.weight", D, F, type=Q6_K if more_bits(i, L) else Q4_K)
    return f


def mtp(name):
    B, F, H, kv_s, kv_f = MTP[name]
    D, local = 1024, [True, True, True, False]
    f = File("gemma4-assistant")
    for k, v in {
        "block_count": 4, "embedding_length": D, "embedding_length_out": B, "feed_forward_length": F,
        "attention.head_count": H, "attention.head_count_kv": [kv_s if s else kv_f for s in local],
        "attention.key_length": 512, "attention.value_length": 512, "attention.key_length_swa": 256,
        "attention.value_length_swa": 256, "attention.sliding_window": 1024, "attention.sliding_window_pattern": local,
        "attention.layer_norm_rms_epsilon": 1e-6, "rope.freq_base": 1e6, "rope.freq_base_swa": 1e4,
        "use_ordered_embeddings": False,
    }.items():
        f.key(k, v)
    f.tensor("token_embd.weight", VOCAB, D, type=Q8_0)
    f.tensor("output_norm.weight", D)
    f.tensor("rope_freqs.weight", 256)
    f.tensor("nextn.pre_projection.weight", D, 2 * B, type=Q8_0)
    f.tensor("nextn.post_projection.weight", B, D, type=Q8_0)
    for i in range(4):
        b, hd = f"blk.{i}.", 256 if local[i] else 512
        for norm in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
            f.tensor(b + norm + ".weight", D)
        f.tensor(b + "layer_output_scale.weight", 1)
        f.tensor(b + "attn_q.weight", H * hd, D, type=Q8_0)
        f.tensor(b + "attn_q_norm.weight", hd)
        f.tensor(b + "attn_output.weight", D, H * hd, type=Q8_0)
        f.tensor(b + "ffn_gate.weight", F, D, type=Q8_0)
        f.tensor(b + "ffn_up.weight", F, D, type=Q8_0)
        f.tensor(b + "ffn_down.weight", D, F, type=Q8_0)
    return f


def dflash(name):
    D, F, H, ids = DFLASH[name]
    f = File("dflash")
    for k, v in {
        "block_count": 5, "embedding_length": D, "feed_forward_length": F, "attention.head_count": H,
        "attention.head_count_kv": 8, "attention.key_length": 128, "attention.value_length": 128,
        "attention.layer_norm_rms_epsilon": 1e-6, "rope.freq_base": 1e6, "attention.sliding_window": 2048,
        "final_logit_softcapping": 30.0, "target_layers": [i + 1 for i in ids], "block_size": 16,
    }.items():
        f.key(k, v)
    f.tensor("fc.weight", D, len(ids) * D, type=Q8_0)
    f.tensor("enc.output_norm.weight", D)
    f.tensor("output_norm.weight", D)
    for i in range(5):
        b = f"blk.{i}."
        for norm, n in (("attn_norm", D), ("ffn_norm", D), ("attn_q_norm", 128), ("attn_k_norm", 128)):
            f.tensor(b + norm + ".weight", n)
        f.tensor(b + "attn_q.weight", H * 128, D, type=Q8_0)
        f.tensor(b + "attn_k.weight", 8 * 128, D, type=Q8_0)
        f.tensor(b + "attn_v.weight", 8 * 128, D, type=Q8_0)
        f.tensor(b + "attn_output.weight", D, H * 128, type=Q8_0)
        f.tensor(b + "ffn_gate.weight", F, D, type=Q8_0)
        f.tensor(b + "ffn_up.weight", F, D, type=Q8_0)
        f.tensor(b + "ffn_down.weight", D, F, type=Q8_0)
    return f


KINDS = [(GEMMA4, gemma4), (GEMMA3, gemma3), (MTP, mtp), (DFLASH, dflash)]
NAMES = [name for sizes, _ in KINDS for name in sizes]


def model(name):
    return next(make for sizes, make in KINDS if name in sizes)(name)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("folder", type=pathlib.Path)
    p.add_argument("names", nargs="*", help="of %s (default: all)" % ", ".join(NAMES))
    o = p.parse_args()
    for name in o.names:
        if name not in NAMES:
            p.error(f"unknown model '{name}'")
    o.folder.mkdir(parents=True, exist_ok=True)
    for name in o.names or NAMES:
        model(name).write(o.folder / f"{name}.gguf")


if __name__ == "__main__":
    main()
