#!/usr/bin/env python3
"""lap convert on small checkpoints: convert_test.py LAP FIXTURES SCRATCH

FIXTURES holds a folder a kind with model.gguf, which the reference converter wrote, and golden.json. Each is taken back
to a checkpoint (checkpoint.py), converted, and must come out as it was: keys, tensors, and logits as recorded. Drafters,
which have no model.gguf there, are made of random numbers. Then types, the tokenizer, what is wrong with checkpoints,
and failures to write.
"""
import array
import json
import math
import os
import pathlib
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time

import checkpoint as hf

LAP, FIXTURES, SCRATCH = os.path.abspath(sys.argv[1]), pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
SEED = random.randrange(1 << 31)
RNG = hf.rng_of(SEED)
# Keys that say nothing about the model, or that the other dialect of assistants has.
NOT_COMPARED = {"general.name", "general.alignment", "general.quantization_version"}
OTHER_DIALECT = {"requires_target_arch", "attention.k_eq_v", "n_embd_backbone"}
UPSTREAM = {"embedding_length_out", "nextn_predict_layers"}


def lap(*args, code=0, **how):
    r = subprocess.run([LAP, *map(str, args)], capture_output=True, text=True, timeout=200, **how)
    assert r.returncode == code, f"exit code {r.returncode}, expected {code}: lap {args}\n{r.stdout}{r.stderr}"
    return r


def convert(folder, out="out.gguf", *options, code=0):
    r = lap("convert", folder, "-o", SCRATCH / out, *options, code=code)
    assert (SCRATCH / out).exists() == (code == 0), f"{folder}: exit code {code}, file there: {code != 0}"
    return r.stderr


def fixtures():
    return sorted(p.parent.name for p in FIXTURES.glob("*/model.gguf"))


def golden(kind):
    return json.loads((FIXTURES / kind / "golden.json").read_text())


def floats(path):
    a = array.array("f")
    a.frombytes(pathlib.Path(path).read_bytes())
    return a


def relative_rms(got, want):
    assert len(got) == len(want)
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(got, want)) / sum(y * y for y in want))


def logits(model, kind):
    ids, out = SCRATCH / "ids.txt", SCRATCH / "logits.f32"
    ids.write_text(" ".join(map(str, golden(kind)["prompt_tokens"])))
    lap("run", model, "--tokens-file", ids, "-n", "0", "-q", "--logits", out)
    return floats(out)


def checkpoint_of(kind, name="checkpoint", prefix="model.language_model.", shards=1, change=None):
    """Writes the fixture as a checkpoint; `change` gets its config and tensors first. Gives the folder."""
    g = hf.Gguf(FIXTURES / kind / "model.gguf")
    flat = golden(kind)["config"]
    is_assistant = kind.startswith("assistant")
    tensors = hf.checkpoint_of_gguf(g, kind, "model." if is_assistant else prefix)
    config = hf.assistant_config(flat) if is_assistant else hf.target_config(flat)
    if change:
        change(config, tensors)
    folder = SCRATCH / name
    shutil.rmtree(folder, ignore_errors=True)
    hf.write_checkpoint(folder, config, tensors, shards)
    return folder


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
            "tokenizer.ggml.mask_token_id": (4, 4), "dflash.final_logit_softcapping": (6, 30.0)}
    assert all(g.keys[k] == v for k, v in want.items()), g.keys
    # A single file is taken as well, with the config.json beside it.
    convert(SCRATCH / "dflash" / "model.safetensors", "file.gguf")
    assert (SCRATCH / "file.gguf").read_bytes() == (SCRATCH / "out.gguf").read_bytes()


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


def f32_values(data):
    return struct.unpack(f"<{len(data) // 2}f", hf.f32_of_bf16(data))


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


# ==== Tokenizer ====

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<turn|>", "<|tool_call>", "<|tool_response>"]
LETTERS = list("abehlorw\u2581!") + ["he", "ll", "hell", "hello", "\u2581w", "\n", "\n\n"]


