"""What the ONNX rules share: edges and their real values, requantizations, the input, and what a comparison needs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from .. import ir
from ..errors import ModelError
from ..passes.exact_plane import exact_plane
from .builder import Builder
from .onnx_file import OnnxFile, OnnxNode
from .onnx_values import ULP, Const, View
from .rounding import Step, as_float, integer_thresholds

__all__ = ["Context", "QuantCheck", "LayoutError", "InputGrid", "refuse", "frac_bits"]


class LayoutError(ModelError):
    """A convolution's channels are another axis than assumed: the importer tries the other layout of the input."""


@dataclass(frozen=True)
class InputGrid:
    """What a user says of the input: ``real = scale * code``, codes ``lo..hi``."""

    scale: Fraction
    lo: int
    hi: int


@dataclass(frozen=True, eq=False)
class QuantCheck:
    """One quantizer, for the comparison: its codes step where the real value before it passes ``places``.

    Attributes
    ----------
    tensor : str
        The tensor behind it in the source.
    before : View or None
        What it quantizes; None for the float input.
    places : float64 array (1 or channels, steps)
    strict : bool array, the same shape
        The place itself does not count.
    lo : int
        Lowest code.
    after : View
        Its result.
    integer : Fraction or None
        The tensor holds integers, the codes plus this.
    terms : tuple of (str, int)
        What is before is these edges times these, where the sum has got other factors since; see `Context._plane`.
    """

    tensor: str
    before: View | None
    places: np.ndarray
    strict: np.ndarray
    lo: int
    after: View
    integer: Fraction | None
    terms: tuple[tuple[str, int], ...] = ()


def refuse(node: OnnxNode, what: str) -> None:
    """Raise the error that names a node."""
    raise ModelError(f"{node.text}: {what}")


def frac_bits(scale: Fraction) -> int | None:
    """Return the binary digits after the point of a scale, or None if it is no power of two."""
    if scale.numerator == 1 and scale.denominator & (scale.denominator - 1) == 0:
        return scale.denominator.bit_length() - 1
    if scale.denominator == 1 and scale.numerator & (scale.numerator - 1) == 0:
        return -(scale.numerator.bit_length() - 1)
    return None


