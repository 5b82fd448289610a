"""Malformed weight files, each with the message it must get.

A case is (name, files, message). files: bytes of the one file, or {path: bytes} with the first one
opened; None as bytes makes a folder, "fifo" a named pipe. message: what is printed after
`FILE: error: `, or the whole output when it starts with "=".
"""
import json
import os

from formats import *

INF, NAN = float("inf"), float("nan")
ARCH = key("general.architecture", STRING, "tiny")
TWO32 = bytes(64)  # data of two small tensors


def tiny(*tensors, data=TWO32, keys=(ARCH,), **more):
    return gguf(keys, tensors, data, **more)


def one_key(raw, n_keys=1):
    return gguf([raw], n_keys=n_keys)


def raw_array(name, kind, count, data=b""):
    return text(name) + u32(ARRAY) + u32(kind) + u64(count) + data


GOOD_A = tensor("a", [8], 0, 0)
GOOD_B = tensor("b", [8], 0, 32)

GGUF_HEADER = [
    ("one-byte", b"G", "header: needs 24 bytes, but the file has 1"),
    ("magic-only", b"GGUF", "header: needs 24 bytes, but the file has 4"),
    ("header-23", gguf()[:23], "header: needs 24 bytes, but the file has 23"),
    ("magic-wrong", gguf(magic=b"GGUX"), "header: the file does not start with the letters GGUF"),
    ("version-0", gguf(version=0), "header: GGUF version 0 cannot be read, only 2 and 3"),
    ("version-1", gguf(version=1), "header: GGUF version 1 cannot be read, only 2 and 3"),
    ("version-4", gguf(version=4), "header: GGUF version 4 cannot be read, only 2 and 3"),
    ("big-endian", gguf(version=3 << 24), "header: this is a big-endian file; only little-endian ones can be read"),
    ("keys-2^63", gguf(n_keys=1 << 63), "header: 9223372036854775808 keys; the limit is 100000"),
    ("keys-too-many", gguf(n_keys=100001), "header: 100001 keys; the limit is 100000"),
    ("keys-beyond-end", gguf(n_keys=1), "header: 1 keys cannot fit in the 0 bytes after the header"),
    ("tensors-2^64-1", gguf(n_tensors=2**64 - 1), "header: 18446744073709551615 tensors; the limit is 1000000"),
    ("tensors-beyond-end", gguf([ARCH], n_tensors=1000), "header: 1000 tensors cannot fit in the 44 bytes after the header"),
]

