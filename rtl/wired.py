"""Constant matrix-vector products as hardware: `AdderNetwork` from an adder graph, `WiredMatVec` for a stage."""

import numpy as np
from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out

from .adders import AdderGraph, Node, digits, segments
from .common import Block, Cost, check, check_int, lanes_stream, shape_of
from .handshake import Part, Pipe
from .ring import window_layout
from .sharing import Effort, share

__all__ = ["AdderNetwork", "WiredMatVec", "wired_size"]

_STARTS = 8                                              # greedy runs before a search
_PACKED = 0.95                                           # the graph's count is of packed cells, to which `Chain` adds for packing


class AdderNetwork(Block):
    """An adder graph, one carry chain a node, every signal of exactly its width.

    Parameters
    ----------
    graph : AdderGraph
    every : int
        Levels of adders between registers; 0: no registers, combinational.
    exact : bool
        Negate what the graph gives negated. Otherwise such an output is the complement: too small by ``1 << shift``.

    Members
    -------
    x0, x1, ... : in, inputs of the graph
    y0, y1, ... : out, outputs; shapes in ``y_shapes``
    en : in, registers move on
    """

    def __init__(self, graph: AdderGraph, *, every: int = 1, exact: bool = False):
        check_int("Levels between registers", every, 0)
        self.graph, self.every, self.exact = graph, every, exact
        self.latency = graph.stages(every)
        self.too_much = np.array([-(1 << o[1]) if o and o[2] < 0 and not exact else 0 for o in graph.outputs], np.int64)
        self.ranges = []
        for j, out in enumerate(graph.outputs):
            low, high = (int(v) << out[1] for v in graph.bounds[out[0]]) if out else (0, 0)
            low, high = (-high, -low) if out and out[2] < 0 else (low, high)
            self.ranges.append((low + int(self.too_much[j]), high + int(self.too_much[j])))
        self.x_shapes, self.y_shapes = [shape_of(*r) for r in graph.ranges], [shape_of(*r) for r in self.ranges]
        super().__init__({**{f"x{i}": In(s) for i, s in enumerate(self.x_shapes)},
                          **{f"y{j}": Out(s) for j, s in enumerate(self.y_shapes)}, "en": In(1)})

    @property
    def cost(self) -> Cost:
        """Logic cells: chains, inverters, registers on their own."""
        negated = sum(self.y_shapes[j].width for j, o in enumerate(self.graph.outputs) if o and o[2] < 0) if self.exact else 0
        return Cost(lc=self.graph.cells(self.every) + negated)

    def model(self, x: np.ndarray) -> np.ndarray:
        """Return vectors (n, inputs) as sums (n, outputs), ``too_much`` included."""
        return self.graph.model(x) + self.too_much

    def elaborate(self, platform):
        m = Module()
        graph, n = self.graph, len(self.graph.ranges)
        wanted = graph.wants(self.every)
        at: dict[tuple[int, int], tuple[Signal, bool]] = {}          # item, stage: its signal and polarity

        def fetch(item: int, stage: int, polarity: bool, width: int):
            """Return an item in a stage, complemented or not, extended to ``width`` bits."""
            value, have = at[item, stage]
            bits = value[:width] if have == polarity else ~value[:width]
            missing = width - len(value)
            if missing > 0:
                fill = bits[-1] if graph.widths[item][1] else Const(polarity, 1)
                bits = Cat(bits, fill.replicate(missing))
            return bits

        def carry_on(item: int, born: int, value, have: bool) -> None:
            """Keep an item up to the last stage that reads it; the polarity may change behind each register for nothing."""
            reads = wanted.get(item, {})
            for stage in range(born, max(reads, default=born - 1) + 1):
                asked = reads.get(stage, set())
                want = next(iter(asked)) if len(asked) == 1 else have
                if stage == born and item >= n and not asked:
                    later = reads[min(reads)]
                    want = next(iter(later)) if len(later) == 1 else have
                if stage == born and item < n:
                    want = have
                signal = Signal(graph.widths[item][0], name=f"n{item}_{stage}", reset_less=True)
                source = value if want == have else ~value
                if stage > born:
                    with m.If(self.en):
                        m.d.sync += signal.eq(source)
                else:
                    m.d.comb += signal.eq(source)
                at[item, stage] = signal, want
                value, have = signal, want

        for i in range(n):
            carry_on(i, 0, getattr(self, f"x{i}").as_unsigned(), False)
        for k, node in enumerate(graph.nodes):
            carry_on(n + k, segments(node.level, self.every), self._sum(m, k, node, fetch), node.phase)
        for j, out in enumerate(graph.outputs):
            if out is None:
                continue
            item, shift, sign = out
            width = self.y_shapes[j].width - shift
            value = fetch(item, self.latency, sign < 0, width)
            if sign < 0 and self.exact:
                value = (value + 1)[:width]
            m.d.comb += getattr(self, f"y{j}").eq(Cat(Const(0, shift), value))
        return m

    def _sum(self, m: Module, number: int, node: Node, fetch):
        """Return the value of ``nodes[number]`` in the polarity of its phase."""
        graph, item = self.graph, number + len(self.graph.ranges)
        stage, phase = segments(node.level, self.every), node.phase
        width = graph.widths[item][0] + node.drop
        if not graph.chain(number):                        # side by side
            return Cat(fetch(node.a, stage, phase, node.shift), fetch(node.b, stage, phase, width - node.shift))[node.drop:]
        if node.swap:
            low, upper = Const(0, 0), width
            first = Cat(Const(phase, 1).replicate(node.shift), fetch(node.b, stage, phase, width - node.shift))
            second = fetch(node.a, stage, not phase, width)
        else:
            low, upper = fetch(node.a, stage, phase, width)[:node.shift], width - node.shift
            first = fetch(node.a, stage, phase, width)[node.shift:]
            second = fetch(node.b, stage, phase ^ node.minus, upper)
        # The carry in of 1 as a subtraction of the complement.
        total = first - ~second if phase ^ node.minus else first + second
        chain = Signal(upper, name=f"sum{item}")
        m.d.comb += chain.eq(total[:upper])
        # Inverted twice: what keeps synthesis from merging adders into one of many operands.
        return Cat(low, ~~chain if self.every != 1 else chain)[node.drop:]


