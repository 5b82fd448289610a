#!/usr/bin/env python3
"""Guessing changes nothing but speed: draft_test.py LAP FOLDER [PROMPTS] [--seed N] [--device gpu [--driver FILE
--nvrtc FOLDER --kernel-cache FOLDER]]

FOLDER holds the golden models. For random prompts around the ends of windows and rings, the tokens with each drafter must
be those without: MTP and DFlash where there is one for the target, and drafters that know the continuation (always
right, right every other time, always wrong, random), made here as a table of logits by position. Greedy and drawn,
every width, several K/V types and chunks. Also what the statistics say of them, and the messages. With --driver, of an
emulated GPU, which takes its time, there are fewer tokens and drafters.
"""
import argparse
import importlib.util
import json
import os
import random
import struct
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
CONTEXT, TOKENS = 384, 60

ORACLE = """model oracle from gguf "oracle" uses target: gemma4 {
  param most : int = meta("most", 15)
  drafts block(most = most, mask = 0)
  entry absorb(pos: pos[T]) { tap seen = embed(pos, "logits") }
  entry draft(tokens: token[T], pos: pos[T]) {
    emit logits = rows(embed(pos, "logits") + 0.0 * embed(tokens, "zeros"))
  }
}
"""


def module(path):
    spec = importlib.util.spec_from_file_location("make_tiny", path)
    m = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(m)
    return m


tiny = module(os.path.join(HERE, "..", "..", "examples", "tiny", "make_tiny.py"))


