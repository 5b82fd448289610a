#!/usr/bin/env python3
"""How many tokens a round of each drafter decides: measure.py LAP FOLDER [-j N] [--temp X] [LAP RUN'S OPTIONS]

FOLDER has NAME.gguf of every model and prompts/LENGTH-*.ids. Each target continues each prompt greedily, alone and with
each of its drafters; N runs at once, of one thread each (as many as there are processors). Prints tokens a round by the
length of the prompt, writes them to FOLDER/measured.json, and checks that the tokens are those without a drafter. With
--temp tokens are drawn at that temperature, and nothing is written.
"""
import argparse
import concurrent.futures
import itertools
import json
import os
import pathlib
import subprocess
import sys

KINDS, NEW = ("dense", "moe"), 128
OPTIONS = {"mtp": ["--draft-max", "4"], "dflash": []}


class Failed(Exception):
    """A run that ended with an error: the command and what it printed."""


def run(lap, target, prompt, new, options, sampling=("--greedy",)):
    command = [lap, "run", str(target), "--tokens-file", str(prompt), "--ignore-eos", "-n", str(new), "--json",
               *sampling, *options]
    r = subprocess.run(command, capture_output=True, text=True)
    if r.returncode:
        raise Failed("%s\n%s" % (" ".join(command), r.stderr))
    return json.loads(r.stdout)


def drafter(folder, kind, part):
    """Options that let this drafter guess, always as much as it can."""
    return ["--draft", str(folder / ("%s-%s.gguf" % (kind, part))), "--draft-fixed"] + OPTIONS[part]


def tokens_a_round(runs):
    """The first token of each run came with its prompt."""
    return sum(len(r["ids"]) - 1 for r in runs) / sum(r["drafts"]["rounds"] for r in runs)


def summary(by_length):
    """by_length: prompt length to runs."""
    runs = [r for some in by_length.values() for r in some]
    guessed, right = ([sum(n) for n in itertools.zip_longest(*(r["drafts"][what] for r in runs), fillvalue=0)]
                      for what in ("guessed", "right"))
    return {"prompts": len(runs), "new_tokens": len(runs[0]["ids"]), "guesses": len(guessed),
            "tokens_a_round": round(tokens_a_round(runs), 3),
            "by_prompt_length": {str(n): round(tokens_a_round(some), 3) for n, some in by_length.items()},
            "right_after_right": [round(r / max(1, g), 3) for r, g in zip(right, guessed)]}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("lap")
    p.add_argument("folder", type=pathlib.Path)
    p.add_argument("-j", "--jobs", type=int, default=os.cpu_count())
    p.add_argument("--temp", type=float)
    o, more = p.parse_known_args()
    sampling = ["--greedy"] if o.temp is None else ["--temp", str(o.temp)]
    prompts = sorted((o.folder / "prompts").glob("*.ids"))
    found, different = {}, 0
    with concurrent.futures.ThreadPoolExecutor(o.jobs) as pool:
        def runs(kind, options):
            return list(pool.map(lambda prompt: run(o.lap, o.folder / (kind + ".gguf"), prompt, NEW,
                                                    ["-t", "1"] + options + more, sampling), prompts))
        for kind in KINDS:
            plain = runs(kind, [])
            for part in OPTIONS:
                by_length = {}
                for prompt, alone, got in zip(prompts, plain, runs(kind, drafter(o.folder, kind, part))):
                    different += got["ids"] != alone["ids"]
                    by_length.setdefault(int(prompt.stem.split("-")[0]), []).append(got)
                name = "%s-%s" % (kind, part)
                found[name] = summary(by_length)
                print("%s: %.2f tokens a round; by prompt length: %s" % (
                    name, found[name]["tokens_a_round"],
                    " ".join("%s %.2f" % kv for kv in found[name]["by_prompt_length"].items())), flush=True)
    if o.temp is None:
        (o.folder / "measured.json").write_text(json.dumps(found, indent=1) + "\n")
    print("%d runs with other tokens than without a drafter" % different)
    return 1 if different else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as e:
        sys.exit(str(e))
