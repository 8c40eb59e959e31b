"""Reading a sample into tensors, in two passes over its chunks."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hepgen_ml.errors import SampleError
from hepgen_ml.events.conditions import Wanted
from hepgen_ml.events.laws.particle_ids import taken_as_neutral
from hepgen_ml.events.objects import NamedResonance, Selection
from hepgen_ml.events.sample import EventSample, RunInfo, concatenate
from hepgen_ml.events.source import EventSource, Progress
from hepgen_ml.events.weights import compare_mean, effective_size
from hepgen_ml.process.auxiliary import AUXILIARY
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.inside import Cuts, inside_cuts, parsed
from hepgen_ml.process.learner import ProcessLearner
from hepgen_ml.process.process import Process
from hepgen_ml.training.clock import Stopwatch
from hepgen_ml.training.defects import DefectCounter, count_defects, find_defects, has_colors
from hepgen_ml.training.drawing import evened
from hepgen_ml.training.variations import VariationCollector

log = logging.getLogger(__name__)

_PER_CHANNEL, _TOGETHER = 100, 25_000
"""Number of events of each channel that are encoded together, and largest number in total."""

MIN_EVENTS = 1000
"""Minimum number of events to learn a density."""


class SampleSource(EventSource):
    """A sample to train on: only its good events.

    Parameters
    ----------
    source : EventSample, or path or glob pattern or several of these
    skip_bad : bool
        Leave out events that are malformed or break a conservation law.
    selection : Selection, optional
        Objects to read.
    cuts : sequence of Cut or str
        Other events are left out.
    conditions : sequence of Wanted
        Conditions of the density.

    Attributes
    ----------
    n_skipped : int
        Bad events left out in the latest pass.
    has_colors : bool
        False if there are events without any colour tags.
    odd_colors : str
        Sentence on colour lines that do not connect, if the sample as a whole is like that.
    defects : DefectCounter
        Bad events of the latest pass, with ``skip_bad``.
    not_learned : list of str
        Sentences about properties that `learn_process` and `encode_all` leave out.
    reading : Stopwatch
        Of the time in which files are read.
    """

    has_colors, odd_colors = True, ""
    keeps_empty = False  # a density needs at least one object

    def __init__(
        self,
        source: EventSample | str | Path | Sequence[str | Path],
        *,
        skip_bad: bool = False,
        selection: Selection | None = None,
        cuts: Cuts = (),
        conditions: Sequence[Wanted] = (),
    ) -> None:
        self.cuts = parsed(cuts)
        self.not_learned: list[str] = []
        self.reading = Stopwatch()
        inside = inside_cuts(self.cuts)
        super().__init__(
            source, skip_bad=skip_bad, selection=selection, inside=inside, conditions=conditions,
            hard=True,
        )  # fmt: skip

    def chunks(self) -> Iterator[EventSample]:
        """Good events, chunk by chunk, with weights proportional to their cross section."""
        return self.reading.timed(self._good())

    def _good(self) -> Iterator[EventSample]:
        n_good = position = file = 0
        self.defects = DefectCounter()
        for number, chunk in self.raw():
            if number != file:
                position, file = 0, number
            # reconstructed objects obey no conservation laws
            odd = bool(self.odd_colors)
            found = {} if chunk.is_reconstructed else find_defects(chunk, any_colors=odd)
            if found and not self.skip_bad:
                found = self._refuse_or_accept()
            if self.skip_bad:
                self.defects.add(chunk, found, self._path(number), self._position(position))
            position += len(chunk)
            self.has_colors &= has_colors(chunk) or not len(chunk)
            good = chunk[~np.any(list(found.values()), axis=0)] if found else chunk
            self.n_skipped += len(chunk) - len(good)
            n_good += len(good)
            yield self.joined(number, good)
        if self.n_skipped > n_good:
            raise SampleError(
                f"{self.n_skipped} bad events and {n_good} good ones", path=self._path(0),
                remedy="this sample is not usable; see `hepgen-ml check`")  # fmt: skip

    def _refuse_or_accept(self) -> dict[str, npt.NDArray[np.bool_]]:
        """No defects, if colour lines that do not connect are how the program writes them."""
        every = copy(self)._all_defects()  # a pass beside the present one
        self.odd_colors = every.of_colors
        if not self.odd_colors:
            raise every.error()
        return {}

    def _all_defects(self) -> DefectCounter:
        """Defects of the whole sample, in a separate pass, as one bad event is not conclusive."""

        def placed() -> Iterator[tuple[EventSample, Path | None, int | None]]:
            position = file = 0
            for number, chunk in self.raw():
                if number != file:
                    position, file = 0, number
                yield chunk, self._path(number), self._position(position)
                position += len(chunk)

        return count_defects(placed())

    def _path(self, number: int) -> Path | None:
        return self.paths[number] if self.paths else None

    def _position(self, position: int) -> int | None:
        """Number of an event in its file; unknown with cuts."""
        return None if self.cuts else position

    def fingerprint(self) -> str:
        """SHA-256 of the files' bytes, selection and cuts, or of momenta in memory."""
        digest = hashlib.sha256()
        for choice in (self.selection, self.cuts, self.conditions):
            if choice:
                digest.update(repr(choice).encode())
        if self.sample is not None:
            digest.update(self.sample.momentum.tobytes())
        for path in self.paths:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()