def tokenizer_json(merge_lists):
    tokens = SPECIAL + [f"<0x{b:02X}>" for b in range(256)] + LETTERS
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("\u2581", "w")]
    added = [{"id": i, "content": s, "special": True, "normalized": False} for i, s in enumerate(SPECIAL)]
    added.append({"id": tokens.index("\n\n"), "content": "\n\n", "special": False})
    return tokens, {"version": "1.0", "added_tokens": added,
                    "model": {"type": "BPE", "unk_token": "<unk>", "byte_fallback": True,
                              "vocab": {s: i for i, s in enumerate(tokens)},
                              "merges": [list(m) for m in merges] if merge_lists else [" ".join(m) for m in merges]}}


def with_tokenizer(merge_lists, template_file):
    folder = checkpoint_of("ple", "worded", prefix="model.")
    tokens, tokenizer = tokenizer_json(merge_lists)
    config = {"bos_token": "<bos>", "pad_token": {"content": "<pad>"}, "mask_token": "<mask>",
              "chat_template": [{"name": "tools", "template": "no"}, {"name": "default", "template": "from the config"}]}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 5, 7]}))
    if template_file:
        (folder / "chat_template.jinja").write_text("from a file\n")
    return folder, tokens


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


def test_tokenizer_errors():
    def broken(change, *messages):
        folder, _ = with_tokenizer(True, False)
        path = folder / "tokenizer.json"
        j = json.loads(path.read_text())
        j = change(j) or j
        path.write_text(j if isinstance(j, str) else json.dumps(j))
        said = convert(folder, "broken.gguf", code=1)
        assert all(m in said for m in ("tokenizer.json: error: ",) + messages), said
    broken(lambda j: j["model"].update(type="Unigram"), "'model.type'")
    broken(lambda j: j["model"]["vocab"].update(zz=512), "'model.vocab': id 512 is not below 512")
    broken(lambda j: j["model"]["vocab"].update(zz=-1), "'model.vocab': id -1")
    broken(lambda j: j["model"]["vocab"].update(zz=3), "'model.vocab': id 3 stands for two tokens")
    broken(lambda j: j["model"]["vocab"].update(zz="3"), "'model.vocab': an id is no integer")
    broken(lambda j: j["model"].update(vocab=[]), "'model.vocab': must be an object")
    broken(lambda j: j["model"].update(merges=[]), "'model.merges': must be a list")
    broken(lambda j: j["model"]["merges"].append(["a"]), "'model.merges': merge 5")
    broken(lambda j: j["model"].update(unk_token="?"), "'model.unk_token' names a token")
    broken(lambda j: j["added_tokens"].append({"id": 9}), "'added_tokens': token 9 has no text")
    broken(lambda j: j["added_tokens"].append({"id": 900, "content": "x"}), "'added_tokens': id 900")
    broken(lambda j: json.dumps(j)[:-20], "JSON: line 1")
    folder, _ = with_tokenizer(True, False)
    (folder / "generation_config.json").write_text('{"eos_token_id": [1, 600]}')
    assert "'eos_token_id' 600 is no token" in convert(folder, "broken.gguf", code=1)
    (folder / "generation_config.json").write_text('{"eos_token_id": [1, ')
    assert "generation_config.json: error: JSON" in convert(folder, "broken.gguf", code=1)


# ==== Wrong checkpoints ====

def fails(kind, change, *messages, **how):
    said = convert(checkpoint_of(kind, "wrong", change=change, **how), "wrong.gguf", code=1)
    assert all(m in said for m in messages), said
    return said


def text(config):
    return config["text_config"]


P = "model.language_model."


