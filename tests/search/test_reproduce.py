"""``hwq reproduce wess2018 --scale tiny``: the whole experiment in small, its table against the jobs, and its resuming."""

import csv
import json
from dataclasses import replace
from importlib import import_module

import pytest
import typer
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

from hwq.errors import FormatError, ModelError  # noqa: E402
from hwq.search.paper import PLANS, plan_of  # noqa: E402
from hwq.search.tables import read_rows  # noqa: E402

APP = typer.Typer(add_completion=False)
APP.command("reproduce")(import_module("hwq.cli.reproduce").command)


@APP.callback()
def _root():
    pass


def hwq(*words):
    done = CliRunner().invoke(APP, list(map(str, words)))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wess") / "tiny"
    hwq("reproduce", "wess2018", "--scale", "tiny", "--seeds", 2, "-o", folder)
    return folder, json.loads((folder / "table.json").read_text())


def test_the_table_has_every_cell(done):
    folder, table = done
    plan = PLANS["tiny", "synthetic"]
    cells = {(row["format"], row["rule"], row["bits"], row["tuning"]) for row in table["cells"]}
    for kind in ("dfp", "po2"):
        for rule in ("mse", "range"):
            assert {(kind, rule, bits, "none") for bits in plan.bits} <= cells
        assert {(kind, "mse", bits, variant) for bits in plan.trained for variant in ("plain", "qr", "wqr")} <= cells
        assert (kind, "range", 2, "plain") in cells
    assert len(cells) == len(table["cells"]) == 16
    for row in table["cells"]:
        assert row["ratio"] == 32 / row["bits"] and row["seeds"] == 2 and row["ratio_everything"] < row["ratio"] * 1.5
        assert row["drop"][0] == pytest.approx(table["reference"][0] - row["accuracy"][0])       # paired or not, the means agree
    rows = list(csv.DictReader((folder / "table.csv").open()))
    assert len(rows) == 16 and float(rows[0]["drop"]) == table["cells"][0]["drop"][0]
    text = (folder / "table.md").read_text()
    assert text.count("\n| dfp |") + text.count("\n| po2 |") == 17 and "## Layer-wise scaling" in text


def test_the_scaling_keeps_its_batch_norms(done):
    folder, table = done
    assert plan_of("tiny", "synthetic").batchnorm == "fold"
    for seed in range(2):
        facts = json.loads((folder / "scaling" / f"dfp-{seed}" / "search.json").read_text())
        assert facts["setting"]["batchnorm"] == facts["recipe"]["batchnorm"] == "keep"
        recipe = (folder / "scaling" / f"dfp-{seed}" / "result" / "run.json").read_text()
        assert 'batchnorm = \\"keep\\"' in recipe


def test_given_widths_are_judged_by_every_seed(done):
    folder, table = done
    words = ("reproduce", "wess2018", "--seeds", 2, "-o", folder, "--resume", "--json", "--parts")
    again = json.loads(hwq(*words, "given", "--bits", "4,2,4,2,4"))
    assert again == json.loads(hwq(*words, "table,scaling,given", "--bits", "4,2,4,2,4"))     # earlier parts stay in the table
    assert again["cells"] == table["cells"] and again["scaled"][:-1] == table["scaled"] \
        and again["scaling"][:-2] == table["scaling"]
    row = again["scaled"][-1]
    assert row["rule"] == "given" and row["seeds"] == 2 and [list(bits.values()) for bits in row["bits"]] == [[4, 2, 4, 2, 4]] * 2
    for one in again["scaling"][-2:]:
        assert one["test_drop"][0] == pytest.approx(100 * (one["reference"]["test"] - one["accuracy"]["test"]))
        assert one["ratio"] == pytest.approx(32 / one["mean_bits"]) and 8 < one["ratio"] < 16
    other = json.loads(hwq(*words, "given", "--bits", "4,4,4,4,4"))           # other widths have a row of their own
    assert other["scaled"][:-1] == again["scaled"] and other["scaled"][-1]["ratio"][0] == 8 and other["scaled"][-1]["seeds"] == 2
    with pytest.raises(ModelError, match="5 layers with weights .*and 2 widths"):
        hwq(*words, "given", "--bits", "4,4")
    for wrong in (("given",), ("table", "--bits", "4,4,4,4,4"), ("given", "--bits", "4,x")):
        with pytest.raises(ModelError, match="no other part takes it"):
            hwq(*words, *wrong)


def test_it_resumes_without_training_again(done, tmp_path):
    folder, table = done
    stamps = {path: path.stat().st_mtime_ns for path in (folder / "jobs").glob("*/state.pt")}
    assert stamps
    with pytest.raises(ModelError, match="go on with --resume"):
        hwq("reproduce", "wess2018", "--seeds", 2, "-o", folder)
    again = json.loads(hwq("reproduce", "wess2018", "--seeds", 2, "-o", folder, "--resume", "--json"))
    assert again["cells"] == table["cells"] and again["scaled"][0] == table["scaled"][0] \
        and {path: path.stat().st_mtime_ns for path in (folder / "jobs").glob("*/state.pt")} == stamps
    for damaged in ("{", "[]", '{"cells": [1], "scaling": []}'):
        (tmp_path / "table.json").write_text(damaged)
        with pytest.raises(FormatError, match="table.json is damaged"):
            read_rows(tmp_path)
    (tmp_path / "table.json").unlink()
    (tmp_path / "thesis.txt").write_text("keep me")
    with pytest.raises(ModelError, match="something that is no experiment"):
        hwq("reproduce", "wess2018", "-o", tmp_path)


def test_refusals(tmp_path):
    for words, text in ((["wess2019"], "known: wess2018"), (["wess2018", "--seeds", 0], "at least one seed"),
                        (["wess2018", "--parts", "all"], "table, scaling"),
                        (["wess2018", "--dataset", "imagenet"], "no plan of the scale 'tiny' for 'imagenet'"),
                        (["wess2018", "--width", 0.5], "has no width; the All-CNN of cifar-10, cifar-100, svhn does"),
                        (["wess2018", "--scale", "small", "--dataset", "svhn", "--width", 2],
                         "factor of 1/16 to 1 on All-CNN's channels, not 2")):
        with pytest.raises(ModelError, match=text):
            hwq("reproduce", *words, "-o", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_the_data_are_those_that_are_named(tmp_path):
    """Of a folder with CIFAR-10's files `--dataset cifar-100` takes none."""
    for k in range(5):
        (tmp_path / f"data_batch_{k + 1}.bin").write_bytes(bytes(3073))
    with pytest.raises(FormatError, match=f"{tmp_path} lacks train .*cifar-100-binary or cifar-100-python"):
        hwq("reproduce", "wess2018", "--scale", "small", "--dataset", "cifar-100", "--data", tmp_path, "-o", tmp_path / "x")


def test_plans_are_fair():
    for (scale, name), plan in PLANS.items():
        assert plan_of(scale, name) is plan and len(plan.rates) == len(plan.qr) == len(plan.wqr)
        assert set(plan.trained) <= set(plan.bits)
    assert plan_of("small", "cifar-10", 0.25) == replace(plan_of("small", "cifar-10"),
                                                         factory=plan_of("small", "cifar-100").factory.replace("100", "10"))
    assert plan_of("full", "svhn", 1) == plan_of("full", "svhn")
