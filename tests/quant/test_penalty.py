"""QR and weighted QR against hand-written sums and gradients, their schedules, variants and recipe keys."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from hwq.errors import ModelError  # noqa: E402
from hwq.quant import LevelPenalty, Penalty, Phase, ProximalPenalty, load_checkpoint, make_penalty, prepare, read_recipe, tune  # noqa: E402
from hwq.quant.factory import make_network  # noqa: E402
from hwq.quant.penalty import SCHEDULES  # noqa: E402
from hwq.quant.run import train_run  # noqa: E402
from tests.quant.test_train import network, samples, toy  # noqa: E402

X = torch.zeros(2, 1, 8, 8)


def model(specs="dfp:b=3", mode="fold"):
    return prepare(network().eval(), X, specs, batchnorm=mode)


def by_hand(net, kind, norm, normalize):
    terms = []
    for stage in net.weighted:
        w = stage.weight.detach().double().numpy()
        q = stage.quantizer.levels(stage.weight).double().numpy()
        term = np.abs(w - q) ** norm * (np.abs(w) if kind == "wqr" else 1.0)
        terms.append((term.sum(), w.size))
    if normalize == "sum":
        return sum(t for t, _ in terms)
    if normalize == "layer":
        return sum(t / n for t, n in terms)
    return sum(t for t, _ in terms) / sum(n for _, n in terms)


@pytest.mark.parametrize("normalize", ["sum", "mean", "layer"])
@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("kind", ["qr", "wqr"])
@pytest.mark.parametrize("specs", ["dfp:b=3", "po2:b=3,channel", "bipolar"])
def test_value_and_gradient(specs, kind, norm, normalize):
    net = model(specs)
    penalty = LevelPenalty(Penalty(kind, 0.5, norm, normalize))
    value = penalty(net)
    assert abs(float(value.detach()) - 0.5 * by_hand(net, kind, norm, normalize)) < 1e-5 * max(1, float(value.detach()))
    value.backward()
    stage = net.weighted[0]
    w, q = stage.weight.detach(), stage.quantizer.levels(stage.weight)
    slope = torch.sign(w - q) if norm == 1 else 2 * (w - q)
    if kind == "wqr":                                                                # q is a constant, |w| is not
        slope = w.abs() * slope + torch.sign(w) * (w - q).abs() ** norm
    count = {"sum": 1, "layer": w.numel(), "mean": sum(s.weight.numel() for s in net.weighted)}[normalize]
    torch.testing.assert_close(stage.weight.grad, 0.5 * slope / count)
    assert all(stage.bias is None or stage.bias.grad is None for stage in net.weighted)


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("kind", ["qr", "wqr"])
def test_the_proximal_step_minimizes_what_it_says(kind, norm):
    """The step solves min_v (v - w)^2 / 2 + lr * strength * factor * |v - q|^norm: checked on a fine grid of v."""
    net = model()
    penalty = make_penalty(Penalty(kind, 2.0, norm, "sum", proximal=True))
    assert isinstance(penalty, ProximalPenalty) and float(penalty(net)) == 0
    stage = net.weighted[0]
    w, q = stage.weight.detach().clone().double(), stage.quantizer.levels(stage.weight).double()
    penalty.after_step(net, 0.02)
    factor = w.abs() if kind == "wqr" else torch.ones_like(w)
    grid = torch.linspace(0, 1, 20001, dtype=torch.float64)
    for i in range(w.numel()):
        a, b, f = w.flatten()[i], q.flatten()[i], factor.flatten()[i]
        v = a + (b - a) * grid
        best = v[(0.5 * (v - a) ** 2 + 0.04 * f * (v - b).abs() ** norm).argmin()]
        assert abs(float(best - stage.weight.flatten()[i])) < 1e-4 * max(1.0, abs(float(a)))


def test_schedules():
    for name, schedule in SCHEDULES.items():
        values = [schedule(t / 10) for t in range(11)]
        assert values[-1] == 1 and all(a <= b for a, b in zip(values, values[1:], strict=False)), name
    assert SCHEDULES["linear"](0.3) == 0.3 and SCHEDULES["constant"](0) == 1 and SCHEDULES["exponential"](0) == pytest.approx(1e-3)
    assert SCHEDULES["cosine"](0.0) == 0 and SCHEDULES["cosine"](0.5) == pytest.approx(0.5)
    penalty = LevelPenalty(Penalty("qr", 4.0))
    penalty.progress = 0.25
    assert penalty.strength == 1.0


def distance(net):
    with torch.no_grad():
        return sum(float((s.weight - s.quantizer.levels(s.weight)).abs().sum()) for s in net.weighted) / \
            sum(float(s.weight.abs().sum()) for s in net.weighted)


@pytest.mark.parametrize("proximal", [False, True])
@pytest.mark.parametrize("kind", ["qr", "wqr"])
def test_it_draws_weights_to_levels(kind, proximal):
    phase = Phase(epochs=6, batch=20, lr=0.02, weight_decay=0.0, calibrate_until=1)
    plain, drawn = model(), model()
    tune(plain, samples(), phase, seed=1)
    tune(drawn, samples(), phase, seed=1, penalty=Penalty(kind, 0.3 if kind == "qr" else 1.0, proximal=proximal))
    assert distance(drawn) < 0.7 * distance(plain)
    assert bool(drawn.frozen) and not drawn.float_weights


def test_float_forward_trains_float_weights_and_ends_projected(monkeypatch):
    net = model()
    seen = []
    original = type(net.weighted[0]).forward

    def spy(self, x, grid, float_weights=False):
        seen.append(float_weights)
        return original(self, x, grid, float_weights)
    monkeypatch.setattr(type(net.weighted[0]), "forward", spy)
    tune(net, samples(), Phase(epochs=2, batch=20, lr=0.01), penalty=Penalty("qr", 0.01, forward="float"))
    calls = 2 * len(net.weighted)
    # calibration sees what the hardware computes
    assert sum(seen) == 2 * 5 * len(net.weighted) and len(seen) - sum(seen) >= calls
    assert distance(net) == 0 and not net.float_weights
    for stage in net.weighted:
        assert torch.equal(stage.weight, stage.quantizer.levels(stage.weight))


def test_recipe_and_run(tmp_path):
    text = ('validation = 20\ncalibration = 40\nweights = "po2:b=3"\n[float]\nepochs = 1\n[tune]\nepochs = 2\nbatch = 20\n'
            '[penalty]\nkind = "wqr"\nstrength = 1\nnorm = 2\nschedule = "cosine"')
    assert read_recipe(text).penalty == Penalty("wqr", 1.0, 2, schedule="cosine")
    factory = "tests.quant.test_train:network"
    train_run(factory, toy(), text, tmp_path / "a", seed=1)
    train_run(factory, toy(), text.replace("wqr", "none"), tmp_path / "b", seed=1)
    a, b = (load_checkpoint(tmp_path / name / "model.pt") for name in "ab")
    assert not torch.equal(a["stages.0.weight"], b["stages.0.weight"])
    for bad, message in (('kind = "l3"', "kind must be one of none, qr, wqr"), ("norm = 3", "norm must be one of 1, 2"),
                         ("strength = -1.0", "strength must be"), ("lambda = 1", r"unknown key lambda in \[penalty\]")):
        with pytest.raises(ModelError, match=message):
            read_recipe(f"[penalty]\n{bad}")


def test_refusals_and_arguments_of_factories():
    with pytest.raises(ModelError, match="what hwq.quant.prepare returns"):
        LevelPenalty(Penalty("qr"))(nn.Linear(2, 2))
    assert make_penalty(Penalty()) is None
    assert make_network("hwq.models.fashion:network(classes=7, batchnorm=False)").fc.out_features == 7
    for text, message in (("hwq.models.fashion:network(7)", "name=number"),
                          ("hwq.models.fashion:network(classes=open('x'))", "literals only"),
                          ("hwq.models.fashion:network(classes=7", "literals only"),
                          ("hwq.models.fashion:network(depth=3)", "unexpected keyword argument")):
        with pytest.raises(ModelError, match=message):
            make_network(text)
