"""Reports, seeds, bare devices: real tools on a small network."""

import json
import re
from html.parser import HTMLParser

import pytest

from hwq.build import build, summary
from hwq.build.html import render_html
from hwq.build.report import link_rate, netlist_cells
from hwq.errors import EnvironmentError_, FitError
from hwq.toolchain import find

from .small import small_graph


@pytest.fixture(scope="module", autouse=True)
def tools():
    for tool in ("yosys", "nextpnr-ice40", "icepack"):
        try:
            find(tool)
        except EnvironmentError_ as error:
            pytest.skip(str(error)[:80])


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(folder, report) of the iCEBreaker."""
    folder = tmp_path_factory.mktemp("report") / "b"
    return folder, build(small_graph(), folder, freq_mhz=20, seeds=2, seed=3)


class Page(HTMLParser):
    """Checks that every tag is closed, and collects what a browser would fetch."""

    def __init__(self):
        super().__init__()
        self.open, self.fetched, self.rects = [], [], []

    def handle_starttag(self, tag, attrs):
        self.fetched += [value for key, value in attrs if key in ("src", "href")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        if tag == "rect":
            self.rects.append(dict(attrs))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def check_page(text):
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == [] and page.fetched == [] and "<script" not in text
    for rect in page.rects:
        assert 0 <= float(rect["width"]) <= 620 and float(rect["x"]) + float(rect["width"]) <= 750.1
    return page


def test_report(built):
    folder, report = built
    assert json.loads((folder / "report.json").read_text()) == report
    assert report["cycles"] == max(row["cycles"] for row in report["layers"])
    assert report["clock_mhz"] <= 20 <= report["fmax_mhz"]
    assert report["frames_per_s"] == pytest.approx(1e6 * report["clock_mhz"] / report["cycles"], abs=0.1)
    assert set(report["seeds"]) == {"3", "4"} and report["fmax_mhz"] == max(report["seeds"].values())
    assert report["seed"] in (3, 4) and report["seeds"][str(report["seed"])] == report["fmax_mhz"]
    assert report["router"] == "router1"
    # Every layer's blocks of the netlist are all of the core's, and all that was placed.
    assert sum(row["cells"].get("ebr", 0) for row in report["layers"]) == report["core_cells"]["ebr"] == report["used"]["ebr"][0]
    assert sum(row["cells"].get("lut", 0) for row in report["layers"]) <= report["core_cells"]["lut"]
    assert report["used"]["lc"][1] == 5280 and 0 < report["used"]["lc"][0] < 5280
    import hashlib
    for name, file in (("bitstream", "top.bin"), ("core", "accel.il"), ("verilog", "accel.v"), ("netlist", "netlist.v")):
        assert report["hashes"][name] == hashlib.sha256((folder / file).read_bytes()).hexdigest()
    assert not list(folder.glob("pnr*.json")) and not list(folder.glob("top.*.asc"))


def test_the_page_draws_blocks_of_the_devices_size(built):
    _, report = built
    blocks = sum(row["rom_blocks"] for row in report["layers"] if "pe" in row)
    larger = {**report, "rom_block_bits": 18_432 * blocks}         # an ECP5's
    row = next(row for row in report["layers"] if row.get("rom_blocks"))
    for one, bits in ((report, 4096), (larger, 18_432)):
        text = render_html(one)
        check_page(text)
        assert f"of {bits * row['rom_blocks']:,} in {row['rom_blocks']} block" in text


def test_same_bytes_again(built, tmp_path):
    """The seed that was kept, alone, gives the bitstream of the several."""
    folder, report = built
    build(small_graph(), tmp_path / "b", freq_mhz=20, seed=report["seed"])
    for name in ("accel.il", "accel.v", "netlist.v", "top.bin", "top.pcf"):
        assert (tmp_path / "b" / name).read_bytes() == (folder / name).read_bytes(), name


def test_html(built):
    folder, report = built
    page = check_page((folder / "report.html").read_text())
    text = (folder / "report.html").read_text()
    assert len(page.rects) >= 3 * len(report["layers"]) and "small on icebreaker" in text and "No bitstream" not in text
    assert f"{report['used']['lc'][0]:,} of 5,280" in text and report["hashes"]["model"] in text
    check_page(render_html({**report, "name": "<b>&", "board": None}))
    assert "&lt;b&gt;&amp; on up5k" in render_html({**report, "name": "<b>&", "board": None})


def test_summary(built):
    from rich.console import Console
    console = Console(width=160, record=True, file=open("/dev/null", "w"))
    console.print(summary(built[1]))
    text = console.export_text()
    for expected in ("net_conv", "Used, shell included: LC ", "EBR ", "SPRAM 0/4", "DSP ", "best of 2 seeds", "at 1,000,000 baud"):
        assert expected in text


def test_bare_device_gives_no_bitstream(tmp_path):
    report = build(small_graph(), tmp_path / "b", device_name="hx8k")
    assert report["bitstream"] is False and not (tmp_path / "b" / "top.bin").exists() and not (tmp_path / "b" / "top.asc").exists()
    assert "bitstream" not in report["hashes"] and report["used"]["lc"][1] == 7680
    assert "No bitstream." in (tmp_path / "b" / "report.html").read_text()
    from rich.console import Console
    console = Console(width=160, record=True, file=open("/dev/null", "w"))
    console.print(summary(report))
    assert "No bitstream: a bare device has no pins" in console.export_text().replace("\n", " ")


@pytest.mark.slow
def test_pins_give_a_bitstream(tmp_path):
    (tmp_path / "x.pcf").write_text("set_io clk 35\nset_io rx 6\nset_io tx 9\n")
    report = build(small_graph(), tmp_path / "b", device_name="up5k", pcf=tmp_path / "x.pcf", freq_mhz=12)
    assert report["bitstream"] and (tmp_path / "b" / "top.bin").stat().st_size > 100_000


@pytest.mark.slow
def test_clock_out_of_reach(tmp_path):
    with pytest.raises(FitError, match=r"The clock of 2\d\d[.\d]* MHz is not reached: [\d.]+ MHz. "
                                       r"Type --freq \d+, or --seeds 8.*Logs are kept in"):
        build(small_graph(), tmp_path / "b", freq_mhz=260)
    assert [p.name for p in tmp_path.iterdir()] == ["b.logs"] and (tmp_path / "b.logs" / "nextpnr.log").exists()


def test_verilog_has_a_page_too(tmp_path):
    report = build(small_graph(), tmp_path / "b", target="verilog")
    text = (tmp_path / "b" / "report.html").read_text()
    check_page(text)
    assert "used" not in report and "Use of the device" not in text and "Cycles a frame" in text
    assert re.search(r"accel_tb\.v", (tmp_path / "b" / "README.txt").read_text())


def test_netlist_cells():
    text = ("  cell \\SB_LUT4 \\core.a.x_SB_LUT4_O\n  cell \\SB_DFFESR \\core.a.y\n  cell \\SB_RAM40_4K \\core.b.rom.0.0\n"
            "  cell \\SB_LUT4 \\rst_x\n")
    assert netlist_cells(text, ["a", "b"]) == ({"a": {"ff": 1, "lut": 1}, "b": {"ebr": 1}}, {"ebr": 1, "ff": 1, "lut": 2})


def test_link_rate():
    """784 bytes in, 20 out: END, 3 of header, 2 of CRC, END; 3 of header, status, 2 of CRC, END."""
    assert link_rate(784, 20, 1_000_000) == pytest.approx(1e6 / 10 / (784 + 7 + 20 + 7))


@pytest.mark.slow
def test_too_large_after_synthesis_and_what_to_type(tmp_path):
    """A design that the estimate lets pass; with what the error says to type, it fits."""
    with pytest.raises(FitError,
                       match=r"after synthesis: it takes \d+ of 5280 logic cells. Type --fold (net_conv=\d+,\d+): ") as caught:
        build(small_graph(channels=32), tmp_path / "b", folds=["net_conv=8,9"])
    assert caught.value.exit_code == 3 and [p.name for p in tmp_path.iterdir()] == ["b.logs"]
    advice = re.search(r"--fold (\S+):", str(caught.value))
    assert advice and build(small_graph(channels=32), tmp_path / "b", folds=[advice[1]])["bitstream"]
