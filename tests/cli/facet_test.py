#!/usr/bin/env python3
"""Bundles as they are run: facet_test.py LAP [DRIVER NVRTC] KERNEL_CACHE

On the emulated GPU, or without DRIVER and NVRTC on the machine's, an sm_90a. A bundle is compiled for the tiny model, then run, chatted with, scored and measured without NVRTC: the
same tokens as compiled on the spot. What a bundle is not for is refused with what it is for.
"""
import json
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
REPO = os.path.dirname(os.path.dirname(HERE))
LAP, *EMULATED, CACHE = [os.path.abspath(a) for a in sys.argv[1:]]
DRIVER, NVRTC = (["--driver", EMULATED[0]], ["--nvrtc", EMULATED[1]]) if EMULATED else ([], [])
GPU = "emulated GPU" if EMULATED else "NVIDIA .*"
TEXT = os.path.join(REPO, "models", "gemma3.lap")
SHAPE = ["--context", 128, "--chunk", 32]
HERE_OPTIONS = ["--device", "gpu", *DRIVER, *NVRTC, "--kernel-cache", CACHE] + (["--tune", "off"] if EMULATED else [])


def lap(*args, code=0, stdin=None):
    r = subprocess.run([LAP] + [str(a) for a in args], capture_output=True, timeout=600, input=stdin)
    assert r.returncode == code, "exit code %d, expected %d: lap %s\n%s" % (r.returncode, code, args, r.stderr.decode())
    return r


class Bundle:
    def __init__(self, tmp):
        self.tmp = tmp
        self.tiny, self.path = self.make("tiny.gguf", "pass"), os.path.join(tmp, "tiny.facet")
        self.compile("sm_90a", self.path)
        # without NVRTC: a folder that has none
        self.options = [*DRIVER, "--nvrtc", tmp, "--facet", self.path]

    def make(self, name, change):
        """A tiny model, its maker changed a little."""
        path = os.path.join(self.tmp, name)
        program = "import sys; sys.path.insert(0, %r); sys.argv = ['', %r]; import make_tiny; %s; make_tiny.main()" % (
            os.path.join(REPO, "examples", "tiny"), path, change)
        subprocess.run([sys.executable, "-B", "-c", program], check=True)
        return path

    def compile(self, arch, path):
        lap("compile", TEXT, "--weights", self.tiny, "--arch", arch, *NVRTC, "--kernel-cache", CACHE, "-q", "-o",
            path, *SHAPE)

    def fails(self, *args, weights=None, options=None, code=1):
        """What `lap run` says of it."""
        options = self.options if options is None else options
        r = lap("run", weights or self.tiny, "-p", "the cat", "-n", 1, *options, *args, code=code)
        assert not r.stdout, r
        return r.stderr.decode()


def check_run(b):
    for sampling in ["--greedy"], ["--temp", 1, "-s", 4, "--repeat-penalty", 1.2]:
        prompt = ["-p", "the cat", "-n", 12, "--json", "-q"] + sampling
        here = json.loads(lap("run", b.tiny, *prompt, *SHAPE, *HERE_OPTIONS).stdout)
        bundled = json.loads(lap("run", b.tiny, *prompt, *b.options).stdout)
        assert len(here["ids"]) == 12 and here["ids"] == bundled["ids"], (here, bundled)
        assert bundled["device"] == "gpu" and re.fullmatch("gpu " + GPU, bundled["device_text"]), bundled
    r = lap("run", b.tiny, "-p", "x", "-n", 2, "-v", *b.options).stderr.decode()
    assert re.search("device gpu %s\n" % GPU, r) and "threads" not in r, r
    assert re.search(r"GPU: device open in .* s; \d+ kernels of the bundle; .* GB of weights uploaded in .* GB/s", r), r
    r = lap("run", b.tiny, "-p", "x", "-n", 1, "-v", *SHAPE, *HERE_OPTIONS).stderr.decode()
    assert re.search(r"; (\d+) kernels, 0 of them compiled, \1 cached, in .* s; ", r), r
    # the same options as the bundle's may be given
    lap("run", b.tiny, "-p", "x", "-n", 1, "-q", "--kv-k", "f16", "--device", "gpu", *SHAPE, *b.options)


def check_others(b):
    lines = b"hello\nagain\n/stats\n"
    here = lap("chat", b.tiny, "-n", 8, *SHAPE, *HERE_OPTIONS, stdin=lines).stdout.decode().splitlines()
    bundled = lap("chat", b.tiny, "-n", 8, *b.options, stdin=lines).stdout.decode().splitlines()
    assert here[:2] == bundled[:2] and here[0] != here[1], (here, bundled)
    assert re.search("of 128 positions used, device gpu %s$" % GPU, bundled[-1]), bundled
    with open(os.path.join(REPO, "tests", "data", "constitution.txt")) as f:
        text = f.read(500)
    file = os.path.join(b.tmp, "text.txt")
    with open(file, "w") as f:
        f.write(text)
    score = ["perplexity", b.tiny, "-f", file, "-c", 64, "--json"]
    here = json.loads(lap(*score, "--chunk", 32, *HERE_OPTIONS).stdout)
    bundled = json.loads(lap(*score, *b.options).stdout)
    assert abs(here["perplexity"] / bundled["perplexity"] - 1) < 1e-6, (here, bundled)
    r = lap("perplexity", b.tiny, "-f", file, "-c", 129, *b.options, code=1).stderr.decode()
    assert "tiny.facet was compiled for a context of 128; 129 positions are needed" in r, r
    assert json.loads(lap("bench", b.tiny, "--pp", 8, "--tg", 2, "-r", 1, "--json", *b.options).stdout)


