#!/usr/bin/env python3
"""From a text to guessing: family_test.py LAP. Trains a tiny family for a few steps and runs what became of it.

For the dense target and the one with experts: what examples/small trains is converted, tokenized as by the library that
made the tokenizer, and continues prompts with the tokens that PyTorch continues them with, alone and with either
drafter, in as many rounds as accept.py counts. Without torch it is skipped (exit code 77).
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy
    import torch
    import safetensors.torch
    import tokenizers
except ImportError as e:
    print("skipped: %s" % e)
    sys.exit(77)

HERE = pathlib.Path(__file__).resolve().parent
SMALL = HERE.parent.parent / "examples" / "small"
sys.path.insert(0, str(SMALL))
import accept
import family
import measure
import prompts
import tokenizer
import train
from generate import rewrite

NEW = 40
failures = 0


def check(ok, what):
    global failures
    if not ok:
        failures += 1
        print("FAILED: %s" % what, flush=True)


def lap(*args):
    r = subprocess.run([str(a) for a in args], capture_output=True, text=True)
    if r.returncode:
        sys.exit("%s\n%s" % (" ".join(map(str, args)), r.stderr))
    return r.stdout


def same_tokenizer(program, gguf, data):
    library = tokenizers.Tokenizer.from_file(str(data / "tokenizer.json"))
    odd = "na\u00efve  caf\u00e9\n\n\n\n\nx \u2014 \u6771\u4eac\t12 <turn|> e\u0301 \U0001f642\n \n  z"
    for name, text in (("valid.txt", (data / "valid.txt").read_text()), ("odd.txt", odd)):
        (data / name).write_text(text, encoding="utf-8")
        ids = lap(program, "tokenize", gguf, "--special", "--ids", "-f", data / name).split()
        check(list(map(int, ids)) == library.encode(text).ids, "%s: other tokens" % name)
        back = lap(program, "tokenize", gguf, "--decode", " ".join(ids))
        check(back.rstrip("\n") == text.replace("<turn|>", "").rstrip("\n"), "%s: does not come back" % name)


def run_kind(program, kind, data, out):
    common = ["--kind", kind, "--out", str(out), "--threads", "1"]
    small = common + ["--data", str(data), "--size", "tiny", "--batch", "2", "--length", "96", "--anchors", "8"]
    train.main(["target", "--steps", "50", "--rate", "1e-2", "--dropout", "0"] + small)
    train.main(["spans", "--rows", "4"] + small)
    train.main(["mtp", "--steps", "40", "--rate", "1e-2"] + small)
    train.main(["dflash", "--steps", "60", "--rate", "5e-3"] + small)
    accept.main(common + ["--new", str(NEW)])
    for part in family.CONFIGS:
        where = family.folder(out, kind, part)
        lap(program, "convert", where, "-q", "-o", "%s.gguf" % where)
    target = family.load(family.folder(out, kind, "target"), torch.device("cpu"))
    rounds = dict.fromkeys(("mtp", "dflash"), 0)
    files = sorted((out / "prompts").glob("*.ids"))
    for prompt in files:
        ids = torch.tensor([list(map(int, prompt.read_text().split()))])
        row = torch.nn.functional.pad(ids, (0, NEW))
        want = rewrite(target, row, torch.arange(row.shape[1])[None] >= ids.shape[1], 0.0)[0, ids.shape[1]:].tolist()
        plain = measure.run(program, out / (kind + ".gguf"), prompt, NEW, [])
        check(plain["ids"] == want, "%s, %s: other tokens than PyTorch's" % (kind, prompt.stem))
        for part in rounds:
            got = measure.run(program, out / (kind + ".gguf"), prompt, NEW, measure.drafter(out, kind, part))
            check(got["ids"] == want, "%s, %s, %s: other tokens" % (kind, prompt.stem, part))
            rounds[part] += got["drafts"]["rounds"]
    for part, n in rounds.items():
        counted = json.loads((family.folder(out, kind, part) / "accept.json").read_text())["tokens_a_round"]
        a_round = len(files) * (NEW - 1) / n
        print("%s-%s: %.3f tokens a round, %.3f counted by accept.py" % (kind, part, a_round, counted))
        check(kind == "moe" or a_round > 1.05, "%s-%s: hardly a guess is right" % (kind, part))
        check(abs(a_round - counted) < 1e-6, "%s-%s: other rounds than accept.py counts" % (kind, part))


def main():
    program = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as tmp:
        data, out = pathlib.Path(tmp) / "data", pathlib.Path(tmp) / "out"
        data.mkdir()
        texts = [(HERE.parent / "data" / name).read_text() for name in ("constitution.txt", "declaration.txt")]
        (data / "train.txt").write_text(texts[0])
        (data / "valid.txt").write_text(texts[1])
        tokenizer.main([str(data), "--vocab", "640"])
        prompts.main([str(data), str(out), "--lengths", "30", "70", "--each", "2"])
        for kind in family.KINDS:
            run_kind(program, kind, data, out)
        same_tokenizer(program, out / "dense.gguf", data)
        for script in ["measure.py", program, out], ["card.py", out, out]:
            subprocess.run([sys.executable, "-B", SMALL / script[0]] + script[1:], check=True)
        card = (out / "README.md").read_text()
        check("`moe-dflash`" in card and "{" not in card, "the model card")
    print("%d failures" % failures)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
