#!/usr/bin/env python3
"""Perplexity of one weights file on one text, by `lap perplexity` and by llama.cpp (llama-cpp-python).

    CMAKE_ARGS="-DGGML_BLAS=ON -DGGML_BLAS_VENDOR=OpenBLAS" pip install llama-cpp-python numpy   # libopenblas-dev
    tests/peers/perplexity.py build/release/lap model.gguf text.txt [--context 512]

Both split the tokens of the text into windows of `context` tokens, put BOS in the place of each window's first
token, and score the second half of each window. Prints both values and their ratio; exits 1 when they differ by
more than 1 %. The BLAS build matters: without it llama.cpp rounds activations to 8 bits on the processor, which by
itself moves the perplexity of a 270M model by 1 to 3 %. Not part of the test suite: it needs a package that is compiled on installation.
"""
import argparse
import json
import math
import subprocess
import sys

import llama_cpp
import numpy as np


def peer_perplexity(model, text, context):
    llm = llama_cpp.Llama(model_path=model, n_ctx=context, n_batch=context, logits_all=True, verbose=False)
    ids = llm.tokenize(text, add_bos=True, special=False)
    first = context // 2
    total, count = 0.0, 0
    for w in range(len(ids) // context):
        window = [llm.token_bos()] + ids[w * context + 1:(w + 1) * context]
        llm.reset()
        llm.eval(window)
        logits = np.asarray(llm.scores[:context], dtype=np.float64)
        for j in range(first, context - 1):
            row = logits[j]
            top = row.max()
            total -= row[window[j + 1]] - top - math.log(np.exp(row - top).sum())
            count += 1
    return math.exp(total / count), count, len(ids)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("lap")
    p.add_argument("model")
    p.add_argument("text")
    p.add_argument("--context", type=int, default=512)
    a = p.parse_args()
    peer, scored, tokens = peer_perplexity(a.model, open(a.text, "rb").read(), a.context)
    print(f"llama.cpp: perplexity {peer:.4f} over {scored} of {tokens} tokens")
    out = subprocess.run([a.lap, "perplexity", a.model, "--file", a.text, "--context", str(a.context), "--json"],
                         check=True, capture_output=True).stdout
    ours = json.loads(out)
    print(f"lap:       perplexity {ours['perplexity']:.4f} over {ours['scored']} tokens")
    ratio = ours["perplexity"] / peer
    print(f"ratio:     {ratio:.5f}")
    if ours["scored"] != scored:
        sys.exit("the two scored different numbers of tokens")
    sys.exit(0 if abs(ratio - 1) <= 0.01 else 1)


if __name__ == "__main__":
    main()
