"""Choose the folding of every layer: the fewest cycles a frame that fit the device.

For a given number of cycles the layers are independent: each takes a folding that is fast enough. So the plan is a search
over cycles; `choose` shares out block RAM and multipliers, and `settle` makes the rings as deep as it takes to keep the promise.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from hwq.rtl.branches import StreamFifo, StreamFork
from hwq.rtl.common import Cost, Technology, shape_of
from hwq.rtl.joins import Joining
from hwq.rtl.stage import Folding
from hwq.rtl.wired import wired_size

from ..errors import FitError, ModelError
from ..ir.graph import Graph
from .devices import SHELL, Device
from .layers import Layer, Stage, split
from .search import choose
from .settle import relax, settle, tighten

__all__ = ["Plan", "PlannedLayer", "Wish", "make_plan", "least_block_rams", "next_step", "parse_fold", "LC_USABLE"]

# Share of the logic cells that the plan may fill: beyond, placement gets slow and the clock drops.
LC_USABLE = 0.9
# What a user may ask of a layer: pe and simd, or all of it at once.
Wish = tuple[int, int] | Literal["wired"]
_MAX_LANES = 256
# Lanes tried for a target without limits: moderate, so that the Verilog suits any part.
_GENERIC_LANES = 16
# Signed digits of the weights up to which a layer is offered wired unasked and its adders are searched for, in so many steps
# times digits: some seconds.
_WIRED_DIGITS, _WIRED_STEPS = 400, 333_000


@dataclass(frozen=True, eq=False)
class PlannedLayer:
    """A layer, its folding (None where it has neither weights nor a ring), the lanes of what it reads, and what it costs.

    Attributes
    ----------
    fifo : int
        Beats that the buffer in front of it holds, 0 for none; a join has its own.
    """

    layer: Layer
    fold: Folding | Joining | None
    in_lanes: tuple[int, ...]
    cycles: int
    cost: Cost
    fifo: int = 0

    def stage(self, technology: Technology) -> Stage:
        """Return the layer's block tree, see `Layer.stage`."""
        return self.layer.stage(self.fold or Folding(), self.in_lanes, technology)

    def buffer(self, technology: Technology) -> StreamFifo | None:
        """Return the buffer in front of the layer, if it has one."""
        x = self.layer.x
        return StreamFifo(shape_of(x.lo, x.hi), self.in_lanes[0], self.fifo, technology=technology) if self.fifo else None


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
        Cycles a frame in steady state, exactly; only where the rings cannot be made deep enough an upper bound.
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


def _wired_options(layer: Layer, device: Device) -> list[_Option]:
    """Return the layer wired, for each number of requantizer lanes; its adders not yet searched for."""
    outputs, kh, kw, channels = layer.weight.shape
    options = []
    for lanes in _divisors(outputs):
        fold = Folding(outputs, kh * kw * channels, "shift", lanes, False, "wired")
        stage = layer.stage(fold, (channels,), device.technology)
        options.append(_Option(fold, stage.cycles, stage.cost))                         # type: ignore[union-attr]
    return options


