"""What the tests of lap convert share: X_test.py LAP FIXTURES SCRATCH

FIXTURES holds a folder a kind with model.gguf, which the reference converter wrote, and golden.json. Each can be taken
back to a checkpoint (checkpoint.py).
"""
import array
import json
import math
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import time

import checkpoint as hf

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))  # unfinished.py

LAP, FIXTURES, SCRATCH = os.path.abspath(sys.argv[1]), pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
SEED = random.randrange(1 << 31)
RNG = hf.rng_of(SEED)
P = "model.language_model."


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


def f32_values(data):
    return struct.unpack(f"<{len(data) // 2}f", hf.f32_of_bf16(data))


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


# ==== Running ====

def run(tests):
    """Runs every function test_* of a module's globals()."""
    print("seed", SEED)
    shutil.rmtree(SCRATCH, ignore_errors=True)
    SCRATCH.mkdir(parents=True)
    failed = 0
    for name, test in list(tests.items()):
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
