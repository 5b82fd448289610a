"""run.py DUMP GROUP... - data tests of the readers of weight files.

Runs DUMP (weights_dump.c) on made files, in a fresh folder each, and compares its whole output.
GROUP: good, gguf, safetensors, files. SEED=N as an argument repeats the good files.
"""
import os
import random
import subprocess
import sys
import tempfile

import make_bad
from make_good import GOOD_CASES

GROUPS = {"gguf": make_bad.GGUF_CASES, "safetensors": make_bad.SAFETENSORS_CASES, "files": make_bad.FILE_CASES}


def check(dump, name, files, want, want_status):
    with tempfile.TemporaryDirectory() as folder:
        path = make_bad.write_files(folder, files)
        if want_status and not want.startswith("="):
            want = "%s: error: %s" % (path, want)
        want = want.removeprefix("=").rstrip("\n")
        run = subprocess.run([dump, path], cwd=folder, capture_output=True, timeout=60)
    got = run.stdout.decode(errors="replace").rstrip("\n")
    if got == want and run.returncode == want_status:
        return True
    print("FAIL %s\n  status %d, want %d\n  got:  %s\n  want: %s\n%s" %
          (name, run.returncode, want_status, got[:2000], want[:2000], run.stderr.decode(errors="replace")[-4000:]))
    return False


def main():
    dump, groups = sys.argv[1], [g for g in sys.argv[2:] if "=" not in g]
    seeds = [int(g.split("=")[1]) for g in sys.argv[2:] if g.startswith("SEED=")]
    seed = seeds[0] if seeds else random.SystemRandom().randrange(2**32)
    bad = total = 0
    for group in groups:
        if group == "good":
            print("SEED=%d" % seed)
            cases = [(name, *make(random.Random("%d %s" % (seed, name))), 0) for name, make in GOOD_CASES]
        else:
            cases = [(*case, 1) for case in GROUPS[group]]
            assert len({case[0] for case in cases}) == len(cases), "two cases have the same name"
        for case in cases:
            total += 1
            bad += not check(dump, *case)
    print("%d of %d cases passed" % (total - bad, total))
    return 1 if bad or not total else 0


if __name__ == "__main__":
    sys.exit(main())
