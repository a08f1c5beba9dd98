"""Networks with branches: random graphs of layers, additions and concatenations; what is tied, what is refused."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from hwq import ir  # noqa: E402
from hwq.errors import ModelError  # noqa: E402
from hwq.frontend import convert  # noqa: E402
from hwq.interp import encode_images, run  # noqa: E402
from hwq.models import resnet8  # noqa: E402
from hwq.quant import InputSpec, calibrate, freeze, load_weights, prepare, save_checkpoint  # noqa: E402

from ..frontend.test_equal import same_everywhere  # noqa: E402
from ..plan.test_corners import exact  # noqa: E402
from .networks import SIZE, Drawn, randomize  # noqa: E402


def functional(graph, codes):
    """The integer network by torch's own functions in float64, channels first; only `Requantize` is ours."""
    values = {"input": torch.from_numpy(codes).double().movedim(-1, 1)}
    for node in list(graph)[1:]:
        x = [values[source] for source in node.inputs]
        if node.op == "Conv2d":
            top, left, bottom, right = node.pads
            y = F.conv2d(F.pad(x[0], (left, right, top, bottom)),
                         torch.from_numpy(node.weight.transpose(0, 3, 1, 2).copy()).double(),
                         torch.from_numpy(node.bias.copy()).double(), node.stride, 0, node.dilation, node.groups)
        elif node.op == "Linear":
            y = F.linear(x[0], torch.from_numpy(node.weight.copy()).double(), torch.from_numpy(node.bias.copy()).double())
        elif node.op == "Requantize":
            line = [torch.from_numpy(row.copy()).double().view(1, -1, *[1] * (x[0].ndim - 2)) for row in (node.mult, node.offset)]
            offset = line[1] if not node.offset_neg.size else torch.where(x[0] < 0, float(node.offset_neg[0]), line[1])
            y = torch.floor((x[0] * line[0] + offset) * 2.0 ** -node.shift).clamp(node.lo, node.hi)
        else:
            y = {"Add": lambda node, x: x[0] * node.mult[0] + x[1] * node.mult[1], "Concat": lambda node, x: torch.cat(x, 1),
                 "MaxPool2d": lambda node, x: F.max_pool2d(x[0], node.kernel, node.stride, node.pads[:2]),
                 "AvgPool2d": lambda node, x: F.avg_pool2d(x[0], node.kernel, node.stride, node.pads[:2], divisor_override=1),
                 "GlobalAvgPool2d": lambda node, x: x[0].sum((2, 3), keepdim=True),
                 "Pad": lambda node, x: F.pad(x[0], (node.pads[1], node.pads[3], node.pads[0], node.pads[2])),
                 "Upsample": lambda node, x: F.interpolate(x[0], scale_factor=node.factor),
                 "Flatten": lambda node, x: x[0].movedim(1, -1).flatten(1), "Output": lambda node, x: x[0]}[node.op](node, x)
        values[node.name] = y
    return values["output"].movedim(1, -1).long().numpy()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10 ** 6), bits=st.integers(1, 8), act=st.integers(2, 8), mode=st.sampled_from(["fold", "keep"]))
def test_random_graphs(seed, bits, act, mode):
    net, spec = Drawn(seed).eval(), InputSpec(bits)
    randomize(net, seed)
    images = np.random.default_rng(seed).integers(0, 256, (4, SIZE, SIZE, 2)).astype(np.uint8)
    x = spec.tensor(images)
    # before calibration, with float weights (and biases rounded to 2**-48), it is the user's function: every ReLU is where it was
    model = prepare(copy.deepcopy(net).double(), x.double(), "dfp:b=16,fl=40", input=spec, batchnorm=mode)
    model.float_weights = True
    for norm in model.train().batchnorms:
        norm.eval()
    torch.testing.assert_close(model(x.double()), copy.deepcopy(net).double()(x.double()), rtol=1e-9, atol=1e-9)
    model = prepare(net, x, {"*": "dfp:b=4", "last": "po2:b=3,channel"}, activations=f"dfp:b={act}", input=spec, batchnorm=mode)
    calibrate(model, [x])
    graph, logits, reference = same_everywhere(model, images)
    flat = graph.edges["output"].shape == (3,)
    np.testing.assert_array_equal(logits if flat else logits.reshape(4, 3, -1).transpose(0, 2, 1).reshape(4, -1), reference)
    np.testing.assert_array_equal(functional(graph, encode_images(graph, images)).reshape(4, -1), reference)
    model.train()(x).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