GGUF_KEYS = [
    ("key-name-length-wraps", gguf([u64(2**64 - 8) + bytes(20)]),
     "key 1 of 1: has a string of 18446744073709551608 bytes; the limit is 65535"),
    ("key-name-cut", gguf([u64(100) + b"general.arch"]),
     "key 1 of 1: needs 100 more bytes at byte 32, but the file ends at 44"),
    ("key-type-cut", gguf([text("general.name") + b"\x08\x00"]),
     "key 'general.name': needs 4 more bytes at byte 44, but the file ends at 46"),
    ("key-value-cut", gguf([text("general.x") + u32(U64) + bytes(7)]),
     "key 'general.x': needs 8 more bytes at byte 45, but the file ends at 52"),
    ("key-second-missing", gguf([ARCH], n_keys=2), "key 2 of 2: needs 8 more bytes at byte 68, but the file ends at 68"),
    ("key-empty-name", gguf([key("", U32, 1)]), "key 1 of 1: its name is empty"),
    ("key-nul", gguf([key("a\0b", U32, 1)]), "key 1 of 1: its name has a control character"),
    ("key-escape", gguf([key("a\x1b[2J", U32, 1)]), "key 1 of 1: its name has a control character"),
    ("key-c1-control", gguf([key("a\x9bm", U32, 1)]), "key 1 of 1: its name has a control character"),
    ("key-bad-utf8", gguf([key(b"a\xff", U32, 1)]), "key 1 of 1: its name is not valid UTF-8"),
    ("key-overlong-utf8", gguf([key(b"a\xc0\x80", U32, 1)]), "key 1 of 1: its name is not valid UTF-8"),
    ("key-surrogate", gguf([key(b"\xed\xa0\x80", U32, 1)]), "key 1 of 1: its name is not valid UTF-8"),
    ("key-cut-utf8", gguf([key(b"abc\xe2\x82", U32, 1)]), "key 1 of 1: its name is not valid UTF-8"),
    ("key-twice", gguf([key("a.b", U32, 1), key("a.b", U32, 1)]), "key 'a.b': is in the file twice"),
    ("type-13", gguf([text("k") + u32(13) + bytes(8)]), "key 'k': unknown value type 13 (known are 0 to 12)"),
    ("type-negative", gguf([text("k") + u32(2**32 - 1) + bytes(8)]),
     "key 'k': unknown value type 4294967295 (known are 0 to 12)"),
    ("string-cut", gguf([text("k") + u32(STRING) + u64(10) + b"123456789"]),
     "key 'k': needs 10 more bytes at byte 45, but the file ends at 54"),
    ("string-2^63", gguf([text("k") + u32(STRING) + u64(1 << 63) + b"1234"]),
     "key 'k': has a string of 9223372036854775808 bytes; the limit is 67108864"),
    ("u64-too-large", gguf([key("k", U64, 1 << 63)]), "key 'k': 9223372036854775808 does not fit in a signed 64-bit integer"),
    ("nan-f32", gguf([key("t.eps", F32, NAN)]), "key 't.eps': is not a finite number"),
    ("inf-f64", gguf([key("t.rope", F64, -INF)]), "key 't.rope': is not a finite number"),
    ("inf-in-array", gguf([array("t.scales", F32, [1.0, 2.0, INF])]), "key 't.scales': element 2 is not a finite number"),
    ("array-of-arrays", gguf([raw_array("k", ARRAY, 1, u32(U8) + u64(1) + b"x")]), "key 'k': an array of arrays cannot be read"),
    ("array-type-unknown", gguf([raw_array("k", 99, 1, b"x")]), "key 'k': unknown value type 99 (known are 0 to 12)"),
    ("array-count-cut", gguf([text("k") + u32(ARRAY) + u32(U8) + bytes(3)]),
     "key 'k': needs 8 more bytes at byte 41, but the file ends at 44"),
    ("array-too-long", gguf([raw_array("k", U32, 4, bytes(15))]), "key 'k': an array of 4 u32 values cannot fit in the 15 bytes left"),
    ("array-bytes-wrap", gguf([raw_array("k", U64, 1 << 61, bytes(16))]),
     "key 'k': an array of 2305843009213693952 u64 values cannot fit in the 16 bytes left"),
    ("array-strings-too-many", gguf([raw_array("k", STRING, 1 << 60, bytes(64))]),
     "key 'k': an array of 1152921504606846976 string values cannot fit in the 64 bytes left"),
    ("array-string-cut", gguf([raw_array("k", STRING, 2, text("ok") + u64(9) + b"short")]),
     "key 'k': needs 9 more bytes at byte 67, but the file ends at 72"),
    ("array-memory", gguf([raw_array("k", U8, 2**25 + 1, bytes(2**25 + 1))]),
     "key 'k': the metadata takes more than 256 MiB of memory"),
    ("arch-number", gguf([key("general.architecture", U32, 3)]), "key 'general.architecture': must be a string"),
    ("arch-array", gguf([array("general.architecture", STRING, ["a"])]), "key 'general.architecture': must be a string"),
    ("arch-control", gguf([key("general.architecture", STRING, "a\nb")]),
     "key 'general.architecture': its value has a control character"),
    ("alignment-u64", gguf([key("general.alignment", U64, 32)]), "key 'general.alignment': must be a u32"),
    ("alignment-0", gguf([key("general.alignment", U32, 0)]), "key 'general.alignment': 0 is not a power of two from 1 to 1048576"),
    ("alignment-48", gguf([key("general.alignment", U32, 48)]), "key 'general.alignment': 48 is not a power of two from 1 to 1048576"),
    ("alignment-2^31", gguf([key("general.alignment", U32, 1 << 31)]),
     "key 'general.alignment': 2147483648 is not a power of two from 1 to 1048576"),
]