class Context:
    """State of one import.

    Parameters
    ----------
    file : OnnxFile
    name : str
        Name of the network.
    channels_last : bool
        Layout assumed of an input with several axes.
    grid : InputGrid or None
        Given by the user.
    """

    def __init__(self, file: OnnxFile, name: str, channels_last: bool, grid: InputGrid | None) -> None:
        self.file, self.b, self.grid, self.channels_last = file, Builder(name), grid, channels_last
        self.types: dict[str, tuple[int, int]] = {}            # range of constants whose type numpy has not
        self.output_bits: int | None = None
        self.checks: dict[str, QuantCheck] = {}
        self.preprocess: ir.Preprocess | None = None
        self.before_input: View | None = None
        self.unscaled: set[str] = set()            # layers whose weights' scale is no power of two
        shape = file.shape
        if len(shape) not in (2, 3, 4) or any(d is None for d in shape[1:]):
            raise ModelError(f"The input '{file.input}' has the shape {tuple('?' if d is None else d for d in shape)}; accepted: a "
                             "batch, perhaps open, and 1, 2 or 3 axes behind it, all of them known")
        self.batch = shape[0] or 1
        if self.batch > 1:
            self.b.note(f"The file takes {self.batch} inputs at a time; the network takes one")
        sizes = [int(d) for d in shape[1:] if d is not None]
        if len(sizes) == 1:
            axes: tuple[int, ...] = (0,)
        elif len(sizes) == 2:
            axes = (1, 2) if channels_last else (2, 1)
        else:
            axes = (0, 1, 2) if channels_last else (2, 0, 1)
        self.input_dims = tuple(zip(sizes, axes, strict=True))
        self.input = View(None, self.input_dims)
        if file.dtype != "float32":
            if grid is not None:
                raise ModelError(f"The input '{file.input}' holds integers already, of the type {file.dtype}; leave "
                                 "--input-format and --input-scale out")
            info = np.iinfo(file.dtype)
            self.grid = grid = InputGrid(Fraction(1), int(info.min), int(info.max))
        if grid is not None:
            self.input = self.make_input(self.input, grid.lo, grid.hi, (grid.scale,), (Fraction(0),))
            self.input = self.input.but(error=(float(self.peak(self.input).max()) * ULP,))
            if file.dtype != "float32":            # what they are worth, the DequantizeLinear says
                self.b.replace_node(replace(self.b.nodes["input"], frac_bits=None))                # type: ignore[call-arg]
                self.input = self.input.but(error=(0.0,), integer=True)
            if len(sizes) == 3 and grid.lo == 0 and (grid.hi + 1) & grid.hi == 0 and grid.hi < 256:
                self.preprocess = ir.Preprocess(grid.hi.bit_length())

    # ---- edges
    @property
    def input_shape(self) -> tuple[int, ...]:
        """The IR's shape of the input."""
        axes = {axis: size for size, axis in self.input_dims}
        return (axes[0],) if len(self.input_dims) == 1 else tuple(axes.get(i, 1) for i in range(3))

    def make_input(self, view: View, lo: int, hi: int, scale: tuple[Fraction, ...], shift: tuple[Fraction, ...]) -> View:
        """Make the Input node with codes ``lo..hi``, and the Flatten behind it if the view is flat already."""
        fl = frac_bits(scale[0]) if len(scale) == 1 and not any(shift) else None
        edge = self.b.add(ir.Input("input", (), self.input_shape, lo, hi, fl))
        if len(view.dims) == 1 and len(self.input_dims) != 1:
            edge = self.b.add(ir.Flatten(self.b.unique("flatten"), (edge,)))
        return View(edge, view.dims, scale, shift, order=view.order)

    def edge(self, node: OnnxNode, view: View) -> str:
        """Return the view's edge, or ask for the input's format."""
        if view.edge is None:
            refuse(node, "the network has no quantizer at its input, so that its integers are not known; say them with "
                   "--input-format, such as dfp:b=8,fl=6, and --input-scale if they are no power of two apart")
        assert view.edge is not None
        return view.edge

    def channels(self, view: View) -> int:
        """Return the number of channels of the view's edge."""
        if view.edge is not None:
            return self.b.edges[view.edge].shape[-1]
        return next((size for size, axis in view.dims if axis == len(self.input_shape) - 1), 1) \
            if len(view.dims) > 1 else view.dims[0][0]

    def peak(self, view: View) -> np.ndarray:
        """Return a bound of the real values' magnitude, float64 (channels,)."""
        assert view.edge is not None
        low, high = self.b.ranges(view.edge)
        scale = np.array([float(s) for s in view.scale])
        shift = np.array([float(s) for s in view.shift])
        steepest = np.array([max(float(s), 1.0) for s in view.slope])
        return np.maximum(np.abs(scale * low + shift), np.abs(scale * high + shift)) * steepest

    # ---- constants
    def per_channel(self, node: OnnxNode, view: View, constant: Const) -> list[Fraction]:
        """Return a constant that is broadcast to the view as one value, or one for each channel in the edge's order."""
        shape = constant.value.shape
        if len(shape) > len(view.shape):
            refuse(node, f"a constant of the shape {shape} does not go with a tensor of the shape {view.shape}")
        reals = constant.reals()
        if reals.size == 1:
            return [reals.reshape(-1)[0]]
        padded = (1,) * (len(view.shape) - len(shape)) + shape
        wide = [i for i, size in enumerate(padded) if size != 1]
        if len(wide) == 1 and wide[0] >= 1 and padded[wide[0]] == view.dims[wide[0] - 1][0]:
            axis = view.dims[wide[0] - 1][1]
            last = 0 if len(view.dims) == 1 or view.edge is not None and len(self.b.edges[view.edge].shape) == 1 else 2
            if axis == last:
                values = reals.reshape(-1)
                if view.order is not None:
                    moved = np.empty_like(values)
                    moved[view.order] = values
                    values = moved
                return list(values)
        raise LayoutError(f"{node.text}: a constant of the shape {shape} differs along an axis of {view.shape} that is not the "
                          "channels; supported: one value, or one for each channel")

    # ---- quantizers
    def quantize(self, node: OnnxNode, view: View, rows: Sequence[Sequence[Step]], lo: int, hi: int, scale: tuple[Fraction, ...],
                 shift: tuple[Fraction, ...], *, integer: Fraction | None = None,
                 even: tuple[Sequence[Fraction], Sequence[Fraction]] | None = None) -> View:
        """Append a quantizer whose code exceeds ``lo`` by the number of steps that the real value has passed.

        Parameters
        ----------
        rows : 1 or channels rows of ``hi - lo`` steps
            In the edge's order of channels.
        scale, shift : tuple of Fraction
            Real value of the codes: one, or one for each channel.
        integer : Fraction, optional
            The tensor holds integers, the codes plus this.
        even : (sequence, sequence) of Fraction, optional
            The code before clamping is this multiple of the view's real value plus this, rounded half to even.
        """
        places, strict = as_float(rows), np.array([[s for _, s in row] for row in rows], bool).reshape(len(rows), -1)
        name = node.name or node.outputs[0]
        if view.edge is None:
            if len(scale) != 1 or len(rows) != 1:
                refuse(node, "an input with a scale for each channel is not supported")
            after = self.make_input(view, lo, hi, scale, shift)
            self.before_input = view
            assert after.edge is not None
            self.checks[after.edge] = QuantCheck(node.outputs[0], None, places, strict, lo, after, integer)
            return self._coded(after, integer)
        channels = self.channels(view)
        full = view.per_channel(channels)
        same = view.uniform()
        varied = max(len(rows), len(same.scale), len(same.shift), len(same.slope)) > 1
        count = channels if varied else 1
        table = np.array([integer_thresholds(rows[c if len(rows) > 1 else 0], full.scale[c], full.shift[c], view.lo, view.hi,
                                             full.slope[c]) for c in range(count)], object).reshape(count, -1)
        flip = np.array([full.scale[c] < 0 for c in range(count)])
        single = scale[0] if len(scale) == 1 and not any(shift) else None
        edge, summed, terms = None, self.b.nodes[view.edge], tuple[tuple[str, int], ...]()
        if not varied and not flip.any():
            edge = self._plane(name, view.edge, table[0], lo, hi, None if even is None else float(full.scale[0] * even[0][0]))
        if edge is not None and isinstance(summed, ir.Add):
            terms = tuple(zip(summed.inputs, map(int, summed.mult), strict=True))
        if edge is None:
            source = view.edge
            edge = self.b.requantize(name, source, table, lo, hi, flip=np.broadcast_to(flip, (channels,)),
                                     frac_bits=frac_bits(single) if single is not None else None,
                                     half_even=self._even(full, even, count))
            node_made = self.b.nodes[edge]
            # the layer's sign was turned
            if flip.any() and isinstance(node_made, ir.Requantize) and node_made.thresholds.size and node_made.inputs == (source,):
                sign = np.where(np.broadcast_to(flip, (channels,)), -1, 1)
                view = full.but(scale=tuple(s * int(f) for s, f in zip(full.scale, sign, strict=True)))
        after = View(edge, view.dims, scale, shift, order=view.order)
        self.checks[edge] = QuantCheck(node.outputs[0], view, places, strict, lo, after, integer, terms)
        return self._coded(after, integer)

    def ties(self, view: View, inverse: Sequence[Fraction]) -> bool:
        """Return whether rounding the view's multiples can meet exact ties: whether they lie on a binary grid."""
        return self._even(view.per_channel(self.channels(view)), (inverse, [Fraction(0)]), self.channels(view)) is not None

    def _coded(self, view: View, integer: Fraction | None) -> View:
        """Return a quantizer's result as what a float executor holds: rounded reals, or exact integers."""
        if integer is not None:
            return view.but(scale=(Fraction(1),), shift=(integer,), integer=True)
        return view.but(error=(float(self.peak(view).max()) * 2 * ULP,))

    @staticmethod
    def _even(full: View, even: tuple[Sequence[Fraction], Sequence[Fraction]] | None,
              count: int) -> tuple[np.ndarray, np.ndarray, int] | None:
        if even is None or full.leaky:
            return None
        factors = [full.scale[c] * even[0][c % len(even[0])] for c in range(count)]
        offsets = [full.shift[c] * even[0][c % len(even[0])] + even[1][c % len(even[1])] for c in range(count)]
        both = math.lcm(*(v.denominator for v in [*factors, *offsets]))
        shift = both.bit_length() - 1
        if both != 1 << shift or shift > 40 or max(abs(v) * both for v in [*factors, *offsets]) >= 1 << 60:
            return None
        return (np.array([int(v * both) for v in factors], np.int64), np.array([int(v * both) for v in offsets], np.int64), shift)

    def _plane(self, name: str, source: str, thresholds: np.ndarray, lo: int, hi: int, gain: float | None) -> str | None:
        """Append the quantizer of a sum of two codes as one small plane over both, if the sum is private and there is one."""
        node = self.b.nodes[source]
        if not self.b.private(source, ir.Add) or not isinstance(node, ir.Add):
            return None
        ends = [self.b.edges[e] for e in node.inputs]
        if any(e.hi - e.lo > 1023 for e in ends) or (abs(node.mult[0]) < 256 and abs(node.mult[1]) < 256):
            return None
        x, y = (np.arange(e.lo, e.hi + 1, dtype=np.int64) for e in ends)
        total = x[:, None] * node.mult[0] + y[None, :] * node.mult[1]
        steps = np.array([int(t) for t in thresholds], np.int64)
        table = lo + np.searchsorted(steps, total, side="right")
        if gain is None:
            inside = [int(t) for t in steps if total.min() < t <= total.max()]
            if len(inside) < 2 or inside[-1] == inside[0]:
                return None
            gain = (len(inside) - 1) / (inside[-1] - inside[0])
        plane = exact_plane(table, x, y, (node.mult[0] * gain, node.mult[1] * gain), lo, hi)
        if plane is None:
            return None
        self.b.replace_node(replace(node, mult=plane.mult))
        made = self.b.unique(name)
        return self.b.add(ir.Requantize(made, (source,), np.array([1]), np.array([plane.offset]), plane.shift, lo, hi))

    # ---- clips and signs
    def plain(self, node: OnnxNode, view: View) -> View:
        """Return the view without a pending clip: the clip becomes one of codes. A slope for negative values is refused."""
        source = self.edge(node, view)
        if view.leaky:
            refuse(node, "the result of a LeakyRelu or PRelu has no quantizer behind it, and no integers stand for it; put a "
                   "quantizer between them, or at the output")
        if not view.clipped:
            return view
        view = view.uniform()
        if len(view.scale) != 1 or len(view.shift) != 1 or view.scale[0] <= 0:
            refuse(node, "a Relu or Clip before it has no quantizer, and the channels' scales differ; put a quantizer between them")
        edge = self.b.edges[source]
        ends = []
        for value, default in ((view.lo, edge.lo), (view.hi, edge.hi)):
            code = Fraction(default) if value is None else (value - view.shift[0]) / view.scale[0]
            if code.denominator != 1:
                refuse(node, f"a Relu or Clip before it has no quantizer, and its limit {float(value or 0)} is no multiple of the "
                       f"scale {float(view.scale[0])}")
            ends.append(int(code))
        made = self.b.add(ir.Requantize(self.b.unique(f"{source}.clip"), (source,), lo=min(max(ends[0], edge.lo), edge.hi),
                                        hi=max(min(ends[1], edge.hi), edge.lo), frac_bits=edge.frac_bits))
        return view.but(edge=made, lo=None, hi=None, slope=(Fraction(1),))

    def rising(self, node: OnnxNode, view: View) -> View:
        """Return the view with no negative scale: signs are turned where they must."""
        if all(s >= 0 for s in view.scale):
            return view
        source = self.edge(node, view)
        full = view.per_channel(self.channels(view))
        mask = np.array([s < 0 for s in full.scale])
        return full.but(edge=self.b.turned(source, mask), scale=tuple(abs(s) for s in full.scale))

    def finish(self, view: View) -> ir.Graph:
        """Return the graph that ends in a view; scales of codes are stated only where every layer behind them has a binary one."""
        stack = list(self.unscaled)
        while stack:
            node = self.b.nodes[stack.pop()]
            if isinstance(node, ir.Input | ir.Requantize) and node.frac_bits is not None:
                self.b.replace_node(replace(node, frac_bits=None))
            elif node.name in self.unscaled or not isinstance(node, ir.Input | ir.Requantize):
                stack += node.inputs
        for node in list(self.b.nodes.values()):   # ranges and scales of everything behind
            self.b.replace_node(node)
        assert view.edge is not None
        return self.b.finish(view.edge, self.preprocess)

    def common(self, node: OnnxNode, view: View, most_bits: int | None = None) -> View:
        """Return the view with one positive scale for all channels and, up to a constant for all, no shift.

        Biases that are whole move into the layer; other scales and biases become exact integers by a multiplier and an offset, of
        up to 62 bits; where that takes more than 40, the user must allow a rounding (`output_bits`). With ``most_bits``, of a
        layer's input, more bits are refused.
        """
        source = self.edge(node, view)
        if most_bits is not None and len(view.scale) == 1 and len(view.shift) == 1:
            return view
        view = self.rising(node, view).uniform()
        if any(s == 0 for s in view.scale):
            refuse(node, "the result of a channel does not depend on the input")
        if len(view.scale) == 1 and len(view.shift) == 1:
            return view
        channels = self.channels(view)
        full = view.per_channel(channels)
        made = self.b.nodes[source]
        whole = [t / view.scale[0] for t in full.shift]
        if len(view.scale) == 1 and all(w.denominator == 1 for w in whole) and self.b.private(source, (ir.Conv2d, ir.Linear)):
            self.b.replace_node(replace(made, bias=made.bias + np.array([int(w) for w in whole], np.int64)))   # type: ignore[attr-defined,call-arg]
            return view.but(shift=(Fraction(0),))
        shift = [t - full.shift[0] for t in full.shift]
        bottom = math.lcm(*(v.denominator for v in [*full.scale, *shift]))
        unit = Fraction(math.gcd(*(int(v * bottom) for v in [*full.scale, *shift])), bottom)
        low, high = self.b.ranges(source)
        def ends(u: Fraction) -> tuple[list[int], list[int], int]:
            mult, offset = [round(s / u) for s in full.scale], [round(t / u) for t in shift]
            return mult, offset, max(max(abs(m * int(a) + o), abs(m * int(b) + o))
                                     for m, o, a, b in zip(mult, offset, low, high, strict=True))
        mult, offset, reach = ends(unit)
        if most_bits is not None and reach >= 1 << most_bits:
            refuse(node, "its input has scales or zero points that differ between channels, as behind a Concat of "
                   f"several quantizers; integers with one scale for all would take {reach.bit_length() + 1} bits, supported are "
                   f"{most_bits}. Put one quantizer behind the Concat, or give its inputs the same")
        if reach >= 1 << 40:
            mult, offset, reach, unit, error = self._rounded(node, full, shift, low, high)
            view = full.but(error=tuple(e + error for e in full.error))
        lows = [m * int(a) + o for m, o, a in zip(mult, offset, low, strict=True)]
        highs = [m * int(b) + o for m, o, b in zip(mult, offset, high, strict=True)]
        edge = self.b.add(ir.Requantize(self.b.unique(f"{source}.common"), (source,), np.array(mult), np.array(offset), 0,
                                        min(lows), max(highs), frac_bits=frac_bits(unit) if full.shift[0] == 0 else None))
        return view.but(edge=edge, scale=(unit,), shift=(full.shift[0],))

    def _rounded(self, node: OnnxNode, full: View, shift: list[Fraction], low: np.ndarray, high: np.ndarray):
        """Return multipliers, offsets, reach, unit and error of outputs that are rounded to the bits that the user allows."""
        if self.output_bits is None:
            refuse(node, "the outputs have scales of their own, and integers with one scale for all would take more than 40 bits; "
                   "allow a rounding of the outputs with --output-bits N (its error is printed), or put a quantizer at the output")
        assert self.output_bits is not None
        peak = max(max(abs(s * int(a) + t), abs(s * int(b) + t)) for s, t, a, b in zip(full.scale, shift, low, high, strict=True))
        unit = Fraction(2) ** (math.frexp(float(peak))[1] - self.output_bits + 1)
        while True:                                # the multipliers' own rounding, times the sums, stays below one unit
            fine = unit / (int(max(np.abs(low).max(), np.abs(high).max())) + 1)
            fine = Fraction(2) ** (math.frexp(float(fine))[1] - 1)
            mult, offset = [round(s / fine) for s in full.scale], [round(t / fine) for t in shift]
            reach = max(max(abs(m * int(a) + o), abs(m * int(b) + o)) for m, o, a, b in zip(mult, offset, low, high, strict=True))
            if reach < 1 << 61:
                break
            unit *= 2
        error = float(unit)
        self.b.note(f"The outputs are rounded: each is off by less than {error:.3g}")
        return mult, offset, reach, fine, error
