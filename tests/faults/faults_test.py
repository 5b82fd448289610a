#!/usr/bin/env python3
"""What the machine may refuse or break while a model is loaded on a GPU: memory, libraries, disk, the process itself.

    faults_test.py LAP DRIVER NVRTC COMPILER [TEST..]
    faults_test.py LAP --gpu [TEST..]

On the emulated GPU, which has 2 GiB, exit 77 without the C++ compiler that it needs; or on the machine's own. Each function
test_* is one test. A message says what was refused and what to do, the exit code is 3, and nothing half-made stays behind.
"""
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(REPO, "tests", "models"))
import make_headers  # noqa: E402

LAP = os.path.abspath(sys.argv[1])
REAL = sys.argv[2] == "--gpu"
DRIVER, NVRTC, COMPILER = (None, None, None) if REAL else (os.path.abspath(x) for x in sys.argv[2:5])
NAMED = sys.argv[3:] if REAL else sys.argv[5:]
TMP = tempfile.mkdtemp(prefix="lap-faults-")
TINY = os.path.join(TMP, "tiny.gguf")
WARM = os.path.join(TMP, "warm")  # every kernel of RUN
RUN = ["run", TINY, "-p", "the", "-n", "6", "--greedy", "--set", "L=1", "--chunk", "16", "--context", "128"]
GPU = ["--device", "gpu", "--tune", "off"] + ([] if REAL else ["--driver", DRIVER])


def compiler(nvrtc):
    return ["--nvrtc", nvrtc] if nvrtc else []


def command(args, cache, nvrtc=NVRTC):
    return [LAP] + [str(a) for a in args] + GPU + compiler(nvrtc) + ["--kernel-cache", cache]


def lap(args, cache, code=0, nvrtc=NVRTC, before=()):
    """stdout and stderr."""
    r = subprocess.run(list(before) + command(args, cache, nvrtc), capture_output=True, timeout=300, stdin=subprocess.DEVNULL)
    out, err = r.stdout.decode(), r.stderr.decode()
    assert r.returncode == code, "exit code %d, expected %d: %s\n%s" % (r.returncode, code, args, err)
    return out, err


def refused(part, args, cache=None, nvrtc=NVRTC, options=GPU):
    """The error, its first line, must hold `part`; gives what follows."""
    cache = cache or os.path.join(TMP, "none")
    r = subprocess.run([LAP] + [str(a) for a in args] + options + compiler(nvrtc) + ["--kernel-cache", cache],
                       capture_output=True, timeout=300)
    err = r.stderr.decode()
    assert r.returncode == 3 and r.stdout == b"", "exit code %d: %s\n%s" % (r.returncode, args, err)
    first, rest = err.split("\n", 1)
    assert first.startswith("error: ") and part in first, err
    assert not entries(cache), "a cache was made"
    return rest


def entries(cache):
    """Kernels that lie in the cache, and what else is half-made; not the rates of the GPU."""
    return sorted(n for n in os.listdir(cache) if n != "tuned.txt") if os.path.exists(cache) else []


def only_whole_entries(cache):
    for name in entries(cache):
        assert re.fullmatch(r"[0-9a-f]{32}\.cubin", name), "%s lies in the cache" % name


def counts(err):
    """Kernels, those compiled, those from the cache."""
    return tuple(map(int, re.search(r"(\d+) kernels, (\d+) of them compiled, (\d+) cached", err).groups()))


