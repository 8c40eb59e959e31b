"""Contents of the JSON documents of charts, see `hepgen_ml.phase_space.chart.Chart.to_config`."""

from __future__ import annotations

import math
from collections.abc import Sized
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, Strict, model_validator

from hepgen_ml.events.conditions import MOST
from hepgen_ml.files.documents import Amount, Document, Number, Positive, Truth

MAX_PARTICLES = 64
"""Largest number of particles of an event; sizes of networks grow with its square."""

Index = Annotated[int, Strict(), Field(ge=0, lt=MAX_PARTICLES)]
Particles = Field(max_length=MAX_PARTICLES)
Label = Annotated[str, Strict(), Field(min_length=1, max_length=200)]
Labels = Annotated[list[Label], Field(min_length=1, max_length=MAX_PARTICLES)]
TwoAmounts = Annotated[list[Amount], Field(min_length=2, max_length=2)]
Energies = Annotated[list[Positive | None], Field(min_length=2, max_length=2)]
"""Energies of the two incoming particles; None if the energy varies."""


_SMALLEST, _LARGEST = 1e-30, 1e20
"""Smallest position and width of a peak and largest mass, in GeV; squares of numbers far beyond
these are zero or infinite."""

_OfPeak = Annotated[float, Strict(), Field(ge=_SMALLEST, le=_LARGEST, allow_inf_nan=False)]
_Mass = Annotated[float, Strict(), Field(ge=0, le=_LARGEST, allow_inf_nan=False)]


def _check_mass(mass: Any) -> Any:
    """Range of a mass; four numbers include a peak, six exclude the region around the peak."""
    if isinstance(mass, list):
        if any(v is not None and v > _LARGEST for v in mass):
            raise ValueError(f"a mass above {_LARGEST:g} GeV")
        if len(mass) not in (2, 4, 6) or mass[0] is None or mass[0] < 0:
            raise ValueError("a range of masses is two numbers, four with a peak, or six beside it")
        if mass[1] is not None and mass[1] <= mass[0]:
            raise ValueError("a range of masses ends where it begins")
        if len(mass) == 2 and mass[1] is None:
            raise ValueError("a range of masses without peak needs an end")
        if not all(v is not None and v >= _SMALLEST for v in mass[2:]):
            raise ValueError("a peak needs a positive mass and width")
        if len(mass) == 6 and not mass[0] < mass[4] < mass[5] < (mass[1] or math.inf):
            raise ValueError("what is cut out of a range of masses lies inside it")
    return mass


_OfConditions = Field(min_length=1, max_length=MOST)
_Power = Annotated[int, Strict(), Field(ge=0, le=10)]


class _Strict(Document):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LawDocument(_Strict):
    """Stored form of a `hepgen_ml.phase_space.laws.Law`."""

    kinds: Annotated[list[Literal["linear", "log", "category"]], _OfConditions]
    center: Annotated[list[Number], _OfConditions]
    scale: Annotated[list[Positive], _OfConditions]
    powers: Annotated[list[Annotated[list[_Power], _OfConditions]], Field(max_length=1000)]
    coefficients: Annotated[list[Number], Field(max_length=1000)]
    nodes: Annotated[list[Annotated[list[Number], _OfConditions]], Field(max_length=5000)] = Field(
        default_factory=list
    )
    residuals: Annotated[list[Number], Field(max_length=5000)] = Field(default_factory=list)

    @model_validator(mode="after")
    def _check(self) -> LawDocument:
        rows: list[Sized] = [self.center, self.scale, *self.powers, *self.nodes]
        if any(len(row) != len(self.kinds) for row in rows):
            raise ValueError("a law of another number of conditions")
        if len(self.powers) != len(self.coefficients) or len(self.nodes) != len(self.residuals):
            raise ValueError("a law needs a coefficient of every term, a residual of every node")
        return self


class MovingMassDocument(_Strict):
    """Stored form of a `MovingMass`."""

    law: LawDocument
    largest: _Mass


class MovingPeakDocument(_Strict):
    """Stored form of a `MovingPeak`."""

    low: _Mass
    high: _OfPeak | None
    position: LawDocument
    width: LawDocument
    first: Annotated[Number, Field(gt=-math.pi / 2, lt=math.pi / 2)]
    last: Annotated[Number, Field(gt=-math.pi / 2, lt=math.pi / 2)]

    @model_validator(mode="after")
    def _check(self) -> MovingPeakDocument:
        if not (self.first < self.last and self.low < (self.high or math.inf)):
            raise ValueError("a range of masses ends where it begins")
        return self


