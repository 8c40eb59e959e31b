"""Generator: train a surrogate on a sample, and draw new events from it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hepgen_ml.config import Config
from hepgen_ml.events.objects import Selection
from hepgen_ml.events.sample import EventSample, FloatArray, RunInfo, concatenate
from hepgen_ml.events.source import Progress
from hepgen_ml.generation import variations
from hepgen_ml.generation.blocks import Chunks, blocks_of, in_chunks, range_of, range_to_make
from hepgen_ml.generation.clusters import Cluster
from hepgen_ml.generation.description import describe
from hepgen_ml.generation.likelihood import log_prob
from hepgen_ml.generation.parts import Parts, assembled, load_parts, save_parts
from hepgen_ml.generation.refinement import refine
from hepgen_ml.generation.request import Request, made
from hepgen_ml.generation.weighting import Weighting, Weights
from hepgen_ml.models.storage import TrainedModel
from hepgen_ml.process.conditions import Given
from hepgen_ml.reweighting import Reweighter
from hepgen_ml.reweighting.named_weights.ratios import WeightRatios
from hepgen_ml.training.devices import find_device
from hepgen_ml.training.encoded import encode_for
from hepgen_ml.training.fit import fit
from hepgen_ml.training.ranks import joined


class Generator:
    """A model that was trained on an event sample and generates new events.

    `train` and `load` create one.

    Parameters
    ----------
    model : TrainedModel
        Density, process and settings.
    classifier : Reweighter, optional
        Classifier whose weights correct the model.
    directory : Path, optional
        Directory in which the model is stored.
    ratios : WeightRatios, optional
        Ratios of named weights to the nominal one.

    Attributes
    ----------
    process : Process
        Subprocesses, channels and rules that were found in the training sample.
    config : Config
        Settings of the model and its training.
    run : RunInfo
        Run information of generated events: cross section and beams of the training sample.
    facts : dict
        Numbers about the training, such as those of events and steps.
    classifier : Reweighter or None
        Classifier whose weights correct the model, see `hepgen_ml.reweighting`.
    ratios : WeightRatios or None
        Ratios of the named weights of the training sample, which generated events have too.
    weighting : ClassifierWeights, SampleWeights or None
        Effective sample size and efficiency of the events that were last generated with weights.
    directory : Path or None
        Where the model is stored.
    acceptance : float
        Fraction of the network's draws inside the cuts, over all sampling so far.
    """

    def __init__(
        self,
        model: TrainedModel,
        classifier: Reweighter | None = None,
        directory: Path | None = None,
        ratios: WeightRatios | None = None,
    ) -> None:
        parts = assembled(model, classifier, directory, ratios)
        self.model, self.classifier, self.directory, self.ratios = parts
        self.surrogate, self.process = model.surrogate, model.process
        self.config, self.run, self.facts = model.config, parts.model.run, model.facts
        self.device = model.device
        self.weighting: Weighting | None = None
        self._sampler = parts.sampler()

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

        If torchrun has started several processes that all make this call, they train together:
        each computes its part of every batch (docs/scaling.md).

        Parameters
        ----------
        source : EventSample, or file names or glob patterns
            Events to learn; also one file that ``hepgen-ml encode`` wrote.
        model : str, optional
            Name of the density model; by default that of the configuration.
        out : path-like
            Directory of the model, and of its checkpoint and history during the training.
        config : Config, optional
            All other settings; their defaults if not given.
        seed : int, optional
            By default that of the configuration.
        device : str
            ``auto``, ``cpu``, ``cuda``, ...
        max_time : float, optional
            Largest time of the training in seconds.
        resume : bool
            Continue an interrupted training in `out`.
        force : bool
            Replace a model in `out`.
        skip_bad : bool
            Leave out events that cannot be read or break a law, instead of refusing the sample.
        selection : Selection, optional
            Objects to learn, from files of reconstructed or showered events.
        progress : callable, optional
            Called with stage, done, total and a dict of numbers.

        Raises
        ------
        InputError, SampleError
            The sample cannot be read or trained on.
        OutputError
            `out` contains a model or other files already.
        """
        changes = {"model": model, "seed": seed, "training__max_time": max_time}
        given = {key: value for key, value in changes.items() if value is not None}
        settings = (config or Config()).with_(**given)
        read = partial(
            encode_for, settings, source,
            skip_bad=skip_bad, selection=selection, progress=progress,
        )  # fmt: skip
        with joined(device) as (ranks, place):
            trained = fit(
                read, settings, out=Path(out), device=place, resume=resume, force=force,
                progress=progress, refine=refine, regress=variations.learn_into, ranks=ranks,
            )  # fmt: skip
        ratios = variations.ratios_of(Path(out), trained)
        return cls(trained, directory=Path(out), ratios=ratios)

    @classmethod
    def load(cls, path: str | Path = "hepgen-model", *, device: str = "auto") -> Generator:
        """Read a model directory, or a model that comes with the package by its name.

        Raises
        ------
        ModelError
            The model is missing, damaged or from a newer version, or its training is unfinished.
        """
        return cls(*load_parts(path, device))

    def save(self, path: str | Path, *, force: bool = False, half: bool = False) -> None:
        """Write the model to a directory.

        Parameters
        ----------
        path : path-like
        force : bool
            Replace a model there.
        half : bool
            Store parameters in half precision.

        Raises
        ------
        OutputError
            The directory holds other files than those of a model, or a model without `force`.
        """
        save_parts(self._parts, Path(path), force=force, half=half)

    @staticmethod
    def shard_size(n: int, shard: tuple[int, int] = (0, 1)) -> int:
        """Number of events in shard i of k, (i, k), of n events; sizes differ by one at most."""
        start, stop = range_of(n, shard)
        return stop - start

    def run_of(
        self,
        posterior: int | None = None,
        weights: Weights | None = None,
        unweight: bool = False,
        condition: Given | None = None,
    ) -> RunInfo:
        """Run information of the events that `stream` generates with these options."""
        asked = Request(posterior, weights, unweight, condition)
        with self._parts.named():
            return asked.run(self._parts)

    @property
    def _parts(self) -> Parts:
        return Parts(self.model, self.classifier, self.directory, self.ratios)

    def sample(
        self,
        n: int,
        *,
        seed: int | None = None,
        device: str | None = None,
        posterior: int | None = None,
        weights: Weights | None = None,
        unweight: bool = False,
        condition: Given | None = None,
    ) -> EventSample:
        """Generate n events.

        Parameters
        ----------
        n : int
            Number of events.
        seed : int, optional
            The same seed gives the same events; by default the seed is random.
        device : str, optional
            By default that of the model.
        posterior : int, optional
            Number K of posterior draws of a Bayesian model: events follow their mean
            density, and each has the weights ``posterior_1`` to ``posterior_K``, see
            `hepgen_ml.generation.posterior`.
        weights : {"classifier", "sample"}, optional
            "classifier" weights events with the model's classifier; each event also has the
            variations ``classifier_1`` ..., see `hepgen_ml.reweighting`. Models of a biased
            sample (``training.weights=sample``) always generate events with weights that undo
            the bias, unless ``unweight`` is set; "sample" is an error for all other models.
        unweight : bool
            Accept events with a probability proportional to these weights instead, so that they
            have unit weight.
        condition : mapping, optional
            Values of the conditions that the model was trained with, by name: one for all events,
            or an array with one of each. By default they occur as in the sample.

        Returns
        -------
        EventSample

        Raises
        ------
        UsageError
            Posterior weights of a model that is not Bayesian, or weights of a classifier
            that the model does not have.
        """
        chunks = self.stream(
            n, seed=seed, device=device, posterior=posterior, weights=weights, unweight=unweight,
            condition=condition,
        )  # fmt: skip
        return concatenate(list(chunks))

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
        start: Literal["spawn", "fork"] = "spawn",
        cluster: Cluster | None = None,
        condition: Given | None = None,
    ) -> Chunks:
        """Generate events chunk by chunk, in constant memory.

        Parameters
        ----------
        n : int
            Number of events of all shards together.
        chunk : int
            Number of events in a chunk; the events do not depend on it.
        seed : int, optional
            The same seed and n give the same events, however they are cut into chunks and
            shards: events are generated in blocks of 10,000, each with random numbers of its own
            that are a function of the seed and the number of the block. With
            ``MKL_CBWR=AUTO,STRICT`` in the environment before torch is imported, they do not
            depend on the number of threads of one kind of processor either.
        shard : (i, k)
            Generate part i, counted from 0, of k parts of these events.
        device : str, optional
            By default that of the model.
        posterior, weights, unweight
            As for `sample`.
        workers : int
            Number of processes that generate events on CPUs, with one thread each. The events do
            not depend on it. The model has to be stored in a directory, unless `start` is "fork".
        start : {"spawn", "fork"}
            How further processes begin. "spawn": they load the model themselves, if the number of
            events is worth it. "fork", on Linux: they are copies of this process, made
            before this method returns, which take no time to start. Only for programs that have
            computed nothing in several threads before (``torch.set_num_threads(1)`` first) and
            run no other threads.
        cluster : Cluster, optional
            Machines that generate the events instead (`hepgen_ml.generation.clusters`). They
            need access to the directory of the model.
        condition : mapping, optional
            As for `sample`. Arrays of values begin again after their last.
        """
        first, stop = range_to_make(n, shard, chunk)
        parts, asked = self._parts, Request(posterior, weights, unweight, condition)
        with parts.named():
            asked.check(parts)
            make = asked.maker(parts, self._sampler, np.random.SeedSequence(seed).entropy)
        self.weighting = make.weighting
        if device is not None:
            self.device = self._sampler.to(find_device(device))
        blocks = blocks_of(n, first, stop)
        events = made(blocks, make, asked, workers=workers, start=start, cluster=cluster)
        return in_chunks(events, first, stop, chunk)

    def reweight(self, sample: EventSample) -> EventSample:
        """Give events of the process, from any source, the named weights that were learned.

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
        with self._parts.named():
            return variations.with_named_weights(self.ratios, sample)

    def weight_ratios(self, sample: EventSample) -> tuple[FloatArray, FloatArray]:
        """Ratios (n, K) of the named weights to the nominal one, and their errors (n, K).

        The weights are those of ``run.weight_names``, in their order. Parameters and errors are
        those of `reweight`.
        """
        with self._parts.named():
            return variations.ratios_of_events(self.ratios, sample)

    def log_prob(self, sample: EventSample) -> FloatArray:
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
            of the scale and couplings where these are learned. Events outside the
            cuts have -inf, and so have those of a subprocess, colour flow or
            helicities that the training sample lacks: ``info`` says about how
            large a part of the cross section these are. The density is
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
        with self._parts.named():
            return log_prob(self.model, sample, self.device)

    @property
    def acceptance(self) -> float:
        """Fraction of the network's draws inside the cuts, over all sampling so far."""
        return self._sampler.acceptance

    def describe(self) -> dict[str, Any]:
        """Facts about the model, as plain values for `hepgen-ml info`."""
        with self._parts.named():
            return describe(self.model, self.ratios)
