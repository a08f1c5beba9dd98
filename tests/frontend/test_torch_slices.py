# amaranth: UnusedElaboratable=no
"""Torch networks that split their channels, as ShuffleNet v2, CSP and Ghost networks do; in float, in integers, and in hardware."""

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from hwq.errors import ModelError  # noqa: E402
from hwq.frontend import convert  # noqa: E402
from hwq.quant import calibrate, prepare  # noqa: E402
from tests.plan.test_corners import exact  # noqa: E402

from .test_torch_moved import Moves, equal, prepared  # noqa: E402


def unit(*layers):
    return nn.Sequential(*[each for layer in layers
                           for each in ((layer, nn.BatchNorm2d(layer.out_channels)) if isinstance(layer, nn.Conv2d) else (layer,))])


def shuffle(x):
    b, c, h, w = x.size()
    return x.view(b, 2, c // 2, h, w).transpose(1, 2).contiguous().view(b, c, h, w)


class Block(nn.Module):
    """A block of torchvision's ShuffleNet v2: with a stride both branches have layers, else one half goes on as it is."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        half, self.stride = outputs // 2, stride
        if stride > 1:
            self.one = unit(nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
                            nn.Conv2d(inputs, half, 1, bias=False), nn.ReLU())
        self.two = unit(nn.Conv2d(inputs if stride > 1 else half, half, 1, bias=False), nn.ReLU(),
                        nn.Conv2d(half, half, 3, stride, 1, groups=half, bias=False),
                        nn.Conv2d(half, half, 1, bias=False), nn.ReLU())

    def forward(self, x):
        if self.stride == 1:
            x1, x2 = x.chunk(2, dim=1)
            return shuffle(torch.cat((x1, self.two(x2)), dim=1))
        return shuffle(torch.cat((self.one(x), self.two(x)), dim=1))


def shufflenet():
    return nn.Sequential(nn.Conv2d(1, 4, 3, 1, 1), nn.ReLU(), Block(4, 8, 2), Block(8, 8, 1), Block(8, 8, 1), Block(8, 12, 2),
                         nn.Conv2d(12, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3))


class Partial(nn.Module):
    """Stages of CSP networks: a split, a residual branch, one joined with all parts; a slice by a size, one of a flat tensor."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Conv2d(2, 8, 3, 1, 1), nn.Conv2d(4, 4, 3, 1, 1), nn.Conv2d(12, 6, 1), \
            nn.Conv2d(2, 2, 3, 1, 1)
        self.fc = nn.Linear(4 * 12, 3)

    def forward(self, x):
        x, y = F.relu(self.a(x)).split((4, 4), 1)
        z = y + F.relu(self.b(y))
        x = F.relu(self.c(torch.cat([x, y, z], 1)))
        y = torch.cat([x[:, :x.shape[1] // 3], F.relu(self.d(x.narrow(1, 2, 2))), x[:, -2:, ...]], dim=1)
        y = y.split(y.shape[1:2], 1)[0]                  # all of it
        return self.fc(F.max_pool2d(y, 2)[:, 1:5].flatten(1)[:, 8:56])


class Ghost(nn.Module):
    """Ghost modules: cheap maps beside those of a convolution, of which some are left over."""

    def __init__(self):
        super().__init__()
        def module(inputs, outputs):
            made = -(-outputs // 2)
            return nn.ModuleList([unit(nn.Conv2d(inputs, made, 1, bias=False), nn.ReLU()),
                                  unit(nn.Conv2d(made, made, 3, 1, 1, groups=made, bias=False), nn.ReLU())])
        self.one, self.two, self.fc = module(1, 5), module(5, 3), nn.Linear(3, 4)

    def ghost(self, pair, x, outputs):
        x = pair[0](x)
        return torch.cat([x, pair[1](x)], 1)[:, :outputs, :, :]

    def forward(self, x):
        x = F.max_pool2d(self.ghost(self.one, x, 5), 2)
        return self.fc(self.ghost(self.two, x, 3).mean((2, 3)))


class Line(nn.Module):
    """A line of samples, gated by another part of its channels; every other channel at the end."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv1d(2, 6, 3, padding=1), nn.Conv1d(3, 4, 3)

    def forward(self, x):
        x = F.relu(self.a(x))
        return F.relu(self.b(x[:, 0:3] + torch.tensor_split(x, 2, 1)[1]))[:, ::2].mean(2)


NETWORKS = {"shufflenet": (shufflenet, (1, 8, 8)), "partial": (Partial, (2, 8, 8)),
            "ghost": (Ghost, (1, 6, 6)), "line": (Line, (2, 12))}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_equal_torch(name):
    assert "Select" in {node.op for node in equal(*prepared(*NETWORKS[name]))}


@pytest.mark.parametrize("name", ["ghost", "line", pytest.param("shufflenet", marks=pytest.mark.slow),
                                  pytest.param("partial", marks=pytest.mark.slow)])
def test_networks_are_exact_in_hardware(name):
    _, model, x, _ = prepared(*NETWORKS[name])
    calibrate(model, [x])
    exact(convert(model.eval()), count=2)


@pytest.mark.parametrize("move, text", [
    (lambda x: x[:, :, ::2], r"Node 'getitem' takes \(4, 2, 4\) of \(4, 4, 4\); supported: channels, ascending and each once"),
    (lambda x: x[:, :, :, [0, 1, 3]], "rows and columns without gaps"), (lambda x: x[:, :, :, 1], r"takes \(4, 4\) of"),
    (lambda x: x[1:], "of rows and columns without gaps"), (lambda x: x[0], r"takes \(4, 4\) of"),
    (lambda x: x[:, :, 4:], r"takes \(4, 0, 4\) of"), (lambda x: x[:, [2, 1]], "ascending and each once"),
    (lambda x: x[:, [1, 1]], "ascending and each once"), (lambda x: x[:, 1], r"takes \(4, 4\) of"),
    (lambda x: x[:, 4:], r"takes \(0, 4, 4\) of"), (lambda x: x.flip(2)[:, :, 1:], "function 'flip' is not supported"),
    (lambda x: torch.cat(x.chunk(2, 1), 1), r"'cat' reads all parts of 'chunk' at once"),
    (lambda x: x[:, x.argmax():], "dim of argmax = None is not supported")])
def test_other_slices_are_refused(move, text):
    with pytest.raises(ModelError, match=text):
        prepare(Moves(move), torch.zeros(2, 1, 4, 4), "dfp:b=4")
