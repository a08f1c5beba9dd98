"""LeakyReLU and PReLU: exact in eval mode against rationals, trained, placed, and refused by name."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from hwq.errors import ModelError  # noqa: E402
from hwq.frontend import convert, trace_codes  # noqa: E402
from hwq.frontend.equality import compare  # noqa: E402
from hwq.interp import encode_images, run  # noqa: E402
from hwq.passes import apply_passes  # noqa: E402
from hwq.quant import InputSpec, calibrate, freeze, prepare  # noqa: E402

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 2)).astype(np.uint8)
X = InputSpec().tensor(IMAGES)


def prelu(*slopes):
    act = nn.PReLU(len(slopes))
    act.weight.data.copy_(torch.tensor(slopes))
    return act


def network(*body, gain=20):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), *body, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    net[0].weight.data.mul_(gain)                        # sums of about -8 to 8
    return net


def by_hand(sums, slopes, fl, lo=-16, hi=15):
    """Codes of reals (..., channels), given as fractions: nothing of hwq."""
    def code(y, slope):
        y = y if y >= 0 else y * Fraction(float(np.float32(slope)))
        return min(max(floor(y * Fraction(2) ** fl + Fraction(1, 2)), lo), hi)
    flat = sums.reshape(-1, sums.shape[-1])
    return np.array([[code(y, slopes[c % len(slopes)]) for c, y in enumerate(row)] for row in flat]).reshape(sums.shape)


@pytest.mark.parametrize("fl", [-1, 1, 3])
@pytest.mark.parametrize("act, slopes", [(nn.LeakyReLU(0.1), [0.1]), (nn.LeakyReLU(), [0.01]), (nn.LeakyReLU(0.25), [0.25]),
                                         (nn.LeakyReLU(0), [0]), (nn.LeakyReLU(1), [1]), (nn.LeakyReLU(2.7), [2.7]),
                                         (nn.LeakyReLU(1e-30), [1e-30]), (nn.PReLU(), [0.25]),
                                         (prelu(0.3, 0, 1, 1.3), [0.3, 0, 1, 1.3])])
def test_codes_are_those_of_rationals(act, slopes, fl):
    model = prepare(network(act), X[:2], "dfp:b=8", activations=f"dfp:b=5,fl={fl}").eval()
    graph, codes = convert(model), trace_codes(model, IMAGES)
    digits = graph.edges["0"].frac_bits
    assert codes["0"].min() < -5.5 * 2 ** digits and codes["0"].max() > 5.5 * 2 ** digits
    wanted = by_hand(codes["0"].astype(object) * Fraction(1, 2 ** digits), slopes, fl)
    np.testing.assert_array_equal(codes["0.act"], wanted)
    np.testing.assert_array_equal(run(graph, IMAGES)["0.act"], wanted)
    assert [node.op for node in graph][:4] == ["Input", "Conv2d", "Requantize", "MaxPool2d"]


def test_kept_batch_norms_fall_for_negative_gains():
    net = network(nn.BatchNorm2d(4), prelu(0.3, 0.1, 0.6, 0.2), gain=1)
    net[1].weight.data.copy_(torch.tensor([1, -1.5, 0.7, -0.2]))
    net[1].running_var.fill_(0.05)
    model = prepare(net.eval(), X[:2], "dfp:b=8", activations="dfp:b=5,fl=2", batchnorm="keep")
    calibrate(model, [X])
    model.eval()
    graph, codes, stage = convert(model), trace_codes(model, IMAGES), model.stages["0"]
    requant = stage.requant(model.input_spec.grid)
    mult, offset = (np.array([int(v) for v in part], object) for part in (requant.mult, requant.offset))
    reals = (codes["0"].astype(object) * mult + offset) * Fraction(1, 2 ** requant.shift) - Fraction(1, 2)
    wanted = by_hand(reals, [0.3, 0.1, 0.6, 0.2], 0)
    np.testing.assert_array_equal(codes["0.act"], wanted)
    np.testing.assert_array_equal(codes["0.sign"], codes["0"] * [1, -1, 1, -1])
    compare(model, graph, IMAGES)
    assert graph.by_name["0.act"].inputs == ("0.sign",) and len(np.unique(wanted)) > 15


FORMATS = st.sampled_from(["dfp:b=4", "dfp:b=5,channel", "po2:b=3", "bipolar"])


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), formats=FORMATS, act=st.integers(2, 8), mode=st.sampled_from(["fold", "keep"]), norm=st.booleans(),
       slope=st.floats(0, 3, width=32), several=st.booleans(), skip=st.booleans())
def test_every_edge(seed, formats, act, mode, norm, slope, several, skip):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.fc = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(16, 3)
            self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
            self.act = prelu(*rng.uniform(0, 2, 4)) if several else nn.LeakyReLU(slope)

        def forward(self, x):
            x = self.act(self.norm(self.a(x)))
            y = self.b(x)
            y = self.act(y + x if skip else y)
            return self.fc(F.max_pool2d(y, 2).flatten(1))
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    net = Net()
    if norm:
        net.norm.weight.data.copy_(torch.tensor(rng.normal(0, 1, 4)))
        net.norm.running_var.fill_(0.1)
    model = prepare(net.eval(), X[:2], formats, activations=f"dfp:b={act}", batchnorm=mode)
    calibrate(model, [X])
    graph = convert(model.eval())
    assert sum(compare(model, graph, IMAGES).values()) > 1000
    codes = encode_images(graph, IMAGES)
    np.testing.assert_array_equal(run(apply_passes(graph), codes)["output"], run(graph, codes)["output"])


def test_training_path_in_float64_is_the_same_function():
    model = prepare(network(prelu(0.3, 0, 1, 1.3)), X[:2], "dfp:b=5").double()
    calibrate(model, [X.double()])
    torch.testing.assert_close(model.train()(X.double()).detach(), model.eval()(X), rtol=0, atol=0)


def test_slopes_train_stop_at_zero_and_come_back():
    model = prepare(network(prelu(0.3, 0.001, 1, 1.3)), X[:2], "dfp:b=5").train()
    calibrate(model, [X])
    slope = model.stages["0"].slope.slope
    assert isinstance(slope, nn.Parameter) and "stages.0.slope.slope" in model.state_dict()
    optimizer = torch.optim.SGD(model.parameters(), 0.02)
    for step in range(6):
        if step == 3:
            freeze(model)
        optimizer.zero_grad()
        F.cross_entropy(model(X), torch.arange(8) % 3).backward()
        assert (slope.grad != 0).any()
        optimizer.step()
    assert (slope.detach() != torch.tensor([0.3, 0.001, 1, 1.3])).sum() >= 3
    slope.data[1] = -0.5                                 # as training may take it
    found = model.train()(X)
    found.sum().backward()
    assert slope.grad[1] != 0
    compare(model.eval(), convert(model), IMAGES)
    lost = model(X)
    slope.data[1] = 0
    assert (model(X) == lost).all()


def test_what_does_not_train_has_no_parameter_and_what_serves_twice_is_one():
    act = prelu(0.3)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), act, nn.Conv2d(4, 4, 1), act,
                        nn.Conv2d(4, 4, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 2, 1))
    model = prepare(net, X[:2], "dfp:b=5")
    assert model.stages["0"].slope is model.stages["2"].slope and not list(model.stages["4"].slope.parameters())
    act.weight.data.fill_(9)
    assert model.stages["0"].slope.slope.item() == pytest.approx(0.3)      # a copy


@pytest.mark.parametrize("body, ops", [
    ([nn.ReLU(), nn.LeakyReLU(0.1)], "Conv2d Requantize MaxPool2d"),
    ([nn.LeakyReLU(0.1), nn.ReLU()], "Conv2d Requantize MaxPool2d"),
    ([nn.LeakyReLU(0.1), nn.Hardtanh()], "Conv2d Requantize MaxPool2d"),
    ([nn.Hardtanh(), nn.LeakyReLU(0.1)], "Conv2d Requantize Requantize MaxPool2d"),
    ([nn.LeakyReLU(0.1), nn.LeakyReLU(0.5)], "Conv2d Requantize Requantize MaxPool2d"),
    ([nn.MaxPool2d(1), prelu(0.1, 0.2, 0.3, 0.4)], "Conv2d Requantize MaxPool2d MaxPool2d"),
    ([nn.ChannelShuffle(2), nn.LeakyReLU(0.1)], "Conv2d Requantize Permute MaxPool2d"),
    ([nn.ChannelShuffle(2), prelu(0.1, 0.2, 0.3, 0.4)], "Conv2d Requantize Permute Requantize MaxPool2d"),
    ([nn.AvgPool2d(1), nn.LeakyReLU(0.1)], "Conv2d Requantize AvgPool2d Requantize Requantize MaxPool2d")])
def test_places(body, ops):
    model = prepare(network(*body), X[:2], "dfp:b=6", activations="dfp:b=6")
    calibrate(model, [X])
    graph = convert(model.eval())
    assert " ".join(node.op for node in graph).startswith(f"Input {ops} Flatten")
    compare(model, graph, IMAGES)


def test_a_slope_at_the_end_gets_a_quantizer():
    model = prepare(nn.Sequential(nn.Conv2d(2, 3, 3), nn.LeakyReLU(0.1)), X[:2], "dfp:b=6", activations="dfp:b=4,fl=2").eval()
    graph = convert(model)
    assert [node.op for node in graph] == ["Input", "Conv2d", "Requantize", "Output"]
    compare(model, graph, IMAGES)


@pytest.mark.parametrize("tail", ["prelu", "norm"])
def test_features_in_torch_s_order(tail):
    """What is one a feature of a flattened image, of which the integer network has the pixels first."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.norm, self.fc = nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 3), nn.BatchNorm1d(48), nn.Linear(48, 3)
            self.act = prelu(*np.linspace(0, 2, 48))
            self.norm.weight.data.copy_(torch.linspace(-1, 1, 48))

        def forward(self, x):
            y = self.a(x).flatten(1)
            return self.fc(self.act(y if tail == "prelu" else self.norm(y + self.b(x).flatten(1))))
    torch.manual_seed(0)
    model = prepare(Net().eval(), X[:2], "dfp:b=6", activations="dfp:b=6")
    calibrate(model, [X])
    compare(model, convert(model.eval()), IMAGES)



