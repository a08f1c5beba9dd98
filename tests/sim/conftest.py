"""Build folders of the toy and of a small network, made once; skips by name where a tool is absent."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hwq.build import build
from hwq.emit import pack_codes
from hwq.errors import EnvironmentError_
from hwq.formats import FixedPoint
from hwq.interp import encode_images, predict, run_batches
from hwq.ir import Conv2d, Flatten, Graph, Input, Linear, MaxPool2d, Output, Preprocess, Requantize
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
            toy = load_build(folder)
            codes, results = (np.load(folder / "vectors" / f"{name}.npy") for name in ("input", "output"))
            made[fault, netlist] = (toy, pack_codes(codes, lanes=toy.input.lanes, width=toy.input.width),
                                    pack_codes(results, lanes=1, width=8 * toy.output.bytes))
        return made[fault, netlist]

    return get


def small_network():
    """Convolution, requantization, pooling, linear layer on 6x6x2 images; a few hundred cycles."""
    rng = np.random.default_rng(11)
    return Graph((
        Input("x", (), shape=(6, 6, 2), lo=0, hi=15),
        Conv2d("conv", ("x",), weight=rng.integers(-8, 8, (4, 3, 3, 2)), bias=rng.integers(-50, 50, 4),
               weight_format=FixedPoint(4, 3), pads=(1, 1, 1, 1)),
        Requantize("relu", ("conv",), mult=rng.integers(1, 9, 4), offset=np.array([16]), shift=5, lo=0, hi=15),
        MaxPool2d("pool", ("relu",)), Flatten("flat", ("pool",)),
        Linear("fc", ("flat",), weight=rng.integers(-8, 8, (3, 36)), bias=rng.integers(-50, 50, 3), weight_format=FixedPoint(4, 1)),
        Output("y", ("fc",))), Preprocess(4), ("a", "b", "c"), "small")


@pytest.fixture(scope="session")
def board(tmp_path_factory):
    """A build of the small network for a board; nothing may change it (`copy` makes one that may be)."""
    need("yosys", "nextpnr-ice40", "icepack")
    folder = tmp_path_factory.mktemp("small") / "build"
    build(small_network(), folder, board="icebreaker", folds=["conv=1,2", "fc=1,1"])
    return folder


@pytest.fixture
def copy(board, tmp_path):
    """A copy of `board`."""
    return Path(shutil.copytree(board, tmp_path / "build"))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A labelled file of 30 images for the small network, with the right label on all but the first."""
    graph = small_network()
    images = np.random.default_rng(12).integers(0, 256, (30, 6, 6, 2), dtype=np.uint8)
    labels = predict(graph, run_batches(graph, encode_images(graph, images)))
    labels[0] = (labels[0] + 1) % 3
    path = tmp_path_factory.mktemp("pictures") / "set.npz"
    np.savez(path, images=images, labels=labels)
    return path


def hwq(*arguments, code=0, **environment):
    """Run the command line; return its standard output, or its standard error where it is to fail."""
    env = {key: value for key, value in {**os.environ, "COLUMNS": "140", **environment}.items() if value is not None}
    done = subprocess.run([sys.executable, "-c", "from hwq.cli import main; main()", *map(str, arguments)], capture_output=True,
                          text=True, env=env, check=False, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr
