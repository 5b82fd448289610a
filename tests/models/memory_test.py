#!/usr/bin/env python3
"""What a load needs on a GPU, from metadata alone, with quantised K/V: memory_test.py LAP MODELS_FOLDER SCRATCH

The plan for a GPU has every buffer. Beside them a load has a piece of weights on its way in. What the driver itself takes (its
context, code of the kernels: some hundred MB) is not counted. The limits hold with the usual chunk and with the one that is
chosen for a GPU of 24 GB; and what is chosen is what CHOICES says, and fits.
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
# memory of the GPU; of each model above, of E4B and of 12B with f16: the chunk that is chosen, and why
NAMES = ["gemma4-26b-a4b", "gemma4-31b", "gemma4-e4b", "gemma4-12b"]
CHOICES = [
    ("80G", (4096, "the longest"), (2048, "% faster than 512; a longer one"), (2048, "a longer one"), (2048, "a longer one")),
    ("24G", (4096, "the longest"), (2048, "a longer one"), (2048, "a longer one"), (2048, "a longer one")),
    ("18G", (512, "1024 would need"), (64, "the least"), (2048, "a longer one"), (2048, "a longer one")),
    ("8G", (64, "the least"), (64, "the least"), (2048, "a longer one"), (64, "the least")),
]
DRIVER = 512 << 20  # runtime/engine/chunk.c


def buffers(plan):
    """kind -> bytes"""
    sums = {}
    for kind, size in re.findall(r"^buffer b\d+ (\w+) (?:\"[^\"]*\"|\S+) (\d+)\b", plan, re.M):
        sums[kind] = sums.get(kind, 0) + int(size)
    return sums


def total_bytes(of):
    return sum(b for kind, b in of.items() if kind != "host") + PIECE


def gibibytes(text):
    return int(text[:-1]) << 30


def choices(command, name, kv, wrong):
    """What is chosen for each size of memory. Bytes of the plan for 24 GB."""
    for memory, *rows in CHOICES:
        want, why = rows[NAMES.index(name)]
        plan = run(*command, "--memory", memory, "--kv-k", kv, "--kv-v", kv)
        said = re.match(r"# chunk of (\d+): (.*)\nplan \S+ slots 1 context \d+ chunk (\d+)\n", plan)
        total = total_bytes(buffers(plan))
        print(f"  {memory}: {total / 1e9:.2f} GB, chunk of {said[1]}: {said[2]}")
        if not int(said[1]) == int(said[3]) == want or why not in said[2]:
            wrong.append(f"{name}: of {memory} a chunk of {said[1]} ({said[2]}), not {want} ({why})")
        if total + DRIVER > gibibytes(memory) and want > 64:
            wrong.append(f"{name}: {total} bytes do not fit into {memory}")
        if memory == "24G":
            of_24 = total
    return of_24


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
        chosen = choices(command, name, kv, wrong)
        if max(total, chosen) > bar:
            wrong.append(f"{name}: {total} bytes, {chosen} with the chunk that is chosen, at most {bar}")
        path.unlink()
    for name in NAMES[len(BARS):]:
        path = scratch / f"{name}.gguf"
        make_headers.model(name).write(path)
        print(name)
        choices([lap, "print", models / "gemma4.lap", "--weights", path, "--context", str(CONTEXT), "--plan"], name, "f16", wrong)
        path.unlink()
    print("\n".join(wrong) or "all fit")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
