"""What tests of the command have in common: the program, a tiny model in a folder of their own, and main().

A test file is FILE LAP [TEST...]. Each of its functions test_* is one test; inputs that matter are random with a printed
seed.
"""
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from array import array

HERE = os.path.dirname(os.path.abspath(__file__))
REPO = os.path.dirname(os.path.dirname(HERE))
LAP = os.path.abspath(sys.argv[1])
SEED = random.randrange(1 << 32)
TMP = tempfile.mkdtemp(prefix="lap-behave-")
TINY = os.path.join(TMP, "tiny.gguf")
IDS = os.path.join(TMP, "ids.gguf")


def lap(*args, stdin=b"", code=0, stdout=subprocess.PIPE):
    r = subprocess.run([LAP] + [str(a) for a in args], input=stdin, stdout=stdout, stderr=subprocess.PIPE, timeout=300)
    assert r.returncode == code, "exit code %d, expected %d: lap %s\n%s" % (r.returncode, code, args, r.stderr.decode())
    return r


def floats(path):
    a = array("f")
    with open(path, "rb") as f:
        a.frombytes(f.read())
    return a


def rms_difference(a, b):
    assert len(a) == len(b) > 0, "%d and %d values" % (len(a), len(b))
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b)) / sum(x * x for x in a))


def vocabulary():
    out = lap("inspect", TINY, "--tensors", "--json").stdout
    return next(t["shape"][0] for t in json.loads(out)["tensors"] if t["name"] == "output.weight")


def ids_file(n, rng):
    words = vocabulary()
    ids = [2] + [rng.randrange(262, words) for _ in range(n - 1)]
    path = os.path.join(TMP, "ids.txt")
    with open(path, "w") as f:
        f.write(",".join(map(str, ids)))
    return path, ids


def logits_of(path, *options):
    out = os.path.join(TMP, "logits.f32")
    lap("run", TINY, "--tokens-file", path, "-q", "--greedy", "--logits", out, *options)
    return floats(out)


def chat(lines, *options, code=0):
    return lap("chat", TINY, "--greedy", "-n", "12", *options, stdin="".join(x + "\n" for x in lines).encode(), code=code)


def main(namespace):
    """Runs the functions test_* of a test file, or those that the command line names."""
    print("seed %d" % SEED, flush=True)
    maker = [sys.executable, os.path.join(REPO, "examples", "tiny", "make_tiny.py")]
    subprocess.run(maker + [TINY], check=True)
    subprocess.run(maker + [IDS, "--no-tokenizer"], check=True)
    wanted = sys.argv[2:]
    failed = 0
    tests = [(n, f) for n, f in namespace.items() if n.startswith("test_") and (not wanted or n in wanted)]
    for name, test in tests:
        try:
            test()
            print("ok      " + name, flush=True)
        except (AssertionError, subprocess.TimeoutExpired) as e:
            failed += 1
            print("FAILED  %s: %s" % (name, e), flush=True)
    subprocess.run(["rm", "-rf", TMP])
    print("%d of %d tests passed" % (len(tests) - failed, len(tests)))
    sys.exit(1 if failed or not tests else 0)
