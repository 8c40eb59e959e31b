"""Events that break a law: counts by law, the first event, and the bias from leaving them out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hepgen_ml.errors import SampleError
from hepgen_ml.events.laws.checks import broken_laws
from hepgen_ml.events.sample import EventSample
from hepgen_ml.events.summary import Flavors, SampleSummary, process_name

BoolArray = npt.NDArray[np.bool_]

TOLERANCE = 1e-4
"""Violation of a conservation law, relative to the beam energy, that makes an event useless
for training. Rounding of printed momenta is far below; generated events are exact."""

COLORS = "colour connection"
"""Name of the law of colour lines."""

OFF_AXIS = "incoming particles off the beam axis"
_AXIS_TOLERANCE = 1e-6  # transverse momentum of an incoming particle relative to its energy
_HARMLESS = 0.01  # part of the events of a final state that may be left out
_FEW = 5  # number of bad events of a final state that is not significant


def has_colors(chunk: EventSample) -> bool:
    """Whether any particle has a colour tag; some generators write no tags."""
    return any(np.any(chunk.particles.get(name, 0)) for name in ("color1", "color2"))


def find_defects(chunk: EventSample, *, any_colors: bool = False) -> dict[str, BoolArray]:
    """Events (n,) that cannot be used in training, by defect; empty without defects.

    Colour lines are not judged with `any_colors`, see `DefectCounter.of_colors`.
    """
    ignore = [] if has_colors(chunk) and not any_colors else [COLORS]
    found = broken_laws(chunk, chunk.run, tolerance=TOLERANCE, ignore=ignore)
    off = _off_axis(chunk)
    if off.any():
        found[OFF_AXIS] = off
        if "incoming particles" in found:
            found["incoming particles"] &= ~off
    return {name: bad for name, bad in found.items() if bad.any()}


def _off_axis(chunk: EventSample) -> BoolArray:
    """Events whose incoming particles have transverse momentum; no law forbids it."""
    p = chunk.particles
    rows = np.flatnonzero(p["status"] == -1) if "status" in p else np.zeros(0, dtype=np.int64)
    with np.errstate(invalid="ignore"):
        size = np.maximum(np.abs(p["px"][rows]), np.abs(p["py"][rows]))
        off = rows[size > _AXIS_TOLERANCE * np.abs(p["energy"][rows])]
    result = np.zeros(len(chunk), dtype=bool)
    result[chunk.event_index[off]] = len(off) > 0
    return result


class DefectCounter:
    """Counts bad events over a sample, by law and by final state."""

    def __init__(self) -> None:
        self.n_events = self.n_bad = 0
        self.laws: Counter[str] = Counter()
        self.first: tuple[Path | None, int | None] | None = None
        self._all, self._bad = SampleSummary(), SampleSummary()

    def add(
        self,
        chunk: EventSample,
        found: dict[str, BoolArray],
        path: Path | None,
        position: int | None,
    ) -> None:
        """Take in a chunk whose first event is number `position` of its file, from 0."""
        self.n_events += len(chunk)
        self._all.add(chunk)
        if not found:
            return
        bad = np.any(list(found.values()), axis=0)
        self.n_bad += int(bad.sum())
        self.laws.update({name: int(mask.sum()) for name, mask in found.items()})
        if self.first is None:
            event = None if position is None else position + int(np.argmax(bad)) + 1
            self.first = path, event
        self._bad.add(chunk[bad])

    @property
    def bias(self) -> str:
        """Sentence on the bias from leaving out the bad events; empty if it is small."""
        flavors = self._worst()
        if flavors is None:
            return ""
        n, bad = self._all.subprocesses[flavors], self._bad.subprocesses[flavors]
        return (
            f"{_percent(self.n_bad, self.n_events)} of all events and {_percent(bad, n)} of those "
            f"of {process_name(*flavors[:2])}"
        )

    @property
    def of_colors(self) -> str:
        """Sentence on colour lines that do not connect, if that is how the program writes them.

        That is so if most events are like that, and there are no other defects. Empty otherwise.
        """
        if set(self.laws) != {COLORS} or 2 * self.n_bad <= self.n_events:
            return ""
        return (
            f"colour lines of {_percent(self.n_bad, self.n_events)} of the events do not connect "
            "(see `hepgen-ml check`): they are learned as they are, and Pythia makes no hadrons of "
            "such events"
        )

    def _worst(self) -> Flavors | None:
        """Final state with the largest loss, None if no loss causes a bias."""
        every, bad = self._all.subprocesses, self._bad.subprocesses
        lost = {key: n / max(every[key], n) for key, n in bad.items()}
        if not lost:
            return None
        worst = max(lost, key=lambda key: (lost[key], bad[key]))
        biased = [key for key, part in lost.items() if part > _HARMLESS and bad[key] >= _FEW]
        if biased:
            return max(biased, key=lambda key: (lost[key], bad[key]))
        return worst if self.n_bad > _HARMLESS * self.n_events else None

    def error(self) -> SampleError:
        """Message about the defects of a sample that is refused."""
        assert self.first is not None
        laws = ", ".join(f"{name} {n:,}" for name, n in self.laws.most_common())
        if set(self.laws) == {OFF_AXIS}:
            what, remedy = f"has {OFF_AXIS}", "this is not supported in training"
        else:
            what, remedy = f"breaks a law ({laws})", "see `hepgen-ml check`"
            if self.laws[OFF_AXIS]:
                remedy += "; transverse momentum of incoming particles is not supported"
        if self.bias:
            remedy += f"; leaving such events out would bias the sample, by {self.bias}"
        else:
            part = _percent(self.n_bad, self.n_events)
            remedy += f"; --skip-bad leaves such events out, {part} of all"
        path, event = self.first
        which = "the only one" if self.n_bad == 1 else f"the first of {self.n_bad:,}"
        return SampleError(
            f"{what}, {which} among {self.n_events:,} events",
            path=path,
            event=event,
            remedy=remedy,
        )

    def warning(self) -> str:
        """Message about the events that were left out."""
        laws = ", ".join(f"{name} {n:,}" for name, n in self.laws.most_common())
        text = f"left out {self.n_bad:,} bad events of {self.n_events:,} ({laws})"
        return f"{text}; that biases the sample, by {self.bias}" if self.bias else text


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.3g} %"


def count_defects(chunks: Iterable[tuple[EventSample, Path | None, int | None]]) -> DefectCounter:
    """Defects of all chunks of a sample, each with its file and its first event there."""
    counter = DefectCounter()
    for chunk, path, position in chunks:
        counter.add(chunk, find_defects(chunk), path, position)
    return counter
