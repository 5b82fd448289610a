#!/usr/bin/env python3
"""How many tokens a round of each drafter decides, in PyTorch: accept.py --kind dense|moe --out OUT

The target continues OUT/prompts greedily. What it writes does not depend on the drafter, so guesses are made at all of
its positions at once, and the rounds are counted afterwards: a round at position P decides the right guesses in a row
and one token more. Prints tokens a round by the length of the prompt, and writes accept.json beside the drafter. It is
another way to the count of measure.py, which runs what the program makes of the same weights.
"""
import argparse
import json
import pathlib

import numpy as np
import torch

import family
from generate import rewrite
from train import autocast


def guess_mtp(drafter, target, rows, done, n):
    """[N, T, n]: guesses for P + 1 .. P + n; none at P = 0."""
    g, tokens, out = done.final[:, :-1], rows[:, 1:], []
    for _ in range(n):
        z, g, _ = drafter.step(target, done, tokens, g)
        tokens = z.argmax(-1)
        out.append(tokens)
    return torch.nn.functional.pad(torch.stack(out, -1), (0, 0, 1, 0), value=-1)


def guess_dflash(drafter, target, rows, done, first, count):
    """[N, count, B - 1] at positions first[N] + 0 .. count - 1."""
    B = drafter.config["block_size"]
    anchors = first[:, None] + torch.arange(count, device=rows.device)
    tokens = torch.full((*anchors.shape, B), family.MASK, device=rows.device)
    tokens[:, :, 0] = rows.gather(1, anchors)
    z, _ = drafter(target, drafter.context(done), tokens, anchors)
    return z[:, :, 1:].argmax(-1)


def count_rounds(right, new):
    """right[i]: guesses right in a row at the i-th new token. The first new token needs no round."""
    at = rounds = 0
    while at < new - 1:
        at += 1 + int(right[at])
        rounds += 1
    return rounds


@torch.no_grad()
def right_guesses(part, drafter, target, rows, first, new, n):
    """[N, new]: how many guesses in a row are what the target wrote."""
    with autocast(rows.device):
        done = target(rows, drafter.taps if part == "dflash" else ())
        at = first[:, None] + torch.arange(new, device=rows.device)
        if part == "mtp":
            every = guess_mtp(drafter, target, rows, done, n)
            guesses = every.gather(1, at[:, :, None].expand(-1, -1, n))
        else:
            guesses = guess_dflash(drafter, target, rows, done, first, new)[:, :, :n]
    padded = torch.nn.functional.pad(rows, (0, n + 1), value=-2)
    ahead = at[:, :, None] + torch.arange(1, guesses.shape[-1] + 1, device=rows.device)
    written = padded.gather(1, ahead.flatten(1)).view_as(guesses)
    return (guesses == written).long().cumprod(-1).sum(-1)


def read_prompts(folder, behind):
    """Tokens [N, longest + behind] with zeros behind each prompt, and the prompts' lengths [N]."""
    prompts = [torch.tensor([int(x) for x in f.read_text().split()]) for f in sorted(folder.glob("*.ids"))]
    rows = torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True)
    return torch.nn.functional.pad(rows, (0, behind)), torch.tensor([len(p) for p in prompts])


def main(args=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--kind", choices=family.KINDS, required=True)
    p.add_argument("--out", type=pathlib.Path, required=True)
    p.add_argument("--new", type=int, default=128, help="tokens to continue with")
    p.add_argument("--drafts", type=int, default=4, help="guesses a round of the MTP assistant")
    p.add_argument("--device", type=torch.device, default=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    p.add_argument("--threads", type=int, default=0)
    o = p.parse_args(args)
    if o.threads:
        torch.set_num_threads(o.threads)
    text, first = (x.to(o.device) for x in read_prompts(o.out / "prompts", o.new))
    target = family.load(family.folder(o.out, o.kind, "target"), o.device)
    at = torch.arange(text.shape[1], device=o.device)
    chosen = (at >= first[:, None]) & (at < first[:, None] + o.new)
    with autocast(o.device):
        rows = rewrite(target, text, chosen, 0.0)
    for part in ("mtp", "dflash"):
        where = family.folder(o.out, o.kind, part)
        if not (where / "config.json").exists():
            continue
        drafter = family.load(where, o.device)
        n = o.drafts if part == "mtp" else drafter.config["block_size"] - 1
        right = torch.cat([right_guesses(part, drafter, target, r, f, o.new, n)
                           for r, f in zip(rows.split(8), first.split(8))]).cpu().numpy()
        rounds = np.array([count_rounds(r, o.new) for r in right])
        lengths = first.cpu().numpy()
        by_length = {str(n): (o.new - 1) / rounds[lengths == n].mean() for n in np.unique(lengths)}
        # guess_right is of all places, not only those where rounds begin.
        found = {"drafts": n, "tokens_a_round": (o.new - 1) * len(rounds) / rounds.sum(), "by_prompt_length": by_length,
                 "guess_right": [float((right > k).mean()) for k in range(n)], "prompts": len(rounds),
                 "new_tokens": o.new}
        (where / "accept.json").write_text(json.dumps(found, indent=1) + "\n")
        print("%s: %.2f tokens a round of %d guesses; by prompt length: %s; right: %s" % (
            where.name, found["tokens_a_round"], n, " ".join("%s %.2f" % kv for kv in by_length.items()),
            " ".join("%.2f" % x for x in found["guess_right"])), flush=True)


if __name__ == "__main__":
    main()
