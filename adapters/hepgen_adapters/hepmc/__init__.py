"""HepMC3 ASCII files: parton-level events out, events of any generator in.

The record of an event: beams (status 4); the two incoming partons (status 21),
each from a vertex of its own together with the remnant of the beam (id 82,
status 63, not stable), so that momentum is conserved at every vertex; the hard
vertex; resonances (status 2) with their decay vertices; final particles
(status 1). Where an incoming particle carries the whole beam, as in lepton
collisions, it is the beam and has status 4 itself. Colours are the usual
attributes ``flow1`` and ``flow2``; known helicities and lifetimes are the
attributes ``spin`` and ``lifetime``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hepgen_adapters._partons import require_partons

if TYPE_CHECKING:
    from hepgen_ml.events.interfaces import Reader, Writer
    from hepgen_ml.events.jets import JetReader, JetSelection
    from hepgen_ml.events.objects import Selection
    from hepgen_ml.events.sample import EventSample, RunInfo

_SUFFIXES = (".hepmc", ".hepmc3")


class HepMC:
    """HepMC3 ASCII format, plain or compressed with gzip or Zstandard."""

    name = "hepmc"
    suffixes = tuple(s + c for s in _SUFFIXES for c in ("", ".gz", ".zst"))

    free_weights = True
    needs_n_events = False
    run_last = False
    streams = True

    def open(
        self, path: Path, *, skip_bad: bool = False, selection: Selection | None = None
    ) -> Reader:
        """Open for reading; with a selection of objects, final particles become jets.

        Raises
        ------
        InputError
            Anything that is not HepMC3.
        UsageError
            Jets are asked for and fastjet is not installed.
        """
        from hepgen_adapters.hepmc.read import HepMCReader

        return HepMCReader(path, skip_bad=skip_bad, selection=selection)

    def open_jets(
        self, path: Path, selection: JetSelection, *, skip_bad: bool = False
    ) -> JetReader:
        """Open for reading jets of the final particles, see `hepgen_adapters.hepmc.jets`.

        Raises
        ------
        InputError
            Anything that is not HepMC3.
        UsageError
            FastJet is not installed, or columns of a tree are asked for.
        """
        from hepgen_adapters.hepmc.jets import HepMCJets

        return HepMCJets(path, selection, skip_bad=skip_bad)

    def create(self, path: Path, run: RunInfo, n_events: int | None, **options: Any) -> Writer:
        """Begin a file of parton-level events; options of other formats are ignored."""
        from hepgen_adapters.hepmc.write import HepMCWriter

        return HepMCWriter(path, run)

    def cannot_hold(self, sample: EventSample) -> list[str]:
        """Long texts of the run, absent weights, and status codes that HepMC does not have."""
        require_partons(sample, "HepMC3")
        from hepgen_adapters.hepmc.write import lost

        return lost(sample)
