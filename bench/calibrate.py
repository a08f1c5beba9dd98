"""Compare the blocks' cost rows with Yosys and nextpnr on a set of stages: ``python -m bench.calibrate [--json FILE]``.

The stages' set has two halves. The first is what the rows' constants are fitted to; the second is for the error that is reported.
"""

import argparse
import json
import statistics
from functools import partial
from pathlib import Path

import numpy as np

from hwq.formats import FixedPoint, Format, PowerOfTwo
from hwq.rtl.accelerator import Chain
from hwq.rtl.common import ICE40UP
from hwq.rtl.pooling import PoolStage
from hwq.rtl.ranking import TopK
from hwq.rtl.requantizer import Requantizer
from hwq.rtl.reshape import PadStage, SelectStage, UpsampleStage
from hwq.rtl.stage import ConvStage, Folding, Requant
from hwq.rtl.thresholds import Thresholder

from .measure import measure

__all__ = ["stage", "FITTED", "CHECKED", "OPERATORS"]


def stage(fmt: Format, pe: int, simd: int, *, outputs: int, channels: int, kernel: int = 3, size: int = 12, pool: int = 1,
          pads: int = 0, x_high: int = 15, source: str = "memory", block_rom: bool = True, style: str = "lut",
          scaled: bool = False, seed: int = 0) -> ConvStage:
    """Return a stage with random weights and one requantizer lane."""
    rng = np.random.default_rng(seed)
    weight = fmt.decode(rng.integers(0, 1 << fmt.width, (outputs, kernel, kernel, channels)))
    mult = rng.integers(20, 40, outputs) if scaled else np.ones(1, np.int64)
    requant = Requant(mult, rng.integers(-50, 50, outputs), np.zeros(0, np.int64), 9 if scaled else 5, 0, 15)
    return ConvStage(weight, fmt, (0, x_high), height=size, width=size, pads=(pads,) * 4, requant=requant, pool=(pool, pool),
                     in_lanes=1, technology=ICE40UP,
                     fold=Folding(pe, simd, source, 1, block_rom, style))


