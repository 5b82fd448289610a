#!/usr/bin/env python3
"""Whole models on a GPU, emulated or real, against recorded outputs and against the evaluator.

    gpu_models_test.py LAP FEED CACHE FIXTURES CASE.. [--driver FILE --nvrtc FOLDER --compiler FILE]

FEED is the program feed.c, CACHE a folder for compiled kernels, FIXTURES has a folder for each of the kinds below. With
--driver and --nvrtc on the emulated GPU, which needs a C++ compiler; else on this machine's GPU. Exit 77 without.

dense, moe, ple, odd: logits of a prompt fed whole, in calls of 20 and of few rows, against the recorded ones and against
the evaluator with keys and values in f16; 16 greedy tokens; a longer text in rings that wrap within calls of few and of
many rows; every tap, alone, with the logits of every second row. tiny: the same of Gemma 3 with Q8_0 weights. experts:
weights in Q4_K, Q5_0 and Q6_K. variants: variants.lap. sparse: sparse.lap. bf16: odd and ple with keys and values in bf16,
in the evaluator too. packed: odd and ple with keys and values in codes. sparse_packed: sparse.lap with codes in the layers that
are sparse, other ones in each, which few codes that are off by one can reach.

Relative RMS must be at most 6e-3, the most probable token the same wherever the evaluator's is ahead by more than 0.05;
with bf16, in which attention then has queries and weights of keys too, 2e-2 and 0.2. Where keys and values are packed, the
f16 activations of a GPU move some codes by one, which is as much as the type itself is off by: outputs of these models of
random weights are as far from the evaluator's as MOST_RMS says, twice what was found and half of what the type does to
them (tests/cli/fixtures_test.py), and tokens are not compared. Calls of up to 16 rows give the same bytes whatever their sizes.
"""
import argparse
import json
import math
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from array import array

HERE = os.path.dirname(os.path.abspath(__file__))
REPO = os.path.dirname(os.path.dirname(HERE))
MOST_RMS = {"f16": 6e-3, "bf16": 2e-2, "q8_0": 0.05, "q4_0": 0.2, "tq3_0": 0.45}
SPARSE_PACKED_RMS = 0.03
NEAR, NEAR_PACKED = [0.004], [0.004, 0.01, 0.02]  # by how much a score may be off; codes that are off by one move scores more
LEAST_MARGIN = {"f16": 0.05, "bf16": 0.2}
CPU = ["--device", "cpu"]
CONTEXT = 512
FEW_EMULATED = ["3", "1+2+5+8+16", "15+14+13+12+11+10+9+7+6+4"]  # all of them where a prompt is so long
TAPS_EMULATED = 3  # the last ones: those behind the last cache change what is grouped
FEW_ON_DEVICE = [str(n) for n in range(1, 17)] + ["1+2+5+8+16"]


def floats(path):
    a = array("f")
    with open(path, "rb") as f:
        a.frombytes(f.read())
    return a


def read(path):
    with open(path, "rb") as f:
        return f.read()


def run(command):
    r = subprocess.run(command, capture_output=True, timeout=900)
    if r.returncode != 0:
        sys.exit("%s\nexit code %d\n%s" % (" ".join(command), r.returncode, r.stderr.decode()))
    return r.stdout.decode()


def row_error(x, y, at, n):
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(x[at:at + n], y[at:at + n])) / sum(b * b for b in y[at:at + n]))


