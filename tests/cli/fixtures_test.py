#!/usr/bin/env python3
"""The evaluator against recorded outputs of the reference software, on tiny models.

    fixtures_test.py LAP FOLDER KIND [--chunks | --types]

FOLDER holds a folder a kind with model.gguf, golden.json and *.f32 arrays. Compares logits, hidden states
and the final norm in one chunk; logits again in chunks of 1 and 20; 16 greedy tokens and the logits behind
them; a longer run in rings that wrap several times against one whose caches hold every position; every
pass against the graph before it. With --chunks only the logits, in chunks of every size from 1 to the
prompt's length. Relative RMS must be at most 1e-4, the largest difference 2e-3 (logits) or 5e-4.
With --types caches of every pair of types, in rings that wrap and in small chunks: the same bytes as in one call; and the
logits as far from the recorded ones as is known.
"""
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from array import array

MOST_RMS = 1e-4
MOST_ABS = {"logits": 2e-3, "other": 5e-4}
# Types of keys and values: least and most relative RMS error of logits. Random weights make of a rounding nine times as much.
KNOWN_TYPES = {
    ("f16", "f16"): (8e-4, 3e-3),
    ("bf16", "q8_0"): (0.012, 0.05),
    ("q8_0", "q8_0"): (0.02, 0.07),
    ("q4_0", "q4_0"): (0.3, 0.75),
    ("tq3_0", "tq3_0"): (0.5, 1.0),
    ("q8_0", "tq3_0"): (0.4, 0.9),
    ("tq3_0", "f32"): (0.4, 0.9),
}


def floats(path):
    a = array("f")
    with open(path, "rb") as f:
        a.frombytes(f.read())
    return a


