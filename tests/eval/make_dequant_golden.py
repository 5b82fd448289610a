#!/usr/bin/env python3
"""Writes dequant.golden: random blocks of every storage type with the f32 values they stand for.

The values come from the numpy decoders of the `gguf` package (pip install gguf numpy), not from this
repository. Run by hand when a type is added; the file is committed.

File, little-endian, for each type: u32 GGUF id, u32 elements, u32 bytes, the bytes, the f32 values.
"""
import struct
import sys

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Q
from gguf import quants

BLOCKS = 6
# Byte offsets of the f16 scales of a block; they are made finite, subnormals and zero included.
SCALES = {
    Q.Q4_0: [0], Q.Q4_1: [0, 2], Q.Q5_0: [0], Q.Q5_1: [0, 2], Q.Q8_0: [0],
    Q.Q2_K: [80, 82], Q.Q3_K: [108], Q.Q4_K: [0, 2], Q.Q5_K: [0, 2], Q.Q6_K: [208],
    Q.IQ4_NL: [0], Q.IQ4_XS: [0], Q.MXFP4: [],
}


def scales(rng, block):
    """One f16 a block: ordinary ones, then a subnormal, a zero, a large negative one."""
    special = {BLOCKS - 3: 3e-7, BLOCKS - 2: 0.0, BLOCKS - 1: -31000.0}
    return np.float16(special.get(block, rng.uniform(-2, 2)))


def blocks_of(rng, qtype):
    elems, size = GGML_QUANT_SIZES[qtype]
    if elems == 1:  # plain floats: numbers of many magnitudes
        x = (rng.standard_normal(96) * 10.0 ** rng.integers(-6, 4, 96)).astype(np.float32)
        return quants.quantize(x, qtype).view(np.uint8).reshape(1, -1)
    raw = rng.integers(0, 256, (BLOCKS, size), dtype=np.uint8)
    for b in range(BLOCKS):
        for at in SCALES[qtype]:
            raw[b, at:at + 2] = np.frombuffer(scales(rng, b).tobytes(), dtype=np.uint8)
        if qtype == Q.MXFP4:
            raw[b, 0] = [127, 120, 131, 0, 1, 2][b]
    return raw.reshape(1, -1)


def main(path):
    rng = np.random.default_rng(20240611)
    with open(path, "wb") as out:
        for qtype in [Q.F32, Q.F16, Q.BF16] + list(SCALES):
            raw = blocks_of(rng, qtype)
            values = np.ascontiguousarray(quants.dequantize(raw, qtype), dtype="<f4").reshape(-1)
            assert np.isfinite(values).all(), qtype
            out.write(struct.pack("<III", int(qtype), values.size, raw.size))
            out.write(raw.tobytes())
            out.write(values.tobytes())


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "dequant.golden")
