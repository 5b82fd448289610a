#!/usr/bin/env python3
"""OUT/README.md, a model card, of the numbers of a run: card.py --data DATA --out OUT"""
import argparse
import json
import pathlib

import numpy as np

import family
from text import HELD_OUT

TEMPLATE = pathlib.Path(__file__).with_name("MODEL_CARD.template.md")


def read(path):
    return json.loads(path.read_text())


def result(part, log):
    last = log["log"][-1]
    if part == "target":
        return "held-out loss %.3f" % log["held_out_loss"]
    if part == "mtp":
        right = ", ".join("%.2f" % v for k, v in last.items() if k.startswith("right"))
        return "loss %.3f; right: %s" % (last["loss"], right)
    return "loss %.3f; %.2f right in a row" % (last["loss"], last["right_in_a_row"])


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--data", type=pathlib.Path, required=True)
    p.add_argument("--out", type=pathlib.Path, required=True)
    o = p.parse_args()
    rows, acceptance = [], []
    for kind in family.KINDS:
        for part in family.CONFIGS:
            where = family.folder(o.out, kind, part)
            log = read(where / "log.json")
            last = log["log"][-1]
            rows.append("| `%s` | %.2f M | %d | %d x %d | %.0f | %s |" % (
                where.name, log["parameters"] / 1e6, last["step"], log["sequences"], log["length"], last["seconds"],
                result(part, log)))
            if part != "target":
                found = read(where / "accept.json")
                by_length = " | ".join("%.2f" % v for v in found["by_prompt_length"].values())
                acceptance.append("| `%s` | %d | %.2f | %s |" % (
                    where.name, found["drafts"], found["tokens_a_round"], by_length))
    config, moe = read(o.out / "dense" / "config.json"), read(o.out / "moe" / "config.json")
    lengths = ["prompt of %s" % L for L in found["by_prompt_length"]]
    o.out.joinpath("README.md").write_text(TEMPLATE.read_text().format(
        table="\n".join(rows), acceptance="\n".join(acceptance), length_heads=" | ".join(lengths),
        length_rules="---|" * len(lengths), experts=moe["num_experts"], used=moe["top_k_experts"],
        window=config["sliding_window"], head=config["head_dim"], global_head=config["global_head_dim"],
        vocab=config["vocab_size"], block=read(o.out / "dense-dflash" / "config.json")["block_size"],
        length=log["length"], prompts=found["prompts"], new_tokens=found["new_tokens"], held_out=", ".join(HELD_OUT),
        train_tokens=len(np.load(o.data / "train.npy", mmap_mode="r")),
        valid_tokens=len(np.load(o.data / "valid.npy", mmap_mode="r"))))


if __name__ == "__main__":
    main()