class Tests:
    def __init__(self, o, tmp):
        self.lap, self.folder, self.device, self.tmp = os.path.abspath(o.lap), os.path.abspath(o.folder), o.device, tmp
        self.places = [x for name in ("driver", "nvrtc", "kernel_cache") if getattr(o, name)
                       for x in ("--" + name.replace("_", "-"), getattr(o, name))]
        self.emulated = bool(o.driver)
        self.tokens = 12 if self.emulated else TOKENS
        self.rng = random.Random(o.seed)
        self.failed = self.count = 0
        with open(self.file("oracle.lap"), "w") as f:
            f.write(ORACLE)

    def file(self, name):
        return os.path.join(self.tmp, name)

    def weights(self, kind):
        path = os.path.join(self.folder, kind)
        return path if kind == "dflash" else os.path.join(path, "model.gguf")

    def check(self, ok, what):
        self.count += 1
        if not ok:
            self.failed += 1
            print("FAILED: %s" % what, flush=True)

    def command(self, target, prompt, options):
        with open(self.file("ids.txt"), "w") as f:
            f.write(" ".join(map(str, prompt)))
        return [self.lap, "run", self.weights(target), "--tokens-file", self.file("ids.txt"), "--json", "-c",
                str(CONTEXT), "-n", str(self.tokens), "--device", self.device] + self.places + options

    def run(self, target, prompt, options):
        r = subprocess.run(self.command(target, prompt, options), capture_output=True, timeout=300)
        if r.returncode:
            sys.exit("%s\nexit code %d\n%s" % (" ".join(r.args), r.returncode, r.stderr.decode()))
        return json.loads(r.stdout)

    def oracle(self, vocab, prompt, made, right, most):
        """A drafter whose guess for position p is made[p] where right(p), else another token."""
        rows = []
        for p in range(max(CONTEXT + 16, vocab)):
            i = p - len(prompt)
            token = made[i] if 0 <= i < len(made) else 0
            if not right(p):
                token = (token + 1 + self.rng.randrange(vocab - 1)) % vocab
            row = [0.0] * vocab
            row[token] = 1.0
            rows.append(struct.pack("<%df" % vocab, *row))
        path = self.file("oracle.gguf")
        keys = [tiny.key_text("general.architecture", "oracle"), tiny.key_int("oracle.most", most)]
        tiny.write(path, keys, [("logits", [len(rows), vocab], tiny.F32, b"".join(rows)),
                                ("zeros", [vocab, vocab], tiny.F32, bytes(4 * vocab * vocab))])
        return ["--draft", path, "--draft-model", self.file("oracle.lap")]

    def same(self, target, prompt, options, plain, drafter, what):
        got = self.run(target, prompt, options + drafter)
        self.check(got["ids"] == plain["ids"] and got["stopped"] == plain["stopped"],
                   "%s, prompt of %d, %s, %s: other tokens" % (target, len(prompt), " ".join(options), what))
        return got["drafts"]

    def one_prompt(self, target, vocab, window, options):
        edge = self.rng.choice([window, 2 * window, 48, 64, 128, 200])
        prompt = [2] + [self.rng.randrange(vocab) for _ in range(max(2, edge + self.rng.randint(-3, 3)))]
        plain = self.run(target, prompt, options)
        made, most = plain["ids"], self.rng.randint(1, 15)
        fixed = ["--draft-fixed"]
        all_right = self.oracle(vocab, prompt, made, lambda p: True, most) + fixed
        d = self.same(target, prompt, options, plain, all_right, "always right, %d a round" % most)
        self.check(d["guessed"] == d["right"] and len(made) <= (most + 1) * d["rounds"] + 1 and
                   d["rounds"] <= (len(made) - 1) // (most + 1) + 1,
                   "always right: %s of %d tokens" % (d, len(made)))
        d = self.same(target, prompt, options, plain,
                      self.oracle(vocab, prompt, made, lambda p: False, most) + fixed, "always wrong")
        self.check(sum(d["right"]) == 0 and d["rounds"] == len(made) - 1, "always wrong: %s" % d)
        for name, right in ("every other", lambda p: p % 2), ("random", lambda p: self.rng.random() < 0.6):
            self.same(target, prompt, options, plain, self.oracle(vocab, prompt, made, right, most) + fixed, name)
        if self.emulated:
            return
        self.same(target, prompt, options, plain, self.oracle(vocab, prompt, made, lambda p: p % 3, 15), "width chosen")
        for drafter in {"dense": ["assistant_dense", "dflash"], "ple": ["assistant_ple"]}.get(target, []):
            self.same(target, prompt, options, plain, ["--draft", self.weights(drafter)] + fixed, drafter)
            self.same(target, prompt, options, plain, ["--draft", self.weights(drafter), "--draft-max", "2"], drafter)

    def prompts(self, n):
        kinds = [("dense", 512, 24), ("ple", 512, 24), ("odd", 331, 7), ("moe", 512, 32)]
        for i in range(n):
            options = ["--greedy"] if i % 3 else ["--temp", "0.8", "-s", str(self.rng.randrange(1000)), "--repeat-penalty", "1.1"]
            options += ["--chunk", str(self.rng.choice([16, 33, 512]))]
            types = [[], ["--kv-k", "f16", "--kv-v", "f16"], ["--kv-v", "bf16", "--kv-k", "bf16"]]
            types += [["--kv-k", "f16"], ["--kv-k", "q8_0", "--kv-v", "q4_0"], ["--kv-k", "q4_0"]]
            self.one_prompt(*kinds[i % len(kinds)], options + self.rng.choice(types))

    def refused(self, options, message, code=1, target="dense"):
        r = subprocess.run(self.command(target, [2, 3], options), capture_output=True, timeout=300)
        self.check(r.returncode == code and message in r.stderr.decode(),
                   "%s: exit code %d, %s" % (" ".join(options), r.returncode, r.stderr.decode()))

    def bench(self):
        """Every width, the tokens a round that were asked for, times that add up."""
        for drafter, widths in ("assistant_dense", [1, 2, 4]), ("dflash", [1, 2, 4, 7]):
            r = subprocess.run([self.lap, "bench", self.weights("dense"), "--draft", self.weights(drafter), "--pp", "40", "--tg",
                                "40", "-r", "1", "--accept", "2.5", "--json", "--device", self.device] + self.places,
                               capture_output=True, timeout=300)
            self.check(r.returncode == 0, r.stderr.decode())
            rounds = json.loads(r.stdout)["drafts"]
            self.check([d["guesses"] for d in rounds] == widths, "widths %s" % rounds)
            for d in rounds:
                tokens, all_seconds = d["tokens_per_round"], d["tokens_per_round"] / d["tokens_per_second"]
                parts = (d["draft_seconds"] + d["verify_seconds"]) / (1 - d["host_share"])
                self.check(abs(tokens - min(2.5, d["guesses"] + 1)) < 0.1 and abs(parts / all_seconds - 1) < 1e-6 and
                           0 <= d["host_share"] < 1, "round %s" % d)

    def messages(self):
        dense, mtp, dflash = self.weights("dense"), self.weights("assistant_dense"), self.weights("dflash")
        self.refused(["--draft", dense], "does not say how it drafts")
        self.refused(["--draft", mtp, "--draft-method", "dflash"], "drafts in the way of mtp, not of dflash")
        self.refused(["--draft", dflash, "--draft-method", "mtp"], "drafts in the way of dflash, not of mtp")
        self.refused(["--draft", mtp], "while compiling the drafter", target="odd")
        self.refused(["--draft", self.file("none.gguf")], "none.gguf")
        self.refused(["--draft", mtp, "--chunk", "4"], "needs calls of 5 rows, not 4")
        self.refused(["--draft", mtp, "--draft-set", "extra"], "--draft-set wants NAME=VALUE", 2)
        self.refused(["--draft-set", "extra=2"], "has a meaning only with --draft", 2)
        self.refused(["--draft", mtp, "--draft-set", "extra=x"], "extra")
        r = subprocess.run(self.command("dense", [2, 3], ["--draft-method", "mtp"]), capture_output=True)
        self.check(r.returncode == 0 and b"no drafter stands beside" in r.stderr, r.stderr.decode())
        beside = self.file("beside")
        os.mkdir(beside)
        os.symlink(dense, os.path.join(beside, "model.gguf"))
        os.symlink(mtp, os.path.join(beside, "guess.gguf"))
        command = self.command("dense", [2, 3], ["--draft-method", "auto"])
        command[2] = os.path.join(beside, "model.gguf")
        r = subprocess.run(command, capture_output=True)
        self.check(r.returncode == 0 and json.loads(r.stdout)["drafts"]["drafter"] == "gemma4-mtp.lap", r.stderr.decode())
        os.symlink(dflash, os.path.join(beside, "another"))
        r = subprocess.run(command, capture_output=True)
        self.check(r.returncode == 1 and b"choose with --draft" in r.stderr, r.stderr.decode())


def main():
    p = argparse.ArgumentParser()
    p.add_argument("lap")
    p.add_argument("folder")
    p.add_argument("prompts", nargs="?", type=int, default=5)
    p.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    p.add_argument("--device", default="cpu")
    p.add_argument("--driver")
    p.add_argument("--nvrtc")
    p.add_argument("--kernel-cache")
    o = p.parse_args()
    print("seed %d" % o.seed)
    with tempfile.TemporaryDirectory() as tmp:
        t = Tests(o, tmp)
        if not t.emulated:
            t.messages()
            t.bench()
        t.prompts(o.prompts)
    print("%d checks, %d failures" % (t.count, t.failed))
    return 1 if t.failed or not t.count else 0


if __name__ == "__main__":
    sys.exit(main())
