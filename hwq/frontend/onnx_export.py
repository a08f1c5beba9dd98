"""From an integer network to a QONNX file whose float32 arithmetic is exact, or a refusal that names the node."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from .. import ir
from ..errors import EnvironmentError_, ModelError
from ..formats import Bipolar, FixedPoint
from ..passes.base import free_name
from .export_requant import Line, Steps, bit_range_of, line_of, steps_of

__all__ = ["Exported", "export_onnx", "EXACT"]

EXACT = 1 << 24                                          # float32 holds every integer below
DOMAIN = "qonnx.custom_op.general"


@dataclass(frozen=True, eq=False)
class Exported:
    """An ONNX model and what its tensors mean.

    Attributes
    ----------
    model : onnx.ModelProto
    input : str
        The float input: reals, channels first.
    units : dict of str to Fraction
        For each edge of the integer network: what one integer is worth in the tensor of the same name. Where that is no binary
        fraction, the tensor is a mean that float32 rounds.
    """

    model: Any
    input: str
    units: dict[str, Fraction]


def binary(unit: Fraction) -> bool:
    """Return whether a float can hold multiples of the unit."""
    return unit.denominator & (unit.denominator - 1) == 0


class _Exporter:
    """Makes the ONNX nodes of one node after the other; a tensor is called like its edge and holds ``integer * unit``."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.nodes: list[Any] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.constants: dict[str, np.ndarray] = {}
        self.units: dict[str, Fraction] = {}
        self.taken = {node.name for node in graph}

    # ---- what rules use
    def refuse(self, node: ir.Node, why: str) -> None:
        """Raise the `ModelError` of a node."""
        raise ModelError(f"{node.op} '{node.name}' cannot be exported: {why}")

    def fresh(self, base: str) -> str:
        """Return a name that nothing has."""
        name = free_name(base, self.taken)
        self.taken.add(name)
        return name

    def shape(self, edge: str) -> tuple[int, ...]:
        """Return the shape of an edge's tensor: batch of 1, channels first."""
        shape = self.graph.edges[edge].shape
        return (1, shape[2], shape[0], shape[1]) if len(shape) == 3 else (1, *shape)

    def emit(self, op: str, inputs: Sequence[str], output: str, shape: tuple[int, ...], **attributes: Any) -> str:
        """Append an ONNX node and return its output."""
        from onnx import helper
        domain = DOMAIN if op in ("Quant", "BipolarQuant", "MultiThreshold") else ""
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=f"{op}.{output}", domain=domain, **attributes))
        self.shapes[output] = shape
        return output

    def constant(self, base: str, values: np.ndarray) -> str:
        """Add a constant that is no number of the network."""
        name = self.fresh(base)
        self.constants[name] = values
        return name

    def numbers(self, node: ir.Node, base: str, values: np.ndarray, unit: Fraction) -> str:
        """Add ``values * unit`` as float32, exactly."""
        exact = np.asarray(values, np.float64) * float(unit)
        rounded = exact.astype(np.float32)
        if not np.array_equal(rounded, exact) or Fraction(float(unit)) != unit:
            self.refuse(node, f"its constants '{base}' have more than 24 binary digits, which is all that float32 holds")
        return self.constant(base, rounded)

    def quant(self, node: ir.Node, source: str, output: str, unit: Fraction, width: int, signed: bool, narrow: bool, mode: str,
              shape: tuple[int, ...]) -> str:
        """Append a Quant."""
        scale = self.numbers(node, f"{output}.scale", np.array(1), unit)
        zero, bits = self.constant(f"{output}.zeropt", np.array(0, np.float32)), \
            self.constant(f"{output}.bits", np.array(width, np.float32))
        return self.emit("Quant", (source, scale, zero, bits), output, shape, signed=int(signed),
                         narrow=int(narrow), rounding_mode=mode)

    def exact(self, node: ir.Node, edge: str) -> Fraction:
        """Return the unit of an edge that a node reads, which must be a float's."""
        if not binary(self.units[edge]):
            self.refuse(node, f"it reads means over {self.units[edge].denominator} or a multiple of it, which no float32 holds; a "
                        "Requantize must come first")
        return self.units[edge]

    def small(self, node: ir.Node, reach: int, what: str) -> None:
        """Refuse integers that float32 would round."""
        if reach >= EXACT:
            self.refuse(node, f"its {what} reach {reach:,}; float32, in which ONNX computes, is exact below {EXACT:,} only")

    # ---- rules
    def input(self, node: ir.Input) -> Fraction:
        unit = Fraction(2) ** -(node.frac_bits or 0)
        found = bit_range_of(node.lo, node.hi, node.lo, node.hi, True, True) \
            or bit_range_of(node.lo, node.hi, node.lo, node.hi, False, False)
        if found is None:
            self.refuse(node, f"its integers {node.lo}..{node.hi} take more than 16 bits")
        assert found is not None
        self.source = self.fresh("global_in")
        self.shapes[self.source] = self.shape(node.name)
        self.quant(node, self.source, node.name, unit, *found, "ROUND", self.shape(node.name))
        return unit

    def _weights(self, node: ir.Conv2d | ir.Linear, values: np.ndarray) -> str:
        """Append the quantizer of weights in ONNX's order; their floats are multiples of its scale."""
        fmt = node.weight_format
        assert fmt is not None
        unit = Fraction(2) ** -fmt.frac_bits
        raw, name = self.numbers(node, f"{node.name}.weight", values, unit), self.fresh(f"{node.name}.weight_quant")
        if isinstance(fmt, Bipolar):
            scale = self.numbers(node, f"{name}.scale", np.array(1), unit)
            return self.emit("BipolarQuant", (raw, scale), name, values.shape)
        lo, hi = fmt.range if isinstance(fmt, FixedPoint) else (int(values.min(initial=0)), int(values.max(initial=0)))
        found = bit_range_of(lo, hi, lo, hi, True, True) or bit_range_of(lo, hi, lo, hi, False, False)
        if found is None:
            self.refuse(node, f"its weights {lo}..{hi} take more than 16 bits")
        assert found is not None
        return self.quant(node, raw, name, unit, *found, "ROUND", values.shape)

    def _sums(self, node: ir.Conv2d | ir.Linear) -> tuple[Fraction, list[str]]:
        """Return the unit of the sums, and the bias if there is one."""
        edge, fmt = self.graph.edges[node.inputs[0]], node.weight_format
        assert fmt is not None
        largest = max(abs(edge.lo), abs(edge.hi), abs(node.pad_value) if isinstance(node, ir.Conv2d) and any(node.pads) else 0)
        gross = np.abs(node.weight.astype(object)).reshape(len(node.weight), -1).sum(axis=1) * largest \
            + np.abs(node.bias.astype(object))
        self.small(node, int(gross.max()), "sums")
        unit = self.exact(node, node.inputs[0]) * Fraction(2) ** -fmt.frac_bits
        return unit, [self.numbers(node, f"{node.name}.bias", node.bias, unit)] if node.bias.any() else []

    def conv(self, node: ir.Conv2d) -> Fraction:
        unit, bias = self._sums(node)
        source, pads = node.inputs[0], node.pads
        if any(pads) and node.pad_value:
            source, pads = self._border(node, source, pads, node.pad_value, self.fresh(f"{node.name}.pad")), (0, 0, 0, 0)
        weight = self._weights(node, node.weight.transpose(0, 3, 1, 2))
        self.emit("Conv", (source, weight, *bias), node.name, self.shape(node.name), kernel_shape=list(node.weight.shape[1:3]),
                  strides=list(node.stride), pads=list(pads), dilations=list(node.dilation), group=node.groups)
        return unit

    def linear(self, node: ir.Linear) -> Fraction:
        unit, bias = self._sums(node)
        self.emit("Gemm", (node.inputs[0], self._weights(node, node.weight), *bias), node.name, self.shape(node.name), transB=1)
        return unit

    def scaled(self, node: ir.Node, source: str, factor: Fraction, output: str | None = None) -> str:
        """Append a multiplication by a binary fraction, if it is not 1."""
        if factor == 1:
            return source
        name = output or self.fresh(f"{node.name}.scaled")
        return self.emit("Mul", (source, self.numbers(node, f"{name}.factor", np.array(factor.numerator),
                                                      Fraction(1, factor.denominator))), name, self.shapes[source])

    def add(self, node: ir.Add) -> Fraction:
        units = [self.exact(node, source) for source in node.inputs]
        ends = [self.graph.edges[source] for source in node.inputs]
        self.small(node, sum(max(abs(e.lo), abs(e.hi)) * abs(m) for e, m in zip(ends, node.mult, strict=True)), "sums")
        unit = units[0] / node.mult[0] if node.mult[0] > 0 else units[0]
        if not binary(unit):
            unit = units[0]
        operands = [self.scaled(node, source, m * unit / u) for source, u, m in zip(node.inputs, units, node.mult, strict=True)]
        self.emit("Add", operands, node.name, self.shape(node.name))
        return unit

    def concat(self, node: ir.Concat) -> Fraction:
        units = [self.exact(node, source) for source in node.inputs]
        self.emit("Concat", [self.scaled(node, source, units[0] / u) for source, u in zip(node.inputs, units, strict=True)],
                  node.name, self.shape(node.name), axis=1)
        return units[0]

    def max_pool(self, node: ir.MaxPool2d) -> Fraction:
        self.emit("MaxPool", node.inputs, node.name, self.shape(node.name), kernel_shape=list(node.kernel),
                  strides=list(node.stride), pads=list(node.pads))
        return self.units[node.inputs[0]]

    def _mean(self, node: ir.AvgPool2d | ir.GlobalAvgPool2d, pixels: int) -> Fraction:
        edge = self.graph.edges[node.name]
        self.small(node, max(abs(edge.lo), abs(edge.hi)), "sums")
        return self.exact(node, node.inputs[0]) / pixels

    def average(self, node: ir.AvgPool2d) -> Fraction:
        self.emit("AveragePool", node.inputs, node.name, self.shape(node.name), kernel_shape=list(node.kernel),
                  strides=list(node.stride), pads=list(node.pads), count_include_pad=1)
        return self._mean(node, node.kernel[0] * node.kernel[1])

    def global_average(self, node: ir.GlobalAvgPool2d) -> Fraction:
        height, width, _ = self.graph.edges[node.inputs[0]].shape
        self.emit("GlobalAveragePool", node.inputs, node.name, self.shape(node.name))
        return self._mean(node, height * width)

    def _border(self, node: ir.Node, source: str, pads: tuple[int, int, int, int], value: int, output: str) -> str:
        top, left, bottom, right = pads
        batch, channels, height, width = self.shapes[source]
        ends = self.constant(f"{output}.pads", np.array([0, 0, top, left, 0, 0, bottom, right], np.int64))
        number = self.numbers(node, f"{output}.value", np.array(value), self.exact(node, node.inputs[0]))
        return self.emit("Pad", (source, ends, number), output,
                         (batch, channels, height + top + bottom, width + left + right), mode="constant")

    def pad(self, node: ir.Pad) -> Fraction:
        source, (top, left, bottom, right) = node.inputs[0], (max(pad, 0) for pad in node.pads)
        if min(node.pads) < 0:
            batch, channels, height, width = self.shapes[source]
            first, last = [-min(pad, 0) for pad in node.pads[:2]], [size + min(pad, 0) for size, pad in
                                                                    zip((height, width), node.pads[2:], strict=True)]
            name = node.name if max(node.pads) <= 0 else self.fresh(f"{node.name}.crop")
            bounds = [self.constant(f"{name}.{what}", np.array(v, np.int64))
                      for what, v in (("starts", first), ("ends", last), ("axes", [2, 3]))]
            source = self.emit("Slice", (source, *bounds), name, (batch, channels, last[0] - first[0], last[1] - first[1]))
        if max(node.pads) > 0 or source == node.inputs[0]:
            self._border(node, source, (top, left, bottom, right), node.value, node.name)
        return self.units[node.inputs[0]]

    def upsample(self, node: ir.Upsample) -> Fraction:
        area = self.constant(f"{node.name}.roi", np.zeros(0, np.float32))
        scales = self.constant(f"{node.name}.scales", np.array([1, 1, *node.factor], np.float32))
        self.emit("Resize", (node.inputs[0], area, scales), node.name, self.shape(node.name), mode="nearest", nearest_mode="floor",
                  coordinate_transformation_mode="asymmetric")
        return self.units[node.inputs[0]]

    def select(self, node: ir.Select) -> Fraction:
        places = self.constant(f"{node.name}.channels", node.channels)
        self.emit("Gather", (node.inputs[0], places), node.name, self.shape(node.name), axis=1)
        return self.units[node.inputs[0]]

    def flatten(self, node: ir.Flatten) -> Fraction:
        source = node.inputs[0]
        shape = self.shape(source)
        if len(shape) == 4 and shape[1] > 1 and shape[2] * shape[3] > 1:             # pixel by pixel, as the integer network does
            source = self.emit("Transpose", (source,), self.fresh(f"{node.name}.last"),
                               (1, shape[2], shape[3], shape[1]), perm=[0, 2, 3, 1])
        self.emit("Flatten", (source,), node.name, self.shape(node.name), axis=1)
        return self.units[node.inputs[0]]

    def argmax(self, node: ir.ArgMax) -> Fraction:
        if any(not isinstance(reader, ir.Output) for reader in self.graph.readers(node.name)):
            self.refuse(node, "something reads the class; supported: as the last node")
        self.exact(node, node.inputs[0])
        self.emit("ArgMax", node.inputs, node.name, (1, 1), axis=1, keepdims=1)
        return Fraction(1)

    def requantize(self, node: ir.Requantize) -> Fraction:
        source, out = node.inputs[0], Fraction(2) ** -(node.frac_bits or 0)
        edge, unit = self.graph.edges[source], self.units[source]
        line = line_of(node, edge, EXACT) if binary(unit) else None
        if line is not None:
            self._line(node, line, source, unit, out)
        else:
            self._steps(node, steps_of(node, edge), source, unit, out)
        return out

    def _per_channel(self, values: np.ndarray, source: str) -> np.ndarray:
        return values.reshape(1, -1, *[1] * (len(self.shape(source)) - 2))

    def _line(self, node: ir.Requantize, line: Line, source: str, unit: Fraction, out: Fraction) -> None:
        """Multiply, add, and round down (or to even) by a Quant; each only where it does something."""
        shape, fine = self.shape(node.name), out / (1 << line.shift)
        todo = (["Mul"] if (line.mult != 1).any() or fine != unit else []) + (["Add"] if line.offset.any() else [])
        for op in todo:
            last = op == todo[-1] and line.quant is None
            output = node.name if last else self.fresh(f"{node.name}.{op.lower()}")
            values, worth = (line.mult, fine / unit) if op == "Mul" else (line.offset, fine)
            source = self.emit(op, (source, self.numbers(node, f"{output}.constant",
                                                         self._per_channel(values, node.inputs[0]), worth)), output, shape)
        if line.quant is not None:
            self.quant(node, source, node.name, out, *line.quant, "ROUND" if node.half_even else "FLOOR", shape)
        elif not todo:
            self.emit("Identity", (source,), node.name, shape)

    def _steps(self, node: ir.Requantize, steps: Steps, source: str, unit: Fraction, out: Fraction) -> None:
        """Count thresholds; of a mean that float32 rounds, half-way between two sums."""
        shape = self.shape(node.name)
        if (steps.sign < 0).any():
            name = self.fresh(f"{node.name}.mul")
            source = self.emit("Mul", (source, self.numbers(node, f"{name}.constant", self._per_channel(steps.sign, source),
                                                            Fraction(1))), name, shape)
        reach = int(np.abs(steps.thresholds).max(initial=0))
        if binary(unit):
            self.small(node, reach, "thresholds")
            table = self.numbers(node, f"{node.name}.thresholds", steps.thresholds, unit)
        else:
            self.small(node, 8 * reach, "thresholds between means")
            table = self.constant(f"{node.name}.thresholds", ((steps.thresholds - 0.5) * float(unit)).astype(np.float32))
        kind = (f"{'INT' if steps.lo < 0 else 'UINT'}"
                f"{max(abs(steps.lo), steps.lo + steps.thresholds.shape[1]).bit_length() + (steps.lo < 0)}")
        self.emit("MultiThreshold", (source, table), node.name, shape, out_dtype=kind, out_scale=float(out),
                  out_bias=float(steps.lo * out), data_layout="NCHW" if len(shape) == 4 else "NC")

    def output(self, node: ir.Output) -> Fraction:
        return self.exact(node, node.inputs[0])

    def run(self) -> Exported:
        """Return the model of the whole network."""
        for node in self.graph:
            if type(node) not in _RULES:
                self.refuse(node, "ONNX has no operator of exactly this function; supported: "
                            f"{', '.join(kind.__name__ for kind in _RULES)}")
            self.units[node.name] = _RULES[type(node)](self, node)
            unit = self.units[node.name]
            if not Fraction(1, 1 << 100) <= unit <= 1 << 90:
                self.refuse(node, f"one integer is worth {float(unit):.3g}, which float32 does not hold with 24 digits")
        return Exported(self._model(), self.source, self.units)

    def _model(self) -> Any:
        from onnx import TensorProto, helper, numpy_helper
        def info(name: str) -> Any:
            kind = TensorProto.INT64 if self.graph.by_name.get(name) and self.graph.by_name[name].op == "ArgMax" \
                else TensorProto.FLOAT
            return helper.make_tensor_value_info(name, kind, self.shapes[name])
        last = self.graph.output.inputs[0]
        inner = [info(name) for name in self.shapes if name not in (self.source, last)]
        graph = helper.make_graph(self.nodes, self.graph.name, [info(self.source)], [info(last)],
                                  [numpy_helper.from_array(values, name) for name, values in self.constants.items()],
                                  value_info=inner)
        model = helper.make_model(graph,
                                  opset_imports=[helper.make_opsetid("", 13), helper.make_opsetid(DOMAIN, 1)], producer_name="hwq")
        model.ir_version = 8
        if self.graph.classes:
            helper.set_model_props(model, {"classes": "\n".join(self.graph.classes)})
        return model


