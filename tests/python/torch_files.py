#!/usr/bin/env python3
"""Writes state dicts with torch.save in all formats, and what torch reads from them as safetensors.

    torch_files.py OUT [--large]
    torch_files.py OUT.bin --convert IN.safetensors

OUT/CASE/ is a model folder (config.json, pytorch_model.bin or shards with an index), OUT/CASE.safetensors holds what `torch.load` reads from
it, every tensor contiguous. With --large tensors are larger than a window of deltaic. With --convert a safetensors file is written again by torch.save. The small ones are kept in
crates/checkpoint/tests/torch, so that tests run without torch. Needs torch and safetensors; ends with 77 without them.
"""
import argparse
import collections
import io
import json
import pathlib
import pickle
import shutil
import struct
import sys
import warnings
import zipfile

try:
    import safetensors.torch
    import torch
except ImportError as missing:
    print(f"skipped: {missing}", file=sys.stderr)
    sys.exit(77)

CONFIG = {"architectures": ["UnknownModel"], "model_type": "unknown", "torch_dtype": "float32"}
TIED = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 1, "vocab_size": 6, "tie_word_embeddings": True}
TYPED = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]
UNTYPED = [torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2]


def values(dtype, *shape):
    generator = torch.Generator().manual_seed(len(shape) + sum(shape))
    return (torch.randn(shape, generator=generator) * 50).abs().to(torch.float32).to(dtype)


def views(rows, columns):
    """Views of shared storages: every way in which elements can lie."""
    matrix, cube = values(torch.float32, rows, columns), values(torch.bfloat16, 3, rows, columns)
    return {
        "shared.whole": matrix, "shared.again": matrix, "shared.row": matrix[2], "shared.rows": matrix[1:4],
        "transposed": matrix.t(), "columns": matrix[:, 1:4], "every_second": matrix[::2, ::3], "column": matrix[:, 2],
        "permuted": cube.permute(2, 0, 1), "permuted_back": cube.permute(1, 2, 0), "middle": cube[1, :, 2:5].t(), "diagonal": matrix.diagonal(),
        "expanded": values(torch.float16, 1, columns).expand(rows, columns), "expanded_column": values(torch.int64, rows, 1).expand(rows, columns),
        "one_for_all": torch.tensor(7.5).expand(3, 2, 2), "overlapping": torch.as_strided(matrix, (4, 5), (2, 1), 3),
        "scalar": torch.tensor(2.5), "last": matrix[-1, -1], "empty": torch.zeros(0, 4), "empty_view": matrix[:, :0], "one": torch.ones(1, 1, 1),
    }


def everything(rows, columns, dtypes):
    state = collections.OrderedDict((f"dtype.{str(dtype)[6:]}", values(dtype, 3, 2)) for dtype in dtypes)
    state.update(views(rows, columns))
    state["parameter"] = torch.nn.Parameter(values(torch.float32, 4), requires_grad=False)
    state["parameter_with_state"] = torch.nn.Parameter(values(torch.float32, 2).t())
    state["parameter_with_state"].origin = "a test"
    state["tensor_with_state"] = values(torch.float32, 5)
    state["tensor_with_state"].origin = {"a": 1}
    state["parameter_of_view"] = torch.nn.Parameter(values(torch.float32, 3, 4).t())
    # Plain values are no weights.
    state.update({"number": 3, "rate": 0.5, "text": "x", "none": None, "flag": True, "large": 1 << 70})
    state._metadata = collections.OrderedDict([("", {"version": 1}), ("layer", {"version": 2})])
    return state


def big_endian(data):
    """An archive as a big-endian machine writes it."""
    source, out = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    sizes = {}

    class Reader(pickle.Unpickler):
        def persistent_load(self, id):
            sizes[id[2]] = torch.empty(0, dtype=id[1].dtype).element_size()
            return torch.storage.TypedStorage(wrap_storage=torch.UntypedStorage(id[4] * sizes[id[2]]), dtype=id[1].dtype, _internal=True)

    prefix = source.namelist()[0].split("/")[0]
    Reader(io.BytesIO(source.read(f"{prefix}/data.pkl"))).load()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in source.namelist():
            entry, key = source.read(name), name.split("/")[-1]
            if name == f"{prefix}/byteorder":
                entry = b"big"
            elif name.startswith(f"{prefix}/data/"):
                size = sizes[key]
                entry = b"".join(entry[at : at + size][::-1] for at in range(0, len(entry), size))
            archive.writestr(zipfile.ZipInfo(name), entry)
    return out.getvalue()