class Case:
    def __init__(self, options, name, tmp):
        self.o, self.name, self.tmp = options, name, tmp
        self.weights = os.path.join(tmp, name + ".gguf")
        self.model = None  # text; None: the built-in one
        self.recorded = None  # folder of recorded outputs
        self.kv = "f16"
        self.rms, self.near = None, NEAR  # most of it, None: as the type has it; of sparse.lap
        self.odd_rows = 0  # rows that may differ: where experts tie to 3 digits, other ones may be chosen
        self.failed = False
        self.tokens = []
        self.vocab = 0

    # ==== running ====

    def gpu(self):
        o = ["--device", "gpu", "--kernel-cache", self.o.cache]
        return o + (["--driver", self.o.driver, "--nvrtc", self.o.nvrtc] if self.o.driver else [])

    def shape(self):
        return ["--chunk", str(len(self.tokens)), "--context", str(CONTEXT)] + (["--model", self.model] if self.model else [])

    def ids(self, tokens):
        path = os.path.join(self.tmp, "%s-%d.ids" % (self.name, len(tokens)))
        with open(path, "w") as f:
            f.write(" ".join(map(str, tokens)))
        return path

    def feed(self, where, tokens, *calls, more=()):
        """Files with the logits of each way of calling."""
        out = [os.path.join(self.tmp, "%s-%d-%s-%s.f32" % (self.name, len(tokens), where[1], c)) for c in calls]
        run([self.o.feed] + where + ["--kv", self.kv] + self.shape() + list(more) + [self.weights, self.ids(tokens)] +
            ["%s=%s" % (c, f) for c, f in zip(calls, out)])
        return out

    def evaluate(self, tokens):
        return floats(self.feed(CPU, tokens, str(len(self.tokens)))[0])

    # ==== comparing ====

    def fail(self, text):
        self.failed = True
        print("%-8s %s  FAILED" % (self.name, text), flush=True)

    def most_rms(self):
        return self.rms or max(MOST_RMS[t] for t in self.kv.split(","))

    def compare(self, what, got, want, width=0):
        """want: what the evaluator gives, or nearly. width: of a row; 0: these are logits."""
        v = width or self.vocab
        if len(got) != len(want):
            self.fail("%s: %d values, not %d" % (what, len(got), len(want)))
            return
        errors = [row_error(got, want, at, v) for at in range(0, len(want), v)]
        bad = [i for i, e in enumerate(errors) if not e <= 4 * self.most_rms()]  # a NaN is bad
        rest = bad[:self.odd_rows] if len(bad) <= self.odd_rows else []
        rows = [i for i in range(len(errors)) if i not in rest]
        x = array("f", (a for i in rows for a in got[i * v:i * v + v]))
        y = array("f", (a for i in rows for a in want[i * v:i * v + v]))
        rms, worst = row_error(x, y, 0, len(y)), max(abs(a - b) for a, b in zip(x, y))
        others = [i for i in rows if not width and self.other_token(got[i * v:i * v + v], want[i * v:i * v + v])]
        text = "%-34s relative RMS %.2e  largest difference %.2e%s" % (
            what, rms, worst, "  but for rows %s" % rest if rest else "")
        if others:
            text += "  another token in rows %s" % others
        if rms <= self.most_rms() and not others:
            print("%-8s %s" % (self.name, text), flush=True)
        else:
            self.fail(text)

    def other_token(self, got, want):
        if self.rms or self.kv not in LEAST_MARGIN:
            return False
        first, second = sorted(want, reverse=True)[:2]
        return first - second > LEAST_MARGIN[self.kv] and got.index(max(got)) != want.index(first)

    # ==== the tests ====

    def prompt(self):
        few = FEW_EMULATED if self.o.driver else FEW_ON_DEVICE
        want = self.evaluate(self.tokens)
        whole, chunks, *small = self.feed(self.gpu(), self.tokens, str(len(self.tokens)), "20", *few)
        for what, file in ("whole", whole), ("calls of 20", chunks), ("calls of " + few[0], small[0]):
            self.compare(what, floats(file), want)
            if self.recorded and self.kv == "f16":
                self.compare(what + ", recorded", floats(file), floats(os.path.join(self.recorded, "logits.f32")))
        for calls, file in zip(few[1:], small[1:]):
            if read(file) != read(small[0]):
                self.fail("calls of %s rows give other bytes than calls of %s" % (calls, few[0]))

    def taps(self):
        """Which values are wanted changes which groups there are: so each tap alone, or the last ones. Every second row of
        logits, so that T and R differ. A call of each phase: many rows with many wanted, and with few; up to 16, up to 8."""
        info = run([self.o.lap, "print", self.text(), "--weights", self.weights, "--taps", "--after", "none"])
        calls, tokens = "34+20+12+3", (self.tokens * 2)[:69]
        found = re.findall(r"^  tap (\S+) = %(\S+)", info, re.M)
        if not found:
            self.fail("the model has no taps")
        for tap, rows in found[-TAPS_EMULATED if self.o.driver else 0:]:
            width = int(re.search(r"^  %%%s = .* : f32\[T, (\d+)\]" % re.escape(rows), info, re.M)[1])
            more = ["--tap", tap, "--apart", "2"]
            got = self.feed(self.gpu(), tokens, calls, more=more)[0]
            want = self.feed(CPU, tokens, calls, more=more)[0]
            self.compare("tap %s" % tap, floats(got + ".tap"), floats(want + ".tap"), width)
            self.compare("logits beside tap %s" % tap, floats(got), floats(want))

    def rings(self):
        info = run([self.o.lap, "print", self.text(), "--weights", self.weights] + self.shape()[:4])
        rings = [int(x) for x in re.findall(r"ring capacity (\d+)", info)]
        n = 2 * max(rings) + 40
        if n > CONTEXT:
            self.fail("rings of %s positions cannot wrap twice in a context of %d" % (rings, CONTEXT))
            return
        tokens = (self.tokens * 9)[:n]
        file = self.feed(self.gpu(), tokens, self.around(max(rings)))[0]
        self.compare("%d tokens, rings of %d" % (n, max(rings)), floats(file), self.evaluate(tokens))

    def around(self, ring):
        """Calls whose rows are on both sides of a ring's end: of a few rows the first time, of many the second; then of
        one row and of few."""
        sizes, at = [], 0
        for start, across in (ring - 5, 12), (2 * ring - 17, 40):
            while at < start:
                sizes.append(min(len(self.tokens), start - at))
                at += sizes[-1]
            sizes.append(across)
            at += across
        return "+".join(map(str, sizes + [1, 16]))

    def text(self):
        return self.model or os.path.join(REPO, "models", "gemma3.lap" if self.name == "tiny" else "gemma4.lap")

    def greedy(self):
        with open(os.path.join(self.recorded, "golden.json")) as f:
            golden = json.load(f)
        want = golden["greedy_tokens"]
        out = run([self.o.lap, "run", self.weights, "--tokens-file", self.ids(self.tokens), "-q", "--greedy", "-n",
                   str(len(want))] + self.gpu() + (["--tune", "off"] if self.o.driver else []) + self.shape())
        if [int(x) for x in out.split()] != want:
            self.fail("greedy tokens are %s, not %s (margins %s)" % (out.split(), want, golden["greedy_margins"]))

    # ==== the cases ====

    def random_tokens(self, n, vocab):
        rng = random.Random(5)
        self.vocab = vocab
        self.tokens = [rng.randrange(6, vocab) for _ in range(n)]

    def load_recorded(self, name):
        self.recorded = os.path.join(self.o.fixtures, name)
        self.weights = os.path.join(self.recorded, "model.gguf")
        with open(os.path.join(self.recorded, "golden.json")) as f:
            golden = json.load(f)
        self.tokens, self.vocab = golden["prompt_tokens"], golden["config"]["vocab_size"]

    def recorded_model(self):
        self.load_recorded(self.name)
        self.odd_rows = 4 if self.name == "moe" else 0
        self.prompt()
        self.greedy()
        self.rings()
        self.taps()

    def make_tiny(self):
        run([sys.executable, os.path.join(REPO, "examples", "tiny", "make_tiny.py"), self.weights])
        tensors = json.loads(run([self.o.lap, "inspect", self.weights, "--tensors", "--json"]))["tensors"]
        self.random_tokens(70, next(t["shape"][0] for t in tensors if t["name"] == "output.weight"))

    def tiny(self):
        self.make_tiny()
        self.prompt()
        self.rings()
        self.taps()

    def bf16(self):
        """Keys and values in bf16, on the evaluator too."""
        self.kv = "bf16"
        for name in "odd", "ple":
            self.name = "bf16 " + name
            self.load_recorded(name)
            self.prompt()
            self.rings()

    def packed(self):
        """Heads of 32, 64, 256 and 512, rings, and K/V that layers share."""
        for name, kv in ("odd", "q8_0,q4_0"), ("ple", "tq3_0,tq3_0"):
            self.kv, self.name = kv, "%s %s" % (name, kv)
            self.load_recorded(name)
            self.prompt()
            self.rings()

    def variants(self):
        self.make_tiny()
        self.model = os.path.join(HERE, "variants.lap")
        self.prompt()
        self.rings()

    def sparse(self):
        """Sparse attention in two layers, of all rows and of the wanted ones: far from dense, and as the evaluator has it;
        with alpha 0 the bytes of dense attention."""
        self.make_tiny()
        self.model = os.path.join(HERE, "sparse.lap")
        self.sparse_prompts()

    def sparse_packed(self):
        """Types of keys and values of the last layer and of the one before."""
        sys.path.insert(0, os.path.join(REPO, "examples", "tiny"))
        import make_tiny
        make_tiny.HEAD_DIM = 128  # what tq3_0 needs
        vocab = make_tiny.vocabulary()
        make_tiny.write(self.weights, make_tiny.make_keys(vocab, True), make_tiny.make_tensors(1, vocab))
        self.vocab, self.rms, self.odd_rows = len(vocab), SPARSE_PACKED_RMS, 6
        self.near = NEAR_PACKED
        with open(os.path.join(HERE, "sparse.lap")) as f:
            text, end = f.read(), "scale = 1.0 / sqrt(hd))"
        if text.count(end) != 1:
            sys.exit("sparse.lap has no place for types")
        for last, other in (("tq3_0", "q8_0"), ("q8_0", "q4_0")), (("q4_0", "tq3_0"), ("tq3_0", "bf16")):
            self.name = "sparse %s,%s and %s,%s" % (other + last)
            types = ", ".join('%s_type = i == L - 1 ? "%s" : i == L - 2 ? "%s" : none' % ("kv"[n], last[n], other[n])
                              for n in range(2))
            self.model = os.path.join(self.tmp, "packed.lap")
            with open(self.model, "w") as f:
                f.write(text.replace(end, "%s, %s)" % (end[:-1], types)))
            self.sparse_prompts()

    def sparse_prompts(self):
        self.random_tokens(210, self.vocab)
        off, all_kept = ["--sparse", "off"], ["--sparse", "on", "--alpha", "0"]
        calls = ["210", "64+96"]
        dense = [read(f) for f in self.feed(self.gpu(), self.tokens, *calls, more=off)]
        far = row_error(array("f", dense[0]), self.evaluate_sparse("0.7", []), 0, len(self.tokens) * self.vocab)
        if not far > 4 * self.most_rms():
            self.fail("dense and sparse logits are only %.2e apart" % far)
        self.compare_sparse(calls, [])
        if self.near is NEAR:  # blocks of queries of a third of their rows, of which more are near ties
            self.compare_sparse(calls[:1], ["--apart", "3"])
        if [read(f) for f in self.feed(self.gpu(), self.tokens, *calls, more=all_kept)] != dense:
            self.fail("with alpha 0 the bytes are not those of dense attention")

    def evaluate_sparse(self, alpha, more):
        more = ["--sparse", "on", "--alpha", alpha] + more
        return floats(self.feed(CPU, self.tokens, str(len(self.tokens)), more=more)[0])

    def compare_sparse(self, calls, more):
        """Each row with the evaluator's at the text's alpha or, where that is nearer, at one that is 0.4 % more or less, or as
        self.near has it: a block whose score is so near the limit may be chosen otherwise."""
        alphas = [0.7] + [0.7 * (1 + sign * near) for near in self.near for sign in (-1, 1)]
        v, ways = self.vocab, [self.evaluate_sparse("%.4f" % alpha, more) for alpha in alphas]
        for what, file in zip(calls, self.feed(self.gpu(), self.tokens, *calls, more=["--sparse", "on"] + more)):
            got, want, ties = floats(file), array("f"), 0
            for at in range(0, len(ways[0]), v):
                errors = [row_error(got, w, at, v) for w in ways]
                best = 0 if errors[0] <= self.most_rms() else errors.index(min(errors))
                want.extend(ways[best][at:at + v])
                ties += best > 0
            self.compare(" ".join(["calls of", what] + more) + ", %d rows of a near tie" % ties, got, want)
            if ties * 4 > len(ways[0]) // v:
                self.fail("too many near ties")

    def experts(self):
        """One layer, so that a row whose experts tie keeps that to itself."""
        sizes = dict(D=512, F=288, H=4, KS=2, W=32, E=8, used=2, FE=96, V=600)
        run([self.o.lap, "synth", "--like", "gemma4-26b-a4b", "--quant", "q4_k_m", "--layers", "1", "-o", self.weights] +
            [x for k, v in sizes.items() for x in ("--set", "%s=%d" % (k, v))])
        self.random_tokens(90, sizes["V"])
        self.odd_rows = 3
        self.prompt()