GGUF_TENSORS = [
    ("tensor-name-cut", gguf([ARCH], [u64(30) + b"0123456789012345678901234"[:20]]),
     "tensor 1 of 1: needs 30 more bytes at byte 76, but the file ends at 96"),
    ("tensor-dims-cut", gguf([ARCH], [text("a") + u32(4) + u64(1) + u64(1)]),
     "tensor 'a': needs 8 more bytes at byte 97, but the file ends at 97"),
    ("tensor-type-cut", gguf([ARCH], [text("abcdefgh") + u32(1) + u64(8)]),
     "tensor 'abcdefgh': needs 4 more bytes at byte 96, but the file ends at 96"),
    ("tensor-offset-cut", gguf([ARCH], [tensor("abcd", [8], 0, 0)[:-1]]),
     "tensor 'abcd': needs 8 more bytes at byte 96, but the file ends at 103"),
    ("tensor-second-cut", gguf([ARCH], [GOOD_A, tensor("second", [8], 0, 32)[:20]]),
     "tensor 'second': needs 8 more bytes at byte 119, but the file ends at 121"),
    ("tensor-name-empty", tiny(tensor("", [8], 0, 0)), "tensor 1 of 1: its name is empty"),
    ("tensor-name-65", tiny(tensor("x" * 65, [8], 0, 0)), "tensor 1 of 1: has a string of 65 bytes; the limit is 64"),
    ("tensor-name-nul", tiny(tensor("a\0", [8], 0, 0)), "tensor 1 of 1: its name has a control character"),
    ("tensor-name-utf8", tiny(tensor(b"\xf8\x88\x80\x80\x80", [8], 0, 0)), "tensor 1 of 1: its name is not valid UTF-8"),
    ("tensor-twice", tiny(GOOD_A, tensor("a", [8], 0, 32)), "tensor 'a': is in the file twice"),
    ("rank-5", tiny(tensor("a", [1, 1, 1, 1, 1], 0, 0)), "tensor 'a': has 5 dimensions; the limit is 4"),
    ("rank-2^32-1", tiny(text("a") + u32(2**32 - 1) + bytes(40)), "tensor 'a': has 4294967295 dimensions; the limit is 4"),
    ("dim-0", tiny(tensor("a", [8, 0], 0, 0)), "tensor 'a': dimension 1 is 0"),
    ("dim-negative", tiny(tensor("a", [2**64 - 1], 0, 0)),
     "tensor 'a': has too many elements (dimension 0 is 18446744073709551615)"),
    ("dims-wrap-to-1", tiny(tensor("a", [2**32, 2**32], 0, 0)),
     "tensor 'a': has too many elements (dimension 1 is 4294967296)"),
    ("dims-wrap-4", tiny(tensor("a", [65536, 65536, 65536, 65536], 0, 0)),
     "tensor 'a': has too many elements (dimension 3 is 65536)"),
    ("bytes-wrap", tiny(tensor("a", [2**62], 0, 0)), "tensor 'a': has too many bytes"),
    ("row-not-blocks", tiny(tensor("a", [48], 8, 0)), "tensor 'a': rows of 48 elements are not whole q8_0 blocks of 32"),
    ("rank-0-not-blocks", tiny(tensor("a", [], 12, 0)), "tensor 'a': rows of 1 elements are not whole q4_k blocks of 256"),
    ("row-not-blocks-2d", tiny(tensor("a", [32, 8], 14, 0)), "tensor 'a': rows of 32 elements are not whole q6_k blocks of 256"),
    ("misaligned", tiny(GOOD_A, tensor("b", [4], 0, 40)), "tensor 'b': its offset 40 is not a multiple of the alignment 32"),
    ("misaligned-64", gguf([key("general.alignment", U32, 64)], [GOOD_A, GOOD_B], bytes(128), align=64),
     "tensor 'b': its offset 32 is not a multiple of the alignment 64"),
    ("overlap", tiny(tensor("a", [9], 0, 0), GOOD_B),
     "tensor 'b': data at bytes 192 to 224 overlaps tensor 'a' at 160 to 196"),
    ("overlap-same-place", tiny(GOOD_A, tensor("b", [8], 0, 0)),
     "tensor 'b': data at bytes 160 to 192 overlaps tensor 'a' at 160 to 192"),
    ("overlap-out-of-order", tiny(tensor("a", [4], 0, 32), tensor("b", [16], 0, 0)),
     "tensor 'a': data at bytes 192 to 208 overlaps tensor 'b' at 160 to 224"),
    ("overlap-inside-unknown-type", tiny(tensor("a", [16], 0, 0), tensor("b", [8], 99, 32)),
     "tensor 'b': data at bytes 192 to 193 overlaps tensor 'a' at 160 to 224"),
    ("data-cut", tiny(GOOD_A, GOOD_B, data=TWO32[:-1]),
     "tensor 'b': data ends at byte 224, but the file has 223; 224 are needed for all tensors (is the file truncated?)"),
    ("data-missing", gguf([ARCH], [GOOD_A, GOOD_B]),
     "tensor 'a': data ends at byte 192, but the file has 134; 224 are needed for all tensors (is the file truncated?)"),
    ("data-cut-names-first", tiny(tensor("late", [8], 0, 96), GOOD_A, tensor("mid", [8], 0, 32), data=bytes(48)),
     "tensor 'mid': data ends at byte 256, but the file has 240; 320 are needed for all tensors (is the file truncated?)"),
    ("offset-wraps", tiny(tensor("a", [8], 0, 2**64 - 32)),
     "tensor 'a': offset 18446744073709551584 and size 32 are beyond any file"),
    ("offset-far", tiny(tensor("a", [8], 0, 1 << 40)),
     "tensor 'a': data ends at byte 1099511627936, but the file has 192; 1099511627936 are needed for all tensors (is the file truncated?)"),
    # The class of llama.cpp PR 14595: the padded sizes of two tensors add up to 64 bytes modulo 2^64.
    ("sizes-wrap", tiny(tensor("a", [2**61], 0, 0), tensor("b", [2**61 + 8], 0, 2**63), data=TWO32),
     "tensor 'b': offset 9223372036854775808 and size 9223372036854775840 are beyond any file"),
    ("sizes-wrap-alone", tiny(tensor("a", [2**62 - 8], 0, 0)),
     "tensor 'a': offset 0 and size 18446744073709551584 are beyond any file"),
    ("unknown-type-beyond-end", tiny(tensor("a", [8], 77, 64), data=TWO32),
     "tensor 'a': data ends at byte 193, but the file has 192; 193 are needed for all tensors (is the file truncated?)"),
]


def part(no, count, tensors=(), keys=(), total=2, data=TWO32, count_kind=U16):
    split = [key("split.no", U16, no), key("split.count", count_kind, count), key("split.tensors.count", I32, total)]
    return gguf(split + list(keys), tensors, data if tensors else b"")


def pair(second, first=None):
    return {"m-00001-of-00002.gguf": first or part(0, 2, [GOOD_A], [ARCH]), "m-00002-of-00002.gguf": second}


GGUF_SPLITS = [
    ("split-name", {"m.gguf": part(0, 2, [GOOD_A])},
     "is part 1 of 2, but its name does not end in -00001-of-00002.gguf, so the other parts cannot be found"),
    ("split-name-other-part", {"m-00001-of-00002.gguf": part(1, 2, [GOOD_A])},
     "is part 2 of 2, but its name does not end in -00002-of-00002.gguf, so the other parts cannot be found"),
    ("split-missing", {"m-00001-of-00002.gguf": part(0, 2, [GOOD_A])},
     "=m-00002-of-00002.gguf: error: cannot open: No such file or directory\n"
     "m-00001-of-00002.gguf: note: this is part 1 of a model of 2 files"),
    ("split-empty-part", pair(b""),
     "=m-00002-of-00002.gguf: error: the file is empty\n"
     "m-00001-of-00002.gguf: note: this is part 1 of a model of 2 files"),
    ("split-bad-part", pair(b"GGUF\3\0\0\0"), "=m-00002-of-00002.gguf: error: header: needs 24 bytes, but the file has 8"),
    ("split-wrong-no", pair(part(0, 2, [GOOD_B])),
     "=m-00002-of-00002.gguf: error: says it is part 1 of 2, its name says part 2 of 2"),
    ("split-wrong-count", pair(part(1, 3, [GOOD_B])),
     "=m-00002-of-00002.gguf: error: says it is part 2 of 3, its name says part 2 of 2"),
    ("split-not-a-part", pair(gguf([], [GOOD_B], TWO32)),
     "=m-00002-of-00002.gguf: error: says it is part 1 of 1, its name says part 2 of 2"),
    ("split-total-differs", pair(part(1, 2, [GOOD_B], total=3)),
     "=m-00002-of-00002.gguf: error: key 'split.tensors.count': differs from the first part\n"
     "m-00001-of-00002.gguf: note: the first part is this"),
    ("split-key-differs", pair(part(1, 2, [GOOD_B], [key("general.architecture", STRING, "other")])),
     "=m-00002-of-00002.gguf: error: key 'general.architecture': differs from the first part\n"
     "m-00001-of-00002.gguf: note: the first part is this"),
    ("split-key-only-in-second", pair(part(1, 2, [GOOD_B], [key("t.x", U32, 1)])),
     "=m-00002-of-00002.gguf: error: key 't.x': the first part does not have it\n"
     "m-00001-of-00002.gguf: note: the first part is this"),
    ("split-total-wrong", pair(part(1, 2, [GOOD_B], total=5), part(0, 2, [GOOD_A], total=5)),
     "key 'split.tensors.count': says 5 tensors, but the 2 parts hold 2"),
    ("split-tensor-twice", pair(part(1, 2, [GOOD_A])),
     "=m-00002-of-00002.gguf: error: tensor 'a': is also in m-00001-of-00002.gguf"),
    ("split-no-text", {"m.gguf": gguf([key("split.no", STRING, "0")])}, "key 'split.no': must be one integer, not negative"),
    ("split-count-negative", {"m.gguf": gguf([key("split.count", I32, -1)])},
     "key 'split.count': must be one integer, not negative"),
    ("split-count-array", {"m.gguf": gguf([array("split.count", I32, [2])])},
     "key 'split.count': must be one integer, not negative"),
    ("split-count-huge", {"m.gguf": gguf([key("split.count", U64, 1 << 40)])},
     "key 'split.count': 1099511627776 parts; the limit is 99999"),
    ("split-no-beyond-count", {"m.gguf": part(7, 3)}, "key 'split.no': is 7, but there are 3 parts (counted from 0)"),
]

