"""Jobs in a folder: trainings that run once, resume after an interruption, and give their network back.

A job's key is the hash of all that; a job whose result lies in the folder is not run again, one that was interrupted goes
on after its last whole epoch. Jobs know nothing of each other but their base, whose weights they start from.
"""

import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..errors import FormatError, ModelError
from ..files import write_atomic
from ..frontend import convert
from ..plan import device as find_device
from ..quant import (
    InputSpec,
    QuantizedModel,
    Samples,
    fit,
    load_weights,
    prepare,
    save_checkpoint,
    tune,
)
from ..quant.activations import float_activations
from ..quant.ends import on_logits
from ..quant.factory import make_network
from .cost import block_rams, stored_bits
from .jobs import Job, Setting, parts_of, test_images

__all__ = ["Store"]


def _fast(model: nn.Module) -> nn.Module:
    """Return the model with its weights channels last: a third less time on one core."""
    return model.to(memory_format=torch.channels_last)                    # type: ignore[call-overload,no-any-return]


@torch.no_grad()
def _logits(model: nn.Module, inputs: torch.Tensor, device: str) -> torch.Tensor:
    return torch.cat([model(batch.to(device)).cpu() for batch in inputs.split(500)]).flatten(1)


def _score(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    return {"accuracy": float((logits.argmax(1) == labels).double().mean()),
            "cross_entropy": float(F.cross_entropy(logits.double(), labels))}


class Store:
    """The folder of an experiment's jobs.

    Parameters
    ----------
    setting : Setting
    folder : path
        Made if need be; every job has a folder of its name below.
    """

    def __init__(self, setting: Setting, folder: Path) -> None:
        self.setting, self.folder = setting, folder
        folder.mkdir(parents=True, exist_ok=True)

    def key(self, job: Job) -> str:
        """Return the job's name: a hash of all that decides its outcome."""
        text = json.dumps([asdict(self.setting), {**asdict(job), "score": None}], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def result(self, job: Job) -> dict[str, Any] | None:
        """Return the result of a job that is finished and scored on all its parts, else None."""
        done = self._saved(job)
        return done if done is not None and all(part in done for part in job.score) else None

    def _saved(self, job: Job) -> dict[str, Any] | None:
        path = self.folder / self.key(job) / "result.json"
        try:
            return json.loads(path.read_text()) if path.exists() else None
        except (OSError, ValueError) as error:
            raise FormatError(f"{path} is damaged ({error}); delete its folder, the job is then run again") from None

    def answers(self, key: str, part: str) -> np.ndarray:
        """Return a finished job's classes for the images of a part."""
        with np.load(self.folder / key / "answers.npz", allow_pickle=False) as file:
            return file[part]

    def labels(self, part: str) -> np.ndarray:
        """Return the right classes of a part's images."""
        if part == "test":
            return test_images(self.setting)[1].numpy()
        parts = parts_of(self.setting)
        return parts.labels[getattr(parts, part)].numpy()

    def model(self, key: str) -> nn.Module:
        """Return the network that a finished job trained, in eval mode."""
        saved = self._finished(key)
        network = make_network(self.setting.factory)
        made = network if saved["weights"] is None else self._prepare(network, saved["weights"])
        load_weights(made, self.folder / key / "state.pt")
        return made.eval()

    def _logits(self, model: nn.Module) -> nn.Module:
        """Return a network that gives logits, whatever it ends in."""
        return model if isinstance(model, QuantizedModel) else on_logits(model, parts_of(self.setting).inputs[:2])

    def _finished(self, key: str) -> dict[str, Any]:
        """Return what a finished job was to do."""
        try:
            return json.loads((self.folder / key / "job.json").read_text())
        except (OSError, ValueError) as error:
            raise FormatError(f"{self.folder / key} holds no finished job: {error}") from None

    def _root(self, key: str) -> str:
        """Return the float network that a job's chain of bases begins with."""
        while base := self._finished(key)["base"]:
            key = base
        return key

    def _prepare(self, network: nn.Module, weights: dict[str, str]) -> QuantizedModel:
        setting, example = self.setting, parts_of(self.setting).inputs[:2]
        return prepare(network.eval(), example, weights, activations=setting.activations, input=InputSpec(setting.input_bits),
                       batchnorm=setting.batchnorm, mult_bits=setting.mult_bits)

    def _start(self, job: Job) -> nn.Module:
        """Return the network to train: the base's, in the job's formats."""
        torch.manual_seed(job.seed)
        base = self.model(job.base) if job.base else make_network(self.setting.factory)
        if job.weights is None:
            if isinstance(base, QuantizedModel):
                raise ModelError("A float job cannot start from a quantized one")
            return base
        if not isinstance(base, QuantizedModel):
            return self._prepare(base, job.weights)
        model = self._prepare(make_network(self.setting.factory), job.weights)
        state = {name: value for name, value in base.state_dict().items()
                 if ".quantizer." not in name and ".activation." not in name and name != "frozen"}
        model.load_state_dict(state, strict=False)
        for stage in model.weighted:
            stage.quantizer.choose(stage.weight)
        return model

    def run(self, job: Job) -> dict[str, Any]:
        """Run a job, or return what it gave.

        Returns
        -------
        dict
            ``key``, ``seconds``, a score for every part (``accuracy``, ``cross_entropy``), for quantized jobs also
            ``<part>_float_activations``, ``bits`` (of the weights) and ``stored_bits``, and maybe ``block_rams``.
        """
        done = self.result(job)
        if done is not None:
            return done
        threads = torch.get_num_threads()
        torch.set_num_threads(self.setting.threads)
        try:
            return self._run(job)
        finally:
            torch.set_num_threads(threads)

    def _run(self, job: Job) -> dict[str, Any]:
        key = self.key(job)
        folder = self.folder / key
        folder.mkdir(parents=True, exist_ok=True)
        result = self._saved(job)
        answers: dict[str, np.ndarray] = {}
        if result is None:
            started = time.monotonic()
            model, log = self._train(job, folder)
            result = {"key": key, "loss": [row["loss"] for row in log]}
            if isinstance(model, QuantizedModel):
                result |= self._costs(model)
            save_checkpoint(folder / "state.pt", {name: value.cpu() for name, value in model.state_dict().items()})
            write_atomic(folder / "job.json", json.dumps(asdict(job), indent=1).encode())
            result["seconds"] = round(time.monotonic() - started, 3)
        else:
            model = self.model(key)
            with np.load(folder / "answers.npz", allow_pickle=False) as file:
                answers = dict(file)
        for part in job.score:
            if part not in result:
                scores, answers[part] = self._scores(model.to(self.setting.device), part)
                result |= scores
        write_atomic(folder / "answers.npz", lambda stream: np.savez_compressed(stream, **answers))      # type: ignore[arg-type]
        write_atomic(folder / "result.json", json.dumps(result, indent=1).encode())
        (folder / "epoch.pt").unlink(missing_ok=True)
        return result

    def _train(self, job: Job, folder: Path) -> tuple[nn.Module, list[dict[str, Any]]]:
        """Return the trained network on the CPU, in eval mode, and the log."""
        parts, device = parts_of(self.setting), self.setting.device
        model = _fast(self._logits(self._start(job)))
        train = torch.cat([parts.train, parts.search]) if job.all_data else parts.train
        samples = Samples(parts.inputs, parts.labels, train, train[:0])
        options: dict[str, Any] = {"seed": job.seed, "device": device, "checkpoint": folder / "epoch.pt", "resume": True}
        if job.phase.teacher_weight > 0 and job.base:
            options["teacher"] = _fast(self._logits(self.model(self._root(job.base))))
        log: list[dict[str, Any]] = []
        if isinstance(model, QuantizedModel):
            log = tune(model, samples, job.phase, penalty=job.penalty, calibration=self.setting.calibration, **options)
        elif self.setting.weights and not job.base:
            load_weights(model, self.setting.weights)
        else:
            log = fit(model, samples, job.phase, **options)
        return model.cpu().eval(), log

    def _scores(self, model: nn.Module, part: str) -> tuple[dict[str, Any], np.ndarray]:
        """Return the scores on a part, and the classes answered."""
        parts, device = parts_of(self.setting), self.setting.device
        inputs, labels = (test_images(self.setting) if part == "test" else
                          (parts.inputs[getattr(parts, part)], parts.labels[getattr(parts, part)]))
        logits = _logits(self._logits(model), inputs, device)
        scores = {part: _score(logits, labels)}
        if isinstance(model, QuantizedModel) and part == "test":
            with float_activations(model):
                scores[f"{part}_float_activations"] = _score(_logits(model, inputs, device), labels)
        return scores, logits.argmax(1).numpy().astype(np.uint8)

    def _costs(self, model: QuantizedModel) -> dict[str, Any]:
        graph = convert(model)
        costs: dict[str, Any] = {"stored_bits": stored_bits(graph), "layers": {
            stage.name: {"weights": stage.weight.numel(), "width": stage.quantizer.spec.width} for stage in model.weighted}}
        costs["bits"] = sum(layer["weights"] * layer["width"] for layer in costs["layers"].values())
        if self.setting.block_ram_device:
            costs["block_rams"] = block_rams(graph, find_device(self.setting.block_ram_device))
        return costs
