"""Files as PyTorch has written them since 2017, made by hand: their pickles name classes that need not exist here.

Source: the formats that torch.load of PyTorch 2 still reads (torch/serialization.py, _load, _legacy_load, legacy_load).
"""
import io
import pickle
import struct
import tarfile
import zipfile

import numpy as np

KINDS = {"float32": "FloatStorage", "float16": "HalfStorage", "int64": "LongStorage"}


class Name:
    """A name that the pickle asks for."""

    def __init__(self, dotted):
        self.module, self.name = dotted.rsplit(".", 1)


class Call:
    """What comes from calling it, then given a state."""

    def __init__(self, dotted, *args, state=None):
        self.what, self.args, self.state = dotted if isinstance(dotted, Name) else Name(dotted), args, state


class Storage:
    def __init__(self, array):
        self.array = np.ascontiguousarray(array)


def tensor(array, rebuild="torch._utils._rebuild_tensor_v2"):
    """As Tensor.__reduce_ex__ has it; before 0.4 without the last two arguments."""
    strides = tuple(s // array.itemsize for s in array.strides)            # of an array in C's order
    more = (False, Call("collections.OrderedDict")) if rebuild.endswith("v2") else ()
    return Call(rebuild, Storage(array), 0, array.shape, strides, *more)


class _Writer(pickle._Pickler):
    """Protocol 2, as torch.save writes it."""

    dispatch = dict(pickle._Pickler.dispatch)

    def __init__(self, file, storages, location="cpu"):
        super().__init__(file, protocol=2)
        self.storages, self.location = storages, location

    def persistent_id(self, value):
        if not isinstance(value, Storage):
            return None
        key = str(len(self.storages))
        self.storages[key] = value.array
        return ("storage", Name(f"torch.{KINDS[str(value.array.dtype)]}"), key, self.location, value.array.size)

    def save_name(self, value):
        self.write(f"c{value.module}\n{value.name}\n".encode())

    def save_call(self, value):
        self.save(value.what)
        self.save(value.args)
        self.write(pickle.REDUCE)
        if value.state is not None:
            self.save(value.state)
            self.write(pickle.BUILD)

    dispatch[Name], dispatch[Call] = save_name, save_call


def _pickled(value, storages, location="cpu"):
    file = io.BytesIO()
    _Writer(file, storages, location).dump(value)
    return file.getvalue()


def write_zip(path, value, location="cpu"):
    """PyTorch 1.6 and later."""
    storages = {}
    content = _pickled(value, storages, location)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        for key, array in storages.items():
            archive.writestr(f"archive/data/{key}", array.tobytes())
        archive.writestr("archive/version", "3\n")


def write_legacy(path, value, location="cpu"):
    """PyTorch 0.2 to 1.5: pickles in a row, then the numbers. There the storage's tuple has a sixth item, a view."""
    storages = {}

    class Writer(_Writer):
        dispatch = _Writer.dispatch

        def persistent_id(self, value):
            found = super().persistent_id(value)
            return found and (*found, None)

    file = io.BytesIO()
    Writer(file, storages, location).dump(value)
    head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]
    with open(path, "wb") as out:
        for item in head:
            out.write(pickle.dumps(item, protocol=2))
        out.write(file.getvalue())
        out.write(pickle.dumps(list(storages), protocol=2))
        for array in storages.values():
            out.write(struct.pack("<q", array.size) + array.tobytes())


def write_tar(path, arrays, value):
    """PyTorch 0.1: a tar of storages, tensors and a pickle in which each tensor is a number."""
    storages, tensors = io.BytesIO(), io.BytesIO()
    storages.write(pickle.dumps(len(arrays), protocol=2))
    tensors.write(pickle.dumps(len(arrays), protocol=2))
    for number, array in enumerate(arrays):
        storages.write(_pickled((number, "cpu", Name(f"torch.{KINDS[str(array.dtype)]}")), {}))
        storages.write(struct.pack("<q", array.size) + array.tobytes())
        tensors.write(_pickled((100 + number, number, Name("torch.FloatTensor")), {}))
        strides = [s // array.itemsize for s in array.strides]
        tensors.write(struct.pack(f"<ii{2 * array.ndim}qq", array.ndim, 0, *array.shape, *strides, 0))
    storages.write(pickle.dumps([], protocol=2))

    class Writer(_Writer):
        dispatch = _Writer.dispatch

        def persistent_id(self, value):
            return value.number if isinstance(value, Numbered) else None

    file = io.BytesIO()
    Writer(file, {}).dump(value([Numbered(100 + i) for i in range(len(arrays))]))
    with tarfile.open(path, "w") as archive:
        for name, content in (("sys_info", pickle.dumps({})), ("storages", storages.getvalue()),
                              ("tensors", tensors.getvalue()), ("pickle", file.getvalue())):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


class Numbered:
    def __init__(self, number):
        self.number = number
