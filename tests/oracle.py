"""Drafters that know what comes, for tests of guessing.

A table says by position which token is guessed: a row of two digits, each as one of 64, beside the digits of every token,
so that the guess has the greatest logit in any storage type. The first weights of the file are that table.
"""
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "examples", "tiny"))
import make_tiny as tiny

DIGIT, WORK = 64, 4096
TEXT = """model oracle from gguf "oracle" uses target: %s {
  param most : int = meta("most")
  param V    : int = shape("points", 0)
  param D    : int = shape("points", 1)
  param slow : int = meta("slow")
  drafts block(most = most, mask = 0)
  entry absorb(pos: pos[T]) { tap seen = embed(pos, "guess") }
  entry draft(tokens: token[T], pos: pos[T]) {
    var x = embed(pos, "guess") + 0.0 * embed(tokens, "points")
    for i in 0..slow { x = x + linear(linear(x, "up", shape("up", 0)), "down", D) }
    emit logits = linear(rows(x), "points", V)
  }
}
"""


def digits(token):
    row = [0.0] * (2 * DIGIT)
    row[token // DIGIT] = row[DIGIT + token % DIGIT] = 1.0
    return struct.pack("<%df" % len(row), *row)


def write(path, vocab, start, made, right, rng, most=15, slow=0, target="gemma4"):
    """Writes PATH.gguf and PATH.lap; gives the options that let it draft. The guess for position p, at which there is
    made[p - start], is that token where right(p), else another. slow: how often it does work for nothing, each time as
    much as a small model."""
    guesses = []
    for p in range(max(start + len(made) + 32, vocab)):  # a GPU looks up tokens and positions with one bound
        token = made[p - start] if 0 <= p - start < len(made) else 0
        guesses.append(token if right(p) else (token + 1 + rng.randrange(vocab - 1)) % vocab)
    tensors = [("guess", [len(guesses), 2 * DIGIT], tiny.F32, b"".join(map(digits, guesses))),
               ("points", [vocab, 2 * DIGIT], tiny.F32, b"".join(map(digits, range(vocab))))]
    if slow:
        work = bytes(4 * WORK * 2 * DIGIT)
        tensors += [("up", [WORK, 2 * DIGIT], tiny.F32, work), ("down", [2 * DIGIT, WORK], tiny.F32, work)]
    keys = [tiny.key_text("general.architecture", "oracle"), tiny.key_int("oracle.most", most),
            tiny.key_int("oracle.slow", slow)]
    tiny.write(path + ".gguf", keys, tensors)
    with open(path + ".lap", "w") as f:
        f.write(TEXT % target)
    return ["--draft", path + ".gguf", "--draft-model", path + ".lap"]
