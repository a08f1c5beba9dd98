"""Networks that several tests draw at random."""

import random

import torch
import torch.nn.functional as F
from torch import nn

SIZE = 6


class Drawn(nn.Module):
    """A program of layers and functions on values of one size; each names those it reads, the last reads what nothing else does."""

    def __init__(self, seed, length=7):
        super().__init__()
        torch.manual_seed(seed)
        choose = random.Random(seed)
        self.program, self.layers = [], nn.ModuleList()
        channels = [2]
        for _ in range(length):
            a = choose.choices(range(len(channels)), range(1, len(channels) + 1))[0]       # rather late than early ones
            same = [k for k, count in enumerate(channels) if count == channels[a]]
            what = choose.choice(["conv", "conv", "conv", "relu", "relu", "add", "add", "cat", "max", "avg", "up"])
            b = choose.choice(same) if what == "add" else choose.randrange(len(channels))
            if what == "conv":
                self._conv(choose, channels[a])
            self.program.append((what, a, b, len(self.layers) - 1))
            channels.append({"conv": 4, "cat": channels[a] + channels[b]}.get(what, channels[a]))
        self.head = choose.choice(["flatten", "mean", "conv", "add"])
        read = {value for what, a, b, _ in self.program for value in ((a, b) if what in ("add", "cat") else (a,))}
        self.ends = [value for value in range(1, len(channels)) if value not in read][-3:]
        count = sum(channels[value] for value in self.ends)
        self.last = nn.Conv2d(count, 3, 1) if self.head in ("conv", "add") else \
            nn.Linear(count * (SIZE ** 2 if self.head == "flatten" else 1), 3)
        self.short = nn.Conv2d(2, 3, 1) if self.head == "add" else nn.Identity()

    def _conv(self, choose, inputs):
        groups = choose.choice([1, 2]) if inputs % 2 == 0 else 1
        padding, kernel, dilation = choose.choice([(1, 3, 1), (2, 3, 2), (0, 1, 1), ((1, 0), (3, 1), 1), ("same", 2, 1)])
        layer = nn.Conv2d(inputs, 4, kernel, padding=padding, dilation=dilation, groups=groups)
        self.layers.append(nn.Sequential(layer, nn.BatchNorm2d(4)) if choose.random() < 0.5 else layer)

    def forward(self, x):
        values = [x]
        for what, a, b, layer in self.program:
            a, b = values[a], values[b]
            values.append({"conv": lambda a, b, k=layer: self.layers[k](a), "relu": lambda a, b: F.relu(a),
                           "add": lambda a, b: a + b, "cat": lambda a, b: torch.cat([a, b], 1),
                           "max": lambda a, b: F.max_pool2d(a, 3, 1, 1),
                           "avg": lambda a, b: F.avg_pool2d(F.pad(a, (1, 1, 1, 1)), 3, 1),
                           "up": lambda a, b: F.interpolate(F.max_pool2d(a, 2), scale_factor=2)}[what](a, b))
        y = torch.cat([values[value] for value in self.ends], 1)
        y = y.mean((2, 3)) if self.head == "mean" else y.flatten(1) if self.head == "flatten" else y
        return self.last(y) + self.short(x) if self.head == "add" else self.last(y)


@torch.no_grad()
def randomize(net, seed):
    """Give batch norms running statistics, gains and offsets."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.3)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.2)
            module.weight.data.copy_(torch.randn(module.num_features, generator=generator))       # negative ones too
            module.bias.data.copy_(torch.randn(module.num_features, generator=generator))
