#!/usr/bin/env python3
"""Every released size of every model text, from metadata alone: models_test.py LAP MODELS_FOLDER SCRATCH

For each: the text checks and compiles against the file's names and shapes; the IR prints and parses back to
itself before and after the passes; what the passes must have found is there (one line of counts a model); a layer
is few launches, no norm is one by itself, and every matmul and attention says how it is computed.
"""
import pathlib
import re
import subprocess
import sys

import make_headers

# attend ops, caches, caches that became rings at a context of 32768, expert matmuls; and the groups after all passes:
# a dense layer is qkv, attention, output, gate and up, down; experts add a router and two groups; per-layer inputs two
# matmuls; rowwise are the embedding and the wanted rows of the last layer's inputs
EXPECT = {
    "gemma4-31b": dict(attend=60, caches=60, rings=50, experts=0, groups=(242, 0, 60, 2)),
    "gemma4-26b-a4b": dict(attend=30, caches=30, rings=25, experts=60, groups=(152, 60, 30, 2)),
    "gemma4-12b": dict(attend=48, caches=48, rings=40, experts=0, groups=(194, 0, 48, 2)),
    "gemma4-e4b": dict(attend=42, caches=24, rings=20, experts=0, groups=(255, 0, 42, 3)),
    "gemma4-e2b": dict(attend=35, caches=15, rings=12, experts=0, groups=(213, 0, 35, 3)),
    "gemma3-270m": dict(attend=18, caches=18, rings=15, experts=0, groups=(74, 0, 18, 2)),
    "gemma3-1b": dict(attend=26, caches=26, rings=22, experts=0, groups=(106, 0, 26, 2)),
    "gemma3-4b": dict(attend=34, caches=34, rings=29, experts=0, groups=(138, 0, 34, 2)),
    "gemma3-12b": dict(attend=48, caches=48, rings=40, experts=0, groups=(194, 0, 48, 2)),
    "gemma3-27b": dict(attend=62, caches=62, rings=52, experts=0, groups=(250, 0, 62, 2)),
}


# Drafters, each beside its target: attend ops, own caches that became rings, groups of all entries. MTP: the first product,
# four in a layer, the head with the next vector. DFlash: the context, all its keys and values, four in a layer, the head
DRAFTERS = {
    "gemma4-31b-mtp": dict(attend=4, rings=0, groups=(18, 0, 4, 2)),
    "gemma4-26b-a4b-mtp": dict(attend=4, rings=0, groups=(18, 0, 4, 2)),
    "gemma4-31b-dflash": dict(attend=5, rings=4, groups=(23, 0, 10, 3)),
    "gemma4-26b-a4b-dflash": dict(attend=5, rings=4, groups=(23, 0, 10, 3)),
}


def run(*args):
    r = subprocess.run(args, capture_output=True, text=True)
    if r.returncode:
        sys.exit(f"{' '.join(map(str, args))}: exit {r.returncode}\n{r.stderr}")
    return r.stdout


def counts(ir):
    return dict(
        attend=len(re.findall(r"= attend ", ir)),
        caches=len(re.findall(r"^cache ", ir, re.M)),
        rings=len(re.findall(r"^cache .*\bring\b", ir, re.M)),
        experts=len(re.findall(r"= linear_experts ", ir)),
        groups=tuple(len(re.findall(rf"^  group g\d+ {f}\b", ir, re.M))
                     for f in ("matmul", "experts", "attention", "rowwise")),
    )


# most groups of a layer: dense, with experts, with per-layer inputs
MOST = {"dense": 6, "experts": 9, "inputs": 8}


def kind_of(name):
    size = make_headers.GEMMA4.get(name)
    return "dense" if not size else "experts" if size[-1] else "inputs" if size[-2] else "dense"


