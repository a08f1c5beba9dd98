"""The paper's experiment: formats x bits x ways of fine-tuning x seeds, then layer-wise scaling, against a fair float network.

M. Wess, S. M. P. Dinakarrao, A. Jantsch, "Weighted Quantization-Regularization in DNNs for Weight Memory Minimization
Toward HW Implementation", IEEE TCAD 37(11), 2018. What its abstract does not settle is decided in docs/design.md.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..formats import parse_spec
from ..quant import Penalty, Phase, Recipe
from .experiment import Store
from .jobs import Job, Setting, shortened
from .log import Log
from .pool import run_jobs
from .scaling import Options, layer_specs, outcome, search, setting_of, with_bits
from .stats import mean_interval, paired_drop

__all__ = ["Plan", "PLANS", "plan_of", "Experiment"]

VARIANTS = ("plain", "qr", "wqr")


@dataclass(frozen=True)
class Plan:
    """Size of the experiment.

    Attributes
    ----------
    factory : str
        Float network.
    float_phase, tune : Phase
        Of the float network; of every fine-tuning and of the float reference.
    search, confirm, train : int
        Images to choose by, to confirm with, to train on (0: the rest).
    bits : tuple of int
        Widths without fine-tuning (Po2 up to 5).
    trained : tuple of int
        Widths that are fine-tuned.
    range_variants : tuple of str
        Variants that are fine-tuned under the range rule too; the MSE rule gets all.
    rates, qr, wqr : tuple of float
        What each variant tries on the first seed: factors on the learning rate, strengths. Equally many.
    trial_epochs : int
        Of each of these trials; the least cross-entropy on the search split decides.
    scaling : str
        Rule of the layer-wise scaling.
    scaled : tuple of str
        Kinds of format it is done with.
    least : int
        Its fewest bits.
    batchnorm : str
        ``"fold"`` or ``"keep"``: a deep narrow network with folded batch norms does not survive two bits.
    scaling_tune : Phase or None
        Of the scaling's trainings and its reference, instead of ``tune``.
    scaling_rate : float
        Of its candidates, see `Options`.
    scaling_batchnorm : str
        Its ``batchnorm``; empty: as the rest.
    scaling_slack : float
        See `Options`.
    scaling_search, scaling_confirm : int
        Its images to choose by and to confirm with; 0: as many as the rest. The fewer, the more a lucky candidate passes.
    """

    factory: str
    float_phase: Phase
    tune: Phase
    search: int = 10_000
    confirm: int = 5_000
    train: int = 0
    bits: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8)
    trained: tuple[int, ...] = (2, 3, 4)
    range_variants: tuple[str, ...] = ("plain",)
    rates: tuple[float, ...] = (0.5, 1.0, 2.0)
    qr: tuple[float, ...] = (1e-5, 1e-4, 1e-3)
    wqr: tuple[float, ...] = (1e-4, 1e-3, 1e-2)
    trial_epochs: int = 2
    scaling: str = "path"
    scaled: tuple[str, ...] = ("dfp",)
    least: int = 2
    batchnorm: str = "fold"
    scaling_tune: Phase | None = None
    scaling_rate: float = 1.0
    scaling_batchnorm: str = ""
    scaling_slack: float = 0.0
    scaling_search: int = 0
    scaling_confirm: int = 0
    activations: dict[str, str] = field(default_factory=lambda: {"*": "dfp:b=8"})


_FASHION = "hwq.models.fashion:network"
_TINY = Plan("hwq.models.fashion:network(channels=(3, 4, 5, 6), classes=4)", Phase(epochs=8, batch=25, lr=0.1),
             Phase(epochs=2, batch=25, lr=0.02, calibrate_until=0), search=100, confirm=60, bits=(2, 4), trained=(2,),
             rates=(0.5, 1.0), qr=(1e-4, 1e-3), wqr=(1e-4, 1e-3), trial_epochs=1, least=4, scaling_batchnorm="keep")
_SMALL = Phase(epochs=5, batch=128, lr=0.02, weight_decay=1e-4, calibrate_until=2)
_FULL = Phase(epochs=40, batch=128, lr=0.01, weight_decay=1e-4, calibrate_until=10, flip=True, shift=5)
_SCALED_FASHION = replace(_SMALL, epochs=10, lr=0.03, weight_decay=1e-5, calibrate_until=4, flip=True, teacher_weight=0.9)


_CLASSES = {"cifar-10": 10, "cifar-100": 100, "svhn": 10}


def _allcnn(width: float, classes: int) -> str:
    more = "" if width == 1 else ", dropout=False"
    return f"hwq.models.allcnn:network(width={width}, classes={classes}, batchnorm=True{more}, last_relu=False)"


PLANS: dict[tuple[str, str], Plan] = {
    ("tiny", "synthetic"): _TINY,
    ("small", "fashion-mnist"): Plan(_FASHION, Phase(epochs=15, batch=128, lr=0.1, flip=True), replace(_SMALL, lr=0.01, flip=True),
                                     trial_epochs=1, scaling_tune=_SCALED_FASHION, scaling_rate=0.25, scaling_batchnorm="keep",
                                     scaling_slack=2.0, scaling_search=15_000, scaling_confirm=10_000),
    ("small", "mnist"): Plan(_FASHION, Phase(epochs=10, batch=128, lr=0.1), _SMALL),
    **{("small", name): Plan(_allcnn(width, classes), Phase(epochs=15, batch=128, lr=0.1, flip=True, shift=4),
                             replace(_SMALL, epochs=3, lr=0.005, flip=True, shift=4),
                             search=10_000, trained=(2, 3), trial_epochs=1, batchnorm="keep")
       for name, classes in _CLASSES.items() for width in (0.25 if classes == 100 else 0.125,)},
    ("full", "fashion-mnist"): Plan(_FASHION, Phase(epochs=40, batch=128, lr=0.1, shift=2), replace(_SMALL, epochs=15, shift=2),
                                    range_variants=VARIANTS, scaling="greedy", scaled=("dfp", "po2")),
    **{("full", name): Plan(_allcnn(1.0, classes),
                            Phase(epochs=350, batch=128, lr=0.05, weight_decay=1e-3, flip=name != "svhn", shift=5),
                            replace(_FULL, flip=name != "svhn"), trained=(2, 3, 4, 5), range_variants=VARIANTS, trial_epochs=10,
                            scaling="greedy", scaled=("dfp", "po2"), batchnorm="keep")
       for name, classes in _CLASSES.items()},
}


def plan_of(scale: str, dataset: str, width: float = 0) -> Plan:
    """Return the plan of a scale and a data set, its All-CNN of another width if one is given.

    Raises
    ------
    ModelError
        There is none (it says what there is), or its network has no such width.
    """
    if (scale, dataset) not in PLANS:
        raise ModelError(f"There is no plan of the scale {scale!r} for {dataset!r}; there are: "
                         + ", ".join(f"{s} {d}" for s, d in PLANS))
    plan = PLANS[scale, dataset]
    if not width:
        return plan
    if dataset not in _CLASSES:
        raise ModelError(f"{plan.factory} has no width; the All-CNN of {', '.join(_CLASSES)} does")
    if not 1 / 16 <= width <= 1:
        raise ModelError(f"The width is a factor of 1/16 to 1 on All-CNN's channels, not {width:g}")
    return replace(plan, factory=_allcnn(float(width), _CLASSES[dataset]))


_SCALED = "format", "rule", "seed"                       # what tells rows of the scaling apart


def _put(rows: list[dict[str, Any]], row: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Add a row, in the place of one that was there before, and return it."""
    at = next((at for at, old in enumerate(rows) if all(old[key] == row[key] for key in keys)), len(rows))
    rows[at:at + 1] = [row]
    return row


