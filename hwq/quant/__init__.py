"""Quantization-aware training in torch: prepare a network, calibrate, fine-tune, freeze; one method a file."""

from .calibration import calibrate, freeze
from .checkpoint import load_checkpoint, load_weights, save_checkpoint
from .config import Penalty, Phase, Recipe, read_recipe
from .inputs import InputSpec
from .model import QuantizedModel
from .penalty import LevelPenalty, ProximalPenalty, make_penalty, project
from .prepare import prepare
from .train import Samples, accuracy, fit
from .tune import tune

__all__ = ["prepare", "calibrate", "freeze", "InputSpec", "QuantizedModel", "fit", "tune", "Samples", "accuracy", "Phase",
           "Penalty", "LevelPenalty", "ProximalPenalty", "make_penalty", "project", "Recipe",
           "read_recipe", "load_weights", "load_checkpoint", "save_checkpoint"]