CASES = {"dense": Case.recorded_model, "moe": Case.recorded_model, "ple": Case.recorded_model,
         "odd": Case.recorded_model, "bf16": Case.bf16, "packed": Case.packed, "tiny": Case.tiny, "experts": Case.experts,
         "variants": Case.variants, "sparse": Case.sparse, "sparse_packed": Case.sparse_packed}


def main():
    p = argparse.ArgumentParser()
    for name in "lap", "feed", "cache", "fixtures":
        p.add_argument(name, type=os.path.abspath)
    p.add_argument("cases", nargs="*", help="of %s (default: all)" % ", ".join(CASES))
    for name in "--driver", "--nvrtc", "--compiler":
        p.add_argument(name)
    o = p.parse_args()
    for name in o.cases:
        if name not in CASES:
            p.error("unknown case '%s'" % name)
    if o.compiler and not os.path.exists(o.compiler):
        print("the emulated GPU needs g++")
        sys.exit(77)
    if not o.driver and not json.loads(run([o.lap, "doctor", "--json"]))["CUDA driver"]["found"]:
        print("no GPU")
        sys.exit(77)
    failed = False
    for name in o.cases or list(CASES):
        start = time.time()
        with tempfile.TemporaryDirectory() as tmp:
            case = Case(o, name, tmp)
            CASES[name](case)
        print("%-8s %s, %.1f s" % (name, "FAILED" if case.failed else "passed", time.time() - start), flush=True)
        failed |= case.failed
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
