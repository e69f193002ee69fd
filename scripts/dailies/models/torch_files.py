"""Files of ``torch.save``, read without importing or calling anything that they name.

torch's own restricted reader comes first (see ``checkpoints``). It rejects files with anything but tensors and plain
data beside the weights: a Namespace, a date, a loss, an optimizer's class. This reader accepts them: each such object
becomes an ``Inert`` stand-in, which holds its data and does nothing.
"""

import io
import pathlib
import pickletools
import re
import struct
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from dailies.models.inert import Inert, as_mapping, scalar_of

MAGIC = 0x1950A86A20F9469CFC6C
"""The number with which files of torch 0.1.10 to 1.5 begin."""

BLOCKED = ("sys", "os", "posix", "nt")
"""Modules that no checkpoint needs; torch's reader never allows them either."""


class NotWrittenByTorch(Exception):
    """``torch.save`` did not write the file."""


class Damaged(Exception):
    """``torch.save`` wrote the file, and it is damaged; the text says how."""


@dataclass(frozen=True)
class Reading:
    """The content of a file."""

    content: Any
    """Tensors on the CPU, plain data, and ``Inert`` stand-ins."""
    names: tuple[str, ...]
    """The sorted names of classes and functions in the file that are neither tensors nor plain data."""

    @property
    def blocked(self) -> tuple[str, ...]:
        """The names from modules that no checkpoint needs."""
        return tuple(name for name in self.names if name.split(".")[0] in BLOCKED)


def read(path: Path) -> Reading:
    """Read a file of ``torch.save``: a zip (since 1.6), a legacy file, a tar (before 0.1.10), or a bare pickle.

    Raises:
        NotWrittenByTorch: the file has another format.
        Damaged: the file is incomplete or inconsistent.
    """
    try:
        if zipfile.is_zipfile(path):
            return _read_zip(path)
        if _is_tar(path):
            return _read_tar(path)
        with path.open("rb") as file:
            return _read_legacy(file, path.stat().st_size)
    except (NotWrittenByTorch, Damaged, MemoryError):
        raise
    except Exception as error:  # parsers fail on damaged files in many ways
        raise Damaged(f"{type(error).__name__}: {error}") from error


def _is_tar(path: Path) -> bool:
    try:
        with tarfile.open(path, "r:"):  # not compressed
            return True
    except tarfile.TarError:
        return False


def _read_zip(path: Path) -> Reading:
    with zipfile.ZipFile(path) as archive:
        found = next((name for name in archive.namelist() if re.fullmatch(r"([^/]+/)?data\.pkl", name)), None)
        if found is None:
            raise NotWrittenByTorch
        folder = found.removesuffix("data.pkl")
        order = archive.read(f"{folder}byteorder") if f"{folder}byteorder" in archive.namelist() else b"little"

        def stored(key: str, count: int, dtype: torch.dtype) -> Tensor:
            data = bytearray(archive.read(f"{folder}data/{key}"))
            if len(data) < count * dtype.itemsize:
                raise Damaged(f"{folder}data/{key} holds {len(data)} bytes instead of {count * dtype.itemsize}")
            if order == b"big" and dtype.itemsize > 1:
                data = bytearray(np.frombuffer(data, f"V{dtype.itemsize}").view(f"u{dtype.itemsize}").byteswap())
            return torch.frombuffer(data, dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)

        machine = _Machine(_Storages(stored))
        content = machine.run(archive.read(found))
    return Reading(content, tuple(sorted(machine.names)))


def _read_legacy(file: IO[bytes], size: int) -> Reading:
    """Read a file from before torch 1.6: five pickles, then the bytes of every storage; or a bare pickle."""
    start = _Machine(_Storages(_no_storage))
    try:
        first = start.run(file)
    except Exception as error:
        raise NotWrittenByTorch from error
    if first != MAGIC:
        return Reading(first, tuple(sorted(start.names)))

    def allocate(key: str, count: int, dtype: torch.dtype) -> Tensor:
        if count * dtype.itemsize > size:
            raise Damaged(f"storage {key} claims more bytes than the file holds")
        return torch.empty(count, dtype=dtype)

    storages = _Storages(allocate)
    machine = _Machine(storages)
    _, _, content, keys = (machine.run(file) for _ in range(4))
    for key in keys:
        values = storages.made[key]
        (count,) = struct.unpack("<q", _exactly(file, 8))
        if count != values.numel():
            raise Damaged(f"storage {key} has {count} values instead of {values.numel()}")
        _fill(values, file)
    return Reading(content, tuple(sorted(machine.names)))


