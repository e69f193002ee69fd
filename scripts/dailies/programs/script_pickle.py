"""The pickles of a TorchScript file, followed without making any of their objects."""

import pickletools
import re
from collections.abc import Mapping
from typing import Any

from dailies.programs.archive import check_view
from dailies.programs.operators import words
from dailies.programs.program import Bad, Unsafe, shown
from dailies.programs.script_code import check_text

DEEPEST = 1000
"""How deep objects may lie within each other; modules within modules take two each."""

OBJECTS = 200_000
"""The most objects, each counted as often as others hold it, since torch makes a shared module for each of them; a
NAFNet of 60 blocks has 9,000."""

PICKLED = re.compile(
    r"__torch__(?!\.torch\.classes\.)\..+|torch\.jit\._pickle\.\w+|torch\.\w+Storage|torch\.device|"
    r"torch\._utils\._rebuild_tensor_v2|torch\._utils\._rebuild_parameter|collections\.OrderedDict|"
    r"(?:__builtin__|builtins)\.complex"
)
"""What the pickles of a TorchScript file may name; ``torch.classes`` are C++ objects with loaders of their own."""

STORAGES = {
    f"torch.{name}Storage": size
    for size, names in {
        1: "Char Byte Bool",
        2: "Half BFloat16 Short",
        4: "Float Int",
        8: "Double Long ComplexFloat",
    }.items()
    for name in names.split()
}
"""Bytes per element."""

SIMPLE = words("BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE NONE")
MADE = {"EMPTY_TUPLE": 0, "EMPTY_LIST": 0, "EMPTY_DICT": 0, "TUPLE": None, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
MADE |= {"BINPERSID": 1, "REDUCE": 2, "NEWOBJ": 2}
"""How many objects are taken to make one; None: all since the last mark."""

FILLED = {"APPEND": 1, "APPENDS": None, "SETITEM": 2, "SETITEMS": None, "BUILD": 1}
"""How many objects are put into the one below them."""


def check_pickle(data: bytes, folder: str, sizes: Mapping[str, int]) -> None:
    """Raise unless a pickle is as torch writes them and its tensors lie within the bytes that the archive has for them.

    torch 2.13 believes the pickle and reads beyond them.

    Args:
        data: the pickle.
        folder: where the archive keeps the bytes of its tensors.
        sizes: bytes of each member of the archive.
    """
    pickled = _Pickle(data)
    for _, kind, key, _, count in pickled.storages:
        declared, held = count * STORAGES[kind.name], sizes.get(f"{folder}{key}", 0)
        if declared != held:
            raise Bad(f"a tensor in the file declares {declared:,} bytes, its record has {held:,}")
    for storage, offset, shape, strides, *_ in pickled.tensors:
        _, kind, _, _, count = storage.items[0].items
        check_view(shape.items, strides.items, offset, count, STORAGES[kind.name])


def example_shape(data: bytes) -> tuple[int, ...] | None:
    """The shape of the tensor that a program was traced with; None where there were several."""
    tensors = _Pickle(data).tensors
    if len(tensors) != 1:
        return None
    shape = tuple(tensors[0][2].items)
    if not all(type(length) is int and 0 < length < 2**16 for length in shape):
        raise Bad(f"the program was traced with a tensor of the shape {shown(str(shape))}")
    return shape


class _Held:
    """Stands for an object of a pickle: what it is called, what it is made of, how deep that goes."""

    def __init__(self, items: list[Any], name: str = "") -> None:
        self.name = name
        self.items: list[Any] = []
        self.depth = 0
        self.objects = 1
        """How many it is made of, itself included."""
        self.built = False
        """Whether it is an object of a class, which is given its state and nothing else."""
        self.inside = False
        """Whether another object holds it; it is complete then, or its depth would not be that of its holder."""
        self.add(items)

    def add(self, items: list[Any]) -> None:
        if self.inside:
            raise Unsafe("holds a pickle that torch does not write (an object that grows)")
        self.items += items
        for item in items:
            if isinstance(item, _Held):
                item.inside = True
                self.depth = max(self.depth, 1 + item.depth)
                self.objects += item.objects
        if self.depth > DEEPEST:
            raise Bad(f"the file holds objects within objects, more than {DEEPEST} deep")
        if self.objects > OBJECTS:
            raise Bad(f"the file holds objects that share others, more than {OBJECTS:,} when each is made")


class _Pickle:
    """Follows a TorchScript pickle without making any of its objects, and lists the tensors that it declares."""

    def __init__(self, data: bytes) -> None:
        self.storages: list[list[Any]] = []
        self.tensors: list[list[Any]] = []
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._size = len(data)
        for opcode, argument, _ in pickletools.genops(data):
            self._follow(opcode.name, argument)

    def _follow(self, opcode: str, argument: Any) -> None:
        stack = self._stack
        if opcode in SIMPLE:
            check_text(str(argument))
            stack.append(argument)
        elif opcode in ("NEWTRUE", "NEWFALSE"):
            stack.append(opcode == "NEWTRUE")
        elif opcode in ("BINPUT", "LONG_BINPUT"):
            if argument > self._size:
                raise Bad("a pickle in the file declares more objects than it has bytes")
            self._memo[argument] = stack[-1]
        elif opcode in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif opcode == "MARK":
            self._marks.append(len(stack))
        elif opcode == "GLOBAL":
            name = argument.replace(" ", ".")
            if not PICKLED.fullmatch(name):
                raise Unsafe(f"holds an object of {shown(name)}")
            stack.append(_Held([], name))
        elif opcode in FILLED:
            items = self._taken(FILLED[opcode])
            if stack[-1].built != (opcode == "BUILD"):
                raise Unsafe("holds a pickle that torch does not write (a state)")
            stack[-1].add(items)
        elif opcode in MADE:
            stack.append(self._made(opcode, self._taken(MADE[opcode])))
        elif opcode not in ("PROTO", "STOP"):
            raise Unsafe(f"holds a pickle that torch does not write ({opcode})")

    def _made(self, opcode: str, items: list[Any]) -> _Held:
        made = _Held(items)
        if opcode == "BINPERSID":
            self.storages.append(items[0].items)
        elif opcode in ("REDUCE", "NEWOBJ"):
            called, given = items
            # torch has numbers for names, and takes any number for one
            if not called.name or (opcode == "NEWOBJ" and not called.name.startswith("__torch__.")):
                raise Unsafe("holds a pickle that torch does not write (a call)")
            made.built = opcode == "NEWOBJ"
            if called.name == "torch._utils._rebuild_tensor_v2":
                self.tensors.append(given.items)
        return made

    def _taken(self, count: int | None) -> list[Any]:
        start = self._marks.pop() if count is None else len(self._stack) - count
        if not 0 <= start <= len(self._stack):
            raise Bad("a pickle in the file is damaged")
        taken = self._stack[start:]
        del self._stack[start:]
        return taken