A = entry("F32", [8], 0, 32)
B = entry("F32", [2, 4], 32, 64)


def st(header=None, data=TWO32, **more):
    return safetensors(header, data, **more)


def a_with(**changes):
    """The header with one tensor, changed."""
    return st({"a": {**A, **changes}}, data=bytes(32))


SAFETENSORS = [
    ("length-cut", u64(2)[:7], "header: needs 8 bytes, but the file has 7"),
    ("length-only", u64(2), "header: ends at byte 10, but the file has 8"),
    ("length-beyond-end", st({"a": A}, length=1000, data=bytes(32)), "header: ends at byte 1008, but the file has 95"),
    ("length-over-limit", st({"a": A}, length=100000001), "header: its length is 100000001 bytes; the limit is 100000000"),
    ("length-2^64-1", st({"a": A}, length=2**64 - 1), "header: its length is 18446744073709551615 bytes; the limit is 100000000"),
    ("length-0", u64(0) + b"{}", "header: does not start with '{'"),
    ("header-space-first", st(b' {"a":1}'), "header: does not start with '{'"),
    ("header-array", st(b'["a"]'), "header: does not start with '{'"),
    ("json-cut", st(b'{"a":{"dtype":"F3'), "header: line 1, column 17: premature end of input near '\"F3'"),
    ("json-trailing", st(b'{} x'), "header: line 1, column 4: end of file expected near 'x'"),
    ("json-bad-utf8", st(b'{"\xff":1}'), "header: line 1, column 2: unable to decode byte 0xff near '\"'"),
    ("json-nul", st(b'{"a\\u0000":1}'), "header: line 1, column 10: NUL byte in object key not supported near '\"a\\u0000\"'"),
    ("json-duplicate", st(b'{"a":{"dtype":"F32","shape":[8],"data_offsets":[0,32]},"a":{"dtype":"F32","shape":[8],"data_offsets":[32,64]}}'),
     "header: line 1, column 58: duplicate object key near '\"a\"'"),
    ("json-duplicate-field", st(b'{"a":{"dtype":"F32","shape":[8],"shape":[4],"data_offsets":[0,32]}}'),
     "header: line 1, column 39: duplicate object key near '\"shape\"'"),
    ("json-bomb", st(b'{"a":' + b"[" * 100000), "header: nested 100001 deep; the limit is 16"),
    ("json-deep", st(b'{"a":' + b"[" * 16 + b"]" * 16 + b"}"), "header: nested 17 deep; the limit is 16"),
    ("json-many-values", st(b'{"a":[' + b"0," * 4000000 + b"0]}"), "header: more than 4000000 values"),
    ("name-empty", st({"": A}, data=bytes(32)), "tensor 1: its name is empty"),
    ("name-control", st(b'{"a\\u001b[2J":{"dtype":"F32","shape":[8],"data_offsets":[0,32]}}'),
     "tensor 1: its name has a control character"),
    ("entry-number", st({"a": 3}), "tensor 'a': must be an object with dtype, shape and data_offsets"),
    ("no-dtype", st({"a": {"shape": [8], "data_offsets": [0, 32]}}), "tensor 'a': field 'dtype' is missing"),
    ("no-shape", st({"a": {"dtype": "F32", "data_offsets": [0, 32]}}), "tensor 'a': field 'shape' is missing"),
    ("no-offsets", st({"a": {"dtype": "F32", "shape": [8]}}), "tensor 'a': field 'data_offsets' is missing"),
    ("field-unknown", a_with(strides=[1]), "tensor 'a': has fields other than dtype, shape and data_offsets"),
    ("dtype-unknown", a_with(dtype="f32"), "tensor 'a': unknown dtype 'f32'"),
    ("dtype-control", a_with(dtype="\x07"), "tensor 'a': unknown dtype"),
    ("dtype-number", a_with(dtype=32), "tensor 'a': field 'dtype' must be a string"),
    ("shape-number", a_with(shape=8), "tensor 'a': field 'shape' must be a list of integers"),
    ("shape-rank-5", a_with(shape=[1, 1, 1, 1, 8]), "tensor 'a': field 'shape' has 5 numbers; the limit is 4"),
    ("shape-float", a_with(shape=[8.0]), "tensor 'a': field 'shape' must hold integers that are not negative"),
    ("shape-exponent", st(b'{"a":{"dtype":"F32","shape":[8e0],"data_offsets":[0,32]}}', data=bytes(32)),
     "tensor 'a': field 'shape' must hold integers that are not negative"),
    ("shape-negative", a_with(shape=[-8]), "tensor 'a': field 'shape' must hold integers that are not negative"),
    ("shape-text", a_with(shape=["8"]), "tensor 'a': field 'shape' must hold integers that are not negative"),
    ("shape-bool", a_with(shape=[True]), "tensor 'a': field 'shape' must hold integers that are not negative"),
    ("shape-minus-zero", st(b'{"a":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}', data=b""),
     "header: a number has a minus sign"),
    ("shape-2^64", st(b'{"a":{"dtype":"F32","shape":[18446744073709551624],"data_offsets":[0,32]}}', data=bytes(32)),
     "header: line 1, column 49: too big integer near '18446744073709551624'"),
    ("shape-wraps", a_with(shape=[1 << 62, 2, 2]), "tensor 'a': its shape has too many elements"),
    ("shape-wraps-behind-0", a_with(shape=[0, 1 << 62, 1 << 62], data_offsets=[0, 0]), "tensor 'a': its shape has too many elements"),
    ("shape-size-differs", a_with(shape=[7]), "tensor 'a': shape and dtype need 28 bytes, but data_offsets give it 32"),
    ("dtype-size-differs", a_with(dtype="BF16"), "tensor 'a': shape and dtype need 16 bytes, but data_offsets give it 32"),
    ("zero-with-data", a_with(shape=[0]), "tensor 'a': shape and dtype need 0 bytes, but data_offsets give it 32"),
    ("offsets-one", a_with(data_offsets=[0]), "tensor 'a': field 'data_offsets' must hold two integers"),
    ("offsets-three", a_with(data_offsets=[0, 32, 64]), "tensor 'a': field 'data_offsets' has 3 numbers; the limit is 2"),
    ("offsets-object", a_with(data_offsets={"begin": 0}), "tensor 'a': field 'data_offsets' must be a list of integers"),
    ("offsets-null", a_with(data_offsets=[None, 32]), "tensor 'a': field 'data_offsets' must hold integers that are not negative"),
    ("offsets-backwards", a_with(data_offsets=[32, 0]), "tensor 'a': data_offsets end at 0, before their begin at 32"),
    ("first-not-at-0", a_with(data_offsets=[8, 40]), "tensor 'a': data begins at 8, but the data before it ends at 0 (a hole)"),
    ("hole", st({"a": A, "b": entry("F32", [8], 40, 72)}, data=bytes(72)),
     "tensor 'b': data begins at 40, but the data before it ends at 32 (a hole)"),
    ("overlap", st({"a": A, "b": entry("F32", [8], 24, 56)}, data=bytes(56)),
     "tensor 'b': data begins at 24 and overlaps tensor 'a', which ends at 32"),
    ("overlap-same", st({"a": A, "b": A}, data=bytes(32)),
     "tensor 'b': data begins at 0 and overlaps tensor 'a', which ends at 32"),
    ("data-cut", st({"a": A, "b": B}, data=bytes(63)),
     "tensor 'b': data ends at byte 184, but the file has 183; 184 are needed for all tensors (is the file truncated?)"),
    ("data-missing", st({"a": A, "b": B}, data=b""),
     "tensor 'a': data ends at byte 152, but the file has 120; 184 are needed for all tensors (is the file truncated?)"),
    ("data-extra", st({"a": A}, data=bytes(33)), "1 bytes after the last tensor belong to none"),
    ("data-without-tensors", st({}, data=bytes(4)), "4 bytes after the last tensor belong to none"),
    ("metadata-array", st({"__metadata__": ["x"], "a": A}, data=bytes(32)), "'__metadata__' must be an object of strings"),
    ("metadata-number", st({"__metadata__": {"x": 1}, "a": A}, data=bytes(32)), "'__metadata__': a value is no string"),
    ("metadata-name", st({"__metadata__": {"x\n": "1"}, "a": A}, data=bytes(32)),
     "'__metadata__': the name of a key has a control character"),
]

