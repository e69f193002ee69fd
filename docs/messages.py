"""Write tests/messages.txt: every error that a user can see, with its code and the template of its message.

A writer reviews all messages there. The file is generated from the calls of error classes in scripts/dailies:
``python docs/messages.py`` writes it, and a test fails when it is stale. To change a message, search for its code.
"""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeGuard

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "scripts" / "dailies"
SNAPSHOT = ROOT / "tests" / "messages.txt"

AREAS = "|".join(
    (
        *("config", "device", "disk", "output"),
        *("sequence", "frame", "video", "reference"),
        *("store", "registry", "artifact_store", "artifact"),
        *("model", "program", "onnx", "render", "measure", "publish", "votes"),
    )
)
CODE = re.compile(rf"({AREAS})\.[a-z0-9]+(_[a-z0-9]+)*")

HEADER = """\
Every error that a user can see: its code, its class, its message. {name} stands for what is filled in.
Written by `python docs/messages.py`; to change a message, search the source for its code.
"""

EXTENDED = "(code of the error that is extended)"
"""Stands for a code that is not literal: the error repeats another one and adds to its message."""

TRANSPARENT = {
    "abs",
    "clean",
    "few",
    "in_bytes",
    "join",
    "listed",
    "redacted",
    "repr",
    "shown",
    "shown_value",
    "sorted",
    "str",
}
"""Functions that format their argument: a template shows the argument alone."""


DEPTH = 2
"""How many functions that return a message are followed."""


@dataclass(frozen=True, order=True)
class Message:
    """One call of an error class."""

    code: str
    """Empty if the call has none; EXTENDED if it passes on the code of another error."""
    kind: str
    """The class."""
    templates: tuple[str, ...]
    place: str
    """File and line."""


class Source:
    """The modules of a package, parsed."""

    def __init__(self, package: Path) -> None:
        self.modules = {
            str(path.relative_to(package)): ast.parse(path.read_text(encoding="utf-8"))
            for path in sorted(package.rglob("*.py"))
        }

    @cached_property
    def errors(self) -> frozenset[str]:
        """The names of DailiesError and of all classes derived from it."""
        bases = {
            node.name: {ast.unparse(base).rpartition(".")[2] for base in node.bases}
            for tree in self.modules.values()
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
        }
        found = {"DailiesError"}
        while more := {name for name, of in bases.items() if of & found} - found:
            found |= more
        return frozenset(found)

    def constants(self, name: str, depth: int = 1) -> dict[str, ast.expr]:
        """Return the expressions of texts and numbers that a module assigns to names in capitals, or imports."""
        found: dict[str, ast.expr] = {}
        for node in self.modules.get(name, ast.Module([], [])).body:
            if isinstance(node, ast.ImportFrom) and depth:
                there = self.constants("/".join((node.module or "").split(".")[1:]) + ".py", depth - 1)
                found |= {each.name: there[each.name] for each in node.names if each.name in there}
            elif isinstance(node, ast.Assign) and (_is_text(node.value) or _is_number(node.value)):
                found |= {to.id: node.value for to in node.targets if isinstance(to, ast.Name) and to.id.isupper()}
        return found

    def messages(self) -> list[Message]:
        """Return every call of an error class, sorted by code."""
        return sorted(message for name, tree in self.modules.items() for message in self._in(name, tree))

    def _in(self, name: str, tree: ast.Module) -> Iterator[Message]:
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        constants = self.constants(name)
        for scope, owner, call in _calls(tree):
            called = ast.unparse(call.func).rpartition(".")[2]
            kind = owner if called == "__init__" else called
            if kind not in self.errors or (called == "__init__" and not _is_text(call.args[0])) or not call.args:
                continue
            first, *rest = call.args
            place = f"{name}:{call.lineno}"
            reader = _Reader(constants, functions, scope)
            if not rest:  # no code: one message alone, or a constructor of its own
                if called not in self._own_constructors:
                    yield Message("", kind, tuple(reader.templates(first)), place)
                continue
            code = first.value if isinstance(first, ast.Constant) else EXTENDED
            tails = "".join(f"; {reader.text(more)}" for more in rest[1:])
            yield Message(code, kind, tuple(text + tails for text in reader.templates(rest[0])), place)

    @cached_property
    def _own_constructors(self) -> frozenset[str]:
        """Error classes that set their code themselves."""
        return frozenset(
            node.name
            for tree in self.modules.values()
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef) and node.name in self.errors and node.name != "DailiesError"
            for each in node.body
            if isinstance(each, ast.FunctionDef) and each.name == "__init__"
        )


def _calls(tree: ast.Module) -> Iterator[tuple[ast.AST, str, ast.Call]]:
    """Yield every call with the function, and the name of the class, that it is in."""

    def walk(node: ast.AST, scope: ast.AST, owner: str) -> Iterator[tuple[ast.AST, str, ast.Call]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Call):
                yield scope, owner, child
            inner = child if isinstance(child, ast.FunctionDef) else scope
            yield from walk(child, inner, child.name if isinstance(child, ast.ClassDef) else owner)

    return walk(tree, tree, "")


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _is_number(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float)


def _is_sum_of_texts(node: ast.AST) -> TypeGuard[ast.BinOp]:
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add) and any(map(_is_text, (node.left, node.right)))


