#!/usr/bin/env python3
"""Pieces of held-out text, for accept.py and measure.py to continue: prompts.py DATA OUT [--lengths N ..] [--each N]

Writes OUT/prompts/LENGTH-NUMBER.ids, token ids as `lap run --tokens-file` reads them.
"""
import argparse
import pathlib

import numpy as np
import torch

from train import crops

BEHIND = 128  # tokens of the text that stand behind the longest prompt


def main(args=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data", type=pathlib.Path)
    p.add_argument("out", type=pathlib.Path)
    p.add_argument("--lengths", type=int, nargs="+", default=[64, 512, 1024, 2048], help="tokens of a prompt")
    p.add_argument("--each", type=int, default=16, help="prompts of a length")
    o = p.parse_args(args)
    text = torch.from_numpy(np.load(o.data / "valid.npy").astype(np.int64))
    lengths = [n for n in o.lengths for _ in range(o.each)]
    rows = crops(text, len(lengths), max(lengths) + BEHIND, torch.Generator().manual_seed(7)).tolist()
    where = o.out / "prompts"
    where.mkdir(parents=True, exist_ok=True)
    for i, (row, n) in enumerate(zip(rows, lengths)):
        (where / ("%04d-%02d.ids" % (n, i))).write_text(" ".join(map(str, row[:n])) + "\n")


if __name__ == "__main__":
    main()