def test_wrong_tensors():
    up = P + "layers.1.mlp.up_proj.weight"
    fails("ple", lambda c, t: t.pop(up), f"tensor '{up}' is missing", "gemma4.convert:", "it becomes 'blk.1.ffn_up.weight'")
    fails("ple", lambda c, t: t.update({"model.extra": t[up]}), "tensor 'model.extra' is not known", "gemma4.convert")
    fails("ple", lambda c, t: t.update({up: ("BF16", (256, 128), t[up][2])}), f"tensor '{up}': its shape is [256, 128]",
          "must be [128, 256]")
    fails("ple", lambda c, t: t.update({up: ("I32", (128, 128), t[up][2])}), f"tensor '{up}': its shape is")
    fails("ple", lambda c, t: t.update({up: ("I32", (128, 256), t[up][2] * 2)}), f"tensor '{up}': its elements must be")
    said = fails("ple", lambda c, t: [t.pop(n) for n in list(t) if ".layers.0." in n or ".layers.1." in n],
                 "more tensors are missing")
    assert said.count("is missing") == 10, said
    fails("ple", lambda c, t: t.update({f"x.{i}": ("F32", (1,), bytes(4)) for i in range(30)}), "20 more tensors are not known")
    # Not a number, in the second half of a matrix: found while writing, nothing is left.
    def not_a_number(c, t):
        data = bytearray(t[up][2])
        data[40002:40004] = b"\xc0\x7f"
        t[up] = "BF16", t[up][1], bytes(data)
    fails("ple", not_a_number, f"tensor '{up}': element 20001 is no finite number")
    # Layers that share a cache may come with weights of one, which are left out.
    spare = P + "layers.3.self_attn.k_proj.weight"
    def with_spare(c, t):
        t[spare] = t[P + "layers.0.self_attn.k_proj.weight"]
    convert(checkpoint_of("ple", "spare", change=with_spare), "spare.gguf")
    assert "blk.3.attn_k.weight" not in hf.Gguf(SCRATCH / "spare.gguf").tensors


def test_wrong_config():
    where = "config.json: error: key 'text_config."
    fails("dense", lambda c, t: text(c).pop("hidden_size"), where + "hidden_size': is missing")
    fails("dense", lambda c, t: text(c).update(hidden_size="256"), where + "hidden_size': is no number")
    fails("dense", lambda c, t: text(c).update(hidden_size=256.5), where + "hidden_size': is 256.5, no integer")
    fails("dense", lambda c, t: text(c).update(hidden_size=-1), where + "hidden_size': is -1")
    fails("dense", lambda c, t: text(c).update(num_hidden_layers=10 ** 9), where + "layer_types': would have 1000000000")
    fails("dense", lambda c, t: text(c).update(num_hidden_layers=5), where + "layer_types': has 6 values")
    fails("dense", lambda c, t: text(c).update(num_hidden_layers=0, layer_types=[]), "layers")
    fails("dense", lambda c, t: text(c)["layer_types"].__setitem__(1, "chunked"), where + "layer_types': value 1 is \"chunked\"")
    fails("dense", lambda c, t: text(c).update(layer_types=[1] * 6), where + "layer_types': must hold texts")
    fails("dense", lambda c, t: text(c).update(hidden_activation="relu"), where + "hidden_activation': is relu")
    fails("dense", lambda c, t: text(c).update(hidden_size=255), "by config.json it must be")
    fails("dense", lambda c, t: text(c).update(num_attention_heads=2 ** 31 - 1, head_dim=2 ** 31 - 1,
                                              global_head_dim=2 ** 31 - 1), "gemma4.convert:")
    fails("dense", lambda c, t: text(c)["rope_parameters"]["full_attention"].update(rope_theta=[1]), "rope_theta': is no number")
    fails("dense", lambda c, t: c.update(architectures=["Gemma9ForCausalLM"]), 'architecture "Gemma9ForCausalLM" cannot',
          "DFlashDraftModel", "Gemma4ForConditionalGeneration", "Gemma4AssistantForCausalLM")
    def drafter(**change):
        shutil.rmtree(SCRATCH / "wrong", ignore_errors=True)
        config = hf.dflash_config()
        tensors = hf.dflash(hf.rng_of(1), config)
        config.update(change)
        hf.write_checkpoint(SCRATCH / "wrong", config, tensors)
        return convert(SCRATCH / "wrong", "wrong.gguf", code=1)
    assert "key 'dflash_config.target_layer_ids': is missing" in drafter(dflash_config={"mask_token_id": 4})
    assert "'dflash_config.target_layer_ids': is no list" in drafter(dflash_config={"mask_token_id": 4, "target_layer_ids": 3})
    assert "'dflash_config.target_layer_ids': value 0 is -1" in drafter(
        dflash_config={"mask_token_id": 4, "target_layer_ids": [-1]})
    assert "tensor 'fc.weight': its shape is [64, 384], but by config.json it must be [64, 320]" in drafter(
        dflash_config={"mask_token_id": 4, "target_layer_ids": [1, 2, 3, 4, 5]})
    assert "key 'model_type': is llama; only qwen3" in drafter(model_type="llama")


