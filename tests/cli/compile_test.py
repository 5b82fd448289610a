#!/usr/bin/env python3
"""lap compile and lap inspect on what it makes: compile_test.py LAP NVRTC

Compiles the one-layer text of examples/first for the tiny model. NVRTC is the system's, or that in the folder NVRTC; exits
77 without one.
"""
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
REPO = os.path.dirname(os.path.dirname(HERE))
LAP = os.path.abspath(sys.argv[1])
TEXT = os.path.join(REPO, "examples", "first", "first.lap")


def lap(*args, code=0, env=None):
    r = subprocess.run([LAP] + [str(a) for a in args], capture_output=True, timeout=600, env=env)
    assert r.returncode == code, "exit code %d, expected %d: lap %s\n%s" % (r.returncode, code, args, r.stderr.decode())
    return r


def find_nvrtc():
    """The options that name it, and its library; exits without one."""
    for options in [], ["--nvrtc", sys.argv[2]]:
        found = json.loads(lap("doctor", "--json", *options).stdout)["NVRTC"]
        if found["found"]:
            return options, found["path"]
    sys.exit(77)


def check_contents(path, archs):
    with zipfile.ZipFile(path) as z:
        assert z.testzip() is None
        names = z.namelist()
        assert names == ["manifest.json"] + sorted(names[1:]), names
        assert z.read("model.lap") == pathlib.Path(TEXT).read_bytes()
        assert z.read("module.ir").startswith(b"module first arch \"gemma3\"\n"), z.read("module.ir")[:100]
        for arch in archs:
            plan = z.read(arch + "/plan.txt").decode()
            kernels = [line.split()[1] for line in plan.splitlines() if line.startswith("kernel ")]
            assert plan.startswith("plan %s slots 2 context 64 chunk 16\n" % arch) and kernels, plan[:200]
            for k in kernels:
                assert z.read("%s/kernels/%s.cubin" % (arch, k))[:4] == b"\177ELF"
                assert k in z.read("%s/kernels/%s.cu" % (arch, k)).decode()
        manifest = json.loads(z.read("manifest.json"))
        assert sorted(manifest["entries"]) == sorted(names[1:])
        assert manifest["weights"]["tensors"]["blk.0.attn_q.weight"] == "q8_0[64, 64]", manifest["weights"]


def check_inspect(path, archs):
    j = json.loads(lap("inspect", path, "--json").stdout)
    assert [a["name"] for a in j["archs"]] == archs and j["bytes"] == os.path.getsize(path), j
    assert j["options"]["kv_k"] == "f16" and j["options"]["slots"] == 2, j["options"]
    assert all(a["memory"]["tiles"]["bytes"] > 0 and a["phases"][0]["launches"] > 0 for a in j["archs"]), j["archs"]
    text = lap("inspect", path).stdout.decode()
    assert "model first for %s" % ", ".join(archs) in text and "step decode8: up to 8 rows" in text, text
    assert "gemma3.attention.head_count = 2\n" in lap("inspect", path, "--meta").stdout.decode()
    assert "token_embd.weight = " in lap("inspect", path, "--tensors").stdout.decode()
    assert b"--key has a meaning only for weights" in lap("inspect", path, "--key", "x", code=2).stderr


