#!/usr/bin/env python3
"""What the command does over time and with files, on the tiny model: behave_test.py LAP [TEST...]; see behave.py."""
import importlib.util
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from xml.etree import ElementTree

from behave import (IDS, LAP, REPO, SEED, TINY, TMP, chat, floats, ids_file, lap, logits_of, main, rms_difference,
                    vocabulary)


# ==== run ====

def test_same_seed_same_bytes():
    args = ["run", TINY, "-p", "the water of the", "-n", "60", "-q", "--temp", "1.2"]
    first = lap(*args, "--seed", 7).stdout
    assert first == lap(*args, "--seed", 7).stdout
    assert first != lap(*args, "--seed", 8).stdout
    assert first == lap(*args, "--seed", 7, "--threads", 1).stdout, "the number of threads changes the text"
    assert len(first) > 100


def test_quiet_and_statistics():
    assert lap("run", TINY, "-p", "x", "-n", "4", "-q").stderr == b""
    stats = lap("run", TINY, "-p", "x", "-n", "4").stderr.decode()
    assert "tokens/s" in stats and "generated 4 in" in stats and "device cpu" in stats, stats


def test_prompt_from_everywhere():
    path = os.path.join(TMP, "prompt.txt")
    with open(path, "w") as f:
        f.write("the morning")
    want = lap("run", TINY, "-p", "the morning", "-n", "8", "-q").stdout
    assert want == lap("run", TINY, "-f", path, "-n", "8", "-q").stdout
    assert want == lap("run", TINY, "-n", "8", "-q", stdin=b"the morning").stdout
    assert lap("run", TINY, "-p", "the morning", "-n", "8", "-q", "--echo").stdout == b"the morning" + want


def test_check_json():
    path = os.path.join(TMP, "float.lap")
    with open(os.path.join(REPO, "models", "gemma3.lap")) as f, open(path, "w") as out:
        out.write(f.read().replace("param L       : int    =", "param L       : float  ="))
    j = json.loads(lap("check", path, "--weights", TINY, "--json", code=1).stdout)
    assert len(j) == 1 and j[0]["errors"] == 1 and "error: parameter 'L'" in j[0]["messages"], j
    d = j[0]["diagnostics"]
    assert [(m["file"], m["line"], m["column"], m["severity"]) for m in d] == [(path, 4, 9, "error")], d
    assert d[0]["text"].startswith("parameter 'L' is declared float"), d
    assert [(n["file"], n["line"], n["column"], n["text"]) for n in d[0]["notes"]] == [
        (path, 7, 23, "the array is here"), (TINY, None, None, "key 'gemma3.block_count' holds an int")], d
    j = json.loads(lap("check", os.path.join(TMP, "absent.lap"), os.path.join(REPO, "models", "gemma3.lap"), "--json",
                       code=1).stdout)
    assert [m["line"] for m in j[0]["diagnostics"]] == [None] and j[1]["diagnostics"] == [], j


def test_json():
    j = json.loads(lap("run", TINY, "-p", "the", "-n", "5", "--json", "--greedy").stdout)
    text = lap("run", TINY, "-p", "the", "-n", "5", "-q", "--greedy").stdout.decode()
    assert j["text"] + "\n" == text and len(j["ids"]) == 5 and j["prompt_ids"][0] == 2, j
    assert j["timings"]["decode_tokens_per_second"] > 0 and j["stopped"] == "token count reached", j


def test_ids_without_tokenizer():
    path, _ = ids_file(9, random.Random(SEED))
    out = lap("run", IDS, "--tokens-file", path, "-n", "6", "--greedy", "-q").stdout.decode().split()
    made = json.loads(lap("run", TINY, "--tokens-file", path, "-n", "6", "--greedy", "--json").stdout)["ids"]
    assert [int(x) for x in out] == made, (out, made)


def test_logits_and_dumps_have_their_shapes():
    path, ids = ids_file(21, random.Random(SEED))
    vocab = vocabulary()
    assert len(logits_of(path, "-n", "0")) == 21 * vocab
    longer = logits_of(path, "-n", "5")
    assert len(longer) == (21 + 4) * vocab
    greedy = json.loads(lap("run", TINY, "--tokens-file", path, "-n", "5", "--greedy", "--json").stdout)["ids"]
    for step, token in enumerate(greedy):
        row = longer[(20 + step) * vocab:(21 + step) * vocab]
        assert row.index(max(row)) == token, "row %d is not what token %d was picked from" % (20 + step, step)
    a, b = os.path.join(TMP, "a.f32"), os.path.join(TMP, "b.f32")
    lap("run", TINY, "--tokens-file", path, "-n", "2", "-q", "--dump", "layer[3]=" + a, "--dump", "embed=" + b)
    assert len(floats(a)) == len(floats(b)) == 21 * 64
    assert rms_difference(floats(a), floats(b)) > 0.1
    lap("run", TINY, "--tokens-file", path, "-n", "0", "-q", "--dump", "layer.3=" + b)
    assert floats(a) == floats(b)


