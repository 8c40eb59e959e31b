"""ROOT files in NanoAOD naming: generator-level particles, weights and run information.

Tree ``Events``, one entry an event: ``LHEPart_*`` as CMS NanoAOD has it (32-bit
pt, eta, phi, mass; incoming particles have pt = eta = phi = 0 and their momentum
in ``incomingpz``; mother indices count from 0, -1 is none), and, unless turned
off, what 32 bits cannot hold as 64-bit columns: ``LHEPart_pxExact, pyExact,
pzExact, energyExact, massExact, spinExact, lifetime`` (plain ``px`` beside ``pt``
in one record would be ambiguous: coffea and vector refuse it). Named weights are the branches
``LHEWeight_<name>`` with characters that ROOT does not allow replaced; the exact
names are in the object ``hepgen_ml`` (JSON), beside the run information. Tree
``Runs`` has the sums of weights and the cross section in pb.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hepgen_ml.events import RunInfo
    from hepgen_ml.formats import Reader, Writer


class ROOT:
    """ROOT format, NanoAOD naming, written as a TTree."""

    name = "root"
    suffixes = (".root",)

    def open(self, path: Path, *, skip_bad: bool = False) -> Reader:
        """Open for reading; raises InputError on files without ``LHEPart``."""
        from hepgen_adapters._root_read import ROOTReader

        return ROOTReader(path, skip_bad=skip_bad)

    def create(
        self,
        path: Path,
        run: RunInfo,
        n_events: int,
        *,
        four_vectors: bool = True,
        **options: Any,
    ) -> Writer:
        """Begin a file.

        Parameters
        ----------
        path : path-like
        run : RunInfo
        n_events : int
        four_vectors : bool
            Also write the exact 64-bit columns; without them four-momenta close
            only to 32-bit precision.
        **options
            Options of other formats, ignored.
        """
        from hepgen_adapters._root_write import ROOTWriter

        return ROOTWriter(path, run, four_vectors=four_vectors)
