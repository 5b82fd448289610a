#!/usr/bin/env python3
"""Steps of several builds in turns on one GPU, so that a difference is not the machine's.

A line for each program and number of rows: the median over the turns of the GPU's milliseconds, the least and the most
of them, and the median beside the first program's. Options that are not listed here go to `lap bench`.
"""
import argparse
import json
import statistics
import subprocess
import sys


def steps(program, model, options):
    """{rows: ms} of one run of `lap bench`."""
    command = [program, "bench", model, "--device", "gpu", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
    return {r["rows"]: 1e3 * r["gpu_seconds"] for r in json.loads(done.stdout)["rows"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a GGUF file, as of `lap synth`")
    parser.add_argument("programs", nargs="+", metavar="LAP", help="lap of each build")
    parser.add_argument("-n", "--turns", type=int, default=3)
    parser.add_argument("--rows", default="1,8,16")
    parser.add_argument("--depth", default="512")
    args, more = parser.parse_known_args()
    options = ["--pp", "64", "--tg", "8", "-r", "5", "--rows", args.rows, "--depth", args.depth, *more]
    seen = {}  # (program, rows): ms of each turn
    for _ in range(args.turns):
        for program in args.programs:
            for rows, ms in steps(program, args.model, options).items():
                seen.setdefault((program, rows), []).append(ms)
    for program, rows in sorted(seen, key=lambda k: (k[1], args.programs.index(k[0]))):
        ms, first = seen[program, rows], statistics.median(seen[args.programs[0], rows])
        middle = statistics.median(ms)
        print(f"{rows:3} rows  {middle:8.3f} ms  {min(ms):8.3f} .. {max(ms):8.3f}  {middle / first:6.3f}  {program}")


if __name__ == "__main__":
    main()