_D = {b: FixedPoint(b, 0) for b in (2, 3, 4, 5, 8)}
FITTED = {
    "4 bit 1x1": dict(fmt=_D[4], pe=1, simd=1, outputs=16, channels=16),
    "4 bit 4x4": dict(fmt=_D[4], pe=4, simd=4, outputs=16, channels=16),
    "3 bit 2x4 padded, pooled": dict(fmt=_D[3], pe=2, simd=4, outputs=16, channels=8, pads=1, pool=2),
    "2 bit 8x2, ROM in logic": dict(fmt=_D[2], pe=8, simd=2, outputs=32, channels=8, block_rom=False),
    "po2 3 bit 2x4": dict(fmt=PowerOfTwo(3, 0), pe=2, simd=4, outputs=16, channels=8),
    "po2 4 bit 2x2": dict(fmt=PowerOfTwo(4, 0), pe=2, simd=2, outputs=8, channels=8),
    "shift window 4 bit": dict(fmt=_D[4], pe=1, simd=9, outputs=8, channels=1, source="shift", block_rom=False, pads=1),
    "8 bit dsp 4x1 pooled": dict(fmt=_D[8], pe=4, simd=1, outputs=8, channels=1, x_high=255, style="dsp", pads=1, pool=2,
                                 block_rom=False, scaled=True),
}
CHECKED = {
    "4 bit 2x8": dict(fmt=_D[4], pe=2, simd=8, outputs=16, channels=16, size=10),
    "4 bit 8x4 pooled": dict(fmt=_D[4], pe=8, simd=4, outputs=32, channels=8, pool=2, pads=1),
    "4 bit 2x2 linear": dict(fmt=_D[4], pe=2, simd=2, outputs=10, channels=64, kernel=1, size=1),
    "4 bit 3x1, ROM in logic": dict(fmt=_D[4], pe=3, simd=1, outputs=6, channels=4, block_rom=False),
    "3 bit 4x4": dict(fmt=_D[3], pe=4, simd=4, outputs=16, channels=16),
    "3 bit 1x8": dict(fmt=_D[3], pe=1, simd=8, outputs=12, channels=16, pads=1),
    "2 bit 4x8": dict(fmt=_D[2], pe=4, simd=8, outputs=32, channels=32, size=7),
    "2 bit 1x4 pooled": dict(fmt=_D[2], pe=1, simd=4, outputs=8, channels=8, pool=2),
    "5 bit 2x4": dict(fmt=_D[5], pe=2, simd=4, outputs=8, channels=8),
    "8 bit 2x2": dict(fmt=_D[8], pe=2, simd=2, outputs=8, channels=4, x_high=255),
    "po2 3 bit 4x4": dict(fmt=PowerOfTwo(3, 0), pe=4, simd=4, outputs=16, channels=8, pads=1),
    "po2 4 bit 1x4": dict(fmt=PowerOfTwo(4, 0), pe=1, simd=4, outputs=8, channels=8),
    "1x1 kernel, 4 bit 4x4, scaled": dict(fmt=_D[4], pe=4, simd=4, outputs=16, channels=16, kernel=1, scaled=True),
    "wired 3x3, 8 bits in": dict(fmt=_D[4], pe=8, simd=9, outputs=8, channels=1, source="shift", style="wired", x_high=255,
                                 block_rom=False),
    "wired linear": dict(fmt=_D[3], pe=10, simd=24, outputs=10, channels=24, kernel=1, size=1, source="shift", style="wired",
                         block_rom=False),
    "8 bit dsp 8x1 pooled": dict(fmt=_D[8], pe=8, simd=1, outputs=8, channels=1, x_high=255, style="dsp", pads=1, pool=2,
                                 block_rom=False, size=14),
    "4 bit dsp 4x4": dict(fmt=_D[4], pe=4, simd=4, outputs=16, channels=16, style="dsp"),
    "4 bit 3x4 of 16": dict(fmt=_D[4], pe=3, simd=4, outputs=16, channels=8, pool=2, pads=1),
    "shift window 2 bit": dict(fmt=_D[2], pe=2, simd=9, outputs=8, channels=1, source="shift", pads=1, x_high=255,
                               block_rom=False),
}


def _thresholds(count: int, rows: int, reach: int) -> Chain:
    table = np.sort(np.random.default_rng(0).integers(-reach, reach, (rows, count)), axis=1)
    return Chain([("t", Thresholder((-reach, reach), thresholds=table, lo=0, channels=max(rows, 16), technology=ICE40UP))])


def _requantizer(width: int, bits: int) -> Chain:
    return Chain([("r", Requantizer((-3_000_000, 2_999_999), mult=np.array([400_001 if width else 1]), offset=np.array([1 << 20]),
                                    shift=21, lo=-128, hi=127, channels=8, bits=bits, technology=ICE40UP))])


