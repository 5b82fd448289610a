"""Well-formed weight files with random contents, each with the dump it must give.

The dump is worked out here from what was put in, in the form of weights_dump.c.
"""
import json
import math
import struct

from formats import *

# id: name, elements and bytes of a block (the format's own table)
TYPES = {0: ("f32", 1, 4), 1: ("f16", 1, 2), 2: ("q4_0", 32, 18), 3: ("q4_1", 32, 20), 6: ("q5_0", 32, 22),
         7: ("q5_1", 32, 24), 8: ("q8_0", 32, 34), 10: ("q2_k", 256, 84), 11: ("q3_k", 256, 110),
         12: ("q4_k", 256, 144), 13: ("q5_k", 256, 176), 14: ("q6_k", 256, 210), 20: ("iq4_nl", 32, 18),
         23: ("iq4_xs", 256, 136), 26: ("i32", 1, 4), 30: ("bf16", 1, 2), 39: ("mxfp4", 32, 17)}
INTS = {U8: (0, 255), I8: (-128, 127), U16: (0, 65535), I16: (-32768, 32767), U32: (0, 2**32 - 1),
        I32: (-2**31, 2**31 - 1), U64: (0, 2**63 - 1), I64: (-2**63, 2**63 - 1)}


def number(x):
    """As printf("%.17g") writes it."""
    return "%.17g" % x


def quoted(s):
    s = s.encode() if isinstance(s, str) else s
    return '"' + "".join(chr(c) if 0x20 <= c < 0x7f and c not in b'"\\' else "\\x%02x" % c for c in s) + '"'


def meta_line(name, kind, values, is_array):
    show = {"string": quoted, "float": number}.get(kind, lambda v: str(int(v)))
    count = "[%d]" % len(values) if is_array else ""
    return "meta %s = %s%s" % (name, kind, count) + "".join(" " + show(v) for v in values)


def tensor_line(name, kind, file_type, dims, data):
    return "tensor %s %s(%d) [%s] %d bytes, sum %d" % (name, kind, file_type, ", ".join(map(str, dims)), len(data), sum(data))


def dump(arch, lines, size):
    return "\n".join(["arch " + arch] + lines + ["files %d" % size]) + "\n"


def kind_name(kind):
    return {STRING: "string", BOOL: "bool", F32: "float", F64: "float"}.get(kind, "int")


def random_value(rng, kind):
    if kind in INTS:
        low, high = INTS[kind]
        return rng.choice([low, high, 0, 1, rng.randint(low, high)])
    if kind == BOOL:
        return rng.randint(0, 1)
    if kind == STRING:
        return rng.choice(["", "word", "\u2581caf\u00e9", 'quote"\\', "nul\0tab\t", "\U0001f600", "x" * rng.randint(1, 300)])
    x = rng.choice([0.0, -1.0, 1e-6, 3.0e38, rng.uniform(-1000, 1000)])
    return struct.unpack("<f", struct.pack("<f", x))[0] if kind == F32 else x


def random_keys(rng):
    """One scalar and one array of every kind: (bytes, dump lines)."""
    keys, lines = [], []
    for kind in (U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, U64, I64, F64):
        v = random_value(rng, kind)
        keys.append(key("t.scalar.%d" % kind, kind, v))
        lines.append(meta_line("t.scalar.%d" % kind, kind_name(kind), [v], False))
        values = [random_value(rng, kind) for _ in range(rng.choice([0, 1, 7, 100]))]
        keys.append(array("t.array.%d" % kind, kind, values))
        lines.append(meta_line("t.array.%d" % kind, kind_name(kind), values, True))
    return keys, lines


