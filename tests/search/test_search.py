"""A whole search on toy data: splits, resuming, processes, the third party's rule, the way to ``hwq lower``, refusals."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

from hwq.data import Dataset, write_npz  # noqa: E402
from hwq.errors import FormatError, ModelError  # noqa: E402
from hwq.quant import read_recipe  # noqa: E402
from hwq.search import Options, search, setting_of  # noqa: E402
from hwq.search.experiment import Store  # noqa: E402
from hwq.search.jobs import parts_of  # noqa: E402
from hwq.search.log import Log, read_log  # noqa: E402
from hwq.search.stats import mean_interval, paired_drop  # noqa: E402

from ..kill import kill_if_asked  # noqa: E402

RECIPE_TEXT = ('weights = {"0" = "dfp:b=8", "*" = "po2:b=4"}\nactivations = "dfp:b=8"\ncalibration = 40\n'
               '[float]\nepochs = 3\nbatch = 20\nlr = 0.05\n[tune]\nepochs = 2\nbatch = 20\n')
RECIPE = read_recipe(RECIPE_TEXT)
ROOT = Path(__file__).parents[2]
FACTORY = "tests.search.test_search:network"


def network():
    from torch import nn
    kill_if_asked()
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3))


def branched():
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.deep = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, bias=False)
            self.bn, self.fc = nn.BatchNorm2d(4), nn.Linear(20, 3)

        def forward(self, x):
            stem = torch.relu(self.stem(x))
            y = torch.relu(self.bn(self.deep(stem)) + stem)
            return self.fc(nn.functional.avg_pool2d(torch.cat([y, x], 1), 4).flatten(1))
    return Net()


def shuffled():
    from torch import nn
    return nn.Sequential(nn.Conv2d(1, 40, 3), nn.Conv2d(40, 40, 1, groups=20), nn.ChannelShuffle(2),
                         nn.Conv2d(40, 40, 1, groups=20), nn.Flatten(), nn.Linear(1440, 3))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "toy.npz"
    for seed, place in enumerate((path, path.with_name("test.npz"))):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 3, 400)
        images = rng.integers(0, 190, (400, 8, 8)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[:, 2 * label:2 * label + 3] += 65
        write_npz(place, Dataset(images, labels, ("a", "b", "c")))
    return path


def setting(data, **more):
    return setting_of(RECIPE, FACTORY, str(data), **{"search": 120, "confirm": 80, "test": str(data.with_name("test.npz")), **more})


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("search") / "s"
    return folder, search(setting(data, block_ram_device="up5k"), RECIPE, Options(allowed=5.0, start=4), folder)


def test_a_search_ends_in_a_network_that_lowers(whole, data):
    folder, result = whole
    assert result["met"] and set(result["bits"]) == {"0", "5"} and max(result["bits"].values()) <= 4 \
        and min(result["bits"].values()) >= 2
    assert result["ratio"] == pytest.approx(32 / result["mean_bits"]) and result["ratio"] > 4 and result["block_rams"] >= 1
    assert result["weight_bits"] == 36 * result["bits"]["0"] + 108 * result["bits"]["5"]
    assert result["path"][0]["bits"] == {"0": 4, "5": 4} and result["search_drop"] <= 5.0
    from hwq.frontend import convert
    from hwq.quant.run import load_run
    model, run = load_run(folder / "result")
    graph = convert(model, classes=run.classes)
    widths = {node.name: node.weight_format.width for node in graph if node.op in ("Conv2d", "Linear")}
    assert widths == result["bits"] and run.classes == ("a", "b", "c")
    from hwq.interp import encode_images, predict, run_batches
    parts = parts_of(setting(data))
    images = parts.data.images[parts.confirm.numpy()]
    right = predict(graph, run_batches(graph, encode_images(graph, images))) == parts.data.labels[parts.confirm.numpy()]
    assert right.mean() == result["accuracy"]["confirm"]           # what was confirmed is what the hardware computes


def test_a_network_without_hardware_is_refused_before_it_is_trained(data, tmp_path):
    asked = setting_of(RECIPE, "tests.search.test_search:shuffled", str(data), search=120, confirm=80,
                       test=str(data.with_name("test.npz")))
    with pytest.raises(ModelError, match="Permute '2' puts channels into another order"):
        search(asked, RECIPE, Options(), tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_the_log_has_every_training(whole):
    folder, result = whole
    rows = read_log(folder / "log.jsonl")
    assert [row["event"] for row in rows[:3]] == ["float", "reference", "candidate"] and rows[-1]["event"] == "done"
    tried = [row for row in rows if row["event"] == "candidate"]
    assert all({"bits", "accuracy", "cross_entropy", "cost", "size", "seed", "key", "drop"} <= set(row) for row in tried)
    assert {row["key"] for row in tried} == {p.name for p in (folder / "jobs").iterdir()} - {
        row["key"] for row in rows if row["event"] in ("float", "reference")} - _finals(folder)
    assert not list((folder / "jobs").rglob("epoch.pt"))


def _finals(folder):
    return {p.parent.name for p in (folder / "jobs").glob("*/job.json") if json.loads(p.read_text())["all_data"]}


def narrow():
    from torch import nn
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 2))


def test_a_network_with_too_few_outputs_is_refused_before_it_is_trained(data, tmp_path):
    few = replace(setting(data), factory="tests.search.test_search:narrow")
    with pytest.raises(ModelError, match="gives 2 outputs an image, but the data have 3 classes"):
        search(few, RECIPE, Options(), tmp_path / "s")
    assert not (tmp_path / "s").exists()


def colour():
    from torch import nn
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 3))


def double():
    return network().double()


def recurrent():
    from torch import nn
    return nn.LSTM(8, 3)


@pytest.mark.parametrize("name", ["colour", "double", "recurrent"])
def test_a_network_that_does_not_take_the_images_is_refused_by_name(name, data, tmp_path):
    with pytest.raises(ModelError):
        search(replace(setting(data), factory=f"tests.search.test_search:{name}"), RECIPE, Options(), tmp_path / "s")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("shape, classes, text", [((10, 10), 3, r"shape \(1, 10, 10\) with labels up to 2, those to train on of"),
                                                  ((8, 8), 4, "labels up to 3, those to train on of .* with 3 classes: do")])
def test_test_images_of_another_set_are_refused_before_training(shape, classes, text, data, tmp_path):
    write_npz(tmp_path / "other.npz", Dataset(np.zeros((8, *shape), np.uint8), np.arange(8) % classes))
    with pytest.raises(ModelError, match=text):
        search(setting(data, test=str(tmp_path / "other.npz")), RECIPE, Options(), tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_the_splits_are_disjoint_and_refused_if_missing(data):
    parts = parts_of(setting(data))
    groups = [set(part.tolist()) for part in (parts.train, parts.search, parts.confirm)]
    assert [len(group) for group in groups] == [200, 120, 80] and len(set.union(*groups)) == 400
    for more, text in (({"search": 0}, "to choose by"), ({"confirm": 0}, "to confirm with"), ({"search": 330}, "leave -10 of 400"),
                       ({"train": 300}, "fewer than the 300")):
        with pytest.raises(ModelError, match=text):
            parts_of(setting(data, **more))


def test_one_file_has_no_test_images(data, tmp_path):
    with pytest.raises(ModelError, match="no test images of its own; name others with --test"):
        search(setting(data, test=""), RECIPE, Options(), tmp_path / "s")
    assert not (tmp_path / "s").exists()


class Stop(Exception):
    pass


def test_an_interrupted_search_loses_nothing(whole, data, tmp_path):
    folder, result = whole
    count = 0

    def stop(row):
        nonlocal count
        count += row["event"] == "candidate"
        if count == 3:
            raise Stop
    with pytest.raises(Stop):
        search(setting(data, block_ram_device="up5k"), RECIPE, Options(allowed=5.0, start=4), tmp_path / "s", report=stop)
    half = (tmp_path / "s" / "log.jsonl").read_bytes()
    (tmp_path / "s" / "log.jsonl").write_bytes(half + b'{"event": "cand')                # torn by the interruption
    with pytest.raises(ModelError, match="go on with --resume"):
        search(setting(data, block_ram_device="up5k"), RECIPE, Options(allowed=5.0, start=4), tmp_path / "s")
    with pytest.raises(ModelError, match="holds another search: options differ"):
        search(setting(data, block_ram_device="up5k"), RECIPE, Options(allowed=4.0, start=4), tmp_path / "s", resume=True)
    again = search(setting(data, block_ram_device="up5k"), RECIPE, Options(allowed=5.0, start=4), tmp_path / "s",
                   resume=True, processes=2)
    assert again == result                                                              # also whatever the number of processes
    assert (tmp_path / "s" / "log.jsonl").read_bytes().startswith(half)
    assert (tmp_path / "s" / "result" / "model.pt").read_bytes() == (folder / "result" / "model.pt").read_bytes()
    keys = [row["key"] for row in read_log(tmp_path / "s" / "log.jsonl") if row["event"] == "candidate"]
    assert len(keys) == len(set(keys)) and sorted(keys) == sorted(
        row["key"] for row in read_log(folder / "log.jsonl") if row["event"] == "candidate")


def test_two_searches_give_the_same_bytes_though_one_is_killed(data, tmp_path):
    """From the command line: search, SIGKILL amid an epoch of a candidate, --resume, lower; against one that ran through."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('weights = "dfp:b=8"\ncalibration = 40\n[float]\nepochs = 2\nbatch = 20\nlr = 0.05\n[tune]\n'
                      'epochs = 2\nbatch = 20\n')

    def run(*words, kill=None):
        environment = dict(os.environ) | ({"HWQ_TEST_KILL_AT": str(kill)} if kill else {})
        return subprocess.run([sys.executable, "-m", "hwq", *map(str, words)], cwd=ROOT, env=environment,
                              capture_output=True, text=True)

    def hunt(folder, *more, kill=None):
        return run("search", FACTORY, "-o", folder, "--data", data, "--test",
                   data.with_name("test.npz"), "--config", recipe, "--rule", "fast",
                   "--drop", 5, "--start", 4, "--search-images", 120, "--confirm-images", 80, "--epochs", 2, *more, kill=kill)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = hunt(whole)
    assert done.returncode == 0, done.stderr
    # in the second epoch of a candidate: float, reference and start are done
    dead = hunt(killed, kill=82)
    assert dead.returncode == -signal.SIGKILL and list(killed.glob("jobs/*/epoch.pt")) and not (killed / "result.json").exists()
    before = {path: path.stat().st_mtime_ns for path in killed.glob("jobs/*/state.pt")}
    again = hunt(killed, "--resume")
    assert again.returncode == 0 and again.stdout == done.stdout.replace("whole", "killed"), again.stderr
    assert len(before) == 5 and before == {path: path.stat().st_mtime_ns for path in before}
    for folder in (whole, killed):
        lowered = run("lower", folder / "result", "-o", folder / "model.hwq")
        assert lowered.returncode == 0, lowered.stderr
    assert (whole / "model.hwq").read_bytes() == (killed / "model.hwq").read_bytes()


