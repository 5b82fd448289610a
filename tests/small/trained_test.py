#!/usr/bin/env python3
"""The trained family of examples/small/models guesses as it should: trained_test.py LAP CHECK [--prompts N] [--new N]
[--lengths L ..] [--temp X] [--device gpu [--kernel-cache FOLDER]]

  acceptance  MTP with 4 guesses decides at least 2.2 tokens a round, DFlash at least 3.0: each drafter, behind N prompts
              of 64 and N of 512 tokens, all tokens by all rounds
  far         each drafter, behind N prompts of 3584 tokens, from there to the end of the context: at least 80 % of the
              tokens a round that it decides behind N of 64, 512 new tokens each; and at least 80 % of the guesses kept,
              65 % with less than 12 prompts. Prompts of all lengths end at the same places. Tokens are drawn at
              temperature 0.8: greedy ones go round in circles, and behind one prompt there may be four times the tokens
              a round as behind another. --lengths: the start and what is compared with it; --temp: 0 for greedy
  lossless    N prompts of 200 to 1600 tokens that end at the ends of windows and rings are continued with the tokens
              without a drafter: by MTP, by DFlash, by the drafters of the other target, and by three that know the
              tokens (always right, always wrong, right at random), greedy and drawn at temperature 0.8; --new tokens each
  speed       no check: tokens/s of `lap bench` behind N prompts of 512 tokens, alone, with MTP and with DFlash

Several runs at once, of one thread each, but for speed.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

SMALL = pathlib.Path(__file__).resolve().parent.parent.parent / "examples" / "small"
sys.path[:0] = [str(SMALL), str(pathlib.Path(__file__).resolve().parent.parent)]
import measure
import oracle

MODELS, NEW, VOCAB = SMALL / "models", 128, 4096
CONTEXT, FAR_NEW = 4096, 512
MANY = 12  # prompts with which the share of kept guesses has a standard error of less than 0.1; with three up to 0.16
LEAST = {"mtp": 2.2, "dflash": 3.0}
# Drafters by target and way. Those of one target fit the other, too, where the layers they read are there.
DRAFTERS = [(kind, part) for kind in measure.KINDS for part in LEAST]
FITTING = {"dense": DRAFTERS, "moe": [of for of in DRAFTERS if of != ("dense", "dflash")]}
# Windows of the targets' and of DFlash's layers, and rings of these and chunks of 512 tokens; gone around once and twice.
EDGES = [256, 512, 768, 1024, 1536]
# Of drafters that know the tokens: the share of guesses that are right.
KNOWING = {"always right": 1, "always wrong": 0, "random": 0.6}


class Tests:
    def __init__(self, o, pool):
        self.lap, self.pool, self.n = os.path.abspath(o.lap), pool, o.prompts
        self.new, self.lengths, self.temp = o.new, o.lengths, o.temp
        self.options = ["--device", o.device] + (["--kernel-cache", o.kernel_cache] if o.kernel_cache else [])
        self.failed = 0

    def check(self, ok, what):
        if not ok:
            self.failed += 1
            print("FAILED: %s" % what, flush=True)

    def run(self, kind, prompt, new, options, sampling=("--greedy",)):
        return measure.run(self.lap, MODELS / (kind + ".gguf"), prompt, new, ["-t", "1"] + self.options + options, sampling)

    def warm_up(self):
        """On a GPU the first run with a target and with a drafter compiles their kernels, which others then find."""
        work = [(kind, []) for kind in measure.KINDS] + [(of[0], measure.drafter(MODELS, *of)) for of in DRAFTERS]
        with tempfile.TemporaryDirectory() as tmp:
            knowing = oracle.write(os.path.join(tmp, "oracle"), VOCAB, 64, [], lambda p: True, random.Random(1))
            work += [(kind, knowing + ["--draft-fixed"]) for kind in measure.KINDS]
            list(self.pool.map(lambda w: self.run(w[0], prompts(64)[0], 24, w[1]), work))

    def runs(self, length):
        """By drafter: its runs behind the first prompts of this length."""
        work = [(of, prompt) for of in DRAFTERS for prompt in prompts(length)[:self.n]]
        done = self.pool.map(lambda w: self.run(w[0][0], w[1], NEW, measure.drafter(MODELS, *w[0])), work)
        found = {of: [] for of in DRAFTERS}
        for (of, _), result in zip(work, done):
            found[of].append(result)
        return found

    def acceptance(self):
        short, long = self.runs(64), self.runs(512)
        for of in DRAFTERS:
            got, least = measure.tokens_a_round(short[of] + long[of]), LEAST[of[1]]
            print("%s-%s: %.2f tokens a round, at least %.1f" % (*of, got, least))
            self.check(got >= least, "%s-%s: %.2f tokens a round" % (*of, got))

    def far(self):
        start, ends = self.lengths[0], self.lengths[1:]
        sampling = ["--temp", str(self.temp), "-s", "1"] if self.temp else ["--greedy"]
        with tempfile.TemporaryDirectory() as tmp:
            prompts_of = {n: far_prompts(tmp, self.n, n) for n in self.lengths}
            work = [(of, n, prompt) for n in reversed(self.lengths) for of in DRAFTERS for prompt in prompts_of[n]]
            done = self.pool.map(lambda w: self.run(w[0][0], w[2], FAR_NEW, measure.drafter(MODELS, *w[0]), sampling), work)
            found = {}
            for (of, n, prompt), result in zip(work, done):
                found.setdefault((of, n), []).append(result)
                self.check(len(result["ids"]) == FAR_NEW, "%s: %d new tokens" % (prompt.name, len(result["ids"])))
        for of in DRAFTERS:
            for n in ends:
                self.compare("%s-%s" % of, found[of, start], found[of, n], start, n)

    def compare(self, name, first, then, start, end):
        """Runs behind a few tokens and behind many, of the same prompts in the same order."""
        of_tokens = ratio(measure.tokens_a_round, first, then)
        of_kept = ratio(lambda runs: measure.tokens_a_round(runs) - 1, first, then)
        print("%s: %.2f tokens a round behind %d, %.2f behind %d: %.2f of that (standard error %.2f); of kept guesses %.2f "
              "(%.2f)" % (name, measure.tokens_a_round(first), start, measure.tokens_a_round(then), end, *of_tokens, *of_kept),
              flush=True)
        self.check(of_tokens[0] >= 0.8, "%s: %.2f of the tokens a round" % (name, of_tokens[0]))
        least = 0.8 if len(first) >= MANY else 0.65
        self.check(of_kept[0] >= least, "%s: %.2f of the kept guesses" % (name, of_kept[0]))

    def others(self, kind, prompt, drawn):
        """What differs from the tokens without a drafter."""
        sampling = ["--temp", "0.8", "-s", "5", "--repeat-penalty", "1.1"] if drawn else ["--greedy"]
        plain = self.run(kind, prompt, self.new, [], sampling)
        drafters = {"%s-%s" % of: measure.drafter(MODELS, *of) for of in FITTING[kind]}
        drafters.update({name: self.knowing(name, share, prompt, plain["ids"]) for name, share in KNOWING.items()})
        wrong = []
        for name, options in drafters.items():
            got = self.run(kind, prompt, self.new, options, sampling)
            right, guessed = (sum(got["drafts"][x]) for x in ("right", "guessed"))
            if got["ids"] != plain["ids"]:
                wrong.append("%s, %s, %s, %s: other tokens" % (kind, prompt.name, sampling[0][2:], name))
            if KNOWING.get(name) in (0, 1) and (right != KNOWING[name] * guessed or not guessed):
                wrong.append("%s, %s, %s: %d of %d guesses right" % (kind, prompt.name, name, right, guessed))
        return wrong

    def knowing(self, name, share, prompt, made):
        """Options of a drafter that knows the tokens behind the prompt."""
        rng = random.Random(prompt.name)
        return oracle.write(str(prompt) + " " + name, VOCAB, len(prompt.read_text().split()), made,
                            lambda p: rng.random() < share, rng) + ["--draft-fixed"]

    def lossless(self):
        """Edges lie in the last tokens of a prompt or in the first of the new ones."""
        rng, work = random.Random(1), []
        texts = [p.read_text().split() for p in prompts(2048)]
        with tempfile.TemporaryDirectory() as tmp:
            for i in range(self.n):
                length = EDGES[i // 2 % len(EDGES)] + rng.randint(-48, 16)
                prompt = pathlib.Path(tmp) / ("prompt %d of %d tokens" % (i, length))
                prompt.write_text(" ".join(texts[i % len(texts)][:length]))
                work.append((measure.KINDS[i % 2], prompt, i % 3 == 2))
            for wrong in self.pool.map(lambda w: self.others(*w), work):
                for what in wrong:
                    self.check(False, what)
        print("%d runs with other tokens" % self.failed)

    def speed(self):
        for kind in measure.KINDS:
            line = ""
            for part in LEAST:
                found = [self.bench(kind, part, prompt) for prompt in prompts(512)[:self.n]]
                alone, guessed = (len(found) / sum(1 / f[i] for f in found) for i in (0, 1))
                line = line or "%s: %.0f tokens/s alone" % (kind, alone)
                line += ", %.0f with %s (%.2f times)" % (guessed, part, guessed / alone)
            print(line, flush=True)

    def bench(self, kind, part, prompt):
        """Tokens/s alone and with guesses, of the same prompt."""
        command = [self.lap, "bench", MODELS / (kind + ".gguf"), "--tokens-file", prompt, "--tg", "256", "--draft-method",
                   part, "--json", "-r", "3"] + self.options
        r = subprocess.run([str(x) for x in command], capture_output=True, text=True)
        if r.returncode:
            raise measure.Failed(r.stderr)
        found = json.loads(r.stdout)
        return found["decode_tokens_per_second"], found["generated"]["tokens_per_second"]


def ratio(of, first, then):
    """Of what is behind many tokens to what is behind a few; and its standard error, by leaving out each prompt in turn."""
    n = len(first)
    without = [of(then[:i] + then[i + 1:]) / of(first[:i] + first[i + 1:]) for i in range(n if n > 1 else 0)]
    middle = sum(without) / max(1, len(without))
    return of(then) / of(first), (sum((x - middle) ** 2 for x in without) * (n - 1) / n) ** 0.5 if without else float("nan")


def far_prompts(folder, count, length):
    """Files of prompts that end where the prompts of 2048 tokens do, whose text continues another of them."""
    texts, files = [p.read_text().split() for p in prompts(2048)], []
    assert length + FAR_NEW <= CONTEXT and count <= len(texts), (length, count)
    for i in range(count):
        before, text = texts[i - 1], texts[i]
        files.append(pathlib.Path(folder) / ("%04d-%02d.ids" % (length, i)))
        files[-1].write_text(" ".join(text[:1] + (before[1:] + text[1:])[1 - length:]))
    return files


def prompts(length):
    return sorted((MODELS / "prompts").glob("%04d-*.ids" % length))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("lap")
    p.add_argument("check", choices=["acceptance", "far", "lossless", "speed"])
    p.add_argument("--prompts", type=int, default=8)
    p.add_argument("--new", type=int, default=64)
    p.add_argument("--lengths", type=int, nargs="+", default=[64, CONTEXT - FAR_NEW])
    p.add_argument("--temp", type=float, default=0.8)
    p.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    p.add_argument("--kernel-cache")
    o = p.parse_args()
    with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count())) as pool:
        t = Tests(o, pool)
        if o.device == "gpu":
            t.warm_up()
        getattr(t, o.check)()
    print("%d failures" % t.failed)
    return 1 if t.failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except measure.Failed as e:
        sys.exit(str(e))
