#!/usr/bin/env python3
"""Makes the hostile pickles and archives of this folder; needs Python's standard library only.

Each program among them tries to make the file /tmp/deltaic-hostile-marker: where that appears, something was executed.
NAME.pkl is a pickle as it stands in `data.pkl`; NAME.bin is a whole file of weights, whose content is at fault in some way.
"""
import io
import pathlib
import pickle
import struct
import zipfile

HERE = pathlib.Path(__file__).parent
MARKER = b"/tmp/deltaic-hostile-marker"
COMMAND = b"touch " + MARKER
PROTOCOL = b"\x80\x02"


def text(value):
    value = value if isinstance(value, bytes) else value.encode()
    return b"X" + struct.pack("<I", len(value)) + value


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def integer(value):
    return b"\x8a\x08" + struct.pack("<q", value)


def tuple_(*parts):
    return b"(" + b"".join(parts) + b"t"


def storage(key="0", count=4, kind="FloatStorage"):
    return tuple_(text("storage"), name("torch", kind), text(key), text("cpu"), integer(count)) + b"Q"


def tensor(of=None, offset=0, shape=(2, 2), strides=(2, 1), function="_rebuild_tensor_v2", more=b"\x89}"):
    of = storage() if of is None else of
    places = (tuple_(*map(integer, shape)), tuple_(*map(integer, strides)))
    return name("torch._utils", function) + tuple_(of, integer(offset), *places, more) + b"R"


def state(**tensors):
    return PROTOCOL + b"}(" + b"".join(text(key) + value for key, value in tensors.items()) + b"u."


def archive(data_pkl, entries=None, prefix="model/", method=zipfile.ZIP_STORED, extra=()):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        entries = {"data/0": struct.pack("<4f", 1, 2, 3, 4)} if entries is None else entries
        for key, value in {"data.pkl": data_pkl, "byteorder": b"little", **entries, "version": b"3\n"}.items():
            file.writestr(zipfile.ZipInfo(prefix + key), value, compress_type=method)
        for key, value in extra:
            file.writestr(zipfile.ZipInfo(prefix + key), value)
    return out.getvalue()


def legacy(state, keys=("0",), data=struct.pack("<q4f", 4, 1, 2, 3, 4)):
    parts = [pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(1001, 2), pickle.dumps({"little_endian": True}, 2)]
    return b"".join(parts) + state + pickle.dumps(list(keys), 2) + data


def legacy_state(count=4, **place):
    id = tuple_(text("storage"), name("torch", "FloatStorage"), text("0"), text("cpu"), integer(count), b"N") + b"Q"
    return state(w=tensor(id, **place))


def patched(data, old, new):
    assert data.count(old) >= 1, old
    return data.replace(old, new)


