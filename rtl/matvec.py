"""Matrix-vector product, folded: ``pe`` sums of ``simd`` products a cycle, weights from a ROM of exactly their width."""

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out

from hwq.arith import width_of
from hwq.formats import FixedPoint, Format

from .common import Block, Cost, Technology, check, check_int, lanes_layout, pack_lanes, shape_of
from .handshake import Part, Pipe
from .lanes import Term, recode, register_sum, sum_cells
from .loops import Sweep
from .memory import make_rom
from .product_pair import ProductPair
from .ring import window_layout

__all__ = ["MatVec", "STYLES", "rom_width", "rom_depth", "shared_layout"]

# lut: digits in look-up tables (`hwq.rtl.lanes`); dsp: products for multiplier blocks, two a block where they can be.
STYLES = ("lut", "dsp")


def rom_width(pe: int, simd: int, width: int) -> int:
    """Return the bits of a ROM word."""
    return pe * simd * width


def rom_depth(outputs: int, pe: int, words: int) -> int:
    """Return the words of the ROM."""
    return outputs // pe * words


def shared_layout(shape: Shape, pe: int, share: int) -> data.StructLayout:
    """Return the payload of ``pe`` sums of which a number of ``share`` bits is still to be added to each."""
    return data.StructLayout({"sums": lanes_layout(shape, pe), "share": share})


def _levels(count: int) -> int:
    return (count - 1).bit_length()


def _paired(x_width: int, w_width: int, technology: Technology) -> bool:
    """Return whether two products of such factors share a multiplier block."""
    return technology.dsp_pairs and max(x_width, w_width) <= ProductPair.WIDEST


