"""A 1-D network as a user has one: signals in an ``.npz`` file, trained, lowered, built and verified from the command line."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")

from hwq.ir import load
from tests.test_flow import have, hwq

NETWORK = """
from torch import nn

def network():
    return nn.Sequential(nn.Conv1d(2, 4, 5, stride=2, padding=2), nn.BatchNorm1d(4), nn.ReLU6(), nn.MaxPool1d(2, ceil_mode=True),
                         nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 3))
"""
RECIPE = """
validation = 60
calibration = 60
weights = "dfp:b=4"
[float]
epochs = 6
batch = 20
lr = 0.1
flip = true
shift = 2
[tune]
epochs = 2
batch = 20
"""


def signals(count=300, seed=0):
    """Return two channels of sines, of one period a class, at any phase, with noise; and the classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    period = np.array([4.0, 8.0, 20.0])[labels][:, None, None]
    waves = np.sin(2 * np.pi * (np.arange(39) / period + rng.random((count, 2, 1)))) * 90 + rng.normal(0, 10, (count, 2, 39))
    return (waves + 128).clip(0, 255).astype(np.uint8), labels


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signals")
    (folder / "wave.py").write_text(NETWORK)
    (folder / "recipe.toml").write_text(RECIPE)
    for name, count, seed in (("train.npz", 300, 0), ("test.npz", 40, 1)):
        images, labels = signals(count, seed)
        np.savez(folder / name, signals=images, labels=labels, classes=["fast", "medium", "slow"])
    report = json.loads(hwq("train", "wave:network", "--data", "train.npz", "--config", "recipe.toml", "-o",
                            "run", "--json", cwd=folder))
    assert report["validation_images"] == 60 and report["quantized"] > 0.6
    return folder


def test_lowered_and_scored(work):
    report = json.loads(hwq("lower", "run", "-o", "wave.hwq", "--check", "test.npz", "--json", cwd=work))
    assert report["checked_images"] == 40 and report["checked_numbers"]["input"] == 40 * 2 * 39 \
        and report["checked_numbers"]["output"] == 120
    graph = load(work / "wave.hwq")
    assert graph.input.shape == (1, 39, 2) and graph.classes == ("fast", "medium", "slow") and graph.preprocess.bits == 8
    scored = json.loads(hwq("eval", "wave.hwq", "--data", "test.npz", "--json", cwd=work))
    assert scored["images"] == 40 and scored["accuracy"] > 0.6


@pytest.mark.skipif(not have("verilator", "c++"), reason="Verilator or a C++ compiler is missing")
def test_built_and_verified(work):
    hwq("lower", "run", "-o", "wave.hwq", cwd=work)
    hwq("build", "wave.hwq", "--target", "verilog", "-o", "build", cwd=work)
    report = json.loads(hwq("verify", "build", "--data", "test.npz", "--stalls", 2, "--faults", 5, "--json", cwd=work))
    assert report["identical"] == report["images"] == 40 and report["right"] > 24


def test_searched_and_lowered(work):
    (work / "short.toml").write_text(RECIPE.replace("epochs = 6", "epochs = 1").replace("epochs = 2", "epochs = 1"))
    hwq("search", "wave:network", "--data", "train.npz", "--test", "test.npz", "--config", "short.toml", "--rule", "fast", "--drop",
        20, "--least", 6, "--search-images", 60, "--confirm-images", 60, "-o", "search", cwd=work)
    report = json.loads(hwq("lower", "search/result", "-o", "found.hwq", "--check", "test.npz", "--json", cwd=work))
    assert report["checked_images"] == 40 and report["weight_bits"] < 8 * report["weights"]


def test_a_2_d_network_refuses_signals(work):
    error = hwq("train", "hwq.models.fashion:network", "--data", "train.npz", "-o", "other", code=1, cwd=work)
    assert "does not run on an example input of shape (2, 2, 39)" in error.replace("\n", " ")
