"""Matrix-vector product, folded: ``pe`` sums of ``simd`` products a cycle, weights from a ROM of exactly their width."""

import numpy as np
from amaranth.hdl import Const, Module, Mux, Shape, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out

from hwq.arith import width_of
from hwq.formats import Format, PowerOfTwo

from .common import Block, Cost, Technology, check, check_int, lanes_stream, pack_lanes, shape_of
from .loops import LoopNest
from .memory import make_rom
from .window import window_layout

__all__ = ["MatVec", "rom_width", "rom_depth"]


def rom_width(pe: int, simd: int, width: int) -> int:
    """Return the bits of a ROM word."""
    return pe * simd * width


def rom_depth(outputs: int, pe: int, words: int) -> int:
    """Return the words of the ROM."""
    return outputs // pe * words


class MatVec(Block):
    """Sum of products of each window with the weights of ``pe`` outputs at a time; true sums, without bias.

    Every adder is followed by a register: the register is free (it sits in the adder's cell), and synthesis then
    keeps one carry chain an adder.

    Parameters
    ----------
    weight : int array (outputs, words, simd)
        Integer values in the order in which the window source sends its words.
    weight_format : Format
        Format of one ROM entry; the ROM is ``pe * simd * width`` bits wide.
    x_range : (int, int)
        Inclusive range of the codes.
    pe : int
        Outputs computed side by side; divides the outputs.
    repeat : int
        Windows sent one after another for each group (pooled order).
    block_rom : bool
        Put the ROM into block RAM.
    dsp : bool
        Multiply in multiplier blocks, where the family has them and the product is wide enough to be mapped there.
    technology : Technology

    Members
    -------
    i : stream of `window_layout` words, each window sent for group 0, 1, ...
    o : stream of ``pe`` sums of exactly the width that the range analysis gives

    One word a cycle. Latency: `latency` cycles from a window's last word to its sums.
    """

    def __init__(self, weight: np.ndarray, weight_format: Format, x_range: tuple[int, int], *, pe: int, repeat: int = 1,
                 block_rom: bool = True, dsp: bool = True, technology: Technology):
        check(weight.ndim == 3 and weight.size > 0, f"Weights must have the axes (outputs, words, simd), not {weight.shape}")
        weight_format.check(weight)
        self.outputs, self.words, self.simd = weight.shape
        check_int("Pe", pe)
        check_int("Repeat", repeat)
        check(self.outputs % pe == 0, f"Pe must divide the {self.outputs} outputs, not {pe!r}")
        check(x_range[0] <= x_range[1], f"Code range must not be empty, not {x_range!r}")
        self.weight, self.weight_format, self.x_range = weight, weight_format, x_range
        self.pe, self.repeat, self.block_rom, self.dsp, self.technology = pe, repeat, block_rom, dsp, technology
        self.groups = self.outputs // pe
        self.x_shape = shape_of(*x_range)
        # Zero is part of the range: a partial sum may stand at it.
        ends = np.minimum(weight * x_range[0], weight * x_range[1]), np.maximum(weight * x_range[0], weight * x_range[1])
        self.acc_range = (min(0, int(ends[0].sum(axis=(1, 2)).min())), max(0, int(ends[1].sum(axis=(1, 2)).max())))
        self.acc_shape = shape_of(*self.acc_range)
        self._levels = (self.simd - 1).bit_length()
        super().__init__({"i": In(stream.Signature(window_layout(self.x_shape, self.simd))),
                          "o": Out(lanes_stream(self.acc_shape, pe))})

    @property
    def latency(self) -> int:
        """Cycles from a window's last word to its sums."""
        return 3 + self._levels

    @property
    def cycles_per_window(self) -> int:
        """Cycles that one window of one group takes."""
        return self.words

    @property
    def rom(self) -> tuple[int, int]:
        """Words and bits of the weight ROM."""
        return rom_depth(self.outputs, self.pe, self.words), rom_width(self.pe, self.simd, self.weight_format.width)

    @property
    def uses_dsp(self) -> bool:
        """Whether synthesis maps the products onto multiplier blocks."""
        least = self.technology.dsp_min_width
        return (self.dsp and bool(least) and not isinstance(self.weight_format, PowerOfTwo)
                and self.x_shape.width + self.weight_format.width >= least)

    @property
    def cost(self) -> Cost:
        """Logic cells of lanes, tree and accumulators; blocks of the ROM; multipliers."""
        depth, width = self.rom
        lanes = self.pe * self.simd
        x, w, acc = self.x_shape.width, self.weight_format.width, self.acc_shape.width
        rom_lc = 0 if self.block_rom else width * max(1, depth / 16)
        product = 0 if self.uses_dsp else (x + 2) * w * 1.35
        tree = self.pe * (self.simd - 1) * (x + w + self._levels / 2)
        return Cost(lc=25 + rom_lc + x * self.simd + lanes * product + tree + self.pe * acc,
                    ebr=self.technology.blocks(width, depth) if self.block_rom else 0, dsp=lanes * self.uses_dsp)

    def model(self, x: np.ndarray) -> np.ndarray:
        """Return words (n, simd) in `i`'s order as sums (windows, pe) in `o`'s order."""
        windows = x.reshape(-1, self.words * self.simd).astype(np.int64)
        group = np.arange(len(windows)) // self.repeat % self.groups
        flat = self.weight.reshape(self.groups, self.pe, -1)[group]
        return np.einsum("npk,nk->np", flat, windows)

    def rom_words(self) -> list[int]:
        """Return the ROM's contents: weight of pe 0, simd 0 in the low bits."""
        codes = self.weight_format.encode(self.weight).reshape(self.groups, self.pe, self.words, self.simd)
        return [pack_lanes(codes[g, :, t].ravel(), self.weight_format.width)
                for g in range(self.groups) for t in range(self.words)]

    def _product(self, m: Module, x, code):
        """Return the expression of one product, a value in two's complement."""
        if isinstance(self.weight_format, PowerOfTwo):
            width = self.weight_format.width
            exponent, negative = code[:width - 1], code[width - 1]
            shifted = Mux(exponent == 0, 0, (x << exponent) >> 1)
            return Mux(negative, -shifted, shifted)
        if self.weight_format.width == 1:                # bipolar
            return Mux(code[0], x, -x)
        if self.technology.dsp_min_width and not self.dsp:
            # Rows of a long multiplication: a product sign would be mapped onto a multiplier block.
            rows = [Mux(code[k], x << k, 0) for k in range(self.weight_format.width)]
            return sum(rows[:-1], Const(0)) - rows[-1]
        return x * code.as_signed()

    def elaborate(self, platform):
        m = Module()
        depth, width = self.rom
        en, accept = Signal(), Signal()
        read = make_rom(m, "rom", self.rom_words(), width, block=self.block_rom)
        m.submodules.loops = loops = LoopNest([self.groups, self.repeat, self.words], [self.words, 0, 1],
                                              addr_width=max(1, (depth - 1).bit_length()))
        m.d.comb += [en.eq(~self.o.valid | self.o.ready), self.i.ready.eq(en), accept.eq(self.i.valid & en),
                     loops.en.eq(accept), read.addr.eq(loops.addr), read.en.eq(accept)]

        x = [Signal(self.x_shape, name=f"x{s}", reset_less=True) for s in range(self.simd)]
        stages = 2 + self._levels                        # codes, products, tree levels
        valid, last = Signal(stages), Signal(stages)
        with m.If(en):
            m.d.sync += [valid.eq((valid << 1) | self.i.valid), last.eq((last << 1) | self.i.p.last)]
            m.d.sync += [x[s].eq(self.i.p.x[s]) for s in range(self.simd)]

        low, high = self.weight_format.range
        ends = [a * b for a in self.x_range for b in (low, high)]
        product_shape = Shape(*width_of(min(0, *ends), max(0, *ends)))
        w_width = self.weight_format.width
        first = Signal(init=1)                           # the accumulator starts anew with the next tree sum
        with m.If(en & valid[-1]):
            m.d.sync += first.eq(last[-1])
        with m.If(en):
            m.d.sync += self.o.valid.eq(valid[-1] & last[-1])
        for p in range(self.pe):
            sums = []
            for s in range(self.simd):
                index = (p * self.simd + s) * w_width
                product = Signal(product_shape, name=f"product{p}_{s}", reset_less=True)
                with m.If(en):
                    m.d.sync += product.eq(self._product(m, x[s], read.data[index:index + w_width]))
                sums.append(product)
            level = 0
            while len(sums) > 1:
                pairs = []
                for k in range(0, len(sums), 2):
                    total = sums[k] + sums[k + 1] if k + 1 < len(sums) else sums[k]
                    node = Signal(total.shape(), name=f"tree{p}_{level}_{k // 2}", reset_less=True)
                    with m.If(en):
                        m.d.sync += node.eq(total)
                    pairs.append(node)
                sums, level = pairs, level + 1
            acc = self.o.payload[p]
            with m.If(en & valid[-1]):
                m.d.sync += acc.eq(Mux(first, 0, acc) + sums[0] if self.words > 1 else sums[0])
        return m
