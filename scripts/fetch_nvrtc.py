#!/usr/bin/env python3
"""Fetches NVRTC, NVIDIA's run-time compiler (two libraries, 114 MB), into the cache folder, unless this machine has one.

    fetch_nvrtc.py [--output FOLDER]

It comes in the Python package nvidia-cuda-nvrtc, pinned by version and SHA-256, as a plain archive: nothing is
installed. `lap --nvrtc FOLDER` and the tests then use it. Exit code 0: there is an NVRTC.
"""
import argparse
import ctypes
import glob
import os
import platform
import shutil
import sys
import zipfile

import wheels

PACKAGE, VERSION = "nvidia-cuda-nvrtc", "13.0.88"
SHA256 = {
    "x86_64": "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575",
    "aarch64": "d27f20a0ca67a4bb34268a5e951033496c5b74870b868bacd046b1b8e0c3267b",
}
FILES = ["libnvrtc.so.13", "libnvrtc-builtins.so.13.0"]
INSIDE = "nvidia/cu13/lib/"


def installed():
    """An NVRTC that is here already: for the dynamic linker, or in a CUDA toolkit."""
    try:
        ctypes.CDLL("libnvrtc.so.13")
        return "the dynamic linker's"
    except OSError:
        found = glob.glob("/usr/local/cuda*/lib64/libnvrtc.so.1[23]*")
        return found[0] if found else None


def make(pip, work):
    sha256 = SHA256.get(platform.machine())
    if not sha256:
        raise wheels.Problem("no pinned package for %s; install a CUDA toolkit" % platform.machine())
    print("== NVRTC %s" % VERSION, flush=True)
    wheel = wheels.download(pip, work, PACKAGE, VERSION, sha256)
    whole = os.path.join(work, "nvrtc")
    os.makedirs(os.path.join(whole, INSIDE))
    with zipfile.ZipFile(wheel) as z:
        for name in FILES:
            with z.open(INSIDE + name) as source, open(os.path.join(whole, INSIDE, name), "wb") as target:
                shutil.copyfileobj(source, target)
    return whole


def main():
    p = argparse.ArgumentParser(description="Fetches NVRTC into the cache folder, unless this machine has one.")
    p.add_argument("--output", default=wheels.cache("nvrtc"), help="where to put it (default %(default)s)")
    o = p.parse_args()
    here = installed()
    if not here and all(os.path.exists(os.path.join(o.output, INSIDE, name)) for name in FILES):
        here = o.output
    if here:
        print("NVRTC is there: %s" % here)
        return 0
    return wheels.fetch("fetch_nvrtc", o.output, make)


if __name__ == "__main__":
    sys.exit(main())
