"""Conditions that torch.export sets on an image's shape, computed without giving any of them to Python to run."""

import ast
import operator
from collections.abc import Callable, Sequence
from typing import Any

from dailies.programs.graph import PYTHON
from dailies.programs.program import Unsafe, shown

COMPARED: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv, ast.Div: operator.truediv, ast.Mod: operator.mod,
}  # fmt: skip
CALLED = {name: function for name, function in PYTHON.items() if not name.startswith("_operator.")}
CALLED |= {"max": max, "min": min, "abs": abs, "int": int, "float": float}


def condition(text: str) -> ast.expr:
    """Read a condition on the image's shape, ``L['x'].size()[3] % 4 == 0``; it is never given to Python to run."""
    try:
        parsed = ast.parse(text, mode="eval").body
        _holds(parsed, (1, 1, 64, 64))
    except ZeroDivisionError:
        pass
    except (SyntaxError, ValueError, IndexError, RecursionError, MemoryError, TypeError, OverflowError) as error:
        raise Unsafe(f"sets a condition that is not arithmetic on the image's size: {shown(text)}") from error
    return parsed


def _holds(node: ast.expr, shape: Sequence[int]) -> Any:
    """The value of a condition, or of a part of it, for an image of this shape. Raises ValueError for anything else."""
    match node:
        case ast.Constant(value=bool() | int() | float()):
            value = node.value
        case ast.Subscript(value=ast.Call(func=ast.Attribute(attr="size"), args=[]), slice=ast.Constant(value=int())):
            value = shape[node.slice.value]
        case ast.BinOp(left=left, op=by, right=right) | ast.Compare(left=left, ops=[by], comparators=[right]) if (
            type(by) in COMPARED
        ):
            value = COMPARED[type(by)](_holds(left, shape), _holds(right, shape))
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            value = -_holds(inner, shape)
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            value = not _holds(inner, shape)
        case ast.BoolOp(op=op, values=values):
            parts = [_holds(part, shape) for part in values]
            value = all(parts) if isinstance(op, ast.And) else any(parts)
        case ast.Call(func=ast.Name() | ast.Attribute(), args=values, keywords=[]) if ast.unparse(node.func) in CALLED:
            value = CALLED[ast.unparse(node.func)](*[_holds(part, shape) for part in values])
        case _:
            raise ValueError(type(node).__name__)
    return value


def satisfied(condition: ast.expr, shape: Sequence[int]) -> bool:
    """Whether a condition holds for an image of this shape; one that has no value there does not."""
    try:
        return bool(_holds(condition, shape))
    except (ArithmeticError, ValueError):
        return False
