"""Softmax and the like at the end, argmax, and average pools to a size."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from hwq.errors import ModelError  # noqa: E402
from hwq.frontend import convert  # noqa: E402
from hwq.frontend.equality import compare  # noqa: E402
from hwq.interp import encode_images, predict, run  # noqa: E402
from hwq.quant import InputSpec, calibrate, load_checkpoint, prepare  # noqa: E402
from hwq.quant.ends import on_logits  # noqa: E402
from hwq.quant.run import load_run, train_run  # noqa: E402

from .test_train import RECIPE, network, toy  # noqa: E402

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 6, 6)).astype(np.uint8)
X = InputSpec().tensor(IMAGES)


class Net(nn.Module):
    def __init__(self, end=None, layer=None, flat=True):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(64, 5)
        self.fc.weight.data.mul_(6)
        self.fc.bias.data.zero_()
        self.end, self.layer, self.flat = end or (lambda x: x), layer or nn.Identity(), flat

    def forward(self, x):
        x = F.relu(self.conv(x))
        return self.end(self.layer(self.fc(x.flatten(1)) if self.flat else x))


def prepared(net):
    model = prepare(net, X[:2], "dfp:b=5", activations="dfp:b=5")
    calibrate(model, [X])
    return model.eval()


@pytest.mark.parametrize("end", [
    Net(layer=nn.Softmax(1)), Net(layer=nn.Softmax(dim=-1)), Net(layer=nn.LogSoftmax(1)), Net(layer=nn.Sigmoid()),
    Net(lambda x: F.softmax(x, 1)), Net(lambda x: F.softmax(x, dim=-1)), Net(lambda x: torch.softmax(x, 1)), Net(torch.sigmoid),
    Net(lambda x: x.softmax(dim=1)), Net(lambda x: F.log_softmax(x, dim=1)), Net(lambda x: x.log_softmax(-1)), Net(F.sigmoid),
    Net(lambda x: x.sigmoid()), Net(lambda x: torch.softmax(x, 1), nn.Dropout()), Net(lambda x: torch.sigmoid(x).softmax(1))])
def test_they_are_left_out_with_a_note(end):
    model, plain = prepared(end), prepared(Net())
    notes = " ".join(model.notes)
    assert "is left out: the output is its input" in notes and ("stays the largest" in notes or "rises with its input" in notes)
    assert (model(X) == plain(X)).all() and not plain.notes
    graph = convert(model)
    assert graph.by_name["output"].inputs == ("fc",)
    compare(model, graph, IMAGES)
    with torch.no_grad():
        assert torch.equal(on_logits(end.eval(), X[:2])(X), Net().eval()(X)) and list(end.state_dict()) == list(Net().state_dict())


@pytest.mark.parametrize("end", [lambda x: torch.argmax(x, 1), lambda x: x.argmax(-1), lambda x: x.argmax(dim=1, keepdim=True),
                                 lambda x: F.softmax(x, 1).argmax(1), lambda x: torch.argmax(input=x, dim=1)])
def test_an_argmax_is_the_integer_network_s(end):
    model = prepared(Net(end))
    graph = convert(model, classes=tuple("abcde"))
    assert graph.by_name["output"].inputs == ("argmax",) and graph.by_name["argmax"].op == "ArgMax"
    compare(model, graph, IMAGES)
    found = predict(graph, run(graph, encode_images(graph, IMAGES))["output"])
    np.testing.assert_array_equal(found, model(X).argmax(1).numpy())
    assert "'argmax' (argmax) is the integer network's last layer" in model.notes[-1] and len(set(found.tolist())) > 1


def test_an_argmax_of_every_pixel_is_left_out():
    model = prepared(Net(lambda x: x.argmax(1), flat=False))
    assert model.notes == ("'argmax' (argmax) is left out: the output is its input. The class is the place of the largest value",)
    assert convert(model).edges["output"].shape == (4, 4, 4)


def test_a_layer_may_be_called_argmax():
    net = nn.Sequential()
    net.add_module("argmax", nn.Conv2d(1, 3, 6))
    net.add_module("flat", nn.Flatten())
    class Ranked(nn.Module):
        def __init__(self):
            super().__init__()
            self.argmax = net

        def forward(self, x):
            return self.argmax(x).argmax(1)
    model = prepared(Ranked())
    compare(model, convert(model), IMAGES)


@pytest.mark.parametrize("net, text", [
    (Net(layer=nn.Sequential(nn.Softmax(1), nn.Linear(5, 2))), "'layer.0': softmax in the middle of a network, before 'layer.1'"),
    (Net(lambda x: torch.sigmoid(x) + x), "'sigmoid': sigmoid in the middle of a network, before 'add'"),
    (Net(lambda x: x.softmax(1).relu()), "softmax in the middle of a network, before 'relu"),
    (Net(lambda x: x.softmax(0)), "dim of softmax = 0 is not supported; accepted: 1"),
    (Net(layer=nn.Softmax(2), flat=False), "'layer': dim of softmax = 2"), (Net(lambda x: x.argmax()), "dim of argmax = None"),
    (Net(layer=nn.Softmin(1)), "layer Softmin is not supported"), (Net(lambda x: x.argmax(1), nn.ReLU6(), False), None)])
def test_elsewhere_they_are_refused(net, text):
    if text is None:
        prepare(net, X[:2], "dfp:b=5")
        return
    with pytest.raises(ModelError, match=text):
        prepare(net, X[:2], "dfp:b=5")


def with_softmax():
    return nn.Sequential(*network(), nn.Softmax(1))


class Ranked(nn.Sequential):
    def forward(self, x):
        return F.softmax(super().forward(x), dim=1).argmax(1)


def with_argmax():
    return Ranked(*network())


@pytest.mark.parametrize("name", ["with_softmax", "with_argmax"])
def test_training_is_on_what_stands_before_them(name, tmp_path):
    for factory in ("tests.quant.test_train:network", f"tests.quant.test_ends:{name}"):
        recipe = RECIPE.replace("tests.quant.test_train:network", factory).replace("epochs = 3", "epochs = 1")
        result = train_run(factory, toy(), recipe, tmp_path / factory[-7:], seed=5)
    assert "left out" in result["notes"][0]
    plain, other = (load_checkpoint(tmp_path / end / "model.pt") for end in ("network", name[-7:]))
    assert plain.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in plain.items())
    model, _ = load_run(tmp_path / name[-7:])
    assert model.notes and ("ArgMax" in [node.op for node in convert(model)]) == (name == "with_argmax")


@pytest.mark.parametrize("layer, ops", [
    (nn.AdaptiveAvgPool2d((2, 1)), "AvgPool2d Requantize"), (nn.AdaptiveAvgPool2d(2), "AvgPool2d Requantize"),
    (nn.AdaptiveAvgPool2d(4), ""), (nn.AdaptiveAvgPool2d((None, 2)), "AvgPool2d Requantize"),
    (nn.AdaptiveAvgPool2d(1), "GlobalAvgPool2d Requantize")])
def test_average_pools_to_a_size(layer, ops):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), layer, nn.Flatten(), nn.LazyLinear(3))
    net(X)
    model = prepared(net)
    graph = convert(model)
    assert [node.op for node in graph][3:-3] == ops.split()
    compare(model, graph, IMAGES)
    model.train()
    for stage in model:
        if stage.activation is not None:
            stage.activation.bypass = True
    model.float_weights = True
    torch.testing.assert_close(model(X), net(X), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("layer, text", [
    (nn.AdaptiveAvgPool2d(3), r"output_size = \(3, 3\) is not supported; accepted: 1 .*divides the image's \(4, 4\)"),
    (nn.AdaptiveAvgPool2d((2, 3)), r"output_size = \(2, 3\)"), (nn.AdaptiveAvgPool2d(8), r"output_size = \(8, 8\)"),
    (nn.AdaptiveMaxPool2d(2), "layer AdaptiveMaxPool2d is not supported")])
def test_sizes_that_are_refused(layer, text):
    with pytest.raises(ModelError, match=text):
        prepare(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), layer, nn.Conv2d(4, 2, 1)), X[:2], "dfp:b=5")
