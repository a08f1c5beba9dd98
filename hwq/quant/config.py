"""The recipe of a training run: a TOML file with every choice, checked, nothing unknown accepted."""

import tomllib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..errors import EnvironmentError_, ModelError

__all__ = ["Phase", "Penalty", "Recipe", "read_recipe", "recipe_text"]


@dataclass(frozen=True)
class Phase:
    """How one phase trains.

    Attributes
    ----------
    epochs, batch : int
        Passes over the data; images a step.
    lr, momentum, weight_decay : float
        Highest learning rate (cosine schedule down to 0 after a warm-up of 5 %); for SGD; decoupled for AdamW.
    optimizer : str
        ``"sgd"`` (with Nesterov momentum) or ``"adamw"``.
    label_smoothing : float
        0..1, of the cross-entropy.
    flip, shift : bool, int
        Augmentation: mirror left-right half of the images; move by up to so many pixels.
    calibrate_until : int
        Fine-tuning only: scales follow the weights at the start of the first so many epochs, then they freeze.
    teacher_weight, temperature : float
        Fine-tuning only: share of the loss that compares with the teacher's answers (0: none), and its temperature.
    """

    epochs: int = 10
    batch: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    optimizer: str = "sgd"
    label_smoothing: float = 0.0
    flip: bool = False
    shift: int = 0
    calibrate_until: int = 2
    teacher_weight: float = 0.0
    temperature: float = 2.0


@dataclass(frozen=True)
class Penalty:
    """Quantization regularizer of the fine-tuning, see `hwq.quant.penalty`.

    Attributes
    ----------
    kind : str
        ``"none"``, ``"qr"`` or ``"wqr"``.
    strength : float
        Factor of the term when the schedule is at its height.
    norm : int
        Power of the distance, 1 or 2.
    normalize : str
        ``"sum"`` over all weights, ``"mean"`` over all, or ``"layer"``: the sum of the layers' means.
    schedule : str
        ``"constant"``, ``"linear"``, ``"exponential"`` or ``"cosine"``, growing over the phase.
    proximal : bool
        A proximal step behind the optimizer's instead of a term of the loss.
    forward : str
        ``"levels"``: training sees quantized weights (straight-through); ``"float"``: it sees float weights, which the
        penalty alone draws to their levels, and which are projected at the end.
    """

    kind: str = "none"
    strength: float = 1e-4
    norm: int = 1
    normalize: str = "sum"
    schedule: str = "linear"
    proximal: bool = False
    forward: str = "levels"

    def __post_init__(self) -> None:
        accepted = {"kind": ("none", "qr", "wqr"), "norm": (1, 2), "normalize": ("sum", "mean", "layer"),
                    "schedule": ("constant", "linear", "exponential", "cosine"), "forward": ("levels", "float")}
        for key, choices in accepted.items():
            if getattr(self, key) not in choices:
                raise ModelError(f"Penalty: {key} must be one of {', '.join(map(str, choices))}, not {getattr(self, key)!r}")
        if not 0 <= self.strength < 1e6:
            raise ModelError(f"Penalty: strength must be a number from 0, not {self.strength!r}")


@dataclass(frozen=True)
class Recipe:
    """All choices of a run.

    Attributes
    ----------
    weights, activations : dict of pattern to spec
        See `hwq.quant.prepare`.
    input_bits, mult_bits : int
        See there.
    batchnorm : str
        ``"fold"`` or ``"keep"``.
    validation : int
        Images of the training set that choose the best epoch and are not trained on.
    calibration : int
        Images of the rest that calibrate the activations.
    teacher : str
        ``pkg.mod:factory`` of a larger float network, or empty: the float network itself teaches.
    float_phase, tune, teacher_phase : Phase
        ``[float]``, ``[tune]`` and ``[teacher_training]``; ``epochs = 0`` leaves one out.
    penalty : Penalty
        ``[penalty]``, of the fine-tuning.
    """

    weights: dict[str, str] = field(default_factory=lambda: {"*": "dfp:b=4"})
    activations: dict[str, str] = field(default_factory=lambda: {"*": "dfp:b=4"})
    input_bits: int = 8
    mult_bits: int = 10
    batchnorm: str = "fold"
    validation: int = 5000
    calibration: int = 512
    teacher: str = ""
    float_phase: Phase = Phase(epochs=15)
    tune: Phase = Phase(lr=0.02, weight_decay=1e-4)
    teacher_phase: Phase = Phase(epochs=15)
    penalty: Penalty = Penalty()


