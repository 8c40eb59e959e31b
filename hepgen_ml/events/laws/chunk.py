"""Events of a chunk with the quantities that several conservation laws need."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from hepgen_ml.events.laws.particle_ids import ParticleIds
from hepgen_ml.events.sample import EventSample, FloatArray, IntArray, RunInfo

BoolArray = npt.NDArray[np.bool_]
DEFAULT_TOLERANCE = 1e-9
"""Allowed deviation of momenta, as a fraction of the beam energy."""


class Chunk:
    """Events with the quantities that several laws need.

    Parameters
    ----------
    sample : EventSample
    run : RunInfo
        Beams and printed digits.
    tolerance : float or None
        Relative to the beam energy; None for `DEFAULT_TOLERANCE` or what the
        printed digits allow, whichever is larger.
    ids : ParticleIds
    """

    def __init__(
        self, sample: EventSample, run: RunInfo, tolerance: float | None, ids: ParticleIds
    ) -> None:
        self.sample, self.run, self.ids = sample, run, ids
        self.n = len(sample)
        self.event = sample.event_index
        self.tolerance = DEFAULT_TOLERANCE if tolerance is None else tolerance
        # half a unit of the last printed digit, relative to a number with mantissa 1
        digits = run.significant_digits
        self.rounding = (
            0.0 if digits is None or tolerance is not None else 0.5 * 10.0 ** (1 - digits)
        )

    def __getitem__(self, index: IntArray) -> Chunk:
        """Some of the events."""
        tolerance = self.tolerance if self.rounding == 0.0 else None
        return Chunk(self.sample[index], self.run, tolerance, self.ids)

    def sum(self, values: npt.NDArray[np.generic]) -> FloatArray:
        """Per event."""
        return np.bincount(self.event, values, self.n).astype(np.float64, copy=False)

    def max(self, values: FloatArray) -> FloatArray:
        """Largest value of each event, nan counting as infinite; 0 for an empty event."""
        values = np.where(np.isnan(values), np.inf, values)
        filled = self.sample.counts > 0
        result = np.zeros(self.n)
        if filled.any():
            result[filled] = np.maximum.reduceat(values, self.sample.offsets[:-1][filled])
        return result

    @cached_property
    def incoming(self) -> BoolArray:
        """(rows,) incoming particles."""
        return np.asarray(self.sample.particles["status"] == -1)

    @cached_property
    def final(self) -> BoolArray:
        """(rows,) final particles."""
        return np.asarray(self.sample.particles["status"] == 1)

    @cached_property
    def sign(self) -> FloatArray:
        """(rows,) 1 for incoming, -1 for final particles, 0 for others."""
        return self.incoming.astype(np.float64) - self.final

    @cached_property
    def beam_energy(self) -> FloatArray:
        """(n,) larger of the two beam energies in GeV, at least the largest energy of the event.

        The latter matters if a beam energy is unknown, or if the beam has a spectrum, such as
        neutrinos on a target at rest.
        """
        beam = max(self.run.beam_energy)
        if min(self.run.beam_energy) > 0:
            return np.full(self.n, beam)
        return np.maximum(self.max(np.abs(self.sample.particles["energy"])), max(beam, 1e-300))

    @cached_property
    def allowed(self) -> FloatArray:
        """(n,) allowed deviation of a sum over the event, relative to the beam energy."""
        if self.rounding == 0.0:
            return np.full(self.n, self.tolerance)
        total = self.sum(np.abs(self.sample.particles["energy"] * self.sign))
        return np.maximum(self.tolerance, self.rounding * total / self.beam_energy)

    @cached_property
    def properties(self) -> tuple[IntArray, IntArray, BoolArray]:
        """(rows,) three times the charge, colour representation, whether the id is known."""
        return self.ids.look_up(self.sample.particles["pdg_id"])

    @cached_property
    def first_mother(self) -> IntArray:
        """(rows,) row of the mother, counted over the chunk; -1 without one, or with several."""
        p = self.sample.particles
        m1, m2 = p["mother1"].astype(np.int64), p["mother2"].astype(np.int64)
        counts = self.sample.counts[self.event]
        single = (m1 > 0) & (m1 <= counts) & ((m2 == 0) | (m2 == m1))
        return np.where(single, self.sample.offsets[self.event] + m1 - 1, -1)

    @cached_property
    def decays(self) -> tuple[IntArray, IntArray]:
        """Rows of daughters of resonances, and of their mothers."""
        daughters = np.flatnonzero(self.first_mother >= 0)
        mothers = self.first_mother[daughters]
        resonance = self.sample.particles["status"][mothers] == 2
        return daughters[resonance], mothers[resonance]

    @cached_property
    def joint(self) -> IntArray:
        """(rows,) own row; for resonances that decay together, row of the first of them.

        Daughters of several resonances state their mothers as a range.
        """
        p = self.sample.particles
        result = np.arange(len(self.event))
        rows = np.flatnonzero((p["mother2"] > p["mother1"]) & (p["mother1"] > 0))
        start = self.sample.offsets[:-1][self.event[rows]] - 1
        first, last = start + p["mother1"][rows], start + p["mother2"][rows]
        # the usual range is the two incoming particles, not resonances
        odd = ~self.incoming[np.minimum(first, len(result) - 1)]
        if odd.any():
            end = self.sample.offsets[1:][self.event[rows]]
            pairs = np.unique(np.stack([first, np.minimum(last, end - 1)], 1)[odd], axis=0)
            for a, b in pairs.tolist():
                result[a : b + 1] = a
        return result

    @cached_property
    def shared(self) -> BoolArray:
        """(rows,) resonances that decay together with others."""
        members = np.bincount(self.joint, minlength=len(self.joint))
        together = members[self.joint] > 1
        return np.asarray(together & (self.sample.particles["status"] == 2))
