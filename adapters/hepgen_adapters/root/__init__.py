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

Reconstructed samples have ``Muon_pt, eta, phi, mass, charge``, ``Jet_pt, eta, phi,
mass`` and so on instead of ``LHEPart``, with ``Muon_pxExact`` … in 64 bits. They are
read from files of ours, of CMS and of Delphes (tree ``Delphes``, ``Muon.PT`` …).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

    from hepgen_ml.events.interfaces import Reader, Writer
    from hepgen_ml.events.jets import JetReader, JetSelection
    from hepgen_ml.events.objects import Selection
    from hepgen_ml.events.sample import EventSample, FloatArray, RunInfo


class ROOT:
    """ROOT format, NanoAOD naming, written as a TTree."""

    name = "root"
    suffixes = (".root",)
    free_weights = True
    needs_n_events = False
    run_last = True

    def open(
        self, path: Path, *, skip_bad: bool = False, selection: Selection | None = None
    ) -> Reader:
        """Open for reading: ``LHEPart``, or the objects of the selection or of a file of ours.

        Raises
        ------
        InputError
            The file does not hold them; the message names the objects that it holds.
        UsageError
            The selection says how to cluster jets.
        """
        from hepgen_adapters.root.read import open_root

        return open_root(path, skip_bad=skip_bad, selection=selection)

    def open_jets(
        self, path: Path, selection: JetSelection, *, skip_bad: bool = False
    ) -> JetReader:
        """Open for reading jets with constituents, see `hepgen_adapters.root.jets`.

        Raises
        ------
        InputError
            The file holds none.
        UsageError
            The selection says how to cluster jets.
        """
        from hepgen_adapters.root.jets import ROOTJets

        return ROOTJets(path, selection, skip_bad=skip_bad)

    def create(
        self,
        path: Path,
        run: RunInfo,
        n_events: int | None,
        *,
        four_vectors: bool = True,
        **options: Any,
    ) -> Writer:
        """Begin a file; options of other formats are ignored.

        With ``four_vectors`` it has the exact 64-bit columns too; without them four-momenta
        close only to 32-bit precision.
        """
        from hepgen_adapters.root.write import ROOTWriter

        return ROOTWriter(path, run, four_vectors=four_vectors)

    def column(self, path: Path, name: str, *, tree: str | None = None) -> FloatArray:
        """Any branch of one number an event, of all events of a file.

        Raises
        ------
        InputError
            The file is damaged, or has no such branch of numbers; the message names some.
        """
        from hepgen_adapters.root.read import read_column

        return read_column(path, name, tree)

    def write_columns(self, path: Path, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write a file with one tree ``tree`` of numbers, one entry a row."""
        from hepgen_adapters.root.write import write_columns

        write_columns(path, columns)

    def cannot_hold(self, sample: EventSample) -> list[str]:
        """Texts of a run that are longer than what readers accept; all else has a place."""
        from hepgen_adapters._run_json import lost_texts

        return lost_texts(sample.run)
