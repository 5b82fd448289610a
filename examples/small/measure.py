#!/usr/bin/env python3
"""The same count as accept.py, by the program: measure.py LAP OUT [LAP RUN'S OPTIONS]

OUT has NAME.gguf of every model and prompts/LENGTH-*.ids. For each target and drafter prints tokens a round by the
length of the prompt, and checks that the tokens are those without a drafter.
"""
import collections
import json
import pathlib
import subprocess
import sys

NEW = 128
OPTIONS = {"mtp": ["--draft-max", "4"], "dflash": []}


def run(lap, target, prompt, new, options):
    command = [lap, "run", str(target), "--tokens-file", str(prompt), "--greedy", "--ignore-eos", "-n", str(new),
               "--json"] + options
    r = subprocess.run(command, capture_output=True, text=True)
    if r.returncode:
        sys.exit("%s\n%s" % (" ".join(command), r.stderr))
    return json.loads(r.stdout)


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    lap, out, more = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3:]
    different = 0
    for target in (out / "dense.gguf", out / "moe.gguf"):
        rounds, tokens = collections.Counter(), collections.Counter()
        for prompt in sorted((out / "prompts").glob("*.ids")):
            plain = run(lap, target, prompt, NEW, more)
            for part, own in OPTIONS.items():
                drafter = out / ("%s-%s.gguf" % (target.stem, part))
                got = run(lap, target, prompt, NEW, ["--draft", str(drafter), "--draft-fixed"] + own + more)
                different += got["ids"] != plain["ids"]
                key = part, int(prompt.stem.split("-")[0])
                rounds[key] += got["drafts"]["rounds"]
                tokens[key] += len(got["ids"]) - 1  # the first came with the prompt
        for part in OPTIONS:
            mine = sorted(k for k in rounds if k[0] == part)
            print("%s-%s: %.2f tokens a round; by prompt length: %s" % (
                target.stem, part, sum(tokens[k] for k in mine) / sum(rounds[k] for k in mine),
                " ".join("%d %.2f" % (k[1], tokens[k] / rounds[k]) for k in mine)))
    print("%d runs with other tokens than without a drafter" % different)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