_IMAGE = dict(lanes=1, height=12, width=12, channels=8, technology=ICE40UP)
# Operators without weights; the rows' constants were set with these at hand.
OPERATORS = {
    **{f"{n} thresholds of {rows} rows, {reach.bit_length() + 1} bits": partial(_thresholds, n, rows, reach)
       for reach in (200, 50_000)
       for n, rows in ((1, 1), (3, 1), (15, 1), (63, 1), (255, 1), (3, 16), (15, 16), (15, 64), (255, 16))},
    "max 3x3, stride 2, border": lambda: PoolStage("max", (0, 15), kernel=(3, 3), stride=(2, 2), pads=(1, 1, 1, 1), **_IMAGE),
    "sum 3x3": lambda: PoolStage("sum", (0, 255), kernel=(3, 3), stride=(1, 1), **_IMAGE),
    "enlarged 2x2": lambda: UpsampleStage((0, 15), factor=(2, 2), **_IMAGE),
    **{f"channels {name} of {channels}": partial(
        lambda channels, chosen: SelectStage((0, 15), pixels=144, channels=channels, chosen=chosen), channels, np.array(chosen))
       for name, channels, chosen in (("half", 8, range(4)), ("half", 116, range(58, 116)), ("every other", 116, range(0, 116, 2)),
                                      ("some", 24, [0, 1, 2, 6, 7, 8, 12, 13]))},
    **{f"crop {name}": partial(
        lambda shape, pads: PadStage((0, 15), height=shape[0], width=shape[1], channels=shape[2], pads=pads, value=0), shape, pads)
       for name, shape, pads in (("of an image", (12, 12, 8), (-2, -2, -2, -2)), ("to the last step", (1, 64, 16), (0, -63, 0, 0)),
                                 ("of the last steps", (1, 64, 16), (0, 0, 0, -4)))},
    **{f"requantizer of 23 bits, {name}": partial(_requantizer, width, bits)
       for name, width, bits in (("shift", 0, 0), ("19 at once", 19, 0), ("19, 1 a cycle", 19, 1), ("19, 2 a cycle", 19, 2),
                                 ("19, 4 a cycle", 19, 4))},
    "enlarged 1x2": lambda: UpsampleStage((0, 15), factor=(1, 2), **_IMAGE),
    **{f"{k} largest of {n}, {reach.bit_length() + 1} bits": partial(
        lambda k, n, reach: Chain([("k", TopK((-reach, reach), n, k))]), k, n, reach)
       for k, n, reach in ((1, 10, 100), (3, 10, 100), (5, 100, 5000))},
}


def _rows(designs: dict) -> list[dict]:
    rows = []
    for name, parameters in designs.items():
        block = stage(**parameters) if isinstance(parameters, dict) else parameters()
        got, cost = measure(block, "up5k", place=False), block.cost
        rows.append({"name": name, "lc": got["lc"], "predicted": round(cost.lc), "error": round(cost.lc / got["lc"] - 1, 3),
                     "ff": got["ff"], "ebr": [got["ebr"], cost.ebr], "dsp": [got["dsp"], cost.dsp],
                     "raw": round(sum(named.block.cost.lc for named in block.blocks))})
        print(f"{name:34s} LC {got['lc']:5d}  predicted {rows[-1]['predicted']:5d} ({100 * rows[-1]['error']:+.1f} %)  "
              f"EBR {got['ebr']} / {cost.ebr}  DSP {got['dsp']} / {cost.dsp}  blocks' sum {rows[-1]['raw']}", flush=True)
    return rows


def main() -> None:
    """Print both halves, the median error of the second, and the factor that would fit the first best."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    fitted, checked, operators = _rows(FITTED), _rows(CHECKED), _rows(OPERATORS)
    factor = sum(r["lc"] * r["raw"] for r in fitted) / sum(r["raw"] ** 2 for r in fitted)
    print(f"best factor on the blocks' sums (first half): {factor:.3f}")
    print(f"second half: median error {100 * statistics.median(abs(r['error']) for r in checked):.1f} %, "
          f"worst {100 * max(abs(r['error']) for r in checked):.1f} %, "
          f"EBR exact in {sum(r['ebr'][0] == r['ebr'][1] for r in checked)}, DSP in "
          f"{sum(r['dsp'][0] == r['dsp'][1] for r in checked)} of {len(checked)}")
    print(f"operators without weights: median error {100 * statistics.median(abs(r['error']) for r in operators):.1f} %, "
          f"worst {100 * max(abs(r['error']) for r in operators):.1f} %")
    if arguments.json:
        arguments.json.write_text(json.dumps({"fitted": fitted, "checked": checked, "operators": operators, "factor": factor},
                                             indent=1) + "\n")


if __name__ == "__main__":
    main()
