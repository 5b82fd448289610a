#!/usr/bin/env python3
"""Compiles every semantic/*.lap and compares messages with NAME.err and the IR with NAME.ir.

usage: semantic.py DRIVER [--update] [NAME..]      --update rewrites the expectations
A case without NAME.err must have no messages; one without NAME.ir must not give a module.
"""
import difflib
import pathlib
import subprocess
import sys

FOLDER = pathlib.Path(__file__).resolve().parent / "semantic"


def expected(path):
    return path.read_text() if path.exists() else ""


def rewrite(path, text):
    if text:
        path.write_text(text)
    elif path.exists():
        path.unlink()


def run_case(driver, case, update):
    """The differences, as one text."""
    run = subprocess.run([driver, case.name], cwd=FOLDER, capture_output=True, text=True, timeout=120)
    if run.returncode not in (0, 1):
        return f"exit status {run.returncode}\n{run.stderr}"
    found = {".err": run.stderr, ".ir": run.stdout}
    out = []
    if (run.returncode == 1) != ("error:" in run.stderr):
        out.append(f"exit status {run.returncode} does not go with the messages\n{run.stderr}")
    for suffix, text in found.items():
        path = case.with_suffix(suffix)
        if update:
            rewrite(path, text)
        elif expected(path) != text:
            out += difflib.unified_diff(expected(path).splitlines(True), text.splitlines(True), path.name, "found")
    return "".join(out)


def main():
    args = sys.argv[1:]
    update = "--update" in args
    args = [a for a in args if a != "--update"]
    driver, names = str(pathlib.Path(args[0]).resolve()), set(args[1:])
    cases = [c for c in sorted(FOLDER.glob("*.lap")) if not names or c.stem in names]
    failed = 0
    for case in cases:
        difference = run_case(driver, case, update)
        if difference:
            failed += 1
            print(f"FAILED {case.name}\n{difference}")
    errors = sum(1 for c in cases if "error:" in expected(c.with_suffix(".err")))
    print(f"{len(cases)} cases, {errors} of them errors: {failed} failed")
    return 1 if failed or not cases else 0


sys.exit(main())
