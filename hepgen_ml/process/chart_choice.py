"""Choice of the chart of a subprocess from the properties of its events."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hepgen_ml.errors import UsageError
from hepgen_ml.events.objects import CHARGED, JET, NamedResonance, collection_of
from hepgen_ml.phase_space import (
    AT_FULL,
    PRODUCTIONS,
    Acceptance,
    BalancedChart,
    BeamsChart,
    Chart,
    Cut,
    FixedEnergyChart,
    FormationChart,
    MassSpec,
    PairChart,
    Peak,
    RadiativeReturnChart,
    ReconstructedChart,
    Resonance,
)
from hepgen_ml.phase_space.coordinates import invariant_mass
from hepgen_ml.phase_space.cut_finder import CutFinder
from hepgen_ml.phase_space.cuts import flavour_class
from hepgen_ml.phase_space.masses import MovingPeak, largest, smallest
from hepgen_ml.process.conditions import Conditions
from hepgen_ml.process.decay_charts import DecayCharts, Layout
from hepgen_ml.process.following import NEARLY_RIGHT, follows
from hepgen_ml.process.origins import Origins
from hepgen_ml.process.peaks import find_peak
from hepgen_ml.process.recoil import recoiling
from hepgen_ml.process.seen import (
    Beams,
    Seen,
    fixed_or_interval,
    mass_bounds,
    name_of,
    unique_labels,
)
from hepgen_ml.process.spectra import AtFull, Spectra
from hepgen_ml.process.structure import Structure

log = logging.getLogger(__name__)


class ChartLearner:
    """Charts of all structures of a sample.

    Parameters
    ----------
    seen : mapping of Structure to Seen
    cuts : CutFinder
    stated : sequence of Cut
    acceptance : Acceptance
    beams : mapping
        Energies of the incoming particles, fixed or varying, by their flavours.
    origins : Origins
        Of final particles, where cuts depend on these.
    named : sequence of NamedResonance
        Reconstructed objects that come from one particle.
    conditions : Conditions, optional
        Of the user, which masses may follow.

    Attributes
    ----------
    spectra : Spectra
        Of the energies of the beams.

    Raises
    ------
    UsageError
        A resonance is named that no event has, or two with an object in common.
    """

    def __init__(
        self,
        seen: Mapping[Structure, Seen],
        cuts: CutFinder,
        stated: Sequence[Cut],
        acceptance: Acceptance,
        beams: Mapping[tuple[int, ...], Beams],
        origins: Origins,
        named: Sequence[NamedResonance] = (),
        conditions: Conditions | None = None,
    ) -> None:
        self.seen, self.cuts, self.stated = seen, cuts, tuple(stated)
        self.acceptance, self.beams = acceptance, beams
        self.named = tuple(named)
        self._conditions, self._origins = conditions, origins
        self.spectra = Spectra(seen, beams)
        self._peaks: dict[tuple[str, ...], tuple[float, float] | MovingPeak | None] = {}
        self._decays = DecayCharts(
            seen, acceptance, cuts, self.stated, origins, conditions
        )
        self._final_masses = self._decays.final_masses
        self._check_names()

    def chart(self, structure: Structure, at_full: AtFull = (False, False)) -> Layout:
        """Chart of a structure, the classes and the rows of its particles in chart order.

        Of the events in which these incoming particles have the full energy, and no others.
        """
        if not structure.incoming:
            return self._reconstructed(structure)
        found = self._decays.layout(structure, partial(self._production, at_full=at_full))
        if found is not None:
            return found
        specs = {row: self._final_masses.of(structure, row) for row in structure.final}
        sizes = {r: largest(m) for r, m in specs.items()}
        flavours = {r: flavour_class(structure.pdg_id[r], sizes[r]) for r in structure.final}
        classes = {r: self._origins.label(structure, r, c) for r, c in flavours.items()}
        if len(structure.final) == 2:
            pt = self.acceptance.pt_of_pair([*classes.values()], [*sizes.values()])
            pt_min = dict.fromkeys(structure.final, pt)
        else:
            pt_min = structure.smallest_momenta(self.acceptance, classes)
        # The balancing particle should have no cut and, if there is a choice, a large mass:
        # then the region where it goes soft holds no structure.
        last = max(structure.final, key=lambda r: (pt_min[r] == 0.0, sizes[r], r))
        order = sorted(
            (r for r in structure.final if r != last), key=lambda r: (-pt_min[r], sizes[r], r)
        )
        order.append(last)
        labels = unique_labels([name_of(structure.pdg_id[r], flavours[r]) for r in order])
        masses = [specs[r] for r in order]
        chart: Chart
        varies = isinstance(masses[0], tuple)
        production = self._production(structure, [pt_min[r] for r in order], varies, at_full)
        close = self.acceptance.distances([classes[r] for r in order])[:-1]
        if production is not None and production["kind"] == BalancedChart.kind:
            production |= recoiling(masses, [pt_min[r] for r in order], close)
        if production is None:
            production = {"kind": BalancedChart.kind, "pt_min": []}
        if len(order) == 2:
            own = self.beams[structure.beams].at_full(at_full)
            incoming = self._incoming_masses(structure)
            cuts_on = [classes[r] for r in order]
            production = self._pair_of(own, production, incoming, masses, cuts_on)
        chart = PRODUCTIONS[production.pop("kind")](labels, masses, **production)
        return chart, tuple(classes[r] for r in order), tuple(order)

    def _production(
        self,
        structure: Structure,
        pt_min: Sequence[float],
        varies: bool,
        at_full: AtFull = (False, False),
    ) -> dict[str, Any] | None:
        """Kind of the chart of what is made in the collision, and what it needs of the beams.

        None where one particle has the energy of both beams, so that it has no freedom (its mass
        does not vary), or less than the beams, whose energies are better coordinates.
        """
        own = self.beams[structure.beams].at_full(at_full)
        if own.energies == (None, None) and not self.spectra.are_beams(structure):
            return {"kind": BalancedChart.kind, "pt_min": list(pt_min[:-1])}
        if own.both_fixed:
            if len(pt_min) < 2:
                return None
            return {"kind": FixedEnergyChart.kind, "total": self._total(structure, own)}
        beams = {
            "energies": list(own.energies),
            "incoming_masses": self._incoming_masses(structure),
        }
        if len(pt_min) < 2:
            formed = varies and own.one_fixed and not any(at_full)
            return {"kind": FormationChart.kind, **beams} if formed else None
        # those that may have their full energy have less in these events
        beams["largest"] = [
            (1 - AT_FULL) * full if some else largest
            for full, some, largest in zip(
                own.full, self.spectra.at_full(structure), own.largest, strict=True
            )
        ]
        if peak := self.spectra.below_full_energy(structure):
            return {"kind": RadiativeReturnChart.kind, "peak": list(peak), **beams}
        return {"kind": BeamsChart.kind, **beams}

    def _pair_of(
        self,
        own: Beams,
        production: dict[str, Any],
        incoming: Sequence[float],
        masses: Sequence[MassSpec],
        classes: Sequence[str],
    ) -> dict[str, Any]:
        """Arguments of a chart of two particles whose cuts bound more than transverse momenta."""
        cut = self.acceptance.low("mass", *classes)
        light_cone = [[self.acceptance.low(n, c) for n in ("plus", "minus")] for c in classes]
        pt = self.acceptance.pt_of_pair(classes, [largest(m) for m in masses])
        energies = own.energies
        if production["kind"] == BalancedChart.kind:
            # flavours of partons with different masses share a chart
            useful, beams = cut > 0, {"energies": list(energies), "incoming_masses": [0.0, 0.0],
                                      "largest": list(own.largest)}  # fmt: skip
        elif production["kind"] == FixedEnergyChart.kind:
            useful, cut, light_cone = pt > 0, 0.0, [[0.0, 0.0], [0.0, 0.0]]
            beams = {"energies": list(energies), "incoming_masses": list(incoming),
                     "largest": list(own.largest)}  # fmt: skip
        else:
            useful = production["kind"] == BeamsChart.kind and own.one_fixed
            useful &= max(cut, pt, *light_cone[0], *light_cone[1]) > 0
            beams = {k: v for k, v in production.items() if k != "kind"}
        if not useful:
            return production
        least = sum(math.hypot(smallest(m), pt) for m in masses)
        for fixed, along in ((energies[1], 0), (energies[0], 1)):
            if fixed is not None:  # s = 2 E (P+ or P-), that of what the other beam brings
                least = max(least, math.sqrt(2 * fixed * sum(c[along] for c in light_cone)))
        cuts = {"least_mass": max(least, cut), "pt_min": pt, "light_cone": light_cone}
        return {"kind": PairChart.kind, **beams, **cuts}

    def _incoming_masses(self, structure: Structure) -> list[float]:
        bounds = mass_bounds(self.seen[structure], structure.incoming)
        return [float(f"{sum(b) / 2:.10g}") for b in bounds]

    def _total(self, structure: Structure, beams: Beams) -> list[float]:
        """Total momentum of beams of fixed energy."""
        e1, e2 = (e or 0.0 for e in beams.energies)
        m1, m2 = (sum(b) / 2 for b in mass_bounds(self.seen[structure], structure.incoming))
        p1, p2 = math.sqrt(max(e1**2 - m1**2, 0.0)), math.sqrt(max(e2**2 - m2**2, 0.0))
        return [0.0, 0.0, p1 - p2, e1 + e2]

    def _reconstructed(self, structure: Structure) -> Layout:
        seen, ids = self.seen[structure], structure.pdg_id
        masses: list[float | None] = []
        for row, number in enumerate(ids):
            spec = fixed_or_interval(seen, row)
            masses.append(spec if isinstance(spec, float) and abs(number) != JET else None)
        classes = tuple(flavour_class(number, 0.0) for number in ids)
        labels = unique_labels([_object_name(number) for number in ids])
        resonances = self._named_resonances(structure, masses)
        taken = {row for r in resonances for row in r.objects}
        pair = self._pair(structure, masses, labels)
        if pair is not None and not taken & set(pair.objects):
            resonances.append(pair)
        resonances.sort(key=lambda r: min(r.objects))
        chart = ReconstructedChart(
            labels,
            masses,
            [self.acceptance.pt_min(c) for c in classes],
            [row > 0 and ids[row] == ids[row - 1] for row in range(len(ids))],
            resonances,
        )
        return chart, classes, tuple(range(len(ids)))

    def _check_names(self) -> None:
        """Refuse resonances that no event has, and those that share an object."""
        if not self.named:
            return
        if any(structure.incoming for structure in self.seen):
            raise UsageError(
                "resonances are named by reconstructed objects, and these events are partons",
                remedy="leave --resonance out: resonances of partons are those of the event record",
            )
        names = [r.name for r in self.named]
        if len(set(names)) < len(names):
            raise UsageError("two resonances have the same name", remedy="give each its own")
        for resonance in self.named:
            if all(resonance.rows(s.pdg_id) is None for s in self.seen):
                longest = max(self.seen, key=lambda s: len(s.pdg_id))
                raise UsageError(
                    f"no event has all objects of {str(resonance)!r}",
                    remedy=f"events have at most {', '.join(_numbered(longest.pdg_id))}",
                )
        for structure in self.seen:
            rows = [r for n in self.named for r in n.rows(structure.pdg_id) or ()]
            shared = next((r for r in rows if rows.count(r) > 1), None)
            if shared is not None:
                raise UsageError(
                    f"{_numbered(structure.pdg_id)[shared]} is named twice by the resonances "
                    f"{'; '.join(map(str, self.named))}",
                    remedy="an object comes from one of them",
                )

    def _named_resonances(
        self, structure: Structure, masses: list[float | None]
    ) -> list[Resonance]:
        """Resonances of the user's that these events have."""
        found = []
        for named in self.named:
            rows = named.rows(structure.pdg_id)
            if rows is None:
                continue
            if named.objects not in self._peaks:
                mass, peak = self._masses(partial(_rows, named))
                if peak is None:
                    low, middle, high = np.quantile(mass, [0.25, 0.5, 0.75])
                    # As wide as the distribution itself: any smooth map is suitable.
                    peak = (float(f"{middle:.6g}"), float(f"{max(high - low, 1e-3):.6g}"))
                    log.warning(
                        "the mass of %s shows no peak: its coordinate follows a broad one at "
                        "%.4g GeV", named, peak[0],
                    )  # fmt: skip
                self._peaks[named.objects] = peak
            found.append(self._resonance_of(named.name, structure, rows, masses,
                                            self._peaks[named.objects]))  # fmt: skip
        return found

    def _resonance_of(
        self,
        label: str,
        structure: Structure,
        rows: tuple[int, ...],
        masses: list[float | None],
        peak: tuple[float, float] | MovingPeak | None,
    ) -> Resonance:
        assert peak is not None
        low, high = sum(masses[r] or 0.0 for r in rows), math.inf
        if len(rows) == 2:
            classes = [flavour_class(structure.pdg_id[r], 0.0) for r in rows]
            ends = self.cuts.range("mass", (classes[0], classes[1]), self.stated)
            low, high = max(low, ends[0]), ends[1]
        if isinstance(peak, MovingPeak):
            return Resonance(label, rows, peak._replace(low=low, high=high))
        return Resonance(label, rows, Peak(low, high, *peak))

    def _masses(
        self, rows_of: Callable[[Structure], Sequence[int] | None]
    ) -> tuple[npt.NDArray[np.float64], tuple[float, float] | MovingPeak | None]:
        """Mass of some objects together over all structures that have them, and its peak."""
        found, given = [np.zeros((0, 4))], []
        for structure, seen in self.seen.items():
            if rows := rows_of(structure):
                found.append(seen.kept["final"][:, list(rows)].sum(1))
                given += [seen.kept["conditions"]] if self._conditions is not None else []
        momenta = torch.from_numpy(np.concatenate(found))
        mass = np.asarray(invariant_mass(momenta))
        if given:
            moving = follows(mass, np.concatenate(given), self._conditions)
            if isinstance(moving, MovingPeak):
                # resolution has no end
                return mass, moving._replace(first=-NEARLY_RIGHT, last=NEARLY_RIGHT)
        return mass, find_peak(mass)

    def _pair(
        self, structure: Structure, masses: list[float | None], labels: list[str]
    ) -> Resonance | None:
        """The only leptons of an event, if they are of one flavour and have a peak."""
        rows = _lepton_pair(structure)
        if rows is None or any(masses[row] is None for row in rows):
            return None
        flavour = str(collection_of(structure.pdg_id[rows[0]]))
        if (flavour,) not in self._peaks:
            same = {structure.pdg_id[r] for r in rows}

            def pair(other: Structure) -> tuple[int, ...]:
                found = _lepton_pair(other)
                return found if found and {other.pdg_id[r] for r in found} == same else ()

            self._peaks[(flavour,)] = self._masses(pair)[1]
        if self._peaks[(flavour,)] is None:
            return None
        label = ",".join(labels[r] for r in rows)
        return self._resonance_of(label, structure, rows, masses, self._peaks[(flavour,)])


def _rows(named: NamedResonance, structure: Structure) -> tuple[int, ...] | None:
    return named.rows(structure.pdg_id)


def _lepton_pair(structure: Structure) -> tuple[int, int] | None:
    """The leptons of an event, if these are one particle and its antiparticle."""
    ids = structure.pdg_id
    leptons = [r for r, n in enumerate(ids) if collection_of(n) in CHARGED]
    if len(leptons) != 2 or ids[leptons[0]] != -ids[leptons[1]]:
        return None
    return leptons[0], leptons[1]


def _numbered(pdg_id: Sequence[int]) -> list[str]:
    """Names of objects in the notation of resonances."""
    names = [str(collection_of(n)) for n in pdg_id]
    return [f"{name}{names[: i + 1].count(name)}" for i, name in enumerate(names)]


def _object_name(pdg_id: int) -> str:
    name = str(collection_of(pdg_id))
    return name + ("-" if pdg_id > 0 else "+") if name in CHARGED else name
