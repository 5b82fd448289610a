#!/usr/bin/env python3
"""What makes and uses the family's files, with files that stand for them: ready_test.py LAP

collect.sh with a program that only makes the files asked for; measure.py on random weights of the right kinds, and with
a drafter that is another file's; quickstart.sh --offline in a copy of its folder. Of the family itself: that its text
comes out of its tokenizer, and how large it is.
"""
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

REPO = pathlib.Path(__file__).resolve().parent.parent.parent
SMALL = REPO / "examples" / "small"
MODELS = SMALL / "models"
NAMES = [kind + part for kind in ("dense", "moe") for part in ("", "-mtp", "-dflash")]
VOCAB = 48


def run(*args, **more):
    r = subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=300, **more)
    return r.returncode, r.stdout, r.stderr


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


def test_collect(tmp, lap):
    """Six models and the prompts."""
    out, folder = tmp / "out", tmp / "models"
    (out / "prompts").mkdir(parents=True)
    (out / "prompts" / "0016-0.ids").write_text("1 2 3\n")
    for name in NAMES:
        (out / name).mkdir()
    convert = program(tmp / "convert", 'echo "$@" >>"%s/calls"; eval "last=\\${$#}"; echo "$2" >"$last"\n' % tmp)
    code, _, err = run(SMALL / "collect.sh", convert, out, folder)
    assert code == 0, err
    want = {"prompts"} | {name + ".gguf" for name in NAMES}
    assert set(os.listdir(folder)) == want, os.listdir(folder)
    assert os.listdir(folder / "prompts") == ["0016-0.ids"]
    calls = (tmp / "calls").read_text().splitlines()
    assert calls == ["convert %s/%s --quant q8_0 -q -o %s/%s.gguf" % (out, n, folder, n) for n in NAMES], calls
    code, _, err = run(SMALL / "collect.sh", convert)
    assert code == 2 and "collect.sh LAP OUT [FOLDER]" in err, err


def synth(lap, path, like, **columns):
    sets = [x for name, n in columns.items() if name != "layers" for x in ("--set", "%s=%d" % (name, n))]
    code, _, err = run(lap, "synth", "--like", like, "--quant", "bf16", "--layers", columns["layers"], *sets, "-q", "-o", path)
    assert code == 0, err


def random_family(lap, folder):
    heads = {"D": 32, "H": 1, "KS": 1, "KF": 1, "W": 8, "V": VOCAB}
    synth(lap, folder / "dense.gguf", "gemma4-12b", layers=4, F=32, every=2, **heads)
    synth(lap, folder / "moe.gguf", "gemma4-26b-a4b", layers=4, F=32, every=2, E=4, used=2, FE=32, **heads)
    for kind in "dense", "moe":
        synth(lap, folder / (kind + "-mtp.gguf"), "gemma4-12b-mtp", layers=2, B=32, F=32, **heads)
        synth(lap, folder / (kind + "-dflash.gguf"), "gemma4-26b-a4b-dflash", layers=2, D=32, F=32, H=1, KV=1, target=4,
              taps=2)


def test_measure(tmp, lap):
    """A line for each drafter and its numbers, no other tokens; what cannot be measured ends it with the program's words."""
    folder = tmp / "random"
    (folder / "prompts").mkdir(parents=True)
    random_family(lap, folder)
    for length, which in (5, 0), (5, 1), (20, 0):
        ids = [2] + [(7 * i + which) % VOCAB for i in range(length - 1)]
        (folder / "prompts" / ("%04d-%d.ids" % (length, which))).write_text(" ".join(map(str, ids)))
    code, out, err = run(sys.executable, SMALL / "measure.py", lap, folder, "--device", "cpu")
    lines = out.splitlines()
    assert code == 0 and lines[-1] == "0 runs with other tokens than without a drafter", out + err
    assert [x.split(":")[0] for x in lines[:-1]] == [n for n in NAMES if "-" in n], out
    for line in lines[:-1]:
        words = line.split()
        assert words[2:5] == ["tokens", "a", "round;"] and 1 <= float(words[1]) <= 16, line
        assert [int(x) for x in words[-4::2]] == [5, 20], line
    found = json.loads((folder / "measured.json").read_text())
    assert [(name, x["prompts"], x["new_tokens"], list(x["by_prompt_length"])) for name, x in found.items()] == [
        (n, 3, 128, ["5", "20"]) for n in NAMES if "-" in n], found
    (folder / "moe-mtp.gguf").unlink()
    code, _, err = run(sys.executable, SMALL / "measure.py", lap, folder, "--device", "cpu")
    assert code and "moe-mtp.gguf" in err and "cannot open" in err, err


