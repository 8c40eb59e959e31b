"""Generator: train a surrogate on a sample, and draw new events from it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hepgen_ml import posterior as posterior_weights
from hepgen_ml.config import Config
from hepgen_ml.devices import find_device
from hepgen_ml.errors import ModelError, UsageError
from hepgen_ml.events import EventSample, RunInfo, concatenate
from hepgen_ml.models.base import Surrogate, uniform_angle_log_prob
from hepgen_ml.objects import Selection
from hepgen_ml.process import Process
from hepgen_ml.sampling import HEAD_BATCH, Sampler
from hepgen_ml.storage import CONFIG, find_model, load_model, save_model
from hepgen_ml.tensors import Discrete
from hepgen_ml.training.data import Progress
from hepgen_ml.training.fit import PLAN, claim, fit


class Generator:
    """A trained surrogate of an event sample.

    Made by `train` or `load`.

    Attributes
    ----------
    process : Process
    config : Config
    run : RunInfo
        Of generated events: cross section and beams of the training sample.
    facts : dict
        About the training.
    acceptance : float
        Fraction of the network's draws inside the cuts, over all sampling so far.
    """

    def __init__(
        self,
        surrogate: Surrogate,
        process: Process,
        config: Config,
        run: RunInfo,
        facts: dict[str, Any],
        device: torch.device,
    ) -> None:
        self.surrogate = surrogate.eval()
        self.process, self.config, self.run, self.facts = process, config, run, facts
        self.device = device
        self._sampler = Sampler(self.surrogate, process, run, device)

    @classmethod
    def train(
        cls,
        source: EventSample | str | Path | Sequence[str | Path],
        *,
        model: str | None = None,
        out: str | Path = "hepgen-model",
        config: Config | None = None,
        seed: int | None = None,
        device: str = "auto",
        max_time: float | None = None,
        resume: bool = False,
        force: bool = False,
        skip_bad: bool = False,
        selection: Selection | None = None,
        progress: Progress | None = None,
    ) -> Generator:
        """Learn the density of a sample.

        Parameters
        ----------
        source : EventSample, or file names or glob patterns
            Or one file that `hepgen_ml.training.encoded` wrote.
        model : str, optional
            Name of the density model; by default that of the configuration.
        out : path-like
            Directory of the model; also holds checkpoint and history while training.
        config : Config, optional
        seed : int, optional
            By default that of the configuration.
        device : str
            ``auto``, ``cpu``, ``cuda``, ...
        max_time : float, optional
            Seconds of training.
        resume : bool
            Go on with an interrupted training in `out`.
        force : bool
            Replace a model in `out`.
        skip_bad : bool
            Leave out bad events instead of refusing them.
        selection : Selection, optional
            Objects to learn, from files of reconstructed or showered events.
        progress : callable, optional
            Called with stage, done, total and a dict of numbers.

        Raises
        ------
        InputError, SampleError
            The sample cannot be read or trained on.
        OutputError
            `out` holds something already.
        """
        changes = {"model": model, "seed": seed, "training__max_time": max_time}
        given = {key: value for key, value in changes.items() if value is not None}
        trained = fit(
            source,
            out=Path(out),
            config=(config or Config()).with_(**given),
            device=find_device(device),
            resume=resume,
            force=force,
            skip_bad=skip_bad,
            selection=selection,
            progress=progress,
        )
        return cls(*trained)

    @classmethod
    def load(cls, path: str | Path = "hepgen-model", *, device: str = "auto") -> Generator:
        """Read a model directory, or a model that comes with the package by its name.

        Raises
        ------
        ModelError
            Missing, damaged, newer, or an unfinished training.
        """
        directory = find_model(path)
        if (directory / PLAN).exists() and not (directory / CONFIG).exists():
            raise ModelError(
                "its training is not finished", path=directory, remedy="train with --resume"
            )
        place = find_device(device)
        surrogate, process, config, run, facts = load_model(directory, place)
        return cls(surrogate, process, config, run, facts, place)

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the model directory."""
        directory = Path(path)
        if not force:
            claim(directory, resume=False, force=False)
        save_model(directory, self.surrogate, self.process, self.config, self.run, self.facts)

    @staticmethod
    def shard_size(n: int, shard: tuple[int, int] = (0, 1)) -> int:
        """Events that shard (i, k) makes of n: sizes differ by one at most."""
        i, k = shard
        if not 0 <= i < k:
            raise UsageError(f"shard {i} of {k} does not exist", remedy="count from 0 to k-1")
        return n // k + (1 if i < n % k else 0)

    def run_of(self, posterior: int | None = None) -> RunInfo:
        """Run information of the events that `stream` makes with these posterior draws."""
        if posterior is None:
            return self.run
        posterior_weights.check(self.surrogate.density, posterior)
        return posterior_weights.with_posterior(self.run, posterior)

    def sample(
        self,
        n: int,
        *,
        seed: int | None = None,
        device: str | None = None,
        posterior: int | None = None,
    ) -> EventSample:
        """Draw n events.

        Parameters
        ----------
        n : int
        seed : int, optional
            The same seed gives the same events; by default a fresh one.
        device : str, optional
            By default that of the model.
        posterior : int, optional
            Number K of posterior draws of a Bayesian model: events follow their mean
            density, and each has the weights ``posterior_1`` to ``posterior_K``, see
            `hepgen_ml.posterior`.

        Returns
        -------
        EventSample

        Raises
        ------
        UsageError
            Posterior weights of a model that is not Bayesian.
        """
        return concatenate(list(self.stream(n, seed=seed, device=device, posterior=posterior)))

    def stream(
        self,
        n: int,
        *,
        chunk: int = 20_000,
        seed: int | None = None,
        shard: tuple[int, int] = (0, 1),
        device: str | None = None,
        posterior: int | None = None,
    ) -> Iterator[EventSample]:
        """Draw events chunk by chunk, in constant memory.

        Parameters
        ----------
        n : int
            Events of all shards together.
        chunk : int
            Largest number of events at a time.
        seed : int, optional
        shard : (i, k)
            Which of k independent parts to make, counted from 0. Seeds of the
            shards are spawned from one sequence, so that they never overlap.
        device : str, optional
        posterior : int, optional
            As for `sample`. Every chunk holds all draws: with many of them, larger
            chunks are faster.
        """
        if n < 1:
            raise UsageError(f"cannot make {n} events", remedy="ask for at least one")
        if chunk < 1:
            raise UsageError(f"chunks of {chunk} events", remedy="ask for at least one")
        run = self.run_of(posterior)
        left = self.shard_size(n, shard)
        if left == 0:
            raise UsageError(f"{n} events leave nothing for shard {shard[0]} of {shard[1]}")
        if device is not None:
            self.device = self._sampler.device = find_device(device)
            self.surrogate.to(self.device)
        root = np.random.SeedSequence(seed).spawn(shard[1])[shard[0]]
        numpy_seed, torch_seed = root.spawn(2)
        rng = np.random.default_rng(numpy_seed)
        generator = torch.Generator(device=self.device)
        generator.manual_seed(int(torch_seed.generate_state(1, np.uint64)[0] >> np.uint64(1)))
        while left > 0:
            size = min(left, chunk)
            yield self._chunk(size, rng, generator, run, posterior)
            left -= size

    @torch.inference_mode()
    def _chunk(
        self,
        n: int,
        rng: np.random.Generator,
        generator: torch.Generator,
        run: RunInfo,
        posterior: int | None,
    ) -> EventSample:
        if posterior is None:
            return self._sampler.events(n, rng, generator)[0]
        return posterior_weights.sample_posterior(
            self.surrogate.density,
            n,
            posterior,
            run,
            lambda m: self._sampler.events(m, rng, generator),
        )

    @torch.inference_mode()
    def log_prob(self, sample: EventSample) -> npt.NDArray[np.float64]:
        """Log density of events under the surrogate.

        Parameters
        ----------
        sample : EventSample

        Returns
        -------
        (n,) array
            Density in the momenta, to the measure of the event's chart (GeV;
            see `hepgen_ml.phase_space.charts`), times the probability of the
            subprocess and of the colour and helicity pattern; in the logarithm
            of the scale and couplings where these are learned. Events of an
            unknown structure or outside the cuts have -inf. The density is
            that of the events that `sample` yields: draws outside the cuts are
            rejected, so the density of the network is divided by the fraction
            of its draws inside, measured for each channel after training.
            For models that hold no such measurement (those of version 0.1.0),
            the density is that of the network.
        """
        result = np.full(len(sample), -np.inf)
        accepted = self.facts.get("acceptance", [1.0] * len(self.process.channels))
        encoded = self.process.encode(sample)
        channel_of = self.process.channel_of[encoded.subprocess]
        log_frequency = torch.log(torch.from_numpy(self.process.frequencies))
        for c, channel in enumerate(self.process.channels):
            rows = torch.nonzero(channel_of == c).squeeze(-1)
            for part in rows.split(HEAD_BATCH):
                x, sub = encoded.x[part], encoded.subprocess[part]
                log_p = self.surrogate.density.log_prob(x.to(self.device), sub.to(self.device)).to(
                    "cpu"
                )
                z = self.surrogate.density.prepare(x.to(self.device), sub.to(self.device))
                names = ("pattern", "branch", "free")
                discrete = Discrete(*(getattr(encoded, n)[part].to(self.device) for n in names))
                log_p += self.surrogate.heads.log_prob(
                    z, encoded.invariants[part].to(self.device), sub.to(self.device), discrete
                ).to("cpu")
                if not self.surrogate.density.chooses_subprocess:
                    log_p += log_frequency[sub]
                log_p -= channel.chart.log_det(
                    channel.join(x, torch.zeros(len(x), dtype=torch.float64))
                )
                log_p -= math.log(accepted[c])
                if channel.cyclic is not None:
                    log_p += uniform_angle_log_prob()
                kinematics = self.process.kinematics(x, sub, torch.zeros(len(x)))
                log_p[~kinematics.passes] = -torch.inf
                result[encoded.event[part].numpy()] = log_p.numpy()
        return result

    @property
    def acceptance(self) -> float:
        """Fraction of the network's draws inside the cuts, over all sampling so far."""
        return self._sampler.acceptance

    def describe(self) -> dict[str, Any]:
        """Facts about the model, as plain values for `hepgen-ml info`."""
        process = self.process
        return {
            "model": self.config.model,
            "parameters": self.surrogate.n_parameters,
            "beams": list(self.run.beam_pdg_id),
            "beam_energy": list(self.run.beam_energy),
            "cross_section": self.run.cross_section,
            "cross_section_error": self.run.cross_section_error,
            "subprocesses": [
                {
                    "process_id": s.structure.process_id,
                    "incoming": [s.structure.pdg_id[r] for r in s.structure.incoming],
                    "final": [s.structure.pdg_id[r] for r in s.structure.final],
                    "frequency": s.frequency,
                    "patterns": len(s.patterns),
                }
                for s in process.subprocesses
            ],
            "cuts": [str(c) for c in process.acceptance.cuts],
            "coordinates": [[c.name for c in ch.coordinates] for ch in process.channels],
            "training": self.facts,
            "config": self.config.model_dump(),
        }