class Net(nn.Module):
    """Two convolutions of four channels, and a function of the input and their results."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.last = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(2, 4, 1), nn.LazyConv2d(3, 1)
        self.function, self.inplace = function, nn.ReLU(inplace=True)

    def forward(self, x):
        return self.last(self.function(self, x, self.a(x), self.b(x)))


IMAGES = np.random.default_rng(5).integers(0, 256, (6, SIZE, SIZE, 2)).astype(np.uint8)
X = InputSpec().tensor(IMAGES)


def made(function, activations="dfp:b=4"):
    net = Net(function).eval()
    net(X)
    model = prepare(net, X, "dfp:b=4", activations=activations)
    calibrate(model, [X])
    graph, _, _ = same_everywhere(model, IMAGES)
    return model, {node.name: node for node in graph}


def test_a_relu_that_nothing_else_sees_goes_into_the_quantizers():
    model, nodes = made(lambda net, x, a, b: F.relu(F.max_pool2d(torch.cat([a, b], 1), 2)))
    assert "relu" not in nodes and nodes["a.act"].lo == nodes["b.act"].lo == 0
    model, nodes = made(lambda net, x, a, b: F.relu(a) + a)
    assert nodes["a.act"].lo == -8 and nodes["relu"].op == "Requantize" \
        and (nodes["relu"].lo, nodes["relu"].hi, nodes["relu"].shift) == (0, 7, 0)
    model, nodes = made(lambda net, x, a, b: F.relu(F.relu(a) + F.relu(b)))        # a sum of what is never negative
    assert nodes["add.act"].lo == 0 and nodes["add.act"].hi == 15
    model, nodes = made(lambda net, x, a, b: F.relu(x) + x)                       # input codes are never negative
    assert nodes["add"].inputs == ("input", "input") and "relu" not in nodes


def test_concatenations_share_the_scale_of_the_least_error():
    model, nodes = made(lambda net, x, a, b: torch.cat([F.relu(a), b, x], 1), {"a": "dfp:b=5", "*": "dfp:b=3"})
    parts = [nodes[name] for name in nodes["cat"].inputs]
    assert [part.name for part in parts] == ["a.act", "b.act", "cat.2"] and len({part.frac_bits for part in parts}) == 1
    assert [(part.lo, part.hi) for part in parts] == [(0, 31), (-4, 3), (0, 7)]
    first, second = ((stage.quantizer(stage.weight).detach(), stage.bias.detach()) for stage in model.weighted[:2])
    values = [F.relu(F.conv2d(X, *first, padding=1)), F.conv2d(X, *second), X]

    def error(scale):
        return sum(float((value - torch.floor(value * 2.0 ** scale + 0.5).clamp(part.lo, part.hi) * 2.0 ** -scale).square().sum())
                   for value, part in zip(values, parts, strict=True))
    assert error(parts[0].frac_bits) < 1.01 * min(error(scale) for scale in range(-8, 12))
    model, nodes = made(lambda net, x, a, b: torch.cat([torch.cat([a, b], 1), a], 1), {"a": "dfp:b=4,fl=3", "*": "dfp:b=4"})
    assert nodes["a.act"].frac_bits == nodes["b.act"].frac_bits == 3
    model, nodes = made(lambda net, x, a, b: torch.cat([x, x], 1))                 # the input's own grid serves
    assert nodes["cat"].inputs == ("input", "input")
    net = Net(lambda net, x, a, b: torch.cat([a, b], 1)).eval()
    net(X)
    with pytest.raises(ModelError, match="'cat' concatenates.*share one scale.*a: fl=3, b: fl=2"):
        prepare(net, X, "dfp:b=4", activations={"a": "dfp:b=4,fl=3", "b": "dfp:b=4,fl=2"})


def test_scales_that_were_tampered_with_are_refused():
    model, _ = made(lambda net, x, a, b: torch.cat([a, b], 1))
    model.weighted[0].activation.frac_bits += 1
    with pytest.raises(ModelError, match="'cat' concatenates activations of different scales"):
        model.eval()(X)


def test_flattened_branches_keep_torchs_order():
    class Flat(nn.Module):
        def __init__(self, join):
            super().__init__()
            torch.manual_seed(1)
            self.a, self.b, self.c = nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 1, 2), nn.Linear(2 * SIZE ** 2, 5)
            self.join, self.fc = join, nn.LazyLinear(3)

        def forward(self, x):
            return self.fc(self.join(self.a(x).flatten(1), F.max_pool2d(self.b(x), 2, 1).flatten(1), self.c(x.flatten(1)), x))
    for join in (lambda a, b, c, x: torch.cat([a, c, b, x.flatten(1)], 1), lambda a, b, c, x: a + F.relu(a),
                 lambda a, b, c, x: torch.cat([c, c], -1) + torch.cat([c, c], 1)):
        net = Flat(join).eval()
        net(X)
        model = prepare(net, X, "dfp:b=4")
        calibrate(model, [X])
        _, logits, reference = same_everywhere(model, IMAGES)
        np.testing.assert_array_equal(logits, reference)

    class Uneven(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.fc = nn.Conv2d(2, 2, (1, 3)), nn.Conv2d(2, 4, (1, 3), (1, 2)), nn.Linear(48, 3)

        def forward(self, x):
            return self.fc(self.a(x).flatten(1) + self.b(x).flatten(1))
    model = prepare(Uneven(), X, "dfp:b=4")
    calibrate(model, [X])
    with pytest.raises(ModelError, match="'add' adds tensors that were flattened from images of different shapes"):
        convert(model)


@pytest.mark.parametrize("function, text", [
    (lambda net, x, a, b: a + 1, "'add' adds 1; supported: the sum of two tensors"),
    (lambda net, x, a, b: torch.add(a, b, alpha=2), "'add': alpha = 2 is not supported; accepted: 1"),
    (lambda net, x, a, b: a + a.mean((2, 3), keepdim=True),
     "'add': shapes of the operands = .*two of one shape: nothing is broadcast"),
    (lambda net, x, a, b: torch.cat([a, b], 2), "'cat': dim = 2 is not supported; accepted: 1, the channels"),
    (lambda net, x, a, b: a - b, "'sub' is not supported; supported: Conv1d/2d.*additions, concatenations"),
    (lambda net, x, a, b: a * b, "'mul' is not supported"),
    (lambda net, x, a, b: torch.stack([a, b]).sum(0), "'stack' is not supported"),
    (lambda net, x, a, b: net.inplace(a) + a, "computes another function than torch.fx records.*in place.*write x = x . y"),
    (lambda net, x, a, b: a.add_(b) + a, "computes another function than torch.fx records"),
    (lambda net, x, a, b: net.a(x) + a, "Layer 'a' is used twice"),
])
def test_what_is_refused(function, text):
    net = Net(function).eval()
    with torch.no_grad():
        net(X)
    with pytest.raises(ModelError, match=text):
        prepare(net, X, "dfp:b=4")


def test_adding_in_place_under_another_name_is_refused():
    class Sneaky(Net):
        def forward(self, x):
            a = self.a(x)
            kept = a
            a += self.b(x)
            return self.last(a + kept)
    net = Sneaky(None).eval()
    net(X)
    with pytest.raises(ModelError, match="Sneaky computes another function than torch.fx records"):
        prepare(net, X, "dfp:b=4")

    class Honest(Net):
        def forward(self, x):
            a = self.inplace(self.a(x))
            a += self.b(x)
            return self.last(sum([a, a]))
    net = Honest(None).eval()
    net(X)
    assert [stage.name for stage in prepare(net, X, "dfp:b=4")] == ["a", "b", "add", "add_2", "last"]


def test_one_relu_module_may_serve_many_places():
    """As in torchvision's blocks."""
    class Block(Net):
        def forward(self, x):
            out = self.inplace(self.a(x))
            out += self.b(x)
            out = self.inplace(out)
            return self.last(out) + self.inplace(self.last2(out))

        def __init__(self):
            super().__init__(None)
            self.last2 = nn.Conv2d(4, 3, 3, padding=1)
    net = Block().eval()
    net(X)
    model = prepare(net, X, "dfp:b=4")
    assert [stage.name for stage in model] == ["a", "b", "add", "last", "last2", "add_1"]
    assert [bool(stage.activation.signed) for stage in model if stage.activation] == [False, True, False, True, False]