_TABLES = {"float": "float_phase", "tune": "tune", "teacher_training": "teacher_phase"}


def _typed(name: str, value: Any, like: Any) -> Any:
    if isinstance(like, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(like):
        raise ModelError(f"Config: {name} must be of the type {type(like).__name__}, not {value!r}")
    return value


def _positive(phase: Phase, table: str) -> Phase:
    if phase.epochs < 0 or phase.batch < 1 or not 0 < phase.lr < 1e3 or phase.optimizer not in ("sgd", "adamw"):
        raise ModelError(f"Config [{table}]: needs epochs >= 0, batch >= 1, lr > 0 and optimizer 'sgd' or 'adamw'; found {phase}")
    if not 0 <= phase.label_smoothing < 1 or phase.shift < 0 or not 0 <= phase.teacher_weight <= 1 or phase.temperature <= 0:
        raise ModelError(f"Config [{table}]: needs label_smoothing in 0..1, shift >= 0, teacher_weight in 0..1 and "
                         f"temperature > 0; found {phase}")
    return phase


def _table(data: Any, base: Any, table: str) -> dict[str, Any]:
    """Return the fields of ``base`` with those in ``data`` replaced."""
    if not isinstance(data, dict):
        raise ModelError(f"Config: [{table}] must be a table, not {data!r}")
    known = {f.name: getattr(base, f.name) for f in fields(base)}
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise ModelError(f"Config: unknown key {', '.join(unknown)} in [{table}]; known: {', '.join(known)}")
    return {**known, **{key: _typed(f"{table}.{key}", value, known[key]) for key, value in data.items()}}


def _specs(value: Any, name: str) -> dict[str, str]:
    if isinstance(value, str):
        value = {"*": value}
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise ModelError(f"Config: {name} must be a format such as \"dfp:b=4\", or a table of layer patterns and "
                         f"formats, not {value!r}")
    return dict(value)


def read_recipe(text: str, origin: str | Path = "config") -> Recipe:
    """Return the recipe in a TOML text.

    Raises
    ------
    ModelError
        Not TOML, an unknown key, a wrong type or value; the message names it and what is known.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ModelError(f"{origin} is no sound TOML: {error}") from None
    base = Recipe()
    plain = ("input_bits", "mult_bits", "batchnorm", "validation", "calibration", "teacher")
    known = [*plain, "weights", "activations", *_TABLES, "penalty"]
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise ModelError(f"{origin}: unknown key {', '.join(unknown)}; known: {', '.join(known)}")
    values: dict[str, Any] = {key: _typed(key, data[key], getattr(base, key)) for key in plain if key in data}
    for key in ("weights", "activations"):
        if key in data:
            values[key] = _specs(data[key], key)
    for table, attribute in _TABLES.items():
        if table in data:
            values[attribute] = _positive(Phase(**_table(data[table], getattr(base, attribute), table)), table)
    if "penalty" in data:
        values["penalty"] = Penalty(**_table(data["penalty"], base.penalty, "penalty"))
    recipe = Recipe(**values)
    if recipe.batchnorm not in ("fold", "keep") or recipe.validation < 1 or recipe.calibration < 1:
        raise ModelError(f"{origin}: needs batchnorm 'fold' or 'keep', validation >= 1 and calibration >= 1")
    return recipe


def recipe_text(recipe: Recipe) -> str:
    """Return the TOML text that `read_recipe` reads back as this recipe.

    Raises
    ------
    EnvironmentError_
        tomli-w is missing (extra ``train``).
    """
    try:
        import tomli_w
    except ImportError:
        raise EnvironmentError_("Writing a recipe needs tomli-w: pip install 'hwq[train]'") from None
    data = asdict(recipe)
    for table, attribute in _TABLES.items():
        data[table] = data.pop(attribute)
    return tomli_w.dumps(data)
