"""The only place that makes memories: where they go (block RAM, large RAM or logic), and the proof that ports never collide."""

from typing import NamedTuple

from amaranth.hdl import Assert, Module, Mux, Signal, unsigned
from amaranth.lib import memory

__all__ = ["SPRAM", "make_rom", "make_ram", "make_spram"]

# Name of every memory in large RAM, by which emission takes away the zeros that Amaranth gives all memories at the start.
SPRAM = "spram"


def make_rom(m: Module, name: str, words: list[int], width: int, *, block: bool):
    """Add a ROM and return its synchronous read port (data one cycle after ``en``).

    ``block`` puts it into block RAM whatever its size, otherwise into logic: left alone, synthesis decides by
    thresholds of its own.
    """
    style = "block" if block else "logic"
    rom = memory.Memory(shape=unsigned(width), depth=max(len(words), 2), init=words, attrs={"rom_style": style})
    m.submodules[name] = rom
    return rom.read_port()


def make_ram(m: Module, name: str, depth: int, width: int):
    """Add a block RAM and return its write port and synchronous read port.

    The ports must never touch one address in one cycle: the build tells synthesis so (otherwise it adds about 44
    cells of collision logic a block), and every simulation asserts it.
    """
    ram = memory.Memory(shape=unsigned(width), depth=max(depth, 2), init=[], attrs={"ram_style": "block"})
    m.submodules[name] = ram
    write, read = ram.write_port(), ram.read_port()
    clash = Signal(name=f"{name}_clash")
    m.d.comb += clash.eq(write.en & read.en & (write.addr == read.addr))
    m.d.sync += Assert(~clash, f"{name}: read and write of one address in one cycle")
    return write, read


class Port(NamedTuple):
    """One side of a memory: enable, address, data."""

    en: Signal
    addr: Signal
    data: Signal


def make_spram(m: Module, depth: int, width: int) -> tuple[Port, Port]:
    """Add a large RAM with one port, of unknown contents; return how it is written and how it is read, synchronously.

    Both may not be enabled in one cycle, which every simulation asserts. What was read is there for a cycle: Yosys' models disagree
    on whether it stays while a word is written.
    """
    ram = memory.Memory(shape=unsigned(width), depth=depth, init=[], attrs={"ram_style": "huge"})
    m.submodules[SPRAM] = ram
    write, read = ram.write_port(), ram.read_port()
    into, out = (Port(Signal(name=f"{name}_en"), Signal.like(write.addr, name=f"{name}_addr"), Signal(width, name=f"{name}_data"))
                 for name in ("write", "read"))
    addr = Signal.like(write.addr)
    m.d.comb += [addr.eq(Mux(out.en, out.addr, into.addr)), write.addr.eq(addr), read.addr.eq(addr), write.data.eq(into.data),
                 write.en.eq(into.en & ~out.en), read.en.eq(out.en), out.data.eq(read.data)]
    m.d.sync += Assert(~(into.en & out.en), f"{SPRAM}: read and write in one cycle")
    return into, out
