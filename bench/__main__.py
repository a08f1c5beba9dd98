"""All that is measured beside the peers, in one go: ``python -m bench [networks] [busy] [wired] [--write] [--json FILE]``.

``networks``: N1 to N4 through the public API beside the peers' rows (`bench.peers`). ``busy``: how busy their layers are
(`bench.busy`). ``wired``: adder graphs beside da4ml, live if it is installed (`bench.wired`). ``--write`` puts what was measured
between the marks of docs/benchmarks.md.
"""

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hwq.files import write_atomic
from hwq.rtl.sharing import Effort

from . import busy, peers, wired
from .networks import networks

DOCS = Path(__file__).parent.parent / "docs" / "benchmarks.md"


def replaced(text: str, name: str, new: str) -> str:
    """Return the text with what stands between ``<!-- bench NAME -->`` and ``<!-- end -->`` replaced."""
    mark = f"<!-- bench {name} -->"
    result, count = re.subn(rf"({re.escape(mark)}\n).*?(<!-- end -->)", lambda m: f"{m[1]}{new}\n{m[2]}", text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"The text must have the mark {mark} once, followed by <!-- end -->; it has {count}")
    return result


def _networks(arguments: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    for k, row in enumerate(peers.rows(networks(), place=not arguments.pack_only)):
        yield peers.table([row], head=k == 0), row


def _busy(arguments: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    for graph in networks().values():
        text = busy.line(graph)
        yield f"* {text}.", text


def _wired(arguments: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    found = []
    for name in wired.KNOWN:
        found.append(wired.row(name, Effort(arguments.starts, arguments.steps)))
        yield wired.table(found[-1:], head=len(found) == 1), found[-1]
    yield f"\n{wired.mean(found)}", wired.mean(found)


# Each yields lines as they are measured, with their figures.
PARTS = {"networks": _networks, "busy": _busy, "wired": _wired}


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all if none is given")
    parser.add_argument("--pack-only", action="store_true", help="networks: do not place; quick, but without a clock")
    parser.add_argument("--starts", type=int, default=20, help="wired: greedy starts")
    parser.add_argument("--steps", type=int, default=20_000, help="wired: steps of the search")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--write", action="store_true", help="update docs/benchmarks.md")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - PARTS.keys():
        parser.error(f"Unknown part {', '.join(sorted(unknown))}; known: {', '.join(PARTS)}")
    figures: dict[str, list[Any]] = {}
    for name in arguments.parts or PARTS:
        print(f"## {name}\n", flush=True)
        lines, figures[name] = [], []
        for line, figure in PARTS[name](arguments):
            print(line, flush=True)
            lines.append(line)
            figures[name].append(figure)
        if arguments.write:
            write_atomic(DOCS, replaced(DOCS.read_text(encoding="utf-8"), name, "\n".join(lines)).encode())
    if arguments.json:
        write_atomic(arguments.json, (json.dumps(figures, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
