"""Layer-wise precision scaling from beginning to end: float network, reference, search, final training, confirmation, test."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import FormatError, ModelError
from ..files import write_atomic
from ..formats import MAX_PO2_WIDTH, Spec, parse_spec
from ..frontend import require_convertible
from ..quant import QuantizedModel, Recipe, prepare
from ..quant.config import recipe_text
from ..quant.factory import make_network
from ..quant.patterns import assign
from ..quant.run import Run, check_outputs, save_run
from ..quant.tracing import trace
from .experiment import Store
from .jobs import Job, Setting, parts_of, shortened, test_images
from .log import Log
from .pool import run_jobs
from .rules import RULES, Found, Score, admissible, within
from .stats import paired_drop

__all__ = ["Options", "setting_of", "specs_of", "layer_specs", "with_bits", "outcome", "search"]

# of the first state that was not confirmed: the least that the next must be larger; then twice that, and so on
_BACK = 0.05


@dataclass(frozen=True)
class Options:
    """How to search.

    Attributes
    ----------
    rule : str
        A key of `hwq.search.rules.RULES`.
    allowed : float
        Accuracy drop, percentage points.
    start, least : int
        Widths to begin with (Po2 with 5 at most) and to end at.
    epochs : int
        Of every candidate's brief training, with the recipe's ``[tune]``.
    seed : int
        Of all trainings.
    rate : float
        Of every candidate's learning rate, as a factor on the recipe's: what is trained already should not be shaken.
    slack : float
        Standard errors of its paired drop by which a candidate may exceed the allowed drop on the search images: what may keep
        to it is accepted, and the confirmation images, which allow none, decide.
    """

    rule: str = "greedy"
    allowed: float = 0.10
    start: int = 8
    least: int = 2
    epochs: int = 1
    seed: int = 0
    rate: float = 1.0
    slack: float = 0.0

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ModelError(f"Unknown rule {self.rule!r}; known: {', '.join(RULES)}")
        if not 0 <= self.allowed < 100 or not 2 <= self.least <= self.start <= 16 or self.epochs < 0 or not 0 < self.rate <= 100 \
                or not 0 <= self.slack <= 10:
            raise ModelError("Search needs an allowed drop of 0..100 points, 2 <= least <= start <= 16 bits, epochs >= 0, 0 < rate "
                             f"<= 100 and a slack of 0..10; found {self}")


def setting_of(recipe: Recipe, factory: str, data: str, **more: Any) -> Setting:
    """Return what a recipe says that all jobs share."""
    return Setting(factory, data, activations=recipe.activations, input_bits=recipe.input_bits, mult_bits=recipe.mult_bits,
                   batchnorm=recipe.batchnorm, calibration=recipe.calibration, **more)


def specs_of(recipe: Recipe, layers: Sequence[str]) -> dict[str, Spec]:
    """Return each layer's format in the recipe: its kind, rule and the like; the search replaces the width."""
    return assign(layers, recipe.weights, "weights")


def with_bits(specs: dict[str, Spec], bits: dict[str, int]) -> dict[str, str]:
    """Return the text of each layer's format, with the width in ``bits`` where there is one."""
    return {layer: replace(spec, width=bits.get(layer, spec.width)).text for layer, spec in specs.items()}