def test_batch_norms_need_their_layer_alone():
    class Shared(Net):
        def __init__(self):
            super().__init__(None)
            self.bn = nn.BatchNorm2d(4)

        def forward(self, x):
            a = self.a(x)
            return self.last(self.bn(a) + a)
    net = Shared().eval()
    net(X)
    with pytest.raises(ModelError, match="'bn': a batch norm must stand directly behind a Conv2d or Linear layer or an addition, "
                       "and be all that reads it"):
        prepare(net, X, "dfp:b=4")


class Normed(Net):
    """A batch norm behind an addition."""

    def __init__(self, relu=True, last=True):
        super().__init__(None)
        self.bn, self.relu, self.ends = nn.BatchNorm2d(4), nn.ReLU() if relu else nn.Identity(), last
        randomize(self, 3)

    def forward(self, x):
        y = self.relu(self.bn(self.a(x) + F.relu(self.b(x))))
        return self.last(y) if self.ends else y


@pytest.mark.parametrize("mode", ["fold", "keep"])
@pytest.mark.parametrize("relu", [True, False])
def test_batch_norms_behind_additions_are_exact(relu, mode):
    net = Normed(relu).eval()
    net(X)
    with torch.no_grad():
        net.bn.weight[0] = -0.7                                                    # a channel that falls as the sum grows
    double = prepare(copy.deepcopy(net).double(), X.double(), "dfp:b=16,fl=40", batchnorm=mode)
    double.float_weights = True
    for norm in double.train().batchnorms:
        norm.eval()
    torch.testing.assert_close(double(X.double()), copy.deepcopy(net).double()(X.double()), rtol=1e-9, atol=1e-9)
    model = prepare(net, X, "dfp:b=4", batchnorm=mode)
    calibrate(model, [X])
    graph, logits, reference = same_everywhere(model, IMAGES)
    np.testing.assert_array_equal(functional(graph, encode_images(graph, IMAGES)).reshape(6, -1), reference.reshape(6, -1))
    act = graph.by_name["add.act"]
    assert graph.by_name["add"].op == "Add" and len(act.mult) == 4 and act.mult.min() < 0 < act.mult.max() \
        and act.lo == (0 if relu else -8)
    before = net.bn.running_mean.clone()
    model.train()(X).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert not torch.equal(model.batchnorms[-1].running_mean, before) and torch.equal(net.bn.running_mean, before)
    freeze(model)
    assert not any(norm.training for norm in model.train().batchnorms)
    exact(convert(model), "up5k", count=3)


