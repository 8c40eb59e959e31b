"""Events as inputs of regression networks: momenta, kinds of particles, and a few numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hepgen_ml.errors import SampleError
from hepgen_ml.events.sample import EventSample, IntArray, RunInfo
from hepgen_ml.events.summary import particle_name
from hepgen_ml.files import probe

COLUMNS = ("scale", "alpha_qcd")
"""Event properties on which a target may depend; only those that vary in the training are used."""

MOST_PARTICLES, MOST_KINDS, MOST_SIGNATURES = 64, 500, 100_000

_INCOMING, _FINAL = -1, 1
_EXAMPLES = 8


@dataclass(frozen=True)
class Points:
    """Events, the rows of all tensors.

    Attributes
    ----------
    momenta : (n, k, 4) float64 tensor
        (px, py, pz, E) in GeV, incoming particles first.
    kinds : (n, k, K) float32 tensor
        Kind of each particle as one-hot numbers.
    mask : (n, k) bool tensor
    globals_ : (n, g) float64 tensor
        Logarithms of the `COLUMNS` that count.
    target : (n,) float32 tensor
        Standardised; empty where it is not known.
    """

    momenta: Tensor
    kinds: Tensor
    mask: Tensor
    globals_: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.momenta)

    def __getitem__(self, rows: Tensor | slice) -> Points:
        target = self.target[rows] if len(self.target) else self.target
        return Points(
            self.momenta[rows], self.kinds[rows], self.mask[rows], self.globals_[rows], target
        )

    def to(self, device: torch.device) -> Points:
        """The same on a device."""
        parts = (self.momenta, self.kinds, self.mask, self.globals_, self.target)
        return Points(*(t.to(device) for t in parts))

    @property
    def columns(self) -> tuple[np.ndarray, ...]:
        """All numbers of the events, as arrays."""
        parts = (self.momenta, self.kinds, self.mask, self.globals_, self.target)
        return tuple(t.cpu().numpy() for t in parts)

    def with_target(self, target: Tensor) -> Points:
        """The same with another target."""
        return replace(self, target=target)


@dataclass(frozen=True)
class Encoder:
    """Encoder of events as `Points`, with the kinds of particles of the training sample.

    Particles have an order that does not depend on the file: incoming ones first, then by PDG id,
    particles before antiparticles; equal ones by falling transverse momentum, incoming ones by
    falling p_z.

    Attributes
    ----------
    kinds : tuple of (bool, int)
        Whether incoming, and PDG id, of each kind of particle.
    signatures : tuple of tuple of int
        Numbers of the kinds in each kind of event.
    columns : tuple of str
        Of `COLUMNS`, those that count.
    """

    kinds: tuple[tuple[bool, int], ...]
    signatures: tuple[tuple[int, ...], ...]
    columns: tuple[str, ...]

    @property
    def n_particles(self) -> int:
        """Largest number of particles of an event."""
        return max(len(s) for s in self.signatures)

    @classmethod
    def of(cls, sample: EventSample) -> Encoder:
        """Learn the kinds of particles and events of a sample.

        Raises
        ------
        SampleError
            It has no particle ids, or too many kinds of them.
        """
        code, rows = _ordered(sample)
        codes = np.unique(code[rows[rows >= 0]])
        if len(codes) > MOST_KINDS:
            raise SampleError(
                f"{len(codes)} kinds of particles are too many", remedy=f"{MOST_KINDS} are possible"
            )
        table = _table(codes, code, rows)
        found = np.unique(table, axis=0)
        if len(found) > MOST_SIGNATURES:
            raise SampleError(
                f"{len(found)} different final states are too many",
                remedy=f"train on a part of them: {MOST_SIGNATURES} are possible",
            )
        return cls(
            tuple((bool(c & 1), int(c >> 1)) for c in codes),
            tuple(tuple(int(k) for k in row if k >= 0) for row in found),
            tuple(name for name in COLUMNS if _varies(sample, name)),
        )

    def encode(self, sample: EventSample, first: int = 0) -> Points:
        """Events as points.

        Parameters
        ----------
        sample : EventSample
        first : int
            Number of its first event in a file, for messages.

        Raises
        ------
        SampleError
            An event has other particles than those of the training, or lacks a column.
        """
        code, rows = _ordered(sample)
        codes = np.array([2 * pdg + incoming for incoming, pdg in self.kinds], dtype=np.int64)
        table = _table(codes, code, rows)
        self._check(table, code, rows, first)
        n, k = table.shape
        mask = table >= 0
        momenta = np.zeros((n, k, 4))
        momenta[mask] = sample.momentum[rows[mask]]
        bad = ~np.isfinite(momenta).all((1, 2))
        if bad.any():
            raise SampleError(
                "a momentum is not a finite number", event=first + int(np.argmax(bad)) + 1,
                remedy="leave the event out",
            )  # fmt: skip
        kinds = np.zeros((n, k, len(codes)), dtype=np.float32)
        event, place = np.nonzero(mask)
        kinds[event, place, table[mask]] = 1.0
        columns = [self._column(sample, name, first) for name in self.columns]
        globals_ = np.stack(columns, axis=1) if columns else np.zeros((n, 0))
        return Points(
            torch.from_numpy(momenta), torch.from_numpy(kinds), torch.from_numpy(mask),
            torch.from_numpy(globals_), torch.zeros(0),
        )  # fmt: skip

    def _check(self, table: IntArray, code: IntArray, rows: IntArray, first: int) -> None:
        kinds, inverse = np.unique(table, axis=0, return_inverse=True)
        known = set(self.signatures)
        other = np.array([tuple(int(c) for c in row if c != -1) not in known for row in kinds])
        wrong = other[inverse.reshape(-1)]
        if wrong.any():
            event = int(np.argmax(wrong))
            there = rows[event][rows[event] >= 0]
            names = [(bool(c & 1), int(c >> 1)) for c in code[there]]
            trained = " or ".join(self._text(self._names(s)) for s in self.signatures[:3])
            trained += " …" if len(self.signatures) > 3 else ""
            raise SampleError(
                f"the particles are {self._text(names)}, the regression was trained on {trained}",
                event=first + event + 1,
                remedy="train on such events too, or leave them out",
            )

    def example(self) -> EventSample:
        """Fixed events, one of each of the first kinds of events."""
        some = self.signatures[:_EXAMPLES]
        counts = [len(s) for s in some]
        kinds = [self.kinds[k] for s in some for k in s]
        px, py, pz, energy = probe.momenta(1, len(kinds))[0].T
        incoming = np.array([first for first, _ in kinds])
        particles = {
            "pdg_id": np.array([pdg for _, pdg in kinds]), "status": np.where(incoming, -1, 1),
            "px": np.where(incoming, 0.0, px), "py": np.where(incoming, 0.0, py),
            "pz": np.where(incoming, 5 * pz, pz), "energy": np.where(incoming, 5 * abs(pz), energy),
        }  # fmt: skip
        number = 1.0 + np.arange(len(some))
        columns = {"scale": 90.0 * number, "alpha_qcd": 0.12 / number}
        return EventSample(
            RunInfo(), np.concatenate([[0], np.cumsum(counts)]), particles,
            {name: columns[name] for name in self.columns},
        )  # fmt: skip

    @property
    def texts(self) -> list[str]:
        """Description of the kinds of events."""
        return [self._text(self._names(s)) for s in self.signatures]

    def _names(self, signature: tuple[int, ...]) -> list[tuple[bool, int]]:
        return [self.kinds[k] for k in signature]

    @staticmethod
    def _text(particles: list[tuple[bool, int]]) -> str:
        before = " ".join(particle_name(pdg) for incoming, pdg in particles if incoming)
        after = " ".join(particle_name(pdg) for incoming, pdg in particles if not incoming)
        return f"{before} > {after}" if before else after

    @staticmethod
    def _column(sample: EventSample, name: str, first: int) -> np.ndarray:
        values = sample.events.get(name)
        if values is None:
            raise SampleError(
                f"events have no {name}, which the training sample had",
                remedy="give events with it, or train on events without",
            )
        bad = ~(np.isfinite(values) & (values > 0))
        if bad.any():
            raise SampleError(
                f"{name} is not known", event=first + int(np.argmax(bad)) + 1,
                remedy="leave the event out",
            )  # fmt: skip
        return np.log(values)


def _ordered(sample: EventSample) -> tuple[IntArray, IntArray]:
    """Codes of all particles, and the rows (n, k) of those of each event in order, or -1."""
    p = sample.particles
    if "pdg_id" not in p:
        raise SampleError("has no particle ids", remedy="a regression needs the PDG id column")
    status = p.get("status")
    status = np.full(len(p["px"]), _FINAL) if status is None else status
    incoming = status == _INCOMING
    code = 2 * p["pdg_id"].astype(np.int64) + incoming
    falling = np.where(incoming, -p["pz"], -np.hypot(p["px"], p["py"]))
    event = sample.event_index
    pdg_id = code >> 1
    order = np.lexsort((falling, pdg_id < 0, np.abs(pdg_id), ~incoming, event))
    order = order[incoming[order] | (status[order] == _FINAL)]
    counts = np.bincount(event[order], minlength=len(sample))
    if len(counts) and (counts == 0).any():
        raise SampleError(
            "has no particles", event=int(np.argmax(counts == 0)) + 1, remedy="leave it out"
        )
    k = int(counts.max()) if len(counts) else 1
    if k > MOST_PARTICLES:
        raise SampleError(
            f"has {k} particles", event=int(np.argmax(counts)) + 1,
            remedy=f"regressions take {MOST_PARTICLES} at most",
        )  # fmt: skip
    rows = np.full((len(sample), k), -1, dtype=np.int64)
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    rows[event[order], place] = order
    return code, rows


def _table(codes: IntArray, code: IntArray, rows: IntArray) -> IntArray:
    """Numbers (n, k) of the kinds; -1 where there is no particle, -2 for one that is not known."""
    place = np.searchsorted(codes, code).clip(max=len(codes) - 1)
    kind = np.where(codes[place] == code, place, -2)
    return np.where(rows >= 0, kind[rows], -1)


def _varies(sample: EventSample, name: str) -> bool:
    values = sample.events.get(name)
    if values is None or not len(values):
        return False
    good = bool((np.isfinite(values) & (values > 0)).all())
    return good and bool(np.ptp(np.log(values)) > 1e-6)