def test_chunks_and_rings():
    """Windows of 16 in a sequence of 200: with a small chunk the rings wrap many times."""
    path, _ = ids_file(200, random.Random(SEED))
    whole = logits_of(path, "-n", "0", "--chunk", "200")
    assert max(whole) > min(whole) + 1
    for chunk in (1, 7, 64):
        d = rms_difference(whole, logits_of(path, "-n", "0", "--chunk", chunk))
        assert d < 1e-6, "chunk %d: relative difference %g" % (chunk, d)


def test_types_of_the_cache():
    """Rounded keys and values change the logits a little; auto is f32 on the CPU."""
    path, _ = ids_file(40, random.Random(SEED))
    exact = logits_of(path, "-n", "0", "--device", "cpu")
    assert exact == logits_of(path, "-n", "0", "--device", "cpu", "--kv-k", "f32", "--kv-v", "auto")
    half = logits_of(path, "-n", "0", "--device", "cpu", "--kv-k", "f16", "--kv-v", "f16")
    brief = logits_of(path, "-n", "0", "--device", "cpu", "--kv-k", "bf16", "--kv-v", "bf16")
    assert 0 < rms_difference(exact, half) < 2e-3, rms_difference(exact, half)
    assert rms_difference(exact, half) < rms_difference(exact, brief) < 2e-2, rms_difference(exact, brief)
    eight = logits_of(path, "-n", "0", "--device", "cpu", "--kv-k", "q8_0", "--kv-v", "q8_0")
    four = logits_of(path, "-n", "0", "--device", "cpu", "--kv-k", "q8_0", "--kv-v", "q4_0")
    assert rms_difference(exact, brief) < rms_difference(exact, eight) < 0.1, rms_difference(exact, eight)
    assert rms_difference(exact, eight) < rms_difference(exact, four) < 0.8, rms_difference(exact, four)
    for kv in "f16", "q8_0":
        lap("run", TINY, "-p", "the", "-n", "2", "-q", "--device", "cpu", "--kv-k", kv, "--verify-each")


def test_types_of_the_cache_in_the_text():
    """A text that names the type of each cache is as the options; one that names some keeps those."""
    ids, _ = ids_file(40, random.Random(SEED))
    with open(os.path.join(REPO, "models", "gemma3.lap")) as f:
        text = f.read()
    before, end = "full, scale = scale", ")"
    assert text.count(before + end) == 1
    made = os.path.join(TMP, "typed.lap")

    def of_text(named, *options):
        with open(made, "w") as f:
            f.write(text.replace(before + end, before + ", " + named + end))
        return logits_of(ids, "-n", "0", "--device", "cpu", "--model", made, *options)

    want = logits_of(ids, "-n", "0", "--device", "cpu", "--kv-k", "q8_0", "--kv-v", "q4_0")
    assert want == of_text('k_type = "q8_0", v_type = "q4_0"')
    assert want == of_text('k_type = "q8_0", v_type = none', "--kv-k", "bf16", "--kv-v", "q4_0")
    mixed = of_text('k_type = i % 2 == 0 ? "q8_0" : none, v_type = "q4_0"')
    assert mixed != want and rms_difference(want, mixed) < 0.8
    shown = lap("print", made, "--weights", TINY, "--after", "plan-kv").stdout.decode()
    types = re.findall(r"^cache kv\.(\d+) : heads 1 k (\w+)\[32\] v (\w+)\[32\]", shown, re.M)
    assert len(types) > 2 and all(t == (str(i), "f32" if i % 2 else "q8_0", "q4_0") for i, t in enumerate(types)), types


def test_context_full():
    r = lap("run", TINY, "-p", "the", "--context", "20", "-n", "100", "--json")
    j = json.loads(r.stdout)
    assert j["stopped"] == "context full" and len(j["prompt_ids"]) + len(j["ids"]) == 21, j


def test_interrupt():
    p = subprocess.Popen([LAP, "run", TINY, "-p", "the", "-n", "1000000", "--context", "60000"],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    head = p.stdout.read(50)
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=60)
    assert p.returncode == 130, p.returncode
    assert len(head) == 50 and out.endswith(b"\n")
    assert b"interrupted\n" in err and b"tokens/s" in err, err


def test_interrupted_prompt_counts_what_was_read():
    path = os.path.join(TMP, "long.txt")
    with open(path, "w") as f:
        f.write("the " * 60000)
    p = subprocess.Popen([LAP, "run", TINY, "-f", path, "--context", "70000", "--chunk", "64", "-q", "--json"],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(1)
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=60)
    assert p.returncode == 130, (p.returncode, err)
    assert json.loads(out)["timings"]["prompt_tokens"] < 60000, out[-300:]