class MatVec(Block):
    """Sum of products of each window with the weights of ``pe`` outputs at a time, without bias.

    The sum of output ``k`` is too large by the constant ``too_much[k]`` (0 in style ``dsp``), which whatever comes next
    takes off together with its own constants.

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
    parts : int
        Groups of channels side by side in a word; each has its own ``pe / parts`` outputs (depthwise convolution).
    repeat : int
        Windows sent one after another for each group (pooled order).
    block_rom : bool
        Put the ROM into block RAM.
    logic_bits : int
        Bits of each word of a ROM in block RAM that lie in logic all the same, where blocks are short.
    style : str
        One of `STYLES`; ``dsp`` for fixed point only.
    late : bool
        Leave what each sum gets of the codes' sum for later, where few lanes add it (`hwq.rtl.serializer.SharedSerializer`), if the
        style needs it and there are no parts: see ``shares``.
    technology : Technology

    Members
    -------
    i : stream of `window_layout` words of ``parts * simd`` codes, each window sent for group 0, 1, ...
    o : stream of ``pe`` sums of exactly the width that the range analysis gives; if ``shares``, of `shared_layout`

    One word a cycle. Latency: `latency` cycles from a window's last word to its sums.
    """

    def __init__(self, weight: np.ndarray, weight_format: Format, x_range: tuple[int, int], *, pe: int, parts: int = 1,
                 repeat: int = 1,
                 block_rom: bool = True, logic_bits: int = 0, style: str = "lut", late: bool = False, technology: Technology):
        check(weight.ndim == 3 and weight.size > 0, f"Weights must have the axes (outputs, words, simd), not {weight.shape}")
        weight_format.check(weight)
        self.outputs, self.words, self.simd = weight.shape
        check_int("Pe", pe)
        check_int("Repeat", repeat)
        check_int("Parts", parts)
        check(pe % parts == 0, f"Parts must divide pe = {pe}, not {parts!r}")
        check(self.outputs % pe == 0, f"Pe must divide the {self.outputs} outputs, not {pe!r}")
        check(x_range[0] <= x_range[1], f"Code range must not be empty, not {x_range!r}")
        check(style in STYLES, f"Style must be one of {', '.join(STYLES)}, not {style!r}")
        check(style != "dsp" or isinstance(weight_format, FixedPoint) and weight_format.signed,
              f"Style dsp multiplies signed fixed-point weights, not {weight_format.text}")
        self.weight, self.weight_format, self.x_range = weight, weight_format, x_range
        self.pe, self.parts, self.repeat = pe, parts, repeat
        self.block_rom, self.style, self.technology = block_rom, style, technology
        self.groups = self.outputs // pe
        width = rom_width(pe, self.simd, weight_format.width)
        check_int("Logic bits", logic_bits, 0)
        check(logic_bits < width if block_rom else logic_bits == 0,
              f"Logic bits must be less than the {width} of a word, and 0 without block RAM, not {logic_bits!r}")
        self.logic_bits = logic_bits if block_rom else width
        self.x_shape = shape_of(*x_range)
        self._recoded = recode(weight, weight_format, self.x_shape.width)
        # Signed codes count from their least value on.
        self._x_offset = 1 << self.x_shape.width - 1 if self.x_shape.signed else 0
        self.too_much = np.zeros(self.outputs, np.int64)
        if style == "lut":
            self.too_much = (self._recoded.too_much + self._x_offset * weight).sum(axis=(1, 2))
        self.ranges = self._ranges(weight, x_range, self.too_much)
        # Zero is part of the range: a partial sum may stand at it.
        self.acc_range = (min(0, int(self.ranges.min())), max(0, int(self.ranges.max())))
        self.acc_shape = shape_of(*self.acc_range)
        self.shares, kept = late and style == "lut" and parts == 1 and self._recoded.x_sum > 0, self.ranges
        self.share_most = 0
        if self.shares:
            codes = x_range[0] + self._x_offset, x_range[1] + self._x_offset
            kept = self._ranges(weight - self._recoded.x_sum, codes, self._recoded.too_much.sum(axis=(1, 2)))
            self.share_most = self._recoded.x_sum * self.words * self.simd * codes[1]
        self.sum_shape = shape_of(min(0, int(kept.min())), max(0, int(kept.max())))
        payload = (shared_layout(self.sum_shape, pe, self.share_most.bit_length()) if self.shares
                   else lanes_layout(self.sum_shape, pe))
        super().__init__({"i": In(stream.Signature(window_layout(self.x_shape, parts * self.simd))),
                          "o": Out(stream.Signature(payload))})

    @staticmethod
    def _ranges(weight: np.ndarray, x_range: tuple[int, int], more: np.ndarray) -> np.ndarray:
        """Return the inclusive range of each output's sum, with a constant of the output more."""
        ends = weight * x_range[0], weight * x_range[1]
        return np.stack([np.minimum(*ends).sum(axis=(1, 2)), np.maximum(*ends).sum(axis=(1, 2))], axis=1) + more[:, None]

    @property
    def _stages(self) -> int:
        """Registers from the codes to the sum of a word's products."""
        if self.style == "dsp":
            return (ProductPair.latency if self.pairs else 1) + _levels(self.simd)
        return (self._recoded.stages + _levels(self.simd) + _levels(len(self._recoded.leaves))
                + (self._recoded.x_sum != 0 and not self.shares))

    @property
    def latency(self) -> int:
        """Cycles from a window's last word to its sums."""
        return 1 + self._stages

    @property
    def cycles_per_window(self) -> int:
        """Cycles that one window of one group takes."""
        return self.words

    @property
    def rom(self) -> tuple[int, int]:
        """Words and bits of the weight ROM."""
        return rom_depth(self.outputs, self.pe, self.words), rom_width(self.pe, self.simd, self.weight_format.width)

    @property
    def rom_blocks(self) -> int:
        """Block RAMs of the ROM."""
        depth, width = self.rom
        return self.technology.blocks(width - self.logic_bits, depth)

    @staticmethod
    def dsps(products: int, x_width: int, w_width: int, technology: Technology) -> int:
        """Return the multiplier blocks that so many products take in style ``dsp``, 0 if synthesis makes them of logic."""
        if _paired(x_width, w_width, technology):
            return -(-products // 2)
        least = technology.dsp_min_width
        return products if least and x_width + w_width >= least else 0

    @property
    def pairs(self) -> bool:
        """Whether products share multiplier blocks."""
        return self.style == "dsp" and _paired(self.x_shape.width, self.weight_format.width, self.technology)

    @property
    def uses_dsp(self) -> bool:
        """Whether the products are made in multiplier blocks."""
        return self.style == "dsp" and self.dsps(1, self.x_shape.width, self.weight_format.width, self.technology) > 0

    @property
    def handshake(self) -> tuple[Part, ...]:
        """See `Block.handshake`."""
        return (Pipe(self.latency, marked=True),)

    @property
    def cost(self) -> Cost:
        """Logic cells of lanes, tree and accumulators; blocks of the ROM; multipliers."""
        depth, lanes = self.rom[0], self.pe * self.simd
        x, w, acc = self.x_shape.width, self.weight_format.width, self.sum_shape.width
        rom_lc = self.logic_bits * self.technology.rom_cells(depth)
        if self.style == "dsp":
            product = 0 if self.uses_dsp else (x + 2) * w * 1.35
            adders = self.pe * (self.simd - 1) * (x + w + _levels(self.simd) / 2)
            return Cost(lc=25 + rom_lc + x * self.simd * self.parts + lanes * product + adders + self.pe * acc,
                        ebr=self.rom_blocks, dsp=self.dsps(lanes, x, w, self.technology))
        recoded, each, terms = self._recoded, 0.0, []
        for leaf in recoded.leaves:
            cells, term = sum_cells([((1 << x + leaf.reach) - 1, 0)] * self.simd)
            each += self.simd * leaf.cells(x) + cells
            terms.append((term[0], leaf.place))
        cells, total = sum_cells(terms)
        each += cells + acc
        shared = 0.0
        if recoded.x_sum:
            cells, share = sum_cells([((1 << x) - 1, 0)] * self.simd)
            share = share[0] * recoded.x_sum, 0
            shared = self.parts * (cells + share[0].bit_length() * self._wait) + self.share_most.bit_length()
            each += 0 if self.shares else sum_cells([total, share])[0]
        control = 14 + 2 * self._stages + 1.3 * depth.bit_length()
        return Cost(lc=control + rom_lc + self.pe * each + shared, ebr=self.rom_blocks)

    def model(self, x: np.ndarray) -> np.ndarray:
        """Return words (n, parts * simd) in `i`'s order as sums (windows, pe) in `o`'s order, ``too_much`` included.

        If ``shares``: (windows, pe + 1), the share last.
        """
        windows = x.reshape(-1, self.words, self.parts, self.simd).astype(np.int64)
        group = np.arange(len(windows)) // self.repeat % self.groups
        weight = self.weight.reshape(self.groups, self.parts, self.pe // self.parts, self.words, self.simd)[group]
        sums = (
            np.einsum("ngpws,nwgs->ngp", weight, windows).reshape(-1, self.pe) + self.too_much.reshape(self.groups, self.pe)[group]
        )
        if not self.shares:
            return sums
        share = self._recoded.x_sum * (windows + self._x_offset).sum(axis=(1, 2, 3))[:, None]
        return np.concatenate([sums - share, share], axis=1)

    def rom_words(self) -> list[int]:
        """Return the ROM's contents: weight of pe 0, simd 0 in the low bits."""
        codes = self.weight_format.encode(self.weight) if self.style == "dsp" else self._recoded.codes
        codes = codes.reshape(self.groups, self.pe, self.words, self.simd)
        return [pack_lanes(codes[g, :, t].ravel(), self.weight_format.width)
                for g in range(self.groups) for t in range(self.words)]

    def elaborate(self, platform):
        m = Module()
        depth, width = self.rom
        en, accept = Signal(), Signal()
        in_blocks, words = width - self.logic_bits, self.rom_words()
        roms = [make_rom(m, name, [word >> low & (1 << bits) - 1 for word in words], bits, block=block)
                for name, low, bits, block in (("rom", 0, in_blocks, True), ("rom_logic", in_blocks, self.logic_bits, False))
                if bits]
        m.submodules.loops = loops = Sweep([self.groups, self.repeat, self.words], [self.words, 0, 1],
                                           addr_width=max(1, (depth - 1).bit_length()))
        # The ROM reads one word ahead, so that a word's weights are there when its codes come.
        ahead = Signal()
        m.d.sync += ahead.eq(1)
        m.d.comb += [en.eq(~self.o.valid | self.o.ready), self.i.ready.eq(en & ahead), accept.eq(self.i.valid & self.i.ready),
                     loops.en.eq(accept | ~ahead)]
        for rom in roms:
            m.d.comb += [rom.addr.eq(loops.addr), rom.en.eq(loops.en)]

        stages = self._stages
        valid, last = Signal(stages), Signal(stages)
        with m.If(en):
            m.d.sync += [valid.eq((valid << 1) | accept), last.eq((last << 1) | self.i.p.last)]
        first = Signal(init=1)                           # the accumulator starts anew with the next sum
        with m.If(en & valid[-1]):
            m.d.sync += first.eq(last[-1])
        with m.If(en):
            m.d.sync += self.o.valid.eq(valid[-1] & last[-1])
        sums = (self._by_products if self.style == "dsp" else self._by_digits)(m, en, Cat(rom.data for rom in roms))
        lanes = self.o.p.sums if self.shares else self.o.payload
        accs = [*(lanes[p] for p in range(self.pe)), *([self.o.p.share] if self.shares else [])]
        for acc, total in zip(accs, sums, strict=True):
            with m.If(en & valid[-1]):
                # The multiplexer after the adder shares its cells, before it would not.
                m.d.sync += acc.eq(Mux(first, total, acc + total) if self.words > 1 else total)
        return m

    def _code(self, data, p: int, s: int):
        width = self.weight_format.width
        return data[(p * self.simd + s) * width:][:width]

    def _part(self, p: int) -> int:
        """Return the part of a word that output ``p`` of ``pe`` multiplies."""
        return p * self.parts // self.pe

    @property
    def _wait(self) -> int:
        """Registers from the sum of a word's codes to where its share is added."""
        return self._stages - _levels(self.simd) - (not self.shares)

    def _by_digits(self, m: Module, en, data) -> list:
        """Return the sums of each word's products: a tree for each digit, their sum, ``x_sum``'s share or that beside them."""
        recoded, w = self._recoded, self.x_shape.width
        x = [Signal(w, name=f"x{s}") for s in range(self.parts * self.simd)]
        for s in range(len(x)):
            raw = self.i.p.x[s].as_unsigned() if self.x_shape.signed else self.i.p.x[s]
            m.d.comb += x[s].eq(raw ^ self._x_offset)
        shared = []
        for part in range(self.parts if recoded.x_sum else 0):
            label = f"_{part}" if self.parts > 1 else ""
            total = register_sum(m, en, [Term(v, (1 << w) - 1) for v in x[part * self.simd:][:self.simd]], f"x_sum{label}")
            value, most = total.value, total.most
            for step in range(self._wait):
                if step == 0:                            # shifts: a product would go to a multiplier block
                    value = sum((value << k for k in range(recoded.x_sum.bit_length()) if recoded.x_sum >> k & 1), Const(0, 1))
                    most *= recoded.x_sum
                later = Signal(most.bit_length(), name=f"x_share{step}{label}", reset_less=True)
                with m.If(en):
                    m.d.sync += later.eq(value)
                value = later
            shared.append(Term(value, most))
        sums = []
        for p in range(self.pe):
            part, terms = self._part(p), []
            for leaf in recoded.leaves:
                products = []
                for s in range(self.simd):
                    code = self._code(data, p, s)[leaf.low:leaf.low + leaf.width]
                    products.append(Term(*leaf.build(m, en, x[part * self.simd + s], code, f"digit{p}_{s}_{leaf.place}")))
                tree = register_sum(m, en, products, f"tree{p}_{leaf.place}")
                terms.append(Term(tree.value, tree.most, leaf.place))
            total = register_sum(m, en, terms, f"join{p}")
            if shared and not self.shares:
                total = register_sum(m, en, [total, shared[part]], f"sum{p}")
            sums.append(total.value)
        return sums + [share.value for share in shared if self.shares]

    def _by_products(self, m: Module, en, data) -> list:
        """Return the sums of each word's products, multiplied in multiplier blocks or as synthesis likes."""
        result = []
        for p, sums in enumerate(self._products(m, en, data)):
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
            result.append(sums[0])
        return result

    def _products(self, m: Module, en, data) -> list[list]:
        """Return the registered products of a word: for each of ``pe`` outputs, those of ``simd`` codes."""
        lanes = [(p, s) for p in range(self.pe) for s in range(self.simd)]
        factors = [(self.i.p.x[self._part(p) * self.simd + s], self._code(data, p, s).as_signed()) for p, s in lanes]
        if self.pairs:
            products = []
            for k in range(0, len(lanes), 2):
                m.submodules[f"products{k // 2}"] = pair = ProductPair(self.x_shape, Shape(self.weight_format.width, True))
                m.d.comb += pair.en.eq(en)
                for lane, (x, weight) in enumerate(factors[k:k + 2]):
                    m.d.comb += [pair.a[lane].eq(x), pair.b[lane].eq(weight)]
                    products.append(pair.p[lane][:self._product_shape.width].as_signed())
        else:
            products = [Signal(self._product_shape, name=f"product{p}_{s}", reset_less=True) for p, s in lanes]
            with m.If(en):
                m.d.sync += [product.eq(x * weight) for product, (x, weight) in zip(products, factors, strict=True)]
        return [products[p * self.simd:][:self.simd] for p in range(self.pe)]

    @property
    def _product_shape(self) -> Shape:
        """Shape that holds every product; signed, as weights are."""
        ends = [a * b for a in self.x_range for b in self.weight_format.range]
        return Shape(*width_of(min(0, *ends), max(0, *ends)))