def learn_process(
    source: SampleSource,
    *,
    seed: int,
    resonances: Sequence[NamedResonance] = (),
    find_cuts: bool = True,
    progress: Progress | None = None,
) -> Process:
    """First pass: the process of a sample.

    Raises
    ------
    SampleError
        Empty or too small a sample, weights without a positive sum, events that are not
        parton level.
    """
    with source.reading:
        source.weigh_groups()
    learner = ProcessLearner(
        seed, source.cuts, resonances, find_cuts=find_cuts, conditions=source.conditions
    )
    moments = np.zeros(3)
    for chunk in source.chunks():
        learner.add(chunk)
        moments += len(chunk), chunk.weight.sum(), (chunk.weight**2).sum()
        if progress is not None:
            progress("read", learner.n_events, None, {})
    if learner.n_events < MIN_EVENTS:
        raise SampleError(
            f"{learner.n_events} events are too few to learn a density from"
            + (
                f" ({source.n_unselected} others were left out by their objects or by cuts)"
                if source.n_unselected
                else ""
            ),
            path=source.paths[0] if source.paths else None,
            remedy=f"use at least {MIN_EVENTS}",
        )
    process = learner.process(
        source.run.beam_energy,
        lambda done, total: progress("formulas", done, total, {}) if progress else None,
        source.scan_cross_sections,
    )
    ids = {i for s in process.subprocesses for i in s.structure.pdg_id}
    neutral = [] if process.is_reconstructed else taken_as_neutral(ids, source.run.header)
    numbers = {s.structure.process_id for s in process.subprocesses}
    if not process.is_reconstructed:
        neutral += source.run.without_events(numbers, learner.n_events)
    outside = source.hard_process.left_out if source.hard_process is not None else []
    odd = [source.odd_colors] if source.odd_colors else []
    source.not_learned = [*learner.not_learned, *neutral, *outside, *odd]
    for text in source.not_learned:
        log.warning("%s", text)
    if not with_mean_weight(source, process).cross_section > 0:
        log.warning(
            "the cross section is not known: generated events have weight 1 and state none (give "
            "it with --cross-section)"
        )
    one_run = source.n_groups == 1 and not source.n_unselected and source.states_strategy
    if one_run and abs(source.run.weight_strategy) == 4:
        compare_mean(source.run, *moments)
    colored = any(abs(i) <= 6 or i == 21 for s in process.subprocesses for i in s.structure.pdg_id)
    if colored and not source.has_colors:
        log.warning(
            "the sample has no colour flow, so generated events have none and Pythia cannot shower "
            "them; HepMC3 files of the generator's own shower can be learned with --objects"
        )
    if source.defects.n_bad:
        log.warning("%s", source.defects.warning())
    if n_unreadable := source.n_skipped - source.defects.n_bad:
        log.warning("left out %d events that cannot be read", n_unreadable)
    if source.n_unselected:
        sigma = source.run.cross_section
        log.warning(
            "left out %s events by their objects or by cuts%s",
            f"{source.n_unselected:,}",
            "" if math.isnan(sigma) else
            f"; the cross section is that of the {source.n_events:,} selected ones, {sigma:g} pb",
        )  # fmt: skip
    return process


