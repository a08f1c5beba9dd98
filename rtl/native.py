"""The cycles of a core as machine code: the text that `hwq.rtl.rhythm` runs in Python, compiled as C++, some 50 times as fast."""

import ast
import ctypes
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path

from ..errors import HwqError
from ..toolchain.find import find
from ..toolchain.run import Child
from .rhythm import Program, Step

__all__ = ["compiled", "compiles", "translate"]

_OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.BitAnd: "&", ast.BitOr: "|"}
_SHIFTS = {ast.LShift: "<<", ast.RShift: ">>"}
_RELATIONS = {ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_LARGEST = 1 << 62
# More than that costs more time in the compiler than it saves afterwards.
_FLAGS = ("-Og", "-w", "-fwrapv", "-fPIC", "-shared", "-nostdlib")
# Seconds after which a compiler is taken for broken; half a second is usual.
_PATIENCE = 60.0

_CODE = """typedef long long I;
static inline I mod(I a, I n) {{ a %= n; return a < 0 ? a + n : a; }}
extern "C" int run(I *at, I limit, I *__restrict S, const void *const *T) {{
{tables}
I before[{size}];
int known = 0;
for (I t = *at; t < limit; t++) {{
I {local};
{body}
if (x_ended) {{ *at = t + 1; return 1; }}
if (!(t & 63)) {{
int same = known, k;
for (k = 0; k < {size}; k++) {{ same &= before[k] == S[k]; before[k] = S[k]; }}
if (same) {{ *at = t + 1; return 0; }}
known = 1;
}}
}}
*at = limit;
return 0;
}}
"""


def compiles() -> bool:
    """Return whether there is a C++ compiler, in working order or not."""
    try:
        return bool(find("c++"))
    except HwqError:
        return False


def compiled(programs: Sequence[Program]) -> Callable[[Program], Step] | None:
    """Return what makes steps of these programs, with any constants in their tables; None without a compiler, or if it fails."""
    try:
        with tempfile.TemporaryDirectory(prefix="hwq-rhythm-", ignore_cleanup_errors=True) as name, ExitStack() as stack:
            running: list[tuple[str, Path, Child]] = []
            for k, program in enumerate(programs):       # the next one is translated while the compiler is at work
                path = Path(name) / f"{k}.so"
                path.with_suffix(".cpp").write_text(translate(program))
                child = Child(find("c++"), [*_FLAGS, f"{k}.cpp", "-o", path.name], path.with_suffix(".log"), path.parent)
                running.append((program.text, path, stack.enter_context(child)))
            functions = {}
            for text, path, child in running:
                child.wait(_PATIENCE)
                child.check()
                functions[text] = ctypes.CDLL(str(path)).run
    except (HwqError, OSError, AttributeError, NotImplementedError):   # it only makes things faster
        return None

    def make(program: Program) -> Step:
        function, size = functions[program.text], len(program.state)
        kept = [_array(values) for values in program.tables.values()]
        tables = (ctypes.c_void_p * len(kept))(*map(ctypes.addressof, kept))

        def step(t: int, limit: int, state: tuple[int, ...]) -> tuple[bool, int, tuple[int, ...]]:
            at, registers = ctypes.c_longlong(t), (ctypes.c_longlong * size)(*state)
            ended = function(ctypes.byref(at), ctypes.c_longlong(limit), registers, tables)
            return bool(ended), at.value, tuple(registers)

        return step

    return make


@lru_cache(256)
def _array(values: bytes | tuple[int, ...] | int) -> ctypes.Array:
    """Return a table as C++ has it."""
    if isinstance(values, bytes):
        if any(value > 1 for value in values):
            raise ValueError("a table of bytes holds truth values alone")
        return (ctypes.c_ubyte * len(values)).from_buffer_copy(values)
    several = (values,) if isinstance(values, int) else values
    return (ctypes.c_longlong * len(several))(*several)


def translate(program: Program) -> str:
    """Return a program's C++.

    Raises
    ------
    NotImplementedError
        It has something for which no translation is known to do the same.
    """
    return _Translation(program).code


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, ast.If):
            yield from _statements((*node.body, *node.orelse))


