#!/usr/bin/env python3
"""Drafters in the dialects of other programs: dialects_test.py LAP FIXTURES SCRATCH DRAFTERS_TEST

The fixtures, written anew with the keys and names of those programs, must guess as recorded (DRAFTERS_TEST:
tests/engine/drafters_test.c). What the dialects call things stands here once more, as files of theirs have it and not as
models/*.lap does.
"""
import json
import os
import pathlib
import struct
import subprocess
import sys

import checkpoint as hf
from lab import FIXTURES, SCRATCH, lap, run

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "examples" / "tiny"))
import make_tiny as tiny

DRAFTERS_TEST = os.path.abspath(sys.argv[4])
TYPES = {"BF16": 30, "F32": 0}

# ==== MTP in files of architecture gemma4_mtp ====

MTP_KEYS = ["vocab_size", "context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count",
            "attention.head_count_kv", "rope.freq_base", "rope.freq_base_swa", "attention.key_length",
            "attention.value_length", "attention.key_length_swa", "attention.value_length_swa", "rope.dimension_count",
            "rope.dimension_count_swa", "attention.sliding_window", "attention.sliding_window_pattern",
            "attention.layer_norm_rms_epsilon"]
MTP_NAMES = {"pre_projection.weight": "mtp_pre_proj.weight", "post_projection.weight": "mtp_post_proj.weight",
             "centroids.weight": "masked_embd_centroids.weight", "token_ordering.weight": "masked_embd_ordering.weight"}


def key(name, kind, value):
    if kind == 8:
        return tiny.key_text(name, value)
    if isinstance(kind, list):
        return tiny.key_array(name, kind[0], [struct.pack(hf.SCALAR[kind[0]], v) for v in value])
    return tiny.key(name, kind, struct.pack(hf.SCALAR[kind], value))


def mtp(kind, target, path):
    """Of ordered embeddings nothing is said but how many parts are looked at; the target's table lies in it, unused."""
    g = hf.Gguf(FIXTURES / kind / "model.gguf")
    arch = g.keys["general.architecture"][1]
    has = MTP_KEYS + (["centroid_top_k"] if "ple" in kind else [])
    keys = [key("general.architecture", 8, "gemma4_mtp"), key("gemma4_mtp.embedding_length_out", 4, 256)]
    keys += [key("gemma4_mtp." + k, *g.keys[arch + "." + k]) for k in has]
    tensors = [("mtp_input_embd.weight", hf.Gguf(FIXTURES / target / "model.gguf").tensors["token_embd.weight"])]
    for name, tensor in g.tensors.items():
        _, _, end = name.partition(".")
        tensors.append((MTP_NAMES.get(end, name), tensor))
    assert len(set(MTP_NAMES.values()) & {n for n, _ in tensors}) == (4 if "ple" in kind else 2)
    write(path, keys, tensors)


# ==== DFlash in files of architecture gemma4-dflash-draft ====

DFLASH_NAMES = {"fc.weight": "dflash.fc.weight", "hidden_norm.weight": "dflash.hidden_norm.weight",
                "norm.weight": "output_norm.weight"}


def dflash(path, window, cap):
    """No pattern says which layers slide: all but the last."""
    c = json.loads((FIXTURES / "dflash" / "config.json").read_text())
    a = "gemma4-dflash-draft."
    keys = [key("general.architecture", 8, a[:-1])]
    keys += [key(a + k, 4, v) for k, v in {
        "block_count": c["num_hidden_layers"], "embedding_length": c["hidden_size"],
        "feed_forward_length": c["intermediate_size"], "attention.head_count": c["num_attention_heads"],
        "attention.head_count_kv": c["num_key_value_heads"], "attention.key_length": c["head_dim"],
        "attention.value_length": c["head_dim"], "vocab_size": c["vocab_size"], window: c["sliding_window"],
        "dflash.n_target_layers": c["num_target_layers"], "dflash.block_size": c["block_size"],
        "dflash.mask_token_id": c["dflash_config"]["mask_token_id"]}.items()]
    keys += [key(a + "attention.layer_norm_rms_epsilon", 6, c["rms_norm_eps"]),
             key(a + "rope.freq_base", 6, c["rope_theta"]), key(a + cap, 6, c["final_logit_softcapping"]),
             key(a + "dflash.target_layer_ids", [5], c["dflash_config"]["target_layer_ids"])]
    names = {v: k for k, v in hf.DFLASH.items()}
    tensors = []
    for name, (dtype, shape, data) in safetensors(FIXTURES / "dflash" / "model.safetensors"):
        if name.startswith("layers."):
            _, layer, rest = name.split(".", 2)
            name = "blk.%s.%s" % (layer, names[rest])
        tensors.append((DFLASH_NAMES.get(name, name), (TYPES[dtype], shape, data)))
    assert set(DFLASH_NAMES.values()) <= {n for n, _ in tensors}
    write(path, keys, tensors)


def safetensors(path):
    data = path.read_bytes()
    start = 8 + struct.unpack_from("<Q", data)[0]
    for name, info in json.loads(data[8:start]).items():
        if name != "__metadata__":
            first, end = info["data_offsets"]
            yield name, (info["dtype"], info["shape"], data[start + first:start + end])


# ==== Both ====

def write(path, keys, tensors):
    tiny.write(str(path), keys, [(name, list(shape), kind, data) for name, (kind, shape, data) in tensors])


def guess_as_recorded(name, window, cap):
    """Drafters of these dialects in the place of the fixtures."""
    farm = SCRATCH / name
    for kind in ("dense", "ple", "assistant_dense", "assistant_ple", "dflash"):
        (farm / kind).mkdir(parents=True)
        for path in (FIXTURES / kind).iterdir():
            if path.suffix != ".safetensors" and (path.name != "model.gguf" or kind in ("dense", "ple")):
                (farm / kind / path.name).symlink_to(path.resolve())
    for target in ("dense", "ple"):
        mtp("assistant_" + target, target, farm / ("assistant_" + target) / "model.gguf")
    dflash(farm / "dflash" / "model.gguf", window, cap)
    r = subprocess.run([DRAFTERS_TEST, farm], capture_output=True, text=True, timeout=200)
    assert r.returncode == 0 and "all as recorded" in r.stdout, r.stdout + r.stderr
    # As many guesses as the block has room for.
    r = lap("bench", farm / "dense" / "model.gguf", "--draft", farm / "dflash" / "model.gguf", "--pp", "40", "--tg", "4", "-r",
            "1", "--json", "--device", "cpu")
    widths = [d["guesses"] for d in json.loads(r.stdout)["drafts"]]
    assert max(widths) == 7, widths


def test_as_files_have_it():
    guess_as_recorded("files", "attention.sliding_window", "final_logit_softcapping")


def test_as_programs_read_it():
    guess_as_recorded("programs", "dflash.sliding_window", "dflash.logit_softcap")


if __name__ == "__main__":
    run(globals())
