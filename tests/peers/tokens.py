#!/usr/bin/env python3
"""Compares token ids with llama.cpp's (through llama-cpp-python), to the last id.

  tokens.py WEIGHTS --driver BUILD/tests/text/tokenize_driver [--lap BUILD/.../lap]
            [--mutants N] [--vocabularies N] [--seed S] [--record FILE]

1. Every line of mixed.txt, with and without special tokens parsed: by the driver, and by `lap tokenize`.
2. N mutants of those lines: cut, joined, repeated, with random characters and newlines.
3. The bytes of every token.
4. N small random vocabularies of both kinds, each with random texts.
5. If WEIGHTS is of kind "llama": its vocabulary as one of kind "gemma4", with the merges that its scores mean
   (every way to split a token into two tokens, best score first), and all texts of 1 and 2 again.
--record writes the ids of mixed.txt as the peer gives them, for the test that runs without it.

One difference is known and left out: llama.cpp has a list of texts that it takes for end-of-turn tokens, and
makes them control tokens although the file calls them user-defined; here the file decides. Such tokens are
found by asking for the ids of their own text, and texts that contain one are compared with special tokens
parsed only. Bytes that are no UTF-8 differ in the kind "gemma4" (it replaces them), so all texts are valid.
"""
import argparse
import json
import os
import random
import struct
import subprocess
import sys
import tempfile

import llama_cpp

META_SPACE = "\u2581".encode()
HERE = os.path.dirname(os.path.abspath(__file__))
UNKNOWN, NORMAL, CONTROL, USER_DEFINED, BYTE = 1 << 0, 1 << 2, 1 << 3, 1 << 4, 1 << 5


@llama_cpp.llama_log_callback
def silence(_level, _text, _data):
    pass


class Peer:
    def __init__(self, path):
        self.llm = llama_cpp.Llama(path, vocab_only=True, verbose=False)
        vocab = llama_cpp.llama_model_get_vocab(self.llm.model)
        self.size = self.llm.n_vocab()
        self.texts = [llama_cpp.llama_vocab_get_text(vocab, i) for i in range(self.size)]
        self.attrs = [llama_cpp.llama_vocab_get_attr(vocab, i) for i in range(self.size)]
        self.vocab = vocab
        self.scores = [llama_cpp.llama_vocab_get_score(vocab, i) for i in range(self.size)]
        self.is_spm = llama_cpp.llama_vocab_type(vocab) == llama_cpp.LLAMA_VOCAB_TYPE_SPM
        self.renamed = [self.texts[i] for i in range(self.size)
                        if self.attrs[i] & USER_DEFINED and self.ids(self.texts[i], False) != [i]]

    def ids(self, text, special):
        return self.llm.tokenize(text, add_bos=False, special=special)

    def piece(self, i, special):
        buffer = llama_cpp.ctypes.create_string_buffer(256)
        n = llama_cpp.llama_token_to_piece(self.vocab, i, buffer, 256, 0, special)
        return buffer.raw[:n]

    def comparable(self, text, special):
        return special or not any(r in text for r in self.renamed)


def run(command, data=b""):
    done = subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True)
    return done.stdout.split(b"\n")[:-1]


def driver_ids(args, weights, texts, special):
    command = [args.driver, weights, "--zero"] + ["--special"] * special
    return [json.loads(x) for x in run(command, b"".join(t + b"\0" for t in texts))]


def lap_ids(args, weights, texts, special):
    with tempfile.NamedTemporaryFile(suffix=".txt") as f:
        f.write(b"".join(t + b"\n" for t in texts))
        f.flush()
        command = [args.lap, "tokenize", weights, "--file", f.name, "--json", "--lines"] + ["--special"] * special
        return [json.loads(x) for x in run(command)]


def compare(name, peer, texts, ours, special):
    """Number of texts that differ."""
    assert len(texts) == len(ours), f"{name}: {len(ours)} answers for {len(texts)} texts"
    compared = bad = 0
    for text, got in zip(texts, ours):
        if not peer.comparable(text, special):
            continue
        compared += 1
        want = peer.ids(text, special)
        if got != want:
            bad += 1
            if bad <= 5:
                print(f"{name}: {text!r}\n  peer {want}\n  ours {got}")
    return compared, bad


def random_character(r):
    lo, hi = r.choice([(32, 127), (1, 32), (160, 0x250), (0x300, 0x370), (0x370, 0x600), (0x900, 0xe80),
                       (0x2000, 0x2070), (0x2580, 0x2584), (0x3040, 0x3100), (0x4e00, 0x9fff), (0xac00, 0xd7a4),
                       (0x1f300, 0x1fb00), (0xe000, 0x10000), (0x10000, 0x110000)])
    return chr(r.randrange(lo, hi))


