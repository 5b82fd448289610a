#!/usr/bin/env python3
"""Golden files of passes and of the IR parser.

run.py [--update] DRIVER DIR..: a case is an .ir file below DIR: a comment line `# run: ARGS` (what the
driver is given; without it the folder's name, or `none` in a folder of tests/ir), the input, a line `---`, and what the driver must print: the text, or its messages when it
fails. --update writes what it prints now; look at the diff.
"""
import pathlib
import subprocess
import sys


def run_case(driver, path, update):
    source, mark, want = path.read_bytes().decode().partition("\n---\n")
    args = ["none" if path.parent.name in ("good", "bad") else path.parent.name]
    for line in source.splitlines():
        if line.startswith("# run: "):
            args = line[len("# run: "):].split()
    done = subprocess.run([driver] + args, input=(source + "\n").encode(), capture_output=True, timeout=60)
    messages = done.stderr.decode(errors="replace")
    if done.returncode not in (0, 1):
        print(f"{path}: exit status {done.returncode}\n{messages}")
        return False
    got = done.stdout.decode(errors="replace") + messages
    if done.returncode == 1 and "error:" not in messages:
        print(f"{path}: failed without a message")
        return False
    if update:
        path.write_bytes((source + "\n---\n" + got).encode())
        return True
    if not mark or got != want:
        print(f"{path}: expected\n{want}\n{path}: got\n{got}")
        return False
    return True


def main():
    update = "--update" in sys.argv
    driver, *roots = [a for a in sys.argv[1:] if a != "--update"]
    cases = sorted(p for root in roots for p in pathlib.Path(root).rglob("*.ir"))
    bad = sum(not run_case(driver, p, update) for p in cases)
    print(f"{len(cases)} cases, {bad} wrong")
    return 1 if bad or not cases else 0


if __name__ == "__main__":
    sys.exit(main())
