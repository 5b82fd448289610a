#!/usr/bin/env python3
"""lap convert on small checkpoints: convert_test.py LAP FIXTURES SCRATCH DRAFTERS_TEST

The fixtures, taken back to checkpoints and converted, must come out as they were: keys, tensors, and logits as recorded.
The DFlash drafter, which is a checkpoint there, must guess as recorded (DRAFTERS_TEST: tests/engine/drafters_test.c).
Then more drafters of random numbers, storage types, the released sizes, and the tokenizer.
"""
import json
import math
import os
import shutil
import struct
import subprocess
import sys

import checkpoint as hf
from lab import (FIXTURES, LETTERS, P, RNG, SCRATCH, SEED, checkpoint_of, convert, f32_values, fixtures, floats,
                 lap, logits, relative_rms, run, with_tokenizer)

DRAFTERS_TEST = os.path.abspath(sys.argv[4])
# Keys that say nothing about the model, or that the other dialect of assistants has.
NOT_COMPARED = {"general.name", "general.alignment", "general.quantization_version"}
OTHER_DIALECT = {"requires_target_arch", "attention.k_eq_v", "n_embd_backbone"}
UPSTREAM = {"embedding_length_out", "nextn_predict_layers"}


def compared_keys(g):
    arch = g.keys["general.architecture"][1]
    out = {k.replace(arch + ".", "ARCH."): v for k, v in g.keys.items() if k not in NOT_COMPARED}
    del out["general.architecture"]
    return {k: v for k, v in out.items() if k.removeprefix("ARCH.") not in OTHER_DIALECT | UPSTREAM}


def hf_tensors(g, kind):
    return {hf.hf_name(n, kind, "model.") or n: t for n, t in g.tensors.items()}


# ==== What comes back ====

def test_fixtures_come_back():
    for kind in fixtures():
        # Text-only checkpoints have a shorter prefix; the larger model is in shards, beside a part that sees.
        how = {"dense": {"prefix": "model."}, "moe": {"shards": 3}}.get(kind, {})
        def change(config, tensors):
            if kind == "moe":
                tensors["model.vision_tower.patch.weight"] = "F32", (2, 2), bytes(16)
        convert(checkpoint_of(kind, change=change, **how))
        got, want = hf.Gguf(SCRATCH / "out.gguf"), hf.Gguf(FIXTURES / kind / "model.gguf")
        assert compared_keys(got) == compared_keys(want), \
            f"{kind}: {set(compared_keys(got).items() ^ compared_keys(want).items())}"
        assert hf_tensors(got, kind).keys() == hf_tensors(want, kind).keys()
        for name, tensor in hf_tensors(want, kind).items():
            assert hf_tensors(got, kind)[name] == tensor, f"{kind}: {name}"
        print("  ", kind, len(got.tensors), "tensors,", len(compared_keys(got)), "keys")


def test_logits_as_recorded():
    for kind in fixtures():
        if not (FIXTURES / kind / "logits.f32").exists():
            continue
        convert(checkpoint_of(kind))
        error = relative_rms(logits(SCRATCH / "out.gguf", kind), floats(FIXTURES / kind / "logits.f32"))
        print(f"   {kind}: relative RMS {error:.2e}")
        assert error <= 1e-4, kind


def test_assistants():
    for arch in ("Gemma4AssistantForCausalLM", "Gemma4UnifiedAssistantForCausalLM"):
        for ordered in (True, False):
            flat = dict(hf.ASSISTANT, use_ordered_embeddings=ordered)
            tensors = hf.assistant(RNG, flat)
            config = dict(hf.assistant_config(flat), architectures=[arch])
            folder = SCRATCH / "assistant"
            shutil.rmtree(folder, ignore_errors=True)
            hf.write_checkpoint(folder, config, tensors)
            assert "no tokenizer.json" in convert(folder)
            g = hf.Gguf(SCRATCH / "out.gguf")
            check_tensors(g, tensors, "assistant", "model.")
            assert len(g.tensors) == len(tensors) + 1
            assert g.tensors["rope_freqs.weight"] == (0, (32,), struct.pack("<32f", *([1] * 8 + [1e30] * 24)))
            a = "gemma4-assistant."
            want = {"general.architecture": (8, "gemma4-assistant"), a + "embedding_length_out": (4, 96),
                    a + "nextn_predict_layers": (4, 4), a + "attention.shared_kv_layers": (4, 4),
                    a + "use_ordered_embeddings": (7, ordered), "tokenizer.ggml.model": (8, "none"),
                    a + "attention.sliding_window_pattern": ([7], [True, True, True, False])}
            if ordered:
                want.update({a + "n_centroids": (4, 16), a + "centroid_top_k": (4, 3)})
            assert all(g.keys[k] == v for k, v in want.items()), g.keys
            assert (a + "n_centroids" in g.keys) == ordered


