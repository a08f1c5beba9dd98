"""Run a synthesised iCE40 netlist in plain Python, many vectors side by side: what is measured is checked."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["Netlist"]


class Netlist:
    """A module of Yosys' JSON made of SB_LUT4, SB_CARRY and SB_DFF cells with one clock, and no reset.

    A signal is one integer: bit k belongs to vector k.

    Parameters
    ----------
    module : mapping
        One module of the JSON file.
    """

    def __init__(self, module: Mapping[str, Any]):
        self.ports = {name: (port["direction"], port["bits"]) for name, port in module["ports"].items()}
        self._luts: dict[int, tuple[int, list[Any]]] = {}
        self._carries: dict[int, list[Any]] = {}
        self._flops: list[tuple[Any, int, Any]] = []
        for cell in module["cells"].values():
            pins = {name: bits[0] for name, bits in cell["connections"].items() if bits}
            kind = cell["type"]
            if kind == "SB_LUT4":
                self._luts[pins["O"]] = int(cell["parameters"]["LUT_INIT"], 2), [pins.get(f"I{k}", "0") for k in range(4)]
            elif kind == "SB_CARRY":
                self._carries[pins["CO"]] = [pins.get(name, "0") for name in ("I0", "I1", "CI")]
            elif kind in ("SB_DFF", "SB_DFFE"):
                self._flops.append((pins["D"], pins["Q"], pins.get("E", "1")))
            elif kind != "$scopeinfo":
                raise ValueError(f"Cell {kind} is none that can be run")
        self._order = self._sort()

    def _sort(self) -> list[int]:
        known = {bit for direction, bits in self.ports.values() if direction == "input" for bit in bits} \
            | {q for _, q, _ in self._flops}
        order: list[int] = []
        todo = [*self._luts, *self._carries]
        while todo:
            bit = todo[-1]
            if bit in known or isinstance(bit, str):
                todo.pop()
                continue
            missing = [b for b in (self._luts[bit][1] if bit in self._luts else self._carries[bit])
                       if b not in known and not isinstance(b, str)]
            if missing:
                todo += missing
            else:
                todo.pop()
                known.add(bit)
                order.append(bit)
        return order

    def run(self, inputs: Sequence[Mapping[str, np.ndarray]], outputs: Sequence[str]) -> list[dict[str, np.ndarray]]:
        """Return the outputs (unsigned) of each cycle for the inputs of each cycle: one array of as many vectors each."""
        count = len(next(iter(inputs[0].values())))
        full = (1 << count) - 1
        values: dict[Any, int] = {"0": 0, "1": full, "x": 0, **{q: 0 for _, q, _ in self._flops}}
        results = []
        for cycle in inputs:
            for name, numbers in cycle.items():
                for k, bit in enumerate(self.ports[name][1]):
                    values[bit] = sum(1 << i for i in np.flatnonzero(np.asarray(numbers) >> k & 1).tolist())
            for bit in self._order:
                if bit in self._luts:
                    table, pins = self._luts[bit]
                    row = [full if table >> k & 1 else 0 for k in range(16)]
                    for pin in pins:
                        v = values[pin]
                        row = [(one & v) | (zero & ~v) for zero, one in zip(row[::2], row[1::2], strict=True)]
                    values[bit] = row[0]
                else:
                    a, b, c = (values[pin] for pin in self._carries[bit])
                    values[bit] = (a & b) | (c & (a | b))
            results.append({name: sum((np.array([values[bit] >> i & 1 for i in range(count)], np.int64) << k
                                       for k, bit in enumerate(self.ports[name][1])), np.zeros(count, np.int64))
                            for name in outputs})
            after = [(q, (values[d] & values[e]) | (values[q] & ~values[e])) for d, q, e in self._flops]
            values.update(after)
        return results
