"""Torch networks whose elements move: images of linear layers, channels that change places; in float, integers and hardware."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from hwq.errors import ModelError  # noqa: E402
from hwq.frontend import convert, require_convertible  # noqa: E402
from hwq.frontend.equality import compare  # noqa: E402
from hwq.quant import InputSpec, calibrate, prepare  # noqa: E402
from tests.plan.test_corners import exact  # noqa: E402

from .test_torch_networks import liven  # noqa: E402


class Autoencoder(nn.Module):
    """An encoder of convolutions, and a decoder whose image a linear layer makes."""

    def __init__(self, how="view"):
        super().__init__()
        self.how = how
        self.a, self.fc, self.wide = nn.Conv2d(1, 3, 3, 2, 1), nn.Linear(48, 5), nn.Linear(5, 40)
        self.unflatten, self.b, self.c = nn.Unflatten(1, (5, 2, 4)), nn.Conv2d(5, 4, 3, padding=1), nn.Conv2d(4, 1, 1)

    def forward(self, x):
        x = F.relu(self.wide(F.relu(self.fc(F.relu(self.a(x)).flatten(1)))))
        x = x.view(-1, 5, 2, 4) if self.how == "view" \
            else x.unflatten(1, (5, 2, 4)) if self.how == "unflatten" else self.unflatten(x)
        return self.c(F.interpolate(F.relu(self.b(x)), scale_factor=2))


class Refolded(nn.Module):
    """A flat tensor of an image becomes another image, of the same and of other channels."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 1), nn.Linear(6 * 16, 3)

    def forward(self, x):
        x = F.relu(self.a(x)).flatten(1).relu()
        return self.c(F.relu(self.b(F.max_pool2d(x.reshape(-1, 4, 8, 8), 2))).flatten(1))