def wired_size(weight: np.ndarray) -> int:
    """Return the signed digits of the weights: adders, were nothing shared."""
    values, counts = np.unique(weight, return_counts=True)
    return sum(int(count) * len(digits(int(value))) for value, count in zip(values, counts, strict=True))


class WiredMatVec(Block):
    """`MatVec` for all outputs and all inputs of a window at once, with the weights in the wiring: an adder graph.

    The sum of output ``k`` is too large by the constant ``too_much[k]``, which is negative: a negated sum comes as its
    complement.

    Parameters
    ----------
    weight : int array (outputs, 1, simd)
        Integer values in the order of the window's codes.
    x_range : (int, int)
        Inclusive range of the codes.
    repeat : int
        Windows sent one after another; all outputs come at once, so that the order does not depend on it.
    every : int
        Levels of adders between registers.
    steps : int
        Of the search for a small adder graph; 0: one greedy run.

    Members
    -------
    i : stream of `window_layout` words, one a window
    o : stream of ``outputs`` sums

    One window a cycle. Latency: `latency` cycles from a window to its sums.
    """

    words = groups = cycles_per_window = 1
    uses_dsp = False
    rom, rom_blocks = (0, 0), 0

    def __init__(self, weight: np.ndarray, x_range: tuple[int, int], *, repeat: int = 1, every: int = 1, steps: int = 0):
        check(weight.ndim == 3 and weight.shape[1] == 1 and weight.size > 0,
              f"Weights of a wired layer must have the axes (outputs, 1, simd): all codes of a window in one word, "
              f"not {weight.shape}")
        check_int("Levels between registers", every)
        check(x_range[0] <= x_range[1], f"Code range must not be empty, not {x_range!r}")
        self.outputs, _, self.simd = weight.shape
        self.weight, self.x_range, self.pe, self.repeat, self.every = weight, x_range, self.outputs, repeat, every
        self.x_shape = shape_of(*x_range)
        matrix, effort = weight[:, 0], Effort(starts=_STARTS if steps else 1, steps=steps)
        self.network = AdderNetwork(share(matrix, [x_range] * self.simd, every=every, free_sign=True, effort=effort), every=every)
        self.too_much, self.latency = self.network.too_much, self.network.latency
        self.ranges = np.array(self.network.ranges, np.int64)
        self.acc_range = (min(0, int(self.ranges.min())), max(0, int(self.ranges.max())))
        self.acc_shape = shape_of(*self.acc_range)
        super().__init__({"i": In(stream.Signature(window_layout(self.x_shape, self.simd))),
                          "o": Out(lanes_stream(self.acc_shape, self.pe))})

    @property
    def handshake(self) -> tuple[Part, ...]:
        """See `Block.handshake`."""
        return (Pipe(self.latency),)

    @property
    def cost(self) -> Cost:
        """Logic cells of the adder graph and the valid bits."""
        return Cost(lc=3 + self.latency + _PACKED * self.network.cost.lc)

    def model(self, x: np.ndarray) -> np.ndarray:
        """Return words (n, simd) as sums (n, outputs), ``too_much`` included."""
        return x.astype(np.int64) @ self.weight[:, 0].T + self.too_much

    def elaborate(self, platform):
        m = Module()
        m.submodules.network = network = self.network
        valid = Signal(self.latency)
        m.d.comb += [network.en.eq(~self.o.valid | self.o.ready), self.i.ready.eq(network.en), self.o.valid.eq(valid[-1])]
        m.d.comb += [getattr(network, f"x{i}").eq(self.i.p.x[i]) for i in range(self.simd)]
        m.d.comb += [self.o.payload[k].eq(getattr(network, f"y{k}")) for k in range(self.outputs)]
        with m.If(network.en):
            m.d.sync += valid.eq(Cat(self.i.valid, valid))
        return m
