"""Prepared torch models: refusals by name, and eval mode equal to the interpreter in every layer."""

import pytest

torch = pytest.importorskip("torch")
import numpy as np  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from hwq.errors import FormatError, ModelError  # noqa: E402
from hwq.frontend import convert, trace_codes  # noqa: E402
from hwq.interp import encode_images, predict, run  # noqa: E402
from hwq.quant import calibrate, freeze, prepare  # noqa: E402


class Net(nn.Module):
    def __init__(self, kernel=3, stride=1, padding=1, norm=True, **conv):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, kernel, stride=stride, padding=padding, **conv)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.conv2 = nn.Conv2d(4, 6, 1)
        self.fc = nn.LazyLinear(3)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.conv1(x))), 2)
        return self.fc(torch.flatten(torch.relu(self.conv2(x)), 1))


def prepared(seed=0, **options):
    torch.manual_seed(seed)
    net, x = Net(**options), torch.rand(16, 1, 12, 10)
    net(x)
    model = prepare(net.eval(), x, {"conv1": "dfp:b=6", "conv*": "dfp:b=3", "fc": "dfp:b=2"}, activations="dfp:b=3")
    calibrate(model, [x])
    return model, x


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"padding": "same", "kernel": 5}, {"padding": 0, "norm": False}])
def test_eval_equals_interpreter_in_every_layer(options):
    model, x = prepared(**options)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(model(x), torch.randint(0, 3, (16,))).backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for n, p in model.named_parameters() if n.endswith("weight"))
        optimizer.step()
    calibrate(model, [x])
    freeze(model)
    graph = convert(model, (12, 10, 1), classes=("a", "b", "c"))
    images = np.random.default_rng(1).integers(0, 256, (30, 12, 10), np.uint8)
    codes = trace_codes(model, torch.tensor(images))
    values = run(graph, encode_images(graph, images))
    assert set(codes) == {"conv1", "conv1.act", "conv2", "conv2.act", "fc"}
    for name in codes:
        np.testing.assert_array_equal(codes[name], values[name], err_msg=name)
    model.eval()
    classes = model(model.input_spec.encode(torch.tensor(images))).argmax(1).numpy()
    np.testing.assert_array_equal(classes, predict(graph, values["output"]))


@pytest.mark.parametrize("options, text", [
    ({"groups": 1, "dilation": 2, "padding": 2}, "'conv1'.*dilation = \\(2, 2\\); supported"),
    ({"padding_mode": "circular"}, "'conv1'.*padding_mode = 'circular'"),
])
def test_conv_attributes_are_refused_by_name(options, text):
    with pytest.raises(ModelError, match=text):
        prepared(**options)


class Wrap(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.conv, self.body = nn.Conv2d(1, 2, 3, padding=1), body

    def forward(self, x):
        return self.body(F.relu(self.conv(x)))


@pytest.mark.parametrize("body, text", [
    (nn.MaxPool2d(3, 2), "stride = \\(2, 2\\)"), (nn.MaxPool2d(2, ceil_mode=True), "ceil_mode"), (nn.Sigmoid(), "Sigmoid is not supported"),
    (nn.MaxPool2d(2, padding=1), "padding"), (nn.AvgPool2d(2), "AvgPool2d is not supported"), (nn.Flatten(0), "Flatten is not supported"),
    (nn.Conv2d(2, 2, 1, groups=2), "groups = 2"),
])
def test_layers_are_refused_by_name(body, text):
    with pytest.raises(ModelError, match=text):
        prepare(Wrap(body), torch.rand(2, 1, 8, 8), {"*": "dfp:b=4"})


def test_patterns_and_weights_are_checked():
    net, x = Wrap(nn.Identity()), torch.rand(2, 1, 8, 8)
    with pytest.raises(ModelError, match="Layer 'conv' has no format"):
        prepare(net, x, {"fc": "dfp:b=4"})
    with pytest.raises(ModelError, match="Patterns fc match no layer; layers: conv"):
        prepare(net, x, {"conv": "dfp:b=4", "fc": "dfp:b=4"})
    with pytest.raises(FormatError, match="2..16"):
        prepare(net, x, {"conv": "dfp:b=1"})
    with pytest.raises(ModelError, match="'po2' cannot be trained yet"):
        prepare(net, x, {"conv": "po2:b=3"})
    with torch.no_grad():
        net.conv.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(ModelError, match="Layer 'conv': the weights hold NaN"):
        prepare(net, x, {"conv": "dfp:b=4"})
