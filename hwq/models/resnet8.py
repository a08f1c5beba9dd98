"""ResNet-8 for images of 32x32 pixels: three residual blocks, as in MLPerf Tiny."""

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["network"]


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.short: nn.Module = nn.Identity() if stride == 1 and inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.short(x))


class _ResNet8(nn.Module):
    def __init__(self, classes: int, channels: int, width: float) -> None:
        super().__init__()
        counts = [max(1, round(count * width)) for count in (16, 16, 32, 64)]
        self.conv = nn.Conv2d(channels, counts[0], 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(counts[0])
        self.blocks = nn.Sequential(*(_Block(counts[k], counts[k + 1], 1 if k == 0 else 2) for k in range(3)))
        self.fc = nn.Linear(counts[3], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(F.relu(self.bn(self.conv(x))))
        return self.fc(x.mean((2, 3)))


def network(classes: int = 10, channels: int = 3, width: float = 1.0) -> nn.Module:
    """Return an untrained network: 3x3 convolution, blocks of 16, 32 and 64 channels (stride 1, 2, 2), average, linear layer.

    Parameters
    ----------
    classes, channels : int
        Outputs; channels of the images.
    width : float
        Factor on the channels; 1 has 77 k weights, 0.5 has 20 k, 0.25 has 5.0 k.
    """
    return _ResNet8(classes, channels, width)