def _read_tar(path: Path) -> Reading:
    """Read a file from before torch 0.1.10: a tar with storages, tensors, and a pickle that refers to the tensors."""
    with tarfile.open(path, "r:") as archive:
        parts = {name: _member(archive, name) for name in ("storages", "tensors", "pickle")}
        tensors, machine = {}, _Machine(_Storages(_no_storage))
        file = parts["storages"]
        flat: dict[Any, Tensor] = {}
        for _ in range(machine.run(file)):
            key, _, kind = machine.run(file)
            (count,) = struct.unpack("<q", _exactly(file, 8))
            dtype = _dtype(kind)
            if count * dtype.itemsize > path.stat().st_size:
                raise Damaged(f"storage {key} claims more bytes than the file holds")
            flat[key] = _fill(torch.empty(count, dtype=dtype), file)
        for view, root, offset, count in machine.run(file):
            flat[view] = flat[root][offset : offset + count]
        file = parts["tensors"]
        for _ in range(machine.run(file)):
            key, storage, _ = machine.run(file)
            (dims, _) = struct.unpack("<ii", _exactly(file, 8))
            sizes, strides = (struct.unpack(f"<{dims}q", _exactly(file, 8 * dims)) for _ in range(2))
            (offset,) = struct.unpack("<q", _exactly(file, 8))
            tensors[key] = _strided(flat[storage], offset, sizes, strides)
        whole = _Machine(_Storages(_no_storage), tensors=tensors)
        content = whole.run(parts["pickle"])
    return Reading(content, tuple(sorted(whole.names)))


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    try:
        file = archive.extractfile(name)
    except KeyError:
        file = None
    if file is None:
        raise NotWrittenByTorch
    return file


