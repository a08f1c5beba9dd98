"""ReLU6, Hardtanh, clamp: ends of the quantizer's codes; and what trains with them."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from hwq.frontend import convert, trace_codes  # noqa: E402
from hwq.interp import run  # noqa: E402
from hwq.quant import InputSpec, calibrate, prepare  # noqa: E402

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 2)).astype(np.uint8)
X = InputSpec().tensor(IMAGES)


def network(clamp):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 6, 3), clamp, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24, 3))
    net[0].weight.data.mul_(20)                          # sums of about -8 to 8
    return net


@pytest.mark.parametrize("fl", [-1, 0, 1, 2, 3])
@pytest.mark.parametrize("clamp, ends", [(nn.ReLU6(), (0, 6)), (nn.Hardtanh(0, 2.3), (0, 2.3)), (nn.Hardtanh(-1, 1), (-1, 1)),
                                         (nn.Hardtanh(-5.2, 3), (-5.2, 3))])
def test_codes_are_those_of_the_clamped_values(clamp, ends, fl):
    model = prepare(network(clamp), X[:2], "dfp:b=8", activations=f"dfp:b=5,fl={fl}").eval()
    graph = convert(model)
    codes = trace_codes(model, IMAGES)
    sums = codes["0"] * 2.0 ** -graph.edges["0"].frac_bits
    assert sums.min() < -5.5 and sums.max() > 6.5        # both ends are reached
    lo, hi = (-16, 15) if ends[0] else (0, 31)
    wanted = np.floor(np.clip(sums, *ends) * 2.0 ** fl + 0.5).clip(lo, hi).astype(np.int64)
    np.testing.assert_array_equal(codes["0.act"], wanted)
    np.testing.assert_array_equal(run(graph, IMAGES)["0.act"], wanted)
    assert (graph.by_name["0.act"].lo, graph.by_name["0.act"].hi) == (wanted.min(), wanted.max())


def test_training_sees_the_same_levels_and_no_gradient_beyond_the_ends():
    model = prepare(network(nn.ReLU6()), X[:2], "dfp:b=8", activations="dfp:b=6,fl=2").train()
    quantizer = model.stages["0"].activation
    x = torch.linspace(-3, 12, 301, requires_grad=True)
    y = quantizer(x)
    y.sum().backward()
    torch.testing.assert_close(y.detach(), torch.floor(F.relu6(x.detach()) * 4 + 0.5) / 4, rtol=0, atol=0)
    assert (x.grad == ((x >= 0) & (x <= 6)).float()).all()
    assert quantizer.grid.hi == 24


def test_calibration_looks_at_clamped_values():
    model = prepare(network(nn.Hardtanh(0, 0.9)), X[:2], "dfp:b=8", activations="dfp:b=4")
    calibrate(model, [X])
    assert model.stages["0"].activation.grid.frac_bits == 4      # 15/16 is the most that is needed, though sums reach 8


def test_clamps_of_one_value_meet():
    net = network(nn.Sequential(nn.ReLU6(), nn.Hardtanh(-1, 2), nn.ReLU()))
    model = prepare(net, X[:2], "dfp:b=8", activations="dfp:b=6,fl=3")
    assert (model.stages["0"].activation.grid.lo, model.stages["0"].activation.grid.hi) == (0, 16)
    assert [node.op for node in convert(model.eval())] == ["Input", "Conv2d", "Requantize", "MaxPool2d",
                                                           "Flatten", "Linear", "Output"]


def test_a_clamp_at_the_end_quantizes_the_result():
    model = prepare(nn.Sequential(nn.Conv2d(2, 3, 3), nn.Hardtanh()), X[:2], "dfp:b=8", activations="dfp:b=4,fl=2").eval()
    assert model(X).abs().max() <= 1 and convert(model).edges["output"].hi == 4