def _options(layer: Layer, device: Device, fixed: Wish | None) -> list[_Option]:
    outputs, kh, kw, channels = layer.weight.shape       # channels of a group
    taps, each = kh * kw, outputs // layer.groups
    limit = _MAX_LANES if device.lc else _GENERIC_LANES
    choices: list[tuple[int, int, str]] = []
    if fixed == "wired":
        if not layer.wires:
            raise ModelError(f"Layer '{layer.name}' cannot be wired: that takes one group, no dilation, and for a kernel of more than "
                             "a pixel, or a stride, images at least two pixels wide")
        return _wired_options(layer, device)
    if fixed:
        pe, simd = fixed
        if not (1 <= pe <= outputs and outputs % pe == 0):
            raise ModelError(f"Layer '{layer.name}': pe must divide the {outputs} outputs, not {pe}")
        if channels % max(simd, 1) == 0 and simd >= 1:
            choices = [(pe, simd, "memory")]
        elif layer.shifts and simd == taps * channels:
            choices = [(pe, simd, "shift")]
        else:
            raise ModelError(f"Layer '{layer.name}': simd must divide the {channels} input channels (memory window)"
                             + (f" or be {taps * channels} (shift window)" if layer.shifts else "") + f", not {simd}")
    else:
        for pe in _divisors(outputs):
            if each % pe == 0:
                choices += [(pe, simd, "memory") for simd in _divisors(channels) if pe * simd <= limit]
            elif pe % each == 0 and layer.groups % (pe // each) == 0 and pe * channels <= limit:
                choices.append((pe, channels, "memory"))             # several whole groups at once
            if layer.shifts and channels <= 4 and pe * taps * channels <= limit:
                choices.append((pe, taps * channels, "shift"))
    options = []
    for pe, simd, source in choices:
        words = taps * channels // simd if source == "memory" else 1
        for block_rom in ((True, False) if outputs // pe * words <= 256 else (True,)):
            for style in layer.styles(device.technology):
                fold = Folding(pe, simd, source, _lanes(pe, words), block_rom, style)
                stage = layer.stage(fold, (simd * max(1, pe // each) if source == "memory" else channels,), device.technology)
                options.append(_Option(fold, stage.cycles, stage.cost))                 # type: ignore[union-attr]
    return options


def _offers(layer: Layer, device: Device, fixed: Wish | None) -> list[_Option]:
    """Return the options of a layer, wired ones too where that is quick to find out."""
    options = _options(layer, device, fixed)
    if not fixed and device.lc and layer.wires and wired_size(layer.weight) <= _WIRED_DIGITS:
        options += _wired_options(layer, device)
    return options


def _fits(cost: Cost, device: Device, share: float = LC_USABLE) -> bool:
    return not device.lc or (cost.lc <= share * device.lc and cost.ebr <= device.ebr and cost.dsp <= device.dsp)


def _assemble(layers: list[Layer], folds: Mapping[str, Folding], device: Device, reserve: Cost, target: int) -> Plan:
    x = layers[0].x
    size = prod(x.shape)
    lanes = next((d for d in _divisors(x.shape[-1]) if size // d <= target), x.shape[-1])
    planned, total, cycles = [], reserve + Cost(lc=90), max(size // lanes, prod(layers[-1].y.shape))
    ends = {"": (lanes, shape_of(x.lo, x.hi))}           # lanes and shape of what each layer gives
    reads = Counter(source for layer in layers for source in layer.sources)
    for layer in layers:
        fold = layer.joining(target) if layer.joins else folds.get(layer.name)
        at = tuple(ends[source][0] for source in layer.sources)
        stage: Stage = layer.stage(fold or Folding(), at, device.technology)
        planned.append(PlannedLayer(layer, fold, at, stage.cycles, stage.cost))
        ends[layer.name] = getattr(stage, "out_lanes", 1), stage.out_shape
        total, cycles = total + stage.cost, max(cycles, stage.cycles)
    for source, readers in reads.items():
        if readers > 1:
            total += StreamFork(ends[source][1], ends[source][0], readers).cost
    if ends[layers[-1].name][0] != 1:
        total += Cost(lc=40)
    return Plan(tuple(planned), device, lanes, cycles, total)


class _Search:
    """The options of a network's layers on a device, and the plans made of them."""

    def __init__(self, graph: Graph, device: Device, folds: Mapping[str, Wish], reserve: Cost):
        self.layers, self.device, self.reserve = split(graph), device, reserve
        names = [layer.name for layer in self.layers if layer.folds]
        for name in folds:
            if name not in names:
                raise ModelError(f"Folding names the unknown layer {name!r}; layers that fold: {', '.join(names)}")
        self.options = {layer.name: _offers(layer, device, folds.get(layer.name)) for layer in self.layers if layer.folds}
        floor = max((min(o.cycles for o in each) for each in self.options.values()), default=0)
        # Cycles worth asking for: those of some layer's option, and no fewer than every layer can reach.
        self.targets = [t for t in sorted({o.cycles for each in self.options.values() for o in each}) if t >= floor]

    def assemble(self, folds: Mapping[str, Folding], target: int = 1 << 60) -> Plan:
        """Return the plan with these foldings."""
        return _assemble(self.layers, folds, self.device, self.reserve, target)

    def best(self, target: int, limited: bool = True) -> Plan | None:
        """Return the plan with the fewest logic cells that takes at most ``target`` cycles (and fits), rings included."""
        device = self.device
        blocks = device.ebr if limited else 1000
        while True:
            chosen = choose([[o for o in each if o.cycles <= target] for each in self.options.values()],
                            blocks - self.reserve.ebr if device.lc else None, device.dsp)
            if chosen is None:
                return None
            folds = {name: o.fold for name, o in zip(self.options, chosen, strict=True)}
            plan = self.assemble(folds, target)
            settled = settle(plan, lambda more, folds=folds: self.assemble(folds | more, target))      # type: ignore[misc]
            if settled is None or not limited or _fits(settled.cost, device):
                return settled
            over = settled.cost.ebr - device.ebr
            if over <= 0:                                # too much logic, however the blocks are shared out
                return None
            blocks -= over

    def tuned(self, plan: Plan) -> Plan:
        """Return the plan with its wired layers' adders searched for, where that makes it smaller and keeps its cycles."""
        folds = {p.layer.name: p.fold for p in plan.layers if isinstance(p.fold, Folding)}
        sizes = {p.layer.name: max(1, wired_size(p.layer.weight)) for p in plan.layers
                 if isinstance(p.fold, Folding) and p.fold.style == "wired"}
        wired = {name: replace(folds[name], steps=_WIRED_STEPS // size) for name, size in sizes.items() if size <= _WIRED_DIGITS}
        if not wired:
            return plan

        def assemble(more: Mapping[str, Folding]) -> Plan:
            return self.assemble({**folds, **wired, **more}, plan.cycles)

        better = settle(assemble({}), assemble)
        return better if better and better.cycles <= plan.cycles and better.cost.lc < plan.cost.lc else plan

    def fastest(self) -> Plan | None:
        """Return the plan with the fewest cycles that fits; slower never costs more, so bisect."""
        lo, hi, found = 0, len(self.targets) - 1, None
        while lo <= hi:
            middle = (lo + hi) // 2
            candidate = self.best(self.targets[middle])
            if candidate is None:
                lo = middle + 1
            else:
                found, hi = candidate, middle - 1
        return found


def least_block_rams(graph: Graph, device: Device) -> int:
    """Return the block RAMs of the most economical folding of every layer, weights in block RAM, whether or not it all fits.

    Parameters
    ----------
    graph : Graph
        After `hwq.passes.apply_passes`.
    """
    return sum(min(option.cost.ebr for option in _options(layer, device, None) if option.fold.block_rom)
               for layer in split(graph) if layer.folds)


def make_plan(graph: Graph, device: Device, *, folds: Mapping[str, Wish] | None = None,
              reserve: Cost = SHELL, max_cycles: int | None = None) -> Plan:
    """Return the fastest plan that fits the device by the estimate, or the smallest that is fast enough.

    Parameters
    ----------
    graph : Graph
        After `hwq.passes.apply_passes`.
    device : Device
    folds : mapping of layer name to (pe, simd) or ``"wired"``, optional
        Foldings the user insists on.
    reserve : Cost
        Kept free for the board shell.
    max_cycles : int, optional
        Cycles a frame that are fast enough: the plan with the fewest logic cells that keeps to them.

    Raises
    ------
    ModelError
        The network has no hardware, or a folding is impossible.
    FitError
        Even the smallest folding needs more block RAM than there is (that is certain), or far more logic; or nothing
        that fits keeps to ``max_cycles``.
    """
    search = _Search(graph, device, dict(folds or {}), reserve)
    if not search.options:
        return tighten(_promise(search.assemble({}), search.assemble))
    if max_cycles is not None:
        found = search.best(max_cycles)
        if found is None or found.cycles > max_cycles:   # no rings keep the cheapest to its cycles: a faster one may be there
            found = search.fastest()
        if found is None or found.cycles > max_cycles:
            raise FitError(f"Nothing that fits {device.name} takes at most {max_cycles} cycles a frame; "
                           + (f"the fastest plan takes {found.cycles}" if found else "not even the smallest plan fits"))
        return tighten(search.tuned(found))
    return tighten(search.tuned(search.fastest() or _least(search.layers, search.options, device, reserve)))


def next_step(graph: Graph, plan: Plan, *, reserve: Cost = SHELL) -> Plan | None:
    """Return the cheapest plan that is faster than ``plan``, whether it fits or not; None if none is."""
    search = _Search(graph, plan.device, {}, reserve)
    for target in reversed([t for t in search.targets if t < plan.cycles]):
        faster = search.best(target, limited=False)
        if faster is not None and faster.cycles < plan.cycles:
            return faster
    return None


def _promise(plan: Plan, assemble: Callable[[Mapping[str, Folding]], Plan]) -> Plan:
    """Return the plan settled, or with the cycles that it can take at most."""
    return settle(plan, assemble) or relax(plan, assemble)


def _least(layers: list[Layer], options: dict[str, list[_Option]], device: Device, reserve: Cost) -> Plan:
    """Return the smallest plan, for the tools to judge, or say what is certain: that it cannot fit."""
    # Certain is only what no sharing of the blocks can do without: all weights in blocks, or those that fit and the rest in logic.
    every = list(options.values())
    chosen = choose(every, device.ebr - reserve.ebr, device.dsp) if device.lc else [min(each, key=lambda o: o.cost.lc) for each in every]
    folds = {name: o.fold for name, o in zip(options, chosen, strict=True)} if chosen else {}
    lean = _assemble(layers, folds, device, reserve, 1 << 60) if chosen else None
    bits = {layer.name: layer.weight.size * layer.main.weight_format.width for layer in layers if layer.folds}   # type: ignore[attr-defined]
    if lean is None or (device.lc and lean.cost.lc > 1.3 * device.lc):
        blocks = reserve.ebr + sum(min(o.cost.ebr for o in each if o.fold.block_rom) for each in every)
        logic = f", or about {lean.cost.lc:.0f} of {device.lc} logic cells with those that there are" if lean else ""
        worst = max(bits, key=lambda name: bits[name])
        raise FitError(
            f"The network does not fit {device.name}: at least {blocks} of {device.ebr} block RAMs{logic} "
            f"(shell included). Weights take {sum(bits.values())} bits, most in "
            f"'{worst}' ({bits[worst]} bits). Fewer bits for that layer, fewer channels, or a larger device (--device hx8k) help.")

    def assemble(more: Mapping[str, Folding]) -> Plan:
        return _assemble(layers, {**folds, **more}, device, reserve, 1 << 60)

    plan = _promise(lean, assemble)
    return plan if _fits(plan.cost, device, 1.3) else relax(lean, assemble)       # rings as they are, and slower
