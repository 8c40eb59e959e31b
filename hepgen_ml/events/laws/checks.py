"""Are these events physics? Conservation laws of a sample, judged chunk by chunk.

Every law is judged for every event; nothing is repaired. Downstream programs cannot replace the
test: a shower program silently rebuilds inconsistent beams, energies and masses.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import numpy as np

from hepgen_ml.events.hard_process import HardProcess
from hepgen_ml.events.laws.chunk import DEFAULT_TOLERANCE, BoolArray, Chunk
from hepgen_ml.events.laws.chunk_laws import LAWS, Law, Verdict
from hepgen_ml.events.laws.normalization import Normalization
from hepgen_ml.events.laws.particle_ids import ids_of
from hepgen_ml.events.sample import EventSample, FloatArray, RunInfo

_NAMED = 5  # ids that a text names

__all__ = ["DEFAULT_TOLERANCE", "LawResult", "bad_events", "check_sample"]


@dataclass(frozen=True)
class LawResult:
    """Result of testing one law on a sample.

    Attributes
    ----------
    name : str
    n_events : int
        Events judged.
    n_broken : int
        Events that break the law; for the normalisation of the sample 0 or 1.
    worst_event : int or None
        Number of the event that deviates most, counted from 1 in the order of the file.
    worst_value : float
        Its deviation; infinite where the record itself is malformed.
    tolerance : float
        Deviation that was allowed there.
    text : str
        All this in one line.
    judged : bool
        False if the sample lacks the information that the law needs; `text` names it.
    """

    name: str
    n_events: int
    n_broken: int
    worst_event: int | None
    worst_value: float
    tolerance: float
    text: str
    judged: bool = True


@dataclass
class _Tally:
    """One law over the chunks so far."""

    law: Law
    n_events: int = 0
    n_broken: int = 0
    worst_event: int | None = None
    worst_value: float = 0.0
    worst_tolerance: float = 0.0
    worst_score: float = -1.0
    missing: str = ""
    given: bool = False
    doubtful: set[int] = field(default_factory=set)
    unjudged: list[tuple[int, int]] = field(default_factory=list)  # first event and number

    def add(self, chunk: Chunk, first: int) -> None:
        reason = _missing(self.law, chunk)
        if reason:
            self.missing = reason
            if self.unjudged and sum(self.unjudged[-1]) == first:
                self.unjudged[-1] = (self.unjudged[-1][0], self.unjudged[-1][1] + chunk.n)
            elif len(self.unjudged) < 1000:
                self.unjudged.append((first, chunk.n))
            return
        self.given = self.given or self.law.given is None or self.law.given(chunk)
        if self.law.doubt is not None and len(self.doubtful) < 1000:
            self.doubtful.update(self.law.doubt(chunk))
        value, allowed = self.law.judge(chunk)
        self.n_events += chunk.n
        self.n_broken += int(_broken(value, allowed).sum())
        if not chunk.n:
            return
        # laws that count have no tolerance; the largest deviation is the worst
        score = np.where(allowed > 0, value / np.maximum(allowed, 1e-300), value)
        i = int(np.argmax(score))
        if score[i] > self.worst_score:
            self.worst_score, self.worst_event = float(score[i]), first + i + 1
            self.worst_value, self.worst_tolerance = float(value[i]), float(allowed[i])

    def result(self) -> LawResult:
        law = self.law
        if self.n_events == 0:
            text = f"not judged: {self.missing or 'no events'}"
            return LawResult(law.name, 0, 0, None, 0.0, 0.0, text, judged=False)
        if self.n_broken and not self.given:
            return LawResult(law.name, 0, 0, None, 0.0, 0.0, law.not_given, judged=False)
        if self.unjudged:
            # some events have incoming particles and these have none: that is a defect of theirs
            self.n_events += sum(n for _, n in self.unjudged)
            self.n_broken += sum(n for _, n in self.unjudged)
            if not np.isinf(self.worst_value):
                self.worst_event, self.worst_value = self.unjudged[0][0] + 1, np.inf
        worst = self.worst_event if self.worst_value > 0 else None
        return LawResult(
            law.name,
            self.n_events,
            self.n_broken,
            worst,
            self.worst_value,
            self.worst_tolerance,
            self._text(worst) + self._doubts(),
        )

    def _doubts(self) -> str:
        if not self.doubtful:
            return ""
        some = sorted(self.doubtful)
        names = ", ".join(map(str, some[:_NAMED])) + (", ..." if len(some) > _NAMED else "")
        return f"; {self.law.doubts.format(names)}"

    def _text(self, worst: int | None) -> str:
        counting = self.worst_tolerance == 0.0 and not self.law.unit.startswith("of ")
        if np.isinf(self.worst_value):
            size = "malformed record"
        elif counting:
            size = f"{self.worst_value:.0f} {self.law.unit}"
        else:
            size = f"{self.worst_value:.2g} {self.law.unit}"
        if not self.n_broken:
            if worst is None or self.worst_value == 0.0:
                return f"{self.n_events} events, exact"
            allowed = f"allowed {self.worst_tolerance:.2g}"
            return f"{self.n_events} events, worst {size} (event {worst}), {allowed}"
        of = f"{self.n_broken} of {self.n_events} events, worst event {worst}: {size}"
        return of if counting else f"{of}, allowed {self.worst_tolerance:.2g}"


def _missing(law: Law, chunk: Chunk) -> str:
    lacking = [name for name in law.columns if name not in chunk.sample.particles]
    if lacking:
        return f"no {', '.join(lacking)} in this sample"
    if law.needs_incoming and chunk.n and not chunk.incoming.any():
        return "no incoming particles in this sample"
    return ""


def _broken(value: FloatArray, allowed: FloatArray) -> BoolArray:
    return ~(value <= allowed)


def check_sample(
    samples: Iterable[EventSample],
    run: RunInfo,
    tolerance: float | None = None,
    *,
    free_weights: bool = False,
) -> list[LawResult]:
    """Judge a sample by every law.

    Parameters
    ----------
    samples : iterable of EventSample
        The chunks of a sample in the order of the file, as a reader yields them.
    run : RunInfo
    tolerance : float, optional
        Allowed deviation of momenta, relative to the beam energy. By default
        `DEFAULT_TOLERANCE`, or what rounding to ``run.significant_digits``
        explains where that is more.
    free_weights : bool
        Whether weights may have any scale and processes need no declaration, as in formats
        other than LHE (`hepgen_ml.events.formats.Format.free_weights`).

    Returns
    -------
    list of LawResult
        In a fixed order. Laws are judged for the collision without what surrounds it
        (`hepgen_ml.events.hard_process`); a last entry says what that is, if anything. The reader
        checks that the file is complete, and raises InputError otherwise.
    """
    tallies = [_Tally(law) for law in LAWS]
    normalization = Normalization(run, free_weights)
    ids = ids_of(run.header)
    hard, first = HardProcess(complete=False), 0
    for sample in map(hard, samples):
        chunk = Chunk(sample, run, tolerance, ids)
        with np.errstate(all="ignore"):  # numbers that are not finite are expected here
            for tally in tallies:
                tally.add(chunk, first)
            normalization.add(sample, first)
        first += len(sample)
    results = [tally.result() for tally in tallies] + [
        LawResult(name, first, broken, worst, value, allowed, text, judged)
        for name, broken, worst, value, allowed, text, judged in normalization.results()
    ]
    return results + [
        LawResult("not judged", 0, 0, None, 0.0, 0.0, text, judged=False) for text in hard.left_out
    ]


def bad_events(
    sample: EventSample,
    run: RunInfo | None = None,
    tolerance: float | None = None,
    *,
    ignore: Collection[str] = (),
) -> BoolArray:
    """Events that break any law of single events.

    Parameters
    ----------
    sample : EventSample
    run : RunInfo, optional
        By default ``sample.run``.
    tolerance : float, optional
        See `check_sample`.
    ignore : collection of str
        Names of laws that do not count.

    Returns
    -------
    (n,) bool array
        Laws that cannot be judged for the sample do not count.
    """
    bad = np.zeros(len(sample), dtype=bool)
    for broken in broken_laws(sample, run or sample.run, tolerance, ignore=ignore).values():
        bad |= broken
    return bad


def broken_laws(
    sample: EventSample,
    run: RunInfo,
    tolerance: float | None = None,
    *,
    ignore: Collection[str] = (),
) -> dict[str, BoolArray]:
    """Events (n,) that break each law, see `bad_events`; laws that all obey are left out."""
    chunk = Chunk(sample, run, tolerance, ids_of(run.header))
    found: dict[str, BoolArray] = {}
    with np.errstate(all="ignore"):
        for law in LAWS:
            if law.name not in ignore and not _missing(law, chunk):
                verdict: Verdict = law.judge(chunk)
                broken = _broken(*verdict)
                if broken.any():
                    found[law.name] = broken
    return found
