#!/usr/bin/env python3
"""docs/ir.md against the program: every op of ops.def has a heading there with its attributes, every
operator of scalar.def and type of quants.def and kv.def is named, and every ```ir block is sound text."""
import pathlib
import re
import subprocess
import sys

repo, driver = pathlib.Path(sys.argv[1]), sys.argv[2]
doc = (repo / "docs/ir.md").read_text()
wrong = []

rows = re.findall(r'^OP\(\w+,\s*(\w+),\s*\d+,\s*\d+,\s*"([^"]*)",', (repo / "ir/ops.def").read_text(), re.M)
if len(rows) < 30:
    wrong.append(f"only {len(rows)} ops found in ops.def")
entries = dict(re.findall(r"^#### `(\w+)`\n(.*?)(?=^#|\Z)", doc, re.M | re.S))
for name, attrs in rows:
    if name not in entries:
        wrong.append(f"op {name} has no entry")
    for attr in re.findall(r"(\w+):\w", attrs):
        if f"`{attr}`" not in entries.get(name, ""):
            wrong.append(f"op {name}: attribute {attr} is not described")
wrong += [f"entry {name} is no op" for name in entries if name not in dict(rows)]

for kind, file, pattern in [("operator", "scalar.def", r'^SCALAR\(\w+,\s*\d,\s*"([^"]+)"'),
                            ("type", "quants.def", r'^QUANT\(\s*\w+,\s*"([^"]+)"'),
                            ("type of a cache", "kv.def", r'^KV_TYPE\(\s*(\w+),')]:
    for text in re.findall(pattern, (repo / "ir" / file).read_text(), re.M):
        if f"`{text.lower()}`" not in doc:
            wrong.append(f"{kind} {text} is not named")

blocks = re.findall(r"^```ir\n(.*?)^```", doc, re.M | re.S)
if not blocks:
    wrong.append("no ```ir block")
for block in blocks:
    done = subprocess.run([driver, "none"], input=block, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        wrong.append(f"a block is not sound:\n{block}{done.stderr}")
    elif done.stdout != block:
        wrong.append(f"a block prints differently:\n{done.stdout}")

print("\n".join(wrong) or "docs/ir.md is complete")
sys.exit(1 if wrong else 0)
