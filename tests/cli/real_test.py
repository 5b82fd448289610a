#!/usr/bin/env python3
"""The real model, Gemma 3 270M: real_test.py LAP MODEL. Exit code 77 (skipped) when MODEL is not there.

Checks that it writes sense, the same twice, under every chunk size and pass; not how fast it is.
"""
import json
import os
import subprocess
import sys
import tempfile

LAP, MODEL = os.path.abspath(sys.argv[1]), sys.argv[2]
PROMPT = "The three primary colors are"
# llama.cpp on the same weights in float32, same text and windows (tests/peers/perplexity.py)
PEER_PERPLEXITY = 11.4578
# Perplexity with such keys and values, as a multiple of that with f32. 765 tokens leave 0.1 % to chance.
KV_RATIOS = {("q8_0", "q8_0"): (0.997, 1.003), ("q8_0", "tq3_0"): (1.05, 1.3)}


def lap(*args):
    r = subprocess.run([LAP] + [str(a) for a in args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=500)
    assert r.returncode == 0, "exit code %d: lap %s\n%s" % (r.returncode, args, r.stderr.decode())
    return r.stdout


def run(*args):
    return json.loads(lap("run", MODEL, "-p", PROMPT, "--json", *args))


def main():
    if not os.path.exists(MODEL):
        print("skipped: %s is not there (scripts/fetch_model.py gets it)" % MODEL)
        sys.exit(77)
    greedy = run("-n", 24, "--greedy")
    print("greedy: %r" % greedy["text"])
    for word in ("red", "yellow", "blue"):
        assert word in greedy["text"].lower(), "no %s among the primary colors" % word
    assert run("-n", 24, "--greedy", "--chunk", 2)["ids"] == greedy["ids"], "chunks of 2 change the text"
    first, second = run("-n", 24, "--seed", 5), run("-n", 24, "--seed", 5)
    print("sampled: %r" % first["text"])
    assert first["ids"] == second["ids"], "the same seed gave another text"
    assert first["ids"] != run("-n", 24, "--seed", 6)["ids"], "another seed gave the same text"
    with tempfile.TemporaryDirectory() as tmp:
        out = os.path.join(tmp, "logits.f32")
        run("-n", 0, "--logits", out)
        vocab = len(json.loads(lap("inspect", MODEL, "--key", "tokenizer.ggml.token_type", "--json")))
        assert os.path.getsize(out) == 4 * vocab * len(greedy["prompt_ids"])
    assert b"ok" in lap("check", os.path.join(os.path.dirname(__file__), "../../models/gemma3.lap"), "--weights", MODEL)
    assert run("-n", 4, "--greedy", "--verify-each")["ids"] == greedy["ids"][:4]
    text = os.path.join(os.path.dirname(__file__), "../data/declaration.txt")
    ppl = json.loads(lap("perplexity", MODEL, "--file", text, "--json"))
    print("perplexity %.4f over %d tokens" % (ppl["perplexity"], ppl["scored"]))
    assert ppl["scored"] == 765 and abs(ppl["perplexity"] / PEER_PERPLEXITY - 1) < 0.01
    for (k, v), (least, most) in KV_RATIOS.items():
        ratio = json.loads(lap("perplexity", MODEL, "--file", text, "--json", "--device", "cpu", "--kv-k", k, "--kv-v",
                               v))["perplexity"] / ppl["perplexity"]
        print("K %s, V %s: %.4f times that" % (k, v, ratio))
        assert least <= ratio <= most
    bench = json.loads(lap("bench", MODEL, "--json", "--repeat", 1))
    print("bench: %s" % bench)
    assert bench["peak_resident_bytes"] <= os.path.getsize(MODEL) + 300e6
    talk = subprocess.run([LAP, "chat", MODEL, "--greedy", "-q", "-n", "20"], input=b"What is the capital of France?\n",
                          stdout=subprocess.PIPE, timeout=500)
    print("chat: %r" % talk.stdout.decode())
    assert talk.returncode == 0 and b"Paris" in talk.stdout
    print("ok")


if __name__ == "__main__":
    try:
        main()
    except AssertionError as e:
        sys.exit("FAILED: %s" % e)
