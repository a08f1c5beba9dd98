"""Choose the folding of every layer: the fewest cycles a frame that fit the device.

For a given number of cycles the layers are independent: each takes a folding that is fast enough. So the plan is a search
over cycles; `choose` shares out block RAM and multipliers, and `settle` makes the rings as deep as it takes to keep the promise.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import inf, prod

from hwq.rtl.branches import StreamFifo, StreamFork
from hwq.rtl.common import Cost, Technology, shape_of
from hwq.rtl.joins import Joining
from hwq.rtl.stage import Folding
from hwq.rtl.wired import wired_size

from ..errors import FitError, ModelError
from ..ir.graph import Graph
from .depths import tighten
from .devices import SHELL, Device
from .layers import Layer, Stage, split
from .options import WIRED_DIGITS, Wish, by_steps, divisors, offers, options_of
from .search import choose
from .settle import relax, settle, spreads

__all__ = ["Plan", "PlannedLayer", "Planner", "make_plan", "least_block_rams"]

# Steps times signed digits of the search for a wired layer's adders: some seconds.
_WIRED_STEPS = 333_000
# Targets that are asked one by one: below a wish, before the fastest plan is looked for, and above what that plan was made for.
_FEWER = 12


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
    least : mapping of str to tuple of int
        Least depths of each join's buffers, where they were looked for; see `hwq.plan.least_depths`.
    under_way : int
        Frames that must have room in the core at once for it to keep its cycles; 0: not looked for, see `frames_under_way`.
    """

    layers: tuple[PlannedLayer, ...]
    device: Device
    in_lanes: int
    cycles: int
    cost: Cost
    least: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    under_way: int = 0

    @property
    def tight(self) -> bool:
        """Whether every buffer in front of a layer or join is known to be as shallow as can be, one beat less costing cycles.

        Otherwise they are deep enough.
        """
        return bool(self.least)

    @property
    def bottleneck(self) -> str:
        """Name of the slowest layer."""
        return max(self.layers, key=lambda p: p.cycles).layer.name


def _fits(cost: Cost, device: Device, share: float | None = None) -> bool:
    return not device.lc or (cost.lc <= (share or device.usable) * device.lc and cost.ebr <= device.ebr and cost.dsp <= device.dsp
                                and cost.spram <= device.spram)


def _by_steps(planned: PlannedLayer, most: int, technology: Technology) -> PlannedLayer:
    """Return a layer without weights whose requantizer takes as few bits a cycle as need at most ``most`` cycles a frame."""
    fold, stage = by_steps(planned.layer, planned.fold or Folding(), planned.in_lanes, most, technology)
    return replace(planned, fold=fold, cycles=stage.cycles, cost=stage.cost) if stage.cycles <= most else planned


