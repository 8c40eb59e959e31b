"""Les Houches events in HDF5 (LHEH5), as Sherpa, Pepper, Pythia and pylhe exchange them.

Files of version 2 (arXiv:2309.13154, table 1) have five datasets: ``version``, ``init``,
``procInfo``, ``events`` with one row an event, and ``particles`` with one row a particle. The
attribute ``properties`` of each names its columns. Columns of ``events`` after the first ten
are named weights. The cross section is the sum of weights over the sum of trials. Files of
versions 0 and 1 (arXiv:1905.05120) have groups with one dataset a column; they are read only.

Information without a place in this layout (the run's header text, numbers of processes, named
scales, attributes and numbers of events) is in a group ``hepgen_ml``, which other readers ignore.

Needs h5py (``pip install hepgen-ml[hdf5]``).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hepgen_adapters._partons import open_partons, require_partons
from hepgen_ml.errors import UsageError

if TYPE_CHECKING:
    from hepgen_ml.events.interfaces import Reader, Writer
    from hepgen_ml.events.objects import Selection
    from hepgen_ml.events.sample import EventSample, RunInfo


class LHEH5:
    """The LHEH5 format; see `hepgen_ml.events.formats.Format`."""

    name = "lheh5"
    suffixes = (".hdf5", ".h5", ".lheh5")

    needs_n_events = False
    run_last = True

    def open(
        self, path: Path, *, skip_bad: bool = False, selection: Selection | None = None
    ) -> Reader:
        """Open for reading.

        Raises
        ------
        InputError
            The file is not an HDF5 file, or holds no Les Houches events.
        UsageError
            Objects are selected: these files hold partons. Or h5py is not installed.
        """
        def reader() -> Reader:
            require_h5py()
            from hepgen_adapters.lheh5.read import LHEH5Reader

            return LHEH5Reader(path, skip_bad=skip_bad)

        return open_partons(reader, path, selection, "LHEH5")

    def create(self, path: Path, run: RunInfo, n_events: int | None, **options: Any) -> Writer:
        """Begin a file; options of other formats are ignored."""
        require_h5py()
        from hepgen_adapters.lheh5.write import LHEH5Writer

        return LHEH5Writer(path, run)

    def cannot_hold(self, sample: EventSample) -> list[str]:
        """Texts without a place in the format: those longer than readers accept.

        Raises
        ------
        OutputError
            Reconstructed objects.
        """
        require_partons(sample, "an LHEH5 file")
        from hepgen_adapters._run_json import lost_texts

        found = lost_texts(sample.run)
        if not np.isfinite(sample.run.cross_section):
            found.append(
                "that the cross section is not known: readers take the mean weight for it"
            )
        return found


def require_h5py() -> None:
    """Raise `UsageError` where h5py is not installed."""
    try:
        import h5py  # noqa: F401
    except ImportError as missing:
        raise UsageError(
            "LHEH5 files need h5py", remedy="pip install 'hepgen-ml[hdf5]'"
        ) from missing
