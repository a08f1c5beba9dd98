"""What a verification found."""

from dataclasses import asdict, dataclass, field
from typing import Any

from .control import Control

__all__ = ["VerifyReport"]


@dataclass(frozen=True)
class VerifyReport:
    """A verification without a difference; a difference is a `VerifyError`.

    Attributes
    ----------
    name, level, simulator : str
        Network; ``rtl`` or ``netlist``; one of `SIMULATORS`.
    images, identical, available : int
        Images that ran, images whose every result equals the interpreter's, images there were.
    right : int or None
        Right classes of those images, if there are labels.
    accuracy : float or None
        Their share.
    cycles_per_frame : float or None
        Cycles a frame in steady state without stalls, measured.
    planned_cycles : int
        The same by the plan.
    latency : int or None
        Cycles from a frame's first beat in to its last result, in the empty core without stalls, measured.
    stalls : int or None
        Seed of the random stalls.
    faults : dict of str to int
        Resets, short and long frames that were thrown in between.
    benches : list of str
        cocotb benches that passed.
    four_state : bool
        Whether the simulator knows X, and would have reported one on a valid output.
    negative_control : Control or None
    simulated_cycles : int or None
    seconds : dict of str to float
        Wall time by step.
    tools, hashes : dict of str to str
        Versions of the tools; SHA-256 of the network, of the file of the core that was simulated (``accel.v``, ``netlist.v``;
        ``accel.il`` for Amaranth's simulator), of the input codes.
    note : str
        What was done otherwise than asked or usual, and why; empty in most cases.
    """

    name: str
    level: str
    simulator: str
    images: int
    identical: int
    available: int
    right: int | None
    accuracy: float | None
    cycles_per_frame: float | None
    planned_cycles: int
    latency: int | None
    stalls: int | None
    faults: dict[str, int]
    four_state: bool
    simulated_cycles: int | None
    seconds: dict[str, float]
    tools: dict[str, str]
    hashes: dict[str, str]
    benches: list[str] = field(default_factory=list)
    negative_control: Control | None = None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the report as text."""
        lines = [f"{self.level}, {self.simulator}: {self.identical:,} of {self.images:,} images identical to the reference"
                 + (f"; {self.right:,} right, accuracy {100 * self.accuracy:.2f} %" if self.accuracy is not None else "")]
        if self.cycles_per_frame is not None:
            lines.append(f"  {self.cycles_per_frame:,.1f} cycles a frame without stalls (planned {self.planned_cycles:,}), "
                         f"latency {self.latency:,} cycles")
        conditions = ["no stalls" if self.stalls is None else f"random stalls at both ends (seed {self.stalls})"]
        if self.faults:
            conditions.append(", ".join(f"{count} {name if name == 'resets' else f'{name} frames'}"
                                        for name, count in self.faults.items()) + " thrown in")
        if self.benches:
            conditions.append(f"benches {', '.join(self.benches)}")
        if self.four_state:
            conditions.append("no X on a valid output")
        lines.append("  " + "; ".join(conditions))
        if self.negative_control:
            c = self.negative_control
            lines.append(f"  negative control: a flipped bit of '{c.layer}' " + (
                f"changes {c.different} of {c.images} images; bench {c.bench} failed with it, as it must" if c.bench else
                f"was noticed on {c.different} of {c.images} images, as it must be"))
        return [*lines, *([f"  note: {self.note}"] if self.note else [])]