class Shuffled(nn.Module):
    """Units of ShuffleNet: pointwise, shuffle, depthwise, pointwise; joined branches that are shuffled."""

    def __init__(self, how="view", groups=1):
        super().__init__()
        self.how, self.shuffle, self.act = how, nn.ChannelShuffle(3), nn.ReLU6()
        self.a, self.b = nn.Conv2d(1, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm, self.c, self.d = nn.BatchNorm2d(6), nn.Conv2d(6, 6, 1, groups=groups), nn.Conv2d(12, 4, 1)

    def mix(self, x):
        if self.how == "layer":
            return self.shuffle(x)
        if self.how == "function":
            return torch.channel_shuffle(x, 3)
        b, c, h, w = x.size()
        if self.how == "permute":
            return x.reshape(b, 3, c // 3, h, w).permute(0, 2, 1, 3, 4).flatten(1, 2)
        return x.view(b, 3, c // 3, h, w).transpose(1, 2).contiguous().view(b, c, h, w)

    def forward(self, x):
        x = self.act(self.a(x))
        y = F.relu(self.c(self.norm(self.b(self.mix(x)))))
        return self.d(self.mix(torch.cat([x, y], 1))).mean((2, 3))


class Grouped(nn.Module):
    """Units of ShuffleNet v1: channels shuffled between grouped convolutions, added to what comes in or beside its average."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 12, 3, padding=1)
        self.a, self.b, self.c = (nn.Conv2d(12, 12, 1, groups=3), nn.Conv2d(12, 12, 3, groups=12, padding=1),
                                  nn.Conv2d(12, 12, 1, groups=3))
        self.d, self.e, self.f = (nn.Conv2d(12, 12, 1, groups=2), nn.Conv2d(12, 12, 3, groups=12, padding=1, stride=2),
                                  nn.Conv2d(12, 4, 1, groups=2))

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = F.relu(x + self.c(self.b(torch.channel_shuffle(F.relu(self.a(x)), 3))))
        y = self.f(self.e(torch.channel_shuffle(F.relu(self.d(x)), 2)))
        return F.relu(torch.cat([F.avg_pool2d(x, 2), y], 1)).mean((2, 3))


class Line(nn.Module):
    """A line of a linear layer, its channels shuffled."""

    def __init__(self):
        super().__init__()
        self.fc, self.a, self.b = nn.Linear(8, 24), nn.Conv1d(4, 4, 3, groups=4), nn.Conv1d(4, 3, 1)

    def forward(self, x):
        x = F.relu(self.fc(x.flatten(1))).view(-1, 4, 6)
        return self.b(F.relu(self.a(x.view(-1, 2, 2, 6).transpose(1, 2).reshape(-1, 4, 6)))).mean(2)


NETWORKS = {"view": (Autoencoder, (1, 8, 8)), "unflatten": (lambda: Autoencoder("unflatten"), (1, 8, 8)),
            "layer": (lambda: Autoencoder("layer"), (1, 8, 8)), "refolded": (Refolded, (1, 8, 8)),
            "shuffled": (Shuffled, (1, 8, 8)), "shuffled by a layer": (lambda: Shuffled("layer"), (1, 8, 8)),
            "shuffled by a function": (lambda: Shuffled("function"), (1, 8, 8)),
            "shuffled by permute": (lambda: Shuffled("permute"), (1, 8, 8)), "line": (Line, (1, 8)),
            "between groups": (Grouped, (1, 8, 8))}


def prepared(make, shape):
    """Return a float network, the prepared one, inputs and images."""
    torch.manual_seed(1)
    net = make()
    liven(net)
    c, h, w = shape if len(shape) == 3 else (shape[0], 1, shape[1])
    images = np.random.default_rng(0).integers(0, 256, (24, h, w, c)).astype(np.uint8)
    x = InputSpec().tensor(images).reshape(-1, *shape)
    return net.eval(), prepare(net, x[:2], "dfp:b=5", activations="dfp:b=5"), x, images


def equal(net, model, x, images):
    """Assert that the prepared network is the float one, and after calibration the integer one, edge by edge; return that."""
    model.float_weights = True
    with torch.no_grad():
        torch.testing.assert_close(model.train()(x).reshape(net(x).shape), net(x), rtol=1e-3, atol=1e-3)
    model.float_weights = False
    require_convertible(model)
    calibrate(model, [x])
    graph = convert(model.eval())
    compared = compare(model, graph, images)
    assert len(compared) > 10 and len(np.unique(model(x).reshape(len(x), -1).detach().numpy(), axis=0)) > 12
    return graph


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_equal_torch(name):
    graph = equal(*prepared(*NETWORKS[name]))
    assert "Unflatten" in {node.op for node in graph} or "Permute" in {node.op for node in graph}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["view", "refolded", "shuffled", "line", "between groups"])
def test_networks_are_exact_in_hardware(name):
    _, model, x, _ = prepared(*NETWORKS[name])
    calibrate(model, [x])
    exact(convert(model.eval()), count=2)


def test_what_no_weights_take_up_is_refused_before_training():
    model = prepare(nn.Sequential(nn.Conv2d(1, 40, 1), nn.Conv2d(40, 40, 1, groups=20), nn.ChannelShuffle(2),
                                  nn.Conv2d(40, 40, 1, groups=20)), torch.zeros(2, 1, 4, 4), "dfp:b=4")
    with pytest.raises(ModelError, match="Permute '2' puts channels into another order.*'1' has 20 groups.*'3' has 20 groups"):
        require_convertible(model)
    assert not any(bool(stage.activation.calibrated) for stage in model if stage.activation is not None)


class Moves(nn.Module):
    def __init__(self, move):
        super().__init__()
        self.a, self.move = nn.Conv2d(1, 4, 1), move

    def forward(self, x):
        return self.move(self.a(x))


@pytest.mark.parametrize("move, text", [
    (lambda x: x.view(-1, 2, 2, 4, 4), "shape behind view"), (lambda x: x.transpose(2, 3), "function 'transpose' is not supported"),
    (lambda x: x.view(-1, 2, 8, 4).transpose(1, 2).reshape(-1, 4, 4, 4), "shape behind view"),
    (lambda x: x.flatten(1).view(-1, 4, 2, 2, 4), r"shape behind it = \(4, 2, 2, 4\)")])
def test_other_moves_are_refused(move, text):
    with pytest.raises(ModelError, match=text):
        prepare(Moves(move), torch.zeros(2, 1, 4, 4), "dfp:b=4")
