"""Number formats of weights and activations: their levels, and exact encoding to and from ROM codes.

Spec text: ``dfp:b=4``, ``dfp:b=4,fl=5``, ``dfp:b=4,fl=5,narrow``, ``po2:b=3,emax=-2``, ``bipolar``. ``fl`` and ``emax`` left out
mean: chosen from the data, by the rule that ``rule=mse|range|learned`` names (mse). ``channel``: one scale per output
channel. Widths are in bits and include the sign.
"""

import warnings
from dataclasses import dataclass

import numpy as np

from .arith import bit_range
from .errors import FormatError

__all__ = ["FixedPoint", "PowerOfTwo", "Bipolar", "Format", "Spec", "parse_spec", "MAX_WIDTH", "MAX_PO2_WIDTH", "RULES"]

MAX_WIDTH = 16


def _check_width(width: int, least: int, what: str) -> None:
    if not isinstance(width, int) or isinstance(width, bool) or not least <= width <= MAX_WIDTH:
        raise FormatError(f"Width of {what} must be an integer of {least}..{MAX_WIDTH} bits, not {width!r}")


@dataclass(frozen=True)
class FixedPoint:
    """Dynamic fixed point (DFP): integer codes times ``2**-frac_bits``.

    Parameters
    ----------
    width : int
        Bits of the code, sign included; 2..16 signed, 1..16 unsigned.
    frac_bits : int
        Binary digits after the point; any sign.
    signed : bool
        Two's complement if true.
    narrow : bool
        Leave out the most negative code, which makes the levels symmetric.

    Raises
    ------
    FormatError
        Width outside the range above.
    """

    width: int
    frac_bits: int
    signed: bool = True
    narrow: bool = False

    def __post_init__(self) -> None:
        _check_width(self.width, 2 if self.signed else 1, "signed dfp" if self.signed else "unsigned dfp")

    @property
    def range(self) -> tuple[int, int]:
        """Lowest and highest code."""
        lo, hi = bit_range(self.width, self.signed)
        return (lo + 1 if self.narrow and self.signed else lo, hi)

    @property
    def text(self) -> str:
        """Spec text."""
        kind = "dfp" if self.signed else "udfp"
        return f"{kind}:b={self.width},fl={self.frac_bits}" + (",narrow" if self.narrow else "")

    def check(self, values: np.ndarray) -> None:
        """Raise `FormatError` if an integer value is not a code of this format."""
        lo, hi = self.range
        if values.size and (values.min() < lo or values.max() > hi):
            raise FormatError(f"Values {values.min()}..{values.max()} lie outside {self.text}, which holds {lo}..{hi}")

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return the ROM words (unsigned, ``width`` bits) of integer values."""
        self.check(values)
        return values & ((1 << self.width) - 1)

    def decode(self, words: np.ndarray) -> np.ndarray:
        """Return the integer values of ROM words; inverse of `encode`."""
        if not self.signed:
            return words
        return words - ((words >> (self.width - 1)) << self.width)


@dataclass(frozen=True)
class PowerOfTwo:
    """Powers of two (Po2) with an exact zero: ``{0} and +-2**e``, ``e = max_exp - (2**(width-1) - 2) .. max_exp``.

    The integer value of a level is ``+-2**(e - min_exp)``; the real one is that times ``2**min_exp``.
    The ROM word is ``sign, k`` with ``k = 0`` for zero and ``k = e - min_exp + 1`` otherwise.

    Parameters
    ----------
    width : int
        Bits of the code, sign included; 2..5 (more levels change nothing but the accumulator's width).
    max_exp : int
        Exponent of the largest level.
    """

    width: int
    max_exp: int

    def __post_init__(self) -> None:
        if not isinstance(self.width, int) or not 2 <= self.width <= 5:
            raise FormatError(f"Width of po2 must be an integer of 2..5 bits, not {self.width!r}")

    @property
    def min_exp(self) -> int:
        """Exponent of the smallest level other than zero."""
        return self.max_exp - ((1 << (self.width - 1)) - 2)

    @property
    def frac_bits(self) -> int:
        """Binary digits after the point of the integer values."""
        return -self.min_exp

    @property
    def range(self) -> tuple[int, int]:
        """Lowest and highest integer value."""
        top = 1 << (self.max_exp - self.min_exp)
        return -top, top

    @property
    def text(self) -> str:
        """Spec text."""
        return f"po2:b={self.width},emax={self.max_exp}"

    def check(self, values: np.ndarray) -> None:
        """Raise `FormatError` if an integer value is no level."""
        magnitude = np.abs(values)
        bad = (magnitude & (magnitude - 1) != 0) | (magnitude > self.range[1])
        if bad.any():
            raise FormatError(f"Value {values[bad].flat[0]} is no level of {self.text}")

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return the ROM words of integer values."""
        self.check(values)
        magnitude = np.abs(values)
        k = np.zeros_like(values)
        nonzero = magnitude > 0
        k[nonzero] = np.round(np.log2(magnitude[nonzero])).astype(values.dtype) + 1
        return ((values < 0).astype(values.dtype) << (self.width - 1)) | k

    def decode(self, words: np.ndarray) -> np.ndarray:
        """Return the integer values of ROM words; inverse of `encode`."""
        k = words & ((1 << (self.width - 1)) - 1)
        magnitude = np.where(k > 0, np.int64(1) << np.maximum(k - 1, 0), 0)
        return np.where(words >> (self.width - 1) != 0, -magnitude, magnitude)


@dataclass(frozen=True)
class Bipolar:
    """One bit, the levels -1 and +1 times ``2**-frac_bits``; the ROM word is 1 for +1."""

    frac_bits: int = 0
    width = 1
    range = (-1, 1)

    @property
    def text(self) -> str:
        """Spec text."""
        return f"bipolar:fl={self.frac_bits}"

    def check(self, values: np.ndarray) -> None:
        """Raise `FormatError` if a value is neither -1 nor +1."""
        if not np.isin(values, (-1, 1)).all():
            raise FormatError("Values of a bipolar tensor must be -1 or +1")

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return the ROM words of integer values."""
        self.check(values)
        return (values + 1) >> 1

    def decode(self, words: np.ndarray) -> np.ndarray:
        """Return the integer values of ROM words; inverse of `encode`."""
        return 2 * words - 1


Format = FixedPoint | PowerOfTwo | Bipolar


@dataclass(frozen=True)
class Spec:
    """A format as a user writes it: the scale may still be open.

    Attributes
    ----------
    kind : str
        ``"dfp"``, ``"udfp"``, ``"po2"`` or ``"bipolar"``.
    width : int
        Bits.
    scale : int or None
        ``fl`` or ``emax``; None means: choose from the data.
    narrow : bool
        Symmetric levels (dfp).
    rule : str
        How an open scale of weights is chosen: ``"mse"``, ``"range"`` or ``"learned"``.
    channel : bool
        One scale per output channel instead of one per layer.
    """

    kind: str
    width: int
    scale: int | None = None
    narrow: bool = False
    rule: str = "mse"
    channel: bool = False

    @property
    def text(self) -> str:
        """Spec text that parses back to this."""
        keys = [f"b={self.width}"] if self.kind != "bipolar" else []
        if self.scale is not None:
            keys.append(f"{'emax' if self.kind == 'po2' else 'fl'}={self.scale}")
        keys += ["narrow"] * self.narrow + [f"rule={self.rule}"] * (self.rule != "mse") + ["channel"] * self.channel
        return self.kind + (":" + ",".join(keys) if keys else "")

    def resolve(self, scale: int) -> Format:
        """Return the format with the scale filled in."""
        if self.kind == "po2":
            return PowerOfTwo(self.width, scale)
        if self.kind == "bipolar":
            return Bipolar(scale)
        return FixedPoint(self.width, scale, signed=self.kind == "dfp", narrow=self.narrow)


RULES = ("mse", "range", "learned")
MAX_PO2_WIDTH = 5

_FLAGS = ("narrow", "channel")
_KEYS = {"dfp": ("b", "fl", "narrow", "rule", "channel"), "udfp": ("b", "fl"), "po2": ("b", "emax", "rule", "channel"),
         "bipolar": ("fl", "rule", "channel")}


def parse_spec(text: str, clamp: bool = False) -> Spec:
    """Parse spec text such as ``dfp:b=4,fl=5``.

    Parameters
    ----------
    text : str
        See the module.
    clamp : bool
        Take Po2 of more than 5 bits as 5 bits, with a `UserWarning`, instead of refusing it: 15 exponents are what
        weights ever use, and more only widen the accumulators.

    Raises
    ------
    FormatError
        Unknown kind or key, missing or bad width; the message names the text and what is accepted.
    """
    usage = ("accepted: dfp:b=2..16[,fl=N][,narrow], udfp:b=1..16[,fl=N], po2:b=2..5[,emax=N], bipolar[:fl=N]; "
             "for weights also rule=mse|range|learned and channel, where fl or emax is left out")
    if not isinstance(text, str):
        raise FormatError(f"Format must be a text, not {text!r}; {usage}")
    kind, _, rest = text.strip().partition(":")
    if kind not in _KEYS:
        raise FormatError(f"Format {text!r} has the unknown kind {kind!r}; {usage}")
    values: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in rest.split(","))):
        key, eq, value = item.partition("=")
        if key not in _KEYS[kind] or key in values or (key in _FLAGS) == bool(eq):
            raise FormatError(f"Format {text!r} has the unknown, repeated or malformed key {item!r}; {usage}")
        values[key] = value
    numbers: dict[str, int] = {}
    for key in ("b", "fl", "emax"):
        try:
            numbers |= {key: int(values[key])} if key in values else {}
        except ValueError:
            raise FormatError(f"Format {text!r}: {key} must be an integer, not {values[key]!r}; {usage}") from None
    rule = values.get("rule", "mse")
    scale = numbers.get("emax" if kind == "po2" else "fl")
    if rule not in RULES or (scale is not None and ("rule" in values or "channel" in values)):
        raise FormatError(f"Format {text!r} has an unknown rule, or a rule or 'channel' beside a given scale; {usage}")
    width = 1 if kind == "bipolar" else numbers.get("b")
    if width is None:
        raise FormatError(f"Format {text!r} lacks the width b; {usage}")
    if clamp and kind == "po2" and width > MAX_PO2_WIDTH:
        warnings.warn(f"Format {text!r} is taken as po2:b={MAX_PO2_WIDTH}: 15 exponents hold all weights that matter, and more "
                      "only widen the accumulators", stacklevel=2)
        width = MAX_PO2_WIDTH
    spec = Spec(kind, width, scale, "narrow" in values, rule, "channel" in values)
    spec.resolve(0)                        # checks the width
    return spec
