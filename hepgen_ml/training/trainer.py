"""The training loop, for surrogates, classifiers and any other task."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from hepgen_ml.config import TrainingConfig
from hepgen_ml.errors import SampleError
from hepgen_ml.events.source import Progress
from hepgen_ml.files import documents
from hepgen_ml.training import checkpoint
from hepgen_ml.training.averages import Averages
from hepgen_ml.training.batches import Order
from hepgen_ml.training.history import HISTORY, History
from hepgen_ml.training.interruption import Interruptions
from hepgen_ml.training.optimizer import parameter_groups
from hepgen_ml.training.ranks import ALONE, Ranks
from hepgen_ml.training.schedule import LearningRate
from hepgen_ml.training.task import Task

log = logging.getLogger(__name__)

_PASSES, _STEPS = 2, 25
"""Largest number of passes between validations, and smallest number of steps: networks overfit
small samples within few passes."""

_MOST_BAD = 50
"""Steps in a row without a finite loss after which a training has diverged."""

_LOST = 0.01
"""Fraction of such steps in a training above which there is a warning."""

_VALIDATION_BATCH = 4096

_STRIDE = 0x9E3779B97F4A7C15
"""Distance between the seeds of micro-batches, larger than any number of steps."""

SomeTask = TypeVar("SomeTask", bound=Task[Any])


class Trainer(Generic[SomeTask]):
    """Trains the module of a task; can stop at any time and be resumed.

    Parameters
    ----------
    task : Task
        Module, events and loss of the training.
    config : TrainingConfig
        Length of the training, optimiser, averages.
    seed : int
    directory : Path, optional
        Directory of checkpoint and history; without it the training cannot be resumed.
    progress : callable, optional
        Called with stage, done, total and a dict of numbers.
    ranks : Ranks, optional
        Processes that train the same module on the same events together. Only the first one
        writes and reports.

    Attributes
    ----------
    step : int
        Steps so far.
    seconds : float
        Time that they took.
    round : int
        How often the loss has changed so far, see `loss_changed`.
    """

    def __init__(
        self,
        task: SomeTask,
        config: TrainingConfig,
        *,
        seed: int,
        directory: Path | None = None,
        progress: Progress | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.task, self.config, self.seed, self.ranks = task, config, seed, ranks
        directory = directory if ranks.first else None
        self.checkpoint = None if directory is None else directory / checkpoint.CHECKPOINT
        losses = [part.loss_name for part in task.parts.values()]
        self.history = History(None if directory is None else directory / HISTORY, losses)
        self.progress = progress if progress and ranks.first else (lambda *_: None)
        self._told = time.monotonic()  # when progress was last reported
        n_events = len(task.train)
        self.batch_size = min(config.batch_size, n_events)
        self.n_pieces = ranks.pieces(config.accumulate)
        passes = _PASSES * n_events // self.batch_size
        self.interval = min(config.validation_interval, max(passes, _STEPS))
        self.order = Order(n_events, task.rate, task.device)
        ranks.align(list(task.module.state_dict().values()))
        self.parameters = dict(task.module.named_parameters())
        # Some parts have nothing to learn, such as the heads of some processes.
        self.names = {
            name: found
            for name, part in task.parts.items()
            if (found := [n for n in self.parameters if n.startswith(part.prefix)])
        }
        self.averages = Averages(self.parameters)
        # Each has its own learning rate and is kept at its own best.
        steps = min(config.max_steps, config.max_epochs * n_events / self.batch_size)
        self.rates = {part: LearningRate(config, steps) for part in task.parts}
        self.optimizer = torch.optim.AdamW(
            parameter_groups(task.module, self.names, config.weight_decay, task.learning_rate),
            lr=config.learning_rate, betas=(0.9, 0.99), foreach=True,
        )  # fmt: skip
        self.step, self.seconds, self.round = 0, 0.0, 0
        self._bad_steps, self._lost = 0, 0
        self._consistent = True  # not within a step, so that the state is consistent
        if config.compile:
            for module in task.module.modules():
                if getattr(module, "compiles", False):
                    module.compile()

    @property
    def best_loss(self) -> float:
        """Smallest validation losses of all parts, summed."""
        return sum(rate.progress.best for rate in self.rates.values())

    @property
    def passes(self) -> float:
        """Passes over the training events so far."""
        return self.step * self.batch_size / len(self.task.train)

    @property
    def done(self) -> float:
        """Completed fraction of the training: the largest of those of steps, passes and time."""
        return max(
            self.step / self.config.max_steps,
            self.passes / self.config.max_epochs,
            self.seconds / self.config.max_time,
        )

    @property
    def end(self) -> float:
        """Value of `done` at which all parts have ended."""
        return max(self.rates[part].end for part in self.names)

    def run(self, until: float = math.inf) -> None:
        """Train until steps or time are used up; the module then has the best averaged weights.

        Parameters
        ----------
        until : float
            Fraction of the training at which to pause, so that the loss can change; call it again
            to continue.
        """
        self.task.module.train()
        with Interruptions() as may_stop:
            try:
                self._steps(may_stop, until)
            finally:
                if self._consistent:
                    self.save()
        if self.done >= self.end:
            self.averages.finish(self.parameters)
            if self._lost > _LOST * self.step:
                log.warning(
                    "%d of %d training steps are lost: their loss or its gradient is not finite",
                    self._lost, self.step,
                )  # fmt: skip

    def loss_changed(self, part: str) -> None:
        """Declare that later validation losses of a part cannot be compared with earlier ones."""
        self.round += 1
        self.rates[part].forget()

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Context with averaged weights, whose time counts as that of the training."""
        began = time.monotonic()
        with self._averaged():
            yield
        self.seconds, _ = self.ranks.agree(self.seconds + time.monotonic() - began)

    def resume(self) -> bool:
        """Restore the state of an earlier run; False without a checkpoint.

        Raises
        ------
        ModelError
            It is damaged or belongs to another training.
        """
        path = self.checkpoint
        stored = self.ranks.share(
            lambda: None if path is None or not path.exists()
            else checkpoint.read(path, self._tensors()),
            checkpoint.packed, checkpoint.unpacked,
        )  # fmt: skip
        if stored is None:
            return False
        found, state = stored
        try:
            with torch.no_grad():
                for name, p in self.parameters.items():
                    p.copy_(found[f"parameter/{name}"])
                    self.averages.average[name].copy_(found[f"average/{name}"])
                    self.averages.best[name].copy_(found[f"best/{name}"])
                    self.optimizer.state[p] = {
                        # Heads learn nothing in steps without events for them.
                        "step": found.get(f"steps/{name}", torch.tensor(float(state.step))),
                        "exp_avg": found[f"first/{name}"].to(p.device),
                        "exp_avg_sq": found[f"second/{name}"].to(p.device),
                    }
                for name, tensor in self.task.state().items():
                    tensor.copy_(found[name])
            self.round, self.step, self.seconds = state.round, state.step, state.seconds
            # The schedule may have changed.
            scale = self.done / state.done if state.done > 0 else 1.0
            for part, rate in self.rates.items():
                rate.restore(state.rates[part].model_dump(), scale)
            self.history.restore(state.history)
        except documents.UNUSABLE as error:
            raise checkpoint.unfit(path or Path(checkpoint.CHECKPOINT), error) from None
        return True

    def _tensors(self) -> dict[str, Tensor]:
        """Tensors of a checkpoint, without how often each parameter was updated."""
        tensors: dict[str, Tensor] = {}
        for name, p in self.parameters.items():
            tensors[f"parameter/{name}"] = p
            tensors[f"average/{name}"] = self.averages.average[name]
            tensors[f"best/{name}"] = self.averages.best[name]
            state = self.optimizer.state.get(p, {})
            tensors[f"first/{name}"] = state.get("exp_avg", torch.zeros_like(p))
            tensors[f"second/{name}"] = state.get("exp_avg_sq", torch.zeros_like(p))
        return tensors | self.task.state()

    def save(self) -> None:
        """Write the checkpoint, where there is a directory for it."""
        if self.checkpoint is None:
            return
        updates = {
            f"steps/{name}": torch.as_tensor(float(self.optimizer.state.get(p, {}).get("step", 0)))
            for name, p in self.parameters.items()
        }
        checkpoint.write(self.checkpoint, self._tensors() | updates, {
            "round": self.round,
            "step": self.step,
            "seconds": self.seconds,
            "done": self.done,
            "rates": {part: rate.state() for part, rate in self.rates.items()},
            "history": self.history.rows,
        })  # fmt: skip

    def _steps(self, may_stop: Interruptions, until: float) -> None:
        began = saved = time.monotonic()
        before = self.seconds
        recent: list[float] = []
        mark = (began, self.step)
        while self.done < min(self.end, until):
            loss = self._one_step()
            recent.append(loss)
            self.step += 1
            now = time.monotonic()
            self.seconds, signal = self.ranks.agree(before + now - began, may_stop.waiting)
            rate = (self.step - mark[1]) * self.batch_size / max(now - mark[0], 1e-9)
            if self.step % self.interval == 0:
                self._validate(float(np.mean(recent)), rate)
                recent, mark = [], (time.monotonic(), self.step)
            self._consistent = True
            may_stop(signal)
            # Last, because the callback may stop the run: no validation is left out.
            if now - self._told > 0.5 or self.done >= self.end:
                self._told = now
                info = {"step": float(self.step), "loss": loss, "events_per_s": rate}
                if math.isfinite(self.best_loss):
                    info["val"] = self.best_loss
                self.progress("train", min(self.done / self.end, 1.0), 1.0, info)
            if now - saved > self.config.checkpoint_interval:
                self.save()
                saved = time.monotonic()
        rows = self.history.rows
        if self.done >= self.end and not (rows and rows[-1]["step"] == self.step):
            self._consistent = False
            mean = float(np.mean(recent)) if recent else math.nan
            seconds = max(time.monotonic() - mark[0], 1e-9)
            self._validate(mean, (self.step - mark[1]) * self.batch_size / seconds)
            self._consistent = True

    def _one_step(self) -> float:
        for group in self.optimizer.param_groups:
            rate = self.rates[group["part"]](self.step, self.done)
            group["lr"] = rate * group["rate"]
        rows = self.order.rows(self.step, self.batch_size, self.seed)
        self.task.progress = self.done
        running = [part for part in self.names if not self.rates[part].finished(self.done)]
        self.optimizer.zero_grad(set_to_none=True)
        value = self._gradient(running, rows)
        self._consistent = False
        norm = torch.nn.utils.clip_grad_norm_(
            list(self.parameters.values()), self.config.clip, foreach=True
        )
        if math.isfinite(value) and bool(torch.isfinite(norm)):
            self.optimizer.step()
            self._bad_steps = 0
        else:
            # A single bad step is left out; a run of them means that training has diverged.
            self._bad_steps += 1
            self._lost += 1
            if self._bad_steps > _MOST_BAD:
                raise SampleError(f"training diverged at step {self.step}", remedy=self.task.remedy)
        for part, names in self.names.items():
            steps = 1 + self.step
            decay = min(self.config.ema, steps / (steps + 1 / self.task.parts[part].averaging))
            self.averages.follow(names, decay)
        return value

    def _gradient(self, parts: list[str], rows: Tensor) -> float:
        """Leave the gradients of a batch in the parameters; its mean loss.

        A batch is divided into micro-batches, which are shared among the processes. Random numbers
        of a loss are a function of seed, step and micro-batch, so that a resumed run is the same,
        for any number of processes.
        """
        pieces = rows.tensor_split(self.n_pieces)
        total = torch.zeros((), device=self.task.device)
        for k in self.ranks.mine(len(pieces)):
            if not len(pieces[k]):
                continue
            torch.manual_seed((self.seed * 1_000_003 + self.step + k * _STRIDE) % 2**63)
            losses = [self.task.loss(part, self.task.train, pieces[k]) for part in parts]
            loss = torch.stack(losses).sum() * (len(pieces[k]) / len(rows))
            loss.backward()
            total += loss.detach()
        return float(self.ranks.add_gradients(list(self.parameters.values()), total))

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Context with averaged weights, without noise."""
        with self.averages.in_place():
            self.task.module.eval()
            try:
                yield
            finally:
                self.task.module.train()

    @torch.no_grad()
    def _validate(self, train_loss: float, events_per_second: float) -> None:
        """Loss of the averaged weights on the held-out events; remember the best.

        Of variational weights these are the averaged means, without noise and prior.
        """
        self.ranks.align([*self.parameters.values(), *self.averages.average.values()])
        with self._averaged():
            losses = self._validation_losses()
        for part, rate in self.rates.items():
            if rate.is_best(losses[part]):
                self.averages.keep(self.names.get(part, ()))
        first = next(iter(self.rates.values()))
        self.history.add({
            "step": float(self.step),
            "seconds": self.seconds,
            "learning_rate": first(self.step, self.done),
            "train_loss": train_loss,
            **{part.loss_name: losses[name] for name, part in self.task.parts.items()},
            "events_per_second": events_per_second,
        })  # fmt: skip
        log.info(
            "step %d: training loss %.4f, validation loss %s, %.0f events/s", self.step,
            train_loss, " + ".join(f"{x:.4f}" for x in losses.values()), events_per_second,
        )  # fmt: skip
        for part, rate in self.rates.items():
            if self.task.may_end_early(part) and rate.falls_early(self.step, self.done):
                log.info("%s: back to the best weights, with a falling learning rate", part)
                self.averages.go_back(self.names.get(part, ()))

    def _validation_losses(self) -> dict[str, float]:
        """Mean loss of each part, with batches shared among the processes."""
        data, parts = self.task.validation, list(self.task.parts)
        batches = torch.arange(len(data), device=self.task.device).split(_VALIDATION_BATCH)
        table = torch.zeros(len(batches), len(parts), dtype=torch.float64)
        for k in self.ranks.mine(len(batches)):
            share = len(batches[k]) / len(data)
            for i, part in enumerate(parts):
                table[k, i] = float(self.task.loss(part, data, batches[k])) * share
        return dict(zip(parts, self.ranks.add(table).sum(0).tolist(), strict=True))
