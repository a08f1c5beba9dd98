"""Boards: link protocol, UART shell, clocks, registry of boards and devices, host side. Import the modules by name:

`protocol` (pure Python), `host` (serial ports), `uart`, `shell`, `clocks`, `tops` (Amaranth), `registry`,
`link_script` (Yosys and nextpnr lines). None is imported here, so that the host side needs no Amaranth.
"""

__all__: list[str] = []
