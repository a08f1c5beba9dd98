"""The training loop, its checkpoints, recipes and users' weights."""

import os
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from hwq.data import Dataset  # noqa: E402
from hwq.errors import EnvironmentError_, FormatError, ModelError  # noqa: E402
from hwq.quant import (  # noqa: E402
    Phase,
    Samples,
    fit,
    load_checkpoint,
    load_weights,
    prepare,
    read_recipe,
    save_checkpoint,
    tune,
)
from hwq.quant.augment import augment  # noqa: E402
from hwq.quant.factory import load_factory, make_network  # noqa: E402
from hwq.quant.run import check_outputs, load_run, train_run  # noqa: E402


def toy(count=120):
    """Two classes told apart by where the bright half is."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, count)
    images = rng.integers(0, 60, (count, 8, 8)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4 * label:4 * label + 4] += 150
    return Dataset(images, labels, ("top", "bottom"))


def network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.MaxPool2d(2),
                         nn.Flatten(), nn.Linear(36, 2))


def samples():
    data = toy()
    return Samples.split(torch.from_numpy(data.images[:, None] / 256).float(), torch.from_numpy(data.labels), 20, 0)


@pytest.mark.parametrize("optimizer, lr", [("sgd", 0.05), ("adamw", 0.01)])
def test_it_learns_and_resumes_exactly(tmp_path, optimizer, lr):
    phase = Phase(epochs=5, batch=16, lr=lr, optimizer=optimizer, shift=1)
    whole = network()
    log = fit(whole, samples(), phase, seed=1, checkpoint=tmp_path / "a.pt")
    assert log[-1]["accuracy"] > 0.9 and [row["epoch"] for row in log] == [1, 2, 3, 4, 5]

    class Stop(Exception):
        pass

    def stop(row):
        if row["epoch"] == 2:
            raise Stop
    with pytest.raises(Stop):
        fit(network(), samples(), phase, seed=1, checkpoint=tmp_path / "b.pt", report=stop)
    again = network()
    log_again = fit(again, samples(), phase, seed=1, checkpoint=tmp_path / "b.pt", resume=True)
    assert [row["loss"] for row in log_again] == [row["loss"] for row in log]
    for key, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    with pytest.raises(ModelError, match="another recipe"):
        fit(network(), samples(), Phase(epochs=6), checkpoint=tmp_path / "b.pt", resume=True)
    with pytest.raises(FormatError, match="does not fit this network"):
        fit(nn.Linear(64, 2), samples(), phase, checkpoint=tmp_path / "b.pt", resume=True)


def test_penalty_and_teacher_enter_the_loss():
    teacher = network().eval()
    quiet = Phase(epochs=1, batch=20, lr=1e-9, teacher_weight=1.0)
    plain = fit(network(), samples(), Phase(epochs=1, batch=20, lr=1e-9))[0]["loss"]
    dearer = fit(network(), samples(), Phase(epochs=1, batch=20, lr=1e-9), penalty=lambda m: torch.tensor(5.0))[0]["loss"]
    taught = fit(network(), samples(), quiet, teacher=teacher)[0]["loss"]
    assert abs(dearer - plain - 5) < 1e-4 and taught < plain
    assert all(p.grad is None for p in teacher.parameters())


def test_divergence_is_said():
    with pytest.raises(ModelError, match="diverged; lower lr"):
        fit(network(), samples(), Phase(epochs=9, batch=4, lr=900.0),
            penalty=lambda m: sum(p.square().sum() for p in m.parameters()) ** 4)


def test_augmentation_moves_and_mirrors():
    x, generator = torch.arange(2 * 36.0).view(2, 1, 6, 6) + 1, torch.Generator().manual_seed(0)
    assert torch.equal(augment(x, False, 0, generator), x)
    for _ in range(20):
        y = augment(x, True, 2, generator)
        assert y.shape == x.shape and set(y.flatten().tolist()) <= {0.0, *x.flatten().tolist()}


def test_augmentation_of_signals():
    x, generator = torch.arange(2 * 3 * 9.0).view(2, 3, 9) + 1, torch.Generator().manual_seed(0)
    for _ in range(20):
        y = augment(x, True, 2, generator)
        assert y.shape == x.shape and (y != 0).sum(2).min() >= 7
        for line, whole in zip(y.flatten(0, 1).tolist(), x.flatten(0, 1).tolist(), strict=True):
            kept = [value for value in line if value]
            assert kept in (whole[:len(kept)], whole[-len(kept):], whole[::-1][:len(kept)], whole[::-1][-len(kept):])


def test_split_is_disjoint():
    parts = samples()
    assert len(parts.validation) == 20 and not set(parts.train.tolist()) & set(parts.validation.tolist())
    with pytest.raises(ModelError, match="leaves none"):
        Samples.split(parts.inputs, parts.labels, 120, 0)


@pytest.mark.parametrize("text, message", [
    ("a = ", "no sound TOML"), ("epochs = 3", "unknown key epochs; known: input_bits"),
    ("[tune]\nlearning = 1", r"unknown key learning in \[tune\]"),
    ("input_bits = 'x'", "input_bits must be of the type int"), ("[float]\nepochs = true", "float.epochs must be of the type int"),
    ("[float]\nlr = -1.0", "lr > 0"), ("[tune]\noptimizer = 'lion'", "'sgd' or 'adamw'"),
    ("batchnorm = 'drop'", "'fold' or 'keep'"), ("weights = 4", "weights must be a format"), ("tune = 3", "must be a table"),
    ("[tune]\nteacher_weight = 2", "teacher_weight in 0..1"),
])
def test_bad_recipes_are_refused(text, message):
    with pytest.raises(ModelError, match=message):
        read_recipe(text, "recipe.toml")


def test_recipe_reads_everything():
    recipe = read_recipe('input_bits = 4\nweights = "dfp:b=3"\n[activations]\n"*" = "dfp:b=5"\n[float]\nepochs = 2\n'
                         'lr = 1\n[tune]\nflip = true')
    assert recipe.input_bits == 4 and recipe.weights == {"*": "dfp:b=3"} and recipe.activations == {"*": "dfp:b=5"}
    assert recipe.float_phase.epochs == 2 and recipe.float_phase.lr == 1.0 and recipe.tune.flip and recipe.tune.lr == 0.02


def test_users_weights(tmp_path):
    net = network()
    torch.save(net.state_dict(), tmp_path / "a.pt")
    torch.save({"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}, "epoch": 3}, tmp_path / "b.pt")
    for name in ("a.pt", "b.pt"):
        other = network()
        nn.init.zeros_(other[0].weight)
        load_weights(other, tmp_path / name)
        assert torch.equal(other[0].weight, net[0].weight)
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "c.pt")
    with pytest.raises(ModelError, match=r"missing: 0.bias.*unknown: bias, weight"):
        load_weights(network(), tmp_path / "c.pt")
    state = net.state_dict()
    state["6.weight"] = torch.zeros(2, 35)
    torch.save(state, tmp_path / "d.pt")
    with pytest.raises(ModelError, match=r"6.weight: \(2, 35\) instead of \(2, 36\)"):
        load_weights(network(), tmp_path / "d.pt")


def test_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    net = network()
    safetensors.save_file(net.state_dict(), tmp_path / "a.safetensors")
    load_weights(network(), tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:100])
    with pytest.raises(FormatError, match="no sound safetensors"):
        load_checkpoint(tmp_path / "b.safetensors")


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/hwq-evil",)


def test_unsound_files_are_refused_and_nothing_is_unpickled(tmp_path):
    torch.save({"x": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(FormatError, match="not tensors.*does not unpickle|does not unpickle"):
        load_checkpoint(tmp_path / "evil.pt")
    torch.save(network().state_dict(), tmp_path / "a.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:500])
    (tmp_path / "text.pt").write_bytes(b"hello world")
    for name in ("cut.pt", "text.pt", "none.pt"):
        with pytest.raises(FormatError, match=name):
            load_checkpoint(tmp_path / name)
    save_checkpoint(tmp_path / "list.pt", [1, 2])
    with pytest.raises(FormatError, match="no state dict"):
        load_weights(network(), tmp_path / "list.pt")
    with pytest.raises(FormatError, match="Cannot write .*there is no folder"):
        save_checkpoint(tmp_path / "missing" / "a.pt", {})


@pytest.mark.parametrize("name, text", [("network", "package.module:function"), ("nowhere.at.all:f", "Cannot import"),
                                        ("hwq.models.fashion:nothing", "has no 'nothing'"),
                                        ("hwq.models.fashion:CLASSES", "no function")])
def test_bad_factories_are_refused(name, text):
    with pytest.raises(ModelError, match=text):
        load_factory(name)


RECIPE = """
validation = 20
calibration = 40
weights = "dfp:b=4"
teacher = "tests.quant.test_train:network"
[float]
epochs = 2
batch = 16
lr = 0.05
[teacher_training]
epochs = 1
[tune]
epochs = 3
batch = 16
teacher_weight = 0.3
"""


@pytest.mark.parametrize("mode", ["fold", "keep"])
def test_a_run_and_the_way_back(tmp_path, mode):
    factory, text = "tests.quant.test_train:network", f'batchnorm = "{mode}"\n{RECIPE}'
    result = train_run(factory, toy(), text, tmp_path / "run", seed=5)
    assert result["quantized"] > 0.8 and set(result["log"]) == {"float", "teacher", "tune"}
    model, run = load_run(tmp_path / "run")
    assert run.classes == ("top", "bottom") and bool(model.frozen) and not model.training
    with pytest.raises(ModelError, match="go on with --resume"):
        train_run(factory, toy(), text, tmp_path / "run", seed=5)
    with pytest.raises(ModelError, match="another network, recipe, seed or data"):
        train_run(factory, toy(), text, tmp_path / "run", seed=6, resume=True)
    again = train_run(factory, toy(), text, tmp_path / "run", seed=5, resume=True)
    assert again["quantized"] == result["quantized"]
    other = train_run(factory, toy(), text, tmp_path / "second", seed=5)
    assert (tmp_path / "second" / "model.pt").exists()
    for key, value in load_checkpoint(tmp_path / "second" / "model.pt").items():
        assert torch.equal(value, load_checkpoint(tmp_path / "run" / "model.pt")[key]), key
    assert [r["loss"] for r in other["log"]["tune"]] == [r["loss"] for r in result["log"]["tune"]]


def test_folders_that_are_no_run(tmp_path):
    with pytest.raises(FormatError, match="no training run"):
        load_run(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(FormatError, match="malformed"):
        load_run(tmp_path)
    if not torch.cuda.is_available():
        with pytest.raises(EnvironmentError_, match="--device cpu"):
            train_run("hwq.models.fashion:network", toy(), "", tmp_path / "x", device="cuda")


def boom():
    raise RuntimeError("no luck")


def test_a_factory_that_raises_is_named():
    with pytest.raises(ModelError,
                       match=r"Factory 'tests.quant.test_train:boom' raised RuntimeError: no luck \(line \d+ of .*test_train.py\)"):
        make_network("tests.quant.test_train:boom")


def test_nothing_is_written_for_what_is_refused(tmp_path):
    factory, start = "tests.quant.test_train:network", "tests.quant.test_train:"
    for arguments, text, options in [
            ((factory, "validation = 5000"), "leaves none", {}),
            ((factory, RECIPE), "no file of torch.save", {"weights": tmp_path / "text.pt"}),
            ((factory, RECIPE), "Device must be cpu or cuda", {"device": "foo"}),
            ((start + "narrow", RECIPE), "gives 1 outputs an image, but the data have 2 classes", {}),
            ((start + "wide", RECIPE), "gives 3 outputs an image, but the data have 2 classes: it needs as many", {}),
            ((start + "flat", RECIPE), "gives .4, 6, 6. for an image, where one axis of outputs is needed", {})]:
        (tmp_path / "text.pt").write_bytes(b"hello world")
        with pytest.raises((ModelError, FormatError), match=text):
            train_run(arguments[0], toy(), arguments[1], tmp_path / "run", **options)
        assert not (tmp_path / "run").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.toml").write_text("mine")
    with pytest.raises(FormatError, match="holds something that is no training run"):
        train_run(factory, toy(), RECIPE, tmp_path / "mine")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["config.toml"] \
        and (tmp_path / "mine" / "config.toml").read_text() == "mine"
    with pytest.raises(FormatError, match="is a file; give a folder"):
        train_run(factory, toy(), RECIPE, tmp_path / "text.pt")


def narrow():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 1))


def wide():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3))


def flat():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1))


def test_outputs_are_checked_against_labels_where_classes_have_no_names():
    data, image = replace(toy(), classes=()), torch.zeros(1, 1, 8, 8)
    check_outputs(prepare(wide(), image, {"*": "dfp:b=8"}), image, data)      # who knows how many classes there are
    with pytest.raises(ModelError, match="gives 1 outputs an image, but the data have labels up to 1: it needs at least 2"):
        check_outputs(prepare(narrow(), image, {"*": "dfp:b=8"}), image, data)


def test_progress_counts_every_step(tmp_path):
    seen = []
    fit(network(), samples(), Phase(epochs=2, batch=16), progress=lambda done, total: seen.append((done, total)))
    steps = -(-len(samples().train) // 16)
    assert seen == [(k, 2 * steps) for k in range(1, 2 * steps + 1)]


def test_kept_batch_norms_train_to_the_end():
    """On running statistics, few bits diverge: scales are fixed on the way, norms only at the end."""
    model = prepare(network().eval(), samples().inputs[:2], {"*": "dfp:b=3,rule=learned"}, batchnorm="keep")
    stage = model.weighted[0]
    means, scales = [], []

    def report(row):
        means.append(stage.batchnorm.running_mean.clone())
        scales.append(stage.quantizer.scale.clone())
    tune(model, samples(), Phase(epochs=4, batch=20, lr=0.02, calibrate_until=2), report=report)
    assert bool(model.frozen) and not stage.batchnorm.training
    assert all(not torch.equal(a, b) for a, b in zip(means, means[1:], strict=False))
    assert torch.equal(scales[2], scales[3]) and torch.equal(scales[3], stage.quantizer.scale)
