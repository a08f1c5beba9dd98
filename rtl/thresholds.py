"""From accumulators to codes by thresholds: ``lo + #{k: acc >= thresholds[c, k]}``, per tensor or per channel."""

from dataclasses import dataclass

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal
from amaranth.lib.wiring import In, Out

from hwq.arith import width_of

from .common import Block, Cost, Technology, check, check_int, lanes_stream, pack_lanes, shape_of
from .handshake import Part, Pipe
from .loops import Sweep
from .memory import make_rom

__all__ = ["Thresholder"]

# Logic cells that a block RAM is worth: about their ratio in the iCE40 devices.
_BLOCK_WORTH = 160


@dataclass(frozen=True, eq=False)
class _Table:
    """Thresholds to compare with at one point of the pipeline: words (channels, choices), each of ``count`` thresholds."""

    words: np.ndarray                                    # (rows, choices, count)
    width: int

    @property
    def depth(self) -> int:
        return self.words.shape[0] * self.words.shape[1]

    @property
    def bits(self) -> int:
        return self.words.shape[2] * self.width

    def in_block(self, technology: Technology) -> bool:
        return self.bits * technology.rom_cells(self.depth) > _BLOCK_WORTH * max(1, technology.blocks(self.bits, self.depth))

    def cost(self, technology: Technology) -> Cost:
        if self.depth == 1:
            return Cost()
        if self.in_block(technology):
            return Cost(lc=0, ebr=technology.blocks(self.bits, self.depth))
        return Cost(lc=self.bits * technology.rom_cells(self.depth))


