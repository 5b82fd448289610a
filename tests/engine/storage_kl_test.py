#!/usr/bin/env python3
"""storage_kl on the emulated GPU: storage_kl_test.py STORAGE_KL MODEL CACHE DRIVER NVRTC COMPILER

Two types, drawn anew, are near the evaluator; and where the evaluator has weights of another type that is found.
"""
import os
import re
import subprocess
import sys
import tempfile

STORAGE_KL, MODEL, CACHE, DRIVER, NVRTC, COMPILER = sys.argv[1:7]
POSITIONS, DRAWN = 64, 2


def compare(folder, code, *options):
    """The rows of the table: type, share, positions, mean KL and so on."""
    r = subprocess.run([STORAGE_KL, "--driver", DRIVER, "--nvrtc", NVRTC, "--kernel-cache", CACHE, "--positions",
                        str(POSITIONS), "--window", str(POSITIONS), *options, MODEL, folder],
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=800)
    out = r.stdout.decode()
    print(out)
    assert r.returncode == code, "exit code %d, not %d" % (r.returncode, code)
    assert not os.listdir(folder), "%s is left" % os.listdir(folder)
    return [line.split() for line in out.splitlines() if re.match(r"\w+ +\d+ % ", line)], out


def main():
    if not os.path.exists(COMPILER):
        print("the emulated GPU needs g++")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        rows, _ = compare(folder, 0, "--draw", str(DRAWN))
        assert len(rows) == DRAWN and all(int(row[3]) == POSITIONS for row in rows), rows
        drawn = rows[0][0]
        other = "q4_0" if drawn == "q2_k" else "q2_k"
        rows, out = compare(folder, 1, "--types", drawn, "--eval-type", other)
        assert [row[0] for row in rows] == [drawn], rows
        assert len(re.findall("FAILED: %s: a mean KL divergence of .* in calls of (?:many|few) rows" % drawn, out)) == 2, out


if __name__ == "__main__":
    main()