def mutant(r, lines):
    text = r.choice(lines)
    for _ in range(r.randrange(1, 6)):
        at, to = sorted((r.randrange(len(text) + 1), r.randrange(len(text) + 1)))
        other = r.choice(lines)
        cut = r.randrange(len(other) + 1)
        text = r.choice([
            lambda: text[:at] + text[to:],
            lambda: text[:at] + other[cut:cut + 20] + text[at:],
            lambda: text[:at] + text[at:to] * r.randrange(1, 4) + text[to:],
            lambda: text[:at] + "".join(random_character(r) for _ in range(r.randrange(1, 6))) + text[at:],
            lambda: text[:at] + r.choice(["\n", "\n\n", " ", "\t", "\n" * r.randrange(1, 70)]) + text[at:],
            lambda: text[:at] + text[at:to][::-1] + text[to:],
        ])()[:2000]
    return text.replace("\0", "").encode()


def put_string(b):
    return struct.pack("<Q", len(b)) + b


def put_value(v):
    if isinstance(v, bool):
        return struct.pack("<I?", 7, v)
    if isinstance(v, int):
        return struct.pack("<II", 4, v)
    if isinstance(v, bytes):
        return struct.pack("<I", 8) + put_string(v)
    if isinstance(v[0], bytes):
        return struct.pack("<IIQ", 9, 8, len(v)) + b"".join(map(put_string, v))
    kind, code = (6, "f") if isinstance(v[0], float) else (5, "i")
    return struct.pack("<IIQ", 9, kind, len(v)) + struct.pack(f"<{len(v)}{code}", *v)


def write_gguf(path, keys):
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys))
    body = b"".join(put_string(k.encode()) + put_value(v) for k, v in keys.items())
    with open(path, "wb") as f:
        f.write(head + body + b"\0" * (-len(head + body) % 32))


def random_vocabulary(r, kind, alphabet):
    """Keys of a small random vocabulary. Special tokens cannot overlap: then the peer's order would differ."""
    words, merges = list(dict.fromkeys(alphabet)), []
    for _ in range(r.randrange(5, 120)):
        a, b = r.choice(words), r.choice(words)
        if len(a + b) > 12 or (a + " " + b) in merges or ("\n" in a + b and set(a + b) != {"\n"}):
            continue
        merges.append(a + " " + b)
        if a + b not in words:
            words.append(a + b)
    r.shuffle(merges)
    r.shuffle(words)
    words = [w for w in words if r.random() < 0.9]
    special = ["<s0>", "<s1>", "<s12>", "<s123>"]
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>"] + ["<0x%02X>" % i for i in range(256)] + special + words
    types = [3, 3, 3, 2] + [6] * 256 + [3, 4, 3, 4] + [1] * len(words)
    return {
        "general.architecture": b"gemma4" if kind == "gemma4" else b"gemma3",
        "tokenizer.ggml.model": kind.encode(),
        "tokenizer.ggml.tokens": [t.encode() for t in tokens],
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.scores": [float(r.randrange(-20, 0)) for _ in tokens],
        "tokenizer.ggml.merges": [m.encode() for m in merges] or [b"a b"],
        "tokenizer.ggml.bos_token_id": 2, "tokenizer.ggml.eos_token_id": 1, "tokenizer.ggml.unknown_token_id": 3,
        "tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_space_prefix": r.random() < 0.5,
    }


def as_gemma4(peer):
    """Keys of the peer's vocabulary as kind gemma4: white space is ordinary there, spaces are meta-spaces."""
    tokens, types = [], []
    for text, attr in zip(peer.texts, peer.attrs):
        blank = attr & USER_DEFINED and not text.strip()
        tokens.append(text.replace(b" ", META_SPACE) if blank else text)
        types.append(1 if blank or attr & NORMAL else 4 if attr & USER_DEFINED else 2 if attr & UNKNOWN
                     else 6 if attr & BYTE else 3)
    score = {t: s for t, s, k in zip(tokens, peer.scores, types) if k == 1}
    merges = []
    for token, rank in score.items():
        text = token.decode()
        pairs = [(text[:k].encode(), text[k:].encode()) for k in range(1, len(text))]
        merges += [(-rank, a + b" " + b) for a, b in pairs if a in score and b in score]
    merges.sort(key=lambda m: m[0])
    return {
        "general.architecture": b"gemma4", "tokenizer.ggml.model": b"gemma4",
        "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types, "tokenizer.ggml.scores": peer.scores,
        "tokenizer.ggml.merges": [m for _, m in merges],
        "tokenizer.ggml.bos_token_id": peer.llm.token_bos(), "tokenizer.ggml.eos_token_id": peer.llm.token_eos(),
        "tokenizer.ggml.unknown_token_id": peer.texts.index(b"<unk>"), "tokenizer.ggml.add_bos_token": True,
    }


