#!/usr/bin/env python3
"""Writes a tiny Gemma-3-shaped GGUF with random weights and a small tokenizer of its own.

    make_tiny.py OUT.gguf [--seed N] [--no-tokenizer]

Everything of the program runs on it (prefill, rings, sampling, chat), in milliseconds; what it writes is
noise made of real words. Only the standard library is used. The same seed gives the same bytes.
"""
import argparse
import os
import random
import struct

LAYERS, WIDTH, HEADS, KV_HEADS, HEAD_DIM, HIDDEN, WINDOW = 6, 64, 2, 1, 32, 128, 16
CONTEXT = 2048

WORDS = """the of and a to in is was he for it with as his on be at by had not are but from or have an they
which one you were her all she there would their we him been has when who will more no if out so said what up
its about into than them can only other new some could time these two may then do first any my now such like
our over man me even most made after also did many before must through back years where much your way well
down should because each just those people how too little state good very make world still own see men work
long get here between both life being under never day same another know while last might us great old year
off come since against go came right used take three water light stone wheel cut bright small hand line page
gem polished facet clear green red blue river mountain morning night slowly turned looked found kept""".split()

SPACE = "\u2581"  # how the vocabulary writes a space
CONTROL, NORMAL, UNKNOWN, BYTE = 3, 1, 2, 6
F32, Q8_0 = 0, 8


def vocabulary():
    """(text, score, type, weight of its output row), ids in order."""
    rows = [("<pad>", CONTROL), ("<eos>", CONTROL), ("<bos>", CONTROL), ("<unk>", UNKNOWN),
            ("<start_of_turn>", CONTROL), ("<end_of_turn>", CONTROL)]
    vocab = [(text, -1000.0, kind, 0.02) for text, kind in rows]
    vocab += [("<0x%02X>" % b, -1000.0, BYTE, 0.02) for b in range(256)]
    pieces = {}
    for word in WORDS:  # every prefix, so that merging by score can arrive at the word
        for end in range(1, len(word) + 1):
            pieces.setdefault(SPACE + word[:end], 0.02)
        pieces[SPACE + word] = 0.35
    vocab += [(text, -float(i), NORMAL, weight) for i, (text, weight) in enumerate(pieces.items())]
    singles = ["\n", SPACE] + [chr(c) for c in range(33, 127)]
    vocab += [(c, -2000.0 - i, NORMAL, 0.3 if c in ".," else 0.02) for i, c in enumerate(singles)]
    return vocab


# ==== Values of GGUF ====