@pytest.mark.parametrize("drops, kept", [((5.1, 4.9), 1), ((5.1, 9.0, 5.2, 8.0), 0), ((5.0,), 0)])
def test_what_is_not_confirmed_gives_way_to_more_bits(drops, kept, whole, data, tmp_path, monkeypatch):
    folder, _ = whole
    asked = []

    def drop(store, reference, key, part):
        if part == "confirm" and key not in asked:
            asked.append(key)
        return (drops[asked.index(key)] if part == "confirm" else 1.25, 0.5)
    monkeypatch.setattr("hwq.search.scaling._drop", drop)
    monkeypatch.setattr("hwq.search.scaling._BACK", 0.3)
    result = search(setting(data, block_ram_device="up5k"), RECIPE, Options(allowed=5.0, start=4),
                    tmp_path / "s", jobs=folder / "jobs")
    sizes = [score["size"] for score in result["path"]]
    backwards, step = [sizes[-1]], 0.3
    for size in reversed(sizes[:-1]):
        if size >= (1 + step) * backwards[-1] or size == sizes[0]:
            backwards.append(size)
            step *= 2
    assert len(drops) == 1 or len(asked) > 1
    tried = [sum(bits * {"0": 36, "5": 108}[layer] for layer, bits in row["bits"].items()) for row in result["confirmations"]]
    assert tried == backwards[:len(asked)] and [row["drop"][0] for row in result["confirmations"]] == [*drops[:len(asked)]]
    assert result["bits"] == result["confirmations"][kept]["bits"] and result["confirm_drop"][0] == drops[kept]
    assert result["confirmed"] is (drops[kept] <= 5.0)
    # The test images are asked once, for the network that is kept.
    scored = {key for key in asked if "test" in json.loads((folder / "jobs" / key / "result.json").read_text())}
    assert asked[kept] in scored
    log = [row for row in read_log(tmp_path / "s" / "log.jsonl") if row["event"] == "confirmation"]
    assert [row["confirmed"] for row in log] == [drop <= 5.0 for drop in drops[:len(asked)]]


