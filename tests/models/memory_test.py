#!/usr/bin/env python3
"""What a load needs on a GPU, from metadata alone, with quantised K/V: memory_test.py LAP MODELS_FOLDER SCRATCH

The plan for a GPU has every buffer. Beside them a load has a piece of weights on its way in. What the driver itself takes (its
context, code of the kernels: some hundred MB) is not counted.
"""
import pathlib
import re
import sys

import make_headers
from models_test import run

CONTEXT = 65536
PIECE = 64 << 20  # runtime/engine/gpu_load.c
# Q4_K_M-like files; type of keys and values; most bytes
BARS = [
    ("gemma4-26b-a4b", "q8_0", 20_000_000_000),
    ("gemma4-31b", "tq3_0", 21_500_000_000),
]


def buffers(plan):
    """kind -> bytes"""
    sums = {}
    for kind, size in re.findall(r"^buffer b\d+ (\w+) (?:\"[^\"]*\"|\S+) (\d+)\b", plan, re.M):
        sums[kind] = sums.get(kind, 0) + int(size)
    return sums


def main():
    lap, models, scratch = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    scratch.mkdir(parents=True, exist_ok=True)
    wrong = []
    for name, kv, bar in BARS:
        path = scratch / f"{name}.gguf"
        make_headers.model(name).write(path)
        command = [lap, "print", models / "gemma4.lap", "--weights", path, "--context", str(CONTEXT), "--plan"]
        half, of = buffers(run(*command)), buffers(run(*command, "--kv-k", kv, "--kv-v", kv))
        if of["tiles"] < 0.98 * path.stat().st_size:
            wrong.append(f"{name}: {of['tiles']} bytes of tiles cannot be the weights of {path.stat().st_size}")
        rest = sum(b for kind, b in of.items() if kind not in ("k", "v", "host", "tiles"))
        total = of["tiles"] + rest + of["k"] + of["v"] + PIECE
        print(f"{name}: {CONTEXT} positions of {kv}: {total / 1e9:.2f} GB of {bar / 1e9:.1f}: weights {of['tiles'] / 1e9:.2f}, "
              f"K/V {(of['k'] + of['v']) / 1e9:.2f} (f16 {(half['k'] + half['v']) / 1e9:.2f}), "
              f"the rest {(rest + PIECE) / 1e9:.2f}")
        if total > bar:
            wrong.append(f"{name}: {total} bytes, at most {bar}")
        path.unlink()
    print("\n".join(wrong) or "all fit")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
