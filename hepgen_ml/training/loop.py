"""The training loop."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from hepgen_ml.config import TrainingConfig
from hepgen_ml.errors import ModelError, SampleError
from hepgen_ml.files import documents
from hepgen_ml.files.outputs import write_text
from hepgen_ml.files.tensors import load_tensors, save_tensors
from hepgen_ml.models.base import weighted_mean
from hepgen_ml.models.surrogate import Surrogate
from hepgen_ml.networks.bayesian import variational_layers
from hepgen_ml.process.encoded import Discrete, Encoded
from hepgen_ml.training.batches import Batches
from hepgen_ml.training.checkpoint import CheckpointDocument
from hepgen_ml.training.data import Progress
from hepgen_ml.training.interruption import Interruptions
from hepgen_ml.training.schedule import LearningRate

log = logging.getLogger(__name__)


class EventWeights(Protocol):
    """Factors to the weights of events that change from round to round of a training."""

    n_rounds: int

    def start(self, number: int) -> float:
        """Fraction of the training at which a round begins; infinite after the last."""
        ...

    def weights(self, number: int) -> tuple[Tensor, Tensor]:
        """Factors (m,) of training and of validation events."""
        ...


CHECKPOINT = "checkpoint.safetensors"
HISTORY = "history.csv"
HISTORY_COLUMNS = (
    "step",
    "seconds",
    "learning_rate",
    "train_loss",
    "validation_loss",
    "validation_head_loss",
    "events_per_second",
)

PARTS = ("density", "heads")
"""What a surrogate is made of; they share no weights."""

_AVERAGED = {"density": 1 / 3, "heads": 1 / 9}
"""Averaged weights are those of this part of the steps so far. A long average keeps densities
from over-fitting; heads, which learn for longer, it would hold back."""

_PASSES, _STEPS = 2, 25
"""A validation comes after so many passes at the latest, but not before so many steps: networks
over-fit small samples within few of them."""

_WIDTH_RATE = 10.0
"""Learning rate of the logarithms of posterior variances over that of weights: they have to move
by several units where weights move by tenths."""


class Trainer:
    """Trains a surrogate; can stop at any moment and go on later.

    Parameters
    ----------
    surrogate : Surrogate
        With its standardisation fitted.
    train, validation : Encoded
    config : TrainingConfig
    n_events : int, optional
        Independent events in `train`, which Bayesian models weigh against their prior; by
        default all of them.
    rate : (m,) tensor, optional
        How often training events are drawn, see `hepgen_ml.training.data.draw_rates`.
    seed : int
    directory : Path
        For checkpoint and history.
    device : torch.device
    progress : callable, optional
    """

    def __init__(
        self,
        surrogate: Surrogate,
        train: Encoded,
        validation: Encoded,
        config: TrainingConfig,
        *,
        n_events: int | None = None,
        rate: Tensor | None = None,
        seed: int,
        directory: Path,
        device: torch.device,
        progress: Progress | None = None,
    ) -> None:
        self.surrogate = surrogate.to(device)
        surrogate.density.n_training = n_events or len(train)
        self.config, self.seed, self.device = config, seed, device
        self.checkpoint = directory / CHECKPOINT
        self.history = directory / HISTORY
        self.progress = progress or (lambda *_: None)
        self.batch_size = min(config.batch_size, len(train))
        passes = _PASSES * len(train) // self.batch_size
        self.interval = min(config.validation_interval, max(passes, _STEPS))
        self.train = Batches(surrogate, train, device, rate)
        self.validation = Batches(surrogate, validation, device)
        self.parameters = dict(surrogate.named_parameters())
        # The heads of some processes have nothing to learn.
        self.names = {
            part: names
            for part in PARTS
            if (names := [n for n in self.parameters if n.startswith(f"{part}.")])
        }
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.best = {name: p.clone() for name, p in self.average.items()}
        # Each has its own learning rate and is kept at its own best.
        steps = min(config.max_steps, config.max_epochs * len(train) / self.batch_size)
        self.rates = {part: LearningRate(config, steps) for part in PARTS}
        # Posteriors go on widening when the loss of their means has stopped falling.
        is_bayesian = bool(variational_layers(surrogate))
        self._may_stop_early = surrogate.density.early_stopping and not is_bayesian
        self.optimizer = torch.optim.AdamW(
            self._groups(), lr=config.learning_rate, betas=(0.9, 0.99), foreach=True
        )
        self.step, self.seconds = 0, 0.0
        self.refinement: EventWeights | None = None
        self._round = 0
        self._rows: list[dict[str, float]] = []
        self._consistent = True  # not within a step: what can be saved can be resumed

    def _groups(self) -> list[dict[str, Any]]:
        """Weight decay on matrices only, and not where a prior does its work."""
        layers = variational_layers(self.surrogate)
        prior = {id(p) for layer in layers for p in layer.parameters()}
        widths = {id(layer.log_variance) for layer in layers}
        decay = self.config.weight_decay
        groups: list[dict[str, Any]] = []
        for part, names in self.names.items():
            settings: tuple[dict[str, Any], ...] = (
                {"weight_decay": decay}, {"weight_decay": 0.0},
                {"weight_decay": 0.0, "rate": _WIDTH_RATE},
            )  # fmt: skip
            kinds: list[dict[str, Any]] = [{"params": [], "part": part, **s} for s in settings]
            for name in names:
                p = self.parameters[name]
                matrix = p.ndim >= 2 and "bias" not in name and id(p) not in prior
                kinds[2 if id(p) in widths else 0 if matrix else 1]["params"].append(p)
            groups += kinds
        return [group for group in groups if group["params"]]

    @property
    def best_loss(self) -> float:
        """Smallest validation losses of density and heads, summed."""
        return sum(rate.progress.best for rate in self.rates.values())

    @property
    def done(self) -> float:
        """Fraction of the training that is over, by steps, passes or time: the furthest counts."""
        epochs = self.step * self.batch_size / len(self.train)
        return max(
            self.step / self.config.max_steps,
            epochs / self.config.max_epochs,
            self.seconds / self.config.max_time,
        )

    @property
    def end(self) -> float:
        """What `done` will be when no part learns any more."""
        return max(self.rates[part].end for part in self.names)

    def resume(self) -> bool:
        """Take up the state of an earlier run; False if it left none."""
        if not self.checkpoint.exists():
            return False
        tensors, document = load_tensors(self.checkpoint, infinite=True)
        try:
            state = CheckpointDocument.model_validate(document)
            self._check(tensors)
            with torch.no_grad():
                for name, p in self.parameters.items():
                    p.copy_(tensors[f"parameter/{name}"])
                    self.average[name].copy_(tensors[f"average/{name}"])
                    self.best[name].copy_(tensors[f"best/{name}"])
                    self.optimizer.state[p] = {
                        # Heads learn nothing in steps without events for them.
                        "step": tensors.get(f"steps/{name}", torch.tensor(float(state.step))),
                        "exp_avg": tensors[f"first/{name}"].to(self.device),
                        "exp_avg_sq": tensors[f"second/{name}"].to(self.device),
                    }
            for name, data in (("train", self.train), ("validation", self.validation)):
                data.factor.copy_(tensors[f"factor/{name}"])
            self._round, self.step, self.seconds = state.round, state.step, state.seconds
            # The plan may be another one now.
            scale = self.done / state.done if state.done > 0 else 1.0
            for part, rate in self.rates.items():
                rate.restore(state.rates[part].model_dump(), scale)
            self._rows = [
                {k: math.nan if v is None else v for k, v in row.model_dump().items()}
                for row in state.history
            ]
        except documents.UNUSABLE as error:
            raise ModelError(
                f"does not fit this training: {documents.problem(error)}",
                path=self.checkpoint,
                remedy="resume with the configuration it was begun with, or start with --force",
            ) from None
        self._write_history()
        return True

    def _check(self, tensors: Mapping[str, Tensor]) -> None:
        """Raise KeyError or ValueError unless the tensors of a checkpoint are of this training."""
        expected: dict[str, Tensor] = {
            f"{kind}/{name}": p
            for kind in ("parameter", "average", "best", "first", "second")
            for name, p in self.parameters.items()
        }
        expected |= {"factor/train": self.train.factor, "factor/validation": self.validation.factor}
        expected |= {n: torch.tensor(0.0) for n in tensors if n.startswith("steps/")}
        for name, like in expected.items():
            if tensors[name].shape != like.shape or not bool(tensors[name].isfinite().all()):
                raise ValueError(f"{name} has another shape, or values that are no finite numbers")

    def save(self) -> None:
        """Write the checkpoint."""
        tensors: dict[str, Tensor] = {}
        for name, p in self.parameters.items():
            tensors[f"parameter/{name}"] = p
            tensors[f"average/{name}"] = self.average[name]
            tensors[f"best/{name}"] = self.best[name]
            state = self.optimizer.state.get(p, {})
            tensors[f"first/{name}"] = state.get("exp_avg", torch.zeros_like(p))
            tensors[f"second/{name}"] = state.get("exp_avg_sq", torch.zeros_like(p))
            tensors[f"steps/{name}"] = torch.as_tensor(float(state.get("step", 0.0)))
        tensors |= {"factor/train": self.train.factor, "factor/validation": self.validation.factor}
        state = {
            "round": self._round,
            "step": self.step,
            "seconds": self.seconds,
            "done": self.done,
            "rates": {part: _finite(rate.state()) for part, rate in self.rates.items()},
            "history": [_finite(row) for row in self._rows],
        }
        save_tensors(self.checkpoint, tensors, state)

    def run(self) -> None:
        """Train until steps or time are used up; the best averaged weights are then in place."""
        with Interruptions() as may_stop:
            try:
                self._steps(may_stop)
            finally:
                if self._consistent:
                    self.save()
        self.use_best()

    def _steps(self, may_stop: Callable[[], None]) -> None:
        began = saved = told = time.monotonic()
        before = self.seconds
        recent: list[float] = []
        mark = (began, self.step)
        while self.done < self.end:
            self._consistent = False
            if self.refinement and self.done >= self.refinement.start(self._round):
                self._refine(self.refinement)
            loss = self._one_step()
            recent.append(loss)
            self.step += 1
            now = time.monotonic()
            self.seconds = before + now - began
            rate = (self.step - mark[1]) * self.batch_size / max(now - mark[0], 1e-9)
            if self.step % self.interval == 0:
                self._validate(float(np.mean(recent)), now - mark[0], self.step - mark[1])
                recent, mark = [], (time.monotonic(), self.step)
            self._consistent = True
            may_stop()
            # Last, because whoever is told may stop here: no validation is to be left out.
            if now - told > 0.5:
                told = now
                info = {"step": float(self.step), "loss": loss, "events_per_s": rate}
                if math.isfinite(self.best_loss):
                    info["val"] = self.best_loss
                self.progress("train", min(self.done / self.end, 1.0), 1.0, info)
            if time.monotonic() - saved > self.config.checkpoint_interval:
                self.save()
                saved = time.monotonic()
            self.seconds = before + time.monotonic() - began
        if not self._rows or self._rows[-1]["step"] != self.step:
            self._consistent = False
            now = time.monotonic()
            mean = float(np.mean(recent)) if recent else math.nan
            self._validate(mean, now - mark[0], self.step - mark[1])
            self._consistent = True

    def use_best(self) -> None:
        """Put the best averaged weights into the surrogate ."""
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(self.best[name])

    def _one_step(self) -> float:
        # What a loss draws is a function of seed and step, so that a resumed run is the same.
        torch.manual_seed((self.seed * 1_000_003 + self.step) % 2**63)
        for group in self.optimizer.param_groups:
            rate = self.rates[group["part"]](self.step, self.done)
            group["lr"] = rate * group.get("rate", 1.0)
        i = self.train.indices(self.step, self.batch_size, self.seed)
        self.surrogate.density.progress = self.done
        running = [part for part in self.names if not self.rates[part].finished(self.done)]
        loss = torch.stack([self._loss(part, self.train, i) for part in running]).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(
            list(self.parameters.values()), self.config.clip, foreach=True
        )
        value = float(loss.detach())
        if math.isfinite(value) and bool(torch.isfinite(norm)):
            self.optimizer.step()
            self._bad_steps = 0
        else:
            # A single bad step is left out; a run of them means that training has diverged.
            self._bad_steps = getattr(self, "_bad_steps", 0) + 1
            if self._bad_steps > 50:
                raise SampleError(
                    f"training diverged at step {self.step}",
                    remedy="try --set training.learning_rate=5e-4",
                )
        with torch.no_grad():
            for part, names in self.names.items():
                steps = 1 + self.step
                decay = min(self.config.ema, steps / (steps + 1 / _AVERAGED[part]))
                torch._foreach_lerp_(
                    [self.average[name] for name in names],
                    [self.parameters[name] for name in names],
                    1 - decay,
                )
        return value

    def _loss(self, part: str, data: Batches, i: Tensor) -> Tensor:
        """Loss of the density or the heads on some events."""
        z, subprocess = data.z[i], data.subprocess[i]
        weight = data.drawn_weight[i]
        if part == "density":
            return self.surrogate.density.loss(z, subprocess, weight * data.factor[i])
        d = data.discrete
        discrete = Discrete(d.pattern[i], d.branch[i], d.free[i])
        log_p = self.surrogate.heads.log_prob(z, data.invariants[i], subprocess, discrete)
        return weighted_mean(-log_p, weight)

    def _refine(self, refinement: EventWeights) -> None:
        """Next round of classifier weights, against the averaged weights as they are."""
        with self._averaged():
            factors = refinement.weights(self._round)
        self._round += 1
        for data, factor in zip((self.train, self.validation), factors, strict=True):
            data.factor = factor.to(data.weight)
        self.rates["density"].forget()

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Averaged weights in place, without noise."""
        current = {name: p.detach().clone() for name, p in self.parameters.items()}
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(self.average[name])
        self.surrogate.eval()
        try:
            yield
        finally:
            self.surrogate.train()
            with torch.no_grad():
                for name, p in self.parameters.items():
                    p.copy_(current[name])

    @torch.no_grad()
    def _validate(self, train_loss: float, seconds: float, steps: int) -> None:
        """Loss of the averaged weights on the held-out events; remember the best.

        Of variational weights these are the averaged means, without noise and prior.
        """
        n = len(self.validation)
        losses = dict.fromkeys(PARTS, 0.0)
        with self._averaged():
            for start in range(0, n, 4096):
                i = torch.arange(start, min(start + 4096, n), device=self.device)
                for part in PARTS:
                    losses[part] += float(self._loss(part, self.validation, i)) * len(i) / n
        for part, rate in self.rates.items():
            if rate.is_best(losses[part]):
                self._copy(part, self.average, self.best)
        density, heads = losses["density"], losses["heads"]
        row = {
            "step": float(self.step),
            "seconds": self.seconds,
            "learning_rate": self.rates["density"](self.step, self.done),
            "train_loss": train_loss,
            "validation_loss": density,
            "validation_head_loss": heads,
            "events_per_second": steps * self.batch_size / max(seconds, 1e-9),
        }
        self._rows.append(row)
        self._write_history()
        log.info(
            "step %d: training loss %.4f, validation loss %.4f + %.4f, %.0f events/s",
            self.step, train_loss, density, heads, row["events_per_second"],
        )  # fmt: skip
        for part, rate in self.rates.items():
            if self._may_end(part) and rate.falls_early(self.step, self.done):
                log.info("%s: back to the best weights, with a falling learning rate", part)
                self._copy(part, self.best, self.average)
                self._copy(part, self.best, self.parameters)

    def _may_end(self, part: str) -> bool:
        """Whether what a part is trained on stays as it is now."""
        if part == "heads":
            return True
        rounds = self.refinement.n_rounds if self.refinement else 0
        return self._round >= rounds and self._may_stop_early

    @torch.no_grad()
    def _copy(self, part: str, source: dict[str, Any], target: dict[str, Any]) -> None:
        """Weights of one part."""
        for name in self.names.get(part, ()):
            target[name].copy_(source[name])

    def _write_history(self) -> None:
        lines = [",".join(HISTORY_COLUMNS)]
        lines += [",".join(f"{row[name]:.8g}" for name in HISTORY_COLUMNS) for row in self._rows]
        write_text(self.history, "\n".join(lines) + "\n")


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """Null for numbers that are not known: JSON has neither nan nor infinity."""
    return {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()
    }