def test_the_back_off_takes_states_that_path_never_asked_for(whole, data, tmp_path, monkeypatch):
    monkeypatch.setattr("hwq.search.scaling._drop", lambda *args: (99.0, 0.5))
    result = search(setting(data), RECIPE, Options("path", 90.0, start=6, least=2), tmp_path / "s", jobs=whole[0] / "jobs")
    asked = [score["bits"] for score in result["path"]]
    assert [row["bits"] for row in result["confirmations"] if row["bits"] not in asked] or len(asked) == 1
    assert result["confirmations"][0]["bits"] == asked[-1] and result["confirmations"][-1]["bits"] == asked[0]


def test_slack_is_so_many_standard_errors(whole, data, tmp_path):
    folder, _ = whole
    options = Options("path", 5.0, start=4, slack=2.0)
    result = search(setting(data, block_ram_device="up5k"), RECIPE, options, tmp_path / "s", jobs=folder / "jobs")
    rows = read_log(tmp_path / "s" / "log.jsonl")
    store = Store(setting(data, block_ram_device="up5k"), folder / "jobs")
    (reference,) = (row for row in rows if row["event"] == "reference")
    for row in result["path"]:
        assert row["slack"] == 2 * paired_drop(store.answers(reference["key"], "search"), store.answers(row["key"], "search"),
                                               store.labels("search"))[1] / 100
        assert 100 * (reference["accuracy"] - row["accuracy"]) <= 5.0 + 100 * row["slack"] + 1e-6


