"""``hwq train``, ``lower``, ``show``, ``eval`` as a user types them."""

import csv
import json
import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from hwq.data import Dataset, write_npz
from hwq.errors import FormatError, ModelError, VerifyError
from hwq.ir import load

APP = typer.Typer(add_completion=False)
for _name in ("train", "lower", "show", "eval"):
    APP.command(_name)(import_module(f"hwq.cli.{_name}").command)

RECIPE = ('validation = 20\ncalibration = 30\n[weights]\nconv1 = "dfp:b=8"\n"*" = "dfp:b=2"\n[float]\nepochs = 1\n'
          '[tune]\nepochs = 3\n')


def hwq(*words):
    result = CliRunner().invoke(APP, list(map(str, words)))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    write_npz(folder / "data.npz", Dataset(rng.integers(0, 256, (80, 28, 28)).astype(np.uint8), rng.integers(0, 10, 80)))
    (folder / "recipe.toml").write_text(RECIPE)
    report = json.loads(hwq("train", "hwq.models.fashion:network", "--data", folder / "data.npz", "--config",
                            folder / "recipe.toml", "-o", folder / "run", "--seed", 3, "--json"))
    assert report["validation_images"] == 20 and 0 <= report["quantized"] <= 1
    lowered = json.loads(hwq("lower", folder / "run", "-o", folder / "x.hwq", "--json"))
    assert load(folder / "x.hwq").factory == "hwq.models.fashion:network"             # for messages: what hwq search is to be given
    assert lowered["weights"] == 30024 and lowered["weight_bits"] == 72 * 8 + (30024 - 72) * 2
    return folder


def test_resnet8_by_its_recipe(tmp_path):
    pytest.importorskip("torch")
    recipe = (Path(__file__).parents[2] / "examples" / "resnet8" / "config.toml").read_text()
    for old, new in ((r"validation = \d+", "validation = 8"), (r"calibration = \d+", "calibration = 8"),
                     (r"epochs = \d+", "epochs = 1")):
        recipe = re.sub(old, new, recipe)
    (tmp_path / "recipe.toml").write_text(recipe)
    rng = np.random.default_rng(0)
    write_npz(tmp_path / "data.npz", Dataset(rng.integers(0, 256, (24, 32, 32, 3)).astype(np.uint8), rng.integers(0, 10, 24)))
    hwq("train", "hwq.models.resnet8:network(width=0.125)", "--data", tmp_path / "data.npz", "--config",
        tmp_path / "recipe.toml", "-o", tmp_path / "run")
    report = json.loads(hwq("lower", tmp_path / "run", "-o", tmp_path / "x.hwq", "--check", tmp_path / "data.npz", "--json"))
    assert report["checked_numbers"]["blocks.2.add.act"] == 24 * 8 * 8 * 8
    nodes = {node["name"]: node for node in json.loads(hwq("show", tmp_path / "x.hwq", "--json"))["nodes"]}
    assert nodes["blocks.1.add"]["op"] == "Add" and nodes["blocks.1.short"]["weight_format"].startswith("dfp:b=8")
    assert json.loads(hwq("eval", tmp_path / "x.hwq", "--data", tmp_path / "data.npz", "--json"))["images"] == 24


def test_show(work):
    shown = json.loads(hwq("show", work / "x.hwq", "--json"))
    nodes = {node["name"]: node for node in shown["nodes"]}
    assert nodes["conv4"]["macs"] == 18432 * 9 and nodes["conv4"]["weight_bits"] == 36864 and shown["blocks"] == 15
    assert nodes["conv1.act"]["width"] == 4 and not nodes["conv1.act"]["signed"]
    text = hwq("show", work / "x.hwq")
    assert "conv4" in text and "30,024" in text and "dfp:b=2" in text


def test_eval(work):
    table = work / "out.csv"
    scored = json.loads(hwq("eval", work / "x.hwq", "--data", work / "data.npz", "--csv", table, "--json"))
    rows = list(csv.DictReader(table.open()))
    assert len(rows) == scored["images"] == 80
    assert sum(row["label"] == row["class"] for row in rows) == scored["right"]
    logits = np.array([[int(row[f"logit{i}"]) for i in range(10)] for row in rows])
    assert (logits.argmax(1) == [int(row["class"]) for row in rows]).all()
    assert "of 80 right" in hwq("eval", work / "x.hwq", "--data", work / "data.npz")


def test_lower_is_reproducible(work):
    hwq("lower", work / "run", "-o", work / "y.hwq", "--name", "x")
    assert (work / "y.hwq").read_bytes() == (work / "x.hwq").read_bytes()
    assert load(work / "x.hwq").name == "x"


def test_lower_checks_every_edge(work, tmp_path):
    report = json.loads(hwq("lower", work / "run", "-o", tmp_path / "z.hwq", "--check", work / "data.npz", "--json"))
    assert report["checked_images"] == 80 and report["checked_numbers"]["conv1.act"] == 80 * 28 * 28 * 8
    assert {"input", "conv4", "fc", "output"} <= set(report["checked_numbers"])
    assert "none differs" in hwq("lower", work / "run", "-o", tmp_path / "z.hwq", "--check", work / "data.npz")


def test_compare_notices_one_wrong_number(work):
    from dataclasses import replace

    from hwq.frontend import compare
    from hwq.quant.run import load_run
    model, _ = load_run(work / "run")
    graph, images = load(work / "x.hwq"), np.random.default_rng(1).integers(0, 256, (4, 28, 28)).astype(np.uint8)
    compare(model, graph, images)
    node = graph.by_name["conv2"]
    weight = node.weight.copy()
    weight[3, 1, 2, 0] = -2 if weight[3, 1, 2, 0] != -2 else 1
    wrong = graph.with_nodes(replace(n, weight=weight) if n is node else n for n in graph)
    with pytest.raises(VerifyError, match=r"Edge 'conv2' differs at image \d+, place \(.*3\)"):
        compare(model, wrong, images)


def test_refusals(work, tmp_path):
    with pytest.raises(FormatError, match="no training run"):
        hwq("lower", tmp_path, "-o", tmp_path / "x.hwq")
    with pytest.raises(FormatError, match="Cannot read"):
        hwq("eval", tmp_path / "none.hwq")
    with pytest.raises(FormatError, match="Cannot read the recipe"):
        hwq("train", "hwq.models.fashion:network", "-o", tmp_path / "r", "--config", tmp_path / "none.toml")
    with pytest.raises(ModelError, match="unknown key bits"):
        (tmp_path / "bad.toml").write_text("bits = 3")
        hwq("train", "hwq.models.fashion:network", "-o", tmp_path / "r", "--config", tmp_path / "bad.toml",
            "--data", work / "data.npz")
    with pytest.raises(ModelError, match="No layer matches the pattern 'conv7'"):
        (tmp_path / "bad.toml").write_text('[weights]\n"*" = "dfp:b=4"\nconv7 = "dfp:b=4"')
        hwq("train", "hwq.models.fashion:network", "-o", tmp_path / "r", "--config", tmp_path / "bad.toml",
            "--data", work / "data.npz")
    assert not (tmp_path / "r").exists()
