"""The run that events belong to: beams, processes with cross sections, declared weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np


def finite_or_none(value: float) -> float | None:
    """The number, or None if it is unknown, because JSON has no nan."""
    return float(value) if np.isfinite(value) else None


@dataclass(frozen=True)
class Subrun:
    """One line of the `<init>` block: a process of the run.

    Attributes
    ----------
    process_id : int
        LPRUP; any integer, 0 included.
    cross_section, error : float
        In pb; nan where not known.
    max_weight : float
        XMAXUP.
    """

    process_id: int
    cross_section: float
    error: float
    max_weight: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; null for unknown numbers."""
        return {
            "process_id": self.process_id,
            "cross_section": finite_or_none(self.cross_section),
            "error": finite_or_none(self.error),
            "max_weight": self.max_weight,
        }


def processes_from_json(values: Sequence[Mapping[str, Any]]) -> tuple[Subrun, ...]:
    """Inverse of `Subrun.to_json` for all processes of a run.

    Earlier versions wrote a total of zero for an unknown cross section.

    Raises
    ------
    KeyError, TypeError, ValueError
        The values do not describe processes.
    """

    def number(value: Any) -> float:
        return np.nan if value is None else float(value)

    found = tuple(
        Subrun(
            int(p["process_id"]),
            number(p["cross_section"]),
            number(p["error"]),
            float(p["max_weight"]),
        )
        for p in values
    )
    if sum(p.cross_section for p in found) == 0:
        return tuple(replace(p, cross_section=np.nan, error=np.nan) for p in found)
    return found


_EXPECTED, _NAMED = 20, 5
"""Number of events of processes below which their absence is chance, and processes in a message."""

_MOST_SHARDS, _LONGEST_REQUEST = 10**9, 64


@dataclass(frozen=True)
class Shard:
    """Part of a run that one job has made.

    Attributes
    ----------
    index, number : int
        Which one, from 0, of how many.
    request : str
        The same for all shards of a run.
    """

    index: int
    number: int
    request: str

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.number <= _MOST_SHARDS:
            raise ValueError(f"shard {self.index} of {self.number} does not exist")
        if len(self.request) > _LONGEST_REQUEST or not self.request.isalnum():
            raise ValueError("the request of a shard is not valid")


@dataclass(frozen=True)
class RunInfo:
    """Information about a run: beams, cross sections, declared weights, provenance.

    Attributes
    ----------
    beam_pdg_id : tuple of int
        PDG numbers of the beam particles, the one along +z first.
    beam_energy : tuple of float
        Energies of the beams in GeV.
    pdf_group, pdf_set : tuple of int
        PDFGUP and PDFSUP.
    weight_strategy : int
        IDWTUP of the file: ±3 unit weights, ±4 weights whose mean is the cross section.
    processes : tuple of Subrun
        Processes with their cross sections.
    generators : tuple of (name, version, text)
        Programs that made the events, the newest last.
    header : str
        Header text of the source, unchanged.
    weight_groups : str
        Content of the `<initrwgt>` block, unchanged.
    weight_names : mapping of str to str
        Name (id) of every named weight and its description.
    weight_cross_sections : mapping of str to (float, float)
        Cross section of named weights and its error in pb, where the source states them; nan for
        what is not known.
    significant_digits : int or None
        Digits that the source prints for momenta; None for binary double precision.
    shard : Shard or None
        Part of a run that the events are, if one job of several has made them.
    """

    beam_pdg_id: tuple[int, int] = (2212, 2212)
    beam_energy: tuple[float, float] = (0.0, 0.0)
    pdf_group: tuple[int, int] = (0, 0)
    pdf_set: tuple[int, int] = (0, 0)
    weight_strategy: int = 3
    processes: tuple[Subrun, ...] = ()
    generators: tuple[tuple[str, str, str], ...] = ()
    header: str = ""
    weight_groups: str = ""
    weight_names: Mapping[str, str] = field(default_factory=dict)
    weight_cross_sections: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    significant_digits: int | None = None
    shard: Shard | None = None

    @property
    def cross_section(self) -> float:
        """Total cross section in pb; nan if that of a process is unknown, or without processes."""
        return float(sum(p.cross_section for p in self.processes)) if self.processes else np.nan

    @property
    def cross_section_error(self) -> float:
        """Error of the total in pb, processes added in quadrature; nan where not known."""
        if not np.isfinite(self.cross_section):
            return np.nan
        return float(np.sqrt(sum(p.error**2 for p in self.processes)))

    def without_events(self, numbers: Collection[int], n_events: int) -> list[str]:
        """Message about processes of which some of so many events were expected, but none is there.

        Parameters
        ----------
        numbers : collection of int
            Of the processes that have events.
        n_events : int
        """
        total = self.cross_section
        if not set(numbers) <= {p.process_id for p in self.processes}:
            return []  # events of other formats have numbers that no header declares
        absent = [p for p in self.processes if p.process_id not in numbers and p.cross_section > 0]
        share = sum(p.cross_section for p in absent) / total if total > 0 else 0.0
        if share * n_events < _EXPECTED:
            return []
        names = ", ".join(str(p.process_id) for p in absent[:_NAMED])
        names += ", ..." if len(absent) > _NAMED else ""
        return [
            f"no event is of process {names}, of which the "
            f"header states {100 * share:.3g} % of the cross section: the others get all of it"
        ]

    def scaled(self, factor: float) -> RunInfo:
        """Copy with all cross sections and errors multiplied."""
        return replace(
            self,
            processes=tuple(
                replace(p, cross_section=factor * p.cross_section, error=factor * p.error)
                for p in self.processes
            ),
            weight_cross_sections={
                name: (factor * value, factor * error)
                for name, (value, error) in self.weight_cross_sections.items()
            },
        )

    def with_(self, **changes: Any) -> RunInfo:
        """Copy with some attributes replaced."""
        return replace(self, **changes)