class PeaksDocument(_Strict):
    """Stored form of `Peaks`."""

    low: _Mass
    high: _OfPeak | None
    continuum: tuple[Positive, _OfPeak, Positive]
    peaks: Annotated[list[tuple[Positive, _OfPeak, _OfPeak]], Field(max_length=100)]
    gaps: Annotated[list[tuple[_Mass, _OfPeak]], Field(max_length=100)]

    @model_validator(mode="after")
    def _check(self) -> PeaksDocument:
        ends = [v for gap in self.gaps for v in gap]
        if not self.low < (self.high or math.inf) or any(a >= b for a, b in pairwise(ends)):
            raise ValueError("a range of masses ends where it begins")
        return self


Mass = (
    _Mass
    | Annotated[list[Number | None], Field(min_length=2, max_length=6)]
    | PeaksDocument
    | MovingMassDocument
    | MovingPeakDocument
)


class BalancedDocument(_Strict):
    """Stored form of a `BalancedChart`."""

    kind: Literal["balanced"]
    labels: Labels
    masses: Annotated[list[Mass], Particles]
    pt_min: Annotated[list[Amount], Particles]
    close: Annotated[list[Amount], Particles] = Field(default_factory=list)
    share: Annotated[Amount, Field(lt=1)] = 0.0

    @model_validator(mode="after")
    def _check(self) -> BalancedDocument:
        for mass in self.masses:
            _check_mass(mass)
        return self


class FixedEnergyDocument(_Strict):
    """Stored form of a `FixedEnergyChart`."""

    kind: Literal["fixed_energy"]
    labels: Labels
    masses: Annotated[list[Mass], Particles]
    total: Annotated[list[Number], Field(min_length=4, max_length=4)]

    @model_validator(mode="after")
    def _check(self) -> FixedEnergyDocument:
        for mass in self.masses:
            _check_mass(mass)
        if not self.total[3] > math.hypot(*self.total[:3]):
            raise ValueError("a total energy below the total momentum")
        return self


class BeamsDocument(_Strict):
    """Stored form of a `BeamsChart`."""

    kind: Literal["beams"]
    labels: Labels
    masses: Annotated[list[Mass], Particles]
    energies: Energies
    largest: TwoAmounts
    incoming_masses: TwoAmounts
    at_full: Annotated[list[Truth], Field(min_length=2, max_length=2)] = Field(
        default_factory=lambda: [False, False]
    )

    @model_validator(mode="after")
    def _check(self) -> BeamsDocument:
        for mass in self.masses:
            _check_mass(mass)
        for energy, largest in zip(self.energies, self.largest, strict=True):
            if energy is None and not largest > 0:
                raise ValueError("a beam whose energy varies has a largest one")
        return self


class RadiativeReturnDocument(BeamsDocument):
    """Stored form of a `RadiativeReturnChart`."""

    kind: Literal["radiative_return"]  # type: ignore[assignment]
    peak: Annotated[list[Positive], Field(min_length=2, max_length=2)]

    @model_validator(mode="after")
    def _check_peak(self) -> RadiativeReturnDocument:
        if None not in self.energies:
            raise ValueError("an energy varies")
        full = [m if e is None else e for e, m in zip(self.energies, self.largest, strict=True)]
        if not self.peak[0] ** 2 < 4 * full[0] * full[1]:
            raise ValueError("a peak above the largest energy")
        return self


class PairChartDocument(BeamsDocument):
    """Stored form of a `PairChart`."""

    kind: Literal["pair"]  # type: ignore[assignment]
    least_mass: Amount
    pt_min: Amount
    light_cone: Annotated[list[TwoAmounts], Field(min_length=2, max_length=2)]

    @model_validator(mode="after")
    def _check_pair(self) -> PairChartDocument:
        if len(self.labels) != 2 or not (None in self.energies or self.pt_min > 0):
            raise ValueError("two particles, and an energy that varies or a cut")
        if self.energies == [None, None] and any(self.at_full):
            raise ValueError("no events at the full energy where both energies vary")
        full = [m if e is None else e for e, m in zip(self.energies, self.largest, strict=True)]
        if not self.least_mass**2 < 4 * full[0] * full[1]:
            raise ValueError("a smallest mass above the full energy")
        return self


class FormationDocument(_Strict):
    """Stored form of a `FormationChart`."""

    kind: Literal["formation"]
    labels: Annotated[list[Label], Field(min_length=1, max_length=1)]
    masses: Annotated[list[Mass], Field(min_length=1, max_length=1)]
    energies: Energies
    incoming_masses: TwoAmounts

    @model_validator(mode="after")
    def _check(self) -> FormationDocument:
        if not isinstance(_check_mass(self.masses[0]), list | PeaksDocument | MovingPeakDocument):
            raise ValueError("the mass of a particle that is formed varies")
        if self.energies.count(None) != 1:
            raise ValueError("one of the two incoming particles has a fixed energy")
        return self