def test_output_that_cannot_be_written():
    with open("/dev/full", "w") as full:
        r = lap("run", TINY, "-p", "the", "-n", "3", "-q", code=3, stdout=full)
        assert b"cannot write standard output: No space left on device" in r.stderr, r.stderr
        assert b": No space left" in lap("inspect", TINY, "--meta", code=3, stdout=full).stderr
        lap("--help", code=3, stdout=full)


def test_standard_files_that_are_closed():
    """Nothing that is opened takes their place: text does not go into a file, and what cannot be written is said."""
    out = os.path.join(TMP, "closed.f32")
    args = ["run", TINY, "-n", "3", "-q", "--logits", out]
    lap(*args, "-p", "x")
    want = open(out, "rb").read()

    def closed(*numbers, code, more=("-p", "x")):
        os.unlink(out)
        r = subprocess.run([LAP] + args + list(more), capture_output=True, timeout=300,
                           preexec_fn=lambda: [os.close(n) for n in numbers])
        assert r.returncode == code, r
        return r
    assert b"cannot write standard output: Bad file descriptor" in closed(1, code=3).stderr
    assert open(out, "rb").read() == want[:len(open(out, "rb").read())]
    closed(0, 1, 2, code=3)
    assert open(out, "rb").read() == want[:len(open(out, "rb").read())]
    closed(0, 2, code=0)
    assert open(out, "rb").read() == want
    r = closed(0, code=1, more=())
    assert b"cannot read standard input: Bad file descriptor" in r.stderr and not r.stdout, r


def test_inputs_are_not_written_over():
    """By whatever name the output is called, and before anything is written."""
    folder = os.path.join(TMP, "inputs")
    os.makedirs(os.path.join(folder, "hf"))
    at = {n: os.path.join(folder, n) for n in ("m.gguf", "hard.gguf", "soft.gguf", "m.lap", "p.txt", "s.f32", "hf",
                                               "s-00001-of-00002.gguf", "s-00002-of-00002.gguf", "hf/config.json",
                                               "hf/model.safetensors", "hf/tokenizer.json", "hf/own.gguf")}
    shutil.copy(TINY, at["m.gguf"])
    shutil.copy(os.path.join(REPO, "models", "gemma3.lap"), at["m.lap"])
    os.link(at["m.gguf"], at["hard.gguf"])
    os.symlink("m.gguf", at["soft.gguf"])
    for name, path in at.items():
        if not os.path.exists(path):
            with open(path, "w") as f:
                f.write("the morning of " + name)
    kept = {path: open(path, "rb").read() for path in at.values() if os.path.isfile(path)}
    run = ["run", at["m.gguf"], "-n", 1, "-q"]
    compile_it = ["compile", at["m.lap"], "-w", at["m.gguf"], "-o"]
    for output, args, stdin in (
            ("m.gguf", run + ["-p", "x", "--logits"], None), ("hard.gguf", run + ["-p", "x", "--logits"], None),
            ("soft.gguf", run + ["-p", "x", "--dump", "final="], None), ("p.txt", run + ["-f", at["p.txt"], "--logits"], None),
            ("p.txt", run + ["--logits"], "p.txt"), ("p.txt", run + ["-f", "-", "--logits"], "p.txt"),
            ("m.lap", run + ["-p", "x", "-m", at["m.lap"], "--logits"], None),
            ("m.gguf", compile_it, None), ("m.lap", compile_it, None),
            ("soft.gguf", ["bench", at["m.gguf"], "--contexts", 8, "--svg"], None),
            ("soft.gguf", ["profile", at["m.gguf"], "--trace"], None),
            ("s-00002-of-00002.gguf", ["run", at["s-00001-of-00002.gguf"], "-p", "x", "--logits"], None),
            ("hf/model.safetensors", ["convert", at["hf"], "-o"], None),
            ("hf/config.json", ["convert", at["hf"], "-o"], None),
            ("hf/tokenizer.json", ["convert", at["hf/model.safetensors"], "-o"], None)):
        given = [str(a) for a in args[:-1]] + ([args[-1] + at[output]] if args[-1] == "final=" else [args[-1], at[output]])
        with open(at[stdin] if stdin else os.devnull, "rb") as f:
            r = subprocess.run([LAP] + given, stdin=f, capture_output=True, timeout=300)
        want = "lap %s: error: %s is an input: it would be overwritten\n" % (args[0], at[output])
        assert (r.returncode, r.stdout, r.stderr.decode()) == (2, b"", want), (given, r)
        for path, data in kept.items():
            assert open(path, "rb").read() == data, (given, path)
    lap(*run, "-p", "x", "--logits", at["s.f32"])  # what is no input is written over
    assert len(floats(at["s.f32"])) == vocabulary() * len(lap("tokenize", TINY, "--ids", "--bos", "x").stdout.split())
    left = lap("convert", at["hf"], "-o", at["hf/own.gguf"], code=1).stderr
    assert b"is an input" not in left, left