def compare_as_gemma4(args, peer, texts):
    compared = bad = 0
    with tempfile.NamedTemporaryFile(suffix=".gguf") as f:
        write_gguf(f.name, as_gemma4(peer))
        other = Peer(f.name)
        for special in (False, True):
            counts = compare("as gemma4", other, texts, driver_ids(args, f.name, texts, special), special)
            compared, bad = compared + counts[0], bad + counts[1]
    return compared, bad


def compare_vocabularies(args, r):
    compared = bad = 0
    for number in range(args.vocabularies):
        kind = ("llama", "gemma4")[number % 2]
        alphabet = r.sample(["a", "b", "c", "d", "é", "\u2581", "中", "😀", "\n", "<", "s", "1", ">", "\u0301"], 7)
        keys = random_vocabulary(r, kind, alphabet)
        pool = alphabet + [" ", " ", "z", "я", "<s1>", "<s12>", "<s123", "<s0>", "<bos>", "<unk>", "<0x61>"]
        texts = ["".join(r.choice(pool) for _ in range(r.randrange(60))).encode() for _ in range(60)]
        with tempfile.NamedTemporaryFile(suffix=".gguf") as f:
            write_gguf(f.name, keys)
            peer = Peer(f.name)
            for special in (False, True):
                ours = driver_ids(args, f.name, texts, special)
                counts = compare(f"vocabulary {number} ({kind})", peer, texts, ours, special)
                compared, bad = compared + counts[0], bad + counts[1]
    return compared, bad


def compare_pieces(args, peer):
    bad = 0
    for special in (False, True):
        hexes = run([args.driver, args.weights, "--pieces"] + ["--special"] * special)
        assert len(hexes) == peer.size
        for i, text in enumerate(hexes):
            renamed = peer.attrs[i] & CONTROL and peer.attrs[i] & USER_DEFINED
            if not renamed and bytes.fromhex(text.decode()) != peer.piece(i, special):
                bad += 1
                if bad <= 5:
                    print(f"piece of {i} {peer.texts[i]!r}: peer {peer.piece(i, special)!r}, ours {text}")
    return 2 * peer.size, bad


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("weights")
    parser.add_argument("--driver")
    parser.add_argument("--lap")
    parser.add_argument("--mutants", type=int, default=3000)
    parser.add_argument("--vocabularies", type=int, default=40)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--record")
    args = parser.parse_args()
    llama_cpp.llama_log_set(silence, None)
    print(f"seed {args.seed}")
    r = random.Random(args.seed)
    with open(os.path.join(HERE, "mixed.txt"), "rb") as f:
        lines = f.read().split(b"\n")[:-1]
    peer = Peer(args.weights)
    print("made control tokens by the peer:", peer.renamed)
    if args.record:
        with open(args.record, "w") as f:
            for special in (False, True):
                f.writelines(" ".join(map(str, peer.ids(x, special))) + "\n" for x in lines)
    results = []
    mutants = [mutant(r, [x.decode() for x in lines]) for _ in range(args.mutants)]
    flat = [m.replace(b"\n", b" ") for m in mutants]
    for special in (False, True):
        how = "special" if special else "plain"
        for tool, make, sets in (("driver", driver_ids, (lines, mutants)), ("lap", lap_ids, (lines, flat))):
            if not getattr(args, tool):
                continue
            for name, texts in zip(("mixed.txt", "mutants"), sets):
                title = f"{name}, {how}, {tool}"
                ours = make(args, args.weights, texts, special)
                results.append((title,) + compare(title, peer, texts, ours, special))
    if args.driver:
        results.append(("pieces",) + compare_pieces(args, peer))
        results.append(("random vocabularies",) + compare_vocabularies(args, r))
        if peer.is_spm:
            results.append(("as gemma4",) + compare_as_gemma4(args, peer, lines + mutants))
    for title, compared, bad in results:
        print(f"{title}: {compared} compared, {bad} differ")
    if not results:
        sys.exit("nothing compared: give --driver or --lap")
    sys.exit(any(bad for _, _, bad in results))


if __name__ == "__main__":
    main()