class ResonanceDocument(_Strict):
    """Stored form of a resonance of a `ReconstructedChart`."""

    label: Label
    objects: Annotated[list[Index], Field(min_length=2, max_length=MAX_PARTICLES)]
    mass: Annotated[list[Number | None], Field(min_length=4, max_length=4)] | MovingPeakDocument

    @model_validator(mode="after")
    def _check(self) -> ResonanceDocument:
        _check_mass(self.mass)
        return self


class PairDocument(_Strict):
    """Stored form of a resonance as models had it before resonances could be named."""

    first: Index
    second: Index
    low: Amount
    high: Amount
    mass: Positive
    width: Positive


class ReconstructedDocument(_Strict):
    """Stored form of a `ReconstructedChart`."""

    kind: Literal["reconstructed"]
    labels: Labels
    masses: Annotated[list[Amount | None], Particles]
    pt_min: Annotated[list[Amount], Particles]
    ordered: Annotated[list[Truth], Particles]
    resonances: Annotated[list[ResonanceDocument], Particles] = Field(default_factory=list)
    pair: PairDocument | None = None


class NodeDocument(_Strict):
    """Stored form of a particle of a `DecayChart`."""

    label: Label
    mass: Mass
    children: Annotated[list[Index], Field(max_length=2)] = Field(default_factory=list)

    @model_validator(mode="after")
    def _check(self) -> NodeDocument:
        _check_mass(self.mass)
        return self


class ProductionDocument(_Strict):
    """Stored form of the production's chart of a `DecayChart`."""

    kind: Literal["balanced", "fixed_energy", "beams", "radiative_return", "formation"]
    pt_min: Annotated[list[Amount], Particles] = Field(default_factory=list)
    close: Annotated[list[Amount], Particles] = Field(default_factory=list)
    share: Annotated[Amount, Field(lt=1)] = 0.0
    total: list[Number] = Field(default_factory=list)
    energies: list[Positive | None] = Field(default_factory=list)
    largest: list[Amount] = Field(default_factory=list)
    incoming_masses: list[Amount] = Field(default_factory=list)
    peak: list[Positive] = Field(default_factory=list)
    at_full: list[Truth] = Field(default_factory=list)


class DecayDocument(_Strict):
    """Stored form of a `DecayChart`."""

    kind: Literal["decay"]
    nodes: Annotated[list[NodeDocument], Field(min_length=1, max_length=2 * MAX_PARTICLES)]
    n_made: Annotated[int, Strict(), Field(ge=1)]
    production: ProductionDocument
    planes: Truth = False

    @model_validator(mode="after")
    def _check(self) -> DecayDocument:
        for i, node in enumerate(self.nodes):
            if any(not i < child < len(self.nodes) for child in node.children):
                raise ValueError("products of a decay come after it")
        made = self.nodes[: self.n_made]
        parts = {
            "labels": [n.label for n in made],
            "masses": [
                n.mass.model_dump() if isinstance(n.mass, _Strict) else n.mass for n in made
            ],
            **self.production.model_dump(exclude_unset=True),
        }
        documents: dict[str, type[_Strict]] = {
            "balanced": BalancedDocument, "fixed_energy": FixedEnergyDocument,
            "beams": BeamsDocument, "radiative_return": RadiativeReturnDocument,
            "formation": FormationDocument,
        }  # fmt: skip
        documents[self.production.kind].model_validate(parts)
        return self


ChartDocument = Annotated[
    BalancedDocument
    | FixedEnergyDocument
    | BeamsDocument
    | RadiativeReturnDocument
    | PairChartDocument
    | FormationDocument
    | ReconstructedDocument
    | DecayDocument,
    Field(discriminator="kind"),
]


def conditions_of(chart: ChartDocument) -> set[int]:
    """Numbers of conditions of all laws that masses of a chart follow."""
    masses: list[Any]
    if isinstance(chart, ReconstructedDocument):
        masses = [r.mass for r in chart.resonances]
    else:
        masses = [n.mass for n in chart.nodes] if isinstance(chart, DecayDocument) else chart.masses
    found = [m.law for m in masses if isinstance(m, MovingMassDocument)]
    peaks = [m for m in masses if isinstance(m, MovingPeakDocument)]
    found += [law for m in peaks for law in (m.position, m.width)]
    return {len(law.kinds) for law in found}
