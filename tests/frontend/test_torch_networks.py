"""Networks as torch's users write them: traced, exact against torch on every edge, and in hardware."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from hwq.errors import ModelError  # noqa: E402
from hwq.frontend import convert  # noqa: E402
from hwq.frontend.equality import compare  # noqa: E402
from hwq.quant import InputSpec, calibrate, freeze, prepare  # noqa: E402
from tests.plan.test_corners import exact  # noqa: E402


def liven(net):
    """Give every layer weights and statistics that let the images through."""
    for module in net.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            module.weight.data.mul_(2.5)
            if module.bias is not None:
                module.bias.data.abs_()
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            gain = torch.rand(module.num_features) + 0.5
            gain[0] = -gain[0]
            module.weight.data.copy_(gain)
            module.bias.data.copy_(torch.rand(module.num_features) * 0.3)
            module.running_mean.copy_(torch.randn(module.num_features) * 0.1)
            module.running_var.copy_(torch.rand(module.num_features) * 0.5 + 0.2)


class Keywords(nn.Module):
    """A 1-D network of layers: every 1-D layer there is."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.ZeroPad1d((1, 2)), nn.Conv1d(3, 4, 4, 2),
            nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(4, 4, 3, padding="same", dilation=2, groups=4), nn.BatchNorm1d(4), nn.ReLU(),
            nn.Dropout1d(0.1), nn.MaxPool1d(3, 2, 1), nn.Conv1d(4, 6, 1, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.AvgPool1d(2),
            nn.Upsample(scale_factor=2), nn.Conv1d(6, 5, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())
        self.fc = nn.Linear(5, 3)

    def forward(self, x):
        return self.fc(self.body(x))


class Functional(nn.Module):
    """The same kind by functions, with a skip, a concatenation and a mean."""

    def __init__(self, head="mean"):
        super().__init__()
        self.a, self.b, self.c = nn.Conv1d(2, 4, 3, padding=1), nn.Conv1d(4, 4, 3, padding=1), nn.Conv1d(8, 3, 5)
        self.head, self.fc = head, nn.Linear(3, 4)

    def forward(self, x):
        x = F.relu(self.a(F.pad(x, (1, 0))))
        y = F.relu(x + self.b(x))
        x = F.max_pool1d(torch.cat([x, y], 1), 2)
        x = F.relu(self.c(F.interpolate(F.avg_pool1d(x, 2), scale_factor=2)))
        if self.head == "mean":
            x = x.mean(-1)
        elif self.head == "squeeze":
            x = F.adaptive_avg_pool1d(x, 1).squeeze(-1)
        else:
            x = x[:, :, 0]
        return self.fc(x)


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        def block(i, o):
            return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(inplace=True))
        self.down, self.inner, self.bottom = block(1, 3), block(3, 4), block(4, 5)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.one, self.two, self.out = block(9, 4), block(7, 3), nn.Conv2d(3, 2, 1)

    def forward(self, x):
        a = self.down(x)
        b = self.inner(F.max_pool2d(a, 2))
        y = self.one(torch.cat([self.up(self.bottom(F.max_pool2d(b, 2))), b], dim=1))
        return self.out(self.two(torch.cat([F.interpolate(y, scale_factor=2, mode="nearest"), a], dim=1)))


class Fire(nn.Module):
    def __init__(self, inputs, squeeze, expand):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.small, self.large = nn.Conv2d(squeeze, expand, 1), nn.Conv2d(squeeze, expand, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.relu(self.squeeze(x))
        return torch.cat([self.relu(self.small(x)), self.relu(self.large(x))], 1)


def squeezenet():
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1), Fire(4, 2, 3), Fire(6, 3, 4),
                         nn.Dropout(0.5), nn.Conv2d(8, 3, 1), nn.ReLU(), nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten())


class Inverted(nn.Module):
    def __init__(self, inputs, wide, out, stride):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU(),
                                  nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
                                  nn.BatchNorm2d(wide), nn.ReLU(), nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out))
        self.skip = stride == 1 and inputs == out

    def forward(self, x):
        return x + self.body(x) if self.skip else self.body(x)


def mobilenet():
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), Inverted(4, 6, 4, 1), Inverted(4, 6, 5, 2),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3))