SYSTEM = name("posix", "system")
CALL = tuple_(text(COMMAND)) + b"R"
PICKLES = {
    # Programs.
    "run_global_reduce": PROTOCOL + SYSTEM + CALL + b".",
    "run_in_a_state_dict": state(a=tensor(), b=SYSTEM + CALL),
    "run_as_a_key": PROTOCOL + b"}(" + SYSTEM + CALL + tensor() + b"u.",
    "run_stack_global": b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + tuple_(text(COMMAND)) + b"R.",
    "run_inst": PROTOCOL + b"(" + text(COMMAND) + b"iposix\nsystem\n.",
    "run_obj": PROTOCOL + b"(" + name("subprocess", "Popen") + text(COMMAND) + b"o.",
    "run_newobj": PROTOCOL + name("subprocess", "Popen") + tuple_(text(COMMAND)) + b"\x81.",
    "run_newobj_of_a_known_name": PROTOCOL + name("collections", "OrderedDict") + b")\x81.",
    "run_newobj_ex": b"\x80\x04" + name("subprocess", "Popen") + tuple_(text(COMMAND)) + b"}\x92.",
    "run_builtin_eval": PROTOCOL + name("builtins", "eval") + tuple_(text(b"open('" + MARKER + b"', 'w')")) + b"R.",
    "run_builtin_of_python_2": PROTOCOL + name("__builtin__", "execfile") + tuple_(text("/etc/passwd")) + b"R.",
    "run_getattr_chain": PROTOCOL + name("builtins", "getattr") + tuple_(name("builtins", "__import__") + tuple_(text("os")) + b"R", text("system")) + b"R.",
    "run_dotted_name": b"\x80\x04" + text("collections") + text("OrderedDict.__init__.__globals__") + b"\x93.",
    "run_submodule_of_torch": PROTOCOL + name("torch.utils.cpp_extension", "load_inline") + b".",
    "run_torch_function": PROTOCOL + name("torch", "load") + tuple_(text("/etc/passwd")) + b"R.",
    "run_torch_hub": PROTOCOL + name("torch.hub", "load") + tuple_(text("x/y")) + b"R.",
    "run_load_from_bytes": PROTOCOL + name("torch.storage", "_load_from_bytes") + tuple_(b"U\x01.") + b"R.",
    "run_build_setstate": PROTOCOL + name("builtins", "type") + b"}" + text("__setstate__") + SYSTEM + b"sb" + text(COMMAND) + b"b.",
    "run_build_on_a_tensor": state(w=tensor() + tuple_(SYSTEM) + b"b"),
    "run_from_type_of_system": state(w=name("torch._tensor", "_rebuild_from_type_v2") + tuple_(SYSTEM, name("torch", "Tensor"), tuple_(text(COMMAND)), b"}") + b"R"),
    "run_from_type_of_itself": state(w=name("torch._tensor", "_rebuild_from_type_v2") + tuple_(name("torch._tensor", "_rebuild_from_type_v2"), name("torch", "Tensor"), b")", b"}") + b"R"),
    "run_extension": PROTOCOL + b"\x82\x01.",
    "run_persistent_module": PROTOCOL + tuple_(text("module"), name("collections", "OrderedDict"), text("x.py"), text("import os")) + b"Q.",
    "run_hooks": state(w=tensor(more=b"\x89" + SYSTEM)),
    "run_call_of_a_call": PROTOCOL + name("collections", "OrderedDict") + b")R" + b")R.",
    # Bombs.
    "bomb_memo_number": PROTOCOL + b"}r\xff\xff\xff\xff.",
    "bomb_laughs": PROTOCOL + b"]q\x00" + b"".join(b"](" + b"h" + bytes([n]) * 1 + (b"h" + bytes([n])) * 9 + b"eq" + bytes([n + 1]) for n in range(60)) + b".",
    "bomb_text_length": PROTOCOL + b"X\xff\xff\xff\xffabc.",
    "bomb_text_length_64": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
    "bomb_bytes_length": b"\x80\x04\x8e\x00\x00\x00\x00\x00\x01\x00\x00.",
    "bomb_long_length": PROTOCOL + b"\x8b\xff\xff\xff\x7f.",
    "bomb_marks": PROTOCOL + b"(" * 100_000 + b".",
    "bomb_nested_tuples": PROTOCOL + b")" + b"\x85" * 100_000 + b".",
    "bomb_frame": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff}.",
    "bomb_expanded": state(w=tensor(shape=(1 << 40,), strides=(0,))),
    "bomb_elements": state(w=tensor(shape=(1 << 62, 1 << 62), strides=(0, 0))),
    "bomb_elements_and_none": state(w=tensor(shape=(1 << 62, 0, 1 << 62), strides=(0, 0, 0))),
    "bomb_dimensions": state(w=tensor(shape=(1,) * 65, strides=(1,) * 65)),
    "bomb_storage_count": state(w=tensor(storage(count=(1 << 63) - 1))),
    "cycle": PROTOCOL + b"]q\x00h\x00a.",
    "cycle_in_a_state_dict": PROTOCOL + b"}q\x00" + text("self") + b"h\x00s.",
    # Pickles that are not well-formed.
    "empty": b"",
    "no_stop": PROTOCOL + b"}",
    "stop_only": b".",
    "bytes_after_the_end": state(w=tensor()) + b"}",
    "protocol_9": b"\x80\x09}.",
    "protocol_0": b"(dp0\nS'w'\np1\nI1\ns.",
    "unknown_opcode": PROTOCOL + b"\xff.",
    "pop_of_nothing": PROTOCOL + b"0.",
    "pop_beyond_a_mark": PROTOCOL + b"}(\x85.",
    "tuple_without_a_mark": PROTOCOL + b"}t.",
    "odd_items": PROTOCOL + b"}(" + text("a") + b"u.",
    "append_to_a_number": PROTOCOL + b"K\x01K\x02a.",
    "items_of_a_list": PROTOCOL + b"]K\x01K\x02s.",
    "memo_not_kept": PROTOCOL + b"h\x07.",
    "text_not_utf8": PROTOCOL + text(b"\xff\xfe") + b".",
    "name_without_end": PROTOCOL + b"c" + b"a" * 3000,
    "name_with_escapes": PROTOCOL + b"c\x1b[2Jos\nsystem\n.",
    # State dicts that are none.
    "a_number": PROTOCOL + b"K\x01.",
    "a_tensor": PROTOCOL + tensor() + b".",
    "a_list": PROTOCOL + b"](" + tensor() + b"e.",
    "a_number_as_key": PROTOCOL + b"}K\x01" + tensor() + b"s.",
    "a_trainers_checkpoint": state(epoch=b"K\x01", state_dict=b"}" + text("w") + tensor() + b"s"),
    "a_nested_dict": state(optimizer=b"}"),
    "a_list_of_tensors": state(w=b"](" + tensor() + b"e"),
    "a_bare_storage": state(w=storage()),
    "name_given_twice": PROTOCOL + b"}(" + (text("w") + tensor()) * 2 + b"u.",
    "name_with_control_characters": PROTOCOL + b"}(" + text("w\x1b[2J\n") + tensor() + b"u.",
    "name_too_long": PROTOCOL + b"}(" + text("w" * 5000) + tensor() + b"u.",
    # Views.
    "view_beyond_by_one": state(w=tensor(offset=1)),
    "view_offset_beyond": state(w=tensor(offset=1 << 62)),
    "view_stride_beyond": state(w=tensor(strides=(3, 1))),
    "view_stride_overflows": state(w=tensor(shape=(3, 3), strides=((1 << 63) - 1, (1 << 63) - 1))),
    "view_negative_stride": state(w=tensor(offset=3, strides=(-2, -1))),
    "view_negative_offset": state(w=tensor(offset=-1)),
    "view_negative_shape": state(w=tensor(shape=(-2, 2))),
    "view_strides_missing": state(w=tensor(strides=(1,))),
    "view_shape_of_texts": state(w=name("torch._utils", "_rebuild_tensor_v2") + tuple_(storage(), integer(0), text("2"), text("1"), b"\x89}") + b"R"),
    "view_of_no_storage": state(w=tensor(b"N")),
    "view_arguments_missing": state(w=name("torch._utils", "_rebuild_tensor_v2") + tuple_(storage()) + b"R"),
    "storage_not_there": state(w=tensor(storage("../../../etc/passwd"))),
    "storage_of_another_length": state(w=tensor(storage(count=5))),
    "storage_id_is_a_text": PROTOCOL + text("storage") + b"Q.",
    "storage_type_is_a_text": PROTOCOL + tuple_(text("storage"), text("float"), text("0"), text("cpu"), integer(4)) + b"Q.",
    # Dtypes and layouts that are not read.
    "dtype_complex": state(w=tensor(storage(count=2, kind="ComplexFloatStorage"), shape=(2,), strides=(1,))),
    "dtype_quantized": state(w=tensor(storage(count=16, kind="QInt8Storage"))),
    "dtype_float8_fnuz": state(w=tensor(storage(count=16, kind="UntypedStorage"), function="_rebuild_tensor_v3", more=b"\x89}" + name("torch", "float8_e4m3fnuz"))),
    "sparse": state(w=name("torch._utils", "_rebuild_sparse_tensor") + b")R"),
    "quantized": state(w=name("torch._utils", "_rebuild_qtensor") + b")R"),
    "negated": state(w=tensor(more=b"\x89}}" + text("neg") + b"\x88s")),
    "numpy_array": state(w=name("numpy.core.multiarray", "_reconstruct") + b")R"),
}

