# amaranth: UnusedElaboratable=no
"""Torch networks that crop images and lines, as TCNs and U-Nets do; in float, in integers, and in hardware."""

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from hwq.frontend import convert  # noqa: E402
from hwq.passes import apply_passes  # noqa: E402
from hwq.quant import calibrate  # noqa: E402
from tests.plan.test_corners import exact  # noqa: E402
from tests.plan.test_cycles import check  # noqa: E402

from .test_torch_moved import equal, prepared  # noqa: E402


class Chomp1d(nn.Module):
    """The published TCN's: what a convolution that is padded on both sides knows of the future is cut off."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, x):
        return x[:, :, :-self.size].contiguous()


class TemporalBlock(nn.Module):
    """The published TCN's, without weight norm."""

    def __init__(self, inputs, outputs, dilation):
        super().__init__()
        def half(inputs):
            return nn.Conv1d(inputs, outputs, 3, padding=2 * dilation, dilation=dilation), Chomp1d(2 * dilation), nn.ReLU()
        self.net = nn.Sequential(*half(inputs), *half(outputs))
        self.downsample = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x):
        return F.relu(self.net(x) + (x if self.downsample is None else self.downsample(x)))


class TCN(nn.Module):
    def __init__(self):
        super().__init__()
        self.tcn, self.linear = nn.Sequential(TemporalBlock(2, 4, 1), TemporalBlock(4, 4, 2)), nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(self.tcn(x)[:, :, -1])


class UNet(nn.Module):
    """Valid convolutions, the skip cropped around its middle and joined with what was enlarged."""

    def __init__(self, how="slice"):
        super().__init__()
        self.how = how
        self.a, self.b, self.c, self.d = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 4, 3), nn.Conv2d(7, 3, 3), nn.Conv2d(3, 2, 1)

    def forward(self, x):
        x = F.relu(self.a(x))                            # 10
        y = F.interpolate(F.relu(self.b(F.max_pool2d(x, 2))), scale_factor=2)                   # 6
        top, left = (x.shape[2] - y.shape[2]) // 2, (x.shape[3] - y.shape[3]) // 2
        if self.how == "slice":
            x = x[:, :, top:top + y.shape[2], left:left + y.shape[3]]
        else:
            x = F.pad(x, (-left, -left, -top, -top))
        return self.d(F.relu(self.c(torch.cat([x, y], 1))))


class Shifts(nn.Module):
    """Crops of all kinds: with a border on the other side, of channels as well, of rows of which a line is left."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(2, 3, 1), \
            nn.Conv1d(3, 3, 2)
        self.pad, self.fc = nn.ZeroPad2d((-1, 0, 1, -2)), nn.Linear(3, 3)

    def forward(self, x):
        x = self.pad(F.relu(self.a(x)))
        x = F.relu(self.b(x) + F.pad(x, (1, -1)))
        x = self.c(x[:, 1:3, 1:-1].narrow(3, 0, 4).split((3, 1), 3)[0])[:, :, 1]
        return self.fc(F.relu(self.d(F.relu(x))).select(2, 1))


NETWORKS = {"tcn": (TCN, (2, 12)), "unet": (UNet, (1, 12, 12)), "unet_by_pads": (lambda: UNet("pad"), (1, 12, 12)),
            "shifts": (Shifts, (2, 7, 6))}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_equal_torch(name):
    graph = equal(*prepared(*NETWORKS[name]))
    assert any(min(node.pads) < 0 for node in graph if node.op == "Pad")


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_exact_in_hardware(name):
    _, model, x, _ = prepared(*NETWORKS[name])
    calibrate(model, [x])
    graph = convert(model.eval())
    exact(graph, count=2)
    check(graph, "generic")


def test_a_tcn_has_less_border_and_no_crops_but_the_last():
    _, model, x, _ = prepared(*NETWORKS["tcn"])
    calibrate(model, [x])
    ready = apply_passes(convert(model.eval()))
    assert [node.pads for node in ready if node.op == "Conv2d" and node.weight.shape[2] == 3] == [
        (0, 2 * d, 0, 0) for d in (1, 1, 2, 2)]
    assert [node.pads for node in ready if node.op == "Pad"] == [(0, -11, 0, 0)]
