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
import tempfile
import zipfile

import wheels

PACKAGE, VERSION = "nvidia-cuda-nvrtc", "13.0.88"
SHA256 = {"x86_64": "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575"}
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


def fetch(output):
    sha256 = SHA256.get(platform.machine())
    if not sha256:
        return "no pinned package for %s; install a CUDA toolkit" % platform.machine()
    parent = os.path.dirname(os.path.abspath(output))
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=parent) as work:
        pip = wheels.find_pip(work)
        if not pip:
            return "no pip: install the packages python3-pip or python3-venv, then run this again"
        print("== NVRTC %s" % VERSION, flush=True)
        wheel = wheels.download(pip, work, PACKAGE, VERSION, sha256)
        if not wheel:
            return "%s could not be downloaded" % PACKAGE
        whole = os.path.join(work, "nvrtc")
        os.makedirs(os.path.join(whole, INSIDE))
        with zipfile.ZipFile(wheel) as z:
            for name in FILES:
                with z.open(INSIDE + name) as source, open(os.path.join(whole, INSIDE, name), "wb") as target:
                    shutil.copyfileobj(source, target)
        shutil.rmtree(output, ignore_errors=True)
        os.replace(whole, output)
    return None


def main():
    default = os.path.join(os.path.expanduser("~"), ".cache", "lapidary", "nvrtc")
    p = argparse.ArgumentParser(description="Fetches NVRTC into the cache folder, unless this machine has one.")
    p.add_argument("--output", default=default, help="where to put it (default %(default)s)")
    o = p.parse_args()
    here = installed()
    if here:
        print("NVRTC is there: %s" % here)
        return 0
    if all(os.path.exists(os.path.join(o.output, INSIDE, name)) for name in FILES):
        print("NVRTC is there: %s" % o.output)
        return 0
    try:
        problem = fetch(o.output)
    except (OSError, zipfile.BadZipFile, KeyError) as e:
        problem = str(e)
    if problem:
        print("fetch_nvrtc: " + problem, file=sys.stderr)
        return 1
    print("%s is ready" % o.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
