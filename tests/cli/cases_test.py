#!/usr/bin/env python3
"""Runs the command against cases/*.case: arguments, expected output and exit code, as data.

    cases_test.py LAP [--update] [CASE FILE...]

A case is a block that begins with `$ lap ARGUMENTS` (split as a shell would):
    < LINE     a line of standard input
    ? CODE     exit code, 0 when absent
    > LINE     a line of standard output, exactly; all of them, in order
    ! LINE     a line of standard error, likewise
    >~ REGEX   must be found in standard output, whose other lines are then free (!~ for standard error)
    >@ FILE    standard output is that file, golden/FILE
Output that a case does not mention must be empty. {tmp} is an empty folder that lasts for the case file,
{tiny} a tiny model, {ids} one without a tokenizer, {repo} the repository. --update rewrites golden files.
"""
import os
import re
import shlex
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
REPO = os.path.dirname(os.path.dirname(HERE))


class Case:
    def __init__(self, where, args):
        self.where, self.args, self.code = where, args, 0
        self.stdin, self.exact, self.match, self.golden = [], {">": [], "!": []}, {">": [], "!": []}, None


def parse(path):
    cases = []
    with open(path) as f:
        for number, line in enumerate(f, 1):
            line = line.rstrip("\n")
            if not line or line.startswith("#"):
                continue
            mark, rest = line[:2].rstrip(), line[2:]
            if line.startswith("$ lap"):
                cases.append(Case("%s:%d" % (os.path.basename(path), number), line[5:]))
            elif mark == "<":
                cases[-1].stdin.append(rest)
            elif mark == "?":
                cases[-1].code = int(rest)
            elif mark in (">", "!"):
                cases[-1].exact[mark].append(rest)
            elif mark in (">~", "!~"):
                cases[-1].match[mark[0]].append(rest.strip())
            elif mark == ">@":
                cases[-1].golden = rest.strip()
            else:
                sys.exit("%s:%d: not a line of a case: %s" % (path, number, line))
    return cases


class Runner:
    def __init__(self, lap, update):
        self.lap, self.update = lap, update

    def fill(self, text):
        for name, value in self.names.items():
            text = text.replace("{%s}" % name, value)
        return text

    def unfill(self, text):
        for name, value in self.names.items():
            text = text.replace(value, "{%s}" % name)
        return text

    def check_stream(self, case, mark, got):
        problems = []
        if mark == ">" and case.golden:
            path = os.path.join(HERE, "golden", case.golden)
            if self.update:
                with open(path, "w") as f:
                    f.write(got)
            with open(path) as f:
                want = f.read()
            if got != want:
                problems.append("is not golden/%s" % case.golden)
        elif case.match[mark]:
            problems += ["has no match of %s" % r for r in case.match[mark] if not re.search(r, got, re.M)]
        elif got.splitlines() != case.exact[mark]:
            problems.append("should be\n  " + "\n  ".join(case.exact[mark]))
        name = "stdout" if mark == ">" else "stderr"
        return ["%s %s\n--- it is\n%s---" % (name, p, got) for p in problems]

    def run(self, case):
        args = shlex.split(self.fill(case.args))
        stdin = "".join(self.fill(line) + "\n" for line in case.stdin)
        r = subprocess.run([self.lap] + args, input=stdin.encode(), capture_output=True, timeout=120)
        problems = []
        if r.returncode != case.code:
            problems.append("exit code %d, expected %d\n%s" % (r.returncode, case.code, r.stderr.decode()))
        for mark, got in ((">", r.stdout), ("!", r.stderr)):
            problems += self.check_stream(case, mark, self.unfill(got.decode(errors="replace")))
        for p in problems:
            print("FAILED %s: lap%s: %s" % (case.where, case.args, p))
        return not problems

    def run_file(self, path):
        with tempfile.TemporaryDirectory() as tmp:
            made = os.path.join(tmp, "models")
            os.mkdir(made)
            os.mkdir(os.path.join(tmp, "work"))
            maker = [sys.executable, os.path.join(REPO, "examples", "tiny", "make_tiny.py")]
            self.names = {"tiny": os.path.join(made, "tiny.gguf"), "ids": os.path.join(made, "ids.gguf"),
                          "tmp": os.path.join(tmp, "work"), "repo": REPO}
            subprocess.run(maker + [self.names["tiny"]], check=True)
            subprocess.run(maker + [self.names["ids"], "--no-tokenizer"], check=True)
            return [self.run(case) for case in parse(path)]


def main():
    args = sys.argv[1:]
    update = "--update" in args
    args = [a for a in args if a != "--update"]
    folder = os.path.join(HERE, "cases")
    files = args[1:] or sorted(os.path.join(folder, f) for f in os.listdir(folder) if f.endswith(".case"))
    runner = Runner(os.path.abspath(args[0]), update)
    results = []
    for path in files:
        results += runner.run_file(path)
    print("%d of %d cases passed" % (sum(results), len(results)))
    sys.exit(0 if results and all(results) else 1)


if __name__ == "__main__":
    main()
