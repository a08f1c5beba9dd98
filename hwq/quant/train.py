"""The training loop of one phase: seeded, resumable to the bit, float or quantized alike."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import FormatError, ModelError
from . import parallel
from .augment import augment
from .checkpoint import load_checkpoint, save_checkpoint
from .config import Phase
from .model import QuantizedModel
from .penalty import LevelPenalty

__all__ = ["Samples", "fit", "accuracy"]


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs as torch is fed and their classes, split into training and validation by index.

    Attributes
    ----------
    inputs : float tensor (n, c, h, w)
        All images.
    labels : int tensor (n,)
        All classes.
    train, validation : int tensor
        Disjoint indices.
    """

    inputs: torch.Tensor
    labels: torch.Tensor
    train: torch.Tensor
    validation: torch.Tensor

    @staticmethod
    def split(inputs: torch.Tensor, labels: torch.Tensor, validation: int, seed: int) -> "Samples":
        """Return samples with ``validation`` images set aside at random.

        Raises
        ------
        ModelError
            That leaves fewer than one image to train on.
        """
        if not 0 <= validation < len(inputs):
            raise ModelError(f"validation = {validation} leaves none of the {len(inputs)} images to train on")
        order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))
        return Samples(inputs, labels, order[validation:], order[:validation])


@torch.no_grad()
def accuracy(model: nn.Module, samples: Samples, device: torch.device | str = "cpu", batch: int = 500) -> float:
    """Return the share of right answers on the validation images (0 without any), in eval mode; the mode is kept.

    Under torchrun every process answers its share, and all return the same.
    """
    training = model.training
    model.eval()
    try:
        right = sum(int((model(samples.inputs[i].to(device)).argmax(1).cpu() == samples.labels[i]).sum())
                    for i in samples.validation[parallel.rank()::parallel.size()].split(batch))
    finally:
        model.train(training)
    return int(parallel.total(right, device)) / max(1, len(samples.validation))


def _rate(phase: Phase, step: int, steps: int) -> float:
    warm = max(1, steps // 20)
    if step < warm:
        return phase.lr * (step + 1) / warm
    return phase.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _loss(phase: Phase, logits: torch.Tensor, labels: torch.Tensor, answers: torch.Tensor | None) -> torch.Tensor:
    loss = F.cross_entropy(logits, labels, label_smoothing=phase.label_smoothing)
    if answers is None:
        return loss
    t = phase.temperature
    distance = F.kl_div(F.log_softmax(logits / t, 1), F.softmax(answers / t, 1), reduction="batchmean") * t * t
    return (1 - phase.teacher_weight) * loss + phase.teacher_weight * distance


def _optimizer(model: nn.Module, phase: Phase) -> torch.optim.Optimizer:
    exponents = [p for name, p in model.named_parameters() if name.endswith("quantizer.exponent")]
    others = [p for name, p in model.named_parameters() if not name.endswith("quantizer.exponent")]
    groups = [{"params": others}] + ([{"params": exponents, "weight_decay": 0.0}] if exponents else [])
    if phase.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=phase.lr, weight_decay=phase.weight_decay)
    return torch.optim.SGD(groups, lr=phase.lr, momentum=phase.momentum, weight_decay=phase.weight_decay,
                           nesterov=phase.momentum > 0)


class _Loss(nn.Module):
    """Model and loss in one: what several processes share out, the penalty included."""

    def __init__(self, model: nn.Module, phase: Phase, penalty: Callable[[nn.Module], torch.Tensor] | None) -> None:
        super().__init__()
        self.model, self.phase, self.penalty = model, phase, penalty

    def forward(self, batch: torch.Tensor, labels: torch.Tensor, answers: torch.Tensor | None, share: float) -> torch.Tensor:
        loss = _loss(self.phase, self.model(batch), labels, answers) * share
        return loss if self.penalty is None else loss + self.penalty(self.model)


class _Run:
    """State of a phase between epochs, and its checkpoint."""

    def __init__(self, model: nn.Module, phase: Phase, seed: int, path: Path | None, device: torch.device | str) -> None:
        self.model, self.phase, self.path, self.device = model, phase, path, device
        self.optimizer = _optimizer(model, phase)
        self.generator = torch.Generator().manual_seed(seed)
        self.epoch, self.best = 0, -1.0
        self.best_state: dict[str, torch.Tensor] = {}
        self.log: list[dict[str, Any]] = []
        torch.manual_seed(seed + 1_000_003 * parallel.rank())    # dropout draws from the global generator, for other images each

    def save(self) -> None:
        states = parallel.random_states(self.device)
        if self.path is not None and parallel.lead():
            save_checkpoint(self.path, {
                "phase": asdict(self.phase), "epoch": self.epoch, "model": self.model.state_dict(), "log": self.log,
                "optimizer": self.optimizer.state_dict(), "generator": self.generator.get_state(),
                "random": states, "best": self.best, "best_model": self.best_state})

    def resume(self) -> None:
        """Go on from the checkpoint, which the first process reads; nothing happens where there is none."""
        there = self.path is not None and parallel.lead() and self.path.exists()
        state = parallel.from_lead(load_checkpoint(self.path) if there else None)         # type: ignore[arg-type]
        if state is None:
            return
        if not isinstance(state, dict) or state.get("phase") != asdict(self.phase):
            raise ModelError(f"{self.path} belongs to another recipe; resume with the same one, or train into an empty folder")
        try:
            if "random" not in state:                  # of a version without processes
                state["random"] = [{"cpu": state["torch"]}]
            if len(state["random"]) != parallel.size():
                raise ModelError(f"{self.path} was written by {len(state['random'])} processes, not {parallel.size()}, which would "
                                 "go on differently; resume with as many")
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.generator.set_state(state["generator"])
            parallel.set_random_states(state["random"], self.device)
            self.epoch, self.best, self.best_state, self.log = state["epoch"], state["best"], state["best_model"], state["log"]
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise FormatError(f"{self.path} does not fit this network: {str(error).splitlines()[0]}") from None


