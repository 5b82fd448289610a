#!/usr/bin/env python3
"""Launches of a decode step in the plans of all released models: plan_launches_test.py LAP SCRATCH

A dense layer takes 5 launches, one with per-layer inputs 7, one with experts 8, in both phases of decoding; one layer, which
computes keys and values for all rows and the rest for those wanted, one more. Each group is one launch; besides the
layers there are few.
"""
import pathlib
import re
import sys

REPO = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "tests" / "models"))
import make_headers  # noqa: E402
from models_test import MOST, kind_of, run  # noqa: E402

OTHERS = 5  # embedding, per-layer inputs, wanted rows, head


def decode_phases(plan):
    """name -> [(group, label)] of the launches."""
    phases, launches = {}, None
    for line in plan.splitlines():
        head = re.match(r"phase (\w+) of step ", line)
        if head:
            launches = phases.setdefault(head[1], [])
        found = re.match(r"  launch \w+ .* group (\d+)\b.* \"(.*)\"", line)
        if found and launches is not None:
            launches.append((int(found[1]), found[2]))
    return {k: v for k, v in phases.items() if k.startswith("decode")}


def layers_of(launches):
    """Launches of each layer: those that read weights of it, and its attention."""
    counts, layer = {}, None
    for _, label in launches:
        read = re.match(r"blk\.(\d+)\.", label)
        layer = int(read[1]) if read else layer
        if read or label.startswith("attend "):
            counts[layer] = counts.get(layer, 0) + 1
    return [counts[i] for i in range(len(counts))]


def check(name, plan):
    wrong, phases = [], decode_phases(plan)
    if sorted(phases) != ["decode16", "decode8"]:
        wrong.append("%s: phases %s" % (name, sorted(phases)))
    for phase, launches in phases.items():
        layers, groups = layers_of(launches), [g for g, _ in launches]
        others = len(launches) - sum(layers)
        print("%-16s %-9s %d launches, at most %d a layer, %d others" % (name, phase, len(launches), max(layers), others))
        most = MOST[kind_of(name)]
        if max(layers) > most or sum(n == most for n in layers) > 1:
            wrong.append("%s: launches of the layers are %s" % (name, layers))
        if groups != list(range(1, len(groups) + 1)):
            wrong.append("%s: launches are not the groups, one each in order" % name)
        if others > OTHERS:
            wrong.append("%s: %d launches besides the layers" % (name, others))
    return wrong


def main():
    lap, scratch = sys.argv[1], pathlib.Path(sys.argv[2])
    scratch.mkdir(parents=True, exist_ok=True)
    wrong = []
    for name in [*make_headers.GEMMA4, *make_headers.GEMMA3]:
        weights = scratch / f"{name}.gguf"
        make_headers.model(name).write(weights)
        wrong += check(name, run(lap, "print", REPO / "models" / (name.split("-")[0] + ".lap"), "--weights", weights, "--plan"))
        weights.unlink()
    for text in wrong:
        print("FAILED", text)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
