"""The build: plan, emit, synthesise the core, link it into the board's top, place, route, pack."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from hwq.boards import link_script as link
from hwq.boards.registry import DEFAULT_BAUD, find_board, find_device
from hwq.boards.tops import board_files, device_files
from hwq.rtl.common import Cost

from ..emit import SYNTH_PRELUDE, emit_core, vector_codes, write_bench, write_vectors
from ..errors import EnvironmentError_, FitError, ModelError, ToolError
from ..ir.graph import Graph
from ..ir.storage import content_hash
from ..lower import lower
from ..passes import apply_passes
from ..plan import SHELL, Plan, device, make_plan, parse_fold
from ..toolchain import find, run, run_yosys, versions
from .report import make_report

__all__ = ["build", "DEFAULT_BOARD"]

DEFAULT_BOARD = "icebreaker"
_DEFAULT_MHZ = 24.0
_VECTORS = 8                                             # golden frames in a build


def _patience(plan: Plan) -> int:
    """Cycles after which a test bench may call it a deadlock: a frame through all stages, stalled at both ends."""
    return 4 * sum(planned.cycles for planned in plan.layers) + plan.device.technology.startup_cycles + 1000


def _claim(folder: Path) -> None:
    """Refuse a folder that holds something else than an earlier build."""
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / "manifest.json").exists())):
        raise EnvironmentError_(f"Output folder {folder} holds something that is no build; give another one with -o")


def build(graph: Graph, output: str | Path, *, target: str = "ice40", board: str | None = None, device_name: str | None = None,
          pcf: str | Path | None = None, folds: Iterable[str] = (), freq_mhz: float | None = None, baud: int = DEFAULT_BAUD,
          seed: int = 1, say: Callable[[str], None] = lambda text: None) -> dict:
    """Build a network and return the report, which also stands in ``output/report.json``.

    Parameters
    ----------
    graph : Graph
        As loaded from a ``.hwq`` file.
    output : str or Path
        Folder; made whole or not at all. An earlier build there is replaced, anything else refused.
    target : str
        ``ice40`` (the iCEBreaker unless board or device say otherwise) or ``verilog`` (stops at vendor-neutral Verilog).
    board, device_name : str, optional
        A board with its pins, or a bare device: placed for the report, a bitstream only with ``pcf``.
    pcf : path, optional
        Pins of ``clk``, ``rx``, ``tx`` for a bare device.
    folds : texts ``layer=pe,simd``
    freq_mhz : float, optional
        Clock of the core; 24 MHz on a board with PLL.
    baud, seed : int
        Of the link; of place and route.
    say : function of str
        Told each step.

    Raises
    ------
    ModelError, FitError, ToolError, EnvironmentError_
        Each says what, where, and what to do; nothing is left in ``output``.
    """
    output = Path(output)
    _claim(output)
    if target not in ("ice40", "verilog"):
        raise ModelError(f"Unknown target {target!r}; known: ice40, verilog")
    if board and device_name:
        raise ModelError("Give a board or a device, not both")
    chosen = None if target == "verilog" or device_name else find_board(board or DEFAULT_BOARD)
    part = None if target == "verilog" else chosen.device if chosen else find_device(str(device_name))
    planned_for = device(part.name if part else "generic")
    say("plan")
    ready = apply_passes(graph)
    plan = make_plan(ready, planned_for, folds=parse_fold(folds), reserve=SHELL if part else Cost())
    core = lower(ready, plan)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise EnvironmentError_(f"Cannot write to {output.parent}: {error.strerror}") from None
    try:
        say("emit RTLIL and Verilog")
        manifest = emit_core(graph, plan, core, work, target=target)
        write_vectors(graph, work / "vectors", vector_codes(graph, _VECTORS), manifest)
        write_bench(manifest, work, frames=_VECTORS, patience=_patience(plan))
        tools = ("yosys",)
        pnr: dict = {}
        hz = 0
        if part:
            tools = ("yosys", "nextpnr-ice40", "icepack")
            pnr, hz = _place(graph, manifest, work, chosen, part, planned_for.dsp > 0, pcf, freq_mhz, baud, seed, say)
        report = make_report(graph, plan, pnr, hz, versions(tools), board=chosen.name if chosen else None)
        (work / "report.json").write_text(json.dumps(report, indent=1) + "\n")
        manifest["files"] = {str(p.relative_to(work)): hashlib.sha256(p.read_bytes()).hexdigest()
                             for p in sorted(work.rglob("*")) if p.is_file() and p.name != "manifest.json" and p.parent.name != "logs"}
        (work / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
        work.chmod(0o755)
        if output.exists():
            shutil.rmtree(output)
        work.rename(output)
    except OSError as error:
        raise EnvironmentError_(f"Cannot write the build to {output}: {error}") from None
    finally:
        # Logs of a failed build help; they stay beside the place where the build would have been.
        if work.exists():
            kept = output.parent / f"{output.name}.logs"
            shutil.rmtree(kept, ignore_errors=True)
            if (work / "logs").exists():
                shutil.move(work / "logs", kept)
            shutil.rmtree(work, ignore_errors=True)
    return report


def _place(graph, manifest, work, chosen, part, dsp, pcf, freq_mhz, baud, seed, say) -> tuple[dict, int]:
    """Synthesise, link, place, route and pack in ``work``; return nextpnr's report and the clock in Hz."""
    say("synthesise the core")
    lines = link.synthesize_core_lines(part, options="-dsp" if dsp else "")
    script = SYNTH_PRELUDE + "\n".join([*lines[1:], "write_verilog -noattr netlist.v"]) + "\n"
    run_yosys(script, work / "logs" / "synth_core.log", work)
    say("synthesise the shell and link")
    i, o = manifest["input"], manifest["output"]
    shell = dict(in_bytes=i["bytes"], in_beats=i["beats"], out_bytes=o["bytes"], out_beats=o["beats"],
                 model_hash=bytes.fromhex(content_hash(graph))[:8], baud=baud)
    wanted = int((freq_mhz or (_DEFAULT_MHZ if chosen and chosen.pll_pad else (chosen.clock_hz / 1e6 if chosen else _DEFAULT_MHZ))) * 1e6)
    pins = None
    if chosen:
        text, pins, hz = board_files(chosen, wanted, **shell)
    else:
        hz = wanted
        text = device_files(clock_hz=hz, **shell)
        pins = Path(pcf).read_text() if pcf else None
    (work / "top.il").write_text(text)
    if pins:
        (work / "top.pcf").write_text(pins)
    run_yosys("\n".join(link.synthesize_top_lines(part)) + "\n", work / "logs" / "synth_top.log", work)
    run_yosys("\n".join(link.link_lines()) + "\n", work / "logs" / "link.log", work)
    say("place and route")
    log = work / "logs" / "nextpnr.log"
    try:
        run(find("nextpnr-ice40"), link.nextpnr_arguments(part, hz, pcf="top.pcf" if pins else None, report="pnr.json", seed=seed),
            log, work)
    except ToolError as error:
        text = log.read_text(errors="replace")
        if "Unable to" in text or "Failed to expand region" in text:
            tight = [line.removeprefix("Info:").removeprefix("ERROR:").strip() for line in text.splitlines()
                     if "Failed to" in line or "Unable to" in line or (line.rstrip().endswith("%") and int(line.split()[-1][:-1]) >= 95)]
            raise FitError(f"The design does not fit {part.name} after synthesis: {'; '.join(tight)}. "
                           "Type a smaller --fold layer=pe,simd for the largest layer, or another --board.") from None
        if "Max frequency" in text and "FAIL" in text:
            reached = [line for line in text.splitlines() if "Max frequency" in line][-1]
            raise FitError(f"The clock of {hz / 1e6:g} MHz is not reached: {reached.strip()}. Type a lower --freq.") from None
        raise error
    if pins:
        say("pack")
        run(find("icepack"), link.icepack_arguments(), work / "logs" / "icepack.log", work)
    return json.loads((work / "pnr.json").read_text()), hz
