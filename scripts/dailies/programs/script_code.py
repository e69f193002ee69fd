"""The code of a TorchScript file, judged before torch reads it: loading it must run nothing of it.

Loading runs methods called ``__setstate__`` and evaluates the defaults of arguments and the constants of classes.
What runs later is judged by the graphs that torch makes of the code.
"""

import ast
import re

from dailies.programs.operators import harmless
from dailies.programs.program import Unsafe, shown

STRING = r""""(?:[^"\\\n]|\\.)*+"|'(?:[^'\\\n]|\\.)*+'"""

PLAIN = re.compile(rf"(?:[\w \n.,:()\[\]{{}}=+\-*/%<>!&|^~@]++|{STRING})*+", re.ASCII)
"""Code in which strings begin and end where both Python and TorchScript think so, and in which nothing is a comment."""

BLANK = re.compile(r"\n(?: *+\n){100}")
"""More empty lines than torch writes; at millions of them its reader runs out of stack."""

OPERATOR = re.compile(rf"{STRING}|(?<![\w.])(?P<name>(?:torch|ops)\b(?:\s*\.\s*\w+)*)", re.ASCII)


def check_code(text: str) -> None:
    """Raise Unsafe unless the code calls harmless operators only and computes nothing while it is loaded."""
    if not PLAIN.fullmatch(text) or BLANK.search(text):
        raise Unsafe("holds code that torch does not write")
    if "__setstate__" in text:
        raise Unsafe("runs a method, __setstate__, while it is loaded")
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Unsafe(f"holds code that cannot be checked ({type(error).__name__})") from error
    for node in ast.walk(tree):
        _check_definition(node)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            check_text(node.value)
    for found in OPERATOR.finditer(text):
        _check_operator("".join((found["name"] or "").split()))


def check_text(text: str) -> None:
    """Raise Unsafe if a program that prints this text, or fails with it, could steer the terminal that shows it."""
    if not text.replace("\n", "").replace("\t", "").isprintable():
        raise Unsafe("holds control characters")


def _check_operator(name: str) -> None:
    match name.split("."):
        case [""]:
            return
        case ["torch", operator, *_] if harmless(f"aten::{operator}"):
            return
        case ["ops", "aten" | "prim" as space, operator, *_] if harmless(f"{space}::{operator}"):
            return
    raise Unsafe(f"uses {shown(name)}" if "." in name else f"uses '{name}' as a value")


def _check_definition(node: ast.AST) -> None:
    """Raise Unsafe if a method, a class or the file itself computes something while it is loaded."""
    if isinstance(node, ast.FunctionDef):
        defaults = [*node.args.defaults, *(value for value in node.args.kw_defaults if value is not None)]
        if node.decorator_list or not all(map(_is_literal, defaults)):
            raise Unsafe("computes the defaults of a method while it is loaded")
    elif isinstance(node, ast.ClassDef):
        if node.decorator_list or node.keywords or not all(map(_is_declaration, node.body)):
            raise Unsafe("computes the constants of a class while it is loaded")
    elif isinstance(node, ast.Module) and not all(map(_is_declaration, node.body)):
        raise Unsafe("holds code outside of its classes")


def _is_literal(node: ast.expr | None) -> bool:
    match node:
        case ast.Constant() | ast.Name(id="inf" | "nan" | "infj" | "nanj") | ast.Attribute(value=ast.Name("CONSTANTS")):
            return True
        case ast.Tuple(elts=values) | ast.List(elts=values):
            return all(map(_is_literal, values))
        case ast.Dict(keys=keys, values=values):
            return all(map(_is_literal, [*keys, *values]))
        case ast.UnaryOp(ast.USub(), value) | ast.Call(ast.Name("annotate"), [_, value], []):
            return _is_literal(value)
        case ast.Call(ast.Attribute(ast.Name("torch"), "device"), [ast.Constant()], []):
            return True
    return False


def _is_declaration(node: ast.stmt) -> bool:
    """Whether a statement gives a name a type or a literal, or defines a method or a class."""
    match node:
        case ast.ClassDef() | ast.FunctionDef() | ast.Pass():
            return True
        case ast.AnnAssign(annotation=type_, value=value):
            return _is_type(type_) and (value is None or _is_literal(value))
        case ast.Assign(targets=[ast.Subscript(value=ast.Name(id="__annotations__"))], value=type_):
            return _is_type(type_)
        case ast.Assign(targets=[ast.Name()], value=value):
            return _is_literal(value)
    return False


def _is_type(node: ast.expr) -> bool:
    parts = ast.Name | ast.Attribute | ast.Subscript | ast.Tuple | ast.List | ast.Constant | ast.expr_context
    return all(isinstance(part, parts) for part in ast.walk(node))