def test_inputs_that_are_not_named_are_not_written_over():
    """The default output of compile, the kernels of print, the drafter that stands beside the weights."""
    folder = os.path.join(TMP, "unnamed")
    os.makedirs(folder)
    text = os.path.join(REPO, "models", "gemma3.lap")
    shutil.copy(TINY, os.path.join(folder, "gemma3.facet"))
    r = subprocess.run([LAP, "compile", text, "-w", "gemma3.facet"], cwd=folder, capture_output=True, timeout=60)
    assert r.returncode == 2 and b"gemma3.facet is an input: it would be overwritten" in r.stderr, r
    kernels = os.path.join(folder, "kernels")
    lap("print", text, "--weights", TINY, "--plan", "--kernels", kernels)
    first = os.path.join(kernels, sorted(os.listdir(kernels))[-1])
    shutil.copy(TINY, first)
    r = lap("print", text, "--weights", first, "--kernels", kernels, code=2).stderr.decode()
    assert r == "lap print: error: %s is an input: it would be overwritten\n" % first, r
    assert open(first, "rb").read() == open(TINY, "rb").read()
    small = os.path.join(REPO, "examples", "small", "models")
    for name in "dense.gguf", "dense-mtp.gguf":
        shutil.copy(os.path.join(small, name), folder)
    drafter = os.path.join(folder, "dense-mtp.gguf")
    r = lap("run", os.path.join(folder, "dense.gguf"), "-p", "x", "--draft-method", "mtp", "--logits", drafter, code=2)
    assert r.stderr.decode() == "lap run: error: %s is an input: it would be overwritten\n" % drafter, r


# ==== where a text ends ====

def test_end_of_turn():
    """A control token that ends a reply in the text's chat ends a text too, without a key of the file that says so; of
    the end of a line, which ends a base model's reply, that is not so."""
    wild = ["run", TINY, "-p", "x", "--temp", "9", "--top-k", "0", "--top-p", "1", "--min-p", "0", "-n", "300", "--json"]
    turn, = json.loads(lap("tokenize", TINY, "<end_of_turn>", "--special", "--json").stdout)
    for seed in range(200):
        plain = json.loads(lap(*wild, "-s", seed, "--set", "tuned=false").stdout)
        if turn in plain["ids"] and "\n" in plain["text"]:
            break
    assert "\n" in plain["text"], seed
    before = plain["ids"][:plain["ids"].index(turn)]
    ends = json.loads(lap(*wild, "-s", seed, "--set", "tuned=true").stdout)
    assert ends["ids"] == before and ends["stopped"] == "end of text", (seed, before, ends["ids"], ends["stopped"])
    goes_on = json.loads(lap(*wild, "-s", seed, "--set", "tuned=true", "--ignore-eos").stdout)
    assert goes_on["ids"][:len(plain["ids"])] == plain["ids"] and len(goes_on["ids"]) == 300, goes_on


def test_ignore_eos():
    """A draw that ends with the text goes on from there, the tokens before it the same."""
    wild = ["run", TINY, "-p", "x", "--temp", "9", "--top-k", "0", "--top-p", "1", "--min-p", "0", "-n", "300", "--json"]
    for seed in range(200):
        ends = json.loads(lap(*wild, "-s", seed).stdout)
        if ends["stopped"] == "end of text":
            break
    goes_on = json.loads(lap(*wild, "-s", seed, "--ignore-eos").stdout)
    assert ends["stopped"] == "end of text" and goes_on["stopped"] == "token count reached"
    assert len(goes_on["ids"]) == 300 > len(ends["ids"]) and goes_on["ids"][:len(ends["ids"])] == ends["ids"]


# ==== print, fmt, tokenize ====

def readme_block(start):
    """The lines of the block of README.md that begins so."""
    with open(os.path.join(REPO, "README.md")) as f:
        blocks = f.read().split("```\n")[1::2]
    return next(b for b in blocks if b.startswith(start)).splitlines()


def test_readme_shows_what_is_printed():
    """The module of first.lap, up to numbers, which depend on the weights; the sample of an error."""
    def shape(line):
        return re.sub(r"\d+(\.\d+|e-\d+)*", "N", line.split("  # ")[0])

    out = lap("print", os.path.join(REPO, "examples", "first", "first.lap"), "--weights", TINY).stdout.decode()
    printed = {shape(line) for line in out.splitlines()}
    missing = [line for line in readme_block("cache kv.0 : ") if line != "  ..." and shape(line) not in printed]
    assert not missing, (missing, out)
    shutil.copy(TINY, os.path.join(TMP, "model.gguf"))
    with open(os.path.join(REPO, "models", "gemma3.lap")) as f, open(os.path.join(TMP, "gemma3.lap"), "w") as g:
        g.write(f.read().replace("attn_norm.weight", "atn_norm.weight", 1))
    r = subprocess.run([LAP, "check", "gemma3.lap", "-w", "model.gguf"], cwd=TMP, capture_output=True, timeout=60)
    want = readme_block("gemma3.lap:")
    assert r.returncode == 1 and r.stderr.decode().splitlines()[:len(want)] == want, (r.stderr.decode(), want)


