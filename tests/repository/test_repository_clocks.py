"""Durations are measured by the monotonic clock: no arithmetic on readings of the wall clock.

The wall clock may be set at any moment, also while a duration is measured. It is for stored times. This test
parses the sources of every member and finds sums, differences and comparisons of a reading of the wall clock: of the
call itself, or of a name or attribute that was assigned from one within the same function. Exceptions are arithmetic on
stored times and displayed differences; each has a reason.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(file for file in ROOT.glob("*/src/**/*.py") if ".venv" not in file.parts)
WALL = {"now_us", "_now_us", "wall_us", "time_ns", "utcnow"}
"""Last names of functions and attributes that read the wall clock."""
WALL_QUALIFIED = {("time", "time"), ("datetime", "now"), ("date", "today")}

EXCEPTIONS: dict[tuple[str, str], str] = {
    (
        "operator/src/marketfeed_operator/handlers.py",
        "registry",
    ): "kopf expects the time at which a login expires",
    ("operator/src/marketfeed_operator/handlers.py", "login"): "the same, in the function itself",
    (
        "simulator/src/marketfeed_simulator/rest.py",
        "_refused",
    ): "the venue returns the time at which a ban ends",
    (
        "workers/src/marketfeed_workers/venues/clock.py",
        "ahead_us",
    ): "offset of two clocks, which is displayed",
}


def reads_wall_clock(node: ast.AST) -> bool:
    """Return whether `node` reads the wall clock, possibly divided, rounded or converted."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id=module), attr=name)) if (
            module,
            name,
        ) in WALL_QUALIFIED:
            return True
        case ast.Call(func=ast.Attribute(attr=name)) | ast.Call(func=ast.Name(id=name)) if name in WALL:
            return True
        case ast.Call(func=ast.Name(id="int" | "float" | "round"), args=[inner, *_]):
            return reads_wall_clock(inner)
        case ast.BinOp(op=ast.Div() | ast.FloorDiv() | ast.Mult(), left=left, right=right):
            return reads_wall_clock(left) or reads_wall_clock(right)
        case ast.Call(func=ast.Attribute(value=inner, attr="timestamp")):
            return reads_wall_clock(inner)
    return False


def arithmetic(function: ast.AST) -> Iterator[int]:
    """Yield the lines of `function` that add, subtract or compare readings of the wall clock."""
    read = {
        ast.unparse(target)
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and reads_wall_clock(node.value)
        for target in node.targets
    }

    def is_reading(node: ast.AST) -> bool:
        if reads_wall_clock(node):
            return True
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div | ast.FloorDiv | ast.Mult):
            return is_reading(node.left) or is_reading(node.right)
        return isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node) in read

    for node in ast.walk(function):
        operands: list[ast.expr] = []
        if not isinstance(node, ast.expr | ast.stmt):
            continue
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
            operands = [node.left, node.right]
        elif isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
        elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add | ast.Sub):
            operands = [node.value]
        if any(map(is_reading, operands)):
            yield node.lineno


def functions(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node


def findings() -> dict[tuple[str, str], list[int]]:
    found: dict[tuple[str, str], list[int]] = {}
    for file in SOURCES:
        for name, function in functions(ast.parse(file.read_text())):
            if lines := sorted(set(arithmetic(function))):
                found[str(file.relative_to(ROOT)), name] = lines
    return found


def test_clocks_no_arithmetic_on_the_wall_clock() -> None:
    wrong = {place: lines for place, lines in findings().items() if place not in EXCEPTIONS}
    assert not wrong, f"measure durations by time.monotonic, or give a reason in EXCEPTIONS: {wrong}"


def test_clocks_exceptions_are_needed() -> None:
    assert EXCEPTIONS.keys() <= findings().keys(), "remove the exceptions that are not needed any more"


@pytest.mark.parametrize(
    ("code", "is_found"),
    [
        ("time.time() - start", True),
        ("deadline = time.time() + 5", True),
        ("now = self._now_us()\nif now > self.due: pass", True),
        ("elapsed = world.now_us() / 1e6 - self.since", True),
        ("started = datetime.now(UTC)\nage = datetime.now(UTC) - started", True),
        ("time.monotonic() - start", False),
        ("stored_time_us = now_us()", False),
        ("publish(now_us())", False),
    ],
)
def test_clocks_arithmetic_is_found(code: str, is_found: bool) -> None:
    body = "".join(f"    {line}\n" for line in code.splitlines())
    assert bool(list(arithmetic(ast.parse(f"def f():\n{body}")))) is is_found
