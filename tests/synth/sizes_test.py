#!/usr/bin/env python3
"""lap synth on the sizes it knows: sizes_test.py LAP REPOSITORY SCRATCH

What it would write is what tests/models/make_headers.py knows of the released models; what it writes opens, checks
against the model text and runs; and a run that cannot finish leaves nothing behind.
"""
import array
import json
import math
import os
import pathlib
import random
import shutil
import subprocess
import sys
import time

LAP, REPO, SCRATCH = os.path.abspath(sys.argv[1]), pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
sys.path[:0] = [str(REPO / "tests" / "models"), str(REPO / "tests")]
import make_headers  # noqa: E402
import unfinished  # noqa: E402

SEED = random.randrange(1 << 31)
# Keys that only a file with contents has.
ONLY_SYNTH = {"general.name", "general.quantization_version", "gemma4.vocab_size", "tokenizer.ggml.model"}


def lap(*args, code=0, **how):
    r = subprocess.run([LAP, *map(str, args)], capture_output=True, text=True, timeout=200, **how)
    assert r.returncode == code, f"exit code {r.returncode}, expected {code}: lap {args}\n{r.stderr}"
    return r


def dry_run(size, *options):
    return json.loads(lap("synth", "--like", size, "--dry-run", "--json", *options).stdout)


def tensors(described):
    return {t["name"]: (t["type"], t["shape"], t["bytes"]) for t in described["tensors"]}


def test_agrees_with_the_headers():
    for size in make_headers.GEMMA4:
        header = SCRATCH / f"{size}-header.gguf"
        make_headers.gemma4(size).write(header)
        want = json.loads(lap("inspect", header, "--json").stdout)
        header.unlink()
        got = dry_run(size)
        meta = {k: v for k, v in got["metadata"].items() if k not in ONLY_SYNTH}
        assert meta == want["metadata"], f"{size}: metadata {meta}\ninstead of {want['metadata']}"
        assert set(got["metadata"]) - set(meta) == ONLY_SYNTH, size
        assert len(got["tensors"]) == len(want["tensors"])
        assert tensors(got) == tensors(want), size


def test_drafters_agree_with_the_headers():
    for size in make_headers.MTP:
        header = SCRATCH / f"{size}-header.gguf"
        make_headers.model(size).write(header)
        want = json.loads(lap("inspect", header, "--json").stdout)
        header.unlink()
        assert tensors(dry_run(size, "--quant", "q8_0")) == tensors(want), size
    for size, (_, _, _, ids) in make_headers.DFLASH.items():
        got = dry_run(size, "--quant", "q8_0")
        assert got["metadata"]["gemma4-dflash-draft.dflash.target_layer_ids"] == ids
        assert len(got["tensors"]) == 58


def test_counts_by_type():
    def counts(size, *options):
        return {k: v["tensors"] for k, v in dry_run(size, *options)["totals"].items()}
    # As the loader's log of a public Q4_K_M file has them.
    assert counts("gemma4-26b-a4b") == {"f32": 392, "q5_0": 32, "q8_0": 28, "q4_k": 192, "q6_k": 14}
    assert counts("gemma4-31b")["q6_k"] == 56
    assert sum(counts("gemma4-12b").values()) == 667 and sum(counts("gemma4-31b").values()) == 833
    assert counts("gemma4-26b-a4b", "--quant", "q8_0") == {"f32": 392, "q8_0": 266}
    assert counts("gemma4-e2b", "--quant", "bf16").keys() == {"f32", "bf16"}


def write(size, *options):
    path = SCRATCH / f"{size}.gguf"
    lap("synth", "--like", size, "--seed", SEED, "--set", "V=2048", *options, "-o", path, "-q")
    got = json.loads(lap("inspect", path, "--json").stdout)
    assert got == dict(dry_run(size, "--set", "V=2048", *options), file=str(path)), size
    lap("check", REPO / "models" / "gemma4.lap", "--weights", path)
    return path


def check_logits(path, rows=6):
    ids = SCRATCH / "ids.txt"
    out = SCRATCH / "logits.f32"
    rng = random.Random(SEED)
    ids.write_text(" ".join(["2"] + [str(rng.randrange(2048)) for _ in range(rows - 1)]))
    lap("run", path, "--tokens-file", ids, "-n", "0", "-q", "--logits", out)
    a = array.array("f")
    a.frombytes(out.read_bytes())
    assert len(a) == rows * 2048
    for r in range(rows):
        row = a[r * 2048:(r + 1) * 2048]
        mean = sum(row) / len(row)
        std = math.sqrt(sum((x - mean) ** 2 for x in row) / len(row))
        assert all(map(math.isfinite, row)) and 0.3 < std < 4 and max(map(abs, row)) < 29.5, (path, r, mean, std)
        assert r == 0 or row != a[:2048], "two tokens give the same logits"


def test_written_files_run():
    for size, *options in (("gemma4-31b", "--layers", "2"), ("gemma4-12b", "--layers", "2"),
                           ("gemma4-26b-a4b", "--layers", "6", "--set", "E=16"), ("gemma4-e4b", "--layers", "2"),
                           ("gemma4-e2b", "--layers", "8"), ("gemma4-e2b", "--layers", "2", "--quant", "q8_0"),
                           ("gemma4-e2b", "--layers", "2", "--quant", "bf16")):
        path = write(size, *options)
        check_logits(path)
        path.unlink()


def test_interrupt_leaves_nothing():
    folder = SCRATCH / "interrupted"
    unfinished.interrupt([LAP, "synth", "--like", "gemma4-12b", "--layers", "12", "-t", "1", "-o", folder / "f.gguf"], folder)


def test_failed_write_leaves_nothing():
    folder = SCRATCH / "limited"
    folder.mkdir()
    r = lap("synth", "--like", "gemma4-e2b", "--layers", "1", "-o", folder / "f.gguf", code=3,
            **unfinished.no_file_above(10 << 20))
    unfinished.check_said(r.stderr)
    assert not list(folder.iterdir())


def test_usage():
    for args, message in (((), "--like"), (("--like", "gemma4-31b"), "-o F.gguf"),
                          (("--like", "gemma4-31", "--dry-run"), 'did you mean "gemma4-31b"'),
                          (("--like", "gemma4-e2b", "--dry-run", "--quant", "q3"), "q4_k_m, q8_0, bf16"),
                          (("--like", "gemma4-e2b", "--dry-run", "--set", "layer=2"), 'did you mean "layers"'),
                          (("--like", "gemma4-e2b", "--dry-run", "--set", "layers=x"), "NAME=N"),
                          (("--like", "gemma4-e2b", "-o", "x", "--json"), "--dry-run")):
        r = lap("synth", *args, code=2)
        assert message in r.stderr and not r.stdout, (args, r.stderr)


def main():
    print("seed", SEED)
    shutil.rmtree(SCRATCH, ignore_errors=True)
    SCRATCH.mkdir(parents=True)
    failed = 0
    for name, test in list(globals().items()):
        if not name.startswith("test_"):
            continue
        start = time.monotonic()
        try:
            test()
            print(f"ok {name} {time.monotonic() - start:.1f} s")
        except AssertionError as e:
            failed += 1
            print(f"FAILED {name}: {e}")
    shutil.rmtree(SCRATCH)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
