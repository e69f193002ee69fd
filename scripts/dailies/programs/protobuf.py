"""ONNX files, read as protobuf messages without building any of them."""

import math
from collections.abc import Iterator

from dailies.files import SLACK
from dailies.programs.program import Bad, shown

STANDARD = {"", "ai.onnx"}
"""Domains of operators that every ONNX runtime has and that the standard describes."""

RESERVED = ("ai.", "com.", "org.")
"""How the domains begin that onnxruntime has operators of its own in; functions of a file do not hide those."""

MESSAGES = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
}
"""Fields that hold messages, by number, as onnx.proto gives them."""

NAMES = {"node": (7, 4), "function": (10, 1)}
"""Fields that hold the domain and the name of an operator."""


class Contents:
    """What matters of an ONNX file for safety."""

    def __init__(self, data: memoryview) -> None:
        self.external: dict[str, int] = {}
        """File names, and how many bytes are wanted of each."""
        self._called: set[tuple[str, str]] = set()
        self._functions: set[tuple[str, str]] = set()
        """Domains and names."""
        self._read(data, "model")
        own = {function for function in self._functions if not function[0].startswith(RESERVED)}
        self.foreign = {domain for domain, _ in self._called - own} - STANDARD
        """Domains of operators that are neither of the standard nor functions of the file."""

    def _read(self, data: memoryview, message: str) -> None:
        inner = MESSAGES.get(message, {})
        shape: list[int] = []
        external: dict[str, str] = {}
        names: dict[int, str] = {}
        for number, value in _fields(data):
            if number in inner and isinstance(value, memoryview):
                self._read(value, inner[number])
            elif number in NAMES.get(message, ()) and isinstance(value, memoryview):
                names[number] = str(value, "utf-8")
            elif (message, number) in (("tensor", 1), ("sparse", 3)):
                shape += [value] if isinstance(value, int) else list(_packed(value))
            elif message == "tensor" and number == 13 and isinstance(value, memoryview):
                entry = {key: str(text, "utf-8") for key, text in _fields(value) if isinstance(text, memoryview)}
                external[entry.get(1, "")] = entry.get(2, "")
        if message in NAMES:
            domain, name = (names.get(number, "") for number in NAMES[message])
            (self._called if message == "node" else self._functions).add((domain, name))
        length = int(external.get("length", "0"))
        # the smallest numbers have four bits; onnxruntime makes dense tensors of sparse ones
        if math.prod(shape) > (SLACK if message == "sparse" else SLACK + 2 * max(len(data), length)):
            raise Bad(f"a tensor in the file declares the shape {shown(str(tuple(shape)), 80)}")
        if external:
            location, last = external.get("location", ""), int(external.get("offset", "0")) + length
            self.external[location] = max(last, self.external.get(location, 0))


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Walk a protobuf message: the number of each field and its value; fixed-width numbers are given as bytes."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            length, at = _varint(data, at)
        else:
            length = {1: 8, 5: 4}.get(wire, -1)
        if length < 0 or at + length > end:
            raise Bad("the file is cut off or is not ONNX")
        yield number, data[at : at + length]
        at += length


def _packed(data: memoryview) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise Bad("the file is cut off or is not ONNX")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise Bad("the file is damaged or is not ONNX")