def random_tensor(rng, kind):
    """(dims in the file's order, data)"""
    _, elems, size = TYPES[kind]
    ne = [elems * rng.randint(1, 3)] + [rng.randint(1, 4) for _ in range(rng.randint(0, 3))]
    if elems == 1 and rng.random() < 0.2:
        ne = []
    return ne, rng.randbytes(math.prod(ne) // elems * size)


def layout(rng, kinds, align, first=0):
    """Random tensors of these kinds: (records, data, dump lines). File order need not be data order."""
    records, lines = [], []
    items = [("blk.%d.w" % (first + i), kind, *random_tensor(rng, kind)) for i, kind in enumerate(kinds)]
    order = list(range(len(items)))
    rng.shuffle(order)
    offset, data = {}, b""
    for i in order:
        data = pad(data, align) + bytes(align * rng.randint(0, 1))  # gaps are fine
        offset[i] = len(data)
        data += items[i][3]
    for i, (name, kind, ne, raw) in enumerate(items):
        records.append(tensor(name, ne, kind, offset[i]))
        lines.append(tensor_line(name, TYPES[kind][0], kind, ne[::-1], raw))
    return records, data, lines


def gguf_all(rng, align, version=3, tail=b""):
    keys, lines = random_keys(rng)
    keys = [key("general.architecture", STRING, "tiny"), key("general.alignment", U32, align)] + keys
    lines = ['meta general.architecture = string "tiny"', "meta general.alignment = int %d" % align] + lines
    records, data, tensor_lines = layout(rng, list(TYPES), align)
    file = gguf(keys, records, data, align=align, version=version) + tail
    return {"m.gguf": file}, dump("tiny", lines + tensor_lines, len(file))


def gguf_empty(rng):
    return {"m.gguf": gguf()}, dump("", [], 24)


def gguf_keys_only(rng):
    """No tensors: the file may end with the metadata, unpadded."""
    keys, lines = random_keys(rng)
    file = gguf(keys)
    return {"m.gguf": file}, dump("", lines, len(file))


def gguf_unknown_type(rng):
    """A type nobody here knows between two known ones; its place counts, its size cannot."""
    records = [tensor("a", [8], 0, 0), tensor("odd", [7, 3], 29, 32), tensor("b", [8], 0, 64)]
    data = rng.randbytes(96)
    file = gguf([], records, data)
    lines = [tensor_line("a", "f32", 0, [8], data[:32]), tensor_line("odd", "unknown", 29, [3, 7], b""),
             tensor_line("b", "f32", 0, [8], data[64:])]
    return {"m.gguf": file}, dump("", lines, len(file))


def gguf_many_keys(rng):
    keys = [key("k.%d" % i, U16, i) for i in range(20000)]
    file = gguf(keys)
    return {"m.gguf": file}, dump("", ["meta k.%d = int %d" % (i, i) for i in range(20000)], len(file))


def gguf_split(rng, opened, in_first=True):
    """Three parts; the second has an alignment of its own, the first may have no tensors."""
    files, lines, meta = {}, [], []
    counts = [4 if in_first else 0, 3, 5]
    for no in range(3):
        align = 64 if no == 1 else 32
        kinds = [rng.choice(list(TYPES)) for _ in range(counts[no])]
        records, data, tensor_lines = layout(rng, kinds, align, first=10 * no)
        keys = [key("split.no", U16, no), key("split.count", U16, 3), key("split.tensors.count", I32, sum(counts))]
        keys += [key("general.alignment", U32, 64)] if no == 1 else []
        if no == 0:
            more, meta = random_keys(rng)
            keys = [key("general.architecture", STRING, "tiny")] + more + keys
            meta = ['meta general.architecture = string "tiny"'] + meta + [
                "meta split.no = int 0", "meta split.count = int 3", "meta split.tensors.count = int %d" % sum(counts)]
        files["sub/m-%05d-of-00003.gguf" % (no + 1)] = gguf(keys, records, data, align=align)
        lines += tensor_lines
    path = "sub/m-%05d-of-00003.gguf" % (opened + 1)
    files = {path: files[path], **files}
    return files, dump("tiny", meta + lines, sum(map(len, files.values())))


# safetensors dtype: name in the dump, number in the dump, bytes
ST_TYPES = {"F32": ("f32", 0, 4), "F16": ("f16", 1, 2), "BF16": ("bf16", 30, 2), "I32": ("i32", 26, 4),
            "U8": ("unknown", 2**32 - 1, 1), "I64": ("unknown", 27, 8), "BOOL": ("unknown", 2**32 - 1, 1)}


def st_tensors(rng, names):
    """Header entries and data, in random order in the header: (entries, data, lines in data order)."""
    entries, lines, data = [], [], b""
    for name in names:
        kind = rng.choice(list(ST_TYPES))
        shown, number_, size = ST_TYPES[kind]
        shape = [rng.randint(1, 5) for _ in range(rng.randint(0, 4))]
        raw = rng.randbytes(math.prod(shape) * size)
        entries.append((name, entry(kind, shape, len(data), len(data) + len(raw))))
        lines.append(tensor_line(name, shown, number_, shape, raw))
        data += raw
    rng.shuffle(entries)
    return dict(entries), data, lines


def st_lone(rng, n=20, padding=b""):
    header, data, lines = st_tensors(rng, ["w.%d" % i for i in range(n)])
    header = {"__metadata__": {"format": "pt", "note": "caf\u00e9"}, **header}
    file = safetensors(json.dumps(header).encode() + padding, data)
    meta = ['meta __metadata__.format = string "pt"', 'meta __metadata__.note = string "caf\\xc3\\xa9"']
    return {"m.safetensors": file}, dump("", meta + lines, len(file))


def st_nothing(rng):
    return {"m.safetensors": safetensors({})}, dump("", [], 10)


def st_zero(rng):
    header = {"z": entry("F32", [0, 4], 0, 0), "s": entry("F32", [], 0, 4), "y": entry("F16", [3, 0], 4, 4)}
    data = rng.randbytes(4)
    file = safetensors(header, data)
    lines = [tensor_line("z", "f32", 0, [0, 4], b""), tensor_line("s", "f32", 0, [], data),
             tensor_line("y", "f16", 1, [3, 0], b"")]
    return {"m.safetensors": file}, dump("", lines, len(file))


def config(rng):
    """A config.json and its lines."""
    eps = rng.choice([1e-6, 1e-5, 0.1])
    big = rng.randint(-2**63, 2**63 - 1)
    values = {
        "architectures": ["TinyForCausalLM", "Other"], "model_type": "tiny", "eps": eps, "big": big, "yes": True,
        "nothing": None, "empty": [], "ints": [1, -2, 3], "mixed_numbers": [1, 2.5], "flags": [True, False],
        "words": ["a", "\u00e9"], "objects": [{"a": 1}], "nested_lists": [[1]], "mixed": [1, "a"],
        "rope": {"type": "yarn", "inner": {"factor": 8.0, "none": None}},
    }
    lines = [meta_line(*line) for line in (
        ("architectures", "string", ["TinyForCausalLM", "Other"], True), ("model_type", "string", ["tiny"], False),
        ("eps", "float", [eps], False), ("big", "int", [big], False), ("yes", "bool", [1], False),
        ("empty", "int", [], True), ("ints", "int", [1, -2, 3], True), ("mixed_numbers", "float", [1, 2.5], True),
        ("flags", "bool", [1, 0], True), ("words", "string", ["a", "\u00e9"], True),
        ("rope.type", "string", ["yarn"], False), ("rope.inner.factor", "float", [8.0], False))]
    return json.dumps(values).encode(), lines


def st_beside_config(rng):
    files, text_ = st_lone(rng)
    raw, lines = config(rng)
    arch, rest = text_.split("\n", 1)
    return {**files, "config.json": raw}, "\n".join(["arch TinyForCausalLM"] + lines + [rest])


def st_folder(rng):
    files, text_ = st_lone(rng)
    raw, lines = config(rng)
    arch, rest = text_.split("\n", 1)
    out = {"m": None, "m/model.safetensors": files["m.safetensors"], "m/config.json": raw}
    return out, "\n".join(["arch TinyForCausalLM"] + lines + [rest])


def st_shards(rng):
    """Shards in order of first use in the index; "extra" is in a shard and not in the index."""
    files, lines, weight_map, size = {"m": None, "m/config.json": b'{"model_type": "tiny"}'}, [], {}, 0
    for shard in range(3):
        names = ["s%d.w%d" % (shard, i) for i in range(5)]
        header, data, tensor_lines = st_tensors(rng, names + (["extra"] if shard == 2 else []))
        name = "model-%d.safetensors" % shard
        files["m/" + name] = safetensors({"__metadata__": {"format": "pt"}, **header}, data)
        size += len(files["m/" + name])
        weight_map.update({n: name for n in names})
        lines += tensor_lines
    files["m/model.safetensors.index.json"] = json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}).encode()
    meta = ['meta model_type = string "tiny"', 'meta __metadata__.format = string "pt"']
    return files, dump("tiny", meta + lines, size)


