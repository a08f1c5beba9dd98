"""Quantizers of weights against independent models: levels by exhaustive search, scales by brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from hwq.formats import parse_spec  # noqa: E402
from hwq.quant.weights import power_of_two, weight_quantizer  # noqa: E402

TEXTS = ["dfp:b=2", "dfp:b=4,narrow", "dfp:b=8", "po2:b=2", "po2:b=3", "po2:b=5", "bipolar"]


def weights(seed, shape=(6, 3, 3, 3), spread=0.0):
    rng = np.random.default_rng(seed)
    w = rng.standard_normal(shape) * 2.0 ** rng.uniform(-4, 4)
    return torch.from_numpy(w * 2.0 ** rng.uniform(-spread, spread, (shape[0], *[1] * (len(shape) - 1)))).float()


def levels_of(fmt):
    """All levels of a format as reals, from the definition of its codes."""
    words = np.arange(1 << fmt.width)
    values = np.unique(fmt.decode(words))
    lo, hi = fmt.range
    return values[(values >= lo) & (values <= hi)] * 2.0 ** -fmt.frac_bits


def nearest(w, fmt):
    """Nearest level by trying all of them; None where two are equally near."""
    levels = levels_of(fmt)
    distance = np.abs(w[:, None] - levels)
    tie = (distance == distance.min(1, keepdims=True)).sum(1) > 1
    return levels[distance.argmin(1)], tie


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2 ** 31), st.sampled_from(TEXTS), st.sampled_from(["mse", "range", "learned"]), st.booleans())
def test_every_weight_goes_to_its_nearest_level(seed, text, rule, channel):
    extra = f"rule={rule}" + (",channel" if channel else "")
    spec = parse_spec(f"{text}{',' if ':' in text else ':'}{extra}")
    w = weights(seed, spread=2.0)
    quantizer = weight_quantizer(spec, "x", len(w))
    quantizer.choose(w)
    found, codes = quantizer(w).detach().double().numpy(), quantizer.codes(w).numpy().astype(np.int64)
    for c in range(len(w)):
        fmt = spec.resolve(int(quantizer.scale[c] if channel else quantizer.scale))
        np.testing.assert_array_equal(fmt.decode(fmt.encode(codes[c])), codes[c])          # every code is a ROM word
        row = w[c].double().numpy().ravel()
        want, tie = nearest(row, fmt)
        np.testing.assert_array_equal(found[c].ravel()[~tie], want[~tie])
        np.testing.assert_array_equal(codes[c] * 2.0 ** -fmt.frac_bits, found[c])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2 ** 31), st.sampled_from(TEXTS), st.booleans())
def test_mse_rule_finds_the_best_scale(seed, text, channel):
    spec = parse_spec(text + ("," if ":" in text else ":") + "channel" if channel else text)
    w = weights(seed)
    quantizer = weight_quantizer(spec, "x", len(w))
    quantizer.choose(w)
    for row, scale in zip(w.flatten(1) if channel else w.flatten()[None], quantizer.scale.reshape(-1), strict=True):
        row = row.double().numpy()
        errors = {s: ((row - nearest(row, spec.resolve(s))[0]) ** 2).sum() for s in range(-20, 30)}
        assert errors[int(scale)] <= min(errors.values()) * (1 + 1e-12)


@pytest.mark.parametrize("text, largest, scale", [
    ("dfp:b=3,rule=range", 0.99, 2), ("dfp:b=3,rule=range", 1.0, 2), ("dfp:b=3,rule=range", 1.01, 1),
    ("dfp:b=8,rule=range", 0.2, 9), ("po2:b=3,rule=range", 0.74, -1), ("po2:b=3,rule=range", 0.76, 0),
    ("po2:b=4,rule=range", 3.0, 2), ("bipolar:rule=range", 0.3, 1),
])
def test_range_rule(text, largest, scale):
    quantizer = weight_quantizer(parse_spec(text), "x")
    quantizer.choose(torch.tensor([0.01, -largest, largest / 3]))
    assert int(quantizer.scale) == scale


def test_the_rule_decides_which_format_wins_on_gaussian_weights():
    """Signal to noise in dB: by the range rule Po2 beats DFP at 3 and 4 bits, by squared error DFP wins from 3 bits up."""
    w = torch.from_numpy(np.random.default_rng(0).standard_normal(20_000)).float()

    def sqnr(text):
        quantizer = weight_quantizer(parse_spec(text), "x")
        quantizer.choose(w)
        return float(10 * torch.log10(w.square().sum() / (quantizer(w) - w).square().sum()))
    for bits in (3, 4):
        assert sqnr(f"po2:b={bits},rule=range") > sqnr(f"dfp:b={bits},rule=range") + 3
        assert sqnr(f"dfp:b={bits}") > sqnr(f"dfp:b={bits},rule=range") + 5 and sqnr(f"dfp:b={bits}") > sqnr(f"po2:b={bits}")
    assert sqnr("po2:b=5") - sqnr("po2:b=4") < 0.1                                     # more exponents change nothing


def test_po2_thresholds_and_ties():
    quantizer = weight_quantizer(parse_spec("po2:b=4,emax=0"), "x")                    # levels 0, 1/64 ... 1
    w = torch.tensor([0.0, 0.0078, 1 / 128, 0.0234, 1.5 / 64, 0.74, 0.75, 0.76, 9.0, -0.75, -1 / 128])
    assert quantizer(w).tolist() == [0.0, 0.0, 1 / 64, 1 / 64, 1 / 32, 0.5, 1.0, 1.0, 1.0, -1.0, -1 / 64]


def test_dead_channels_stay_near_the_others():
    w = weights(1)
    w[0], w[1] = 0.0, w[1] * 2.0 ** -60
    for text in TEXTS:
        quantizer = weight_quantizer(parse_spec(text + ("," if ":" in text else ":") + "channel"), "x", len(w))
        quantizer.choose(w)
        assert int(quantizer.frac_bits.max() - quantizer.frac_bits.min()) <= 8
        quantizer.choose(torch.zeros_like(w))
        assert not quantizer.scale.any()


@pytest.mark.parametrize("text, wrong",
                         [("dfp:b=3,rule=learned", 3), ("po2:b=3,rule=learned,channel", -3), ("bipolar:rule=learned", 2)])
def test_a_learned_scale_finds_its_way_back(text, wrong):
    """Put far off, it returns to a scale whose error is near the best one's, and stays there once fixed."""
    w = weights(4)
    quantizer = weight_quantizer(parse_spec(text), "x", len(w))
    quantizer.choose(w)
    best = float((quantizer(w) - w).detach().square().sum())
    with torch.no_grad():
        quantizer.exponent += wrong
    far = float((quantizer(w) - w).detach().square().sum())
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        (quantizer(w) - w).square().sum().backward()
        optimizer.step()
        quantizer.choose(w)                                                            # calibration leaves it alone
    assert float((quantizer(w) - w).detach().square().sum()) < min(2 * best, far / 1.5)
    quantizer.fix()
    scale = quantizer.scale.clone()
    with torch.no_grad():
        quantizer.exponent += 2
    quantizer(w)
    assert torch.equal(quantizer.scale, scale)


def test_powers_of_two_are_exact():
    n = torch.arange(-300, 300)
    assert [float(v) for v in power_of_two(n)] == [2.0 ** int(k) for k in n]