class Reduced:
    def __init__(self, function, arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


class Storage:
    def __init__(self, id):
        self.id = id


def old(rows, columns):
    """As torch before 0.4 under Python 2: OrderedDict of a list, _rebuild_tensor, views of storages."""
    data = values(torch.float32, rows, columns).flatten()
    storage = lambda *view: Storage(("storage", torch.FloatStorage, "11", "cpu", len(data), view[0] if view else None))
    tensor = lambda storage, *place: Reduced(torch._utils._rebuild_tensor, (storage, *place))
    view = ("12", columns, 2 * columns)
    state = Reduced(collections.OrderedDict, ([
        ["whole", tensor(storage(), 0, (rows, columns), (columns, 1))],
        ["view", tensor(storage(view), 1, (2, columns - 1), (columns, 1))],
        ["transposed", tensor(storage(view), 0, (columns, 2), (1, columns))],
    ],))

    class Writer(pickle._Pickler):
        def persistent_id(self, value):
            return value.id if isinstance(value, Storage) else None

    out = io.BytesIO()
    pickle.dump(0x1950A86A20F9469CFC6C, out, 2)
    pickle.dump(1001, out, 2)
    pickle.dump({"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}, out, 2)
    Writer(out, 2).dump(state)
    pickle.dump(["11"], out, 2)
    out.write(struct.pack("<q", len(data)) + data.numpy().tobytes())
    return out.getvalue()


def saved(state, **arguments):
    out = io.BytesIO()
    torch.save(state, out, **arguments)
    return out.getvalue()


def write(out, case, files, trusted=False, config=CONFIG):
    """A model folder, and what torch reads from its files."""
    folder = out / case
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    expected, shards = {}, {}
    for name, data in files.items():
        (folder / name).write_bytes(data)
        # `weights_only` refuses a parameter's attributes; this program wrote the files itself.
        state = torch.load(folder / name, weights_only=not trusted)
        tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
        expected |= {key: value.detach().contiguous().clone() for key, value in tensors.items()}
        shards |= dict.fromkeys(tensors, name)
    if len(files) > 1:
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": shards}))
    safetensors.torch.save_file(expected, out / f"{case}.safetensors")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path, metavar="OUT")
    parser.add_argument("--large", action="store_true", help="tensors larger than a window")
    parser.add_argument("--convert", type=pathlib.Path, metavar="IN", help="a safetensors file to be written as OUT")
    args = parser.parse_args()
    if args.convert:
        return torch.save(safetensors.torch.load_file(args.convert), args.out)
    warnings.filterwarnings("ignore")
    rows, columns = (1031, 517) if args.large else (6, 7)
    state = everything(rows, columns, TYPED + UNTYPED)
    # torch itself writes dtypes without a typed storage (uint16 and so on) in the legacy format, but does not read them; nor does it swap them.
    typed = everything(rows, columns, TYPED)
    legacy = saved(typed, _use_new_zipfile_serialization=False)
    flag = b"little_endianq\x02\x88"
    assert flag in legacy
    single = {
        "zip": saved(state),
        "zip_protocol_4": saved(state, pickle_protocol=4),
        "zip_dict": saved(dict(views(rows, columns))),
        "zip_big_endian": big_endian(saved(typed)),
        "legacy": legacy,
        "legacy_big_endian_machine": legacy.replace(flag, flag[:-1] + b"\x89"),
        "legacy_protocol_4": saved(typed, _use_new_zipfile_serialization=False, pickle_protocol=4),
        "legacy_python_2": old(rows, columns),
    }
    for case, data in single.items():
        write(args.out, case, {"pytorch_model.bin": data}, trusted=True)
    embedding = values(torch.float32, 6, 4)
    tied = {"model.embed_tokens.weight": embedding, "model.norm.weight": torch.ones(4), "lm_head.weight": embedding}
    write(args.out, "tied", {"pytorch_model.bin": saved(tied)}, config=TIED)
    names = sorted(views(rows, columns))
    parts = [{name: state[name] for name in names[half::2]} for half in (0, 1)]
    shard = "pytorch_model-0000{}-of-00002.bin".format
    write(args.out, "sharded", {shard(1): saved(parts[0]), shard(2): saved(parts[1], _use_new_zipfile_serialization=False)})
    print(torch.__version__)


if __name__ == "__main__":
    main()
