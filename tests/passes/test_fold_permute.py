# amaranth: UnusedElaboratable=no
"""Orders of channels: into weights before or behind, through all that stands between; else taken apart, or refused by name."""

from dataclasses import replace

import numpy as np
import pytest

from hwq import ir
from hwq.errors import ModelError
from hwq.formats import FixedPoint
from hwq.interp import run
from hwq.ir import infer
from hwq.ir import nodes as n
from hwq.passes import FoldPermute, apply_passes
from tests.plan.test_corners import exact

FMT = FixedPoint(4, 0)


class Net:
    """Nodes, each behind the last if not said otherwise, of random numbers."""

    def __init__(self, *shape, seed=0):
        self.rng = np.random.default_rng(seed)
        self.nodes = [n.Input("input", (), shape, -8, 7)]
        self.edges = {"input": infer(self.nodes[0], [])}

    def add(self, kind, *sources, **attributes):
        name = f"{kind.__name__.lower()}{len(self.nodes)}"
        self.nodes.append(kind(name, sources or (self.nodes[-1].name,), **attributes))
        self.edges[name] = infer(self.nodes[-1], [self.edges[source] for source in self.nodes[-1].inputs])
        return self

    @property
    def last(self):
        return self.nodes[-1].name

    @property
    def channels(self):
        return self.edges[self.last].shape[-1]

    def conv(self, outputs, groups=1, kernel=3):
        weight = self.rng.integers(-8, 8, (outputs, kernel, kernel, self.channels // groups))
        return self.add(n.Conv2d, weight=weight, bias=self.rng.integers(-50, 50, outputs), weight_format=FMT, groups=groups,
                        pads=(kernel // 2,) * 4, pad_value=3).act()

    def act(self, thresholds=False):
        count = self.channels
        if thresholds:
            return self.add(n.Requantize, thresholds=np.sort(self.rng.integers(-8, 8, (count, 7)), 1), lo=-3, hi=4)
        return self.add(n.Requantize, mult=self.rng.integers(-9, 30, count),
                        offset=self.rng.integers(-99, 99, count), shift=7, lo=-8, hi=7)

    def linear(self, outputs):
        return self.add(n.Linear, weight=self.rng.integers(-8, 8, (outputs, self.channels)),
                        bias=self.rng.integers(-50, 50, outputs), weight_format=FMT)

    def shuffle(self, groups=0):
        """Shuffle as ShuffleNet does, or put all in any order."""
        places = np.arange(self.channels)
        return self.add(n.Permute, order=places.reshape(groups, -1).T.ravel() if groups else self.rng.permutation(places))

    def graph(self):
        return ir.Graph((*self.nodes, n.Output("output", (self.last,))))


def concat(order):
    """Two branches joined, in another order, before a convolution."""
    net = Net(4, 4, 3).conv(4)
    left = net.last
    net.conv(2)
    return net.add(n.Concat, left, net.last).add(n.Permute, order=np.array(order)).add(n.MaxPool2d).conv(3)


def block():
    """A residual block whose two operands are shuffled alike, between grouped convolutions."""
    net = Net(4, 4, 3).conv(6).shuffle(2)
    skip = net.last
    return net.conv(6, 6).add(n.Add, skip, net.last).act().conv(4)


def both():
    """An order that both operands of a sum can take up, and what reads it cannot."""
    net = Net(4, 4, 3).conv(6)
    left = net.last
    net.add(n.Requantize, "input", shift=1, lo=-4, hi=3).conv(6)
    return net.add(n.Add, left, net.last).shuffle()


def halves(order, branch=True):
    """A shuffled tensor split in two, as in ShuffleNet v2: one half joins again as it is, both are shuffled and split again."""
    net = Net(4, 4, 3).conv(8).add(n.Permute, order=np.array(order))
    whole = net.last
    left = net.add(n.Select, whole, channels=np.arange(4)).last
    net.add(n.Select, whole, channels=np.arange(4, 8)).conv(4).conv(4, 4).conv(4, kernel=1)
    net.add(n.Concat, left, net.last).shuffle(2)
    return net.add(n.Select, channels=np.array([1, 2, 3, 6])).conv(3) if branch else net.conv(5)


CASES = {
    "of channels that are chosen, before": Net(4, 4, 3).conv(7).add(n.Select,
                                                                    channels=np.array([1, 2, 4, 6])).shuffle().add(n.MaxPool2d),
    "of channels that are chosen, behind": Net(4, 4, 7).shuffle().add(n.Select, channels=np.array([1, 2, 4, 6])).conv(3),
    "split and joined": halves([0, 4, 1, 5, 2, 6, 3, 7], branch=False),
    "split and joined, and split": halves([0, 4, 1, 5, 2, 6, 3, 7]),
    "split anyhow": halves([3, 7, 5, 0, 1, 6, 4, 2]),
    "into the convolution before": Net(4, 4, 3).conv(6).shuffle().add(n.MaxPool2d),
    "into the convolution behind": Net(4, 4, 6).shuffle().conv(4),
    "through thresholds": Net(4, 4, 3).conv(6).act(thresholds=True).shuffle(3).add(n.AvgPool2d),
    "through thresholds behind": Net(4, 4, 6).shuffle(3).act(thresholds=True).conv(2),
    "through all that treats channels alike": Net(4, 4, 3).conv(6).add(n.Pad, pads=(1, 0, 0, 1), value=2).add(n.Upsample).add(
        n.AvgPool2d).shuffle(),
    "through depthwise convolutions before": Net(4, 4, 3).conv(6).conv(6, 6).shuffle(2),
    "through depthwise convolutions behind": Net(4, 4, 6).shuffle(2).conv(12, 6).conv(12, 12).conv(2),
    "of whole groups, behind": Net(4, 4, 6).add(n.Permute, order=np.array([5, 4, 2, 3, 0, 1])).conv(9, 3).conv(2),
    "within groups, before": Net(4, 4, 6).conv(6, 2).add(n.Permute, order=np.array([2, 0, 1, 3, 5, 4])),
    "of whole groups, before": Net(4, 4, 2).conv(6).conv(6, 3).add(n.Permute, order=np.array([5, 4, 0, 1, 2, 3])),
    "into the linear layer behind": Net(2, 3, 4).shuffle(2).add(n.Flatten).linear(3),
    "of an image of a linear layer": Net(5).linear(12).act().shuffle().add(n.Unflatten, shape=(2, 3, 2)).shuffle().add(n.Upsample),
    "of a flat input, in an image": Net(12).add(
        n.Permute, order=np.array([p * 3 + c for p in range(4) for c in (2, 0, 1)])).add(n.Unflatten, shape=(2, 2, 3)).conv(2),
    "into the image before": Net(2, 2, 2).conv(3).add(n.Flatten).add(
        n.Permute, order=np.array([p * 3 + c for p in range(4) for c in (1, 2, 0)])),
    "two in a row": Net(4, 4, 6).shuffle().shuffle().conv(2),
    "two that undo one another": Net(4, 4, 6).add(n.Permute, order=np.array([1, 2, 0, 3, 4, 5])).add(
        n.Permute, order=np.array([2, 0, 1, 3, 4, 5])).add(n.MaxPool2d),
    "joined, within each part": concat([3, 1, 0, 2, 5, 4]),
    "joined, between the parts": concat([0, 4, 1, 5, 2, 3]),
    "two readers that add": block(),
    "two operands": both(),
    "of one pixel": Net(3, 3, 2).conv(4).add(n.GlobalAvgPool2d).act().shuffle().add(n.Flatten).linear(2),
}


@pytest.mark.parametrize("name", CASES)
def test_orders_go_into_weights(name):
    graph = CASES[name].graph()
    after = FoldPermute().apply(graph)
    assert not any(isinstance(node, n.Permute) for node in after) and any(isinstance(node, n.Permute) for node in graph)
    x = np.random.default_rng(1).integers(-8, 8, (20, *graph.input.shape))
    wanted = run(graph, x)["output"]
    np.testing.assert_array_equal(run(after, x)["output"], wanted)
    assert len(np.unique(wanted.reshape(-1, wanted.shape[-1]), axis=1)[0]) == wanted.shape[-1]      # no two channels alike
    plain = ir.Graph(tuple(n.Permute(node.name, node.inputs, order=np.arange(len(node.order))) if isinstance(node, n.Permute)
                           else node for node in graph))
    assert name == "two that undo one another" or (run(plain, x)["output"] != wanted).any()         # the orders matter


@pytest.mark.parametrize("name", ["through depthwise convolutions behind", "of an image of a linear layer",
                                  "joined, between the parts", "split and joined, and split"])
def test_orders_in_hardware(name):
    exact(CASES[name].graph(), count=2)


def twice():
    """An order in front of one operand of a sum, of a tensor that is the other one."""
    net = Net(4, 4, 3).conv(4)
    skip = net.last
    return net.shuffle().add(n.Add, skip, net.last)


# With the parts that they are taken into: as many as there are groups behind, or as there are ascents.
APART = {
    "between groups": (Net(4, 4, 4).conv(8, 2).shuffle(2).conv(8, 2), 2),
    "between groups, and a depthwise convolution": (
        Net(4, 4, 3).conv(24, kernel=1).conv(24, 3, 1).shuffle(3).conv(24, 24).conv(6, 3, 1), 3),
    "between groups of other sizes": (Net(4, 4, 3).conv(12, kernel=1).conv(12, 3).shuffle().conv(12, 4), 4),
    "in front of a requantization": (Net(4, 4, 4).add(n.Conv2d, weight=np.arange(16).reshape(8, 1, 1, 2) - 8, bias=np.arange(8),
                                                      weight_format=FMT, groups=2).shuffle(2).act().conv(8, 2), 2),
    "of all there is": (Net(4, 4, 4).shuffle(2), 2),
    "in front of an image": (Net(8).add(n.Permute, order=np.array([0, 4, 6, 1, 2, 3, 5, 7])).add(n.Unflatten, shape=(2, 2, 2)), 2),
    "of one operand": (twice(), 2),
}


@pytest.mark.parametrize("name", APART)
def test_orders_that_nothing_takes_up_are_joined_of_parts(name):
    net, parts = APART[name]
    graph = net.graph()
    after = FoldPermute().apply(graph)
    assert [node.op for node in after].count("Select") == parts and not any(isinstance(node, n.Permute) for node in after)
    x = np.random.default_rng(1).integers(-8, 8, (20, *graph.input.shape))
    np.testing.assert_array_equal(run(after, x)["output"], run(graph, x)["output"])


@pytest.mark.parametrize("name", ["between groups, and a depthwise convolution", "in front of a requantization", "of one operand"])
def test_parts_are_exact_in_hardware(name):
    exact(APART[name][0].graph(), count=2)


def test_parts_have_names_of_their_own():
    net = Net(4, 4, 4).conv(8, 2).shuffle(2)
    net.nodes.insert(1, n.MaxPool2d(f"{net.last}.part1", ("input",), kernel=(1, 1), stride=(1, 1)))
    net.nodes[2] = replace(net.nodes[2], inputs=(net.nodes[1].name,))
    after = FoldPermute().apply(net.conv(8, 2).graph())
    assert {"permute3.part0", "permute3.part1", "permute3.part1_", "permute3.joined"} <= set(after.by_name)


@pytest.mark.parametrize("net, before, behind", [
    (Net(4, 4, 40).shuffle(), "Input 'input' has channels in the order", "Output 'output' needs its channels in the order"),
    (Net(4, 4, 4).conv(40, 2).shuffle().conv(40, 20), "Conv2d 'conv2d1' has 2 groups, across which its outputs would move",
     "Conv2d 'conv2d4' has 20 groups, between which its inputs would move"),
    (Net(5, 4, 2).add(n.Flatten).shuffle().add(n.TopK), "Flatten 'flatten1' is of an image whose pixels would move",
     "TopK 'topk3' needs its channels"),
    (Net(40).shuffle().add(n.Unflatten, shape=(5, 4, 2)), "Input", "Unflatten 'unflatten2' makes an image whose pixels would move"),
])
def test_orders_that_are_refused(net, before, behind):
    with pytest.raises(ModelError,
                       match=rf"Permute '.*' puts channels into another order.*before it .*{before}.*behind it .*{behind}"):
        apply_passes(net.graph())


@pytest.mark.parametrize("order", [[0, 1, 1], [0, 1], [0, 1, 3], [[0, 1, 2]]])
def test_orders_that_are_none(order):
    with pytest.raises(ModelError, match="Permute 'p': order must have each of 0 to 2 once"):
        ir.Graph((n.Input("input", (), (2, 2, 3)), n.Permute("p", ("input",), order=np.array(order)), n.Output("output", ("p",))))
