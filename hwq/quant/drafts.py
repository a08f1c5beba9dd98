"""From a network's operators to the stages to be: batch norms and clamps join their layers, quantizers find places and signs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf

from ..errors import ModelError
from .found import Found
from .tracing import INPUT, Op

__all__ = ["Draft", "drafts_of"]

_SUMS = ("conv", "linear", "add", "avgpool", "gap")               # what makes sums, which a quantizer turns into codes
_NORMED = ("conv", "linear", "add")                               # what a batch norm may stand behind
_CHANNELS = ("maxpool", "pad", "upsample")                        # what leaves channels as they are
# what a clamp around zero may change places with
_MOVES = ("maxpool", "flatten", "unflatten", "shuffle", "select", "pad", "upsample")


FREE = (-inf, inf)                                                # no clamp


@dataclass
class Draft:
    """A stage to be.

    Attributes
    ----------
    op : Op
        Its operator; of the kind ``quantize`` where a concatenation reads the network's input, and of clamps that need a quantizer
        of their own.
    sources : tuple of int
        Places in the list of drafts; -1: the network's input.
    batchnorm : Op or None
        The batch norm behind it: of a convolution, linear layer or addition.
    clip : (float, float)
        Ends of the clamp that follows, before its quantizer: (0, inf) of a ReLU.
    slope : Op or None
        The LeakyReLU or PReLU that follows, before that clamp.
    raw : bool
        Whether its sums stay as they are: the network's last.
    tie : str
        Drafts of the same text, if not empty, get one scale.
    """

    op: Op
    sources: tuple[int, ...]
    batchnorm: Op | None = None
    clip: tuple[float, float] = FREE
    slope: Op | None = None
    raw: bool = False
    tie: str = ""
    negative: bool = field(default=True)                          # may its codes be negative?

    @property
    def kind(self) -> str:
        """Kind of its operator."""
        return self.op.kind

    @property
    def name(self) -> str:
        """Name of its operator."""
        return self.op.name

    @property
    def quantizes(self) -> bool:
        """Whether an activation quantizer stands behind it."""
        return (self.kind in _SUMS and not self.raw) or self.kind == "quantize"


class _Drafts:
    """Takes the operators in order."""

    def __init__(self, ops: Sequence[Op]) -> None:
        self.ops, self.drafts = ops, list[Draft]()
        self.place = {INPUT: INPUT}                               # which draft makes an operator's value
        self.readers = Counter(source for op in ops for source in op.sources)
        for index, op in enumerate(ops):
            if op.kind == "bn":
                self.place[index] = self._batchnorm(op)
            elif op.kind == "clip":
                self.place[index] = self._clip(op)
            elif op.kind == "slope":
                self.place[index] = self._slope(op)
            elif op.kind == "concat":
                self.place[index] = self._concat(op)
            else:
                self.place[index] = self._append(op, tuple(self.place[source] for source in op.sources))
        last = self._last_sums()
        if last is not None:
            last.raw = last.clip == FREE and last.slope is None
            if last.raw and last.kind == "add" and last.batchnorm is not None:
                raise ModelError(f"Layer '{last.batchnorm.name}': a batch norm behind an addition needs a quantizer behind it, and "
                                 "the network's result has none; put a ReLU or a layer behind it, or leave it out")
        for place, draft in enumerate(self.drafts):
            draft.negative = self._negative(place)

    def _append(self, op: Op, sources: tuple[int, ...]) -> int:
        self.drafts.append(Draft(op, sources))
        return len(self.drafts) - 1

    def _batchnorm(self, op: Op) -> int:
        source = op.sources[0]
        before = self.ops[source] if source != INPUT else None
        if before is None or before.kind not in _NORMED or self.readers[source] > 1:
            behind = before is not None and before.kind in ("clip", "slope")
            shared = before is not None and before.kind in _NORMED
            raise ModelError(f"Layer '{op.name}': a batch norm must stand directly behind a Conv2d or Linear layer or an addition"
                             f"{', before its ReLU' if behind else ', and be all that reads it' if shared else ''}")
        draft = self.place[source]
        self.drafts[draft].batchnorm = op
        return draft

    def _negative(self, draft: int) -> bool:
        if draft == INPUT:
            return False                                          # input codes are never negative
        made = self.drafts[draft]
        if made.clip[0] == 0 or made.kind == "clip":
            return False
        return made.kind in ("conv", "linear") or made.batchnorm is not None \
            or any(self._negative(source) for source in made.sources)

    def _clip(self, op: Op) -> int:
        place, (low, high) = self.place[op.sources[0]], op.found.clip
        found = self._decides(op.sources[0], high)
        if found is None:                                         # something else reads the value as it is
            if (low, high) == (0, inf):
                return self._append(op, (place,))
            # an end off the codes' grid wants codes of its own
            place = self._append(replace(op, found=Found("quantize")), (place,))
            found = [self.drafts[place]]
        for draft in found:
            draft.clip = max(draft.clip[0], low), min(draft.clip[1], high)
        return place

    def _slope(self, op: Op) -> int:
        place = self.place[op.sources[0]]
        if not self._negative(place):
            return place                                          # nothing that a slope would change
        found = self._bends(op.sources[0], op)
        if found is None:
            place = self._append(replace(op, found=Found("quantize")), (place,))
            found = [self.drafts[place]]
        for draft in found:
            draft.slope = op
        return place

    def _bends(self, index: int, slope: Op) -> list[Draft] | None:
        """Return the drafts whose quantizers can take up a slope, or None where it needs a quantizer of its own."""
        if not self._negative(self.place[index]):
            return []
        if self.readers[index] > 1:
            return None
        op, made = self.ops[index], self.drafts[self.place[index]]
        if op.kind in (*_NORMED, "bn"):
            return [made] if made.clip == FREE and made.slope is None else None
        if op.kind not in _CHANNELS and (op.kind not in (*_MOVES, "concat") or slope.found.several):
            return None                                           # such as an average, whose sums are divided
        every: list[Draft] = []
        for source in op.sources:
            found = self._bends(source, slope)
            if found is None:
                return None
            every += found
        return every

    def _decides(self, index: int, high: float) -> list[Draft] | None:
        """Return the drafts whose quantizers can clamp an operator's value, or None where others would notice."""
        if high == inf and not self._negative(self.place[index]):
            return []                                             # a ReLU of what is never negative
        if index == INPUT or self.readers[index] > 1:
            return None
        op, made = self.ops[index], self.drafts[self.place[index]]
        if op.kind in (*_SUMS, "bn") or made.kind == "quantize":
            return [made]
        every: list[Draft] = []
        for source in op.sources:                                 # of an operator that moves values, or of a concatenation
            found = self._decides(source, high)
            if found is None:
                return None
            every += found
        return every

    def _scales(self, draft: int) -> list[Draft]:
        """Return the drafts whose quantizers give a value its scale; none: it is the input's."""
        if draft == INPUT:
            return []
        made = self.drafts[draft]
        if made.kind in (*_SUMS, "quantize"):
            return [made]
        return [found for source in made.sources for found in self._scales(source)]

    def _concat(self, op: Op) -> int:
        sources = [self.place[source] for source in op.sources]
        scales = [self._scales(source) for source in sources]
        if any(scales):
            for k, found in enumerate(scales):
                if not found:                                     # the input's scale is given and would serve no other operand
                    sources[k] = self._append(Op(Found("quantize"), f"{op.name}.{k}", None, op.sources[k:k + 1], (), ()),
                                              (sources[k],))
                    scales[k] = [self.drafts[sources[k]]]
        tied = [draft for found in scales for draft in found]
        old = {draft.tie for draft in tied} - {""}
        for draft in self.drafts:
            if draft.tie in old or any(draft is each for each in tied):
                draft.tie = op.name
        return self._append(op, tuple(sources))

    def _last_sums(self) -> Draft | None:
        """Return what makes the network's result, if pooling and the like alone lie between."""
        draft = self.place[len(self.ops) - 1]
        while draft != INPUT and self.drafts[draft].kind in _MOVES:
            draft = self.drafts[draft].sources[0]
        return self.drafts[draft] if draft != INPUT and self.drafts[draft].kind in _SUMS else None


def drafts_of(ops: Sequence[Op]) -> list[Draft]:
    """Return the stages to be, each behind those it reads.

    A clamp such as a ReLU goes into the quantizer of the sums before it, also past pooling, padding, flattening and concatenation,
    unless something else reads them without it; then it stays a stage of its own. So does the slope of a LeakyReLU or PReLU, which
    then gets a quantizer of its own. The operands of a concatenation share one scale.

    Raises
    ------
    ModelError
        A batch norm that stands elsewhere than directly behind its layer or addition.
    """
    return _Drafts(ops).drafts
