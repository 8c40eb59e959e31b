"""Les Houches event files, versions 1 to 3, plain and gzipped.

References: hep-ph/0109068 (the accord), hep-ph/0609017 (the file format),
arXiv:1405.1067 section 2 (version 3).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hepgen_adapters._partons import open_partons, require_partons
from hepgen_ml.errors import UsageError
from hepgen_ml.events.sample import EVENT_NUMBERS, RunInfo

if TYPE_CHECKING:
    from hepgen_ml.events.interfaces import Reader, Writer
    from hepgen_ml.events.objects import Selection
    from hepgen_ml.events.sample import EventSample


class LHE:
    """The LHE format; see `hepgen_ml.events.formats.Format`.

    The compiled parser and its compiler are loaded when a file is opened.
    """

    name = "lhe"
    suffixes = (".lhe", ".lhe.gz")

    needs_n_events = False
    run_last = False
    streams = True

    def open(
        self, path: Path, *, skip_bad: bool = False, selection: Selection | None = None
    ) -> Reader:
        """Open for reading.

        Raises
        ------
        InputError
            The file cannot be opened, is not an LHE file, is empty or truncated.
        UsageError
            Objects are selected: these files hold partons.
        """
        def reader() -> Reader:
            from hepgen_adapters.lhe.read import LHEReader

            return LHEReader(path, skip_bad=skip_bad)

        return open_partons(reader, path, selection, "LHE")

    def create(self, path: Path, run: RunInfo, n_events: int | None, **options: Any) -> Writer:
        """Begin a file, compressed if the name ends in ``.gz``.

        The option ``compression`` is the level, 0 (fast) to 3 (small); default 1.
        """
        from hepgen_adapters.lhe.write import LHEWriter

        compression = options.get("compression", 1)
        if compression not in (0, 1, 2, 3):
            raise UsageError(
                f"compression level {compression!r} is unknown", remedy="use 0, 1, 2 or 3"
            )
        return LHEWriter(path, run, compression=compression)

    def cannot_hold(self, sample: EventSample) -> list[str]:
        """Texts that would break the file, and the size of equal weights under strategies ±3."""
        require_partons(sample, "an LHE file")
        from hepgen_adapters.lhe.header import lost_texts

        found = lost_texts(sample.run, sample.weights)
        if sample.run.weight_cross_sections:
            found.append("cross sections of named weights")
        weight = sample.events["weight"]
        if abs(sample.run.weight_strategy) == 3 and np.any(np.abs(weight) != 1.0):
            found.append(
                f"the size of the weights, {weight[0]:g}: strategy {sample.run.weight_strategy} "
                "has unit weights (all of an event are divided by it)"
            )
        if numbers := [n.replace("_", " ") + "s" for n in EVENT_NUMBERS if n in sample.events]:
            found.append(", ".join(numbers))
        return found