def text(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


def key(name, kind, value):
    return text(name) + struct.pack("<I", kind) + value


def key_text(name, s):
    return key(name, 8, text(s))


def key_int(name, v):
    return key(name, 4, struct.pack("<I", v))


def key_float(name, v):
    return key(name, 6, struct.pack("<f", v))


def key_bool(name, v):
    return key(name, 7, struct.pack("<B", v))


def key_array(name, kind, items):
    return key(name, 9, struct.pack("<IQ", kind, len(items)) + b"".join(items))


# ==== Tensors ====

def q8_0(values):
    out = bytearray()
    for i in range(0, len(values), 32):
        block = values[i:i + 32]
        scale = struct.unpack("<e", struct.pack("<e", max(map(abs, block)) / 127))[0]
        quants = [max(-127, min(127, round(v / scale))) if scale else 0 for v in block]
        out += struct.pack("<e32b", scale, *quants)
    return bytes(out)


class Tensors:
    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.rows = []  # name, dims [out, in], type, bytes

    def matrix(self, name, rows, cols, std):
        """std: one number, or one for each row."""
        stds = std if isinstance(std, list) else [std] * rows
        data = b"".join(q8_0([self.rng.gauss(0, s) for _ in range(cols)]) for s in stds)
        self.rows.append((name, [rows, cols], Q8_0, data))

    def norm(self, name, n, mean):
        self.rows.append((name, [n], F32, struct.pack("<%df" % n, *[self.rng.gauss(mean, 0.1) for _ in range(n)])))


def make_tensors(seed, vocab):
    t = Tensors(seed)
    t.matrix("token_embd.weight", len(vocab), WIDTH, 0.3)
    t.matrix("output.weight", len(vocab), WIDTH, [row[3] for row in vocab])
    t.norm("output_norm.weight", WIDTH, 1.0)
    for i in range(LAYERS):
        b = "blk.%d." % i
        t.norm(b + "attn_norm.weight", WIDTH, 1.0)
        t.matrix(b + "attn_q.weight", HEADS * HEAD_DIM, WIDTH, 0.12)
        t.matrix(b + "attn_k.weight", KV_HEADS * HEAD_DIM, WIDTH, 0.12)
        t.matrix(b + "attn_v.weight", KV_HEADS * HEAD_DIM, WIDTH, 0.12)
        t.norm(b + "attn_q_norm.weight", HEAD_DIM, 1.5)
        t.norm(b + "attn_k_norm.weight", HEAD_DIM, 1.5)
        t.matrix(b + "attn_output.weight", WIDTH, HEADS * HEAD_DIM, 0.12)
        t.norm(b + "post_attention_norm.weight", WIDTH, 1.2)
        t.norm(b + "ffn_norm.weight", WIDTH, 1.0)
        t.matrix(b + "ffn_gate.weight", HIDDEN, WIDTH, 0.12)
        t.matrix(b + "ffn_up.weight", HIDDEN, WIDTH, 0.12)
        t.matrix(b + "ffn_down.weight", WIDTH, HIDDEN, 0.12)
        t.norm(b + "post_ffw_norm.weight", WIDTH, 1.2)
    return t.rows


def make_keys(vocab, tokenizer):
    a = "gemma3."
    keys = [key_text("general.architecture", "gemma3"), key_text("general.name", "tiny random weights"),
            key_int(a + "context_length", CONTEXT), key_int(a + "embedding_length", WIDTH),
            key_int(a + "block_count", LAYERS), key_int(a + "feed_forward_length", HIDDEN),
            key_int(a + "attention.head_count", HEADS), key_int(a + "attention.head_count_kv", KV_HEADS),
            key_int(a + "attention.key_length", HEAD_DIM), key_int(a + "attention.value_length", HEAD_DIM),
            key_float(a + "attention.layer_norm_rms_epsilon", 1e-6), key_float(a + "rope.freq_base", 1e6),
            key_int(a + "attention.sliding_window", WINDOW)]
    if not tokenizer:
        return keys + [key_text("tokenizer.ggml.model", "none")]
    keys += [key_text("tokenizer.ggml.model", "llama"),
             key_array("tokenizer.ggml.tokens", 8, [text(row[0]) for row in vocab]),
             key_array("tokenizer.ggml.scores", 6, [struct.pack("<f", row[1]) for row in vocab]),
             key_array("tokenizer.ggml.token_type", 5, [struct.pack("<i", row[2]) for row in vocab]),
             key_int("tokenizer.ggml.bos_token_id", 2), key_int("tokenizer.ggml.eos_token_id", 1),
             key_int("tokenizer.ggml.unknown_token_id", 3), key_int("tokenizer.ggml.padding_token_id", 0),
             key_bool("tokenizer.ggml.add_bos_token", True), key_bool("tokenizer.ggml.add_eos_token", False),
             key_bool("tokenizer.ggml.add_space_prefix", False),
             key_text("tokenizer.chat_template", "has turns")]  # what tells gemma3.lap that the model knows them
    return keys


def pad32(n):
    return -n % 32


def write(path, keys, tensors):
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(keys)
    offset = 0
    for name, dims, kind, data in tensors:
        head += text(name) + struct.pack("<I", len(dims)) + b"".join(struct.pack("<Q", d) for d in reversed(dims))
        head += struct.pack("<IQ", kind, offset)
        offset += len(data) + pad32(len(data))
    with open(path + ".part", "wb") as f:
        f.write(head + bytes(pad32(len(head))))
        for _, _, _, data in tensors:
            f.write(data + bytes(pad32(len(data))))
    os.replace(path + ".part", path)


def main():
    p = argparse.ArgumentParser(description="Writes a tiny GGUF model with random weights.")
    p.add_argument("out")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--no-tokenizer", action="store_true", help="tokenizer kind none: the model knows only ids")
    o = p.parse_args()
    vocab = vocabulary()
    write(o.out, make_keys(vocab, not o.no_tokenizer), make_tensors(o.seed, vocab))


if __name__ == "__main__":
    main()
