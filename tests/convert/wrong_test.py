#!/usr/bin/env python3
"""lap convert on what cannot be converted: wrong_test.py LAP FIXTURES SCRATCH

Wrong tokenizers, tensors, configurations and files get a message that names the place, exit code 1 and no file; failures
to write leave what was there.
"""
import json
import shutil
import subprocess

import checkpoint as hf
from lab import FIXTURES, LAP, P, RNG, SCRATCH, checkpoint_of, convert, lap, run, with_tokenizer

import unfinished


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
    fails("dense", lambda c, t: text(c).update(hidden_size=255), "by config.json it must be [512, 255]",
          "57 more tensors are of another shape")
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
    assert "it is what convert makes" in convert(FIXTURES / "dense" / "model.gguf", "wrong.gguf", code=1)


def test_bytes_that_changed():
    """Whatever stands in the small files: converted or refused with a message, and no crash."""
    folder, _ = with_tokenizer(True, False)
    refused = 0
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        path = folder / name
        good = path.read_bytes()
        for _ in range(25):
            bad = bytearray(good)
            for _ in range(RNG.randint(1, 3)):
                at = RNG.randrange(len(bad))
                piece = RNG.choice([b"", b"0", b"-", b"9" * 20, b"[", b"]", b"null", b"1e999", b'"', b",", bytes([RNG.randrange(256)])])
                bad[at:at + RNG.randint(0, 2)] = piece
            path.write_bytes(bad)
            r = subprocess.run([LAP, "convert", folder, "--dry-run", "-q"], capture_output=True, timeout=100)
            assert r.returncode in (0, 1), (name, r.returncode, bytes(bad), r.stderr)
            assert (r.returncode == 1) == (b"error: " in r.stderr), (name, bytes(bad), r.stderr)
            refused += r.returncode
        path.write_bytes(good)
    assert 20 < refused < 100, refused


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
    unfinished.interrupt([LAP, "convert", source, "--quant", "q6_k", "-t", "1", "-o", folder / "f.gguf"], folder)


def test_failed_write_leaves_what_was_there():
    folder = SCRATCH / "limited"
    folder.mkdir()
    (folder / "f.gguf").write_text("old")
    r = lap("convert", large_checkpoint(), "-o", folder / "f.gguf", code=3, **unfinished.no_file_above(1 << 20))
    unfinished.check_said(r.stderr)
    assert [p.name for p in folder.iterdir()] == ["f.gguf"] and (folder / "f.gguf").read_text() == "old"
    r = lap("convert", large_checkpoint(), "-o", folder, code=3)
    assert "no ordinary file" in r.stderr


def test_usage():
    for args, message in ((("x",), "-o OUT.gguf"), (("x", "-o", "y", "--dry-run"), "give one of"), (("x", "-o", "y", "--json"), "--dry-run"), ((), "DIR|FILE.safetensors"), (("x", "-o", "y", "--quant", "q3"), "q4_k")):
        r = lap("convert", *args, code=2)
        assert message in r.stderr and not r.stdout, (args, r.stderr)
    assert convert(checkpoint_of("odd"), "quiet.gguf", "-q").count("\n") == 1  # the warning about the tokenizer


if __name__ == "__main__":
    run(globals())