def with_mean_weight(source: SampleSource, process: Process) -> RunInfo:
    """The run with the mean weight in pb as cross section, if only weights state it.

    Some generators write a cross section of -1 with strategy 4, or none, which says that it is the
    mean weight. Processes have the shares of their events.
    """
    run, mean = source.run, source.mean_weight
    if abs(run.weight_strategy) != 4 or run.cross_section > 0 or not mean > 0:
        return run
    if not source.states_strategy:  # weights of any scale do not determine it
        return run
    log.info("the file states no cross section: the mean weight, %.6g pb, is taken", mean)
    share = {p.process_id: 0.0 for p in run.processes}
    for s, frequency in zip(process.subprocesses, process.frequencies, strict=True):
        share[s.structure.process_id] = share.get(s.structure.process_id, 0.0) + float(frequency)
    processes = tuple(replace(p, cross_section=mean * share[p.process_id], error=np.nan)
                      for p in run.processes)  # fmt: skip
    return run.with_(processes=processes)


def encode_all(
    source: SampleSource,
    process: Process,
    *,
    variations: VariationCollector | None = None,
    progress: Progress | None = None,
) -> Encoded:
    """Second pass: all events as tensors, weights averaging to one; `variations` gathers others."""
    parts, n_events, n_unknown = [], 0, 0
    for chunk in _joined(source.chunks(), min(_PER_CHANNEL * len(process.channels), _TOGETHER)):
        parts.append(process.encode(chunk))
        if variations is not None:
            variations.add(chunk, parts[-1].event.numpy(), sum(map(len, parts[:-1])))
        n_events += len(chunk)
        lost_rows = np.delete(np.arange(len(chunk)), parts[-1].event.numpy())
        n_unknown += int(_is_unknown(chunk)[lost_rows].sum())
        if progress is not None:
            progress("encode", n_events, None, {})
    if not any(map(len, parts)):
        raise SampleError(
            "no event belongs to the process",
            path=source.paths[0] if source.paths else None,
            remedy="compare `hepgen-ml info` of the sample and of the model",
        )
    encoded = Encoded.join(parts)
    lost = n_events - len(encoded)
    if lost:
        text = f"{lost} of {n_events} events could not be translated and are left out"
        if n_unknown:
            text += f", {n_unknown} of them without a positive scale or coupling"
        source.not_learned.append(text)
        log.warning("%s", text)
    if not encoded.weight.sum() > 0:
        raise SampleError(
            "the weights of its events do not have a positive sum",
            path=source.paths[0] if source.paths else None,
            remedy="a density needs a positive cross section; take more events",
        )
    encoded.weight /= encoded.weight.mean()
    effective = effective_size(evened(process, encoded.subprocess, encoded.weight))
    if effective < 0.99 * len(encoded):
        negative = float((encoded.weight < 0).double().mean())
        log.warning(
            "the events have different weights%s: effective sample size %.0f of %d",
            f", {100 * negative:.3g} % of them negative" if negative else "",
            effective,
            len(encoded),
        )
    return encoded


def _joined(chunks: Iterable[EventSample], size: int) -> Iterator[EventSample]:
    """Chunks joined to at least so many events, unless columns change."""
    waiting: list[EventSample] = []
    for chunk in chunks:
        if waiting and (
            sum(map(len, waiting)) >= size
            or waiting[0].particles.keys() != chunk.particles.keys()
            or waiting[0].events.keys() != chunk.events.keys()
        ):
            yield concatenate(waiting)
            waiting = []
        waiting.append(chunk)
    if waiting:
        yield concatenate(waiting)


def _is_unknown(chunk: EventSample) -> npt.NDArray[np.bool_]:
    """Events (n,) with a scale or coupling that is not positive, unlike that of others."""
    unknown = np.zeros(len(chunk), dtype=bool)
    for name in AUXILIARY:
        value = chunk.events.get(name, np.ones(len(chunk)))
        unknown |= (value <= 0) & (value > 0).any()
    return unknown