def test_a_batch_norm_behind_the_last_addition_is_refused():
    net = Normed(relu=False, last=False).eval()
    with pytest.raises(ModelError, match="'bn': a batch norm behind an addition needs a quantizer behind it"):
        prepare(net, X, "dfp:b=4")


@pytest.mark.parametrize("mode", ["fold", "keep"])
def test_resnet8_trains_lowers_and_comes_back(mode, tmp_path):
    torch.manual_seed(0)
    net = resnet8.network(width=0.25)
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3)).astype(np.uint8)
    x = InputSpec().tensor(images)
    net.train()(x)
    model = prepare(net.eval(), x, {"conv": "dfp:b=8", "blocks.*": "dfp:b=3", "fc": "dfp:b=4"}, batchnorm=mode,
                    activations={"blocks.*.add": "dfp:b=6", "*": "dfp:b=4"}).train()
    calibrate(model, [x])
    optimizer = torch.optim.SGD(model.parameters(), 0.02)
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(model(x), torch.arange(6)).backward()
        assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for k, p in model.named_parameters() if k.endswith("weight"))
        optimizer.step()
    freeze(model)
    graph, logits, reference = same_everywhere(model, images)
    np.testing.assert_array_equal(logits, reference)
    adds = [node for node in graph if isinstance(node, ir.Add)]
    assert [node.name for node in adds] == [f"blocks.{k}.add" for k in range(3)]
    assert all(graph.by_name[f"{node.name}.act"].lo == 0 and graph.by_name[f"{node.name}.act"].hi == 63 for node in adds)
    save_checkpoint(tmp_path / "a.pt", model.state_dict())
    again = prepare(resnet8.network(width=0.25).eval(), x, {"conv": "dfp:b=8", "blocks.*": "dfp:b=3", "fc": "dfp:b=4"},
                    batchnorm=mode, activations={"blocks.*.add": "dfp:b=6", "*": "dfp:b=4"})
    load_weights(again, tmp_path / "a.pt")
    assert torch.equal(again.eval()(x), model.eval()(x))
    saved = ir.loads(ir.dumps(graph))
    np.testing.assert_array_equal(run(saved, encode_images(saved, images))["output"], reference)
