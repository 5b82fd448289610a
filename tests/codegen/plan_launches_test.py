#!/usr/bin/env python3
"""Launches of a decode step in the plans of all released models: plan_launches_test.py LAP SCRATCH

A dense layer takes 5 launches, one with per-layer inputs 7, one with experts 8, in both phases of decoding; one layer, which
computes keys and values for all rows and the rest for those wanted, one more. Each group is one launch; besides the
layers there are few. Which launches start and wait late is looked at in their kernels' texts. In prefill only what attention
makes and what experts share is converted by launches of its own.
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


# What the kernels of a layer with experts say, in order: LAUNCH_EARLY, LAUNCH_LATE, EX_EARLY_IDS.
ORDER = [(0, 0, 0), None, (0, 0, 0), (0, 1, 0), (2, 0, 0), (0, 1, 0), (0, 1, 1), (1, 0, 0)]


def orders(plan, kernels):
    """phase -> [(what ORDER has, scratch places among the arguments)] of the launches."""
    phases, launches = {}, None
    for line in plan.splitlines():
        head = re.match(r"phase (\w+) of step ", line)
        if head:
            launches = phases.setdefault(head[1], [])
        found = re.match(r"  launch (\w+) \((.*?)\)", line)
        if found and launches is not None:
            text = (kernels / (found[1] + ".cu")).read_text()
            said = [re.search(r"^#define %s (\d)$" % m, text, re.M) for m in ("LAUNCH_EARLY", "LAUNCH_LATE", "EX_EARLY_IDS")]
            order = tuple(int(m[1]) if m else 0 for m in said) if said[0] else None
            launches.append((order, set(re.findall(r"\bb2(?:\+\d+)?(?=,|$)", found[2]))))
    return phases


def check_order(name, plan, kernels):
    """Buffer 2 is the scratch."""
    wrong = [] if re.search(r"^buffer b2 scratch scratch ", plan, re.M) else ["%s: buffer 2 is no scratch" % name]
    for phase, launches in orders(plan, kernels).items():
        said = [order for order, _ in launches]
        if phase.startswith("decode") and kind_of(name) == "experts":
            for layer in range(29):
                got = said[1 + 8 * layer:9 + 8 * layer]
                if got != ORDER:
                    wrong.append("%s %s: layer %d is ordered %s" % (name, phase, layer, got))
        if phase.startswith("prefill") and kind_of(name) == "dense" and any(o and any(o) for o in said):
            wrong.append("%s %s: a launch is early or late though its neighbour has many rows" % (name, phase))
        if phase.startswith("decode") and kind_of(name) == "dense" and sum(bool(o and o[0]) for o in said) != 1:
            wrong.append("%s %s: k and v of the last layer are not early" % (name, phase))
        for (_, before), (order, places) in zip(launches, launches[1:]):
            if order and order[0] and before & places:
                wrong.append("%s %s: an early launch writes where the one ahead has %s" % (name, phase, before & places))
    return wrong


def check_conversions(name, plan):
    """Launches of a prefill phase that convert rows, for each layer whose rows are many; the other rows are converted where they
    are made."""
    wrong, phases, labels = [], {}, None
    for line in plan.splitlines():
        head = re.match(r"phase (\w+) of step ", line)
        if head:
            labels = phases.setdefault(head[1], [])
        found = re.match(r"  launch (\w+) .*\"(.*)\"", line)
        if found and labels is not None:
            labels.append((found[1], found[2]))
    for phase, labels in phases.items():
        layers = sum(k.startswith("prefill_") and n.endswith(".attn_output.weight") for k, n in labels)
        of_experts = layers if kind_of(name) == "experts" else 0
        expected = {"to f16": layers, "to f16 by expert": of_experts, "sort by expert": of_experts}
        got = {what: sum(n == what for _, n in labels) for what in expected}
        if got != expected or (phase.startswith("prefill") and layers < 2):
            wrong.append("%s %s: %d layers, conversions %s" % (name, phase, layers, got))
    return wrong


def main():
    lap, scratch = sys.argv[1], pathlib.Path(sys.argv[2])
    scratch.mkdir(parents=True, exist_ok=True)
    wrong = []
    for name in [*make_headers.GEMMA4, *make_headers.GEMMA3]:
        weights = scratch / f"{name}.gguf"
        make_headers.model(name).write(weights)
        wrong += check(name, run(lap, "print", REPO / "models" / (name.split("-")[0] + ".lap"), "--weights", weights, "--plan"))
        if name in ("gemma4-26b-a4b", "gemma4-31b"):
            kernels = scratch / (name + "-kernels")
            plan = run(lap, "print", REPO / "models" / "gemma4.lap", "--weights", weights, "--plan", "--arch", "sm_90a", "--kernels",
                       kernels)
            wrong += check_order(name, plan, kernels)
            wrong += check_conversions(name, plan)
        weights.unlink()
    for text in wrong:
        print("FAILED", text)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