class _Search:
    """State of one search: jobs, log, and the function that the rule calls."""

    def __init__(self, store: Store, recipe: Recipe, options: Options, specs: dict[str, Spec], log: Log,
                 processes: int | Executor) -> None:
        self.store, self.recipe, self.options, self.specs, self.log, self.processes = store, recipe, options, specs, log, processes
        self.tune = recipe.tune
        self.brief = shortened(replace(self.tune, lr=self.tune.lr * options.rate), options.epochs)
        self.reference, self.root, self._float = 0.0, "", ""

    def score(self, bits: dict[str, int], result: dict[str, Any]) -> Score:
        """Return a job's result as the rules see it."""
        split = result["search"]
        slack = self.options.slack and self.options.slack * _drop(self.store, self._float, result["key"], "search")[1] / 100
        return Score(bits, split["accuracy"], split["cross_entropy"], result.get("block_rams", result["bits"]),
                     result["bits"], result["key"], slack)

    def refer(self, result: dict[str, Any]) -> None:
        """Take the reference's result."""
        self.reference, self._float = result["search"]["accuracy"], result["key"]

    def evaluate(self, parent: Score, candidates: Sequence[dict[str, int]], how: str) -> list[Score]:
        """Score candidates for a rule, see `hwq.search.rules`, and log them."""
        phase = {"none": replace(self.brief, epochs=0), "brief": self.brief, "full": self.tune}[how]
        base = self.root if how == "full" else parent.key
        jobs = [Job(self.options.seed, phase, with_bits(self.specs, bits), base, self.recipe.penalty) for bits in candidates]
        bits_of = {self.store.key(job): bits for job, bits in zip(jobs, candidates, strict=True)}

        def note(job: Job, result: dict[str, Any]) -> None:
            score = self.score(bits_of[result["key"]], result)
            self.log.add({"event": "probe" if how == "none" else "candidate", "parent": base, "seed": self.options.seed,
                          "drop": round(100 * (self.reference - score.accuracy), 4), **asdict(score), "seconds": result["seconds"]})
        results = run_jobs(self.store, jobs, self.processes, note)
        return [self.score(bits, result) for bits, result in zip(candidates, results, strict=True)]

    def final(self, score: Score) -> Job:
        """Return the training of the network with a state's bits, on the search images too."""
        return Job(self.options.seed, self.tune, with_bits(self.specs, score.bits), self.root, self.recipe.penalty, True)

    @property
    def fair(self) -> Job:
        """The float network's."""
        return Job(self.options.seed, self.tune, None, self.root, all_data=True)

    def confirm(self, found: Found) -> "_Kept":
        """Return the rule's answer, or the smallest state before it that is confirmed.

        Confirmed is a state whose final training keeps to the allowed drop on the confirmation images too.

        A search takes the luckiest of many, so its answer may fail here: then it is the turn of the state on the way to it with
        at least `_BACK` more bits, then of one with twice as many more, down to the start: few steps, as every look at these
        images makes them less of a judge. A state that the rule never asked for must first be admissible on the search images.
        If none is confirmed, the one with the least drop is kept.
        """
        known = {tuple(score.bits.items()): score for score in found.accepted}
        tried: list[_Kept] = []
        least, step = 0.0, _BACK
        for bits, size in reversed(found.way):
            if size < least and bits != found.way[0][0]:
                continue
            accepted = known.get(tuple(bits.items()))
            score = accepted or self.evaluate(found.accepted[0], [bits], "full")[0]
            if accepted or admissible(score, self.reference, self.options.allowed / 100):
                tried.append(self._confirmed(score, tried))
                if tried[-1].confirmed:
                    return tried[-1]
            least, step = size * (1 + step), 2 * step
        return replace(min(tried, key=lambda kept: kept.drop[0]), tried=tried[-1].tried)

    def _confirmed(self, score: Score, before: Sequence["_Kept"]) -> "_Kept":
        jobs = [replace(job, score=("confirm",)) for job in (self.final(score), self.fair)]
        final, fair = run_jobs(self.store, jobs, self.processes)
        drop = _drop(self.store, fair["key"], final["key"], "confirm")
        confirmed = within(drop[0], self.options.allowed)
        self.log.add({"event": "confirmation", "bits": score.bits, "drop": drop[0], "error": drop[1], "confirmed": confirmed,
                      "key": final["key"], "seed": self.options.seed})
        return _Kept(score, drop, confirmed, [*(before[-1].tried if before else []), {"bits": score.bits, "drop": drop}])


@dataclass(frozen=True)
class _Kept:
    """A state with its drop on the confirmation images (and the standard error), and all that were tried up to it."""

    score: Score
    drop: tuple[float, float]
    confirmed: bool
    tried: list[dict[str, Any]]


def _claim(folder: Path, facts: dict[str, Any], resume: bool) -> None:
    path = folder / "search.json"
    if not path.exists():
        if folder.exists() and any(folder.iterdir()):
            raise ModelError(f"{folder} holds something that is no search; name another folder")
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(facts, indent=1, sort_keys=True).encode())
        return
    if not resume:
        raise ModelError(f"{folder} holds a search; go on with --resume, or name another folder")
    try:
        before = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise FormatError(f"{path} is damaged: {error}") from None
    differ = sorted(key for key in facts if json.loads(json.dumps(facts[key])) != before.get(key))
    if differ:
        raise ModelError(f"{folder} holds another search: {', '.join(differ)} differ; name another folder")