@pytest.mark.parametrize("body, text", [
    ([nn.LeakyReLU(-0.1)], "'1': a slope of -0.1 for negative values is not supported; accepted: 0 and more"),
    ([prelu(0.1, 0.2, -3, 0)], "'1': a slope of -3 for"), ([nn.LeakyReLU(float("nan"))], "'1'.*slope.*NaN"),
    ([nn.LeakyReLU(0.1), nn.BatchNorm2d(4)], "'2': a batch norm must stand directly behind.*before its ReLU"),
    ([nn.RReLU()], "layer RReLU is not supported")])
def test_slopes_that_are_refused(body, text):
    with pytest.raises(ModelError, match=text):
        prepare(network(*body), X[:2], "dfp:b=5")


def test_other_slopes_are_refused():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.last, self.weight = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 2, 1), nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.last(F.prelu(self.conv(x), self.weight * 2))
    with pytest.raises(ModelError, match="the parameter 'weight' is used outside of a layer"):
        prepare(Net(), X[:2], "dfp:b=5")
    net = network(prelu(0.1))
    model = prepare(net, X[:2], "dfp:b=5")
    calibrate(model, [X])
    model.stages["0"].slope.slope.data.fill_(float("inf"))
    with pytest.raises(ModelError, match="'1'.*slope.*infinite"):
        convert(model.eval())
    model.stages["0"].slope.slope.data.fill_(2.0 ** 60 / 3)
    with pytest.raises(ModelError, match="'0': its sums reach .*slope for negative values more than 2..61"):
        convert(model)