class Clamped(nn.Module):
    """Clamps of every kind, some read with and without; pools in ceil_mode, whose last windows leave the image, or would."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.norm, self.pool, self.act = nn.BatchNorm2d(4), nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.Hardtanh(0, 0.7)
        self.fc = nn.Linear(32, 3)

    def forward(self, x):
        x = self.pool(F.relu6(self.a(x)))                # 8 pixels: 5 windows
        y = self.act(F.pad(self.norm(self.b(x)), (0, 1, 0, 1)))
        y = F.avg_pool2d(y, 2, 2, ceil_mode=True)        # 6 pixels: 3 windows, which fit
        z = F.max_pool2d(self.c(y), 2, ceil_mode=True)   # 3 pixels: 2 windows
        z = torch.cat([z.clamp(-0.3, 0.9), F.hardtanh(z) + z], 1)
        return self.fc(z.clamp_max(0.8).flatten(1))


class Averaged(nn.Module):
    """Average pools whose padding does not count, of several kinds; one at the end."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 3, 1)
        self.pool = nn.AvgPool2d(3, 2, 1, count_include_pad=False)

    def forward(self, x):
        x = self.pool(F.relu(self.a(x)))
        x = F.relu(self.b(F.avg_pool2d(x, (1, 2), 1, (0, 1), count_include_pad=False)))
        return F.avg_pool2d(x, 2, 2, 1, count_include_pad=False).mean((2, 3))


NETWORKS = {"keywords": (Keywords, (3, 24)), "mean": (Functional, (2, 19)), "squeeze": (lambda: Functional("squeeze"), (2, 19)),
            "first": (lambda: Functional("first"), (2, 19)),
            "unet": (UNet, (1, 8, 8)), "squeezenet": (squeezenet, (1, 11, 11)), "mobilenet": (mobilenet, (1, 9, 9)),
            "clamped": (Clamped, (1, 8, 8)), "averaged": (Averaged, (1, 6, 7))}


def prepared(name, batchnorm="fold"):
    """Return the float network, the calibrated one, and images."""
    torch.manual_seed(1)
    make, shape = NETWORKS[name]
    net = make()
    liven(net)
    c, h, w = shape if len(shape) == 3 else (shape[0], 1, shape[1])
    rng = np.random.default_rng(0)
    images = (rng.integers(0, 256, (24, h, w, c)) * rng.uniform(0.2, 1, (24, 1, 1, 1))).astype(np.uint8)
    x = InputSpec().tensor(images)
    model = prepare(net, x.reshape(-1, *shape)[:2], "dfp:b=5", activations="dfp:b=5", batchnorm=batchnorm)
    return net, model, x.reshape(-1, *shape), images


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("batchnorm", ["fold", "keep"])
def test_networks_equal_torch(name, batchnorm):
    net, model, x, images = prepared(name, batchnorm)
    twin = copy.deepcopy(net).eval()
    if batchnorm == "keep":                              # folded biases are on the grid already
        model.float_weights = True                       # before calibration the prepared network is the float one
        model.train()
        for norm in model.batchnorms:
            norm.eval()
        with torch.no_grad():
            wanted, found = twin(x), model(x)
        torch.testing.assert_close(found.reshape(wanted.shape), wanted, rtol=1e-3, atol=1e-3)
        model.float_weights = False
    calibrate(model, [x])
    freeze(model)
    model.eval()
    assert (model(x) == model(x.reshape(len(x), *model.input_shape))).all()
    compared = compare(model, convert(model), images)
    assert len(compared) > 10 and len(np.unique(model(x).reshape(len(x), -1).numpy(), axis=0)) > 12


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_exact_in_hardware(name):
    _, model, x, _ = prepared(name)
    calibrate(model, [x])
    exact(convert(model), count=2)


@pytest.mark.parametrize("layer, message", [
    (nn.Conv1d(2, 3, 3, padding=1, padding_mode="circular"), "padding_mode = 'circular'"),
    (nn.MaxPool1d(2, dilation=2), "dilation"), (nn.AvgPool1d(3, ceil_mode=True), "ceil_mode = True"),
    (nn.AdaptiveAvgPool1d(2), "output_size"), (nn.ConstantPad1d(1, 0.5), "value = 0.5"),
    (nn.ConvTranspose1d(2, 2, 3), "ConvTranspose1d is not supported"), (nn.Linear(8, 4), "put a Flatten before it")])
def test_1_d_layers_that_are_refused(layer, message):
    with pytest.raises(ModelError, match=message):
        prepare(nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(2)), torch.zeros(2, 2, 8), "dfp:b=4")


def test_other_lengths_are_refused():
    with pytest.raises(ModelError, match=r"must have the shape \(n, 2, 1, 19\)"):
        prepare(Functional(), torch.zeros(2, 2, 19), "dfp:b=4")(torch.zeros(1, 2, 20))