class Thresholder(Block):
    """Count the thresholds that each value reaches; ``lanes`` values a cycle. A `Requantizer` in another form.

    Few thresholds are compared with side by side, more in a pipelined binary search, one comparator for each bit of the
    result: what the cost says is cheaper.

    Parameters
    ----------
    in_range : (int, int)
        Inclusive range of the accumulators.
    thresholds : int array (1 or channels, n)
        Ascending in each row.
    lo : int
        Code below all thresholds.
    channels, lanes, order, technology
        As for `Requantizer`.

    Members
    -------
    i : stream of ``lanes`` accumulators
    o : stream of ``lanes`` codes of shape `out_shape`

    One beat a cycle.
    """

    every = 1
    """Cycles from one beat to the next, at least."""

    def __init__(self, in_range: tuple[int, int], *, thresholds: np.ndarray, lo: int, channels: int, lanes: int = 1,
                 order: tuple[int, int, int] | None = None, technology: Technology):
        check_int("Channels", channels)
        check_int("Lanes", lanes)
        check(channels % lanes == 0, f"Lanes must divide the {channels} channels, not {lanes!r}")
        check(in_range[0] <= in_range[1], f"Input range must not be empty, not {in_range!r}")
        table = np.asarray(thresholds, np.int64)
        check(table.ndim == 2 and len(table) in (1, channels),
              f"Thresholds must have 1 or {channels} rows, not the shape {table.shape}")
        check(bool((table[:, 1:] >= table[:, :-1]).all()), "Thresholds must ascend")
        self.order = order or (channels // lanes, 1, 1)
        check(self.order[0] * self.order[2] * lanes == channels,
              f"Order must cover the {channels} channels with {lanes} lanes, not {order!r}")
        self.in_range, self.thresholds, self.lo = in_range, table, lo
        self.channels, self.lanes, self.technology = channels, lanes, technology
        self.out_shape = shape_of(lo, lo + table.shape[1])
        # Beyond the range there is one value on each side; what every value reaches or none need not be compared with.
        table = np.clip(table, in_range[0], in_range[1] + 1)
        always, never = (table == in_range[0]).all(axis=0), (table == in_range[1] + 1).all(axis=0)
        self._base, self._table = lo + int(always.sum()), table[:, ~always & ~never]
        if (self._table == self._table[:1]).all():
            self._table = self._table[:1]
        self.parallel = self._worth(True) <= self._worth(False)
        super().__init__({"i": In(lanes_stream(shape_of(*in_range), lanes)), "o": Out(lanes_stream(self.out_shape, lanes))})

    @property
    def _shape(self) -> Shape:
        return Shape(*width_of(self.in_range[0], self.in_range[1] + 1))

    def _levels(self, parallel: bool, lane: int = 0) -> list[_Table]:
        """Return the tables of a lane, one after the other."""
        rows = self._table[lane::self.lanes] if len(self._table) > 1 else self._table
        count = rows.shape[1]
        if parallel:
            return [_Table(rows[:, None, :], self._shape.width)] if count else []
        bits = count.bit_length()
        full = np.full((len(rows), (1 << bits) - 1), self.in_range[1] + 1)
        full[:, :count] = rows
        # With the upper bits known, the next one is whether the value reaches the middle of what they leave.
        return [_Table(full[:, (1 << bits - level - 1) - 1::1 << bits - level, None], self._shape.width) for level in range(bits)]

    def _worth(self, parallel: bool) -> float:
        """Return the logic cells of one lane, with what its blocks are worth."""
        cost = self._lane_cost(parallel)
        return cost.lc + _BLOCK_WORTH * cost.ebr

    def _lane_cost(self, parallel: bool) -> Cost:
        levels, width = self._levels(parallel), self._shape.width
        total = Cost(lc=2 + self.out_shape.width)
        for k, table in enumerate(levels):
            holds = (table.depth > 1) + (k < len(levels) - 1)
            compare = width + 1 if table.depth > 1 else 0.8 * width + 1         # the low zeros of a constant cost nothing
            total += Cost(lc=table.words.shape[2] * compare + holds * (width + 2)) + table.cost(self.technology)
        return total + Cost(lc=self._table.shape[1] // 2 if parallel else 0)

    @property
    def latency(self) -> int:
        """Cycles from a beat in to its beat out."""
        return sum(1 + (table.depth > 1) for table in self._levels(self.parallel)) + 1

    @property
    def handshake(self) -> tuple[Part, ...]:
        """See `Block.handshake`."""
        return (Pipe(self.latency),)

    @property
    def cost(self) -> Cost:
        """Logic cells, blocks of large tables."""
        each = self._lane_cost(self.parallel)
        count = 10 + 2 * self.channels.bit_length() if len(self._table) > 1 else 3
        return Cost(lc=count + self.lanes * each.lc, ebr=self.lanes * each.ebr)

    def model(self, x: np.ndarray) -> np.ndarray:
        """Return accumulators (n, channels) as codes (n, channels); ``n`` counts pixels, whatever `order`."""
        return self.lo + (np.asarray(x, np.int64)[..., None] >= self.thresholds).sum(axis=-1)

    def elaborate(self, platform):
        m = Module()
        en, valid = Signal(), Signal(self.latency)
        m.d.comb += [en.eq(~self.o.valid | self.o.ready), self.i.ready.eq(en), self.o.valid.eq(valid[-1])]
        with m.If(en):
            m.d.sync += valid.eq((valid << 1) | self.i.valid)
        channel = Const(0, 0)
        if len(self._table) > 1:
            groups, repeat, beats = self.order
            m.submodules.loops = loops = Sweep([groups, repeat, beats], [beats, 0, 1],
                                               addr_width=max(1, (groups * beats - 1).bit_length()))
            m.d.comb += loops.en.eq(self.i.valid & en)
            channel = loops.addr
        for lane in range(self.lanes):
            self._search(m, en, lane, channel)
        return m

    def _search(self, m: Module, en: Signal, lane: int, channel) -> None:
        def held(value, name):
            if isinstance(value, Const):
                return value
            later = Signal(value.shape(), name=f"{name}{lane}", reset_less=True)
            with m.If(en):
                m.d.sync += later.eq(value)
            return later

        value, found = self.i.payload[lane], Const(0, 0)     # the bits found so far, the last in the lowest place
        for level, table in enumerate(self._levels(self.parallel, lane)):
            name = f"level{level}_"
            if table.depth > 1:
                words = [pack_lanes(word, table.width) for row in table.words for word in row]
                read = make_rom(m, f"{name}rom{lane}", words, table.bits, block=table.in_block(self.technology))
                m.d.comb += [read.addr.eq(Cat(found, channel)), read.en.eq(en)]
                value, channel, found = held(value, f"{name}value"), held(channel, f"{name}channel"), held(found, f"{name}found")
                data = [read.data[k * table.width:(k + 1) * table.width] for k in range(table.words.shape[2])]
                limits = [part.as_signed() if self._shape.signed else part for part in data]
            else:
                limits = [Const(int(v), self._shape) for v in table.words.flat]
            bits = Cat(value >= limit for limit in limits)
            found = held(Cat(bits, found), f"{name}bits")
            value, channel = held(value, f"{name}old"), held(channel, f"{name}turn")
        count = Cat(_count(list(found))) if self.parallel else found
        with m.If(en):
            m.d.sync += self.o.payload[lane].eq(count + self._base)


def _count(bits: list) -> list:
    """Return how many of the bits are set, lowest place first; those that are come first."""
    if not bits:
        return []
    bits = bits + [Const(0, 1)] * ((1 << len(bits).bit_length()) - 1 - len(bits))
    middle = len(bits) // 2
    return [*_count([Mux(bits[middle], above, below) for above, below in zip(bits[middle + 1:], bits[:middle], strict=True)]),
            bits[middle]]