def start_and_stop(cache, more, number, begin=None):
    """Begins, and sends the signal when `more` kernels are in the cache. Exit code, stderr and the seconds it took to end."""
    p = subprocess.Popen(begin or command(RUN, cache), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    had, until = len(entries(cache)), time.time() + 200
    while len(entries(cache)) < had + more and p.poll() is None and time.time() < until:
        time.sleep(0.01)
    assert p.poll() is None, "it ended by itself"
    start = time.time()
    p.send_signal(number)
    out, err = p.communicate(timeout=200)
    assert out == b"", out
    return p.returncode, err.decode(), time.time() - start


# ==== Ended while kernels compile ====

def test_ended_while_compiling():
    cache = os.path.join(TMP, "ended")
    code, err, seconds = start_and_stop(cache, 2, signal.SIGINT)
    assert code == 130 and err == "interrupted\n", (code, err)
    assert seconds < 10, "it went on for %.0f s" % seconds
    only_whole_entries(cache)
    code, err, _ = start_and_stop(cache, 3, signal.SIGKILL)
    assert code == -signal.SIGKILL, code
    only_whole_entries(cache)
    kept = len(entries(cache))
    out, err = lap(RUN + ["-v"], cache)
    kernels, compiled, cached = counts(err)
    assert kernels == compiled + cached and cached >= kept >= 5, err
    assert "warning" not in err and out == lap(RUN, WARM)[0], err
    assert entries(cache) == entries(WARM)


def test_bundle_ended_while_compiling():
    cache, folder = os.path.join(TMP, "bundle-kernels"), os.path.join(TMP, "bundle")
    os.mkdir(folder)
    begin = [LAP, "compile", os.path.join(REPO, "models", "gemma3.lap"), "--weights", TINY, "--arch", "sm_90a", "--set", "L=1",
             *compiler(NVRTC), "--kernel-cache", cache, "-o", os.path.join(folder, "tiny.facet"), "-q"]
    code, err, seconds = start_and_stop(cache, 2, signal.SIGINT, begin)
    assert code == 130 and err == "interrupted; nothing is written\n" and seconds < 10, (code, err, seconds)
    code, _, _ = start_and_stop(cache, 2, signal.SIGKILL, begin)
    assert code == -signal.SIGKILL and os.listdir(folder) == [], os.listdir(folder)
    only_whole_entries(cache)


# ==== The folder of compiled kernels ====

def test_damaged_entries():
    cache = os.path.join(TMP, "damaged")
    shutil.copytree(WARM, cache)
    first, second, third, fourth = (os.path.join(cache, n) for n in entries(cache)[:4])
    with open(first, "r+b") as f:
        f.seek(3000)
        byte = f.read(1)
        f.seek(3000)
        f.write(bytes([byte[0] ^ 1]))
    os.truncate(second, 1000)
    os.truncate(third, 0)
    shutil.copy(entries_path(cache, 5), fourth)
    out, err = lap(RUN, cache)
    reports = re.findall(r"^warning: compiled kernel \w+ is damaged, it is compiled again: (\S+): (.*)$", err, re.M)
    assert sorted(reports) == [(first, "its checksum is wrong"), (second, "its sizes do not add up"),
                               (third, "it is cut short"), (fourth, "it is another kernel's")], err
    assert out == lap(RUN, WARM)[0]
    again, err = lap(RUN, cache)
    assert "warning" not in err and again == out, err


def entries_path(cache, i):
    return os.path.join(cache, entries(cache)[i])


def in_namespace(commands):
    """A prefix that runs what follows after `commands` as root of its own mounts; None: not here."""
    prefix = ["unshare", "-rm", "sh", "-e", "-c", commands + '\nexec "$@"', "sh"]
    try:
        able = subprocess.run(prefix + ["true"], capture_output=True).returncode == 0
    except OSError:
        able = False
    return prefix if able else None


def test_full_disk():
    """A disk 64 KiB too small for all kernels, and those that fit on it; where none can be mounted, a folder that cannot be."""
    disk = os.path.join(TMP, "disk")
    os.mkdir(disk)
    pages = sum((os.path.getsize(entries_path(WARM, i)) + 4095) // 4096 for i in range(len(entries(WARM))))
    fill = "mount -t tmpfs -o size=%dk tmpfs %s; for f in %s/*; do cp $f %s 2>/dev/null || rm -f %s/${f##*/}; done" % (
        4 * pages - 64, disk, WARM, disk, disk)
    prefix = in_namespace(fill)
    out, err = lap(RUN, disk if prefix else "/proc/lap", before=prefix or [])
    why = "No space left on device" if prefix else "No such file or directory"
    assert re.fullmatch(r"warning: compiled kernels cannot be kept in \S+: %s; they will be compiled again next time\n" % why,
                        re.sub(r"^prompt .*\n", "", err, flags=re.M)), err
    assert out == lap(RUN, WARM)[0]
    if prefix:
        listed = subprocess.run(prefix + ["sh", "-c", '"$@" >&2; ls -A %s' % disk, "sh"] + command(RUN, disk),
                                capture_output=True, check=True).stdout.decode().split()
        assert listed and all(re.fullmatch(r"[0-9a-f]{32}\.cubin|tuned\.txt", n) for n in listed), listed


# ==== Libraries ====

def test_no_driver():
    missing = os.path.join(TMP, "libcuda.so.1")
    rest = refused("no NVIDIA driver found", RUN, options=["--device", "gpu", "--driver", missing])
    assert rest.startswith("note: looked for:\n  %s: cannot open" % missing) and "install NVIDIA's driver" in rest, rest
    text = os.path.join(TMP, "text.so")
    with open(text, "w") as f:
        f.write("no library")
    rest = refused("no NVIDIA driver found", RUN, options=["--device", "gpu", "--driver", text])
    assert "%s: file too short" % text in rest or "invalid ELF header" in rest, rest
    if not REAL:
        other = os.path.join(NVRTC, "libnvrtc.so.13")
        refused("this is no NVIDIA driver", RUN, options=["--device", "gpu", "--driver", other])


def test_no_nvrtc():
    missing = os.path.join(TMP, "nothing")
    rest = refused("NVRTC, the run-time compiler of CUDA, was not found", RUN, nvrtc=missing)
    assert "--nvrtc DIR" in rest, rest
    os.mkdir(missing)
    refused("in %s/" % missing, RUN, nvrtc=missing)
    with open(os.path.join(missing, "libnvrtc.so.13"), "w") as f:
        f.write("no library")
    rest = refused("NVRTC, the run-time compiler of CUDA, was not found", RUN, nvrtc=missing)
    assert "%s/libnvrtc.so.13 is there but cannot be opened: " % missing in rest, rest


# ==== Device memory ====

def test_out_of_device_memory():
    free = (r"error: out of device memory: %s: needed [\d.]+ [GM]iB, free [\d.]+ [GM]iB of [\d.]+ GiB on GPU 0 "
            r"\((?:emulated GPU|NVIDIA .*)\)\nnote: %s\n")
    big = os.path.join(TMP, "big.gguf")
    make_headers.gemma4("gemma4-31b" if REAL else "gemma4-e2b").write(big)
    ids = os.path.join(TMP, "ids.txt")
    with open(ids, "w") as f:
        f.write("2 3 4")
    cases = [(RUN[:-2] + ["--context", 1 << 24, "--set", "every=1"], "the (key|value) caches", "A smaller --context needs less."),
             (["run", big, "--tokens-file", ids], "the weights", "Use a smaller model .*, or --device cpu."),
             (["run", big, "--tokens-file", ids, "--chunk", 65536, "--context", 65536], "activations|intermediate results",
              "A smaller --chunk needs less.")]
    if REAL:
        cases = [(["run", big, "--tokens-file", ids, "--context", 1 << 22], "the (key|value) caches", cases[0][2])]
    for args, what, advice in cases:
        start = time.time()
        _, err = lap(args, os.path.join(TMP, "none"), code=3)
        assert re.fullmatch(free % ("(" + what + ")", advice), err), err
        measuring = 3 if REAL else 0  # kernels that measure the GPU, once; on the emulated one they do not compile
        assert len(entries(os.path.join(TMP, "none"))) <= measuring, "kernels were compiled first"
        assert time.time() - start < 60


def main():
    if not REAL and not os.path.exists(COMPILER):
        print("the emulated GPU needs g++")
        sys.exit(77)
    tests = {n: f for n, f in globals().items() if n.startswith("test_") and (not NAMED or n in NAMED)}
    failed = 0
    try:
        subprocess.run([sys.executable, os.path.join(REPO, "examples", "tiny", "make_tiny.py"), TINY], check=True)
        lap(RUN, WARM)
        for name, test in tests.items():
            start = time.time()
            try:
                test()
                print("%-32s passed, %.1f s" % (name, time.time() - start), flush=True)
            except AssertionError as e:
                failed += 1
                print("%-32s FAILED\n%s" % (name, e), flush=True)
    finally:
        shutil.rmtree(TMP, ignore_errors=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
