"""The build: plan, emit, synthesise the core, link it into the board's top, place, route, pack."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwq.boards import link_script as link
from hwq.boards.clocks import made_hz, raised_hz
from hwq.boards.registry import DEFAULT_BAUD, Board, find_board, find_device
from hwq.boards.registry import Device as Part
from hwq.boards.tops import board_files, device_files
from hwq.boards.uart import uart_divisor
from hwq.rtl.common import Cost

from ..emit import SYNTH_PRELUDE, Manifest, emit_core, vector_codes, write_bench, write_vectors
from ..errors import FitError, FormatError, ToolError
from ..ir.graph import Graph
from ..lower import lower
from ..passes import apply_passes
from ..plan import SHELL, Plan, cycles_for, device, hinting, make_plan, parse_fold
from ..toolchain import find, run_yosys, versions
from .diagnose import ClockError
from .html import write_html
from .link_sim import write_link_sim
from .output import output_folder
from .pins import check_pins, read_pcf
from .place import Placed, place
from .report import Report, make_report

__all__ = ["build", "DEFAULT_BOARD", "TARGETS"]

DEFAULT_BOARD = {"ice40": "icebreaker", "ecp5": "ulx3s"}
TARGETS = ("ice40", "ecp5", "verilog")
_DEFAULT_MHZ = 24.0
_LEAST_MHZ = 0.1
_MAX_SEEDS = 64
_RAISES = 3                                              # tries to reach a higher clock
_VECTORS = 8                                             # golden frames in a build


@dataclass(frozen=True)
class _Choice:
    """What is built, checked before anything is done."""

    board: Board | None
    part: Part | None
    hz: int
    pcf: str | None
    baud: int
    seeds: tuple[int, ...]
    raises: bool = False                                 # the clock to what place and route reach

    @property
    def tools(self) -> tuple[str, ...]:
        """Tools that it takes."""
        if not self.part:
            return ("yosys",)
        pack = (self.part.family.pack,) if self.board or self.pcf else ()
        return ("yosys", self.part.family.nextpnr, *pack)


def _choose(target: str | None, board: str | None, device_name: str | None, pcf: str | Path | None, freq_mhz: float | None,
            baud: int | None, seed: int | None, seeds: int | None) -> _Choice:
    if target is not None and target not in TARGETS:
        raise FormatError(f"Target must be one of {', '.join(TARGETS)}, not {target!r}")
    if target == "verilog":
        given = [name for name, value in (("--board", board), ("--device", device_name), ("--pcf", pcf), ("--freq", freq_mhz),
                                          ("--baud", baud), ("--seed", seed), ("--seeds", seeds)) if value is not None]
        if given:
            raise FormatError(f"--target verilog stops before place and route: leave out {', '.join(given)}")
        return _Choice(None, None, 0, None, 0, ())
    if board is not None and device_name is not None:
        raise FormatError("--board and --device exclude each other: a board has its device and its pins")
    if pcf is not None and device_name is None:
        raise FormatError("--pcf goes with --device only: a board has its own pins")
    if seeds is not None and not 1 <= seeds <= _MAX_SEEDS:
        raise FormatError(f"--seeds must be 1 to {_MAX_SEEDS}, not {seeds}")
    if seed is not None and not 0 <= seed < 2**31:
        raise FormatError(f"--seed must be 0 to {2**31 - 1}, not {seed}")
    chosen = None if device_name is not None else find_board(board if board is not None else DEFAULT_BOARD[target or "ice40"])
    part = chosen.device if chosen else find_device(str(device_name))
    if target is not None and part.family.name != target:
        raise FormatError(f"{board or device_name} is for --target {part.family.name}, not {target}; leave out --target")
    if pcf is not None and part.family.pins != "pcf":
        raise FormatError(f"--pcf is for iCE40; {part.name} gets its pins from a board: --board {DEFAULT_BOARD[part.family.name]}")
    most = part.family.max_mhz
    if freq_mhz is not None and not (math.isfinite(freq_mhz) and _LEAST_MHZ <= freq_mhz <= most):
        raise FormatError(f"--freq must be {_LEAST_MHZ:g} to {most:g} MHz, not {freq_mhz:g}")
    raises = freq_mhz is None and chosen is not None
    if freq_mhz is None:
        freq_mhz = chosen.clock_hz / 1e6 if chosen and not chosen.pll_pad else _DEFAULT_MHZ
    hz = round(freq_mhz * 1e6)
    baud = DEFAULT_BAUD if baud is None else baud
    # Both refuse what they cannot make.
    uart_divisor(made_hz(chosen, hz) if chosen else hz, baud)
    first = 1 if seed is None else seed
    return _Choice(chosen, part, hz, read_pcf(pcf) if pcf is not None else None, baud,
                   tuple(range(first, first + (seeds or 1))), raises)


def _enough_cycles(fps: float, choice: _Choice, max_cycles: int | None) -> int:
    """Return the cycles a frame that make ``fps`` frames a second at the least clock the build may end with."""
    if max_cycles is not None:
        raise FormatError("--fps and --cycles exclude each other: frames a second are cycles at a clock")
    if choice.part is None:
        raise FormatError("--fps needs a clock, which --target verilog has none of: give --cycles")
    return cycles_for(fps, made_hz(choice.board, choice.hz) if choice.board else choice.hz)


def _patience(plan: Plan) -> int:
    """Cycles after which a test bench may call it a deadlock: a frame through all stages, stalled at both ends."""
    return 4 * sum(planned.cycles for planned in plan.layers) + plan.device.technology.startup_cycles + 1000


def build(graph: Graph, output: str | Path, *, target: str | None = None, board: str | None = None, device_name: str | None = None,
          pcf: str | Path | None = None, folds: Iterable[str] = (), max_cycles: int | None = None, fps: float | None = None,
          tight: bool = False, freq_mhz: float | None = None, baud: int | None = None, seed: int | None = None,
          seeds: int | None = None, say: Callable[[str], None] = lambda text: None) -> Report:
    """Build a network and return the report, which also stands in ``output/report.json``.

    Parameters
    ----------
    graph : Graph
        As loaded from a ``.hwq`` file.
    output : str or Path
        Folder; made whole or not at all. An earlier build there is replaced, anything else refused.
    target : str, optional
        ``ice40`` (the iCEBreaker unless board or device say otherwise), ``ecp5`` (the ULX3S with an 85F),
        ``verilog`` (stops at vendor-neutral Verilog). Not given: that of board or device, ``ice40`` without them.
    board, device_name : str, optional
        A board with its pins, or a bare device: placed for the report, a bitstream only with ``pcf``.
    pcf : path, optional
        Pins of ``clk``, ``rx``, ``tx`` for a bare device.
    folds : texts ``layer=pe,simd`` or ``layer=wired``
    max_cycles : int, optional
        Cycles a frame that are fast enough: the smallest design that keeps to them. Not given: the fastest that fits.
    fps : float, optional
        Frames a second that are enough, instead of ``max_cycles``: at ``freq_mhz``, or at the clock that place and route start
        from.
    tight : bool
        Look for the least depth of every FIFO however large the network.
    freq_mhz : float, optional
        Clock of the core. Not given: as fast as place and route reach, by the board's PLL; 24 MHz on a bare device.
    baud : int, optional
        Of the link; 1,000,000.
    seed, seeds : int, optional
        First seed of place and route (1) and how many to try (1); the fastest result is kept.
    say : function of str
        Told each step.

    Raises
    ------
    ModelError, FormatError, FitError, ToolError, EnvironmentError_
        Each says what, where, and what to do; nothing is left in ``output``.
    """
    if max_cycles is not None and max_cycles < 1:
        raise FormatError(f"--cycles must be at least 1, not {max_cycles}")
    choice = _choose(target, board, device_name, pcf, freq_mhz, baud, seed, seeds)
    if fps is not None:
        max_cycles = _enough_cycles(fps, choice, max_cycles)
    for tool in choice.tools:                            # a missing tool is known before any work
        find(tool)
    with output_folder(Path(output)) as work:
        if choice.part and choice.pcf:
            say("check the pins")
            check_pins(choice.part, choice.pcf, work)
        say("plan")
        planned_for = device(choice.part.name if choice.part else "generic")
        ready = apply_passes(graph)
        wanted = parse_fold(folds)
        with hinting(graph, planned_for,
                     f" Or leave out --fold for {', '.join(wanted)}: the automatic choice may fit." if wanted else ""):
            plan = make_plan(ready, planned_for, folds=wanted, reserve=SHELL if choice.part else Cost(), max_cycles=max_cycles,
                             tight=tight)
        core = lower(ready, plan)
        say("emit RTLIL and Verilog")
        manifest = emit_core(graph, plan, core, work, target=choice.part.family.name if choice.part else "verilog")
        write_vectors(graph, work / "vectors", vector_codes(graph, _VECTORS), manifest)
        write_bench(manifest, work, frames=_VECTORS, patience=_patience(plan))
        with hinting(graph, planned_for):
            placed = _place(manifest, work, choice, plan, say) if choice.part else None
        say("report")
        report = make_report(graph, plan, manifest, placed, work, versions(choice.tools),
                             board=choice.board.name if choice.board else None, baud=choice.baud)
        (work / "report.json").write_text(json.dumps(report, indent=1) + "\n")
        write_html(report, work / "report.html")
        manifest["files"] = {str(p.relative_to(work)): hashlib.sha256(p.read_bytes()).hexdigest()
                             for p in sorted(work.rglob("*"))
                             if p.is_file() and p.name != "manifest.json" and p.parent.name != "logs"}
        (work / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    return report


def _place(manifest: Manifest, work: Path, choice: _Choice, plan: Plan, say: Callable[[str], None]) -> Placed:
    """Synthesise, link, place, route and pack in ``work``."""
    part = choice.part
    assert part is not None
    i, o = manifest["input"], manifest["output"]
    shell: dict[str, Any] = dict(in_bytes=i["bytes"], in_beats=i["beats"], out_bytes=o["bytes"], out_beats=o["beats"],
                                 model_hash=bytes.fromhex(manifest["model_hash"])[:8], baud=choice.baud)
    start = _board(choice, choice.hz, shell, work)       # first: what its clock and its link refuse is said before the long steps
    say("synthesise the core")
    lines = link.synthesize_core_lines(part, options=part.family.dsp if plan.device.dsp else part.family.no_dsp)
    script = SYNTH_PRELUDE + "\n".join([*lines[1:], "write_verilog -noattr netlist.v"]) + "\n"
    run_yosys(script, work / "logs" / "synth_core.log", work)

    def attempt(hz: int) -> Placed:
        say("synthesise the shell and link")
        run_yosys("\n".join(link.synthesize_top_lines(part)) + "\n", work / "logs" / "synth_top.log", work)
        run_yosys("\n".join(link.link_lines(part)) + "\n", work / "logs" / "link.log", work)
        return place(part, plan, work, hz=hz, seeds=choice.seeds, pins=bool(choice.pcf or choice.board), say=say)

    placed = attempt(start)
    if choice.raises:
        placed = _raised(placed, choice, lambda hz: attempt(_board(choice, hz, shell, work)), say)
    manifest["link"] = write_link_sim(work, clock_hz=placed.hz, **shell)
    return placed


def _board(choice: _Choice, hz: int, shell: dict[str, Any], work: Path) -> int:
    """Write the top for a clock, and its pins; return the clock that comes."""
    assert choice.part is not None
    pins = choice.pcf
    if choice.board:
        text, pins, hz = board_files(choice.board, hz, **shell)
    else:
        text = device_files(clock_hz=hz, **shell)
    (work / "top.il").write_text(text)
    if pins:
        (work / f"top.{choice.part.family.pins}").write_text(pins)
    return hz


def _raised(placed: Placed, choice: _Choice, attempt: Callable[[int], Placed], say: Callable[[str], None]) -> Placed:
    """Place again at the clock that was reached, or near it: another clock is another divisor, hence another placement."""
    limit, whole = placed.fmax_mhz * 1e6, True
    for _ in range(_RAISES):
        hz = raised_hz(choice.board, limit, choice.baud)
        if hz is None or hz <= 1.02 * placed.hz:
            break
        say(f"raise the clock to {hz / 1e6:.4g} MHz")
        try:
            placed, whole = attempt(hz), True
            limit = placed.fmax_mhz * 1e6
        except (FitError, ToolError) as error:           # another clock's shell may find no placement where the first one did
            limit, whole = 0.96 * limit, False
            if isinstance(error, ClockError):
                limit = min(error.reached_hz, limit)
    return placed if whole else attempt(placed.hz)       # a try that failed overwrote the files