def test_dflash():
    config = hf.dflash_config()
    tensors = hf.dflash(RNG, config)
    assert len(tensors) == 58
    hf.write_checkpoint(SCRATCH / "dflash", config, tensors)
    convert(SCRATCH / "dflash")
    g = hf.Gguf(SCRATCH / "out.gguf")
    check_tensors(g, tensors, "dflash", "")
    want = {"general.architecture": (8, "dflash"), "dflash.target_layers": ([5], [2, 7, 12, 18, 23, 28]),
            "dflash.block_size": (4, 16), "dflash.attention.key_length": (4, 32), "dflash.attention.head_count_kv": (4, 2),
            "dflash.attention.sliding_window": (4, 20), "dflash.rope.freq_base": (6, 1e6),
            "dflash.attention.sliding_window_pattern": ([7], [True] * 4 + [False]),
            "tokenizer.ggml.mask_token_id": (4, 4), "dflash.mask_token_id": (4, 4), "dflash.final_logit_softcapping": (6, 30.0)}
    assert all(g.keys[k] == v for k, v in want.items()), g.keys
    # A single file is taken as well, with the config.json beside it.
    convert(SCRATCH / "dflash" / "model.safetensors", "file.gguf")
    assert (SCRATCH / "file.gguf").read_bytes() == (SCRATCH / "out.gguf").read_bytes()


def test_drafters_as_recorded():
    """The converted drafters in the place of the fixtures: hidden states, logits and guesses of the reference."""
    farm = SCRATCH / "farm"
    for kind in ("dense", "ple", "assistant_dense", "assistant_ple", "dflash"):
        (farm / kind).mkdir(parents=True)
        for path in (FIXTURES / kind).iterdir():
            if path.name != "model.safetensors" and (path.name != "model.gguf" or kind in ("dense", "ple")):
                (farm / kind / path.name).symlink_to(path.resolve())
        if kind in ("dense", "ple"):
            continue
        convert(FIXTURES / kind if kind == "dflash" else checkpoint_of(kind))
        (SCRATCH / "out.gguf").rename(farm / kind / "model.gguf")
    r = subprocess.run([DRAFTERS_TEST, farm], capture_output=True, text=True, timeout=200)
    assert r.returncode == 0 and "all as recorded" in r.stdout, r.stdout + r.stderr


def check_tensors(g, tensors, kind, prefix):
    """Matrices are bf16, vectors f32, with the checkpoint's values and shapes."""
    left = dict(tensors)
    for name, (stored, shape, data) in g.tensors.items():
        source = hf.hf_name(name, kind, prefix)
        if source is None:
            continue
        dtype, want_shape, want = left.pop(source)
        assert shape == want_shape, name
        if dtype == "I64":
            n = len(want) // 8
            assert stored == 26 and struct.unpack(f"<{n}i", data) == struct.unpack(f"<{n}q", want), name
        else:
            assert (stored, data) == ((0, hf.f32_of_bf16(want)) if len(shape) == 1 else (30, want)), name
    assert not left, left.keys()


# ==== Storage types ====

def q8_0_values(data):
    out = []
    for at in range(0, len(data), 34):
        scale, *codes = struct.unpack_from("<e32b", data, at)
        out += [scale * c for c in codes]
    return out


