"""make_corpus.py DIR - writes small well-formed and malformed files to DIR/gguf and DIR/safetensors:
the seeds of the fuzz targets, and the input of test_weights_mutate. Always the same bytes.
"""
import os
import random
import sys

from make_bad import GGUF_CASES, SAFETENSORS_CASES, MODEL
from make_good import *

MAX_BYTES = 2048


def good_files():
    """Each ends with its last needed byte, so that no prefix of it is a good file."""
    rng = random.Random(1)
    keys, _ = random_keys(rng)
    yield "gguf", "keys", gguf(keys)
    yield "gguf", "empty", gguf()
    yield "gguf", "unknown-type", gguf_unknown_type(rng)[0]["m.gguf"]
    for name, kinds, align in (("floats", [0, 1, 30, 26], 32), ("blocks", [2, 3, 6, 7, 8, 20, 39], 1), ("k-blocks", [12, 14], 64)):
        records, data, _ = layout(rng, kinds, align)
        keys = [key("general.architecture", STRING, "tiny"), key("general.alignment", U32, align),
                array("t.list", STRING, ["a", "bc"]), array("t.flags", BOOL, [1, 0]), key("split.no", U16, 0)]
        yield "gguf", name, gguf(keys, records, data, align=align)
    yield "safetensors", "pair", MODEL
    yield "safetensors", "many", st_lone(rng, n=6)[0]["m.safetensors"]
    yield "safetensors", "padded", st_lone(rng, n=2, padding=b"   ")[0]["m.safetensors"]
    yield "safetensors", "zero", st_zero(rng)[0]["m.safetensors"]
    yield "safetensors", "nothing", st_nothing(rng)[0]["m.safetensors"]


def main():
    files = [(kind, "good-" + name, data) for kind, name, data in good_files()]
    for kind, cases in (("gguf", GGUF_CASES), ("safetensors", SAFETENSORS_CASES)):
        files += [(kind, "bad-" + name.replace("^", ""), next(iter(case.values())))
                  for name, case, _ in cases if len(case) == 1]
    for kind, name, data in files:
        if data is None or name.startswith("bad-") and len(data) > MAX_BYTES:
            continue
        folder = os.path.join(sys.argv[1], kind)
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, name), "wb") as f:
            f.write(data)


main()
