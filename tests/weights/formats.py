"""Writers of GGUF and safetensors bytes for the tests of the readers.

Written from the format descriptions, not from the readers. Every function returns bytes, so that a
test can put wrong ones together as easily as right ones.
"""
import json
import struct

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
SCALAR = {U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", F32: "<f", BOOL: "<B",
          U64: "<Q", I64: "<q", F64: "<d"}


def u32(n):
    return struct.pack("<I", n)


def u64(n):
    return struct.pack("<Q", n)


def text(s):
    """A GGUF string."""
    s = s.encode() if isinstance(s, str) else s
    return u64(len(s)) + s


def scalar(kind, value):
    return text(value) if kind == STRING else struct.pack(SCALAR[kind], value)


def key(name, kind, value):
    return text(name) + u32(kind) + scalar(kind, value)


def array(name, kind, values):
    return text(name) + u32(ARRAY) + u32(kind) + u64(len(values)) + b"".join(scalar(kind, v) for v in values)


def tensor(name, ne, kind, offset):
    """The record of a tensor; ne is in the file's order, fastest first."""
    return text(name) + u32(len(ne)) + b"".join(u64(n) for n in ne) + u32(kind) + u64(offset)


def pad(data, align):
    return data + bytes(-len(data) % align)


def gguf(keys=(), tensors=(), data=b"", align=32, magic=b"GGUF", version=3, n_keys=None, n_tensors=None):
    head = magic + u32(version)
    head += u64(len(tensors) if n_tensors is None else n_tensors) + u64(len(keys) if n_keys is None else n_keys)
    head += b"".join(keys) + b"".join(tensors)
    return pad(head, align) + data if data else head


def safetensors(header, data=b"", length=None):
    """header: a dict, or the JSON bytes themselves."""
    if isinstance(header, dict):
        header = json.dumps(header, separators=(",", ":")).encode()
    return u64(len(header) if length is None else length) + header + data


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