def test_print_reads_back():
    text = os.path.join(REPO, "models", "gemma3.lap")
    for options in (["--after", "none"], ["--taps"], []):
        ir = lap("print", text, "--weights", TINY, *options).stdout
        path = os.path.join(TMP, "x.ir")
        with open(path, "wb") as f:
            f.write(ir)
        assert lap("print", path, "--after", "none").stdout == ir, "print of print differs with %s" % options
    diff = lap("print", text, "--weights", TINY, "--diff").stdout.decode()
    assert any(x.startswith("+") for x in diff.splitlines()) and any(x.startswith("-") for x in diff.splitlines())


DEEP = """model deep from gguf "gemma3" {
  param list : float[256] = 0.5
  fn deep(s, n) = if n == 0 then s else 1 - deep(s, n - 1)
  variant v {
    visible(q, k) = k <= q
    score(s, q, k, h) = list[h] * deep(s, 48)
  }
  entry step(tokens: token[T], pos: pos[T]) {
    let x = heads(embed(tokens, "token_embd.weight"), 2)
    emit logits = linear(rows(flat(attend(x, x, x, cache c, v, scale = 1.0))), "token_embd.weight")
  }
}
"""


def test_deep_expressions_read_back():
    """What lowering lets pass, the reader of IR text takes: --verify-each reads it."""
    path = os.path.join(TMP, "deep.lap")
    with open(path, "w") as f:
        f.write(DEEP)
    ir = lap("print", path, "--weights", TINY, "--verify-each").stdout
    with open(path + ".ir", "wb") as f:
        f.write(ir)
    assert b"select(" in ir and lap("print", path + ".ir", "--after", "none").stdout == ir


def test_fmt_in_place():
    path = os.path.join(TMP, "f.lap")
    with open(path, "w") as f:
        f.write("model  x  {\n # kept\n param a:int=1 }\n")
    os.chmod(path, 0o640)
    assert lap("fmt", "--check", path, code=1).stdout.decode() == path + "\n"
    want = lap("fmt", path).stdout
    lap("fmt", "-i", path)
    with open(path, "rb") as f:
        assert f.read() == want and b"# kept" in want
    assert os.stat(path).st_mode & 0o777 == 0o640
    lap("fmt", "--check", path)
    with open(path, "w") as f:
        f.write("model  x  {\n # kept\n param a:int=1 }\n")
    link = os.path.join(TMP, "link.lap")
    os.symlink("f.lap", link)
    lap("fmt", "-i", link)
    assert os.path.islink(link) and open(path, "rb").read() == want


def test_tokenize_round_trip():
    rng = random.Random(SEED)
    alphabet = "abc the of  \n\t.,<>|é漢🙂\u2581" + "".join(map(chr, range(33, 127)))
    for _ in range(20):
        text = "".join(rng.choice(alphabet) for _ in range(rng.randrange(1, 60)))
        ids = lap("tokenize", TINY, "--ids", stdin=text.encode()).stdout.decode().strip()
        back = lap("tokenize", TINY, "--decode", ids).stdout.decode()
        assert back == text.replace("\u2581", " ") + "\n", (text, ids, back)


def test_kinds_that_bytes_tell():
    facet, hf = os.path.join(TMP, "d.facet"), os.path.join(TMP, "h.bin")
    with open(facet, "wb") as f:
        f.write(b"PK\3\4 and so on")
    with open(hf, "wb") as f:
        f.write(b"\2\0\0\0\0\0\0\0{}")
    for args, path, what, takes, use in (
            (["run", facet, "-p", "x"], facet, "a bundle", "lap run takes WEIGHTS", "lap run WEIGHTS --facet " + facet),
            (["check", facet], facet, "a bundle", "lap check takes M.lap", "lap inspect " + facet),
            (["print", hf], hf, "a safetensors file", "lap print takes M.lap|FILE.ir", "lap inspect " + hf),
            (["run", TINY, "-p", "x", "--facet", TINY], TINY, "a GGUF file", "--facet takes F.facet", "lap run " + TINY)):
        said = lap(*args, code=1).stderr.decode()
        assert said.startswith("error: %s is %s; %s\nnote: " % (path, what, takes)) and use in said, said
    for command in "inspect", "convert":  # each is theirs
        assert b" takes " not in lap(command, *([facet] if command == "inspect" else [hf, "--dry-run"]), code=1).stderr


# ==== Texts that work for a target ====

