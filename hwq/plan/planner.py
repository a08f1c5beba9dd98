"""Choose the folding of every layer: the fewest cycles a frame that fit the device.

For a given number of cycles the layers are independent: each takes its cheapest folding that is fast enough. So the
plan is a search over cycles; logic and block RAM are traded against each other by a few weightings.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from hwq.rtl.common import Cost
from hwq.rtl.stage import Folding

from ..errors import FitError, ModelError
from ..ir.graph import Graph
from .devices import SHELL, Device
from .layers import Layer, Stage, split

__all__ = ["Plan", "PlannedLayer", "make_plan", "least_block_rams", "parse_fold", "LC_USABLE"]

# Share of the logic cells that the plan may fill: beyond, placement gets slow and the clock drops.
LC_USABLE = 0.85
_MAX_LANES = 64
_WEIGHTS = (0.0, 0.2, 0.5, 0.8, 1.0)
# Lanes tried for a target without limits: moderate, so that the Verilog suits any part.
_GENERIC_LANES = 16


@dataclass(frozen=True, eq=False)
class PlannedLayer:
    """A layer, its folding (None where it has none) and what it costs."""

    layer: Layer
    fold: Folding | None
    in_lanes: int
    cycles: int
    cost: Cost


@dataclass(frozen=True, eq=False)
class Plan:
    """The whole design.

    Attributes
    ----------
    layers : tuple of PlannedLayer
    device : Device
    in_lanes : int
        Codes a beat at the input.
    cycles : int
        Cycles a frame in steady state: those of the slowest layer, or of the input.
    cost : Cost
        Estimate, shell included.
    """

    layers: tuple[PlannedLayer, ...]
    device: Device
    in_lanes: int
    cycles: int
    cost: Cost

    @property
    def bottleneck(self) -> str:
        """Name of the slowest layer."""
        return max(self.layers, key=lambda p: p.cycles).layer.name


def parse_fold(texts: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Parse ``layer=pe,simd`` texts."""
    folds = {}
    for text in texts:
        name, _, numbers = text.partition("=")
        try:
            pe, simd = (int(v) for v in numbers.split(","))
        except ValueError:
            raise ModelError(f"Folding {text!r} must have the form layer=pe,simd, e.g. conv1=2,1") from None
        folds[name] = (pe, simd)
    return folds


def _divisors(value: int) -> list[int]:
    return [d for d in range(1, value + 1) if value % d == 0]


def _lanes(pe: int, words: int) -> int:
    """Return the least requantizer lanes that keep up with ``pe`` results every ``words`` cycles."""
    return next(d for d in _divisors(pe) if d * words >= pe)


@dataclass(frozen=True)
class _Option:
    fold: Folding
    cycles: int
    cost: Cost