def write_tuned(b):
    """A choice for each decode matmul of the tiny model, another number of groups where it has that way."""
    kernels = json.loads(lap("doctor", "--tuned", "--json").stdout)["tuned"]["kernels"]
    plan = lap("print", TEXT, "--weights", b.tiny, "--plan", "--arch", "sm_90a", *SHAPE).stdout.decode()
    shapes = re.findall(r'^kernel .* analytic groups 2 (stages .*) of ("linear .*")$', plan, re.M)
    assert shapes and " tuned " not in plan, plan
    path = os.path.join(b.tmp, "elsewhere.txt")
    with open(path, "w") as f:
        f.write("tuned 1\n")
        for cut, shape in shapes:
            f.write('choice sm_90a "GPU" %s %s tuned groups 1 %s ns 2 1\n' % (kernels, shape, cut))
    tuned = lap("print", TEXT, "--weights", b.tiny, "--plan", "--arch", "sm_90a", "--tuned", path, *SHAPE).stdout.decode()
    count = len(re.findall(r"^kernel .* tuned groups 1 ", tuned, re.M))
    assert count > 0 and tuned != plan, tuned
    assert plan == lap("print", TEXT, "--weights", b.tiny, "--plan", "--arch", "sm_90a", *SHAPE).stdout.decode()
    return path, count


def check_tuned(b):
    """A bundle holds the choices that it was compiled with."""
    path, count = write_tuned(b)
    bundle = os.path.join(b.tmp, "tuned.facet")
    compile_it = ["compile", TEXT, "--weights", b.tiny, "--arch", "sm_90a", *NVRTC, "--kernel-cache", CACHE, "-o", bundle,
                  *SHAPE]
    r = lap(*compile_it, "--tuned", path)
    assert "; %d as they were tuned\n" % count in r.stderr.decode(), r.stderr
    assert json.loads(lap("inspect", bundle, "--json").stdout)["archs"][0]["tuned_kernels"] == count
    assert re.search(r"decode matmuls: \d+ kernels cut by rule, %d as they were tuned$" % count,
                     lap("inspect", bundle).stdout.decode(), re.M)
    prompt = ["-p", "the cat", "-n", 12, "--greedy", "--json", "-q"]
    tuned = json.loads(lap("run", b.tiny, *prompt, *DRIVER, "--nvrtc", b.tmp, "--facet", bundle).stdout)
    assert tuned["ids"] == json.loads(lap("run", b.tiny, *prompt, *b.options).stdout)["ids"], tuned
    r = lap(*compile_it, "--tune", "off")
    assert "tuned" not in r.stderr.decode().replace("tuned.facet", ""), r.stderr
    assert json.loads(lap("inspect", bundle, "--json").stdout)["archs"][0]["tuned_kernels"] == 0


def check_refusals(b):
    conflicts = b.fails("-c", 64, "--chunk", 16, "--kv-k", "f32", "--set", "a=1")
    for line in ("--context 128, not 64", "--chunk 32, not 16", "--kv-k f16, not f32"):
        assert "tiny.facet was compiled with %s\n" % line in conflicts, conflicts
    assert "was compiled without --set, not with --set a=1" in conflicts, conflicts
    meaningless = b.fails("--model", TEXT, "--verify-each", "--use-kernel", "x.cu", "--device", "cpu", code=2)
    for option in "--model", "--verify-each", "--use-kernel", "--device cpu":
        assert "error: %s has no meaning with --facet" % option in meaningless, meaningless
    taps = b.fails("--dump", "embed=" + os.path.join(b.tmp, "x"))
    assert "tiny.facet has no tap \"embed\"" in taps and "lap compile --taps" in taps, taps
    nowhere = ["--facet", b.path, "--driver", os.path.join(b.tmp, "none")]
    assert "no NVIDIA driver found" in b.fails(options=nowhere, code=3)
    assert "tiny.facet was compiled with --context 128, not 100\n" in b.fails("-c", 100, options=nowhere)

    weights = b.make("wide.gguf", "make_tiny.HIDDEN = 96")
    for options in b.options, nowhere: # before a device is looked for
        wide = b.fails(weights=weights, options=options)
        assert "error: key 'gemma3.feed_forward_length' is 96; the bundle is for weights where it is 128" in wide, wide
    lap("run", b.make("noise.gguf", "sys.argv += ['--seed', '2']"), "-p", "x", "-n", 1, "-q", *b.options)
    elsewhere = os.path.join(b.tmp, "elsewhere.facet")
    b.compile("sm_86", elsewhere)
    r = b.fails(options=[*DRIVER, "--facet", elsewhere])
    assert "has kernels for sm_86; this device is sm_90a, and runs none of them" in r, r
    r = b.fails(options=[*DRIVER, "--facet", b.tiny])
    assert "tiny.gguf is a GGUF file; --facet takes F.facet" in r, r


def main():
    with tempfile.TemporaryDirectory() as tmp:
        b = Bundle(tmp)
        check_run(b)
        check_others(b)
        check_tuned(b)
        check_refusals(b)
    print("ok")


if __name__ == "__main__":
    main()
