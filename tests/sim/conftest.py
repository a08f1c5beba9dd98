"""Build folders of the toy, made once; skips by name where a tool is absent."""

import numpy as np
import pytest

from hwq.emit import pack_codes
from hwq.errors import EnvironmentError_
from hwq.sim.folder import load_build
from hwq.toolchain import find

from .toy import make_build


def need(*tools):
    """Skip unless the tools are here."""
    for tool in tools:
        try:
            find(tool)
        except EnvironmentError_ as error:
            pytest.skip(f"no {tool}: {str(error)[:60]}")


@pytest.fixture(scope="session")
def builds(tmp_path_factory):
    """Return a function of (fault) that gives (build, input beats, result beats)."""
    made = {}

    def get(fault=None, netlist=False):
        if (fault, netlist) not in made:
            folder = tmp_path_factory.mktemp("toy") / "build"
            make_build(folder, fault, netlist=netlist)
            build = load_build(folder)
            codes, results = (np.load(folder / "vectors" / f"{name}.npy") for name in ("input", "output"))
            made[fault, netlist] = (build, pack_codes(codes, lanes=build.input.lanes, width=build.input.width),
                                    pack_codes(results, lanes=1, width=8 * build.output.bytes))
        return made[fault, netlist]

    return get
