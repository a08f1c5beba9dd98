"""Torch in eval mode equals the interpreter, on every edge, for random small networks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from hwq.errors import ModelError  # noqa: E402
from hwq.frontend import convert, trace_codes  # noqa: E402
from hwq.interp import encode_images, run  # noqa: E402
from hwq.passes import apply_passes  # noqa: E402
from hwq.quant import InputSpec, calibrate, freeze, prepare  # noqa: E402

from ..quant.networks import randomize  # noqa: E402


class Net(nn.Module):
    """A chain with the features asked for."""

    def __init__(self, seed=0, kernel=3, stride=1, padding=1, bn=True, head="flatten", relu=True, channels=1, bias=True, pool=True):
        super().__init__()
        torch.manual_seed(seed)
        self.conv1 = nn.Conv2d(channels, 4, kernel, stride, padding, bias=bias)
        self.bn1 = nn.BatchNorm2d(4) if bn else nn.Identity()
        self.conv2 = nn.Conv2d(4, 6, 1, bias=bias)
        self.bn2 = nn.BatchNorm2d(6) if bn else nn.Identity()
        self.drop, self.head, self.relu, self.pool = nn.Dropout(0.3), head, relu, pool
        self.fc = nn.LazyLinear(3) if head != "conv" else nn.Conv2d(6, 3, 1)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        if self.pool:
            x = F.max_pool2d(x, 2)
        x = self.bn2(self.conv2(x))
        if self.relu:
            x = torch.relu(x)
        x = self.drop(x)
        if self.head == "mean":
            x = x.mean((2, 3))
        elif self.head == "gap":
            x = torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)
        elif self.head == "view":
            x = x.view(x.size(0), -1)
        elif self.head == "conv":
            return F.adaptive_avg_pool2d(self.fc(x), 1).flatten(1)
        else:
            x = x.flatten(1)
        return self.fc(x)


def same_everywhere(model, images):
    graph = convert(model, name="net")
    torch_side = trace_codes(model, images)
    reference = run(graph, encode_images(graph, images))
    assert set(torch_side) == set(reference)
    for name in reference:
        np.testing.assert_array_equal(torch_side[name], reference[name], err_msg=name)
    hardware = apply_passes(graph)
    np.testing.assert_array_equal(run(hardware, encode_images(hardware, images))["output"], reference["output"])
    model.eval()
    logits = model(model.input_spec.tensor(images))
    edge = graph.edges["output"]
    assert logits.dtype == torch.float64
    scale = logits.numpy().reshape(len(images), -1) * 2.0 ** edge.frac_bits
    return graph, scale, reference["output"].reshape(len(images), -1)


FORMATS = st.builds(lambda kind, rule, channel: f"{kind}{',' if ':' in kind else ':'}rule={rule}{',channel' if channel else ''}",
                    st.sampled_from(["dfp:b=2", "dfp:b=3,narrow", "dfp:b=4", "dfp:b=8", "po2:b=2", "po2:b=3", "po2:b=4",
                                     "bipolar"]), st.sampled_from(["mse", "range", "learned"]), st.booleans())


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10 ** 6), kernel=st.sampled_from([1, 2, 3, (3, 1), 5]), stride=st.sampled_from([1, 2, (2, 1)]),
       padding=st.sampled_from([0, 1, (0, 1), "valid", "same"]), bn=st.booleans(), mode=st.sampled_from(["fold", "keep"]),
       head=st.sampled_from(["flatten", "view", "mean", "gap", "conv"]), relu=st.booleans(), channels=st.integers(1, 3),
       bias=st.booleans(), bits=st.integers(1, 8), formats=st.tuples(*[FORMATS] * 3), act=st.integers(2, 8))
def test_every_edge(seed, kernel, stride, padding, bn, mode, head, relu, channels, bias, bits, formats, act):
    if padding == "same":
        stride = 1
    net = Net(seed % 1000, kernel, stride, padding, bn, head, relu, channels, bias, pool=stride == 1)
    images = np.random.default_rng(seed).integers(0, 256, (9, 11, 10, channels)).astype(np.uint8)
    spec = InputSpec(bits)
    net.eval()
    net(spec.tensor(images))
    randomize(net, seed)
    model = prepare(net, spec.tensor(images), {"conv1": formats[0], "conv*": formats[1], "fc": formats[2]},
                    activations={"*": f"dfp:b={act}"}, input=spec, batchnorm=mode)
    calibrate(model, [spec.tensor(images)])
    graph, logits, reference = same_everywhere(model, images)
    if head != "conv":
        np.testing.assert_array_equal(logits, reference)
    elif relu:
        pixels = np.prod(graph.edges[graph.by_name["output"].inputs[0]].shape)
        assert pixels == 3 and (logits.argmax(1) == reference.argmax(1)).mean() > 0.8     # means in reals: ties may part
    if mode == "keep" and bn:
        assert any(node.op == "Requantize" and node.mult.size > 1 for node in graph)


@pytest.mark.parametrize("mode", ["fold", "keep"])
def test_after_training_steps(mode):
    images = np.random.default_rng(1).integers(0, 256, (16, 12, 10)).astype(np.uint8)
    net, spec = Net(head="gap"), InputSpec(8)
    x = spec.tensor(images)
    net(x)
    model = prepare(net.eval(), x, "dfp:b=3", batchnorm=mode).train()
    calibrate(model, [x])
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    for step in range(6):
        if step == 3:
            freeze(model)
        optimizer.zero_grad()
        F.cross_entropy(model(x), torch.arange(16) % 3).backward()
        assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for k, p in model.named_parameters() if k.endswith("weight"))
        optimizer.step()
    _, logits, reference = same_everywhere(model, images)
    np.testing.assert_array_equal(logits, reference)


def test_training_path_in_float64_is_the_same_function():
    """Fake quantizers and integers are two ways to write one function: with float64 nothing parts them (folded)."""
    images = np.random.default_rng(2).integers(0, 256, (8, 12, 10)).astype(np.uint8)
    net, spec = Net(head="flatten"), InputSpec(8)
    x = spec.tensor(images)
    net(x)
    model = prepare(net.eval(), x, "dfp:b=4").double()
    calibrate(model, [x.double()])
    want = model.eval()(x)
    found = model.train()(x.double()).detach()
    torch.testing.assert_close(found, want, rtol=0, atol=0)


def test_names_survive_and_are_unique():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2))
            self.input = nn.Linear(32, 2)

        def forward(self, x):
            return self.input(self.features(x).flatten(1))
    model = prepare(Block(), torch.zeros(1, 1, 10, 10), "dfp:b=4")
    calibrate(model, [torch.randint(0, 256, (4, 1, 10, 10)) / 256])
    graph = convert(model, classes=("a", "b"))
    assert [node.name for node in graph] == ["input", "features.0", "features.0.act", "features.2", "flatten", "input_2", "output"]
    assert graph.classes == ("a", "b") and graph.preprocess.bits == 8


def test_flat_input_and_refusals():
    model = prepare(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)), torch.zeros(1, 6), "dfp:b=4", input=InputSpec(3))
    x = torch.randint(0, 8, (7, 6)) / 8
    with pytest.raises(ModelError, match="call hwq.quant.calibrate"):
        convert(model)
    with pytest.raises(ModelError, match="call hwq.quant.calibrate"):
        model.eval()(x)
    calibrate(model, [x])
    graph = convert(model)
    np.testing.assert_array_equal(run(graph, (x * 8).numpy().astype(np.int64))["output"], trace_codes(model, x)["output"])
    with pytest.raises(ModelError, match="what hwq.quant.prepare returns"):
        convert(nn.Linear(2, 2))
    with torch.no_grad():
        model.weighted[0].weight[0, 0] = float("inf")
    with pytest.raises(ModelError, match="'0'.*1 of 30 values of its weight are NaN or infinite"):
        convert(model)


def test_a_last_flatten_is_refused_where_the_orders_differ():
    def made(outputs, kernel):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, outputs, kernel), nn.Flatten())
        model = prepare(net.eval(), torch.zeros(1, 1, 6, 6), "dfp:b=4")
        calibrate(model, [InputSpec().tensor(np.random.default_rng(0).integers(0, 256, (4, 6, 6)).astype(np.uint8))])
        return model
    with pytest.raises(ModelError, match=r"ends in a Flatten of \(3, 2, 2\)"):
        convert(made(3, 3))
    images = np.random.default_rng(1).integers(0, 256, (4, 6, 6)).astype(np.uint8)
    for model in (made(1, 3), made(3, 4)):
        same_everywhere(model, images)


def test_what_users_get_is_compared_not_a_reordered_copy():
    from hwq.frontend import compare
    from hwq.ir import Output
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.Flatten(), nn.Linear(12, 3))
    model = prepare(net.eval(), torch.zeros(1, 1, 6, 6), "dfp:b=4")
    images = np.random.default_rng(1).integers(0, 256, (4, 6, 6)).astype(np.uint8)
    calibrate(model, [InputSpec().tensor(images)])
    graph = convert(model)
    compare(model, graph, images)
    cut = graph.with_nodes([*list(graph)[:-2], Output("output", (list(graph)[-3].name,))])
    with torch.no_grad():
        del model.stages["4"]
    from hwq.errors import VerifyError
    with pytest.raises(VerifyError, match="Edge 'output' differs"):
        compare(model, cut, images)


@pytest.mark.parametrize("name", ["values", "pop", "keys"])
def test_any_layer_name_is_fine(name):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            setattr(self, name, nn.Linear(4, 2))

        def forward(self, x):
            return self.get_submodule(name)(x)
    net = Named()
    model = prepare(net, torch.zeros(1, 4), {name: "dfp:b=4"})
    assert convert(model).by_name[name].op == "Linear"


@pytest.mark.parametrize("batch, text", [
    (torch.rand(2, 1, 6, 6), "multiples of 2..-8 from 0 to 255.*not by dividing by 255"),
    (torch.full((2, 1, 6, 6), 3.0), "such as 3"),
    (np.zeros((2, 1, 6, 6)), "not ndarray; for uint8 images"), ((torch.rand(2, 1, 6, 6), torch.zeros(2)), "multiples of"),
])
def test_calibration_takes_what_the_hardware_could_receive(batch, text):
    model = prepare(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3)), torch.zeros(1, 1, 6, 6), "dfp:b=4")
    with pytest.raises(ModelError, match=text):
        calibrate(model, [batch])
    with pytest.raises(ModelError, match="take what hwq.prepare returns, not a Conv2d"):
        freeze(nn.Conv2d(1, 1, 1))
    with pytest.raises(ModelError, match="must be a text such as 'dfp:b=4', or a dict"):
        prepare(nn.Sequential(nn.Conv2d(1, 2, 3)), torch.zeros(1, 1, 6, 6), None)