def check_damage(path):
    data = bytearray(pathlib.Path(path).read_bytes())
    data[len(data) // 2] ^= 0x10
    pathlib.Path(path + ".bad").write_bytes(data)
    r = lap("inspect", path + ".bad", code=1)
    assert not r.stdout and b".bad: error: " in r.stderr, r.stderr


def check_without_builtins(library, tmp, options):
    """Of the two libraries of NVRTC one alone: where the dynamic linker looks for the other first, there is an empty file."""
    alone, empty, cache = (os.path.join(tmp, name) for name in ("alone", "empty", "none"))
    os.mkdir(alone)
    os.mkdir(empty)
    linked = os.path.join(alone, re.match(r"libnvrtc\.so(\.\d+)?", os.path.basename(library)).group())
    os.symlink(library, linked)
    for builtins in pathlib.Path(library).parent.glob("libnvrtc-builtins.so.*"):
        pathlib.Path(empty, builtins.name).touch()
    env = dict(os.environ, LD_LIBRARY_PATH=empty + ":" + os.environ.get("LD_LIBRARY_PATH", ""))
    r = lap("compile", TEXT, *options, "-q", "--nvrtc", alone, "--kernel-cache", cache, "-o", os.path.join(tmp, "none.facet"),
            code=3, env=env)
    err = r.stderr.decode()
    assert err.startswith("error: %s lacks its second library, libnvrtc-builtins.so." % linked) and "--nvrtc DIR" in err, err
    assert not os.path.exists(cache) and not os.path.exists(os.path.join(tmp, "none.facet")), os.listdir(tmp)


def check_memory(tiny, path, nvrtc):
    """--memory: the chunk of the bundle is what is chosen for it."""
    r = lap("compile", TEXT, "--weights", tiny, "--arch", "sm_90a", "--context", 70, "--memory", "2G", "-o", path, *nvrtc)
    assert r.stderr.decode().startswith("chunk of 70: as long as the context\n"), r.stderr
    assert json.loads(lap("inspect", path, "--json").stdout)["options"]["chunk"] == 70
    assert "context 70, chunk 70, rows 64" in lap("inspect", path).stdout.decode()
    r = lap("compile", TEXT, "--weights", tiny, "--arch", "sm_90a", "--context", 70, "--memory", "1M", "-q", "-o", path, *nvrtc)
    assert r.stderr.startswith(b"warning: --memory 1M is too little: the plan needs "), r.stderr


def check_stopped(tmp, options):
    """By `kill` while kernels are compiled: the exit code is the signal's, and nothing is there but whole kernels."""
    cache, out = os.path.join(tmp, "stopped"), os.path.join(tmp, "stopped.facet")
    command = ["compile", TEXT, *options, "-o", out, "--kernel-cache", cache, "-t", 1]
    p = subprocess.Popen([LAP] + [str(a) for a in command], stderr=subprocess.PIPE)
    while p.poll() is None and not (os.path.isdir(cache) and os.listdir(cache)):
        time.sleep(0.001)
    p.send_signal(signal.SIGTERM)
    err = p.communicate(timeout=300)[1].decode()
    assert p.returncode == 128 + signal.SIGTERM and "interrupted; nothing is written" in err, (p.returncode, err)
    assert not [f for f in os.listdir(tmp) if f.startswith("stopped.facet")], os.listdir(tmp)


def main():
    nvrtc, library = find_nvrtc()
    with tempfile.TemporaryDirectory() as tmp:
        tiny, path = os.path.join(tmp, "tiny.gguf"), os.path.join(tmp, "first.facet")
        subprocess.run([sys.executable, os.path.join(REPO, "examples", "tiny", "make_tiny.py"), tiny], check=True)
        archs = ["sm_86", "sm_90a"]
        options = ["--weights", tiny, "--arch", ",".join(archs), "--context", 64, "--chunk", 16, "--slots", 2]
        check_without_builtins(library, tmp, options)
        options += nvrtc
        check_stopped(tmp, options)
        r = lap("compile", TEXT, *options, "-o", path)
        assert r.stderr.decode().startswith("sm_86: ") and not r.stdout, r
        check_contents(path, archs)
        check_inspect(path, archs)
        again = os.path.join(tmp, "again.facet")
        assert not lap("compile", TEXT, *options, "-q", "-o", again).stderr
        assert pathlib.Path(path).read_bytes() == pathlib.Path(again).read_bytes(), "the same contents give other bytes"
        check_damage(path)
        r = lap("compile", TEXT, *options, "--tuned", os.path.join(REPO, "README.md"), "-o", os.path.join(tmp, "none.facet"),
                code=1)
        assert b"error: --tuned: there are no choices of tuning in " in r.stderr, r.stderr
        check_memory(tiny, os.path.join(tmp, "memory.facet"), nvrtc)
        r = lap("compile", TEXT, *options, "-q", "-o", os.path.join(tmp, "no", "such", "x.facet"), code=3)
        assert b"x.facet: error: cannot be written" in r.stderr, r.stderr
    print("ok")


if __name__ == "__main__":
    main()
