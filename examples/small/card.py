#!/usr/bin/env python3
"""FOLDER/README.md, a model card: card.py OUT FOLDER. OUT is what run.sh made, FOLDER has measured.json of measure.py"""
import argparse
import json
import pathlib

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
    p.add_argument("out", type=pathlib.Path)
    p.add_argument("folder", type=pathlib.Path)
    o = p.parse_args()
    rows = []
    for kind in family.KINDS:
        for part in family.CONFIGS:
            where = family.folder(o.out, kind, part)
            log = read(where / "log.json")
            last = log["log"][-1]
            rows.append("| `%s` | %.2f M | %d | %d x %d | %.0f | %s |" % (
                where.name, log["parameters"] / 1e6, last["step"], log["sequences"], log["length"], last["seconds"],
                result(part, log)))
    measured, acceptance = read(o.folder / "measured.json"), []
    for name, found in measured.items():
        by_length = " | ".join("%.2f" % v for v in found["by_prompt_length"].values())
        acceptance.append("| `%s` | %d | %.2f | %s |" % (name, found["guesses"], found["tokens_a_round"], by_length))
    config, moe = read(o.out / "dense" / "config.json"), read(o.out / "moe" / "config.json")
    lengths = ["prompt of %s" % n for n in found["by_prompt_length"]]
    o.folder.joinpath("README.md").write_text(TEMPLATE.read_text().format(
        table="\n".join(rows), acceptance="\n".join(acceptance), length_heads=" | ".join(lengths),
        length_rules="---|" * len(lengths), experts=moe["num_experts"], used=moe["top_k_experts"],
        window=config["sliding_window"], head=config["head_dim"], global_head=config["global_head_dim"],
        vocab=config["vocab_size"], block=read(o.out / "dense-dflash" / "config.json")["block_size"],
        length=log["length"], prompts=found["prompts"], new_tokens=found["new_tokens"], held_out=", ".join(HELD_OUT),
        train_tokens=read(o.out / "dense" / "log.json")["train_tokens"]))


if __name__ == "__main__":
    main()