def maker():
    """examples/tiny/make_tiny.py as a module: it knows how a GGUF file is written."""
    spec = importlib.util.spec_from_file_location("make_tiny", os.path.join(REPO, "examples", "tiny", "make_tiny.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small_file(name, arch, keys, tensors):
    """F32 tensors {name: shape} of zeros."""
    m = maker()
    path = os.path.join(TMP, name)
    rows = [(n, dims, m.F32, bytes(4 * math.prod(dims))) for n, dims in tensors.items()]
    m.write(path, [m.key_text("general.architecture", arch)] + [m.key_int(k, v) for k, v in keys.items()], rows)
    return path


def test_texts_with_a_target():
    texts = os.path.join(REPO, "tests", "frontend", "semantic")
    target, mtp, dflash = [os.path.join(texts, "good_%s.lap" % n) for n in ("target", "mtp", "dflash")]
    tw = small_file("target.gguf", "demo", {"demo.block_count": 2, "demo.embedding_length": 32},
                    {"embd": [50, 32], "blk.0.k": [16, 32], "blk.1.k": [16, 32]})
    mw = small_file("mtp.gguf", "mtp", {}, {"pre": [32, 64], "post": [32, 32]})
    dw = small_file("dflash.gguf", "dflash", {}, {"fc": [32, 64], "k": [32, 32], "q": [64, 32], "o": [32, 64]})
    for text, weights, shape in (mtp, mw, b"(3 weights, 1 cache, 1 entry)"), (dflash, dw, b"(5 weights, 2 caches, 2 entries)"):
        given = ["--weights", weights, "--target", tw, "--target-model", target]
        assert shape in lap("check", text, *given).stdout
        with open(text[:-4] + ".ir") as f:
            want = [line for line in f if line.startswith(("weight", "cache"))]
        ir = lap("print", text, *given, "--after", "none").stdout.decode()
        got = [line for line in ir.splitlines() if line.startswith(("weight", "cache"))]
        assert [x.split("#")[0].replace("target.gguf", tw).strip() for x in want] == [x.split("#")[0].strip() for x in got]
        assert b"graph draft" in lap("print", text, *given, "--verify-each").stdout
        for command in "check", "print":
            none = lap(command, text, "--weights", weights, code=1).stderr.decode()
            assert "works for a target, \"big\": give the target's weights with --target TW" in none, none
            unknown = lap(command, text, "--weights", weights, "--target", tw, code=1).stderr.decode()
            assert 'no built-in model text for architecture "demo"' in unknown and "--target-model FILE.lap" in unknown
            assert b"cannot open" in lap(command, text, "--weights", weights, "--target", tw + "x", code=1).stderr
            wrong = lap(command, text, "--weights", weights, "--target", TINY, code=1).stderr.decode()
            assert "works for target 'big', but the target given is 'gemma3'" in wrong, wrong
            bad = lap(command, text, "--weights", weights, "--target", mw, "--target-model", target, code=1)
            assert b"while compiling the target" in bad.stderr, bad.stderr
    assert b"ok" in lap("check", mtp).stdout, "without weights no target is needed"


# ==== doctor, scripts ====

def test_doctor_json():
    j = json.loads(lap("doctor", "--json", "--nvrtc", "/no/such/folder").stdout)
    assert type(j["threads"]) is int and j["threads"] == os.cpu_count(), j
    assert type(j["memory"]["bytes"]) is int and 0 < j["memory"]["free_bytes"] <= j["memory"]["bytes"], j
    assert j["NVRTC"]["found"] is False and "/no/such/folder" in j["NVRTC"]["error"], j
    assert type(j["CUDA driver"]["found"]) is bool and type(j["version"]) is str, j
    assert all(type(m["name"]) is str and type(m["bytes"]) is int for m in j["models"]), j


CHOICE = 'choice sm_90a "NVIDIA \\"H\\" 100" %s "linear 64 = Q8_0 64, 1 x 64, rows 8" %s partials 4 ns %d %d\n'


def test_doctor_lists_what_was_tuned():
    cache = os.path.join(TMP, "tuned-kernels")
    options = ["doctor", "--tuned", "--kernel-cache", cache]
    j = json.loads(lap(*options, "--json").stdout)["tuned"]
    assert j["choices"] == [] and j["file"] == os.path.join(cache, "tuned.txt"), j
    assert "tuned" not in json.loads(lap("doctor", "--json").stdout)
    os.mkdir(cache)
    with open(j["file"], "w") as f:
        f.write("tuned 1\n" + CHOICE % (j["kernels"], "tuned groups 1 stages 5 flight 3", 2000, 1500))
        f.write(CHOICE % ("k0123456789abcdef", "analytic groups 2 stages 16 flight 16", 7, 7))
    j = json.loads(lap(*options, "--json").stdout)["tuned"]
    assert [(c["tuned"], c["of_these_kernels"], c["stages"]) for c in j["choices"]] == [
        (True, True, 5), (False, False, 16)], j
    assert (j["choices"][0]["gpu"], j["choices"][0]["rule_seconds"]) == ('NVIDIA "H" 100', 2e-6), j
    out = lap(*options).stdout.decode()
    for line in (r"^tuned +%s: 2 shapes$" % re.escape(j["file"]),
                 r'sm_90a, NVIDIA "H" 100: linear 64 = .*: groups 1 stages 5 flight 3, 1\.5 us for 2\.0 by rule '
                 r"\(-25\.00 %\)$", r"flight 16, by rule \(of another version's kernels\)$"):
        assert re.search(line, out, re.M), (line, out)
    with open(j["file"], "a") as f:
        f.write("choice of nothing\n")
    r = lap(*options)
    assert b"warning: %s: line 4 is no choice of tuning and left out" % j["file"].encode() in r.stderr, r.stderr
    assert b": 2 shapes" in r.stdout, r.stdout


def test_quickstart_keeps_its_log():
    folder = os.path.join(TMP, "clone")
    os.makedirs(os.path.join(folder, "bin"))
    shutil.copy(os.path.join(REPO, "quickstart.sh"), folder)
    cmake = os.path.join(folder, "bin", "cmake")
    with open(cmake, "w") as f:
        f.write("#!/bin/sh\necho no such compiler\nexit 1\n")
    os.chmod(cmake, 0o755)
    env = dict(os.environ, PATH=os.path.join(folder, "bin") + ":" + os.environ["PATH"])
    r = subprocess.run([os.path.join(folder, "quickstart.sh"), "--offline"], env=env, capture_output=True, timeout=60)
    assert r.returncode == 1 and b"no such compiler" in r.stdout, r
    assert sorted(os.listdir(folder)) == ["bin", "build", "quickstart.sh"], os.listdir(folder)
    assert os.listdir(os.path.join(folder, "build")) == ["configure.log"]


def test_unpack_says_how():
    script = os.path.join(REPO, "tests", "fixtures", "unpack.py")
    for args in [], ["one"]:
        r = subprocess.run([sys.executable, script] + args, capture_output=True, timeout=60)
        assert r.returncode == 2 and r.stderr == b"Usage: unpack.py SOURCE DEST\n" and not r.stdout, r


# ==== perplexity, bench ====

def surprise(row, token):
    top = max(row)
    return math.log(sum(math.exp(x - top) for x in row)) + top - row[token]


def test_perplexity_by_hand():
    rng = random.Random(SEED)
    text = " ".join(rng.choice("the of and to in water stone green river morning".split()) for _ in range(90))
    path = os.path.join(TMP, "text.txt")
    with open(path, "w") as f:
        f.write(text)
    ids = [int(x) for x in lap("tokenize", TINY, "--ids", "--bos", "--file", path).stdout.split()]
    vocab, window = vocabulary(), 32
    sums = []
    for w in range(len(ids) // window):
        part = [2] + ids[w * window + 1:(w + 1) * window]
        with open(os.path.join(TMP, "w.txt"), "w") as f:
            f.write(" ".join(map(str, part)))
        logits = logits_of(os.path.join(TMP, "w.txt"), "-n", "0")
        sums += [surprise(logits[i * vocab:(i + 1) * vocab], part[i + 1]) for i in range(window // 2, window - 1)]
    want = math.exp(sum(sums) / len(sums))
    got = json.loads(lap("perplexity", TINY, "--file", path, "--context", window, "--json").stdout)
    assert got["scored"] == len(sums) and abs(got["perplexity"] / want - 1) < 1e-5, (got, want, len(sums))
    whole = json.loads(lap("perplexity", TINY, "--file", path, "--whole", "--json").stdout)
    assert whole["scored"] == len(ids) - 1
    logits = logits_of_ids(ids)
    want = math.exp(sum(surprise(logits[i * vocab:(i + 1) * vocab], t) for i, t in enumerate(ids[1:])) / (len(ids) - 1))
    assert abs(whole["perplexity"] / want - 1) < 1e-5, (whole, want)
    stride = json.loads(lap("perplexity", TINY, "--file", path, "--context", 32, "--stride", 8, "--json").stdout)
    assert stride["scored"] == 8 * ((len(ids) - 32) // 8 + 1), stride


def test_sparse_prompts():
    """However a prompt is cut at multiples of the block, sparse attention is the same; nothing left out is dense."""
    tokens, _ = ids_file(1700, random.Random(SEED))
    def logits(*options):
        return logits_of(tokens, "-n", "0", "--device", "cpu", "-c", 1800, "--set", "every=2", *options)
    dense = logits("--sparse", "off")
    # Of random tokens nearly all blocks score alike: only at alpha 1, which keeps the highest, some are surely left out.
    assert dense == logits() == logits("--sparse", "on", "--alpha", 0)
    on = logits("--sparse", "on", "--alpha", 1, "--chunk", 128)
    assert on == logits("--sparse", "on", "--alpha", 1, "--chunk", 512)
    assert on == logits("--sparse", "on", "--alpha", 1, "--chunk", 650, "-t", 3) # calls end at blocks
    assert 0 < rms_difference(dense, on) < 0.5, rms_difference(dense, on)


def logits_of_ids(ids):
    path = os.path.join(TMP, "all.txt")
    with open(path, "w") as f:
        f.write(" ".join(map(str, ids)))
    return logits_of(path, "-n", "0")


def test_bench():
    j = json.loads(lap("bench", TINY, "--pp", 16, "--tg", 4, "--repeat", 2, "--json").stdout)
    assert j["prompt_tokens_per_second"] > 0 and j["decode_tokens_per_second"] > 0 and j["device"] == "cpu", j
    assert j["file_bytes"] == os.path.getsize(TINY) and j["peak_resident_bytes"] > 1e6, j
    assert all(type(j[x]) is int for x in ("file_bytes", "cache_bytes", "peak_resident_bytes")), j
    assert b"tokens/s" in lap("bench", TINY, "--pp", 4, "--tg", 2, "-r", 1).stdout


def picture(path):
    """Points of each line by class, texts, titles of points."""
    root = ElementTree.parse(path).getroot()
    def all_of(tag):
        return list(root.iter("{http://www.w3.org/2000/svg}" + tag))
    width, height = float(root.get("width")), float(root.get("height"))
    lines = {l.get("class"): [tuple(map(float, xy.split(","))) for xy in l.get("points").split()]
             for l in all_of("polyline")}
    assert all(0 < x < width and 0 < y < height for line in lines.values() for x, y in line), lines
    return lines, [t.text for t in all_of("text")], [t.text for t in all_of("title")]


def test_bench_curves():
    svg = os.path.join(TMP, "a&b<c>.gguf")
    os.symlink(TINY, svg)
    out = os.path.join(TMP, "curve.svg")
    common = ["bench", svg, "--contexts", "64,300,1024", "--tg", 2, "-r", 1, "--device", "cpu",
              "--set", "every=2"]
    j = json.loads(lap(*common, "--json", "--svg", out).stdout)
    speeds = ["prompt_tokens_per_second", "sparse_prompt_tokens_per_second", "decode_tokens_per_second"]
    assert [c["context"] for c in j["contexts"]] == [64, 300, 1024] and j["decode_tokens"] == 2, j
    assert all(c[s] > 0 for c in j["contexts"] for s in speeds), j
    lines, texts, titles = picture(out)
    assert sorted(lines) == ["decode", "dense", "sparse"] and all(len(l) == 3 for l in lines.values()), lines
    assert all(l[0][0] < l[1][0] < l[2][0] for l in lines.values()), lines
    assert texts[0] == "a&b<c>.gguf: gemma3.lap on cpu, median of 1", texts
    assert {"64", "300", "1K", "0", "tokens/s", "tokens of context", "dense", "sparse", "decode"} <= set(texts), texts
    assert len(titles) == 9 and any(t.startswith("sparse, 1024 tokens: ") for t in titles), titles
    # higher is faster
    for name, s in zip(("dense", "sparse", "decode"), speeds):
        by_speed = sorted(range(3), key=lambda i: j["contexts"][i][s])
        assert [lines[name][i][1] for i in by_speed] == sorted((y for _, y in lines[name]), reverse=True), (name, j)
    # one way, one length, a text
    text = lap("bench", TINY, "--contexts", 40, "--tg", 1, "-r", 1, "--device", "cpu", "--svg", out,
               "--file", os.path.join(REPO, "tests", "data", "declaration.txt")).stdout.decode()
    assert re.search(r"^ +context +prompt tokens/s +decode tokens/s\n +40 +[\d.]+ +[\d.]+$", text, re.M), text
    assert sorted(picture(out)[0]) == ["decode", "dense"]
    lap("bench", TINY, "--contexts", 8, "--tg", 1, "-r", 1, "--svg", os.path.join(TMP, "absent", "x.svg"), code=3)


def test_threads_are_those_really_used():
    def used(*options):
        return json.loads(lap("bench", TINY, "--pp", 2, "--tg", 1, "-r", 1, "--json", *options).stdout)["threads"]

    assert used() == min(len(os.sched_getaffinity(0)), 256)
    assert used("-t", 3) == 3
    assert used("-t", 1000) <= 256
    one = min(os.sched_getaffinity(0))
    r = subprocess.run([LAP, "bench", TINY, "--pp", "2", "--tg", "1", "-r", "1"], stdout=subprocess.PIPE, timeout=300,
                       preexec_fn=lambda: os.sched_setaffinity(0, [one]))
    assert b", 1 thread," in r.stdout, r.stdout
    assert b"device cpu, threads 3" in lap("run", TINY, "-p", "x", "-n", 1, "-t", 3).stderr
    assert b"device cpu, threads 3" in chat(["hello", "/stats"], "-t", "3").stdout


if __name__ == "__main__":
    main(globals())