@pytest.mark.parametrize("rule", ["fast", "product"])
def test_the_other_rules(rule, whole, data, tmp_path):
    folder, _ = whole
    result = search(setting(data, block_ram_device="up5k"), RECIPE, Options(rule, 5.0, start=4, least=3),
                    tmp_path / "s", jobs=folder / "jobs")
    assert result["met"] and result["rule"] == rule


def test_networks_with_branches(data, tmp_path):
    from hwq.analysis import layer_facts
    from hwq.frontend import compare, convert
    from hwq.quant.run import load_run
    recipe = read_recipe(RECIPE_TEXT.replace('"0"', '"stem"'))
    found = setting_of(recipe, FACTORY.replace("network", "branched"), str(data), search=120, confirm=80,
                       test=str(data.with_name("test.npz")))
    result = search(found, recipe, Options("fast", 30.0, start=4, least=3), tmp_path / "s")
    assert set(result["bits"]) == {"stem", "deep", "fc"} and result["weight_bits"] == sum(
        count * result["bits"][name] for name, count in (("stem", 36), ("deep", 144), ("fc", 60)))
    model, run = load_run(tmp_path / "s" / "result")
    graph = convert(model, classes=run.classes)
    assert compare(model, graph, parts_of(found).data.images[:20])["add.act"] == 20 * 64 * 4
    assert {fact.name: fact.weight_format
            for fact in layer_facts(graph) if fact.weights}["deep"].startswith(f"po2:b={result['bits']['deep']}")