GOOD = archive(state(w=tensor()))
FIRST = b"PK\x01\x02"
FILES = {
    "zip_deflated": archive(state(w=tensor()), method=zipfile.ZIP_DEFLATED),
    "zip_bomb": archive(state(w=tensor()), {"data/0": bytes(10_000_000)}, method=zipfile.ZIP_DEFLATED),
    "zip_no_pickle": patched(GOOD, b"data.pkl", b"data.pkx"),
    "zip_two_pickles": archive(state(w=tensor()), {"data/0": bytes(16), "x/data.pkl": state()}),
    "zip_entry_twice": patched(archive(state(w=tensor()), {"data/0": bytes(16), "data/1": bytes(16)}), b"data/1", b"data/0"),
    "zip_other_name_in_header": GOOD.replace(b"model/data/0", b"model/data/9", 1),
    "zip_size_lies": patched(GOOD, struct.pack("<II", 16, 16), struct.pack("<II", 2000, 2000)),
    "zip_sizes_differ": patched(GOOD, struct.pack("<II", 16, 16), struct.pack("<II", 16, 2000)),
    "zip_size_over_the_next_entry": patched(GOOD, struct.pack("<II", 16, 16), struct.pack("<II", 40, 40)),
    "zip_encrypted": GOOD.replace(FIRST + b"\x14\x03\x14\x00\x00\x00", FIRST + b"\x14\x03\x14\x00\x01\x00"),
    "zip_entry_count_lies": GOOD[:-12] + struct.pack("<H", 60_000) + GOOD[-10:],
    "zip_directory_beyond": GOOD[:-6] + struct.pack("<I", 0xFFFFFFF0) + GOOD[-2:],
    "zip_directory_length_lies": GOOD[:-10] + struct.pack("<I", 0x7FFFFFFF) + GOOD[-6:],
    "zip_locator_lies": GOOD[:-22] + b"PK\x06\x07" + struct.pack("<IQI", 0, (1 << 64) - 8, 1) + GOOD[-22:],
    "zip_comment": GOOD[:-2] + b"\x05\x00hello",
    "zip_cut_off": GOOD[:-40],
    "zip_first_bytes": b"PK\x03\x04",
    "zip_torchscript": archive(state(w=tensor()), extra=[("constants.pkl", b"\x80\x02)."), ("code/x.py", b"import os")]),
    "zip_byteorder_unknown": patched(GOOD, b"little", b"middle"),
    "legacy_runs_in_sys_info": legacy(legacy_state()).replace(pickle.dumps({"little_endian": True}, 2), PROTOCOL + SYSTEM + CALL + b"."),
    "legacy_runs_in_the_keys": legacy(legacy_state()).replace(pickle.dumps(["0"], 2), PROTOCOL + SYSTEM + CALL + b"."),
    "legacy_runs_first": PROTOCOL + SYSTEM + CALL + b".",
    "legacy_another_pickle": pickle.dumps({"a": [1, 2, 3]}, 2),
    "legacy_another_version": legacy(legacy_state()).replace(pickle.dumps(1001, 2), pickle.dumps(1002, 2)),
    "legacy_count_lies": legacy(legacy_state(), data=struct.pack("<q4f", 1 << 60, 1, 2, 3, 4)),
    "legacy_count_lies_twice": legacy(legacy_state(count=1 << 60), data=struct.pack("<q4f", 1 << 60, 1, 2, 3, 4)),
    "legacy_count_overflows": legacy(legacy_state(count=(1 << 63) - 1), data=struct.pack("<q4f", (1 << 63) - 1, 1, 2, 3, 4)),
    "legacy_key_twice": legacy(legacy_state(), keys=("0", "0")),
    "legacy_key_unknown": legacy(legacy_state(), keys=("0", "1")),
    "legacy_key_missing": legacy(legacy_state(), keys=(), data=b""),
    "legacy_keys_are_numbers": legacy(legacy_state(), keys=(1, 2)),
    "legacy_cut_off": legacy(legacy_state())[:-3],
    "legacy_bytes_left": legacy(legacy_state()) + b"more",
    "tar": b"sys_info".ljust(257, b"\0") + b"ustar\x0000" + bytes(300),
    "git_lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
    "safetensors": struct.pack("<Q", 2) + b"{}",
    "gguf": b"GGUF\x03\x00\x00\x00",
    "nothing": b"",
    "noise": bytes(range(1, 200)),
}


def main():
    for old in [*HERE.glob("*.pkl"), *HERE.glob("*.bin")]:
        old.unlink()
    for case, data in PICKLES.items():
        (HERE / f"{case}.pkl").write_bytes(data)
    for case, data in FILES.items():
        (HERE / f"{case}.bin").write_bytes(data)
    print(len(PICKLES), "pickles,", len(FILES), "files")


if __name__ == "__main__":
    main()
