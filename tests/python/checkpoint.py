"""safetensors files and index by NumPy alone, so that the tests' readings share no code with any library.

A tensor is a pair (dtype, array): `dtype` as safetensors spells it (F32, F16, BF16, I64, ...), the array little endian in row-major
order. BF16 arrays hold the raw 16 bits as uint16; `to_f32` and `from_f32` convert, to nearest even.
"""
import json
import pathlib

import numpy as np

STORAGE = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16, "I64": np.int64, "I32": np.int32, "I16": np.int16,
    "I8": np.int8, "U8": np.uint8, "BOOL": np.uint8, "F8_E4M3": np.uint8, "F8_E5M2": np.uint8,
}
FLOATS = ("F64", "F32", "F16", "BF16")


def to_f32(dtype, array):
    """The values of a tensor of a floating dtype as float32 (F64 is rounded)."""
    if dtype == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


def from_f32(dtype, values):
    """float32 values as (dtype, array), rounded to nearest even."""
    values = np.asarray(values, np.float32)
    if dtype != "BF16":
        return dtype, values.astype(STORAGE[dtype])
    bits = values.view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return dtype, np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def write_file(path, tensors):
    """One safetensors file of {name: (dtype, array)}, sorted by name, its header padded to 8 bytes."""
    header, parts, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name in sorted(tensors):
        dtype, array = tensors[name]
        data = np.ascontiguousarray(array, STORAGE[dtype]).tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + len(data)]}
        parts.append(data)
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    pathlib.Path(path).write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))


def read_file(path):
    """{name: (dtype, memory-mapped array)} of one safetensors file."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    data = np.memmap(path, np.uint8, "r") if pathlib.Path(path).stat().st_size else None
    tensors = {}
    for name, entry in header.items():
        start, end = (8 + size + offset for offset in entry["data_offsets"])
        tensors[name] = (entry["dtype"], data[start:end].view(STORAGE[entry["dtype"]]).reshape(entry["shape"]))
    return tensors


def read(folder):
    """All tensors of a checkpoint folder (single file or shards by index), or of one safetensors file."""
    folder = pathlib.Path(folder)
    if folder.is_file():
        return read_file(folder)
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return read_file(folder / "model.safetensors")
    weight_map = json.loads(index.read_text())["weight_map"]
    shards = {shard: read_file(folder / shard) for shard in sorted(set(weight_map.values()))}
    return {name: shards[shard][name] for name, shard in weight_map.items()}