def test_a_drop_that_is_never_met_is_said(data, tmp_path, monkeypatch):
    from hwq.search import scaling
    original = scaling._Search.score

    def harsh(self, bits, result):
        score = original(self, bits, result)
        return scaling.replace(score, accuracy=score.accuracy - 0.5)
    monkeypatch.setattr(scaling._Search, "score", harsh)
    result = search(setting(data), RECIPE, Options(allowed=0.0), tmp_path / "s")
    assert not result["met"] and result["bits"] == {"0": 8, "5": 5} and len(result["path"]) == 1


def test_options_are_checked():
    for options, text in ((dict(rule="magic"), "known: greedy, fast, path, product"), (dict(least=1), "2 <= least"),
                          (dict(start=1), "2 <= least"), (dict(allowed=-1.0), "allowed drop")):
        with pytest.raises(ModelError, match=text):
            Options(**options)


def test_statistics():
    labels = np.zeros(1000, int)
    reference, answers = np.zeros(1000, int), np.zeros(1000, int)
    answers[:10], reference[5:8] = 1, 1
    drop, error = paired_drop(reference, answers, labels)
    differences = np.zeros(1000)
    differences[[0, 1, 2, 3, 4, 8, 9]] = 1
    assert drop == pytest.approx(0.7) and error == pytest.approx(100 * differences.std(ddof=1) / 1000 ** 0.5)
    mean, half = mean_interval([1.0, 2.0, 3.0])
    assert mean == 2 and half == pytest.approx(4.303 / 3 ** 0.5) and np.isnan(mean_interval([1.0])[1])


def test_logs_that_are_torn_or_wrong(tmp_path):
    log = Log(tmp_path / "l")
    for _ in range(2):
        log.add({"event": "x", "key": "1"})
    assert len(read_log(tmp_path / "l")) == 1
    (tmp_path / "l").write_text('{"event": "x"}\nnonsense\n{"event": "y"}\n')
    with pytest.raises(FormatError, match="line 2 is no JSON"):
        read_log(tmp_path / "l")


APP = typer.Typer(add_completion=False)
for _name in ("search", "lower"):
    APP.command(_name)(import_module(f"hwq.cli.{_name}").command)


def test_the_command(data, tmp_path):
    (tmp_path / "recipe.toml").write_text('weights = "dfp:b=8"\n[float]\nepochs = 2\nbatch = 20\n[tune]\nepochs = 1\nbatch = 20\n')
    words = ["search", FACTORY, "-o", tmp_path / "s", "--data", data, "--test", data.with_name("test.npz"), "--config",
             tmp_path / "recipe.toml", "--rule", "fast", "--drop", 10,
             "--search-images", 100, "--confirm-images", 50, "--least", 3, "--json"]
    done = CliRunner().invoke(APP, list(map(str, words)))
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["met"] and set(result["bits"]) == {"0", "5"}
    try:
        import matplotlib  # noqa: F401
        assert (tmp_path / "s" / "pareto.svg").read_text().startswith("<?xml")
    except ImportError:
        assert "no picture" in done.stderr
    lowered = CliRunner().invoke(APP, ["lower", str(tmp_path / "s" / "result"), "-o", str(tmp_path / "x.hwq"), "--json"])
    assert lowered.exit_code == 0 and json.loads(lowered.stdout)["weight_bits"] == result["weight_bits"]
