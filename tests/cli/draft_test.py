#!/usr/bin/env python3
"""Guessing changes nothing but speed: draft_test.py LAP FOLDER [PROMPTS] [--seed N] [--device gpu [--driver FILE
--nvrtc FOLDER --kernel-cache FOLDER]]

FOLDER holds the golden models. For random prompts around the ends of windows and rings, the tokens with each drafter must
be those without: MTP and DFlash where there is one for the target, and drafters that know the continuation (always
right, right every other time, always wrong, random: tests/oracle.py). Greedy and drawn, every width, all K/V types,
several chunks, over the end of a text. Also how many guesses are asked for, what the statistics say of them, and the
messages. With --driver, of an emulated GPU, which takes its time, there are fewer tokens and drafters.
"""
import argparse
import json
import os
import random
import struct
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, ".."))
import oracle

CONTEXT, TOKENS, MANY = 384, 60, 340  # MANY: until a width has been chosen
# K/V types; at last those for heads of whole blocks, which no GPU reads.
TYPES = [[], ["--kv-k", "f16", "--kv-v", "f16"], ["--kv-v", "bf16", "--kv-k", "bf16"], ["--kv-k", "f16"],
         ["--kv-k", "q8_0", "--kv-v", "q4_0"], ["--kv-k", "q4_0"]]
WHOLE_BLOCKS = [["--kv-k", "tq3_0", "--kv-v", "tq3_0"], ["--kv-k", "tq3_0"]]