def test_beside(tmp, lap):
    """Of the drafters of both targets in one folder each finds its own."""
    ids = tmp / "random" / "prompts" / "0005-0.ids"
    random_family(lap, tmp / "random")
    for target in "dense", "moe":
        for way, name in ("mtp", "gemma4-mtp.lap"), ("dflash", "gemma4-dflash.lap"):
            code, out, err = run(lap, "run", tmp / "random" / (target + ".gguf"), "--tokens-file", ids, "-n", 8, "--device",
                                 "cpu", "--draft-method", way)
            assert code == 0 and "\n%s: " % name in err, err
        code, out, err = run(lap, "run", tmp / "random" / (target + ".gguf"), "--tokens-file", ids, "-n", 8, "--device", "cpu",
                             "--draft-method", "auto")
        assert code == 1 and "%s-dflash.gguf and " % target in err and "%s-mtp.gguf; choose" % target in err, err


def quickstart(folder, model):
    """Its runs, and those that it advises, with programs that stand for cmake, lap and the search for the model."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(REPO / "quickstart.sh", folder)
    (folder / "scripts").mkdir()
    (folder / "scripts" / "fetch_model.py").write_text("import sys\nsys.exit(%d)\n" % (not model))
    program(folder / "bin" / "cmake", "exit 0\n")
    program(folder / "build" / "release" / "lap", 'printf LAP; printf "\\t%s" "$@"; echo\n')
    env = dict(os.environ, PATH="%s:%s" % (folder / "bin", os.environ["PATH"]), HOME=str(folder))
    code, out, err = run(folder / "quickstart.sh", "--offline", env=env)
    assert code == 0, out + err
    advice = re.findall(r"^== Now try: build/release/lap (.*?)(?:  +\(.*)?$", out, re.M)
    return [line.split("\t")[1:] for line in out.splitlines() if line.startswith("LAP\t")], [shlex.split(x) for x in advice]


def test_quickstart_lines(tmp, lap):
    """What it runs and advises, the program takes: with 4 tokens, and a small model for one that may not be there."""
    runs, advice = quickstart(tmp / "clone", True)
    for words in runs:
        words[words.index("-n") + 1] = "4"
    for words, more in zip(advice, (["-n", 4], ["--tg", 4, "-r", 1]), strict=True):
        words += more
    for words in runs + advice:
        words[1] = words[1] if words[1].startswith("examples/") else "examples/small/models/dense.gguf"
        code, out, err = run(lap, *words, "--device", "cpu", cwd=REPO)
        assert code == 0, (words, out, err)
        assert "--echo" not in words or out.startswith(words[words.index("-p") + 1]), (words, out)
        assert ("--draft" in words) == ("rounds" in err), (words, err)


def test_quickstart(tmp, lap):
    models = "examples/small/models/"
    runs, _ = quickstart(tmp / "clone", False)
    assert [r[:4] for r in runs] == [["run", models + "dense.gguf", "--draft", models + "dense-%s.gguf" % way]
                                     for way in ("mtp", "dflash")], runs
    runs, _ = quickstart(tmp / "clone", True)
    assert [os.path.basename(r[1]) for r in runs] == ["gemma-3-270m-q4_k_m.gguf", "dense.gguf", "dense.gguf"], runs
    for r in runs[1:]:
        assert (REPO / r[1]).exists() and (REPO / r[3]).exists(), r


def test_files(tmp, lap):
    """The family's: text with the tokenizer of the file, all files of the card, 30 MB at most."""
    code, out, err = run(lap, "run", MODELS / "moe.gguf", "-p", "And it came to pass", "-n", 24, "--greedy", "--echo",
                         "--device", "cpu", "--draft-method", "dflash")
    assert code == 0 and out.startswith("And it came to pass") and "gemma4-dflash.lap: " in err, out + err
    assert " the " in out[20:] and out.isascii(), out
    card, measured = (MODELS / "README.md").read_text(), json.loads((MODELS / "measured.json").read_text())
    for name in NAMES:
        assert (MODELS / (name + ".gguf")).exists() and "`%s`" % name in card, name
    assert {x["prompts"] for x in measured.values()} == {len(list((MODELS / "prompts").glob("*.ids")))}, measured
    size = sum(f.stat().st_size for f in MODELS.rglob("*") if f.is_file())
    assert size <= 30e6, size


def main():
    lap, failed = os.path.abspath(sys.argv[1]), 0
    with tempfile.TemporaryDirectory() as tmp:
        for test in test_collect, test_measure, test_beside, test_quickstart, test_quickstart_lines, test_files:
            try:
                test(pathlib.Path(tmp), lap)
            except AssertionError as e:
                failed += 1
                print("FAILED: %s, line %d: %s" % (test.__name__, e.__traceback__.tb_lineno, e))
    print("%d failures" % failed)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
