"""What each layer may look like: its foldings, with their cycles and costs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from hwq.rtl.common import Cost, Technology
from hwq.rtl.joins import Joining
from hwq.rtl.matvec import MatVec
from hwq.rtl.stage import ConvStage, Folding
from hwq.rtl.wired import wired_size

from ..arith import width_of
from ..errors import FormatError, ModelError
from .devices import Device
from .layers import Layer, Stage

__all__ = ["Wish", "Option", "cycles_for", "parse_fold", "divisors", "options_of", "offers", "by_steps", "WIRED_DIGITS"]

# What a user may ask of a layer: pe and simd, or all of it at once.
Wish = tuple[int, int] | Literal["wired"]
Fold = TypeVar("Fold", bound=Folding | Joining)
_MAX_LANES = 256
# Lanes tried for a target without limits: moderate, so that the Verilog suits any part.
_GENERIC_LANES = 16
# Words of a ROM up to which its words may be shared out between block RAM and logic: deeper ones take too much logic a bit.
_SHALLOW = 64
# In how many parts, at most: of every folding that is tried, and of one that is given.
_SPLITS_TRIED, _SPLITS = 8, 64
# Logic cells that a block RAM must spare at least where it holds what a requantizer takes per output.
_SPARED = 40
# Bits of its multiplier that a requantizer may multiply by in a cycle, where not by all: the adders of more follow one another.
_SCALE_BITS = (1, 2, 4)
# Share of the outputs that may be computed in vain, where the outputs side by side do not divide them.
_WASTE = 8
# Signed digits of the weights up to which a layer is offered wired unasked, and its adders are searched for.
WIRED_DIGITS = 400


def cycles_for(fps: float, hz: float) -> int:
    """Return the cycles a frame that make ``fps`` frames a second (``--fps``) at a clock; `FormatError` if it has not as many."""
    if not 0 < fps <= hz:
        raise FormatError(f"--fps must lie above 0 and below the clock, {hz / 1e6:g} MHz, not {fps:g}")
    return int(hz / fps)


def parse_fold(texts: Iterable[str]) -> dict[str, Wish]:
    """Parse ``layer=pe,simd`` and ``layer=wired`` texts."""
    folds: dict[str, Wish] = {}
    for text in texts:
        name, _, numbers = text.partition("=")
        try:
            pe, simd = (0, 0) if numbers == "wired" else (int(v) for v in numbers.split(","))
        except ValueError:
            raise ModelError(f"Folding {text!r} must have the form layer=pe,simd, e.g. conv1=2,1, or layer=wired") from None
        folds[name] = "wired" if numbers == "wired" else (pe, simd)
    return folds


def divisors(value: int) -> list[int]:
    return [d for d in range(1, value + 1) if value % d == 0]


def _lanes(pe: int, words: int) -> int:
    """Return the least requantizer lanes that keep up with ``pe`` results every ``words`` cycles."""
    return next(d for d in divisors(pe) if d * words >= pe)


def _spare(outputs: int, groups: int) -> int:
    """Return how many outputs may be computed in vain to fill up those side by side."""
    return outputs // _WASTE if groups == 1 else 0


def _sides(outputs: int, groups: int) -> list[int]:
    """Return numbers of outputs side by side: the least for each number of turns, if it divides the outputs or wastes little."""
    return sorted({pe for turns in range(1, outputs + 1) if -outputs % (pe := -(-outputs // turns)) <= _spare(outputs, groups)})


def _split(depth: int, width: int, technology: Technology, steps: int) -> list[int]:
    """Return up to ``steps - 1`` numbers of bits of a shallow ROM's words that might lie in logic where blocks are short."""
    unit = max((bits for _, bits in technology.block_shapes), default=0)
    if not unit or depth > _SHALLOW:
        return []
    blocks = -(-width // unit)
    return [width - unit * kept for kept in sorted({blocks * k // steps for k in range(1, steps)} - {0})]


@dataclass(frozen=True)
class Option:
    fold: Folding
    cycles: int
    cost: Cost


def _wired_options(layer: Layer, device: Device) -> list[Option]:
    """Return the layer wired, for each number of requantizer lanes; its adders not yet searched for."""
    outputs, kh, kw, channels = layer.weight.shape
    options = []
    for lanes in divisors(outputs):
        fold = Folding(outputs, kh * kw * channels, "shift", lanes, False, "wired")
        stage = layer.stage(fold, (channels,), device.technology)
        options.append(Option(fold, stage.cycles, stage.cost))                         # type: ignore[union-attr]
    return options


def options_of(layer: Layer, device: Device, fixed: Wish | None) -> list[Option]:
    outputs, kh, kw, channels = layer.weight.shape       # channels of a group
    taps, each = kh * kw, outputs // layer.groups
    limit = _MAX_LANES if device.lc else _GENERIC_LANES
    choices: list[tuple[int, int, str]] = []
    if fixed == "wired":
        if not layer.wires:
            raise ModelError(
                f"Layer '{layer.name}' cannot be wired: that takes one group, no dilation, and for a kernel of more than "
                "a pixel, or a stride, images at least two pixels wide"
            )
        return _wired_options(layer, device)
    if fixed:
        pe, simd = fixed
        spare = _spare(outputs, layer.groups)
        if not (1 <= pe <= outputs and -outputs % pe <= spare):
            more = f", or compute at most {spare} in vain" if spare else ""
            raise ModelError(f"Layer '{layer.name}': pe must divide the {outputs} outputs{more}, not {pe}")
        if channels % max(simd, 1) == 0 and simd >= 1:
            choices = [(pe, simd, "memory")]
        elif layer.shifts and simd == taps * channels and outputs % pe == 0:
            choices = [(pe, simd, "shift")]
        else:
            raise ModelError(f"Layer '{layer.name}': simd must divide the {channels} input channels (memory window)"
                             + (f" or be {taps * channels} (shift window)" if layer.shifts else "") + f", not {simd}")
    else:
        for pe in _sides(outputs, layer.groups):
            if each % pe == 0 or outputs % pe:
                choices += [(pe, simd, "memory") for simd in divisors(channels) if pe * simd <= limit]
            elif pe % each == 0 and layer.groups % (pe // each) == 0 and pe * channels <= limit:
                choices.append((pe, channels, "memory"))             # several whole groups at once
            if layer.shifts and outputs % pe == 0 and channels <= 4 and pe * taps * channels <= limit:
                choices.append((pe, taps * channels, "shift"))
    options, x_width = [], width_of(layer.x.lo, layer.x.hi)[0]
    for pe, simd, source in choices:
        words = taps * channels // simd if source == "memory" else 1
        depth, width = -(-outputs // pe) * words, pe * simd * layer.weight_format.width
        lanes = _lanes(pe, words)
        if outputs % lanes:
            continue
        found: list[Option] = []
        in_lanes = simd * max(1, pe // each) if source == "memory" else channels
        roms = [(True, 0), (False, 0)] if depth <= 256 else [(True, 0)]
        for block_rom, logic_bits in roms + [(True, bits) for bits in _split(depth, width, device.technology,
                                                                             _SPLITS if fixed else _SPLITS_TRIED)]:
            for style in layer.styles(device.technology):
                if style == "dsp" and device.dsp < MatVec.dsps(pe * simd, x_width, layer.weight_format.width, device.technology):
                    continue
                fold = Folding(pe, simd, source, lanes, block_rom, style, logic_bits=logic_bits)
                stage = layer.stage(fold, (in_lanes,), device.technology)
                found.append(Option(fold, stage.cycles, stage.cost))                   # type: ignore[union-attr]
        found += _scales_by_steps(layer, device, found, in_lanes)
        if device.ebr:
            found += _scales_in_blocks(layer, device, found, in_lanes)
        options += found + (_in_spram(layer, device, found, in_lanes) if source == "memory" and device.spram else [])
    return options


def by_steps(layer: Layer, fold: Fold, in_lanes: Sequence[int], most: int, technology: Technology) -> tuple[Fold, Stage]:
    """Return the folding and stage whose requantizer takes as few bits a cycle as need at most ``most`` cycles a frame.

    Where none does, the one that takes the most bits.
    """
    for bits in _SCALE_BITS:
        fold = replace(fold, scale_bits=bits)
        stage = layer.stage(fold, in_lanes, technology)
        if stage.cycles <= most:
            break
    return fold, stage


def _scales_by_steps(layer: Layer, device: Device, options: list[Option], lanes: int) -> list[Option]:
    """Return options of one folding whose requantizer multiplies by some bits of its multiplier a cycle.

    By as few as cost no cycles, or, where any do, by the most.
    """
    if not device.lc or not layer.steps:
        return []
    more: dict[str, tuple[int, int, Cost]] = {}      # the style decides how wide the sums are
    for option in options:
        if option.fold.style not in more:
            fold, stage = by_steps(layer, option.fold, (lanes,), option.cycles, device.technology)
            more[option.fold.style] = fold.scale_bits, stage.cycles, stage.cost - option.cost       # type: ignore[union-attr]
    return [Option(replace(o.fold, scale_bits=bits), cycles, o.cost + cost) for o in options
            for bits, cycles, cost in [more[o.fold.style]]]


def _scales_in_blocks(layer: Layer, device: Device, options: list[Option], lanes: int) -> list[Option]:
    """Return options of one folding with what the requantizer takes per output in block RAM, where that spares enough logic."""
    more: dict[str, Cost] = {}                           # the style decides what there is to hold
    for option in options:
        if option.fold.style not in more:
            stage = layer.stage(replace(option.fold, block_scales=True), (lanes,), device.technology)
            more[option.fold.style] = stage.cost - option.cost                         # type: ignore[union-attr]
    return [Option(replace(o.fold, block_scales=True), o.cycles, o.cost + each) for o in options
            if (each := more[o.fold.style]).ebr and -each.lc >= _SPARED * each.ebr]


def _in_spram(layer: Layer, device: Device, options: list[Option], lanes: int) -> list[Option]:
    """Return options of one folding with the ring in large RAM, if that saves block RAM and words come in fast enough."""
    stage = layer.stage(replace(options[0].fold, spram=True), (lanes,), device.technology)
    assert isinstance(stage, ConvStage) and stage.ring
    more = stage.cost - options[0].cost
    if not stage.ring.flows or more.ebr == 0 or more.spram > device.spram:
        return []
    return [Option(replace(option.fold, spram=True), stage.cycles, option.cost + more) for option in options]


def offers(layer: Layer, device: Device, fixed: Wish | None) -> list[Option]:
    """Return the options of a layer, wired ones too where that is quick to find out."""
    found = options_of(layer, device, fixed)
    if not fixed and device.lc and layer.wires and wired_size(layer.weight) <= WIRED_DIGITS:
        found += _wired_options(layer, device)
    return found