def test_wrong_files():
    folder = checkpoint_of("dense", "wrong", shards=2)
    shard = folder / "model-00002-of-00002.safetensors"
    data = shard.read_bytes()
    shard.write_bytes(data[:-5])
    assert "model-00002-of-00002.safetensors" in convert(folder, "wrong.gguf", code=1)
    shard.unlink()
    assert "cannot open" in convert(folder, "wrong.gguf", code=1)
    shard.write_bytes(data)
    config = folder / "config.json"
    config.write_text(config.read_text()[:-1])
    assert "config.json: error: JSON: line 1" in convert(folder, "wrong.gguf", code=1)
    config.unlink()
    assert "has no config.json" in convert(folder, "wrong.gguf", code=1)
    assert "cannot open" in convert(SCRATCH / "nowhere", "wrong.gguf", code=1)
    assert "cannot be converted" in convert(FIXTURES / "dense" / "model.gguf", "wrong.gguf", code=1)


# ==== Failures to write ====

def large_checkpoint():
    """Long enough to be interrupted: a table of 40 million weights."""
    folder = SCRATCH / "large"
    if not folder.exists():
        config = hf.dflash_config(layers=1, hidden=256)
        config.update(intermediate_size=1 << 17, layer_types=["full_attention"])
        small = dict(config, intermediate_size=1)
        tensors = hf.dflash(RNG, small)
        rows = hf.noise(RNG, (64, 256))[2] * (1 << 11)
        for name, shape in (("gate", (1 << 17, 256)), ("up", (1 << 17, 256)), ("down", (256, 1 << 17))):
            tensors[f"layers.0.mlp.{name}_proj.weight"] = "BF16", shape, rows
        hf.write_checkpoint(folder, config, tensors)
    return folder


def test_interrupt_leaves_nothing():
    source, folder = large_checkpoint(), SCRATCH / "interrupted"
    folder.mkdir()
    p = subprocess.Popen([LAP, "convert", source, "--quant", "q6_k", "-t", "1", "-o", folder / "f.gguf"],
                         stderr=subprocess.PIPE, text=True)
    while p.poll() is None and not list(folder.iterdir()):
        time.sleep(0.001)
    p.send_signal(signal.SIGINT)
    _, err = p.communicate(timeout=60)
    assert p.returncode == 130 and "nothing is written" in err, (p.returncode, err)
    assert not list(folder.iterdir())


def test_failed_write_leaves_what_was_there():
    folder = SCRATCH / "limited"
    folder.mkdir()
    (folder / "f.gguf").write_text("old")
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    r = lap("convert", large_checkpoint(), "-o", folder / "f.gguf", code=3, preexec_fn=limit, restore_signals=False)
    assert "cannot write" in r.stderr and "File too large" in r.stderr, r.stderr
    assert [p.name for p in folder.iterdir()] == ["f.gguf"] and (folder / "f.gguf").read_text() == "old"
    r = lap("convert", large_checkpoint(), "-o", folder, code=3)
    assert "no ordinary file" in r.stderr


def test_usage():
    for args, message in ((("x",), "-o OUT.gguf"), ((), "DIR|FILE.safetensors"), (("x", "-o", "y", "--quant", "q3"), "q4_k")):
        r = lap("convert", *args, code=2)
        assert message in r.stderr and not r.stdout, (args, r.stderr)
    assert convert(checkpoint_of("odd"), "quiet.gguf", "-q").count("\n") == 1  # the warning about the tokenizer


def main():
    print("seed", SEED)
    shutil.rmtree(SCRATCH, ignore_errors=True)
    SCRATCH.mkdir(parents=True)
    failed = 0
    for name, test in list(globals().items()):
        if not name.startswith("test_"):
            continue
        start = time.monotonic()
        try:
            test()
            print(f"ok {name} {time.monotonic() - start:.1f} s", flush=True)
        except AssertionError as e:
            failed += 1
            print(f"FAILED {name}: {e}", flush=True)
    shutil.rmtree(SCRATCH)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