def structure(name, ir):
    """What is wrong with the groups, as a list of texts."""
    wrong, head, body = [], {}, {}
    for number, family, choice in re.findall(r"^  group (g\d+) (\w+) ?(.*?)(?:  # .*)?$", ir, re.M):
        head[number] = (family, choice)
    for line in ir.splitlines():
        node = re.match(r"  %\S+ = (\w+) .* in (g\d+)\b", line)
        if node:
            body.setdefault(node[2], []).append((node[1], line))
        elif re.match(r"  %\S+ = rms_norm ", line):
            wrong.append(f"{name}: no group computes {line.strip()}")
    layers = {}
    for number, (family, choice) in head.items():
        ops = [op for op, _ in body[number]]
        text = "".join(line for _, line in body[number])
        layer = min(map(int, re.findall(r"@blk\.(\d+)\.", text)), default=None)
        if family == "rowwise":
            if "rms_norm" in ops and "embed" not in ops:
                wrong.append(f"{name}: {number} is a launch for a norm")
        elif layer is not None:
            layers.setdefault(layer, []).append(number)
        if family in ("matmul", "experts"):
            fits = re.fullmatch(r"(\d+) x (64|128|256)(?: early(?: ids)?)?", choice)
            if not fits or not 1 <= int(fits[1]) <= 15:
                wrong.append(f"{name}: {number} of family {family} chose '{choice}'")
        if "attend" in ops and not re.fullmatch(r'decode split ".+" prefill dense ".+"', choice):
            wrong.append(f"{name}: {number} attends by '{choice}'")
    for layer, numbers in layers.items():
        early = [(head[k][0], head[k][1].partition(" early")[2]) for k in numbers if " early" in head[k][1]]
        if kind_of(name) == "experts" and early[-3:] != [("matmul", ""), ("experts", " ids"), ("matmul", "")]:
            wrong.append(f"{name}: layer {layer} does early {early}, not the shared gate, expert ids, the shared down")
    most = max(len(v) for v in layers.values())
    if most > MOST[kind_of(name)]:
        wrong.append(f"{name}: a layer of {most} groups: {max(layers.values(), key=len)}")
    print(f"{name}: at most {most} groups a layer")
    return wrong


def main():
    lap, models, scratch = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    scratch.mkdir(parents=True, exist_ok=True)
    failed = []
    for name, expect in EXPECT.items():
        weights = scratch / f"{name}.gguf"
        make_headers.model(name).write(weights)
        text = models / (name.split("-")[0] + ".lap")
        run(lap, "check", text, "--weights", weights)
        for stage in ("none", "all"):
            ir = run(lap, "print", text, "--weights", weights, "--after", stage, "--context", "32768")
            (scratch / f"{name}.ir").write_text(ir)
            again = run(lap, "print", scratch / f"{name}.ir", "--after", "none")
            if again != ir:
                failed.append(f"{name}: the IR after '{stage}' does not print back to itself")
        found = counts(ir)
        print(f"{name}: {found}")
        if found != expect:
            failed.append(f"{name}: expected {expect}, found {found}")
        failed += structure(name, ir)
        weights.unlink()
    for name, expect in DRAFTERS.items():
        target, kind = name.rsplit("-", 1)
        weights, beside = scratch / f"{name}.gguf", scratch / f"{target}.gguf"
        make_headers.model(name).write(weights)
        make_headers.model(target).write(beside)
        given = [models / f"gemma4-{kind}.lap", "--weights", weights, "--target", beside]
        run(lap, "check", *given)
        ir = run(lap, "print", *given, "--context", "32768")
        (scratch / f"{name}.ir").write_text(ir)
        if run(lap, "print", scratch / f"{name}.ir", "--after", "none") != ir:
            failed.append(f"{name}: the IR does not print back to itself")
        found = {k: v for k, v in counts(ir).items() if k in expect}
        print(f"{name}: {found}")
        if found != expect:
            failed.append(f"{name}: expected {expect}, found {found}")
        weights.unlink()
        beside.unlink()
    for f in failed:
        print("FAILED", f)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