class Tests:
    def __init__(self, o, tmp):
        self.lap, self.folder, self.device, self.tmp = os.path.abspath(o.lap), os.path.abspath(o.folder), o.device, tmp
        self.places = [x for name in ("driver", "nvrtc", "kernel_cache") if getattr(o, name)
                       for x in ("--" + name.replace("_", "-"), getattr(o, name))]
        self.emulated = bool(o.driver)
        self.places += ["--tune", "off"] if self.emulated else []
        self.tokens = 12 if self.emulated else TOKENS
        self.rng = random.Random(o.seed)
        self.failed = self.count = 0

    def file(self, name):
        return os.path.join(self.tmp, name)

    def weights(self, kind):
        if kind.endswith(".gguf"):
            return kind
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
        return dict(json.loads(r.stdout), said=r.stderr.decode())

    def oracle(self, vocab, prompt, made, right, most, slow=0):
        """A drafter whose guess for position p is right where right(p)."""
        return oracle.write(self.file("oracle"), vocab, len(prompt), made, right, self.rng, most, slow)

    def same(self, target, prompt, options, plain, drafter, what):
        got = self.run(target, prompt, options + drafter)
        self.check(got["ids"] == plain["ids"] and got["stopped"] == plain["stopped"],
                   "%s, prompt of %d, %s, %s: other tokens" % (target, len(prompt), " ".join(options), what))
        return got["drafts"]

    def one_prompt(self, target, vocab, window, options):
        to_the_end = self.rng.random() < 0.25
        edge = CONTEXT - self.tokens // 2 if to_the_end else self.rng.choice([window, 2 * window, 48, 64, 128, 200])
        prompt = [2] + [self.rng.randrange(vocab) for _ in range(max(2, edge + self.rng.randint(-3, 3)))]
        plain = self.run(target, prompt, options)
        made, most = plain["ids"], self.rng.randint(1, 15)
        self.check((plain["stopped"] == "context full") == to_the_end, "stopped: %s" % plain["stopped"])
        fixed = ["--draft-fixed"]
        all_right = self.oracle(vocab, prompt, made, lambda p: True, most) + fixed
        d = self.same(target, prompt, options, plain, all_right, "always right, %d a round" % most)
        self.check(d["guessed"] == d["right"] and len(made) <= (most + 1) * d["rounds"] + 1 and
                   (to_the_end or d["rounds"] <= (len(made) - 1) // (most + 1) + 1),
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

    def in_turns(self, choices):
        while True:
            yield from self.rng.sample(choices, len(choices))

    def prompts(self, n):
        """All K/V types in turns: eight prompts see each once."""
        types, whole_blocks = self.in_turns(TYPES), self.in_turns(WHOLE_BLOCKS)
        kinds = [("dense", 512, 24), ("ple", 512, 24), ("odd", 331, 7), ("moe", 512, 32)]
        for i in range(n):
            options = ["--greedy"] if i % 3 else ["--temp", "0.8", "-s", str(self.rng.randrange(1000)), "--repeat-penalty", "1.1"]
            options += ["--chunk", str(self.rng.choice([16, 33, 512]))]
            kind = kinds[i % len(kinds)]
            whole = kind[0] == "ple" and self.device == "cpu"  # its drafter's heads are, too
            self.one_prompt(*kind, options + next(whole_blocks if whole else types))

    def rounds(self, prompt, made, right, k):
        """Rounds of k guesses; of each guess, how often it was checked and how often right."""
        at, rounds, checked, good = 0, 0, [0] * k, [0] * k  # at: of the newest token
        while at + 1 < len(made):
            n, kept = min(k, len(made) - at - 2), 0
            while kept < n and right(len(prompt) + at + 1 + kept):
                kept += 1
            for i in range(min(n, kept + 1)):
                checked[i] += 1
                good[i] += i < kept
            rounds, at = rounds + 1, at + kept + 1
        return {"rounds": rounds, "guessed": checked, "right": good}

    def widths(self):
        """Every width: the tokens without a drafter, in the rounds that they are worth."""
        prompt = [2] + [self.rng.randrange(512) for _ in range(30)]
        plain = self.run("ple", prompt, ["--greedy"])
        made = plain["ids"]
        for name, right in ("always right", lambda p: True), ("but every 17th", lambda p: p % 17):
            drafter = self.oracle(512, prompt, made, right, 15) + ["--draft-fixed"]
            for k in range(1, 16):
                d = self.same("ple", prompt, ["--greedy"], plain, drafter + ["--draft-max", str(k)], "%s, %d" % (name, k))
                want = self.rounds(prompt, made, right, k)
                self.check({x: d[x] for x in want} == want, "%s, %d a round: %s, not %s" % (name, k, d, want))

    def chosen(self):
        """How many guesses are asked for where that is chosen. Clocks have a say in it: these drafters are so good or so
        dear that they hardly err, and they have five tries."""
        prompt, self.tokens = [2] + [self.rng.randrange(512) for _ in range(30)], MANY
        plain = self.run("ple", prompt, ["--greedy"])
        def held(drafter, what, ok):
            for _ in range(5):
                got = self.run("ple", prompt, ["--greedy"] + drafter)
                self.check(got["ids"] == plain["ids"], "%s: other tokens" % what)
                if ok(got["drafts"], got["drafts"]["guessed"], got["said"]):
                    return
            self.check(False, "%s: %s" % (what, got))
        right = self.oracle(512, prompt, plain["ids"], lambda p: True, 15)
        # All guesses at first, those of --draft-max if that is less, and most rounds with some.
        for most, options in (15, []), (2, ["--draft-max", "2"]), (15, ["--draft-max", "15"]):
            d = self.same("ple", prompt, ["--greedy"], plain, right + options, "always right, at most %d" % most)
            self.check(len(d["guessed"]) == most, "at most %d: %s" % (most, d))
        held(right, "always right", lambda d, guessed, said: not d["left_off"] and "left off" not in said and
             guessed[0] > d["rounds"] / 2)
        wrong = self.oracle(512, prompt, plain["ids"], lambda p: False, 15, slow=8)
        held(wrong, "always wrong", lambda d, guessed, said: d["left_off"] and guessed[0] < d["rounds"] / 4 and
             "; it did not pay, and was left off\n" in said)
        self.tokens = 8
        got = self.run("ple", prompt, ["--greedy", "--draft-fixed"] + wrong)
        self.check(not got["drafts"]["left_off"] and "left off" not in got["said"], "left off though fixed: %s" % got)
        self.tokens = TOKENS

    def ends(self):
        """Texts that end among the guesses: nothing behind the end, whatever the drafter knows of it."""
        tiny, words, path = oracle.tiny, oracle.tiny.vocabulary(), self.file("ends.gguf")
        tensors, keys = tiny.make_tensors(1, words), tiny.make_keys(words, True)
        def write(end):
            name = "tokenizer.ggml.eos_token_id"
            tiny.write(path, [k for k in keys if name.encode() not in k] + [tiny.key_int(name, end)], tensors)
        options = ["--temp", "1", "-s", "5"]
        write(1)
        made = self.run(path, [2, 300], options)["ids"]
        end = next(i for i in range(20, len(made)) if made[i] not in made[:i])
        write(made[end])
        plain = self.run(path, [2, 300], options)
        self.check(plain["ids"] == made[:end] and plain["stopped"] == "end of text", "the end at %d: %s" % (end, plain))
        drafter = oracle.write(self.file("oracle"), len(words), 2, made, lambda p: True, self.rng, target="gemma3")
        for k in range(1, 16):
            self.same(path, [2, 300], options, plain, drafter + ["--draft-fixed", "--draft-max", str(k)], "%d over the end" % k)

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

    def near(self, a, b):
        return abs(a - b) <= 1e-6 * abs(b) + 1e-12

    def counts(self, d, tokens, seconds):
        """What is said of `tokens` behind the first: of `run` and of `bench`."""
        right, guessed = d["right"], d["guessed"]
        self.check(tokens == d["rounds"] + sum(right) and self.near(d["tokens_per_round"], tokens / d["rounds"]) and
                   len(right) == len(guessed) and all(r <= g for r, g in zip(right, guessed)) and
                   all(g <= r for g, r in zip(guessed[1:], right)), "counts %s" % d)
        host = max(0, seconds - d["draft_seconds"] - d["verify_seconds"])
        self.check(abs(d["host_seconds"] - host) <= 1e-6 * seconds and  # nine digits are printed
                   0 < d["draft_seconds"] and 0 < d["verify_seconds"] < seconds, "%s of %g s" % (d, seconds))

    def statistics(self):
        """Counts and times of a run, and of bench behind tokens of a file, agree with each other."""
        prompt = [2] + [self.rng.randrange(512) for _ in range(30)]
        for drafter in "assistant_dense", "dflash":
            options = ["--draft", self.weights(drafter)]
            made = self.run("dense", prompt, options + ["--greedy"])
            self.counts(made["drafts"], len(made["ids"]) - 1, made["timings"]["decode_seconds"])
            bench = [self.lap, "bench", self.weights("dense"), "--tokens-file", self.file("ids.txt"), "--tg", "20", "-r", "1",
                     "--device", self.device] + self.places + options
            r = subprocess.run(bench + ["--json"], capture_output=True, timeout=300)
            self.check(r.returncode == 0, r.stderr.decode())
            j = json.loads(r.stdout)
            d = j["generated"]
            self.check(j["prompt_tokens"] == len(prompt) and d["tokens"] == 20 and
                       self.near(d["tokens_per_second"], 20 / d["seconds"]), "generated %s" % d)
            self.counts(d, 20, d["seconds"])
            r = subprocess.run(bench, capture_output=True, timeout=300)
            line = [x for x in r.stdout.decode().splitlines() if x.startswith("text")]
            self.check(len(line) == 1 and " % of each guess" in line[0] and line[0].split()[1:3] == ["20", "tokens"],
                       r.stdout.decode())

    def ids_in_weights(self):
        """A vocabulary's order is checked when it is opened, and its first wrong element named."""
        with open(self.weights("assistant_ple"), "rb") as f:
            whole = f.read()
        at = next(i for i in range(0, len(whole) - 2047, 32)
                  if sorted(struct.unpack_from("<512i", whole, i)) == list(range(512)))
        path = self.file("order.gguf")
        for where, id in (0, -1), (511, 512), (7, 1 << 30):
            with open(path, "wb") as f:
                f.write(whole[:at + 4 * where] + struct.pack("<i", id) + whole[at + 4 * where + 4:])
            self.refused(["--draft", path], "tensor 'mtp.token_ordering.weight' of %s: element %d is %d; linear_at takes it as "
                         "one of 0 .. 511" % (path, where, id), target="ple")

    def pattern(self):
        """A DFlash file that does not say which layers slide: all but the last do."""
        text = os.path.join(HERE, "..", "..", "models", "gemma4-dflash.lap")
        with open(os.path.join(self.weights("dflash"), "config.json")) as f:
            config = json.load(f)
        graphs = []
        for kinds in config["layer_types"], None, ["full_attention"] * 3:
            folder = self.file("pattern")
            os.makedirs(folder, exist_ok=True)
            if not graphs:
                os.symlink(os.path.join(self.weights("dflash"), "model.safetensors"), os.path.join(folder, "model.safetensors"))
            with open(os.path.join(folder, "config.json"), "w") as f:
                json.dump({k: v for k, v in dict(config, layer_types=kinds).items() if v is not None}, f)
            r = subprocess.run([self.lap, "print", text, "--weights", folder, "--target", self.weights("dense")],
                               capture_output=True)
            self.check(r.returncode == 0, r.stderr.decode())
            graphs.append(r.stdout)
        self.check(graphs[0] == graphs[1] != graphs[2], "without layer_types the graph is another")

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
        self.refused(["--draft-method", "mtp"], "no mtp drafter stands beside")
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
        for method, name in ("mtp", "gemma4-mtp.lap"), ("dflash", "gemma4-dflash.lap"):
            command[-1] = method
            r = subprocess.run(command, capture_output=True)
            self.check(r.returncode == 0 and json.loads(r.stdout)["drafts"]["drafter"] == name, r.stderr.decode())
        command[-1] = "none"
        r = subprocess.run(command, capture_output=True)
        self.check(r.returncode == 0 and "drafts" not in json.loads(r.stdout) and not b"drafter" in r.stderr, r.stderr.decode())
        # A folder is its one model; of several none is chosen, and beside weights it does not count.
        os.mkdir(self.file("folders"))
        os.symlink(dense, self.file("folders/model.gguf"))
        for name, files in ("alone", [mtp]), ("several", [mtp, dense]):
            os.mkdir(self.file("folders/" + name))
            for i, path in enumerate(files):
                os.symlink(path, self.file("folders/%s/%d.gguf" % (name, i)))
        several = self.file("folders/several")
        self.refused(["--draft", several], "the folder holds 2 models; name one of them: %s/0.gguf and %s/1.gguf" %
                     (several, several))
        for way in ["--draft", self.file("folders/alone")], ["--draft-method", "auto"]:
            r = subprocess.run(command[:2] + [self.file("folders/model.gguf")] + command[3:-2] + way, capture_output=True)
            self.check(r.returncode == 0 and json.loads(r.stdout)["drafts"]["drafter"] == "gemma4-mtp.lap", r.stderr.decode())
        # Of another target's drafters nothing is said.
        other = os.path.join(beside, "other.gguf")
        subprocess.run([sys.executable, os.path.join(HERE, "..", "..", "examples", "tiny", "make_tiny.py"), other], check=True)
        command[2], command[-1] = other, "auto"
        r = subprocess.run(command, capture_output=True)
        self.check(r.returncode == 0 and b"no drafter stands beside" in r.stderr, r.stderr.decode())


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
            t.ids_in_weights()
            t.pattern()
            t.bench()
            t.statistics()
            t.widths()
            t.ends()
            if o.device == "cpu":
                t.chosen()
        t.prompts(o.prompts)
    print("%d checks, %d failures" % (t.count, t.failed))
    return 1 if t.failed or not t.count else 0


if __name__ == "__main__":
    sys.exit(main())