def _assemble(layers: list[Layer], folds: Mapping[str, Folding], device: Device, reserve: Cost, target: int) -> Plan:
    x = layers[0].x
    size = prod(x.shape)
    lanes = next((d for d in divisors(x.shape[-1]) if size // d <= target), x.shape[-1])
    planned, cycles = list[PlannedLayer](), max(size // lanes, prod(layers[-1].y.shape))
    ends = {"": (lanes, shape_of(x.lo, x.hi))}           # lanes and shape of what each layer gives
    reads = Counter(source for layer in layers for source in layer.sources)
    for layer in layers:
        fold = layer.joining(target) if layer.joins else folds.get(layer.name)
        at = tuple(ends[source][0] for source in layer.sources)
        stage: Stage = layer.stage(fold or Folding(), at, device.technology)
        planned.append(PlannedLayer(layer, fold, at, stage.cycles, stage.cost))
        ends[layer.name] = getattr(stage, "out_lanes", 1), stage.out_shape
        cycles = max(cycles, stage.cycles)
    if device.lc:
        planned = [p if p.layer.folds or not p.layer.steps else _by_steps(p, cycles, device.technology) for p in planned]
    total = sum((p.cost for p in planned), reserve + Cost(lc=60))
    for source, readers in reads.items():
        if readers > 1:
            total += StreamFork(ends[source][1], ends[source][0], readers).cost
    if ends[layers[-1].name][0] != 1:
        total += Cost(lc=40)
    return Plan(tuple(planned), device, lanes, cycles, total)


class Planner:
    """The options of a network's layers on a device, and the plans made of them.

    Parameters
    ----------
    graph : Graph
        After `hwq.passes.apply_passes`.
    device : Device
    folds : mapping of layer name to (pe, simd) or ``"wired"``, optional
        Foldings the user insists on.
    reserve : Cost
        Kept free for the board shell.

    Raises
    ------
    ModelError
        The network has no hardware, or a folding is impossible.
    """

    def __init__(self, graph: Graph, device: Device, *, folds: Mapping[str, Wish] | None = None, reserve: Cost = SHELL):
        self.layers, self.device, self.reserve = split(graph), device, reserve
        names = [layer.name for layer in self.layers if layer.folds]
        folds = folds or {}
        for name in folds:
            if name not in names:
                raise ModelError(f"Folding names the unknown layer {name!r}; layers that fold: {', '.join(names)}")
        self.options = {layer.name: offers(layer, device, folds.get(layer.name)) for layer in self.layers if layer.folds}
        self._spreads = spreads(self.assemble({}))
        floor = max((min(o.cycles for o in each) for each in self.options.values()), default=0)
        # Cycles worth asking for: those of some layer's option, and no fewer than every layer can reach.
        self.targets = [t for t in sorted({o.cycles for each in self.options.values() for o in each}) if t >= floor]

    def assemble(self, folds: Mapping[str, Folding], target: int = 1 << 60) -> Plan:
        """Return the plan with these foldings."""
        return _assemble(self.layers, folds, self.device, self.reserve, target)

    def _within(self, target: int, limited: bool, make: Callable[[Mapping[str, Folding]], Plan | None],
                share: float | None = None) -> Plan | None:
        """Return what ``make`` makes of the foldings of fewest logic cells for ``target`` cycles that fit, None where none do.

        ``share``: of the logic that may be taken, if not the device's usual one. Where ``make`` makes nothing of foldings whose
        scales lie in block RAM, because no rings keep the cycles, it is asked for those whose scales do not.
        """
        device = self.device
        most = blocks, dsp = device.ebr - self.reserve.ebr if limited else 1000, device.dsp
        offered = [[o for o in each if o.cycles <= target] for each in self.options.values()]
        while True:
            chosen = choose(offered, blocks if device.lc else None, dsp, device.spram)
            if chosen is None:
                return None
            plan = make({name: o.fold for name, o in zip(self.options, chosen, strict=True)})
            if plan is None and any(o.fold.block_scales for o in chosen):
                offered, (blocks, dsp) = [[o for o in each if not o.fold.block_scales] for each in offered], most
                continue
            if plan is None or not limited or _fits(plan.cost, device, share):
                return plan
            # Rings, joins and what else has no folding take their part.
            over = max(0, plan.cost.ebr - device.ebr), max(0, plan.cost.dsp - device.dsp)
            if over == (0, 0):                           # too much logic, however the blocks are shared out
                return None
            blocks, dsp = blocks - over[0], dsp - over[1]

    def best(self, target: int, limited: bool = True) -> Plan | None:
        """Return the plan with the fewest logic cells that takes at most ``target`` cycles (and fits), rings included."""
        def within(even: bool) -> Plan | None:
            return self._within(target, limited, lambda folds: settle(
                self.assemble(folds, target), lambda more: self.assemble({**folds, **more}, target), even))

        return _smaller(within(False), None if self._spreads else within(True))

    def tuned(self, plan: Plan) -> Plan:
        """Return the plan with its wired layers' adders searched for, where that makes it smaller and keeps its cycles."""
        # Without the rings' depths, which suit the lanes of the target that this plan was made for: settle looks for them again.
        folds = {p.layer.name: replace(p.fold, depth=0) for p in plan.layers if isinstance(p.fold, Folding)}
        sizes = {p.layer.name: max(1, wired_size(p.layer.weight)) for p in plan.layers
                 if isinstance(p.fold, Folding) and p.fold.style == "wired"}
        wired = {name: replace(folds[name], steps=_WIRED_STEPS // size) for name, size in sizes.items() if size <= WIRED_DIGITS}
        if not wired:
            return plan

        def assemble(more: Mapping[str, Folding]) -> Plan:
            return self.assemble({**folds, **wired, **more}, plan.cycles)

        better = _smaller(settle(assemble({}), assemble), None if self._spreads else settle(assemble({}), assemble, even=True))
        return better if better and better.cycles <= plan.cycles and better.cost.lc < plan.cost.lc else plan

    def _may_fit(self, target: int) -> bool:
        """Return whether foldings for ``target`` cycles fit, rings at their least; with more cycles they do too."""
        return self._within(target, True, lambda folds: self.assemble(folds, target)) is not None

    def fastest(self) -> Plan | None:
        """Return a plan with few cycles that fits.

        Fewer than the foldings allow are bisected away. From there on a plan may fail for its rings: they need more blocks
        (more cycles help), or no depth keeps the cycles because a border holds up the stage before it (then others may do).
        So it gallops to the first success and looks between it and the last failure; where it meets none, it asks the rest one by
        one.
        """
        first = lo = bisect_left(self.targets, True, key=self._may_fit)
        hi, found, asked = len(self.targets) - 1, None, dict[int, Plan | None]()
        while lo <= hi:
            at = (lo + hi) // 2 if found is not None else min(lo + max(1, lo - first) - 1, hi)
            asked[at] = self.best(self.targets[at])
            if asked[at] is None:
                lo = at + 1
            else:
                found, hi = at, at - 1
        for at in range(first, len(self.targets)) if found is None else ():      # what it galloped over
            if at not in asked and (plan := self.best(self.targets[at])):
                asked[at], found = plan, at
                break
        if found is None or (plan := asked[found]) is None:
            return None
        # What has no folding may take longer than was asked for: one result a cycle, or channels chosen off whole lanes.
        slower = [target for target in self.targets[found + 1:] if target <= plan.cycles][-_FEWER:]
        return next((lean for lean in map(self.best, reversed(slower)) if lean and lean.cycles <= plan.cycles), plan)

    def _slowest(self, max_cycles: int) -> Plan | None:
        """Return the plan for the most cycles up to ``max_cycles`` that some rings keep; None where none of a few do, or fit."""
        for target in [max_cycles, *reversed([t for t in self.targets if t < max_cycles][-_FEWER:])]:
            if not self._may_fit(target):
                break
            plan = self.best(target)
            if plan is not None and plan.cycles <= max_cycles:
                return plan
        return None

    def plan(self, max_cycles: int | None = None, *, tight: bool = False) -> Plan:
        """Return the fastest plan that fits, or the smallest that takes at most ``max_cycles``; see `make_plan`."""
        if not self.options:
            return tighten(_promise(self.assemble({}), self.assemble), tight)
        found = (None if max_cycles is None else self._slowest(max_cycles)) or self.fastest()
        if max_cycles is not None and (found is None or found.cycles > max_cycles):
            raise FitError(f"Nothing that fits {self.device.name} takes at most {max_cycles} cycles a frame; "
                           + (f"the fastest plan takes {found.cycles}." if found else "not even the smallest plan fits."))
        return tighten(self.tuned(found or self._least()), tight)

    def _least(self) -> Plan:
        """Return the smallest plan, for the tools to judge, or say what is certain: that it cannot fit."""
        device, lean = self.device, self._within(1 << 60, True, self.assemble, inf)
        if lean is None or (device.lc and lean.cost.lc > 1.3 * device.lc):
            # Certain is what no sharing of the blocks can do without: all weights in blocks, or what fits and the rest in logic.
            fewest = {name: min([o for o in each if o.fold.block_rom] or each, key=lambda o: o.cost.ebr).fold
                      for name, each in self.options.items()}
            blocks = self.assemble(fewest).cost.ebr
            logic = f", or about {lean.cost.lc:.0f} of {device.lc} logic cells with those that there are" if lean else ""
            bits = {layer.name: layer.weight.size * layer.weight_format.width for layer in self.layers if layer.folds}
            worst = max(bits, key=lambda name: bits[name])
            raise FitError(
                f"The network does not fit {device.name}: at least {blocks} of {device.ebr} block RAMs{logic} "
                f"(shell included). Weights take {sum(bits.values())} bits, most in '{worst}' ({bits[worst]} bits). "
                "Fewer bits for that layer, fewer channels, or a larger device (--device hx8k) help.")

        def promised(folds: Mapping[str, Folding]) -> Plan:
            def assemble(more: Mapping[str, Folding]) -> Plan:
                return self.assemble({**folds, **more})

            plan = _promise(assemble({}), assemble)
            return plan if _fits(plan.cost, device, 1.3) else relax(assemble({}), assemble)      # rings as they are, and slower

        return self._within(1 << 60, True, promised, inf) or promised({p.layer.name: p.fold for p in lean.layers
                                                                       if isinstance(p.fold, Folding)})

    def next_step(self, plan: Plan) -> Plan | None:
        """Return the cheapest plan that is faster than ``plan``, whether it fits or not; None if none is."""
        for target in reversed([t for t in self.targets if t < plan.cycles]):
            faster = self.best(target, limited=False)
            if faster is not None and faster.cycles < plan.cycles:
                return faster
        return None


def make_plan(graph: Graph, device: Device, *, folds: Mapping[str, Wish] | None = None,
              reserve: Cost = SHELL, max_cycles: int | None = None, tight: bool = False) -> Plan:
    """Return the fastest plan that fits the device by the estimate, or the smallest that is fast enough.

    Parameters
    ----------
    graph, device, folds, reserve
        See `Planner`.
    max_cycles : int, optional
        Cycles a frame that are fast enough: the plan with the fewest logic cells that keeps to them.
    tight : bool
        Look for the least depth of every buffer however large the network, see `hwq.plan.depths.tighten`.

    Raises
    ------
    ModelError
        The network has no hardware, or a folding is impossible.
    FitError
        Even the smallest folding needs more block RAM than there is (that is certain), or far more logic; or nothing
        that fits keeps to ``max_cycles``.
    """
    return Planner(graph, device, folds=folds, reserve=reserve).plan(max_cycles, tight=tight)


def least_block_rams(graph: Graph, device: Device) -> int:
    """Return the block RAMs of every layer's most economical folding, weights and rings in block RAM, whether or not it fits.

    Parameters
    ----------
    graph : Graph
        After `hwq.passes.apply_passes`.
    """
    return sum(min(option.cost.ebr for option in options_of(layer, device, None) if option.fold.block_rom and not option.fold.spram)
               for layer in split(graph) if layer.folds)


def _promise(plan: Plan, assemble: Callable[[Mapping[str, Folding]], Plan]) -> Plan:
    """Return the plan settled, or with the cycles that it can take at most."""
    return settle(plan, assemble) or relax(plan, assemble)


def _smaller(a: Plan | None, b: Plan | None) -> Plan | None:
    """Return the plan with fewer logic cells, the first one if they have as many, or that which there is."""
    return a if b is None or (a is not None and a.cost.lc <= b.cost.lc) else b
