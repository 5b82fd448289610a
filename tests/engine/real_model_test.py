#!/usr/bin/env python3
"""The check of a real model, tried on tiny ones: real_model_test.py LAP REAL_GPU CACHE DRIVER NVRTC COMPILER

It passes on the emulated GPU, with keys and values as they are and in codes. Where the GPU has the weights of another
model, each of its parts fails; where it has those of the same but for one norm of one layer, 10 % greater, the logits give
it away.
"""
import os
import struct
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
REPO = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(REPO, "examples", "tiny"))
import make_tiny  # noqa: E402

LAP, REAL_GPU, CACHE, DRIVER, NVRTC, COMPILER = sys.argv[1:7]
SIZES = ["--window", "64", "--positions", "40", "--tokens", "20", "--prompt", "50", "--chunk", "24"]
SPOILED, FACTOR = "blk.2.ffn_norm.weight", 1.1
TEXT_BYTES = 1500


def spoil(row):
    name, dims, kind, data = row
    if name != SPOILED:
        return row
    return name, dims, kind, struct.pack("<%df" % dims[0], *[x * FACTOR for x in struct.unpack("<%df" % dims[0], data)])


def make_models(tmp):
    """Paths of a model, another, and the first spoiled."""
    vocab = make_tiny.vocabulary()
    keys = make_tiny.make_keys(vocab, True)
    models = {"model": make_tiny.make_tensors(1, vocab), "other": make_tiny.make_tensors(2, vocab)}
    models["spoiled"] = [spoil(row) for row in models["model"]]
    for name, tensors in models.items():
        make_tiny.write(os.path.join(tmp, name + ".gguf"), keys, tensors)
    return [os.path.join(tmp, name + ".gguf") for name in models]


def check(model, text, gpu_weights, kv, code, *needed):
    line = [sys.executable, os.path.join(HERE, "real_model.py"), LAP, REAL_GPU, CACHE, model, text, "--driver", DRIVER,
            "--nvrtc", NVRTC, "--compiler", COMPILER, "--gpu-weights", gpu_weights, "--kv", kv] + SIZES
    r = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=800)
    out = r.stdout.decode()
    print(out)
    if r.returncode == 77:
        sys.exit(77)
    assert r.returncode == code, "exit code %d, not %d" % (r.returncode, code)
    for each in needed:
        assert each in out, "nothing is said of: %s" % each
    return out


def main():
    with tempfile.TemporaryDirectory() as tmp:
        text = os.path.join(tmp, "text.txt")
        with open(os.path.join(REPO, "tests", "data", "declaration.txt"), "rb") as f, open(text, "wb") as out:
            out.write(f.read(TEXT_BYTES))
        model, other, spoiled = make_models(tmp)
        out = check(model, text, model, "f16+bf16+q8_0", 0, "20 greedy tokens behind the text's beginning")
        assert "FAILED" not in out
        check(model, text, other, "f16+q8_0", 1, "%  FAILED", "FAILED: K/V f16: a mean KL divergence of",
              "FAILED: K/V q8_0: the most probable token is another one", "FAILED: K/V f16: another token where",
              "FAILED: K/V q8_0: a mean KL divergence of")
        check(model, text, spoiled, "f16", 1, "FAILED: K/V f16: a mean KL divergence of")


if __name__ == "__main__":
    main()