def test_types():
    """Every type: what is stored as what, the warning about rows that do not fit, and logits near the exact ones."""
    kind = "moe"  # rows of 96 and 192 beside those of 256 and more
    folder, dense = checkpoint_of(kind), checkpoint_of("dense", "plain")  # where no choice of experts flips
    exact = floats(FIXTURES / "dense" / "logits.f32")
    # Of the head, of an ordinary matrix, of one with rows of 96; the error of logits, which are unlike at 1.4: random models are a hard case.
    for quant, head, matrix, odd, worst in (("bf16", 30, 30, 30, 1e-4), ("q8_0", 8, 8, 8, 0.15), ("q6_k", 14, 14, 8, 0.4),
                                            ("q4_k", 14, 12, 6, 0.9), ("q4_0", 14, 2, 2, 1)):
        said = convert(folder, "typed.gguf", "--quant", quant)
        g = hf.Gguf(SCRATCH / "typed.gguf")
        types = [g.tensors[n][0] for n in ("token_embd.weight", "blk.0.attn_q.weight", "blk.0.ffn_down_exps.weight")]
        assert types == [head, matrix, odd], (quant, types)
        assert all(t[0] == 0 for n, t in g.tensors.items() if len(t[1]) == 1 or "gate_inp" in n)
        assert ("3 tensors with rows of 96 values, blk.0.ffn_down_exps.weight first" in said) == (odd != matrix), said
        assert "verified on load" in said
        convert(dense, "plain.gguf", "--quant", quant)
        error = relative_rms(logits(SCRATCH / "plain.gguf", "dense"), exact)
        print(f"   {quant}: relative RMS of logits {error:.4f}")
        assert error <= worst, (quant, error)
    convert(folder, "q8.gguf", "--quant", "q8_0")
    source = f32_values(hf.Gguf(FIXTURES / kind / "model.gguf").tensors["blk.0.attn_q.weight"][2])
    got = q8_0_values(hf.Gguf(SCRATCH / "q8.gguf").tensors["blk.0.attn_q.weight"][2])
    assert relative_rms(got, source) < 0.006
    said = convert(checkpoint_of("odd"), "odd.gguf", "--quant", "q8_0")
    assert "rows of 200 values" in said and "bf16 instead of q8_0" in said, said


def test_source_types():
    """f16 and f32 checkpoints; numbers of rank 0; tables that are not tied; one thread as many."""
    rng = hf.rng_of(SEED + 1)
    def change(config, tensors):
        config["tie_word_embeddings"] = False
        tensors["lm_head.weight"] = hf.noise(rng, tensors["model.language_model.embed_tokens.weight"][1])
        for name, (dtype, shape, data) in list(tensors.items()):
            if name.endswith("layer_scalar"):
                tensors[name] = dtype, (), data
            elif name.endswith("up_proj.weight"):
                tensors[name] = "F32", shape, hf.f32_of_bf16(data)
            elif name.endswith("q_proj.weight"):
                tensors[name] = "F16", shape, struct.pack(f"<{len(data) // 2}e", *f32_values(data))
    folder = checkpoint_of("dense", change=change)
    convert(folder, "one.gguf", "-t", "1")
    convert(folder, "many.gguf", "-t", "5")
    assert (SCRATCH / "one.gguf").read_bytes() == (SCRATCH / "many.gguf").read_bytes()
    got, want = hf.Gguf(SCRATCH / "one.gguf"), hf.Gguf(FIXTURES / "dense" / "model.gguf")
    assert got.tensors["output.weight"][0] == 30
    for name, tensor in want.tensors.items():
        if name.endswith("attn_q.weight"):  # f16 holds fewer of the values
            assert relative_rms(f32_values(got.tensors[name][2]), f32_values(tensor[2])) < 1e-3, name
        else:
            assert got.tensors[name] == tensor, name


# ==== Released sizes ====

def synth(size):
    return json.loads(lap("synth", "--like", size, "--quant", "bf16", "--dry-run", "--json").stdout)