def _options(layer: Layer, device: Device, fixed: tuple[int, int] | None) -> list[_Option]:
    outputs, kh, kw, channels = layer.weight.shape
    taps = kh * kw
    limit = _MAX_LANES if device.lc else _GENERIC_LANES
    choices: list[tuple[int, int, str]] = []
    if fixed:
        pe, simd = fixed
        if not (1 <= pe <= outputs and outputs % pe == 0):
            raise ModelError(f"Layer '{layer.name}': pe must divide the {outputs} outputs, not {pe}")
        if channels % max(simd, 1) == 0 and simd >= 1:
            choices = [(pe, simd, "memory")]
        elif taps > 1 and simd == taps * channels:
            choices = [(pe, simd, "shift")]
        else:
            raise ModelError(f"Layer '{layer.name}': simd must divide the {channels} input channels (memory window)"
                             + (f" or be {taps * channels} (shift window)" if taps > 1 else "") + f", not {simd}")
    else:
        for pe in _divisors(outputs):
            choices += [(pe, simd, "memory") for simd in _divisors(channels) if pe * simd <= limit]
            if taps > 1 and channels <= 4 and pe * taps * channels <= limit:
                choices.append((pe, taps * channels, "shift"))
    options = []
    for pe, simd, source in choices:
        words = taps * channels // simd if source == "memory" else 1
        for block_rom in ((True, False) if outputs // pe * words <= 256 else (True,)):
            for dsp in ((True, False) if device.dsp else (True,)):
                fold = Folding(pe, simd, source, _lanes(pe, words), block_rom, dsp)
                stage = layer.stage(fold, simd if source == "memory" else channels, device.technology)
                if dsp and device.dsp and not stage.matvec.uses_dsp and not fixed:      # type: ignore[union-attr]
                    continue                             # the same as without
                options.append(_Option(fold, stage.cycles, stage.cost))                 # type: ignore[union-attr]
    return options


def _fits(cost: Cost, device: Device, share: float = LC_USABLE) -> bool:
    return not device.lc or (cost.lc <= share * device.lc and cost.ebr <= device.ebr and cost.dsp <= device.dsp)


def _assemble(layers: list[Layer], folds: Mapping[str, Folding], device: Device, reserve: Cost, target: int) -> Plan:
    x = layers[0].x
    channels = x.shape[-1]
    size = 1
    for dim in x.shape:
        size *= dim
    lanes = next((d for d in _divisors(channels) if size // d <= target), channels)
    planned, total, at, cycles = [], reserve + Cost(lc=90), lanes, size // lanes
    for layer in layers:
        fold = folds.get(layer.name)
        stage: Stage = layer.stage(fold or Folding(), at, device.technology)
        layer_cycles = getattr(stage, "cycles", 0)
        planned.append(PlannedLayer(layer, fold, at, layer_cycles, stage.cost))
        at = getattr(stage, "out_lanes", 1)
        total, cycles = total + stage.cost, max(cycles, layer_cycles)
    if at != 1:
        total += Cost(lc=40)
    return Plan(tuple(planned), device, lanes, cycles, total)


def least_block_rams(graph: Graph, device: Device) -> int:
    """Return the block RAMs of the most economical folding of every layer, weights in block RAM, whether or not it all fits.

    Parameters
    ----------
    graph : Graph
        After `hwq.passes.apply_passes`.
    """
    return sum(min(option.cost.ebr for option in _options(layer, device, None) if option.fold.block_rom)
               for layer in split(graph) if layer.folds)


def make_plan(graph: Graph, device: Device, *, folds: Mapping[str, tuple[int, int]] | None = None,
              reserve: Cost = SHELL) -> Plan:
    """Return the fastest plan that fits the device by the estimate.

    Parameters
    ----------
    graph : Graph
        After `hwq.passes.apply_passes`.
    device : Device
    folds : mapping of layer name to (pe, simd), optional
        Foldings the user insists on.
    reserve : Cost
        Kept free for the board shell.

    Raises
    ------
    ModelError
        The network has no hardware, or a folding is impossible.
    FitError
        Even the smallest folding needs more block RAM than there is (that is certain), or far more logic.
    """
    layers = split(graph)
    folds = dict(folds or {})
    names = [layer.name for layer in layers if layer.folds]
    for name in folds:
        if name not in names:
            raise ModelError(f"Folding names the unknown layer {name!r}; layers that fold: {', '.join(names)}")
    options = {layer.name: _options(layer, device, folds.get(layer.name)) for layer in layers if layer.folds}
    targets = sorted({o.cycles for each in options.values() for o in each})
    floor = max((min(o.cycles for o in each) for each in options.values()), default=0)

    def best(target: int) -> Plan | None:
        found: list[Plan] = []
        for weight in _WEIGHTS:
            chosen: dict[str, Folding] = {}
            for name, each in options.items():
                quick = [o for o in each if o.cycles <= target]
                if not quick:
                    return None
                lc, ebr = device.lc or 1000, device.ebr or 1
                dsp = 0.05 / device.dsp if device.dsp else 0.0
                chosen[name] = min(quick, key=lambda o: (weight * o.cost.ebr / ebr + (1 - weight) * o.cost.lc / lc
                                                         + dsp * o.cost.dsp, o.cycles)).fold
            plan = _assemble(layers, chosen, device, reserve, target)
            if _fits(plan.cost, device):
                found.append(plan)
        return min(found, key=lambda p: (p.cost.lc, p.cost.ebr)) if found else None

    usable = [t for t in targets if t >= floor]
    lo, hi, plan = 0, len(usable) - 1, None
    while lo <= hi:                                      # slower never costs more: bisect
        middle = (lo + hi) // 2
        candidate = best(usable[middle])
        if candidate is None:
            lo = middle + 1
        else:
            plan, hi = candidate, middle - 1
    if not options:
        plan = _assemble(layers, {}, device, reserve, 1 << 60)
    if plan is None:
        plan = _least(layers, options, device, reserve)
    return _deepen(plan, reserve)


def _least(layers: list[Layer], options: dict[str, list[_Option]], device: Device, reserve: Cost) -> Plan:
    """Return the smallest plan, for the tools to judge, or say what is certain: that it cannot fit."""
    small = {name: min(each, key=lambda o: (o.cost.ebr, o.cost.lc)).fold for name, each in options.items()}
    plan = _assemble(layers, small, device, reserve, 1 << 60)
    bits = {layer.name: layer.weight.size * layer.main.weight_format.width for layer in layers if layer.folds}   # type: ignore[attr-defined]
    if plan.cost.ebr > device.ebr or plan.cost.lc > 1.3 * device.lc:
        worst = max(bits, key=lambda name: bits[name])
        raise FitError(
            f"The network does not fit {device.name}: at least {plan.cost.ebr} of {device.ebr} block RAMs and about "
            f"{plan.cost.lc:.0f} of {device.lc} logic cells (shell included). Weights take {sum(bits.values())} bits, most in "
            f"'{worst}' ({bits[worst]} bits). Fewer bits for that layer, fewer channels, or a larger device (--device hx8k) help; "
            f"hwq search NETWORK --cost {device.name} -o FOLDER looks for the bits that make it fit.")
    return plan


def _deepen(plan: Plan, reserve: Cost) -> Plan:
    """Give the slowest layers rings that never wait, where block RAM is left."""
    for planned in sorted(plan.layers, key=lambda p: -p.cycles):
        if planned.fold is None or planned.fold.source != "memory":
            continue
        folds = {p.layer.name: p.fold for p in plan.layers if p.fold}
        folds[planned.layer.name] = replace(planned.fold, full_rate=True)
        deeper = _assemble([p.layer for p in plan.layers], folds, plan.device, reserve, plan.cycles)
        if _fits(deeper.cost, plan.device, share=1.0):
            plan = deeper
    return plan
