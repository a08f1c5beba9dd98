"""FPGA families: the tools that build for them, and what these call things."""

from dataclasses import dataclass

__all__ = ["Family", "ICE40", "ECP5"]


@dataclass(frozen=True)
class Family:
    """How the open tools build for a family.

    Attributes
    ----------
    name : str
        ``--target`` on the command line.
    synth : str
        Yosys command; ``{device}`` stands for the device's name there.
    prepare, finish : str
        Yosys commands before and behind it.
    dsp, no_dsp : str
        Its option that allows multiplier blocks, and the one that forbids them.
    library : str
        Yosys files that declare the primitives.
    nextpnr, pack : str
        Tools that place and route, and that pack the bitstream.
    pins, config : str
        Endings of the pin constraints and of what place and route write; ``config_option`` is nextpnr's option for the latter.
    unpinned : tuple of str
        nextpnr's options where the router chooses the pins.
    pack_words : str
        Arguments of the tool that packs; ``{source}`` and ``{result}`` stand for the files.
    used : dict of str to str
        Resources of the report: name -> nextpnr's cell class. ``lc`` is what the plan counts as logic cells.
    cells : dict of str to str
        Kinds of the core's cells: Yosys' cell type -> ``lut``, ``carry``, ``ff``, ``ebr``, ``dsp``, ...
    max_mhz : float
        Most that the clock nets take.
    """

    name: str
    synth: str
    prepare: str
    finish: str
    dsp: str
    no_dsp: str
    library: str
    nextpnr: str
    pack: str
    pins: str
    config: str
    config_option: str
    unpinned: tuple[str, ...]
    pack_words: str
    used: dict[str, str]
    cells: dict[str, str]
    max_mhz: float


# nextpnr takes two logic cells for a flip-flop that reads a carry: one to lead the carry out, one for the flip-flop. Behind a
# look-up table that only passes the carry on, all three share one. It is about a cell for every registered adder.
_CARRIES = """design -push
read_verilog -icells <<EOT
(* techmap_celltype = "SB_CARRY" *)
module last_carry(output CO, input I0, I1, CI);
    wire carry;
    \\$__last_carry cell (.CO(carry), .I0(I0), .I1(I1), .CI(CI));
    SB_LUT4 #(.LUT_INIT(16'hFF00)) pass (.I0(1'b0), .I1(1'b0), .I2(1'b0), .I3(carry), .O(CO));
endmodule
EOT
setattr -unset src
design -save carries
design -pop
select -set ends t:SB_DFF* %ci2:+[D,CO] t:SB_CARRY %i
techmap -map %carries @ends
chtype -set SB_CARRY t:$__last_carry
opt_clean"""

# Yosys' ice40_dsp (0.70) takes each SB_MAC16 for one that it has made itself, and sets its mode anew: 16x16, no registers.
# So those of the core bear another name meanwhile.
_HIDE = """read_verilog -lib +/ice40/cells_sim.v
rename SB_MAC16 product_pair_block
chtype -set product_pair_block t:SB_MAC16"""
_SHOW = "chtype -set SB_MAC16 t:product_pair_block"

ICE40 = Family(
    "ice40", "synth_ice40 -device {device}", _HIDE, f"{_SHOW}\n{_CARRIES}", "-dsp", "", "+/ice40/cells_sim.v", "nextpnr-ice40",
    "icepack", "pcf", "asc", "--asc", unpinned=(), pack_words="{source} {result}",
    used={"lc": "ICESTORM_LC", "ebr": "ICESTORM_RAM", "spram": "ICESTORM_SPRAM", "dsp": "ICESTORM_DSP"},
    cells={"SB_LUT4": "lut", "SB_CARRY": "carry", "SB_RAM40_4K": "ebr", "SB_SPRAM256KA": "spram", "SB_MAC16": "dsp",
           "SB_DFF": "ff", **{f"SB_DFF{kind}": "ff" for kind in ("E", "SR", "R", "SS", "S", "ESR", "ER", "ESS", "ES")}},
    max_mhz=275.0)
# One CCU2C takes two of the look-up tables.
ECP5 = Family(
    "ecp5", "synth_ecp5", "", "", "", "-nodsp", "+/lattice/cells_sim_ecp5.v +/lattice/cells_bb_ecp5.v", "nextpnr-ecp5", "ecppack",
    "lpf", "config", "--textcfg", unpinned=("--lpf-allow-unconstrained",), pack_words="--compress --input {source} --bit {result}",
    used={"lc": "TRELLIS_COMB", "ff": "TRELLIS_FF", "ebr": "DP16KD", "dsp": "MULT18X18D"},
    cells={"LUT4": "lut", "CCU2C": "carry", "TRELLIS_FF": "ff", "DP16KD": "ebr", "MULT18X18D": "dsp", "TRELLIS_DPR16X4": "lutram"},
    max_mhz=400.0)