class Kind:
    def __init__(self, lap, folder, name, tmp):
        self.lap, self.folder, self.name, self.tmp = lap, os.path.join(folder, name), name, tmp
        with open(self.path("golden.json")) as f:
            self.golden = json.load(f)
        self.model_text = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../models/gemma4.lap")
        self.failed = False
        self.tokens = self.golden["prompt_tokens"]
        with open(self.out("ids.txt"), "w") as f:
            f.write(" ".join(map(str, self.tokens)))

    def path(self, file):
        return os.path.join(self.folder, file)

    def out(self, file):
        return os.path.join(self.tmp, self.name + "-" + file)

    def run(self, *args):
        command = [self.lap, "run", self.path("model.gguf"), "--tokens-file", self.out("ids.txt"), "-q"] + list(args)
        r = subprocess.run(command, capture_output=True, timeout=300)
        if r.returncode != 0:
            sys.exit("%s: %s\nexit code %d\n%s" % (self.name, " ".join(command), r.returncode, r.stderr.decode()))
        return r.stdout.decode()

    def compare(self, what, got, want, kind="other", show=True):
        if len(got) != len(want):
            error, worst = math.inf, math.inf
        else:
            error = math.sqrt(sum((x - y) ** 2 for x, y in zip(got, want)) / sum(y * y for y in want))
            worst = max(abs(x - y) for x, y in zip(got, want))
        bad = not (error <= MOST_RMS and worst <= MOST_ABS[kind])  # a NaN is bad
        self.failed |= bad
        if show or bad:
            print("%-6s %-28s relative RMS %.2e  largest difference %.2e%s" %
                  (self.name, what, error, worst, "  FAILED" if bad else ""), flush=True)
        return error

    def whole(self):
        layers = self.golden["config"]["num_hidden_layers"]
        taps = ["embed"] + ["layer.%d" % i for i in range(layers)] + ["final"]
        dumps = [x for t in taps for x in ("--dump", "%s=%s" % (t, self.out(t + ".f32")))]
        self.run("-n", "0", "--logits", self.out("logits.f32"), *dumps)
        self.compare("logits", floats(self.out("logits.f32")), floats(self.path("logits.f32")), "logits")
        self.compare("final norm", floats(self.out("final.f32")), floats(self.path("final_norm.f32")))
        width = self.golden["config"]["hidden_size"]
        hidden = array("f")
        for t in taps[:-1]:
            rows = floats(self.out(t + ".f32"))
            hidden += rows[:width] + rows[-width:]
        self.compare("hidden, first and last row", hidden, floats(self.path("hidden_first_last.f32")))

    def chunks(self, sizes):
        want = floats(self.path("logits.f32"))
        worst = 0
        for size in sizes:
            self.run("-n", "0", "--chunk", str(size), "--logits", self.out("chunk.f32"))
            worst = max(worst, self.compare("logits, chunks of %d" % size, floats(self.out("chunk.f32")), want, "logits",
                                            show=False))
        what = "chunks of %d..%d, %d sizes" % (sizes[0], sizes[-1], len(sizes))
        print("%-6s %-28s relative RMS %.2e at worst" % (self.name, what, worst), flush=True)

    def rings(self):
        """The recorded run is too short for three wraps: the prompt again and again, fed one token at a time so
        that rings are as small as they get, against one call that needs no ring."""
        tokens = (self.tokens * 5)[:300]
        with open(self.out("long.txt"), "w") as f:
            f.write(" ".join(map(str, tokens)))
        window = self.golden["config"]["sliding_window"]
        info = subprocess.run([self.lap, "print", self.model_text, "--weights", self.path("model.gguf"), "--after", "all",
                               "--chunk", "1"], capture_output=True, check=True).stdout.decode()
        capacity = {int(x) for x in re.findall(r"ring capacity (\d+)", info)}
        if not capacity or max(capacity) > window + 32 or len(tokens) < 4 * max(capacity):
            self.failed = True
            print("%-6s rings of %s positions cannot wrap three times in %d  FAILED" % (self.name, capacity, len(tokens)))
        command = [self.lap, "run", self.path("model.gguf"), "--tokens-file", self.out("long.txt"), "-q", "-n", "0"]
        for chunk, out in (1, "ring.f32"), (300, "linear.f32"):
            subprocess.run(command + ["--chunk", str(chunk), "--context", "300", "--logits", self.out(out)], check=True)
        self.compare("300 positions, rings of %d" % max(capacity, default=0), floats(self.out("ring.f32")),
                     floats(self.out("linear.f32")), "logits")

    def types(self):
        """Keys and values of each pair of types. The prompt again and again, as in rings()."""
        tokens = (self.tokens * 5)[:150]
        with open(self.out("long.txt"), "w") as f:
            f.write(" ".join(map(str, tokens)))
        long = [self.lap, "run", self.path("model.gguf"), "--tokens-file", self.out("long.txt"), "-q", "-n", "0"]
        for pair, (lowest, highest) in KNOWN_TYPES.items():
            types = ["--kv-k", pair[0], "--kv-v", pair[1]]
            self.run("-n", "0", "--logits", self.out("types.f32"), *types)
            got, want = floats(self.out("types.f32")), floats(self.path("logits.f32"))
            error = math.sqrt(sum((x - y) ** 2 for x, y in zip(got, want)) / sum(y * y for y in want))
            bits = []
            for chunk in 1, 7, len(tokens):
                subprocess.run(long + ["--chunk", str(chunk), "--context", str(len(tokens)), "--logits",
                                       self.out("chunk.f32")] + types, check=True)
                with open(self.out("chunk.f32"), "rb") as f:
                    bits.append(f.read())
            bad = not lowest <= error <= highest or len(got) != len(want) or len(set(bits)) != 1
            self.failed |= bad
            print("%-6s K %-5s V %-5s relative RMS %.2e, known %.0e to %.0e; %s%s" %
                  (self.name, *pair, error, lowest, highest, "chunks alike" if len(set(bits)) == 1 else "CHUNKS DIFFER",
                   "  FAILED" if bad else ""), flush=True)

    def passes(self):
        out = self.run("-n", "4", "--greedy", "--verify-each")
        if [int(x) for x in out.split()] != self.golden["greedy_tokens"][:4]:
            self.failed = True
            print("%-6s --verify-each gives other tokens  FAILED" % self.name)

    def greedy(self):
        want = self.golden["greedy_tokens"]
        vocab = self.golden["config"]["vocab_size"]
        made = [int(x) for x in self.run("-n", str(len(want)), "--greedy", "--logits", self.out("greedy.f32")).split()]
        if made != want:
            self.failed = True
            print("%-6s greedy tokens are %s, not %s (margins %s)  FAILED" %
                  (self.name, made, want, self.golden["greedy_margins"]))
        rows = floats(self.out("greedy.f32"))[(len(self.tokens) - 1) * vocab:]
        self.compare("%d greedy steps" % len(want), rows, floats(self.path("greedy_logits.f32")), "logits")


def main():
    lap, folder, name = os.path.abspath(sys.argv[1]), sys.argv[2], sys.argv[3]
    with tempfile.TemporaryDirectory() as tmp:
        kind = Kind(lap, folder, name, tmp)
        if "--chunks" in sys.argv[4:]:
            kind.chunks(range(1, len(kind.tokens) + 1))
        elif "--types" in sys.argv[4:]:
            kind.types()
        else:
            kind.whole()
            kind.chunks([1, 20])
            kind.greedy()
            kind.rings()
            kind.passes()
    sys.exit(1 if kind.failed else 0)


if __name__ == "__main__":
    main()