def _exactly(file: IO[bytes], count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise Damaged("it is cut short")
    return data


def _fill(values: Tensor, file: IO[bytes]) -> Tensor:
    if values.numel():
        data = bytearray(_exactly(file, values.numel() * values.itemsize))
        values.copy_(torch.frombuffer(data, dtype=values.dtype))
    return values


def _no_storage(key: str, count: int, dtype: torch.dtype) -> Tensor:
    raise Damaged(f"storage {key} is unexpected")


def _dtype(kind: Any) -> torch.dtype:
    """Return the dtype of a storage class such as ``torch.FloatStorage``."""
    name = kind.name.split(".")[-1].removesuffix("Storage") if isinstance(kind, Inert) else ""
    found = getattr(torch, STORAGES.get(name, name.lower()), None)
    if not isinstance(found, torch.dtype):
        raise Damaged(f"{name or kind} is not a storage class")
    return found


STORAGES = {
    "Untyped": "uint8",
    "Byte": "uint8",
    "Char": "int8",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
}
"""The dtypes of storage classes that are not named after their dtype."""


def _strided(flat: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Return a view of a storage's values. torch raises RuntimeError if it exceeds them."""
    numbers = (offset, *size, *stride)
    if not all(isinstance(each, int) and each >= 0 for each in numbers) or len(size) != len(stride):
        raise Damaged("a tensor has invalid sizes")
    return torch.as_strided(flat, size, stride, offset)


def _with_bits(values: Tensor, bits: Any) -> Tensor:
    """Return a tensor with its negative bit and its conjugate bit, which torch saves beside the values."""
    flags = as_mapping(bits)
    values = torch._neg_view(values) if flags.get("neg") is True else values
    return values.conj() if flags.get("conj") is True and values.is_complex() else values


class _Storages:
    """The values of the storages in a file, as flat tensors, each read once."""

    def __init__(self, make: Callable[[str, int, torch.dtype], Tensor]) -> None:
        self._make = make
        self.made: dict[str, Tensor] = {}

    def of(self, pid: tuple[Any, ...]) -> Tensor:
        """Return the storage with a persistent id: ``("storage", class, key, location, count, ...)``."""
        _, kind, key, _, count, *view = pid
        dtype = _dtype(kind)
        if not isinstance(count, int) or count < 0:
            raise Damaged(f"storage {key} has {count} values")
        if key not in self.made:
            self.made[key] = self._make(str(key), count, dtype)
        values = self.made[key]
        if view and isinstance(view[0], tuple):
            _, offset, length = view[0]
            return values[offset : offset + length]
        return values


PLAIN_CALLS: dict[str, Callable[..., Any]] = {
    "builtins.set": lambda given=(): _set(given),
    "builtins.frozenset": lambda given=(): _set(given),
    "builtins.list": lambda given=(): list(given),
    "builtins.tuple": lambda given=(): tuple(given),
    "builtins.dict": lambda given=(): dict(given),
    "builtins.bytearray": lambda *given: _data(*given),  # noqa: PLW0108, defined below
    "builtins.bytes": lambda *given: _data(*given),  # noqa: PLW0108
    "builtins.complex": lambda real=0.0, imaginary=0.0: complex(real, imaginary),
    "collections.OrderedDict": lambda given=(): OrderedDict(given),
    "collections.defaultdict": lambda factory=None, given=(): dict(given),
    "collections.Counter": lambda given=(): dict(given),
    "collections.deque": lambda given=(), longest=None: list(given),
    "torch.Size": lambda given=(): tuple(given),
    "torch.torch_version.TorchVersion": lambda text="": str(text),
    "_codecs.encode": lambda text, coding="latin1": text.encode("latin1") if coding == "latin1" else text.encode(),
}
"""Replacements for functions that return plain data, by their names in pickles."""

TENSOR_CALLS: dict[str, Callable[..., Any]] = {
    "torch.storage._load_from_bytes": lambda data: _read_legacy(io.BytesIO(data), len(data)).content,
    "torch._utils._rebuild_tensor": _strided,
    "torch._utils._rebuild_tensor_v2": lambda flat, offset, size, stride, grad, hooks, bits=None: _with_bits(
        _strided(flat, offset, size, stride), bits
    ),
    "torch._utils._rebuild_tensor_v3": lambda flat, offset, size, stride, grad, hooks, dtype, bits=None: _with_bits(
        _strided(flat.view(_named_dtype(dtype)), offset, size, stride), bits
    ),
    "torch._utils._rebuild_parameter": lambda values, *rest: values,
    "torch._utils._rebuild_parameter_with_state": lambda values, *rest: values,
    "torch.nn.parameter.Parameter": lambda values=None, *rest: values,
    "torch.nn.parameter.Buffer": lambda values=None, *rest: values,
}
"""Replacements for functions that build tensors from storages, by their names in pickles."""

KNOWN = frozenset(PLAIN_CALLS) | frozenset(TENSOR_CALLS) | {"torch._tensor._rebuild_from_type_v2", "torch.Tensor"}
"""Names that need no permission."""

PATHS = re.compile(r"pathlib(\._local)?\.(Pure)?(Posix|Windows)?Path")
NUMPY = re.compile(
    r"numpy\.(_?core\.(multiarray|numeric)\.(scalar|_reconstruct|_frombuffer)|dtype|ndarray)|numpy\.dtypes\..*"
)
TORCH_DATA = re.compile(
    r"torch\.(\w+Storage|storage\.\w+Storage|u?int\d+|b?float\w+|half|double|long|short|bool|device)"
)
PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}


def _set(values: Any) -> Any:
    try:
        return set(values)
    except TypeError:  # a stand-in cannot be hashed even if the object can
        return list(values)


def _data(*given: Any) -> bytes:
    if given and isinstance(given[0], str):
        return given[0].encode("latin1")
    return bytes(given[0]) if given and isinstance(given[0], bytes | list | tuple) else b""


def _named_dtype(value: Any) -> torch.dtype:
    found = getattr(torch, value.name.split(".")[-1], None) if isinstance(value, Inert) else None
    if not isinstance(found, torch.dtype):
        raise Damaged("a tensor has an unknown dtype")
    return found


class _Machine:
    """Evaluates pickles of any protocol without importing anything."""

    def __init__(self, storages: _Storages, tensors: Mapping[Any, Tensor] | None = None) -> None:
        self.names: set[str] = set()
        self._storages = storages
        self._tensors = tensors
        """The tensors by persistent id, in the oldest files."""
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self, data: bytes | IO[bytes]) -> Any:
        """Evaluate one pickle; the position of a file is then right behind it."""
        self._stack, self._marks, self._memo = [], [], {}
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                break
            self._step(opcode.name, argument)
        return self._stack.pop()

    def _step(self, name: str, argument: Any) -> None:
        if PUSHED.fullmatch(name):
            self._stack.append(argument)
        elif name in CONSTANTS:
            self._stack.append(CONSTANTS[name]())
        elif name not in IGNORED:
            STEPS[name](self, argument)

    def _marked(self) -> list[Any]:
        items, self._stack = self._stack, self._marks.pop()
        return items

    def _mark(self, _: Any) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _pop(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._marked()

    def _pop_mark(self, _: Any) -> None:
        self._marked()

    def _tuple(self, count: int | None) -> None:
        items = self._marked() if count is None else [self._stack.pop() for _ in range(count)][::-1]
        self._stack.append(tuple(items))

    def _list(self, _: Any) -> None:
        items = self._marked()
        self._stack.append(items)

    def _dict(self, _: Any) -> None:
        items = self._marked()
        self._stack.append({})
        self._put(zip(items[::2], items[1::2], strict=True))

    def _frozenset(self, _: Any) -> None:
        items = self._marked()
        self._stack.append(_set(items))

    def _remember(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def _recall(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def _add(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, set):
            target.update(each if _is_hashable(each) else repr(each) for each in items)
        elif isinstance(target, Inert):
            target.elements.extend(items)

    def _put(self, pairs: Any) -> None:
        target = self._stack[-1]
        into = target.items if isinstance(target, Inert) else target
        if isinstance(into, dict):
            into.update((key if _is_hashable(key) else repr(key), value) for key, value in pairs)

    def _setitem(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._put([(key, value)])

    def _setitems(self, _: Any) -> None:
        items = self._marked()
        self._put(zip(items[::2], items[1::2], strict=True))

    def _append(self, _: Any) -> None:
        item = self._stack.pop()
        self._add([item])

    def _appends(self, _: Any) -> None:
        items = self._marked()
        self._add(items)

    def _named(self, text: str) -> Inert:
        module, _, name = text.partition(" ")
        full = f"{PYTHON_2.get(module, module)}.{name}"
        if not (full in KNOWN or PATHS.fullmatch(full) or NUMPY.fullmatch(full) or TORCH_DATA.fullmatch(full)):
            self.names.add(full)
        return Inert(full)

    def _global(self, text: str) -> None:
        self._stack.append(self._named(text))

    def _stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._global(f"{module} {name}")

    def _inst(self, text: str) -> None:
        items = self._marked()
        self._stack.append(_called(self._named(text), tuple(items)))

    def _obj(self, _: Any) -> None:
        function, *items = self._marked()
        self._stack.append(_called(function, tuple(items)))

    def _reduce(self, _: Any) -> None:
        args, function = self._stack.pop(), self._stack.pop()
        self._stack.append(_called(function, args))

    def _newobj_ex(self, _: Any) -> None:
        given, args, function = (self._stack.pop() for _ in range(3))
        made = _called(function, args)
        if isinstance(made, Inert) and isinstance(given, dict):
            made.items.update(given)
        self._stack.append(made)

    def _build(self, _: Any) -> None:
        state = self._stack.pop()
        target = self._stack[-1]
        if isinstance(target, Inert):
            target.state = state
        elif isinstance(target, OrderedDict) and isinstance(state, dict):
            target.__dict__.update((key, value) for key, value in state.items() if key == "_metadata")

    def _persistent(self, _: Any) -> None:
        pid = self._stack.pop()
        if isinstance(pid, tuple) and pid and pid[0] in {"storage", b"storage"}:
            self._stack.append(self._storages.of(pid))
        elif isinstance(pid, tuple) and len(pid) > 1 and pid[0] in {"module", b"module"}:
            self._stack.append(pid[1])  # a class, with its source
        elif self._tensors is not None:
            self._stack.append(self._tensors[int(pid)] if not isinstance(pid, tuple) else pid[0])
        else:
            raise Damaged("it has an unknown persistent id")

    def _text_persistent(self, text: str) -> None:
        self._stack.append(text)
        self._persistent(None)


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _called(function: Any, args: Any) -> Any:
    """Return the result of a call: plain data or a tensor if the function is known, else a stand-in."""
    name = function.name if isinstance(function, Inert) else ""
    args = args if isinstance(args, tuple) else (args,)
    if forwarded := _forwarded(name, args):
        return _called(*forwarded)
    replacement = PLAIN_CALLS.get(name) or TENSOR_CALLS.get(name)
    if PATHS.fullmatch(name):
        replacement = pathlib.PureWindowsPath if "Windows" in name else pathlib.PurePosixPath
    if name in TENSOR_CALLS and not (args and isinstance(args[0], Tensor | bytes)):
        replacement = None
    stand_in = Inert(name or repr(type(function)), args)
    if name.endswith(".scalar"):
        return scalar_of(stand_in)
    try:
        return replacement(*args) if replacement and not function.args else stand_in
    except (TypeError, ValueError, LookupError):  # the arguments do not fit the function
        return stand_in


def _forwarded(name: str, args: tuple[Any, ...]) -> tuple[Any, Any] | None:
    """Return the class and arguments that a call of ``copyreg`` forwards, as in pickles of old protocols."""
    if not args:
        return None
    if name == "copyreg._reconstructor":
        return args[0], args[2:] if len(args) > 2 and args[2] is not None else ()
    if name == "copyreg.__newobj__":
        return args[0], args[1:]
    if name in {"copyreg.__newobj_ex__", "torch._tensor._rebuild_from_type_v2"} and len(args) > 2:
        return args[0], args[1] if name.startswith("copyreg") else args[2]
    return None


PUSHED = re.compile(r"INT|BININT[12]?|LONG[14]?|(BIN)?FLOAT|(SHORT_)?(BIN)?(STRING|BYTES|UNICODE)8?|BYTEARRAY8")
"""Opcodes that carry a value."""
IGNORED = frozenset({"PROTO", "FRAME"})
CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine._mark,
    "POP": _Machine._pop,
    "POP_MARK": _Machine._pop_mark,
    "DUP": lambda machine, _: machine._stack.append(machine._stack[-1]),
    "LIST": _Machine._list,
    "DICT": _Machine._dict,
    "FROZENSET": _Machine._frozenset,
    "TUPLE": lambda machine, _: machine._tuple(None),
    "TUPLE1": lambda machine, _: machine._tuple(1),
    "TUPLE2": lambda machine, _: machine._tuple(2),
    "TUPLE3": lambda machine, _: machine._tuple(3),
    "APPEND": _Machine._append,
    "APPENDS": _Machine._appends,
    "ADDITEMS": _Machine._appends,
    "SETITEM": _Machine._setitem,
    "SETITEMS": _Machine._setitems,
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "INST": _Machine._inst,
    "OBJ": _Machine._obj,
    "REDUCE": _Machine._reduce,
    "NEWOBJ": _Machine._reduce,
    "NEWOBJ_EX": _Machine._newobj_ex,
    "BUILD": _Machine._build,
    "PERSID": _Machine._text_persistent,
    "BINPERSID": _Machine._persistent,
    "GET": _Machine._recall,
    "BINGET": _Machine._recall,
    "LONG_BINGET": _Machine._recall,
    "PUT": _Machine._remember,
    "BINPUT": _Machine._remember,
    "LONG_BINPUT": _Machine._remember,
    "MEMOIZE": lambda machine, _: machine._remember(None),
}
"""The effect of each opcode. Those of out-of-band buffers and of the extension registry are not supported."""