class _Translation:
    """Integers are below 2^62 in size, so that none overflows; indices are within their tables; bytes are truth values."""

    def __init__(self, program: Program):
        body = ast.parse(program.text).body
        self._state, self._tables = list(program.state), program.tables
        self._values: dict[str, list[ast.expr | None]] = {}
        for node in _statements(body):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    self._values.setdefault(self._name(target), []).append(node.value)
            elif isinstance(node, ast.AugAssign):
                self._values.setdefault(self._name(node.target), []).append(None)
        # What is 0 or 1 all the time: all that could be, less what is given anything else.
        self._bits = {name for name in self._values if program.state.get(name, 0) in (0, 1)}
        while wider := {name for name in self._bits if not all(value and self._is_bit(value) for value in self._values[name])}:
            self._bits -= wider
        local = [name for name in self._values if name not in program.state]
        self.code = _CODE.format(size=len(self._state), tables="\n".join(map(self._table, self._tables)),
                                 body="\n".join(map(self._statement, body)),
                                 local=", ".join(f"x_{name} = 0" for name in local))

    def _name(self, node: ast.expr) -> str:
        if not isinstance(node, ast.Name) or node.id in self._tables:
            raise NotImplementedError(ast.dump(node))
        return node.id

    def _table(self, name: str) -> str:
        at, values = list(self._tables).index(name), self._tables[name]
        if isinstance(values, int):
            return f"const I x_{name} = *(const I *)T[{at}];"
        kind = "unsigned char" if isinstance(values, bytes) else "I"
        return f"const {kind} *const x_{name} = (const {kind} *)T[{at}];"

    def _is_bit(self, node: ast.expr) -> bool:
        match node:
            case ast.Compare() | ast.UnaryOp(op=ast.Not()):
                return True
            case ast.Constant():
                return node.value in (0, 1)
            case ast.Name():
                return node.id in self._bits
            case ast.BoolOp(values=parts) | ast.Subscript(value=ast.Tuple(elts=parts)):
                return all(map(self._is_bit, parts))
            case ast.BinOp(op=ast.BitAnd() | ast.BitOr()):
                return self._is_bit(node.left) and self._is_bit(node.right)
            case ast.IfExp():
                return self._is_bit(node.body) and self._is_bit(node.orelse)
            case ast.Subscript(value=ast.Name(id=name)):
                return isinstance(self._tables.get(name), bytes)
        return False

    def _expression(self, node: ast.expr) -> str:
        of = self._expression
        match node:
            case ast.Name(id=name) if name in self._state:
                return f"S[{self._state.index(name)}]"
            case ast.Name(id=name) if name in self._values or isinstance(self._tables.get(name), int):
                return f"x_{name}"
            case ast.Constant(value=value) if isinstance(value, int) and abs(value) < _LARGEST:
                return f"{int(value)}LL"
            case ast.BoolOp() if self._is_bit(node):     # nothing has effects, so all of it may be looked at
                return f"({(' & ' if isinstance(node.op, ast.And) else ' | ').join(map(of, node.values))})"
            case ast.BoolOp():
                code = of(node.values[-1])
                for first in map(of, reversed(node.values[:-1])):
                    code = f"({first} ? {code} : {first})" if isinstance(node.op, ast.And) else f"({first} ? {first} : {code})"
                return code
            case ast.UnaryOp(op=ast.Not()):
                return f"!{of(node.operand)}"
            case ast.UnaryOp(op=ast.USub()):
                return f"(-{of(node.operand)})"
            case ast.BinOp(op=ast.Mod(), right=ast.Constant(value=int(value))) if value > 0:
                return f"mod({of(node.left)}, {of(node.right)})"
            case ast.BinOp(right=ast.Constant(value=int(value))) if type(node.op) in _SHIFTS and 0 <= value < 62:
                return f"({of(node.left)} {_SHIFTS[type(node.op)]} {value})"
            case ast.BinOp() if type(node.op) in _OPERATORS:
                return f"({of(node.left)} {_OPERATORS[type(node.op)]} {of(node.right)})"
            case ast.Compare(ops=[relation], comparators=[right]) if type(relation) in _RELATIONS:
                return f"({of(node.left)} {_RELATIONS[type(relation)]} {of(right)})"
            case ast.IfExp():
                return f"({of(node.test)} ? {of(node.body)} : {of(node.orelse)})"
            case ast.Subscript(value=ast.Name(id=name)) if isinstance(self._tables.get(name), bytes | tuple):
                return f"x_{name}[{of(node.slice)}]"
            case ast.Subscript(value=ast.Tuple(elts=parts)):
                code, at = of(parts[-1]), of(node.slice)
                for k, each in reversed(list(enumerate(parts[:-1]))):
                    code = f"({at} == {k} ? {of(each)} : {code})"
                return code
        raise NotImplementedError(ast.dump(node))

    def _statement(self, node: ast.stmt) -> str:
        match node:
            case ast.Assign():
                return " = ".join([*map(self._expression, node.targets), self._expression(node.value)]) + ";"
            case ast.AugAssign() if type(node.op) in _OPERATORS:
                return f"{self._expression(node.target)} {_OPERATORS[type(node.op)]}= {self._expression(node.value)};"
            case ast.If():
                bodies = ["\n".join(map(self._statement, each)) for each in (node.body, node.orelse)]
                return f"if ({self._expression(node.test)}) {{\n{bodies[0]}\n}}" + (
                    f" else {{\n{bodies[1]}\n}}" if node.orelse else "")
        raise NotImplementedError(ast.dump(node))