class Experiment:
    """Runs a plan in a folder; whatever is finished there is not run again.

    `rows` and `scaling` hold what has been run; a run that takes up an experiment puts earlier rows there first.

    Parameters
    ----------
    plan : Plan
    data, test : str
        What `hwq.data.open_dataset` takes; ``test`` where the data have no test set of their own.
    seeds : sequence of int
    folder : path
        Jobs lie in ``jobs/``, searches in ``scaling/``.
    options
        ``processes``, and ``threads`` and ``device`` of the setting.
    report : row -> None
        Called after every training.
    """

    def __init__(self, plan: Plan, data: str, seeds: Sequence[int], folder: Path, *, test: str = "", processes: int | Executor = 1,
                 threads: int = 1, device: str = "cpu", report: Callable[[dict[str, Any]], None] = lambda row: None) -> None:
        self.plan, self.seeds, self.folder, self.processes, self.report = plan, list(seeds), folder, processes, report
        self.recipe = Recipe(batchnorm=plan.batchnorm, activations=plan.activations, float_phase=plan.float_phase, tune=plan.tune)
        self.setting: Setting = setting_of(self.recipe, plan.factory, data, test=test, search=plan.search, confirm=plan.confirm,
                                           train=plan.train, threads=threads, device=device)
        self.store = Store(self.setting, folder / "jobs")
        self.log = Log(folder / "log.jsonl", report)
        self.rows: list[dict[str, Any]] = []
        self.scaling: list[dict[str, Any]] = []
        self._base: dict[int, str] = {}
        self._reference: dict[int, dict[str, Any]] = {}

    def _run(self, cell: str, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        def note(job: Job, result: dict[str, Any]) -> None:
            part = result[job.score[-1]]
            self.log.add({"event": "training", "cell": cell, "seed": job.seed, "key": result["key"], "seconds": result["seconds"],
                          "part": job.score[-1], **part})
        return run_jobs(self.store, jobs, self.processes, note)

    def floats(self) -> None:
        """Train the float networks, and the references: the same with as much extra training as every fine-tuning."""
        bases = self._run("float", [Job(seed, self.plan.float_phase) for seed in self.seeds])
        self._base = {seed: result["key"] for seed, result in zip(self.seeds, bases, strict=True)}
        references = self._run("reference",
                               [Job(seed, self.plan.tune, base=self._base[seed], score=("search", "test")) for seed in self.seeds])
        self._reference = dict(zip(self.seeds, references, strict=True))

    @property
    def reference(self) -> tuple[float, float]:
        """Mean test accuracy of the references in percent, and half its interval."""
        return mean_interval([100 * result["test"]["accuracy"] for result in self._reference.values()])

    def cells(self) -> Iterator[tuple[str, str, int, str]]:
        """Yield every (kind, rule, bits, variant), the untrained ones first."""
        for kind in ("dfp", "po2"):
            for rule in ("mse", "range"):
                for bits in self.plan.bits:
                    if kind == "dfp" or bits <= 5:
                        yield kind, rule, bits, "none"
        for rule in ("mse", "range"):
            for bits in self.plan.trained:
                for kind in ("dfp", "po2"):
                    for variant in VARIANTS if rule == "mse" else self.plan.range_variants:
                        yield kind, rule, bits, variant

    def cell(self, kind: str, rule: str, bits: int, variant: str) -> dict[str, Any]:
        """Run one cell of the table for all seeds, append its row and return it."""
        name = f"{kind} {rule} {bits} {variant}"
        weights = {"*": f"{kind}:b={bits}" + (",rule=range" if rule == "range" else "")}
        if variant == "none":
            phase, penalty, choice = replace(self.plan.tune, epochs=0), Penalty(), None
        else:
            phase, penalty, choice = self._choose(name, weights, variant)
        jobs = [Job(seed, phase, weights, self._base[seed], penalty, score=("test",)) for seed in self.seeds]
        results = self._run(name, jobs)
        labels = self.store.labels("test")
        drops, floats = [], []
        for seed, result in zip(self.seeds, results, strict=True):
            fair = self._reference[seed]
            drops.append(paired_drop(self.store.answers(fair["key"], "test"), self.store.answers(result["key"], "test"), labels)[0])
            floats.append(100 * (fair["test"]["accuracy"] - result["test_float_activations"]["accuracy"]))
        row: dict[str, Any] = {"format": kind, "rule": rule, "bits": bits, "tuning": variant, "choice": choice,
                               "seeds": len(self.seeds)}
        row["accuracy"] = mean_interval([100 * result["test"]["accuracy"] for result in results])
        row |= {"drop": mean_interval(drops), "drop_float_activations": mean_interval(floats)}
        weights_count = sum(layer["weights"] for layer in results[0]["layers"].values())
        row |= {"ratio": 32 * weights_count / results[0]["bits"],
                "ratio_everything": 32 * self._parameters() / results[0]["stored_bits"]}
        return _put(self.rows, row, ("format", "rule", "bits", "tuning"))

    def _parameters(self) -> int:
        return sum(p.numel() for p in self.store.model(self._base[self.seeds[0]]).parameters())

    def _choose(self, name: str, weights: dict[str, str], variant: str) -> tuple[Phase, Penalty, float]:
        """Return phase and penalty of the variant's best trial on the first seed; every variant has equally many."""
        plan, seed = self.plan, self.seeds[0]
        short = shortened(plan.tune, plan.trial_epochs)
        values = {"plain": plan.rates, "qr": plan.qr, "wqr": plan.wqr}[variant]

        def made(value: float, phase: Phase) -> tuple[Phase, Penalty]:
            return (replace(phase, lr=phase.lr * value), Penalty()) if variant == "plain" else (phase, Penalty(variant, value))
        jobs = []
        for value in values:
            phase, penalty = made(value, short)
            jobs.append(Job(seed, phase, weights, self._base[seed], penalty))
        results = self._run(f"{name} trial", jobs)
        best = min(range(len(values)), key=lambda at: results[at]["search"]["cross_entropy"])
        return (*made(values[best], plan.tune), values[best])

    def _scaling(self, kind: str) -> tuple[Setting, Recipe]:
        batchnorm = self.plan.scaling_batchnorm or self.plan.batchnorm
        recipe = replace(self.recipe, batchnorm=batchnorm, tune=self.plan.scaling_tune or self.plan.tune,
                         weights={"*": f"{kind}:b={5 if kind == 'po2' else 8}"})
        return replace(self.setting, batchnorm=batchnorm, search=self.plan.scaling_search or self.plan.search,
                       confirm=self.plan.scaling_confirm or self.plan.confirm), recipe

    def scale(self, kind: str, seed: int) -> dict[str, Any]:
        """Run the layer-wise scaling of one kind and seed; append its result and return it."""
        setting, recipe = self._scaling(kind)
        options = Options(self.plan.scaling, least=self.plan.least, seed=seed, rate=self.plan.scaling_rate,
                          slack=self.plan.scaling_slack)
        folder = self.folder / "scaling" / f"{kind}-{seed}"
        result = search(setting, recipe, options, folder, processes=self.processes, resume=True,
                        jobs=self.folder / "jobs", report=self.report)
        return _put(self.scaling, {"format": kind, **result}, _SCALED)

    def given(self, kind: str, widths: Sequence[int], seed: int) -> dict[str, Any]:
        """Train a network of given widths as the scaling trains what it found, and append the result, of the rule ``given``.

        One seed's search finds widths; whether they hold is a question to other seeds.

        Parameters
        ----------
        widths : sequence of int
            Of the layers with weights, in order.
        """
        setting, recipe = self._scaling(kind)
        specs = layer_specs(setting, recipe)
        if len(widths) != len(specs):
            raise ModelError(f"{self.plan.factory} has {len(specs)} layers with weights ({', '.join(specs)}), and {len(widths)} "
                             "widths are given: give one for each")
        bits = dict(zip(specs, widths, strict=True))
        weights = with_bits(specs, bits)
        for text in weights.values():
            parse_spec(text)                           # refused now, not after the float training
        store = Store(setting, self.folder / "jobs")
        base = run_jobs(store, [Job(seed, recipe.float_phase)], self.processes)[0]["key"]
        jobs = [Job(seed, recipe.tune, formats, base, all_data=True, score=("confirm", "test")) for formats in (None, weights)]
        fair, final = run_jobs(store, jobs, self.processes)
        self.report({"event": "given", "bits": bits, "seed": seed, **final["test"]})
        row = {"format": kind, "rule": "given", "seed": seed, "bits": bits, "met": True, **outcome(store, base, fair, final)}
        return _put(self.scaling, row, (*_SCALED, "bits"))

    def facts(self) -> dict[str, Any]:
        """Return what identifies the experiment."""
        return {"plan": asdict(self.plan), "setting": asdict(self.setting), "seeds": self.seeds}