_RULES: dict[type[ir.Node], Any] = {
    ir.Input: _Exporter.input, ir.Conv2d: _Exporter.conv, ir.Linear: _Exporter.linear,
    ir.Add: _Exporter.add, ir.Concat: _Exporter.concat, ir.MaxPool2d: _Exporter.max_pool, ir.AvgPool2d: _Exporter.average,
    ir.GlobalAvgPool2d: _Exporter.global_average, ir.Pad: _Exporter.pad,
    ir.Upsample: _Exporter.upsample, ir.Select: _Exporter.select, ir.Flatten: _Exporter.flatten, ir.ArgMax: _Exporter.argmax,
    ir.Requantize: _Exporter.requantize, ir.Output: _Exporter.output,
}


def export_onnx(graph: ir.Graph) -> Exported:
    """Return the QONNX model that computes a network's integers, each times its scale, exactly in float32.

    A tensor is called like its edge, channels first. Rounding by a shift is an addition and a ``Quant`` with
    ``rounding_mode`` ``FLOOR``, because half up is none of QONNX's modes; ties to even are ``ROUND``; where no exact line in
    float32 leads to it, thresholds: ``MultiThreshold``.

    Raises
    ------
    ModelError
        Integers or constants that float32 would round, by the node's name.
    EnvironmentError_
        The package ``onnx`` is not installed.
    """
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise EnvironmentError_("Writing ONNX files needs the package 'onnx'; install it with: pip install 'hwq[onnx]'") from None
    return _Exporter(graph).run()