def released_config(meta):
    """The config.json of a model of these GGUF keys."""
    m = {k.removeprefix("gemma4."): v for k, v in meta.items()}
    local = m["attention.sliding_window_pattern"]
    kv, ff = m["attention.head_count_kv"], m["feed_forward_length"]
    shared = m["attention.shared_kv_layers"]
    text = {"vocab_size": m["vocab_size"], "hidden_size": m["embedding_length"], "num_hidden_layers": m["block_count"],
            "num_attention_heads": m["attention.head_count"], "head_dim": m["attention.key_length_swa"],
            "global_head_dim": m["attention.key_length"], "sliding_window": m["attention.sliding_window"],
            "layer_types": ["sliding_attention" if s else "full_attention" for s in local],
            "intermediate_size": ff[0] if isinstance(ff, list) else ff, "use_double_wide_mlp": isinstance(ff, list),
            "num_key_value_heads": kv[0] if isinstance(kv, list) else kv, "attention_k_eq_v": isinstance(kv, list),
            "num_global_key_value_heads": kv[local.index(False)] if isinstance(kv, list) else None,
            "num_kv_shared_layers": shared, "hidden_size_per_layer_input": m["embedding_length_per_layer_input"],
            "enable_moe_block": "expert_count" in m, "num_experts": m.get("expert_count"),
            "top_k_experts": m.get("expert_used_count"), "moe_intermediate_size": m.get("expert_feed_forward_length"),
            "rms_norm_eps": 1e-6, "final_logit_softcapping": 30.0, "max_position_embeddings": m["context_length"],
            "rope_theta_sliding": 1e4, "rope_theta_full": 1e6, "partial_rotary_factor": 0.25}
    return hf.target_config(text)


def sparse_checkpoint(folder, config, shapes):
    """All zeros, of any size, on little disk."""
    os.makedirs(folder)
    (folder / "config.json").write_text(json.dumps(config))
    header, at = {}, 0
    for name, shape in shapes.items():
        n = 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + n]}
        at += n
    head = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(head)) + head)
        f.truncate(8 + len(head) + at)


def test_released_sizes():
    """What would be written of the released models is what `lap synth` knows of them: every key, name and shape."""
    for size, tensors in (("gemma4-31b", 833), ("gemma4-26b-a4b", 658), ("gemma4-12b", 667), ("gemma4-e4b", None),
                          ("gemma4-e2b", None)):
        want = synth(size)
        names = {t["name"]: hf.hf_name(t["name"], "gemma4", P) for t in want["tensors"]}
        shapes = {names[t["name"]]: t["shape"] for t in want["tensors"] if names[t["name"]]}
        folder = SCRATCH / size
        sparse_checkpoint(folder, released_config(want["metadata"]), shapes)
        got = json.loads(lap("convert", folder, "--dry-run", "--json").stdout)
        shutil.rmtree(folder)
        def tensor_set(d):
            return {(t["name"], t["type"], tuple(t["shape"])) for t in d["tensors"]}
        assert tensor_set(got) == tensor_set(want), tensor_set(got) ^ tensor_set(want)
        assert tensors in (None, len(got["tensors"])), (size, len(got["tensors"]))
        differ = {k for k in want["metadata"].keys() | got["metadata"].keys()
                  if want["metadata"].get(k) != got["metadata"].get(k)}
        assert differ == {"general.name"}, (size, differ)


# ==== Tokenizer ====

def test_tokenizer():
    for variant in (False, True):
        folder, tokens = with_tokenizer(variant, variant)
        said = convert(folder, "worded.gguf")
        assert "warning" not in said, said
        g = hf.Gguf(SCRATCH / "worded.gguf")
        t = {k.removeprefix("tokenizer."): v for k, v in g.keys.items() if k.startswith("tokenizer.")}
        pad = [f"[PAD{i}]" for i in range(len(tokens), 512)]
        assert t["ggml.tokens"] == ([8], tokens + pad)
        types = [3] * 6 + [4] * 2 + [6] * 256 + [1] * len(LETTERS) + [5] * len(pad)
        assert t["ggml.token_type"] == ([5], types), [(a, b) for a, b in zip(t["ggml.token_type"][1], types) if a != b]
        assert t["ggml.merges"][1][2] == "he ll"
        for key, value in {"model": "gemma4", "bos_token_id": 2, "eos_token_id": 1, "eot_token_id": 5, "eom_token_id": 7,
                           "unknown_token_id": 3, "padding_token_id": 0, "mask_token_id": 4, "add_bos_token": True,
                           "add_space_prefix": False}.items():
            assert t["ggml." + key][1] == value, key
        assert t["chat_template"][1] == ("from a file\n" if variant else "from the config")
        ids = lap("tokenize", SCRATCH / "worded.gguf", "hello world\n\n<unk>?", "--ids", "--bos").stdout.split()
        words = ["<bos>", "hello", "\u2581w", "o", "r", "l", "<0x64>", "\n\n", "<0x3C>"]
        assert ids[:len(words)] == [str(tokens.index(w)) for w in words], ids


if __name__ == "__main__":
    run(globals())