def fit(model: nn.Module, samples: Samples, phase: Phase, *, seed: int = 0, device: torch.device | str = "cpu",
        checkpoint: Path | None = None, resume: bool = False, teacher: nn.Module | None = None,
        penalty: Callable[[nn.Module], torch.Tensor] | None = None,
        before_epoch: Callable[[int], None] | None = None,
        report: Callable[[dict[str, Any]], None] = lambda row: None,
        progress: Callable[[int, int], None] = lambda done, total: None) -> list[dict[str, Any]]:
    """Train ``model`` in place for one phase; at the end it holds the weights of its best epoch.

    Best is the highest validation accuracy (ties: the later epoch; so the last one without validation images); of a quantized
    model, only epochs whose scales were fixed count. On the CPU a resumed run gives the same weights as an uninterrupted one, bit
    for bit.

    In several processes (`hwq.quant.parallel.team` under torchrun) each takes its share of every batch; order, augmentation and
    steps are those of one process, the mean gradient is it up to the order of summation. Batch norms see a process's share alone,
    dropout draws other masks. The first process alone writes the checkpoint.

    Parameters
    ----------
    checkpoint : path, optional
        Written after every epoch.
    resume : bool
        Go on from ``checkpoint`` if it exists.
    teacher : nn.Module, optional
        Its answers enter the loss with ``phase.teacher_weight``; not trained.
    penalty : model -> scalar tensor, optional
        Added to the loss: the place of regularizers. A `hwq.quant.penalty.LevelPenalty` also learns how far the phase is,
        and acts after every step.
    before_epoch : epoch -> None, optional
        Called with the number of the epoch that starts, from 0.
    report : row -> None, optional
        Called after every epoch with its line of the log.
    progress : (done, total) -> None, optional
        Called after every step with the steps of the phase.

    Returns
    -------
    list of dict
        A line an epoch: epoch, loss, accuracy (validation), seconds.

    Raises
    ------
    ModelError
        The loss became NaN or infinite, or the checkpoint belongs to another recipe.
    """
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    model.to(device)
    run = _Run(model, phase, seed, checkpoint, device)
    if resume:
        run.resume()
    parallel.same_everywhere(model)
    loss_of = parallel.wrap(_Loss(model, phase, penalty), device)
    batches = -(-len(samples.train) // phase.batch)
    answers = teacher.to(device).eval() if teacher is not None and phase.teacher_weight > 0 else None
    while run.epoch < phase.epochs:
        started = time.monotonic()
        if before_epoch is not None:
            before_epoch(run.epoch)
            parallel.same_everywhere(model)
        model.train()
        total = 0.0
        order = samples.train[torch.randperm(len(samples.train), generator=run.generator)]
        for step, index in enumerate(order.split(phase.batch)):
            rate = _rate(phase, run.epoch * batches + step, phase.epochs * batches)
            for group in run.optimizer.param_groups:
                group["lr"] = rate
            if isinstance(penalty, LevelPenalty):
                penalty.progress = (run.epoch * batches + step) / (phase.epochs * batches)
            batch = samples.inputs[index].to(device)
            if batch.ndim == 4:
                batch = augment(batch, phase.flip, phase.shift, run.generator)
            part, share = parallel.own_part(len(index))
            batch, labels = batch[part], samples.labels[index[part]].to(device)
            with torch.no_grad():
                given = answers(batch) if answers is not None else None
            loss = loss_of(batch, labels, given, share)
            run.optimizer.zero_grad()
            loss.backward()
            run.optimizer.step()
            if isinstance(penalty, LevelPenalty):
                penalty.after_step(model, rate)
            total += float(loss.detach())
            progress(run.epoch * batches + step + 1, phase.epochs * batches)
        total = parallel.total(total, device) / parallel.size()
        parallel.average_batchnorms(model)
        if not math.isfinite(total):
            raise ModelError(f"The loss became {total} in epoch {run.epoch + 1}: training diverged; lower lr ({phase.lr})")
        score = accuracy(model, samples, device)
        counts = not isinstance(model, QuantizedModel) or bool(model.frozen) or model.scales_fixed or run.epoch + 1 == phase.epochs
        if counts and score >= run.best:
            run.best, run.best_state = score, {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
        run.epoch += 1
        run.log.append({"epoch": run.epoch, "loss": total / batches, "accuracy": score, "seconds": time.monotonic() - started})
        run.save()
        report(run.log[-1])
    if run.best_state:
        model.load_state_dict(run.best_state)
    model.eval()
    return run.log
