"""Imports only go down the floors of docs/design.md, and `__all__` tells the truth."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = [{"errors", "files", "formats", "arith", "plot"}, {"data", "toolchain", "ir", "quant", "models"},
          {"interp", "passes", "analysis", "frontend", "rtl"}, {"plan", "lower", "emit"},
          {"search", "boards", "build", "sim"}, {"cli", "__main__"}]
FLOOR = {name: level for level, names in enumerate(FLOORS) for name in names}
FILES = sorted([*ROOT.glob("hwq/**/*.py"), *(f for d in ("rtl", "sim", "boards") for f in ROOT.glob(f"{d}/**/*.py"))])


def module_of(file: Path) -> list[str]:
    parts = list(file.relative_to(ROOT).with_suffix("").parts)
    parts = parts if parts[0] == "hwq" else ["hwq", *parts]
    return parts[:-1] if parts[-1] == "__init__" else parts


def imported(file: Path):
    package = module_of(file) if file.stem == "__init__" else module_of(file)[:-1]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            name = [*base, *(node.module.split(".") if node.module else [])]
            yield from ([*name, alias.name] for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".") for alias in node.names)


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_go_down(file):
    own = module_of(file)
    if len(own) < 2:
        return
    for name in imported(file):
        if name[0] == "hwq" and len(name) > 1 and name[1] in FLOOR and name[1] != own[1]:
            assert FLOOR[name[1]] <= FLOOR[own[1]], f"{'.'.join(own)} imports {'.'.join(name)} from above"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_all_names_exist(file):
    name = ".".join(module_of(file))
    if ".quant" in name or ".models" in name or ".frontend" in name or ".search" in name:
        pytest.importorskip("torch")
    if name in ("hwq.__main__",):
        return
    module = importlib.import_module(name)
    if name != "hwq":
        assert all(hasattr(module, item) for item in getattr(module, "__all__", []))