def search(setting: Setting, recipe: Recipe, options: Options, folder: Path, *, processes: int | Executor = 1, resume: bool = False,
           jobs: Path | None = None, report: Callable[[dict[str, Any]], None] = lambda row: None) -> dict[str, Any]:
    """Search the width of every layer and train the network found.

    Writes ``log.jsonl`` (every training as it ends), ``result.json``, and ``result/``, a training run that ``hwq lower`` takes.
    The reference is the float network given the same extra training; both final networks also train on the search images.
    A final network that the confirmation images do not confirm gives way to an earlier one with more bits; the test set is
    scored once, for the one that is kept.

    Parameters
    ----------
    folder : path
        Of the search; jobs lie in its ``jobs/``, or in ``jobs`` to share them with others of the same setting.
    processes : int or Executor
        Candidates trained side by side, or what runs them elsewhere: see `hwq.search.pool.run_jobs`.
    resume : bool
        Go on with an interrupted search.
    report : row -> None
        Called with every line of the log.

    Returns
    -------
    dict
        ``bits``, ``mean_bits``, ``ratio`` (32 / mean bits), ``drop`` on search, confirm and test with standard errors,
        ``met`` (whether the state kept met the allowed drop on the search images, within the slack), ``confirmed``,
        ``confirmations`` (what was tried, in order), costs, the path.
    """
    test_images(setting)                               # refuses now what it would refuse after hours
    specs_text = {layer: spec.text for layer, spec in layer_specs(setting, recipe).items()}
    _claim(folder, {"setting": asdict(setting), "recipe": asdict(recipe), "options": asdict(options), "specs": specs_text}, resume)
    store = Store(setting, jobs or folder / "jobs")
    log = Log(folder / "log.jsonl", report)
    specs = {layer: parse_spec(text) for layer, text in specs_text.items()}
    run = _Search(store, recipe, options, specs, log, processes)
    seed = options.seed
    base = store.run(Job(seed, recipe.float_phase))
    log.add({"event": "float", **base["search"], "key": base["key"], "seed": seed})
    reference = store.run(Job(seed, run.tune, base=base["key"]))
    run.refer(reference)
    log.add({"event": "reference", **reference["search"], "key": reference["key"], "seed": seed})
    start_bits = {layer: min(options.start, MAX_PO2_WIDTH) if spec.kind == "po2" else options.start
                  for layer, spec in specs.items() if spec.kind != "bipolar"}
    if not start_bits:
        raise ModelError("All layers are bipolar: there are no bits to search")
    run.root = base["key"]
    # As long as the reference: with a brief training every candidate would be blamed for the epochs that it lacks.
    start = run.evaluate(Score(start_bits, 0.0, 0.0, 0.0, 0.0), [start_bits], "full")[0]
    walk = RULES[options.rule](start, run.evaluate, reference=run.reference, allowed=options.allowed / 100, least=options.least)
    answer = walk.accepted[-1]
    log.add({"event": "found", "bits": answer.bits,
             "met": admissible(answer, run.reference, options.allowed / 100), "key": answer.key})
    kept = run.confirm(walk)
    found, met = kept.score, admissible(kept.score, run.reference, options.allowed / 100)
    final, fair = run_jobs(store, [replace(job, score=("confirm", "test")) for job in (run.final(found), run.fair)], processes)
    result = {
        "bits": found.bits, "met": met, **outcome(store, base["key"], fair, final),
        "search_drop": 100 * (run.reference - found.accuracy), "confirmed": kept.confirmed, "confirmations": kept.tried,
        "start_weight_bits": start.size, "path": [asdict(score) for score in walk.accepted], "seed": seed, "rule": options.rule,
    } | ({"block_rams": final["block_rams"], "start_block_rams": start.cost} if "block_rams" in final else {})
    write_atomic(folder / "result.json", json.dumps(result, indent=1).encode())
    model = store.model(final["key"])
    assert isinstance(model, QuantizedModel)
    text = recipe_text(replace(recipe, weights=with_bits(specs, found.bits)))
    parts = parts_of(setting)
    save_run(folder / "result", Run(setting.factory, seed, tuple(parts.inputs.shape[1:]), parts.data.classes, text), model,
             {"float": fair["confirm"]["accuracy"], "quantized": final["confirm"]["accuracy"],
              "validation_images": setting.confirm})
    log.add({"event": "done", "bits": found.bits, "ratio": result["ratio"], "confirm_drop": result["confirm_drop"],
             "test_drop": result["test_drop"]})
    return result


def outcome(store: Store, root: str, fair: dict[str, Any], final: dict[str, Any]) -> dict[str, Any]:
    """Return what a final network is worth against its reference; both are results of jobs scored on ``confirm`` and ``test``."""
    drops = {part: _drop(store, fair["key"], final["key"], part) for part in ("confirm", "test")}
    total = sum(layer["weights"] for layer in final["layers"].values())
    return {"mean_bits": final["bits"] / total, "ratio": 32 * total / final["bits"],
            "ratio_everything": 32 * _parameters(store, root) / final["stored_bits"], "weight_bits": final["bits"],
            "confirm_drop": drops["confirm"], "test_drop": drops["test"],
            "accuracy": {part: final[part]["accuracy"] for part in drops},
            "float_activations": final["test_float_activations"]["accuracy"],
            "reference": {part: fair[part]["accuracy"] for part in drops}}


def layer_specs(setting: Setting, recipe: Recipe) -> dict[str, Spec]:
    """Return the recipe's format of every layer with weights, in order.

    Raises
    ------
    ModelError
        What prepares or converts the network would refuse it, or its outputs are not the data's classes.
    """
    network, parts = make_network(setting.factory), parts_of(setting)
    inputs = parts.inputs[:2]
    model = prepare(network, inputs, recipe.weights, activations=recipe.activations, batchnorm=recipe.batchnorm)
    check_outputs(model, inputs[:1], parts.data)
    require_convertible(model)
    return specs_of(recipe, [op.name for op in trace(network, inputs) if op.kind in ("conv", "linear")])


def _parameters(store: Store, key: str) -> int:
    """Parameters of the float network, batch norms' included."""
    return sum(p.numel() for p in store.model(key).parameters())


def _drop(store: Store, reference: str, key: str, part: str) -> tuple[float, float]:
    return paired_drop(store.answers(reference, part), store.answers(key, part), store.labels(part))
