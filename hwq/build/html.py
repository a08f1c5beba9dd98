"""The report as one page that needs nothing else: jinja2, inline SVG, no script."""

from pathlib import Path

from ..emit import template
from .report import Report

__all__ = ["render_html", "write_html"]


def render_html(report: Report) -> str:
    """Return the page; the same report gives the same bytes."""
    return template(__package__, "report.html.j2").render(r=report, placed="used" in report,
                                                          weighted=[row for row in report["layers"] if "weight_bits" in row])


def write_html(report: Report, path: Path) -> None:
    """Write the page to ``path``."""
    path.write_text(render_html(report), encoding="utf-8")
