r"""Numbers of events learned from a sample: amplitudes, weights, any function of the event.

All-positive numbers A are learned as standardised logarithms, equation 6.22 of the thesis of
J. Spinner (Heidelberg 2025),

.. math:: \mathcal{A} = (\log A - \overline{\log A}) / \sigma_{\log A} .

Networks give a mean and a width of each; those of an ensemble, or of draws of a posterior, are
combined to the mean of the means, with the mean of the variances plus the variance of the means.
Held-out events calibrate the widths.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from hepgen_ml.errors import SampleError
from hepgen_ml.events.sample import EventSample, FloatArray
from hepgen_ml.events.source import Progress
from hepgen_ml.files import probe
from hepgen_ml.files.directories import Contents
from hepgen_ml.networks.bayesian import posterior_draw
from hepgen_ml.regression.calibration import Calibration, pull_widths
from hepgen_ml.regression.model import Network, Settings, network_settings, train_member
from hepgen_ml.regression.points import Encoder, Points
from hepgen_ml.regression.storage import load_regression, save_regression, sizes_of
from hepgen_ml.regression.targets import Learned, Target, target_of
from hepgen_ml.training.learner_directory import LearnerDirectory, fingerprint_of

REGRESSION = "regression.safetensors"
"""File of a regression in its directory."""

DIRECTORY = LearnerDirectory(
    Contents("a regression", finished=REGRESSION, plan="regression.json"),
    "other events, another target, network or seed",
)

MIN_EVENTS = 200
_HELD_OUT, _MOST_VALIDATION, _MOST_CALIBRATION = 0.05, 5_000, 20_000
_DRAWS = 16
_LARGEST_ERROR = 1e30  # relative; beyond, nothing has been learned
_BATCH = 4096
_CHUNK = 50_000


class Prediction(NamedTuple):
    """Numbers of events.

    Attributes
    ----------
    value : (n,) array
        The target.
    uncertainty : (n,) array
        Its standard deviation; of logarithms, half of an interval of 68 % above the value.
    """

    value: FloatArray
    uncertainty: FloatArray


class Regressor:
    """A function of events, made by `fit` or `load`.

    Attributes
    ----------
    encoder : Encoder
        Kinds of particles and events of the training.
    target : Target
    networks : list of Network
    calibration : Calibration
    facts : dict
        Facts about the training and the accuracy for held-out events, plain values.
    """

    def __init__(
        self,
        encoder: Encoder,
        target: Target,
        networks: list[Network],
        calibration: Calibration,
        facts: dict[str, Any],
    ) -> None:
        self.encoder, self.target, self.networks = encoder, target, networks
        self.calibration, self.facts = calibration, facts

    @classmethod
    def fit(
        cls,
        sample: EventSample,
        target: str | npt.ArrayLike | Learned,
        settings: Settings | None = None,
        *,
        logarithmic: bool | None = None,
        seed: int = 0,
        device: torch.device | None = None,
        directory: Path | None = None,
        resume: bool = False,
        progress: Progress | None = None,
    ) -> Regressor:
        """Learn a number of each event.

        Parameters
        ----------
        sample : EventSample
            At least `MIN_EVENTS` events. A twentieth of them is used for early stopping, another
            twentieth for the calibration of the uncertainties.
        target : str or (n,) array
            A named weight (its ratio to the nominal one is learned), ``weight`` for the nominal
            weight itself, or the numbers.
        settings : Settings, optional
        logarithmic : bool, optional
            Learn the logarithm; by default where all numbers are positive.
        seed : int
        device : torch.device, optional
        directory : Path, optional
            For checkpoints of an unfinished training; `save` into it removes them.
        resume : bool
            Continue the unfinished training in this directory, if there is one.
        progress : callable, optional
            Called with stage, done, total and a dict of numbers.

        Raises
        ------
        UsageError
            No such weight or network, or the unfinished training was begun with something else.
        SampleError
            Too few events, or a target that cannot be learned.
        """
        settings, device = settings or Settings(), device or torch.device("cpu")
        if len(sample) < MIN_EVENTS:
            raise SampleError(
                f"{len(sample)} events are too few",
                remedy=f"a regression needs {MIN_EVENTS} at least",
            )
        values, name, kind = target_of(sample, target)
        about = Target.of(values, name, kind, logarithmic)
        encoder = Encoder.of(sample)
        points = encoder.encode(sample)
        standard = torch.from_numpy(about.standardized(values))
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(points)))
        n = max(int(_HELD_OUT * len(points)), 50)
        n_validation, n_calibration = min(n, _MOST_VALIDATION), min(n, _MOST_CALIBRATION)
        held_out, rest = order[:n_calibration], order[n_calibration:]
        points = points.with_target(standard.float())
        with torch.device("meta"):  # an impossible network creates no directory
            Network(network_settings(encoder, settings), settings.bayesian)
        if directory is not None:
            known = (about, encoder, settings.fixed, len(points), seed)
            DIRECTORY.begin(directory, fingerprint_of(points.columns, known), resume=resume)
        validation = points[rest[:n_validation]].to(device)
        train = points[rest[n_validation:]].to(device)
        networks, steps, begun = [], 0.0, time.monotonic()
        for k in range(settings.members):

            def report(done: float, k: int = k) -> None:
                if progress is not None:
                    progress("regression", k + done, float(settings.members), {})

            network, facts = train_member(
                encoder, train, validation, settings,
                seed=seed + 1000 * k, device=device, report=report, resume=resume,
                directory=None if directory is None else DIRECTORY.member(directory, k),
            )  # fmt: skip
            networks.append(network)
            steps += facts["steps"]
        self = cls(encoder, about, networks, Calibration(), {
            "network": settings.network, "loss": settings.loss, "members": settings.members,
            "bayesian": settings.bayesian, "events": len(train), "seed": seed,
            "steps": int(steps), "seconds": time.monotonic() - begun,
        })  # fmt: skip
        self._judge(points[held_out], standard[held_out].numpy(), values[held_out.numpy()])
        return self

    def _judge(self, points: Points, truth: FloatArray, values: FloatArray) -> None:
        """Calibrate with held-out events, and measure the accuracy for these."""
        mean, sigma = self._moments(points)
        self.calibration = Calibration.of(mean, sigma, truth)
        width, by_quantile = pull_widths(mean, self.calibration(mean, sigma), truth)
        value, _ = self.target.restored(mean, sigma)
        size = np.abs(values) if self.target.logarithmic else np.full(len(values), self.target.std)
        unit = max(float(np.abs(values).max()), 1e-300)
        with np.errstate(over="ignore"):  # numbers may differ by hundreds of orders of magnitude
            off = np.minimum(np.abs(value - values) / size, _LARGEST_ERROR)
            total = min(float((value / unit).sum()), _LARGEST_ERROR)
        true = float((values / unit).sum())
        self.facts |= {
            "held_out_events": len(points),
            "mse": float(np.mean((mean - truth) ** 2)),
            "median_error": float(np.median(off)),
            "error_99": float(np.quantile(off, 0.99)),
            "sum_ratio": total / true if true else 1.0,
            "pull_width": width,
            "pull_widths": by_quantile,
        }

    @property
    def device(self) -> torch.device:
        """Device of the networks."""
        return next(self.networks[0].parameters()).device

    def predict(self, sample: EventSample, first: int = 0) -> Prediction:
        """Numbers of events and their uncertainties.

        Parameters
        ----------
        sample : EventSample
        first : int
            Number of its first event in a file, for messages.

        Raises
        ------
        SampleError
            An event has other particles than those of the training.
        """
        parts = [
            self._predict(self.encoder.encode(chunk, first + i * _CHUNK))
            for i, chunk in enumerate(sample.chunks(_CHUNK))
        ]
        if not parts:
            return Prediction(np.zeros(0), np.zeros(0))
        return Prediction(*(np.concatenate(c) for c in zip(*parts, strict=True)))

    def _predict(self, points: Points) -> Prediction:
        mean, sigma = self._moments(points)
        return Prediction(*self.target.restored(mean, self.calibration(mean, sigma)))

    def _example(self) -> FloatArray:
        """Standardised numbers and uncertainties of fixed events, to test a stored network."""
        mean, sigma = self._moments(self.encoder.encode(self.encoder.example()))
        return np.concatenate([mean, self.calibration(mean, sigma)])

    @torch.no_grad()
    def _moments(self, points: Points) -> tuple[FloatArray, FloatArray]:
        """Standardised mean and standard deviation (n,), before calibration."""
        draws = [
            (network, k)
            for network in self.networks
            for k in (range(_DRAWS) if network.head is not None else (None,))
        ]
        found = []
        for start in range(0, len(points), _BATCH):
            some = points[start : start + _BATCH].to(self.device)
            moments = []
            for network, k in draws:
                with posterior_draw(network, k):
                    moments.append(torch.stack(network(some)))
            mean, log_variance = torch.stack(moments).double().cpu().unbind(1)
            variance = torch.exp(log_variance).mean(0) + mean.var(0, correction=0)
            found.append(torch.stack([mean.mean(0), torch.sqrt(variance)]))
        both = torch.cat(found, dim=1).numpy() if found else np.zeros((2, 0))
        return both[0], both[1]

    def described(self) -> dict[str, Any]:
        """Description in plain values for `hepgen-ml info`."""
        return {
            "kind": "regression",
            "network": self.networks[0].network.settings["name"],
            "sizes": sizes_of(self.networks[0]), "members": len(self.networks),
            "bayesian": self.networks[0].head is not None,
            "parameters": sum(p.numel() for n in self.networks for p in n.parameters()),
            "target": asdict(self.target), "final_states": self.encoder.texts,
            "columns": list(self.encoder.columns),
            "calibration": list(self.calibration.coefficients), "training": self.facts,
        }  # fmt: skip

    def save(self, directory: str | Path) -> Path:
        """Write the regression into a directory, made if need be, as one file."""
        path = Path(directory) / REGRESSION
        parts = (self.encoder, self.target, self.networks, self.calibration, self.facts)
        save_regression(path, *parts, probe.taken(self._example()))
        DIRECTORY.finish(path.parent)
        return path

    @classmethod
    def load(cls, directory: str | Path, device: torch.device | None = None) -> Regressor:
        """Read what `save` wrote.

        Raises
        ------
        ModelError
            Missing, damaged, or of a newer version.
        """
        path = Path(directory) / REGRESSION
        parts, outputs = load_regression(path)
        made = cls(*parts)
        probe.require_same(outputs, made._example(), path)
        for network in made.networks:
            network.to(device or torch.device("cpu"))
        return made
