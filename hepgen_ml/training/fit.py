"""A training run from files to a model directory; can be interrupted and resumed."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hepgen_ml._version import __version__
from hepgen_ml.config import Config, TrainingConfig
from hepgen_ml.errors import ModelError, OutputError, SampleError, UsageError
from hepgen_ml.events.objects import Selection, parse_resonance
from hepgen_ml.events.sample import EventSample, RunInfo
from hepgen_ml.events.weights import declared
from hepgen_ml.files import documents
from hepgen_ml.files.outputs import DirectoryLock, is_unfinished, naming, remove, write_text
from hepgen_ml.models import registry
from hepgen_ml.models.choice import chosen
from hepgen_ml.models.event_weights import Biased
from hepgen_ml.models.storage import (
    CARD,
    CLASSIFIER,
    CONFIG,
    VALIDATION,
    VARIATIONS,
    WEIGHTS,
    save_model,
)
from hepgen_ml.models.surrogate import Surrogate
from hepgen_ml.phase_space import parse_cut
from hepgen_ml.process.encoded import Discrete, Encoded, effective_number
from hepgen_ml.process.process import Process
from hepgen_ml.process.symmetry import (
    check_reflection,
    exchanged_beams,
    has_equal_beams,
    has_exchange,
    looks_symmetric,
    reflected,
    symmetrize_frequencies,
)
from hepgen_ml.process.understanding import auxiliary_fractions
from hepgen_ml.training.acceptance import acceptance_together
from hepgen_ml.training.biased import as_they_are, weighted_run, with_weights
from hepgen_ml.training.checkpoint import CHECKPOINT
from hepgen_ml.training.clock import Clock
from hepgen_ml.training.data import Progress, draw_rates, evened, split
from hepgen_ml.training.encoded import EncodedSample, encode_sample
from hepgen_ml.training.history import HISTORY
from hepgen_ml.training.surrogate_task import SurrogateTask
from hepgen_ml.training.trainer import Trainer

log = logging.getLogger(__name__)

PLAN = "training.json"
"""File in a model directory whose training is not finished: what it began with."""

_MOST_GENERATED = 1_000_000
"""Events that a density generates at most after its training, to see what it makes."""

_CALIBRATION_EVENTS = 200_000

_TRIAL = 4_096
"""Events by which the time of a calibration is judged, and its fewest."""

_ACCEPTANCE_EVENTS = 5_000
"""Draws per channel; at an acceptance of 95 % its relative error is 0.3 %."""

_FEWEST_DRAWS = 100
"""Draws per channel where time is short."""

_FEW_CHANNELS = 64
"""Channels up to which the acceptance of each is measured alone."""

Refiner = Callable[[Trainer[SurrogateTask], Process, RunInfo, Encoded, Encoded], None]
"""Trains a surrogate with classifiers in its loss: process, run, training and validation events."""

Regression = Callable[
    [Process, EncodedSample, Path, bool, float, int, torch.device, Progress | None], dict[str, Any]
]
"""Learns the named weights of a sample into a model directory: process, sample, directory, whether
to take what an interrupted training left there, seconds, seed. Returns facts about them."""

Trained = tuple[Surrogate, Process, Config, RunInfo, dict[str, Any], torch.device]


def fit(
    source: EventSample | str | Path | Sequence[str | Path],
    *,
    out: Path,
    config: Config,
    device: torch.device,
    resume: bool,
    force: bool,
    skip_bad: bool,
    selection: Selection | None,
    progress: Progress | None,
    refine: Refiner,
    regress: Regression,
) -> Trained:
    """Learn process and density of a sample and store the model.

    Parameters are those of `hepgen_ml.generation.generator.Generator.train`, what makes weights
    from classifiers where the configuration asks for them, and what learns named weights.

    Returns
    -------
    tuple
        Arguments of `hepgen_ml.generation.generator.Generator`.
    """
    clock = Clock(config.training.max_time)
    with claimed(out, resume=resume, force=force):
        sample = encode_sample(
            source,
            seed=config.seed,
            skip_bad=skip_bad,
            selection=selection,
            cuts=[parse_cut(text) for text in config.cuts],
            resonances=[parse_resonance(text) for text in config.resonances],
            find_cuts=config.find_cuts,
            variations=config.training.variations,
            progress=progress,
        )
        clock.reading = sample.seconds_read
        return _fit(sample, out, config, device, resume, progress, refine, regress, clock)


def _fit(
    sample: EncodedSample,
    out: Path,
    config: Config,
    device: torch.device,
    resume: bool,
    progress: Progress | None,
    refine: Refiner,
    regress: Regression,
    clock: Clock,
) -> Trained:
    process, run = sample.process, _output_run(sample.run, sample.process, sample.fingerprint)
    resume = resume and (out / PLAN).exists()
    planned = config.training.max_time
    if resume:
        planned = _check_plan(out, sample.fingerprint, config).training.max_time
    else:
        # From here on the directory belongs to the new model: an interrupted training must not
        # leave an old one beside its checkpoint.
        stored = (CONFIG, WEIGHTS, CARD, CLASSIFIER, VALIDATION, VARIATIONS)
        remove(out, *stored, HISTORY, CHECKPOINT)
        _write_plan(out, sample.fingerprint, config)
    encoded = sample.encoded
    config = with_weights(chosen(config, process, encoded, planned), process, encoded)
    log_weight = None
    if config.training.weights == "sample":
        process, encoded, log_weight = as_they_are(process, encoded)
    kind = registry.density_class(config)
    process = kind.adapt(process, config)
    about_variations = {}
    if sample.variations is not None:
        seconds = config.training.variations_share * clock.seconds
        about_variations = regress(
            process, sample, out, resume, seconds, config.seed, device, progress
        )
    encoded.x = F.pad(encoded.x, (0, process.n_coordinates - encoded.x.shape[1]))
    if not kind.learns_rates:
        encoded.weight = evened(process, encoded.subprocess, encoded.weight)
    effective, negative = effective_number(encoded.weight), encoded.weight < 0
    order, held_out = split(encoded.weight, config.training.validation_fraction, config.seed)
    training, validation = encoded[order], encoded[torch.from_numpy(np.flatnonzero(held_out))]
    if not validation.weight.sum() > 0:
        raise SampleError(
            "the weights of the events held out do not have a positive sum",
            remedy="take more events, or hold out more (training.validation_fraction)",
        )
    biased = (
        None
        if log_weight is None
        else [
            (part, log_weight[rows])
            for part, rows in ((training, order), (validation, torch.from_numpy(held_out)))
        ]
    )
    validation.weight = validation.weight / validation.weight.mean()
    torch.manual_seed(config.seed)
    surrogate = Surrogate(process, config)
    surrogate.fit_standardization(training)
    if config.training.max_events:
        keep_rates = surrogate.density.learns_rates
        training = thinned(process, training, config.training.max_events, keep_rates)
    if config.training.reflect:
        check_reflection(process, training)
    n_events = round(effective_number(training.weight))  # a mirror image is no further event
    training, symmetries = _with_images(training, process, run, config.training)
    rate = None
    if config.training.channel_power < 1:
        how = config.training.channel_power, config.training.channel_boost
        rate = draw_rates(process, training.subprocess, *how)
        if not surrogate.density.learns_rates:  # judged as it is trained
            validation.weight *= draw_rates(process, validation.subprocess, *how)
    surrogate.density.before_training(training, rate)
    task = SurrogateTask(
        surrogate, training, validation, device=device, n_events=n_events, rate=rate
    )
    settings = clock.for_network(config.training)
    trainer = Trainer(task, settings, seed=config.seed, directory=out, progress=progress)
    if resume and trainer.resume():
        log.info("resumed at step %d", trainer.step)
    if config.training.classifier_rounds:
        refine(trainer, process, run, training, validation)
    else:
        trainer.run()
    about_weights = {}
    if biased is not None and surrogate.event_weights is not None:
        seconds = clock.for_closing() / 2
        about = _learn_weights(surrogate, process, biased, config.seed, seconds, device)
        run = weighted_run(run, float(surrogate.event_weights.largest))
        about_weights = {"event_weights": about}
    seconds = clock.for_closing() / 2
    _calibrate(task, process, training, config.seed, seconds, progress)
    acceptance = measure_acceptance(
        surrogate, process, device, config.seed, clock.for_closing(), progress
    )
    facts = {
        "sample_sha256": sample.fingerprint,
        "sample_files": list(sample.files),
        "events": len(encoded),
        "validation_events": len(validation),
        "effective_events": round(effective),
        "negative_weights": round(float(negative.double().mean()), 6),
        "bad_events_skipped": sample.n_skipped,
        "steps": trainer.step,
        "training_seconds": round(trainer.seconds, 1),
        "validation_loss": trainer.best_loss,
        "acceptance": acceptance,
        "parameters": surrogate.n_parameters,
        **symmetries,
        **about_weights,
        **about_variations,
        "auxiliary_fractions": auxiliary_fractions(process, encoded),
        "not_learned": list(sample.not_learned),
        "device": str(device),
        "threads": torch.get_num_threads(),
    }
    save_model(out, surrogate, process, config, run, facts)
    remove(out, PLAN, CHECKPOINT)
    return surrogate, process, config, run, facts, device


def _learn_weights(
    surrogate: Surrogate,
    process: Process,
    parts: Sequence[tuple[Encoded, Tensor]],
    seed: int,
    seconds: float,
    device: torch.device,
) -> dict[str, float | str]:
    """Learn the weights of a biased sample, from training and held-out events."""
    assert surrogate.event_weights is not None
    prepared = []
    for encoded, log_weight in parts:
        encoded = Encoded(*(getattr(encoded, f.name).to(device) for f in fields(Encoded)))
        z = surrogate.density.prepare(encoded.x, encoded.subprocess)
        prepared.append(Biased(z, encoded, log_weight.to(device)))
    training, validation = prepared
    return surrogate.event_weights.learn(process, training, validation, seconds, seed)


@contextmanager
def claimed(directory: Path, *, resume: bool, force: bool) -> Iterator[None]:
    """The directory is ours, and ours alone while the context lasts, or `OutputError`."""
    with naming(directory):
        running = (directory / PLAN).exists()
    if not running:  # nothing is written into a directory that is something else
        claim(directory, resume=resume, force=force)
    with DirectoryLock(directory):
        claim(directory, resume=resume, force=force)
        yield


def claim(directory: Path, *, resume: bool, force: bool) -> None:
    """Make the directory ours, or say why not."""
    with naming(directory):
        if os.path.lexists(directory) and not directory.is_dir():
            raise OutputError("is a file", path=directory, remedy="choose another --out")
        names = set(os.listdir(directory)) if directory.is_dir() else set()
    names = {name for name in names if not is_unfinished(name)}
    if resume and CONFIG in names and PLAN not in names:
        raise OutputError(
            "its training is finished", path=directory, remedy="add --force to train anew"
        )
    if names and not (resume or force):
        unfinished = PLAN in names
        raise OutputError(
            "holds an unfinished training" if unfinished else "exists already",
            path=directory,
            remedy="add --resume to go on with it" if unfinished else "add --force to replace it",
        )
    if names and not names & {CONFIG, PLAN, HISTORY, CHECKPOINT}:
        raise OutputError(
            "holds other things than a model", path=directory, remedy="choose another --out"
        )
    with naming(directory):
        directory.mkdir(parents=True, exist_ok=True)


def _output_run(run: RunInfo, process: Process, fingerprint: str) -> RunInfo:
    """Run information of generated events: the sample's, without what describes its file.

    A process of the run whose weights do not add up to a rate is not generated; the others
    share its cross section, so that the whole stays. Where the sample's format declares no
    processes, they get the parts of their events.
    """
    made: dict[int, float] = {}
    for s in process.subprocesses:
        number = s.structure.process_id
        made[number] = made.get(number, 0.0) + s.frequency
    if not process.is_reconstructed:
        run = declared(run, made)
    left = [p for p in run.processes if p.process_id in made]
    rest = sum(p.cross_section for p in left)
    if left and rest > 0 and len(left) < len(run.processes) and not process.is_reconstructed:
        run = run.with_(processes=tuple(
            replace(p, cross_section=p.cross_section * run.cross_section / rest) for p in left
        ))  # fmt: skip
    strategy = -4 if abs(run.weight_strategy) == 4 and run.cross_section > 0 else 3
    top = run.cross_section if strategy == -4 else 1.0
    processes = tuple(type(p)(p.process_id, p.cross_section, p.error, top) for p in run.processes)
    text = f"trained on a sample with SHA-256 {fingerprint}"
    return run.with_(
        weight_strategy=strategy,
        processes=processes,
        generators=(*run.generators, ("hepgen-ml", __version__, text)),
        weight_groups="",
        weight_names={},
        weight_cross_sections={},
        significant_digits=None,
    )


def _write_plan(directory: Path, fingerprint: str, config: Config) -> None:
    """Remember what a training began with, so that it can be resumed."""
    document = {"sample_sha256": fingerprint, "config": config.model_dump()}
    write_text(directory / PLAN, json.dumps(document))


def _check_plan(directory: Path, fingerprint: str, config: Config) -> Config:
    """What a training was begun with; refuses to resume it with anything else."""
    path = directory / PLAN
    try:
        document = documents.read(path)
        same_sample = document["sample_sha256"] == fingerprint
        before = Config.model_validate(document["config"])
    except (OSError, *documents.UNUSABLE) as error:
        raise ModelError(
            f"is damaged: {documents.problem(error)}", path=path, remedy="start again with --force"
        ) from None
    if not same_sample:
        raise SampleError(
            "was begun with another sample", path=directory, remedy="give the same files as before"
        )
    fixed = ("model", "network", "resonances", "find_cuts", "seed")
    events = (
        "validation_fraction", "max_events", "channel_power", "channel_boost", "batch_size",
        "exchange_beams", "reflect", "weights", "classifier_rounds", "classifier_power",
        "variations",
    )  # fmt: skip
    if (
        any(getattr(before, name) != getattr(config, name) for name in fixed)
        or any(getattr(before.training, name) != getattr(config.training, name) for name in events)
        or before.fixed_settings() != config.fixed_settings()
    ):
        raise UsageError(
            "was begun with another network, model, seed, resonances, search for cuts or choice of "
            "events",
            path=directory,
            remedy="give the same configuration as before, or start again with --force",
        )
    return before


def thinned(process: Process, training: Encoded, most: int, keep_rates: bool) -> Encoded:
    """At most so many training events of each channel, chosen at random.

    Parameters
    ----------
    process : Process
    training : Encoded
    most : int
    keep_rates : bool
        Give the events that remain the weight of those that do not, those of negative weight for
        themselves, for models that learn the rates of channels. The others take rates from the
        process, and each channel's density is the same whatever its share; they then see all
        multiplicities more evenly.
    """
    channel_of = process.channel_of[training.subprocess]
    rng = np.random.default_rng(len(training))
    kept = []
    for c in torch.unique(channel_of).tolist():
        rows = torch.nonzero(channel_of == c).squeeze(-1)
        if len(rows) <= most:
            kept.append(rows)
            continue
        below = training.weight[rows] < 0
        n_below = round(most * int(below.sum()) / len(rows))
        for alike, n in ((rows[~below], most - n_below), (rows[below], n_below)):
            chosen = alike[torch.from_numpy(rng.permutation(len(alike))[:n])]
            if keep_rates and n:
                training.weight[chosen] *= (
                    training.weight[alike].sum() / training.weight[chosen].sum()
                )
            kept.append(chosen)
    some = training[torch.cat(kept).sort().values]
    some.weight /= some.weight.mean()
    return some


def _with_images(
    training: Encoded, process: Process, run: RunInfo, config: TrainingConfig
) -> tuple[Encoded, dict[str, str]]:
    """Training events and their images under the symmetries that hold, and what was found."""
    said = {"beam_exchange": "not used", "reflection": "not used"}
    if not has_exchange(run, process):
        equal = has_equal_beams(run)
        said["beam_exchange"] = "not used: " + (
            "the total momentum is fixed" if equal else "the beams differ"
        )
    elif config.exchange_beams and looks_symmetric(process, training):
        symmetrize_frequencies(process)
        training = _doubled(training, *exchanged_beams(process, training))
        said["beam_exchange"] = "holds: trained on mirror images too"
    elif config.exchange_beams:
        log.warning("beams are equal but the events favour one side: no mirror images are used")
        said["beam_exchange"] = "does not hold: the events favour one side"
    if config.reflect:
        training = _doubled(training, *reflected(process, training))
        said["reflection"] = "holds: trained on reflected events too"
    return training, said


def _doubled(training: Encoded, mirrored: Encoded, possible: Tensor) -> Encoded:
    """Training events and their mirror images, each event with its weight in all."""
    training.weight[possible] /= 2
    mirrored.weight /= 2
    both = Encoded.join([training, mirrored])
    # Mixed, so that any part of it is typical.
    order = np.random.default_rng(len(both)).permutation(len(both))
    both = both[torch.from_numpy(order)]
    both.weight /= both.weight.mean()
    return both


@torch.no_grad()
def _calibrate(
    task: SurrogateTask,
    process: Process,
    training: Encoded,
    seed: int,
    seconds: float,
    progress: Progress | None,
) -> None:
    """Make the mean of the predicted probabilities equal the sample's fractions.

    By as many events as there is time for, see `_CALIBRATION_EVENTS` and `_MOST_GENERATED`.
    """
    surrogate, data, d = task.module, task.train, task.train.discrete
    order = np.random.default_rng(seed).permutation(len(data))[:_CALIBRATION_EVENTS]
    some = torch.from_numpy(order).to(task.device)
    surrogate.eval()
    if progress is not None:
        progress("calibrate", 0, 1, {})
    density = surrogate.density
    generator = torch.Generator(device=task.device).manual_seed(seed + 1)
    most = min(len(data), _MOST_GENERATED)
    if density.learns_rates:
        most = _affordable(lambda n: density.sample_events(n), most, seconds / 2)
    density.after_training(training, process.inside, generator, most)

    def predicted(rows: Tensor) -> None:
        discrete = Discrete(d.pattern[rows], d.branch[rows], d.free[rows])
        z, invariants = data.z[rows], data.invariants[rows]
        surrogate.heads.log_prob(z, invariants, data.subprocess[rows], discrete)

    some = some[: _affordable(lambda n: predicted(some[:n]), len(some), seconds / 2)]
    surrogate.heads.calibrate(
        data.z[some],
        data.invariants[some],
        data.subprocess[some],
        Discrete(d.pattern[some], d.branch[some], d.free[some]),
        data.weight[some],
    )
    if progress is not None:
        progress("calibrate", 1, 1, {})


def _affordable(work: Callable[[int], object], most: int, seconds: float) -> int:
    """Events that some work can be done for within a time, by a trial with a few of them."""
    if most <= _TRIAL:
        return most
    work(_TRIAL // 8)  # the first call pays for what is made once
    begun = time.monotonic()
    work(_TRIAL)
    rate = _TRIAL / max(time.monotonic() - begun, 1e-9)
    return int(min(max(seconds * rate, _TRIAL), most))


@torch.no_grad()
def measure_acceptance(
    surrogate: Surrogate,
    process: Process,
    device: torch.device,
    seed: int,
    seconds: float = math.inf,
    progress: Progress | None = None,
) -> list[float]:
    """Fraction of each channel's draws that obey all cuts.

    What a generator keeps of the density; without it, the density of generated
    events would not be normalised.

    Parameters
    ----------
    surrogate, process, device, seed
    seconds : float
        Where many channels would take longer, fewer draws are made of each.
    progress : callable, optional
        Called with stage, done, total and an empty dict.
    """
    surrogate.eval()
    generator = torch.Generator(device=device).manual_seed(seed)
    if surrogate.density.learns_rates:
        return surrogate.density.acceptance(process.inside, _ACCEPTANCE_EVENTS, generator)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2,)))
    if len(process.channels) > _FEW_CHANNELS:
        return acceptance_together(
            surrogate, process, device, rng, generator, _ACCEPTANCE_EVENTS, seconds, progress
        )
    channel_of, fractions = process.channel_of.numpy(), []
    begun, n_channels, n, n_drawn = time.monotonic(), len(process.channels), _ACCEPTANCE_EVENTS, 0
    for c in range(n_channels):
        if n_drawn:
            taken = time.monotonic() - begun
            # what is left, by the time of one draw so far, for each of the channels to come
            affordable = max(seconds - taken, 0.0) / (taken / n_drawn * (n_channels - c))
            n = int(min(max(affordable, _FEWEST_DRAWS), _ACCEPTANCE_EVENTS))
        n_drawn += n
        if progress is not None:
            progress("acceptance", c, n_channels, {})
        p = np.where(channel_of == c, process.frequencies, 0.0)
        drawn = rng.choice(len(p), n, p=p / p.sum())
        subprocess = torch.from_numpy(drawn)
        x = surrogate.density.sample(subprocess.to(device), generator)
        passes = process.kinematics(x, subprocess, torch.zeros(len(x))).passes
        # Half an event where there is none, so that the logarithm is finite.
        fractions.append(max(float(passes.sum()), 0.5) / len(x))
    return fractions