CONFIG = b'{"model_type": "tiny"}'
MODEL = st({"a": A, "b": B})


def folder(**more):
    """A folder "m" with these files; _ stands for a point in their names, __ for a dash."""
    files = {"m": None}
    for name, data in more.items():
        name = name.replace("__", "-").replace("_", ".")
        files["m/" + name] = json.dumps(data).encode() if isinstance(data, dict) else data
    return files


def index(**weight_map):
    return {"metadata": {"total_size": 64}, "weight_map": weight_map}


def shards(weight_map):
    return folder(config_json=CONFIG, model_safetensors_index_json={"weight_map": weight_map},
                  s1=st({"a": A}, data=bytes(32)), s2=st({"b": A}, data=bytes(32)))


DIR_EMPTY = "the folder has neither model.safetensors nor model.safetensors.index.json nor a .gguf"
FOLDERS = [
    ("dir-empty", folder(), DIR_EMPTY),
    ("dir-other-files", folder(config_json=CONFIG, adapter_safetensors=MODEL, _hidden_gguf=gguf([ARCH])), DIR_EMPTY),
    ("dir-is-dir.gguf", {"m": None, "m/sub.gguf": None}, DIR_EMPTY),
    ("dir-both", folder(config_json=CONFIG, model_safetensors=MODEL, b_gguf=gguf([ARCH])),
     "the folder holds 2 models; name one of them: m/model.safetensors and m/b.gguf"),
    ("dir-index-and-gguf", {**shards({"a": "s1", "b": "s2"}), "m/b.gguf": gguf([ARCH])},
     "the folder holds 2 models; name one of them: m/model.safetensors.index.json and m/b.gguf"),
    ("dir-several-gguf", folder(b_gguf=gguf([ARCH]), a_gguf=gguf([ARCH]), c__00002__of__00002_gguf=b"", c__00001__of__00002_gguf=b""),
     "the folder holds 3 models; name one of them: m/a.gguf, m/b.gguf and m/c-00001-of-00002.gguf"),
    ("dir-several-splits", folder(a__00001__of__00002_gguf=b"", a__00001__of__00003_gguf=b"", b__00001__of__00002_gguf=b""),
     "the folder holds 3 models; name one of them: m/a-00001-of-00002.gguf, m/a-00001-of-00003.gguf and "
     "m/b-00001-of-00002.gguf"),
    ("dir-gguf-bad", folder(a_gguf=b"GGUF"), "=m/a.gguf: error: header: needs 24 bytes, but the file has 4"),
    ("dir-no-config", folder(model_safetensors=MODEL), "the folder has no config.json"),
    ("dir-config-empty", folder(model_safetensors=MODEL, config_json=b""), "=m/config.json: error: the file is empty"),
    ("dir-config-array", folder(model_safetensors=MODEL, config_json=b"[1]"), "=m/config.json: error: JSON: must be an object"),
    ("dir-config-broken", folder(model_safetensors=MODEL, config_json=b'{"a": 1,\n "b": }'),
     "=m/config.json: error: JSON: line 2, column 7: unexpected token near '}'"),
    ("dir-config-duplicate", folder(model_safetensors=MODEL, config_json=b'{"a":1,"a":2}'),
     "=m/config.json: error: JSON: line 1, column 10: duplicate object key near '\"a\"'"),
    ("dir-config-dotted-duplicate", folder(model_safetensors=MODEL, config_json={"a.b": 1, "a": {"b": 2}}),
     "=m/config.json: error: key 'a.b': is in the file twice (once as a dotted name)"),
    ("dir-config-name", folder(model_safetensors=MODEL, config_json={"a\t": 1}),
     "=m/config.json: error: the name of a key has a control character"),
    ("dir-config-large", folder(model_safetensors=MODEL, config_json=b"{" + b" " * (4 << 20) + b"}"),
     "=m/config.json: error: has 4194306 bytes; the limit for this file is 4194304"),
    ("dir-config-no-room-for-key", folder(model_safetensors=MODEL, config_json={"x" * 255: {"y": 1}}),
     "=m/config.json: error: the name of a key is too long"),
    ("dir-config-long-key", folder(model_safetensors=MODEL, config_json={"x" * 200: {"y" * 55: 1}}),
     "=m/config.json: error: the name of a key is too long"),
    ("dir-config-deep", folder(model_safetensors=MODEL, config_json=b'{"a":' * 17 + b"1" + b"}" * 17),
     "=m/config.json: error: JSON: nested 17 deep; the limit is 16"),
    ("dir-config-is-dir", {"m": None, "m/config.json": None, "m/model.safetensors": MODEL},
     "=m/config.json: error: is a directory, not a file"),
    ("dir-model-bad", folder(config_json=CONFIG, model_safetensors=MODEL[:-1]),
     "=m/model.safetensors: error: tensor 'b': data ends at byte 184, but the file has 183; 184 are needed for all tensors (is the file truncated?)"),
    ("beside-config-bad", {"x.safetensors": MODEL, "config.json": b"{"},
     "=config.json: error: JSON: line 1, column 1: string or '}' expected near end of file"),
    ("index-no-map", folder(config_json=CONFIG, model_safetensors_index_json={"metadata": {}}),
     "=m/model.safetensors.index.json: error: 'weight_map' must be an object that maps tensors to files"),
    ("index-by-name-no-config", {"m/model.safetensors.index.json": b"{}"}, "=m: error: the folder has no config.json"),
    ("index-by-name-no-map", {"model.safetensors.index.json": b"{}", "config.json": CONFIG},
     "'weight_map' must be an object that maps tensors to files"),
    ("index-path", shards({"a": "../s1"}),
     "=m/model.safetensors.index.json: error: tensor 'a': its file must be a plain file name"),
    ("index-absolute", shards({"a": "/etc/passwd"}),
     "=m/model.safetensors.index.json: error: tensor 'a': its file must be a plain file name"),
    ("index-dotdot", shards({"a": ".."}),
     "=m/model.safetensors.index.json: error: tensor 'a': its file must be a plain file name"),
    ("index-number", shards({"a": 1}),
     "=m/model.safetensors.index.json: error: tensor 'a': its file must be a plain file name"),
    ("index-tensor-name", shards({"a\n": "s1"}),
     "=m/model.safetensors.index.json: error: 'weight_map': the name of a tensor has a control character"),
    ("index-shard-missing", shards({"a": "s1", "b": "s3"}),
     "=m/s3: error: cannot open: No such file or directory\n"
     "m/model.safetensors.index.json: note: the file is listed here"),
    ("index-tensor-elsewhere", shards({"a": "s2", "b": "s1"}),
     "=m/model.safetensors.index.json: error: tensor 'a': is not in s2"),
    ("index-tensor-twice", folder(config_json=CONFIG, model_safetensors_index_json={"weight_map": {"a": "s1", "b": "s2"}},
                                  s1=st({"a": A}, data=bytes(32)), s2=MODEL),
     "=m/s2: error: tensor 'a': is also in m/s1"),
]

