#!/usr/bin/env python3
"""lap bench and lap profile on the emulated GPU: measure_test.py LAP DRIVER NVRTC KERNEL_CACHE FIXTURES

Times there mean nothing; what is counted, and how it adds up, does. The limits of an emulated GPU cannot be measured:
a warning, and null where they would be used.
"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

LAP, DRIVER, NVRTC, CACHE, FIXTURES = sys.argv[1:6]
MOE = os.path.join(FIXTURES, "moe", "model.gguf")
REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TMP = tempfile.mkdtemp(prefix="lap-measure-")
EXPERTS, CHOSEN, WINDOW, LAYERS = 8, 2, 32, 3


def lap(command, *args, code=0, env=None):
    line = [LAP, command, MOE, "--device", "gpu", "--driver", DRIVER, "--nvrtc", NVRTC, "--kernel-cache", CACHE,
            "--tune", "off"]
    r = subprocess.run(line + [str(a) for a in args], capture_output=True, timeout=600, env=env)
    assert r.returncode == code, "exit code %d, expected %d: %s\n%s" % (r.returncode, code, args, r.stderr.decode())
    return r


def as_json(command, *args):
    r = lap(command, "--json", *args)
    assert b"warning: the limits of this GPU were not measured" in r.stderr, r.stderr
    return json.loads(r.stdout)


def tensors():
    out = subprocess.run([LAP, "inspect", MOE, "--tensors", "--json"], capture_output=True, check=True).stdout
    return {t["name"]: t for t in json.loads(out)["tensors"]}


def near(a, b):
    return abs(a - b) <= 1e-6 * max(abs(a), abs(b))


# ==== bench ====

def check_call(j):
    assert j["gpu_seconds"] > 0 and j["weight_bytes"] > 0 and j["kv_bytes"] > 0 and j["flops"] > 0, j
    assert j["floor_seconds"] is None and j["share"] is None, j


def test_bench_json():
    j = as_json("bench", "--pp", 40, "--chunk", 24, "--tg", 3, "--depth", 20, "--rows", "1,3,8,16", "-r", 2)
    assert j["device"] == "gpu" and j["gpu"] == "emulated GPU" and j["limits"] is None
    assert (j["prompt_tokens"], j["decode_tokens"], j["depth"], j["runs"]) == (40, 3, 20, 2)
    assert j["prompt_tokens_per_second"] > 0 and j["decode_tokens_per_second"] > 0 and j["device_bytes"] > 0
    check_call(j["prompt"])
    rows = j["rows"]
    assert [(r["rows"], r["phase"]) for r in rows] == [(1, "decode8"), (3, "decode8"), (8, "decode8"), (16, "decode16")]
    for r in rows:
        check_call(r)
        assert near(r["tokens_per_second"], r["rows"] / r["seconds"])
    for a, b in zip(rows, rows[1:]):
        assert a["weight_bytes"] <= b["weight_bytes"] and a["kv_bytes"] < b["kv_bytes"] and a["flops"] < b["flops"]
    # two calls of a prompt read what both need twice
    once = as_json("bench", "--pp", 40, "--tg", 1, "--rows", "1", "-r", 1)
    assert 1.5 * once["prompt"]["weight_bytes"] < j["prompt"]["weight_bytes"] < 2 * once["prompt"]["weight_bytes"] + 1
    assert once["depth"] == 40 and len(once["rows"]) == 1 and once["tuning"] is None


def test_bench_text():
    out = lap("bench", "--pp", 20, "--tg", 2, "--rows", "1,4", "-r", 1).stdout.decode()
    number = r" +\d+\.\d+"
    call = number * 3 + r" +\d+ GB/s +\d+\.\d TFLOP/s$"
    for line in (r"gemma4\.lap on gpu emulated GPU, median of 1$", r"^prompt +20 tokens" + call,
                 r"^decode +2 tokens" + number * 2 + r"  a token, at depth 20$", r"^step +1 row +" + call[2:],
                 r"^step +4 rows +" + call[2:], r"^memory  file .* on the device [\d.]+ MiB$"):
        assert re.search(line, out, re.M), "%s is not in\n%s" % (line, out)


def test_bench_contexts():
    j = json.loads(lap("bench", "--contexts", "8,40", "--tg", 2, "-r", 1, "--json").stdout)
    assert j["device"] == "gpu emulated GPU" and [c["context"] for c in j["contexts"]] == [8, 40], j
    for c in j["contexts"]:
        assert c["prompt_tokens_per_second"] > 0 and c["decode_tokens_per_second"] > 0, c
        assert c["sparse_prompt_tokens_per_second"] > 0, c
    assert j["sparse_left_out"] is None, j
    # With no assembler there are the kernels that were made before, and none for another alpha.
    bare = dict(os.environ, PATH=TMP)
    other = ["bench", "--contexts", "8,40", "--tg", 2, "-r", 1, "--alpha", 0.31]
    r = lap(*other, env=bare)
    assert re.search(r"^ +context +prompt tokens/s +decode tokens/s\n( +\d+ +[\d.]+ +[\d.]+\n){2}$", r.stdout.decode(), re.M), r
    assert re.search(rb"^lap bench: no sparse column, .*:\nerror: attention_\w+ for sm_90a: has errors$", r.stderr, re.M), r
    r = lap(*other, "--sparse", "on", "--json", code=1, env=bare)
    j = json.loads(r.stdout)
    assert "has errors" in j["sparse_left_out"] and b"has errors" in r.stderr, r
    for c in j["contexts"]:
        assert c["prompt_tokens_per_second"] > 0 and c["sparse_prompt_tokens_per_second"] is None, c


# ==== profile ====

def check_sums(j):
    lines, launches = j["lines"], j["all"]
    assert j["limits"] is None and j["floor_seconds"] is None
    assert j["launches"] == len(launches) == sum(x["count"] for x in lines) > len(lines)
    assert all(x["count"] == 1 for x in launches)
    assert near(sum(x["seconds"] for x in lines), j["sum_seconds"])
    for all_of in (lines, launches):
        for what in ("weight_bytes", "kv_bytes", "flops"):
            assert near(sum(x[what] for x in all_of), j[what]), what
    assert [x["seconds"] for x in lines] == sorted((x["seconds"] for x in lines), reverse=True)
    for x in lines:
        assert re.fullmatch(r"gemma4\.lap:\d+", x["place"]), x
        mine = [y for y in launches if y["kernel"] == x["kernel"] and re.fullmatch(
            r"\d+".join(map(re.escape, x["label"].split("*"))), y["label"])]
        assert len(mine) == x["count"] and near(sum(y["seconds"] for y in mine), x["seconds"]), x


def check_times(j):
    """Launches of the emulated GPU do not overlap, so each begins behind the one ahead."""
    assert near(j["explained"], j["sum_seconds"] / j["gpu_seconds"]) and j["noting_seconds"] > 0
    assert 0 < j["clock_step_seconds"] <= 1e-3 and j["calls"] >= 1
    end = 0
    for x in j["all"]:
        assert end <= x["begin"] <= x["go"] <= x["end"] and x["end"] > 0, x
        assert 0 <= x["gap_seconds"] <= x["seconds"], x
        end = x["end"]
    assert j["all"][0]["begin"] == 0
    if j["calls"] == 1:  # the call that is shown is the one that counts
        assert near(j["sum_seconds"], end)


def read_trace(path):
    with open(path) as f:
        events = json.load(f)["traceEvents"]
    assert [e["ph"] for e in events] == ["M"] + (len(events) - 1) * ["X"]
    return [e for e in events[1:] if e["cat"].endswith(".cu")], [e for e in events[1:] if e["cat"] == "wait"]


def check_trace(path, j):
    launches, waits = read_trace(path)
    assert [e["name"] for e in launches] == [x["label"] for x in j["all"]] and len(waits) == len(launches)
    for e, w, x in zip(launches, waits, j["all"]):
        assert near(e["ts"], 1e6 * x["begin"]) and near(e["ts"] + e["dur"], 1e6 * x["end"]) and e["tid"] == 0, e
        assert w["ts"] == e["ts"] and near(w["ts"] + w["dur"], 1e6 * x["go"]) and w["tid"] == 0, w


def check_trace_alone(path, j):
    launches, waits = read_trace(path)
    assert [e["name"] for e in launches] == [x["label"] for x in j["all"]] and not waits
    at = 0
    for e, x in zip(launches, j["all"]):
        assert near(e["ts"], at) and near(e["dur"], 1e6 * x["seconds"]), e
        at += e["dur"]


def expert_launches(j):
    return [x for x in j["all"] if "_exps" in x["label"] and x["weight_bytes"]]


def test_profile_decode():
    path = os.path.join(TMP, "trace.json")
    one = as_json("profile", "--rows", 1, "--depth", 20, "--all", "--trace", path, "-r", 2)
    four = as_json("profile", "--rows", 4, "--depth", 20, "--all", "-r", 2)
    assert (one["phase"], one["rows"], one["wanted"], one["depth"]) == ("decode8", 1, 1, 20)
    for j in one, four:
        check_sums(j)
        check_times(j)
        assert len(expert_launches(j)) == 2 * LAYERS
    check_trace(path, one)
    of = tensors()
    more = 0
    for x, y in zip(expert_launches(one), expert_launches(four)):
        bytes_of_one = of[x["label"]]["bytes"] / EXPERTS
        assert x["weight_bytes"] == CHOSEN * bytes_of_one, x
        touched = y["weight_bytes"] / bytes_of_one
        assert touched == int(touched) and CHOSEN <= touched <= EXPERTS, y
        more += touched > CHOSEN
    assert more, "four rows choose the same experts everywhere"
    plain = [x for x in one["all"] if x["label"] == "blk.0.ffn_down.weight"]
    assert [x["weight_bytes"] for x in plain] == [of["blk.0.ffn_down.weight"]["bytes"]]


def kv_by_label(depth, rows):
    j = as_json("profile", "--rows", rows, "--depth", depth, "--all", "-r", 1)
    return {x["label"]: (x["kv_bytes"], x["flops"]) for x in j["all"] if x["label"].startswith("attend")}


def test_keys_that_are_visible():
    short, long, rows = kv_by_label(20, 1), kv_by_label(40, 1), kv_by_label(40, 4)
    assert len(short) == LAYERS
    for label, (kv, flops) in short.items():
        windowed = "window" in label
        keys = [WINDOW] * 4 if windowed else [41, 42, 43, 44]  # of each row
        distinct = WINDOW + 3 if windowed else 44
        assert near(long[label][0] / kv, keys[0] / 21) and near(long[label][1] / flops, keys[0] / 21), label
        assert near(rows[label][0] / kv, distinct / 21) and near(rows[label][1] / flops, sum(keys) / 21), label


def test_profile_moments():
    j = as_json("profile", "--rows", 2, "--depth", 20, "--all", "-r", 1, "--moment", "own")
    check_times(j)
    attentions = [x for x in j["all"] if x["label"].startswith("attend")]
    assert attentions and all(x["begin"] < x["go"] for x in attentions), attentions
    r = lap("profile", "--moment", "noon", code=2)
    assert b"--moment wants one of wait|rows|queries|first|own|come|tail" in r.stderr, r.stderr
    r = lap("profile", "--moment", "own", "--alone", code=2)
    assert b"not with --alone" in r.stderr, r.stderr


def test_profile_alone():
    path = os.path.join(TMP, "alone.json")
    j = as_json("profile", "--alone", "--rows", 1, "--depth", 20, "--all", "--trace", path, "-r", 2)
    check_sums(j)
    check_trace_alone(path, j)
    assert all(x["gap_seconds"] is None and "begin" not in x for x in j["all"]) and "explained" not in j
    out = lap("profile", "--alone", "--rows", 1, "--depth", 20, "-r", 1).stdout.decode()
    line = re.compile(r"^ +[\d.]+ +[\d.]+ % +(\d+) +[\d.]+  (\w+) +(.*?) +gemma4\.lap:\d+$", re.M)
    assert sum(int(n) for n, _, _ in line.findall(out)) == j["launches"], out
    assert re.search(r"^sum +[\d.]+ us of launches one by one$", out, re.M), out


def test_profile_prompt():
    j = as_json("profile", "--pp", 24, "--depth", 0, "--all", "-r", 1)
    check_times(j)
    assert (j["phase"], j["rows"], j["wanted"], j["depth"]) == ("prefill", 24, 1, 0)
    check_sums(j)
    head = [x for x in j["all"] if x["label"] == "token_embd.weight"]
    elements = 1
    for n in tensors()["token_embd.weight"]["shape"]:
        elements *= n
    assert [x["flops"] for x in head] == [2 * elements], "the head runs on one row"


def test_profile_text():
    out = lap("profile", "--rows", 2, "--depth", 20, "-r", 1).stdout.decode()
    every = lap("profile", "--rows", 2, "--depth", 20, "-r", 1, "--all").stdout.decode()
    line = re.compile(r"^ +[\d.]+ +[\d.]+ % +(\d+) +[\d.]+ +[\d.]+  (\w+) +(.*?) +gemma4\.lap:\d+$", re.M)
    found, all_found = line.findall(out), line.findall(every)
    launches = int(re.search(r"; (\d+) launches, mean of 1$", out, re.M).group(1))
    assert sum(int(n) for n, _, _ in found) == launches == len(all_found) > len(found)
    assert ("2", "blk.*.attn_q.weight + 2") in [(n, label) for n, _, label in found], out
    assert all_found[0][2] == "embed" and all_found[-1][2] == "token_embd.weight", every
    for text in (r"^sum +[\d.]+ us of launches as they run: [\d.]+ % of the call; the clock's steps are \d+ ns$",
                 r"^call +[\d.]+ us as a whole, [\d.]+ us \([+-][\d.]+ %\) while launches note their times$"):
        assert re.search(text, out, re.M), out


def test_tuning_is_said():
    """For at most 2 s of timing, on a device a thousand times too slow for it; without it nothing is said, but by which rates
    the chunk was chosen, which cannot be measured here."""
    kept = os.path.join(CACHE, "tuned.txt")
    args = ["--pp", 4, "--tg", 1, "--rows", "1", "-r", 1, "-v"]
    err = lap("bench", *args).stderr
    assert b"tuning" not in err and b"choice" not in open(kept, "rb").read(), err
    assert re.search(rb"^rates of an H100's multiprocessors: reads 3100 GB/s, .* launch; this GPU could not be measured, by ", err,
                     re.M), err
    r = lap("bench", *args, "--tune", "auto", "--json")
    err, j = r.stderr.decode(), json.loads(r.stdout)["tuning"]
    line = re.search(r"^tuning: (\d+) shapes of decode matmuls known, (\d+) too small, (\d+) timed in ([\d.]+) s", err, re.M)
    assert line and line[1] == "0" and int(line[2]) > 0 and float(line[4]) < 20, err
    assert (j["known"], j["small"], len(j["timed"])) == (0, int(line[2]), int(line[3])) and j["seconds"] < 20, j
    assert all(x["cuts"][x["chosen"]]["seconds"] is not None for x in j["timed"]), j
    if os.path.exists(kept):
        os.remove(kept)


def test_profile_of_an_edited_kernel():
    """The text of the file is timed like any; one that cannot be is refused."""
    folder = os.path.join(TMP, "kernels")
    subprocess.run([LAP, "print", os.path.join(REPO, "models", "gemma4.lap"), "--weights", MOE, "--kernels", folder],
                   capture_output=True, check=True)
    path = os.path.join(folder, "matmul_2.cu")
    text = open(path).read()
    for edited, code, message in (
            (text.replace("launch_begins();", "launch_begins(); /* edited */"), 0, b""),
            (text.replace("launch_begins();", "launch_begins(), edited();"), 1, rb"matmul_decode\.cu.*error: .*edited"),
            ("/* edited */\n" + text, 1, rb"kernel matmul_2 cannot be timed: its text does not begin with")):
        assert edited != text
        with open(path, "w") as f:
            f.write(edited)
        r = lap("profile", "--depth", 1, "-r", 1, "--use-kernel", path, code=code)
        assert re.search(message, r.stderr), r.stderr


def test_trace_that_cannot_be_written():
    r = lap("profile", "--depth", 1, "-r", 1, "--trace", os.path.join(TMP, "no", "such"), code=3)
    assert re.search(rb"^lap profile: error: cannot write .*such: No such file", r.stderr, re.M), r.stderr


def main():
    try:
        for name, f in [(name, f) for name, f in globals().items() if name.startswith("test_")]:
            f()
            print("ok", name, flush=True)
    finally:
        shutil.rmtree(TMP)


if __name__ == "__main__":
    main()
