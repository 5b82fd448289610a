#!/usr/bin/env python3
"""Tests of the parser and the formatter: texts in, messages or trees or texts out.

    syntax_test.py PARSE_DRIVER REPOSITORY [--update]

syntax/X.lap    with X.err (exact messages, exit 1) or X.ast (the tree, exit 0)
format/X.in     with X.out; X.out must stay as it is when formatted again, and mean the same as X.in
models/*.lap, frontend/prelude.lap and the example of docs/language.md must be laid out as the
formatter would, whatever white space they come with, and (but for the prelude) pass `lap check`
--update writes X.err, X.ast and X.out anew; read the diff before it is committed.
"""
import os
import random
import re
import subprocess
import sys
import tempfile


class Tests:
    def __init__(self, driver, update):
        self.driver, self.update = driver, update
        self.run_count, self.failed = 0, []

    def drive(self, mode, path):
        r = subprocess.run([self.driver, mode, path], capture_output=True, timeout=120)
        if r.stderr or r.returncode not in (0, 1):
            self.fail(path, mode, f"exit {r.returncode}\n{r.stderr.decode(errors='replace')}")
        return r.returncode, r.stdout

    def drive_text(self, mode, text):
        with tempfile.NamedTemporaryFile(suffix=".lap") as f:
            f.write(text)
            f.flush()
            return self.drive(mode, f.name)

    def fail(self, path, what, detail=""):
        self.failed.append(path)
        print(f"FAIL {path}: {what}\n{detail}")

    def expect(self, path, got):
        """Compares with a golden file, or writes it."""
        if self.update:
            with open(path, "wb") as f:
                f.write(got)
            return
        want = read(path)
        if got != want:
            self.fail(path, "differs", f"--- expected\n{show(want)}--- got\n{show(got)}")

    def syntax(self, path):
        self.run_count += 1
        code, got = self.drive("ast", path)
        stem = path[: -len(".lap")]
        golden, other = (stem + ".err", stem + ".ast") if code else (stem + ".ast", stem + ".err")
        if self.update and os.path.exists(other):
            os.remove(other)
        if not self.update and not os.path.exists(golden):
            return self.fail(path, f"no {os.path.basename(golden)}", show(got))
        self.expect(golden, got)
        if code == 0:
            self.stable(path, self.drive("format", path)[1])
        elif self.drive("format", path) != (1, got):
            self.fail(path, "the formatter does not report the same errors")

    def stable(self, path, text):
        """`text`, the layout of path, keeps the tree and does not change again."""
        if self.drive_text("format", text) != (0, text):
            self.fail(path, "formatting twice differs from once", show(text))
        if self.drive_text("ast", text) != self.drive("ast", path):
            self.fail(path, "the formatter changed the meaning", show(text))

    def layout(self, path):
        self.run_count += 1
        code, got = self.drive("format", path)
        if code:
            return self.fail(path, "does not parse", show(got))
        self.expect(path[: -len(".in")] + ".out", got)
        self.stable(path, got)

    def model(self, path, text, rng, check=True):
        self.run_count += 1
        code, got = self.drive_text("format", text)
        if (code, got) != (0, text):
            return self.fail(path, "is not laid out as `lap fmt` does", show(got))
        if check and self.drive_text("check", text) != (0, b""):
            self.fail(path, "does not pass the checks", show(self.drive_text("check", text)[1]))
        for _ in range(5):
            if self.drive_text("format", scramble(text, rng)) != (0, text):
                self.fail(path, "other white space gives another layout")

    def head(self, text, want):
        self.run_count += 1
        code, got = self.drive_text("head", text)
        if (code, got) != (0 if want else 1, (want or b"no head") + b"\n"):
            self.fail("head", show(text), show(got))


def read(path):
    with open(path, "rb") as f:
        return f.read()


def show(b):
    return b.decode(errors="backslashreplace") + "\n"


def scramble(text, rng):
    """The same lines with other indents, and other spaces where there are no strings or comments."""
    out = []
    for line in text.decode().split("\n"):
        line = line.strip()
        if '"' not in line and "#" not in line:
            line = re.sub(" ", lambda m: " " * rng.randint(1, 4), line)
        if line:
            line = " " * rng.randint(0, 9) + line + "\t" * rng.randint(0, 1)
        out += [line] + [""] * (rng.randint(0, 2) if not line else 0)
    return ("\n" * rng.randint(0, 2) + "\n".join(out)).encode()


HEADS = [
    (b'model a from gguf "b" {', b"a b"),
    (b'# x\nmodel gemma4\nfrom gguf "gemma4" and whatever', b"gemma4 gemma4"),
    (b'model from from gguf "x{{y}}', None),
    (b'model a from gguf "b\\n"', b"a b\\n".replace(b"\\n", b"\n")),
    (b"model a {", b"a"),
    (b"model a uses target: t {", b"a for t"),
    (b'model a from gguf "b" or "c" or "d" uses target: t {', b"a b c d for t"),
    (b'model a from gguf "b" or {', None),
    (b'model a from gguf "{b}" {', None),
    (b'model a from gguf "" {', b"a "),
    (b"", None),
    (b"\x00\xff", None),
]


def files(folder, suffix):
    return [os.path.join(folder, f) for f in sorted(os.listdir(folder)) if f.endswith(suffix)]


def main():
    args = [a for a in sys.argv[1:] if a != "--update"]
    driver, repository = args
    tests = os.path.join(repository, "tests", "frontend")
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    t = Tests(driver, "--update" in sys.argv)
    for path in files(os.path.join(tests, "syntax"), ".lap"):
        t.syntax(path)
    for path in files(os.path.join(tests, "format"), ".in"):
        t.layout(path)
    for path in files(os.path.join(repository, "models"), ".lap"):
        t.model(path, read(path), rng)
    prelude = os.path.join(repository, "frontend", "prelude.lap")
    t.model(prelude, read(prelude), rng, check=False)
    manual = os.path.join(repository, "docs", "language.md")
    for example in re.findall(rb"^```lap\n(.*?)^```", read(manual), re.S | re.M):
        t.model(manual, example, rng)
    for text, want in HEADS:
        t.head(text, want)
    print(f"{t.run_count} cases, {len(t.failed)} failures")
    return 1 if t.failed or not t.run_count else 0


if __name__ == "__main__":
    sys.exit(main())