FILES = [
    ("file-missing", {"gone.gguf": "missing"}, "cannot open: No such file or directory"),
    ("file-empty", {"e.gguf": b""}, "the file is empty"),
    ("file-fifo", {"pipe.gguf": "fifo"}, "is not a regular file"),
    ("file-json", {"index.json": b'{"weight_map": {}}'},
     "is JSON, not weights; a model of several files is opened by its folder"),
    ("file-zip", {"model.bin": b"PK\3\4" + bytes(60)},
     "is neither GGUF (which starts with the letters GGUF) nor safetensors (a length of 8 bytes, then a JSON object)"),
    ("file-old-ggml", {"model": b"tjgg" + bytes(60)},
     "is neither GGUF (which starts with the letters GGUF) nor safetensors (a length of 8 bytes, then a JSON object)"),
]


def named(cases, extension):
    """One-file cases get a file name."""
    return [(name, data if isinstance(data, dict) else {name.replace("^", "") + extension: data}, message)
            for name, data, message in cases]


GGUF_CASES = named(GGUF_HEADER + GGUF_KEYS + GGUF_TENSORS, ".gguf") + GGUF_SPLITS
SAFETENSORS_CASES = named(SAFETENSORS, ".safetensors") + FOLDERS
FILE_CASES = FILES


def write_files(root, files):
    """Makes the files of a case under root; gives the path to open."""
    for path, data in files.items():
        full = os.path.join(root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        if data is None:
            os.makedirs(full)
        elif data == "fifo":
            os.mkfifo(full)
        elif data != "missing":
            with open(full, "wb") as f:
                f.write(data)
    return next(iter(files))
