"""Quantizers, the choice of formats, and every refusal of prepare by name."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from hwq.arith import round_half_up  # noqa: E402
from hwq.errors import FormatError, HwqError, ModelError  # noqa: E402
from hwq.formats import parse_spec  # noqa: E402
from hwq.quant import InputSpec, calibrate, freeze, prepare  # noqa: E402
from hwq.quant.activations import ActivationQuantizer  # noqa: E402
from hwq.quant.weights import weight_quantizer  # noqa: E402

X = torch.zeros(2, 2, 8, 8)


class Wrap(nn.Module):
    """A convolution, something, a convolution."""

    def __init__(self, body=None, function=None, first=None):
        super().__init__()
        self.first = first or nn.Conv2d(2, 4, 3, padding=1)
        self.body, self.function = body or nn.Identity(), function or (lambda x: x)
        self.last = nn.Conv2d(4, 3, 1)

    def forward(self, x):
        return self.last(self.function(self.body(self.first(x))))


def refused(model, text, x=X):
    with pytest.raises(ModelError, match=text):
        prepare(model, x, "dfp:b=4")


@pytest.mark.parametrize("conv, text", [
    (nn.ConvTranspose2d(2, 4, 3), "'first': layer ConvTranspose2d is not supported"),
    (nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), "'first': padding_mode = 'reflect'"),
])
def test_convolutions_that_are_refused(conv, text):
    refused(Wrap(first=conv), text)


@pytest.mark.parametrize("body, text", [
    (nn.AvgPool2d(2, divisor_override=3), "'body': divisor_override = 3"),
    (nn.AvgPool2d(3, ceil_mode=True), r"'body': ceil_mode = True .*windows leave an image of \(8, 8\)"),
    (nn.LPPool2d(2, 2), "'body': layer LPPool2d is not supported"),
    (nn.Upsample(scale_factor=2, mode="bilinear"), "'body': mode = 'bilinear'"),
    (nn.Upsample(size=(12, 8)), r"'body': size = \(12, 8\)"),
    (nn.ConstantPad2d(1, 0.5), "'body': value = 0.5"), (nn.ZeroPad2d((-4, -4, 0, 0)), "does not run on an example input"),
    (nn.ReflectionPad2d(1), "'body': layer Reflection"), (nn.MaxPool2d(2, dilation=2), "'body': dilation = 2"),
    (nn.AdaptiveAvgPool2d((4, 3)), r"'body': output_size = \(4, 3\) .*what divides the image's \(8, 8\)"),
    (nn.Sigmoid(), "'body': sigmoid in the middle of a network, before 'last', .*supported: as the last operation"),
    (nn.Tanh(), "'body': layer Tanh.*supported: Conv1d/2d"), (nn.Hardtanh(0.5, 1), r"'body': range = \(0.5, 1\)"),
    (nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4)), "'body.1': a batch norm must stand directly behind.*before its ReLU"),
    (nn.Sequential(nn.MaxPool2d(2), nn.BatchNorm2d(4)), "'body.1': a batch norm must stand directly behind"),
    (nn.BatchNorm2d(4, track_running_stats=False), "'body': track_running_stats = False"),
    (nn.ConvTranspose2d(4, 4, 2), "'body': layer ConvTranspose2d"),
])
def test_layers_that_are_refused(body, text):
    refused(Wrap(body), text)


@pytest.mark.parametrize("function, text", [
    (lambda x: x + 0.5, "'add' adds 0.5"),
    (lambda x: x.clamp(-2, -1), r"'clamp': range = \(-2, -1\)"), (lambda x: torch.clamp(x, x, x), "range = "),
    (lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), "'pad': mode = 'reflect'"), (torch.tanh, "'tanh' is not supported"),
    (lambda x: x[:, :, ::3], "'getitem' takes .* supported: channels, ascending"), (lambda x: x * 2, "'mul' is not supported"),
    (lambda x: x.mean(1, keepdim=True).expand(-1, 4, -1, -1), "dim = 1.*whole image"),
    (lambda x: F.avg_pool2d(x, 3, ceil_mode=True), "'avg_pool2d': ceil_mode = True"),
    (lambda x: x.view(-1, 4, 4, 4), "changes the batch|shape behind view"),
    (lambda x: x if x.sum() > 0 else -x, "torch.fx cannot trace"),
])
def test_functions_that_are_refused(function, text):
    refused(Wrap(function=function), text)


def test_networks_that_are_refused():
    class Two(Wrap):
        def forward(self, x):
            return self.last(self.first(x)), x
    refused(Two(), "must return one tensor")

    class Twice(Wrap):
        def forward(self, x):
            return self.last(self.body(self.body(self.first(x))))
    refused(Twice(nn.Conv2d(4, 4, 1)), "'body' is used twice")

    class Free(Wrap):
        def forward(self, x):
            return F.conv2d(self.first(x), self.last.weight)
    refused(Free(), "'last.weight' is used outside of a layer")
    refused(nn.Sequential(nn.Conv2d(2, 1, 1), nn.Flatten(0)), r"'1': start_dim, end_dim = \(0, -1\)")
    refused(nn.Sequential(nn.ReLU()), "no Conv2d and no Linear")
    refused(nn.Sequential(nn.Conv2d(2, 3, 1), nn.Linear(8, 2)), "'1': a Linear layer reads the shape.*put a Flatten")
    refused(Wrap(), "does not run on an example input.*expected input", torch.zeros(1, 5, 8, 8))
    refused(Wrap(), "must be .n, channels, height, width", torch.zeros(8))


@pytest.mark.parametrize("specs, error, text", [
    ({"first": "dfp:b=4"}, ModelError, "No format for the weights of layer 'last'"),
    ({"*": "dfp:b=4", "conv9": "dfp:b=4"}, ModelError, "matches the pattern 'conv9'.*layers: first, last"),
    ({"*": "dfp:b=1"}, FormatError, r"weights of '\*': Width.*2..16"), ({"*": "dfp:b=17"}, FormatError, r"2..16"),
    ({"*": "po2:b=1"}, FormatError, r"weights of '\*': Width of po2.*2..5"),
    ({"*": "bipolar:b=1"}, FormatError, "malformed key 'b=1'"),
    ({"*": "udfp:b=4"}, FormatError, "'first': 'udfp' is no format of weights; accepted: dfp, po2, bipolar"),
    ({"*": "float"}, FormatError, "unknown kind"),
])
def test_formats_that_are_refused(specs, error, text):
    with pytest.raises(error, match=text):
        prepare(Wrap(nn.ReLU()), X, specs)


@pytest.mark.parametrize("specs, text",
                         [("dfp:b=1", "2..16"), ("dfp:b=9", "'first' must be dfp:b=2..8"), ("po2:b=3", "not kind 'po2'"),
                          ("dfp:b=4,narrow", "narrow"), ("dfp:b=4,channel", "are for weights"),
                          ("dfp:b=4,rule=range", "are for weights"), ({"none": "dfp:b=4"}, "matches the pattern 'none'")])
def test_activations_that_are_refused(specs, text):
    with pytest.raises(HwqError, match=text):
        prepare(Wrap(nn.ReLU()), X, "dfp:b=4", activations=specs)
    with pytest.raises(FormatError, match="can be negative"):
        prepare(Wrap(), X, "dfp:b=4", activations="udfp:b=4")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_unsound_weights_are_refused(value):
    model = Wrap(nn.BatchNorm2d(4))
    model.first.weight.data[0, 0, 0, 0] = value
    refused(model, "'first': 1 of 72 values of its weight are NaN or infinite")
    model = Wrap(nn.BatchNorm2d(4))
    model.body.running_var[1] = value
    refused(model, "'body': 1 of 4 values of its running variance")


def test_options_are_checked():
    for options, text in (({"batchnorm": "drop"}, "'fold' or 'keep'"), ({"mult_bits": 1}, "2..24")):
        with pytest.raises(ModelError, match=text):
            prepare(Wrap(), X, "dfp:b=4", **options)
    for bits in (0, 9, 2.5, True):
        with pytest.raises(ModelError, match="1..8"):
            InputSpec(bits)


def test_exact_names_win_over_patterns_and_first_pattern_over_later():
    model = prepare(Wrap(nn.ReLU()), X, {"*": "dfp:b=3", "l*": "dfp:b=5", "last": "dfp:b=7,fl=2,narrow"},
                    activations="dfp:b=6,fl=1")
    first, last = model.weighted
    assert first.quantizer.format().width == 3 and last.quantizer.format().text == "dfp:b=7,fl=2,narrow"
    assert first.activation.grid.frac_bits == 1 and first.activation.grid.hi == 63 and last.activation is None


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2 ** 31), st.integers(2, 16), st.booleans(), st.integers(-6, 6))
def test_weights_round_half_up_and_saturate(seed, width, narrow, scale):
    weight = torch.from_numpy(np.random.default_rng(seed).standard_normal(50) * 2.0 ** scale).float()
    quantizer = weight_quantizer(parse_spec(f"dfp:b={width}{',narrow' if narrow else ''}"), "x")
    quantizer.choose(weight)
    made = quantizer.format()
    lo, hi = made.range
    codes = quantizer.codes(weight).numpy()
    np.testing.assert_array_equal(codes, np.clip(round_half_up(weight.double().numpy() * 2.0 ** made.frac_bits), lo, hi))

    def error(fl):
        c = np.clip(round_half_up(weight.double().numpy() * 2.0 ** fl), lo, hi)
        return ((weight.double().numpy() - c * 2.0 ** -fl) ** 2).sum()
    assert all(error(made.frac_bits) <= error(fl) for fl in range(-25, 30))
    leaf = weight.clone().requires_grad_()
    quantizer(leaf).sum().backward()
    assert bool((leaf.grad == 1).all())                # straight through


def test_ties_round_up():
    quantizer = weight_quantizer(parse_spec("dfp:b=4,fl=1"), "x")
    assert quantizer.codes(torch.tensor([0.25, -0.25, 0.75, -0.75, 9.0, -9.0])).tolist() == [1, 0, 2, -1, 7, -8]


@pytest.mark.parametrize("signed", [True, False])
def test_activations_round_saturate_and_pass_gradients_inside(signed):
    quantizer = ActivationQuantizer(parse_spec("dfp:b=3,fl=1"), signed, "x")
    x = torch.tensor([-9.0, -0.3, 0.25, 1.2, 9.0], requires_grad=True)
    y = quantizer(x)
    y.sum().backward()
    lo, hi = quantizer.grid.lo, quantizer.grid.hi
    np.testing.assert_array_equal(y.detach().numpy() * 2, np.clip(np.floor(x.detach().numpy() * 2 + 0.5), lo, hi))
    assert x.grad.tolist() == [0, 1.0 if signed else 0, 1, 1, 0]


def test_calibration_minimizes_the_error_and_freezing_ends_it():
    torch.manual_seed(0)
    model, x = prepare(Wrap(nn.ReLU()), X, "dfp:b=4"), torch.randint(0, 16, (8, 2, 8, 8)) / 16
    calibrate(model, [x[:4], x[4:]])
    quantizer = model.weighted[0].activation
    seen = F.relu(F.conv2d(x, model.weighted[0].quantizer(model.weighted[0].weight),
                           torch.floor(model.weighted[0].bias * 2.0 ** (8 + int(model.weighted[0].quantizer.scale)) + 0.5)
                           * 2.0 ** -(8 + int(model.weighted[0].quantizer.scale)), padding=1)).detach().double()
    errors = {fl: float((seen - torch.floor(seen * 2.0 ** fl + 0.5).clamp(0, 15) * 2.0 ** -fl).square().sum())
              for fl in range(-8, 12)}
    assert min(errors, key=errors.get) == int(quantizer.frac_bits)
    with pytest.raises(ModelError, match="at least one batch"):
        calibrate(model, [])
    freeze(model)
    with pytest.raises(ModelError, match="frozen"):
        calibrate(model, [x])
    with pytest.raises(ModelError, match="call hwq.quant.calibrate"):
        freeze(prepare(Wrap(nn.ReLU()), X, "dfp:b=4"))


def test_frozen_batchnorms_keep_their_statistics():
    model, x = prepare(Wrap(nn.Sequential(nn.BatchNorm2d(4), nn.ReLU())), X, "dfp:b=4",
                       batchnorm="keep"), torch.randint(0, 16, (8, 2, 8, 8)) / 16
    norm = model.weighted[0].batchnorm
    before = norm.running_mean.clone()
    calibrate(model, [x])
    assert torch.equal(norm.running_mean, before)
    model.train()(x)
    assert not torch.equal(norm.running_mean, before)
    freeze(model)
    before = norm.running_mean.clone()
    model.train()(x)
    assert torch.equal(norm.running_mean, before)


@pytest.mark.parametrize("bits", [2, 4, 10, 16])
def test_kept_batchnorm_multipliers_fit_their_bits(bits):
    torch.manual_seed(bits)
    net = Wrap(nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()))
    net.body[0].weight.data = torch.tensor([1.5, -0.7, 0.01, 3.0])
    model = prepare(net.eval(), X, "dfp:b=4", batchnorm="keep", mult_bits=bits)
    calibrate(model, [torch.randint(0, 16, (4, 2, 8, 8)) / 16])
    requant = model.weighted[0].requant(model.input_spec.grid)
    largest = float(requant.mult.abs().max())
    assert 2 ** (bits - 2) - 1 <= largest <= 2 ** (bits - 1) - 1       # the largest shift that fits


def test_inputs_off_the_grid_are_refused_in_eval():
    model = prepare(Wrap(nn.ReLU()), X, "dfp:b=4", input=InputSpec(4))
    calibrate(model, [torch.randint(0, 16, (4, 2, 8, 8)) / 16])
    model.eval()
    with pytest.raises(ModelError, match="multiples of 2"):
        model(torch.full((1, 2, 8, 8), 0.3))
    with pytest.raises(ModelError, match="multiples of 2"):
        model(torch.full((1, 2, 8, 8), 1.0))
    with pytest.raises(ModelError, match="shape"):
        model(torch.zeros(1, 2, 8, 7))
    with pytest.raises(ModelError, match="uint8"):
        InputSpec().tensor(np.zeros((1, 8, 8)))


def test_sums_beyond_float64_are_refused():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    model = prepare(net, torch.zeros(1, 4), "dfp:b=16,fl=14", activations="dfp:b=8,fl=60")
    with pytest.raises(ModelError, match="exact below 2.*53"):
        model.eval()(torch.full((1, 4), 0.5))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2 ** 32 - 1), st.sampled_from([1, 3, 5]), st.sampled_from([1, 2]), st.integers(1, 24), st.integers(2, 14),
       st.booleans(), st.sampled_from([15, 16, 33]), st.booleans())
def test_sums_of_many_images_are_integers(seed, kernel, stride, channels, width, grouped, count, last):
    """Many images take a faster kernel where sums stay below 2**24; largest codes of one sign come closest to it."""
    torch.manual_seed(seed)
    conv = nn.Conv2d(channels, 2 * channels, kernel, stride, padding=kernel // 2, groups=channels if grouped else 1)
    with torch.no_grad():
        conv.weight.uniform_(-1, 1 if seed % 2 else -0.9)
    net = prepare(nn.Sequential(conv), torch.zeros(1, channels, 9, 7), f"dfp:b={width},fl={width - 1}")
    x = torch.randint(0 if seed % 3 else 240, 256, (count, channels, 9, 7)) / 256
    stage, (_, sums, _) = next(iter(net.eval().steps(x.contiguous(memory_format=torch.channels_last) if last else x)))
    weight, bias = stage.weight_codes(), stage.bias_codes(net.input_spec.grid)
    assert sums.dtype == torch.float64
    assert torch.equal(sums, F.conv2d(x.double() * 256, weight, bias, stride, kernel // 2, groups=conv.groups))
