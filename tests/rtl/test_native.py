"""A core's cycles as machine code are those that Python steps through."""

import numpy as np
import pytest

from hwq.rtl import native
from hwq.rtl.native import compiled, compiles, translate
from hwq.rtl.rhythm import Program, interpreted

needs_compiler = pytest.mark.skipif(not compiles(), reason="There is no C++ compiler")


def drawn(rng, depth=3):
    """Return an expression of the language, of values below 2^12 in size."""
    kind = int(rng.integers(0, 12)) if depth else int(rng.integers(0, 3))
    part = [drawn(rng, depth - 1) for _ in range(3)] if kind > 2 else []
    match kind:
        case 0:
            return f"{'ab'[int(rng.integers(0, 2))]}{int(rng.integers(0, 6))}"
        case 1:
            return str(int(rng.integers(-9, 10)))
        case 2:
            return str(rng.choice(["N", "B[k]", "M[k]", "(a0, a1, b0)[k % 3]"]))
        case 3:
            return f"(({part[0]}) {rng.choice(['+', '-', '&', '|'])} ({part[1]}))"
        case 4:
            return f"(({part[0]}) % {int(rng.integers(1, 20))})"
        case 5:
            return f"(({part[0]}) % 4096 {rng.choice(['>>', '<<'])} {int(rng.integers(0, 4))})"
        case 6 | 7:
            return f"(({part[0]}) {rng.choice(['==', '!=', '<', '<=', '>', '>='])} ({part[1]}))"
        case 8:
            return f"(not ({part[0]}))"
        case 9:
            return f"(({part[0]}) if ({part[1]}) else ({part[2]}))"
        case _:
            word = rng.choice(["and", "or"])
            return f"(({part[0]}) {word} ({part[1]}) {word} ({part[2]}))"


def program(seed):
    """Return lines of all kinds on registers that are 0 or 1, and others."""
    rng = np.random.default_rng(seed)
    lines = ["k = (k + 1) % 7"]
    for _ in range(30):
        name, other = (f"a{int(rng.integers(0, 6))}" for _ in range(2))
        match int(rng.integers(0, 5)):
            case 0:
                lines.append(f"{name} = {other} = {drawn(rng)}")
            case 1:
                lines.append(f"{name} += {drawn(rng)}\n{name} = {name} % 512 - 100")
            case 2:
                lines.append(f"if {drawn(rng)}: {name} = {drawn(rng)}\nelif {drawn(rng)}:\n {other} -= 3\n {name} = {name} % 99\n"
                             f"else: {other} = {drawn(rng)}")
            case _:
                lines.append(f"b{int(rng.integers(0, 6))} = not ({drawn(rng)}) and b{int(rng.integers(0, 6))} or B[k]")
    lines += [f"a{k} = a{k} % 4096 - 1000" for k in range(6) if k % 2]
    lines += [f"a{k} = a{k} % 4096" for k in range(6) if not k % 2]
    lines.append("j = (j + 1) % 13\nended = j == 0 and a1 % 3 > 0")
    state = {"k": 0, "j": 0} | {f"{kind}{k}": k % 2 for kind in "ab" for k in range(6)}
    return Program("\n".join(lines), state,
                   {"N": 5, "B": bytes(rng.integers(0, 2, 7).tolist()), "M": tuple(rng.integers(-99, 99, 7).tolist())})


@needs_compiler
def test_all_that_is_translated_does_the_same():
    programs = [program(seed) for seed in range(8)]
    make = compiled(programs)
    assert make is not None
    ends = 0
    for each in programs:
        steps, state, t = (interpreted(each), make(each)), tuple(each.state.values()), 0
        for _ in range(20):
            python, machine = (step(t, t + 200, state) for step in steps)
            assert python == machine
            ends, t, state = ends + python[0], python[1], tuple(map(int, python[2]))
    assert ends > 20


@needs_compiler
def test_constants_of_tables_are_no_part_of_what_is_compiled():
    programs = [Program("n += N\nended = n > 9 and B[n % 2]", {"n": 0}, {"N": each, "B": bytes([0, 1])}) for each in (1, 2, 3)]
    make = compiled(programs[:1])
    assert make is not None
    assert [make(each)(0, 100, (0,)) for each in programs] == [(True, 11, (11,)), (False, 100, (200,)), (True, 5, (15,))]
    with pytest.raises(ValueError, match="truth values"):
        make(Program(programs[0].text, {"n": 0}, {"N": 1, "B": bytes([0, 2])}))


@needs_compiler
def test_where_nothing_moves_it_ends():
    still = Program("n = n + (n < 70)\nended = 0", {"n": 0}, {})
    make = compiled([still])
    assert make is not None and make(still)(0, 1 << 60, (0,)) == interpreted(still)(0, 1 << 60, (0,)) == (False, 193, (70,))


@pytest.mark.parametrize("line", ["n = n / 2", "n = n // 2", "n = n * 2", "n = n % m", "n = n % 0", "n = n << m", "n = n << 62",
                                  "n = n >> -1", "n = -1 << n", "n = ~n", "n = f(n)", "n = 1 < n < 3", "n = n is m", "n = 'x'",
                                  "n = 1.0", f"n = {1 << 62}", "n = T", "n = N[n]", "n = u", "n, m = 1, 2",
                                  "T[n] = 1", "while n: n -= 1", "n **= 2", "n = (m := 3)", "n = [n, m][0]", "n = None",
                                  "n: int = 3", "N = 3", "ended = T[0:1]"])
def test_nothing_else_is_translated(line):
    with pytest.raises(NotImplementedError):
        translate(Program(f"{line}\nended = 0", {"n": 0, "m": 1}, {"T": (1, 2), "N": 3}))
    assert compiled([Program(f"{line}\nended = 0", {"n": 0, "m": 1}, {"T": (1, 2), "N": 3})]) is None


@pytest.mark.parametrize("content", ["#!/bin/sh\nexit 3\n", "#!/bin/sh\nexit 0\n", "#!/bin/sh\nfor last; do :; done\ncase $last in "
                                     "*.so) echo no library > $last;; esac\n", "no program"],
                         ids=["fails", "makes nothing", "makes something else", "is none"])
def test_a_compiler_that_does_not_work_is_as_good_as_none(content, tmp_path, monkeypatch):
    (tmp_path / "cc").write_text(content)
    (tmp_path / "cc").chmod(0o755)
    monkeypatch.setenv("CXX", str(tmp_path / "cc"))
    assert compiles() and compiled([program(0)]) is None
    monkeypatch.setenv("CXX", str(tmp_path / "not there"))
    assert not compiles() and compiled([program(0)]) is None


@needs_compiler
def test_nothing_stays_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(native.tempfile, "tempdir", str(tmp_path))
    assert compiled([program(0)]) is not None and not list(tmp_path.iterdir())
