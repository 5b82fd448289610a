#!/usr/bin/env python3
"""Writes quantise.golden: random values and the blocks that another program makes of them.

The blocks come from the numpy encoders of the `gguf` package (pip install gguf numpy), not from this
repository. Run by hand when a type is added; the file is committed.

File, little-endian, for each type: u32 GGUF id, u32 elements, u32 bytes, the f32 values, the bytes.
"""
import struct
import sys

import numpy as np
from gguf import GGMLQuantizationType as Q
from gguf import quants

BLOCKS = 40


def values(rng):
    """Blocks of 32 of several magnitudes; a zero one, equal ones, ties of the extreme and of rounding."""
    x = rng.standard_normal((BLOCKS, 32)) * 10.0 ** rng.integers(-4, 3, (BLOCKS, 1))
    x[0] = 0
    x[1], x[2] = 1.5, -1.5
    x[3, 4], x[3, 20] = 7, -7
    x[4, 4], x[4, 20] = -7, 7
    x[5] = np.arange(32) - 15.5
    x[6] = (np.arange(32) - 16) * 0.5
    x[6, 0] = 127
    x[7] = 0
    x[7, 31] = -3
    return x.astype(np.float32).reshape(1, -1)


def main(path):
    rng = np.random.default_rng(20261127)
    with open(path, "wb") as out:
        for qtype in [Q.F16, Q.BF16, Q.Q8_0, Q.Q5_0, Q.Q4_0]:
            x = values(rng)
            raw = np.ascontiguousarray(quants.quantize(x, qtype)).view(np.uint8).reshape(-1)
            out.write(struct.pack("<III", int(qtype), x.size, raw.size))
            out.write(x.astype("<f4").tobytes())
            out.write(raw.tobytes())


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "quantise.golden")
