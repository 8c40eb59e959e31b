"""Generator: train a surrogate on a sample, and draw new events from it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch

from hepgen_ml.config import Config
from hepgen_ml.errors import ModelError, UsageError, about
from hepgen_ml.events.objects import Selection
from hepgen_ml.events.sample import EventSample, RunInfo, concatenate, finite_or_none
from hepgen_ml.files.outputs import DirectoryLock, naming, remove
from hepgen_ml.generation import posterior as posterior_weights
from hepgen_ml.generation.blocks import (
    Block,
    Counts,
    blocks_of,
    made_by_workers,
    made_here,
    range_of,
    require_directory,
)
from hepgen_ml.generation.likelihood import log_prob
from hepgen_ml.generation.refinement import refine
from hepgen_ml.generation.sample_weights import SampleWeights
from hepgen_ml.generation.sampling import Sampler
from hepgen_ml.generation.variations import learn_into, ratios_of, ratios_of_events
from hepgen_ml.models.storage import (
    CLASSIFIER,
    CONFIG,
    VARIATIONS,
    find_model,
    load_model,
    save_model,
)
from hepgen_ml.models.surrogate import Surrogate
from hepgen_ml.process.process import Process
from hepgen_ml.process.understanding import understood
from hepgen_ml.regression.storage import declared_weights, save_ratios
from hepgen_ml.regression.weight_ratios import WeightRatios
from hepgen_ml.reweighting import Reweighter
from hepgen_ml.reweighting.application import ClassifierWeights
from hepgen_ml.training.data import Progress
from hepgen_ml.training.devices import find_device
from hepgen_ml.training.fit import PLAN, claimed, fit

Weights = Literal["classifier", "sample"]

_Method = TypeVar("_Method", bound=Callable[..., Any])


def _about_model(method: _Method) -> _Method:
    """A method whose errors name the directory of the model, if it has one."""

    @wraps(method)
    def named(self: Generator, *args: Any, **kwargs: Any) -> Any:
        with about(self.directory, ModelError, UsageError):
            return method(self, *args, **kwargs)

    return cast(_Method, named)



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
    classifier : Reweighter or None
        Corrects events, see `hepgen_ml.reweighting`; stored with the model.
    ratios : WeightRatios or None
        Of the named weights of the training sample, which generated events have too.
    weighting : ClassifierWeights, SampleWeights or None
        Of the latest events with its weights: effective sample size and efficiency.
    directory : Path or None
        Where the model is stored.
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
        classifier: Reweighter | None = None,
        directory: Path | None = None,
        ratios: WeightRatios | None = None,
    ) -> None:
        self.surrogate = surrogate.eval()
        self.classifier = classifier
        self.weighting: ClassifierWeights | SampleWeights | None = None
        run = run if ratios is None else declared_weights(run, ratios)
        self.process, self.config, self.run, self.facts = process, config, run, facts
        self.device, self.directory, self.ratios = device, directory, ratios
        self._sampler = Sampler(self.surrogate, process, run, device, ratios)

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
            refine=refine,
            regress=learn_into,
        )
        surrogate, process, config, run, facts, place = trained
        ratios = ratios_of(Path(out), facts, process, place)
        return cls(
            surrogate, process, config, run, facts, place, directory=Path(out), ratios=ratios
        )

    @classmethod
    def load(cls, path: str | Path = "hepgen-model", *, device: str = "auto") -> Generator:
        """Read a model directory, or a model that comes with the package by its name.

        Raises
        ------
        ModelError
            Missing, damaged, newer, or an unfinished training.
        """
        directory = find_model(path)
        if os.path.exists(directory / PLAN) and not os.path.exists(directory / CONFIG):
            raise ModelError(
                "its training is not finished", path=directory, remedy="train with --resume"
            )
        place = find_device(device)
        surrogate, process, config, run, facts = load_model(directory, place)
        has_classifier = os.path.lexists(directory / CLASSIFIER)
        classifier = Reweighter.load(directory, place) if has_classifier else None
        ratios = ratios_of(directory, facts, process, place)
        return cls(surrogate, process, config, run, facts, place, classifier, directory, ratios)

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the model directory."""
        directory = Path(path)
        if force:
            with naming(directory):
                directory.mkdir(parents=True, exist_ok=True)
        alone = DirectoryLock(directory) if force else claimed(directory, resume=False, force=False)
        with alone:
            if self.ratios is None:
                remove(directory, VARIATIONS)
            else:
                save_ratios(directory, self.ratios)
            save_model(directory, self.surrogate, self.process, self.config, self.run, self.facts)
            if self.classifier is not None:
                self.classifier.save(directory)

    @staticmethod
    def shard_size(n: int, shard: tuple[int, int] = (0, 1)) -> int:
        """Events that shard (i, k) makes of n: sizes differ by one at most."""
        start, stop = range_of(n, shard)
        return stop - start

    def run_of(
        self,
        posterior: int | None = None,
        weights: Weights | None = None,
        unweight: bool = False,
    ) -> RunInfo:
        """Run information of the events that `stream` makes with these options."""
        run = self.run
        if posterior is not None:
            with about(self.directory, ModelError, UsageError):
                posterior_weights.check(self.surrogate.density, posterior)
            run = posterior_weights.with_posterior(run, posterior)
        weighting = self._weighting(run, weights, unweight)
        return run if weighting is None else weighting.run

    @_about_model
    def _weighting(
        self, run: RunInfo, weights: Weights | None, unweight: bool
    ) -> ClassifierWeights | SampleWeights | None:
        learned = self.surrogate.event_weights
        if learned is None and weights == "sample":
            raise UsageError(
                "the model makes events of equal weight",
                remedy="train with --set training.weights=sample for weights as in the sample",
            )
        if learned is not None and weights != "classifier":
            return SampleWeights(run, float(learned.largest), unweight)
        if learned is not None and unweight:
            raise UsageError(
                "the model's events have weights of their own beside those of the classifier",
                remedy="leave out --unweight, or --weights classifier",
            )
        if weights is None and not unweight:
            return None
        if self.classifier is None:
            raise UsageError(
                "the model has no classifier to weight events with",
                remedy="make it with `hepgen-ml reweight --model DIR --truth FILE`",
            )
        return ClassifierWeights(self.classifier, run, unweight)

    def sample(
        self,
        n: int,
        *,
        seed: int | None = None,
        device: str | None = None,
        posterior: int | None = None,
        weights: Weights | None = None,
        unweight: bool = False,
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
            `hepgen_ml.generation.posterior`.
        weights : {"classifier", "sample"}, optional
            Weight events with the model's classifier; each has its variations
            ``classifier_1`` ... too, see `hepgen_ml.reweighting`. Models of a biased sample
            (``training.weights=sample``) always make events with weights that undo the bias,
            unless ``unweight`` is set; "sample" only makes sure of it.
        unweight : bool
            Accept events by these weights instead, so that they have unit weight.

        Returns
        -------
        EventSample

        Raises
        ------
        UsageError
            Posterior weights of a model that is not Bayesian, or weights of a classifier
            that the model does not have.
        """
        return concatenate(
            list(
                self.stream(
                    n, seed=seed, device=device, posterior=posterior, weights=weights,
                    unweight=unweight,
                )
            )
        )  # fmt: skip

    def stream(
        self,
        n: int,
        *,
        chunk: int = 20_000,
        seed: int | None = None,
        shard: tuple[int, int] = (0, 1),
        device: str | None = None,
        posterior: int | None = None,
        weights: Weights | None = None,
        unweight: bool = False,
        workers: int = 1,
    ) -> Iterator[EventSample]:
        """Draw events chunk by chunk, in constant memory.

        Parameters
        ----------
        n : int
            Events of all shards together.
        chunk : int
            Events at a time; the events do not depend on it.
        seed : int, optional
            The same seed and n give the same events, however they are cut into chunks and
            shards: events are made in blocks of 10,000, each with random numbers of its own
            that are a function of the seed and the number of the block. On one kind of processor
            the number of threads changes next to nothing, and nothing as far as measured where
            ``MKL_CBWR=AUTO,STRICT`` is in the environment before torch is imported.
        shard : (i, k)
            Which of k parts of these events to make, counted from 0.
        device : str, optional
        posterior : int, optional
            As for `sample`.
        weights, unweight
            As for `sample`.
        workers : int
            Processes that make blocks of events side by side, with one thread each, on CPUs.
            The events do not depend on it. Needs a stored model.
        """
        if n < 1:
            raise UsageError(f"cannot make {n} events", remedy="ask for at least one")
        if chunk < 1:
            raise UsageError(f"chunks of {chunk} events", remedy="ask for at least one")
        run = self.run_of(posterior)
        self.weighting = self._weighting(run, weights, unweight)
        start, stop = range_of(n, shard)
        if start == stop:
            raise UsageError(f"{n} events leave nothing for shard {shard[0]} of {shard[1]}")
        if device is not None:
            self.device = self._sampler.device = find_device(device)
            self.surrogate.to(self.device)
            if self.ratios is not None:
                self.ratios.to(self.device)
        entropy = np.random.SeedSequence(seed).entropy
        waiting: list[EventSample] = []
        n_waiting = 0
        blocks = blocks_of(n, start, stop)

        def make(block: Block) -> EventSample:
            return self._block(entropy, block, run, posterior)

        made = made_here(blocks, make)
        if workers > 1 and len(blocks) > 1 and self.device.type == "cpu":
            place = require_directory(self.directory)
            how = (place, entropy, posterior, weights, unweight)
            made = made_by_workers(blocks, make, workers, _in_worker, how, self._count)
        for block, events in made:
            first, last = block.first, block.last
            events.events["event_number"] = np.arange(first + 1, last + 1)
            waiting.append(events[max(start - first, 0) : min(stop, last) - first])
            n_waiting += len(waiting[-1])
            if n_waiting < chunk:
                continue
            whole = concatenate(waiting)
            n_waiting %= chunk
            end = len(whole) - n_waiting
            yield from whole[:end].chunks(chunk)
            waiting = [whole[end:]] if n_waiting else []
        if n_waiting:
            yield concatenate(waiting)

    def _counts(self) -> Counts:
        """Events drawn and accepted so far, as `_count` adds them."""
        sampler = self._sampler.drawn, self._sampler.accepted
        return sampler if self.weighting is None else (*sampler, *self.weighting.counts)

    def _count(self, counts: Counts) -> None:
        """Add what another process drew."""
        self._sampler.drawn += int(counts[0])
        self._sampler.accepted += int(counts[1])
        if self.weighting is not None:
            self.weighting.add(counts[2:])

    @_about_model
    def _block(
        self, entropy: Any, block: Block, run: RunInfo, posterior: int | None
    ) -> EventSample:
        """One block of events, which depends on nothing but the seed, its number and its size."""
        size = len(block)
        root = np.random.SeedSequence(entropy, spawn_key=(block.index,))
        numpy_seed, torch_seed = root.spawn(2)
        rng = np.random.default_rng(numpy_seed)
        generator = torch.Generator(device=self.device)
        generator.manual_seed(int(torch_seed.generate_state(1, np.uint64)[0] >> np.uint64(1)))

        def make(m: int) -> EventSample:
            return self._chunk(m, rng, generator, run, posterior)

        return make(size) if self.weighting is None else self.weighting.block(size, make, rng)

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

    def reweight(self, sample: EventSample) -> EventSample:
        """Give events of the process, from anywhere, the named weights that were learned.

        Parameters
        ----------
        sample : EventSample

        Returns
        -------
        EventSample
            The same events, with each named weight as its ratio to the nominal weight predicts it.
            Weights of these names that the sample has are replaced.

        Raises
        ------
        UsageError
            The model has learned no weights.
        SampleError
            Events of another process, or outside the cuts of the model.
        """
        ratio, _ = self.weight_ratios(sample)
        weights = {**sample.weights, **dict(zip(self._known().names, ratio.T * sample.weight,
                                                strict=True))}  # fmt: skip
        return EventSample(
            declared_weights(sample.run, self._known()), sample.offsets, sample.particles,
            sample.events, weights=weights, scales=sample.scales, attributes=sample.attributes,
        )  # fmt: skip

    @_about_model
    def weight_ratios(
        self, sample: EventSample
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Ratios (n, K) of the named weights to the nominal one, and their errors (n, K).

        The weights are those of ``run.weight_names``, in their order. Parameters and errors are
        those of `reweight`.
        """
        return ratios_of_events(self._known(), sample)

    def _known(self) -> WeightRatios:
        if self.ratios is None:
            raise UsageError(
                "the model has learned no named weights",
                remedy="train it with a sample that has some, without --no-weights",
            )
        return self.ratios

    @_about_model
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

        Raises
        ------
        UsageError
            The model has no likelihood.
        """
        if not self.surrogate.density.has_likelihood:
            raise UsageError(
                f"{self.config.model} has no likelihood",
                remedy="train another model, such as that of --model auto",
            )
        accepted = self.facts.get("acceptance", [1.0] * len(self.process.channels))
        return log_prob(self.surrogate, self.process, sample, self.device, accepted)

    @property
    def acceptance(self) -> float:
        """Fraction of the network's draws inside the cuts, over all sampling so far."""
        return self._sampler.acceptance

    @_about_model
    def describe(self) -> dict[str, Any]:
        """Facts about the model, as plain values for `hepgen-ml info`."""
        process = self.process
        return {
            "model": self.config.model,
            "parameters": self.surrogate.n_parameters,
            "beams": list(self.run.beam_pdg_id),
            "beam_energy": list(self.run.beam_energy),
            "cross_section": finite_or_none(self.run.cross_section),
            "cross_section_error": finite_or_none(self.run.cross_section_error),
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
            "understood": [list(pair) for pair in understood(process, self.run, self.facts)],
            "cuts": [str(c) for c in process.acceptance.cuts],
            "evidence": process.acceptance.described(),
            "coordinates": [[c.name for c in ch.coordinates] for ch in process.channels],
            "weight_variations": [
                {"name": w.name, "description": w.text, "constant": w.constant, **w.facts}
                for w in (self.ratios.weights if self.ratios is not None else [])
            ],
            "training": self.facts,
            "config": self.config.model_dump(),
        }


def _in_worker(
    directory: Path,
    entropy: Any,
    posterior: int | None,
    weights: Weights | None,
    unweight: bool,
) -> Callable[[Block], tuple[EventSample, Counts]]:
    """What makes blocks in another process."""
    torch.set_num_threads(1)
    generator = Generator.load(directory, device="cpu")
    run = generator.run_of(posterior)
    generator.weighting = generator._weighting(run, weights, unweight)

    def make(block: Block) -> tuple[EventSample, Counts]:
        before = generator._counts()
        events = generator._block(entropy, block, run, posterior)
        return events, tuple(b - a for a, b in zip(before, generator._counts(), strict=True))

    return make
