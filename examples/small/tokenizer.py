#!/usr/bin/env python3
"""A tokenizer of Gemma's kind: tokenizer.py DATA [--vocab 4096]

Trains byte pairs on DATA/train.txt and writes DATA/tokenizer.json, DATA/tokenizer_config.json and the tokens of both
texts as DATA/train.npy and DATA/valid.npy (uint16). Spaces are U+2581, a character that is not in the vocabulary becomes
its UTF-8 bytes. Special tokens, runs of newlines and bytes have the ids that they have in Gemma 4; ordinary pieces fill
what is left, from 110 on.
"""
import argparse
import json
import pathlib

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SPACE = "\u2581"
SPECIAL = {0: "<pad>", 1: "<eos>", 2: "<bos>", 3: "<unk>", 4: "<mask>", 46: "<|tool>", 47: "<tool|>", 48: "<|tool_call>",
           49: "<tool_call|>", 50: "<|tool_response>", 51: "<tool_response|>", 52: "<|\"|>", 98: "<|think|>",
           100: "<|channel>", 101: "<channel|>", 105: "<|turn>", 106: "<turn|>"}
NEWLINES = {107: "\n", 108: "\n\n", 109: "\n\n\n"}
FIRST_BYTE, FIRST_FREE = 238, 110
BYTES = {FIRST_BYTE + b: "<0x%02X>" % b for b in range(256)}


def train_pieces(text, count):
    """Pieces and merges. No piece goes over a space, a digit, punctuation or the end of a line."""
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.Replace(" ", SPACE)
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split("\n", "removed"), pre_tokenizers.Split(SPACE, "merged_with_next"),
        pre_tokenizers.Split(Regex(r"[^%s\w]" % SPACE), "isolated"), pre_tokenizers.Digits(individual_digits=True)])
    t.train_from_iterator(text.splitlines(), trainers.BpeTrainer(vocab_size=count, show_progress=False))
    model = json.loads(t.to_str())["model"]
    return sorted(model["vocab"], key=model["vocab"].get), [tuple(m) for m in model["merges"]]


def assemble(pieces, merges, size):
    """tokenizer.json as an object."""
    vocab = {text: i for table in (NEWLINES, BYTES) for i, text in table.items()}
    free = [i for i in range(FIRST_FREE, size) if i not in BYTES]
    vocab.update(zip(pieces, free))
    special = {i: SPECIAL.get(i, "<unused%d>" % i) for i in range(min(NEWLINES))}
    vocab.update({text: i for i, text in special.items()})
    newlines = [("\n", "\n"), ("\n\n", "\n")]
    t = Tokenizer(models.BPE(vocab, newlines + merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Replace(" ", SPACE)
    t.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n+"), "isolated")
    t.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    t.add_special_tokens([special[i] for i in sorted(special)])
    return t


def main(args=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data", type=pathlib.Path)
    p.add_argument("--vocab", type=int, default=4096)
    o = p.parse_args(args)
    text = {name: (o.data / (name + ".txt")).read_text(encoding="utf-8") for name in ("train", "valid")}
    pieces, merges = train_pieces(text["train"], o.vocab - FIRST_FREE - len(BYTES))
    t = assemble(pieces, merges, o.vocab)
    t.save(str(o.data / "tokenizer.json"))
    config = {"tokenizer_class": "GemmaTokenizer", "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>",
              "unk_token": "<unk>", "mask_token": "<mask>"}
    (o.data / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    for name, what in text.items():
        ids = t.encode(what).ids
        np.save(o.data / (name + ".npy"), np.array(ids, np.uint16))
        if t.decode(ids) != what:
            raise SystemExit("%s.txt does not come back from its tokens" % name)
        print("%s: %d tokens, %.2f characters each" % (name, len(ids), len(what) / len(ids)))


if __name__ == "__main__":
    main()