def st_index_by_name(rng, beside):
    """The index itself is opened, in its folder or of another."""
    files, text_ = st_shards(rng)
    del files["m"]
    index = "m/model.safetensors.index.json"
    files = {index: files[index], **files}
    if not beside:
        return {**files, "m/b.gguf": gguf()}, text_
    return {name[2:]: data for name, data in files.items()}, text_


def gguf_in_folder(rng, split):
    """The one GGUF of a folder; the files of a split are one."""
    files, text_ = gguf_split(rng, 0) if split else gguf_all(rng, 32)
    return {"m": None, **{"m/" + name.split("/")[-1]: data for name, data in files.items()}, "m/config.json": b"{}"}, text_


GOOD_CASES = [
    ("gguf-align-1", lambda rng: gguf_all(rng, 1)),
    ("gguf-align-32", lambda rng: gguf_all(rng, 32)),
    ("gguf-align-64", lambda rng: gguf_all(rng, 64)),
    ("gguf-align-1MiB", lambda rng: gguf_all(rng, 1 << 20)),
    ("gguf-version-2", lambda rng: gguf_all(rng, 32, version=2)),
    ("gguf-trailing-bytes", lambda rng: gguf_all(rng, 32, tail=b"anything")),
    ("gguf-empty", gguf_empty),
    ("gguf-keys-only", gguf_keys_only),
    ("gguf-many-keys", gguf_many_keys),
    ("gguf-unknown-type", gguf_unknown_type),
    ("gguf-split-open-first", lambda rng: gguf_split(rng, 0)),
    ("gguf-split-open-last", lambda rng: gguf_split(rng, 2)),
    ("gguf-split-no-tensor-first", lambda rng: gguf_split(rng, 1, in_first=False)),
    ("st-lone", st_lone),
    ("st-padded-header", lambda rng: st_lone(rng, padding=b"  \n ")),
    ("st-unaligned-data", lambda rng: st_lone(rng, n=1, padding=b" ")),
    ("st-nothing", st_nothing),
    ("st-zero-dims-and-scalar", st_zero),
    ("st-beside-config", st_beside_config),
    ("st-folder", st_folder),
    ("st-shards", st_shards),
    ("st-index-by-name", lambda rng: st_index_by_name(rng, True)),
    ("st-index-beside-gguf", lambda rng: st_index_by_name(rng, False)),
    ("gguf-in-folder", lambda rng: gguf_in_folder(rng, False)),
    ("gguf-split-in-folder", lambda rng: gguf_in_folder(rng, True)),
]