@dataclass(frozen=True)
class _Reader:
    """Turns the expression of a message into the template that a writer reads."""

    constants: dict[str, ast.expr]
    functions: dict[str, ast.FunctionDef]
    scope: ast.AST
    depth: int = 0

    def templates(self, node: ast.expr) -> list[str]:
        """Return one template for each way in which a message can be made."""
        if isinstance(node, ast.IfExp):
            return [*self.templates(node.body), *self.templates(node.orelse)]
        if isinstance(node, ast.BoolOp):
            return [text for value in node.values for text in self.templates(value)]
        if isinstance(node, ast.Name) and (texts := [value for value in self._assigned(node.id) if _is_text(value)]):
            return [self.text(value) for value in texts]
        function = self.functions.get(ast.unparse(node.func)) if isinstance(node, ast.Call) else None
        if function and self.depth < DEPTH:
            inner = _Reader(self.constants, self.functions, function, self.depth + 1)
            returned = [each.value for each in ast.walk(function) if isinstance(each, ast.Return) and each.value]
            return [text for value in returned for text in inner.templates(value)]
        return [self.text(node)]

    def text(self, node: ast.expr) -> str:
        """Return a string as it reads, with fields in braces."""
        if isinstance(node, ast.Constant):
            return str(node.value)
        if isinstance(node, ast.JoinedStr):
            return "".join(map(self.text, node.values))
        if isinstance(node, ast.FormattedValue):
            return self._field(node.value)
        if _is_sum_of_texts(node):
            return self.text(node.left) + self.text(node.right)
        return self._field(node)

    def _field(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name) and node.id in self.constants:
            return self.text(self.constants[node.id])
        if isinstance(node, ast.Name) and len(given := self._assigned(node.id)) == 1 and _is_text(given[0]):
            return _Reader(self.constants, self.functions, ast.Module([], [])).text(given[0])
        if isinstance(node, ast.IfExp):
            body, other = self.text(node.body), self.text(node.orelse)
            return f"({body}|{other})" if body and other else f"({body or other})"
        if _is_sum_of_texts(node):
            return self.text(node)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "counted" and _is_text(node.args[1]):
            return f"{self._field(node.args[0])} {node.args[1].value}s"
        return f"{{{self._name(node)}}}"

    def _name(self, node: ast.expr) -> str:
        """Return what a field is called: the name of the value, without what formats it."""
        if isinstance(node, ast.Attribute):
            return ast.unparse(node).removeprefix("self.").lstrip("_")
        if isinstance(node, ast.Subscript):
            key = f".{node.slice.value}" if isinstance(node.slice, ast.Constant) and _is_text(node.slice) else ""
            return self._name(node.value) + key
        if isinstance(node, ast.BoolOp):
            return self._name(node.values[0])
        if isinstance(node, ast.GeneratorExp | ast.ListComp):
            return self._name(node.generators[0].iter)
        if isinstance(node, ast.Call):
            return self._name_of_call(node)
        return ast.unparse(node).strip("_")

    def _name_of_call(self, node: ast.Call) -> str:
        function = ast.unparse(node.func).rpartition(".")[2]
        if function == "len":
            return f"number of {self._name(node.args[0])}"
        if function == "map":
            return self._name(node.args[1])
        if node.args and function in TRANSPARENT:
            return self._name(node.args[0])
        if isinstance(node.func, ast.Attribute) and not isinstance(node.func.value, ast.Name):
            return self._name(node.func.value)
        return function.strip("_").replace("_", " ")

    def _assigned(self, name: str) -> list[ast.expr]:
        return [
            each.value
            for each in ast.walk(self.scope)
            if isinstance(each, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in each.targets)
        ]


def snapshot(messages: list[Message]) -> str:
    """Return the text of the snapshot file."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for message in messages:
        if message.code:
            found.setdefault((message.code, message.kind), {}).update(dict.fromkeys(message.templates))
    parts = [HEADER]
    area = ""
    for (code, kind), templates in sorted(found.items()):
        if code.partition(".")[0] != area:
            area = code.partition(".")[0]
            parts.append(f"\n# {'errors that extend others' if code == EXTENDED else area}\n")
        parts.append(f"\n{code}  {kind}\n" + "".join(f"    {template}\n" for template in sorted(templates)))
    return "".join(parts)


def faults(messages: list[Message]) -> Iterator[str]:
    """Yield a line for each code that is missing, malformed, without a message, or of two classes."""
    kinds: dict[str, str] = {}
    for message in messages:
        if not message.code:
            yield f"{message.place}: {message.kind} has no code"
            continue
        if message.code == EXTENDED:
            continue
        if not CODE.fullmatch(message.code):
            yield f"{message.place}: {message.code} is malformed; a code is an area, a dot and a cause in snake_case"
        if not all(message.templates):
            yield f"{message.place}: {message.code} has no message"
        if kinds.setdefault(message.code, message.kind) != message.kind:
            yield f"{message.place}: {message.code} is of {message.kind} here and of {kinds[message.code]} elsewhere"


if __name__ == "__main__":
    SNAPSHOT.write_text(snapshot(Source(PACKAGE).messages()), encoding="utf-8")
    print(f"{SNAPSHOT} is written", file=sys.stderr)
