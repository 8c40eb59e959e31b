"""Names and order of the columns of LHEH5 files, and the columns of a sample they belong to."""

from __future__ import annotations

from collections.abc import Iterable

INIT = (
    "beamA", "beamB", "energyA", "energyB", "PDFgroupA", "PDFgroupB", "PDFsetA", "PDFsetB",
    "weightingStrategy", "numProcesses",
)  # fmt: skip
PROCESSES = ("procId", "npLO", "npNLO", "xSection", "error", "unitWeight")
EVENTS = (
    "pid", "nparticles", "start", "trials", "scale", "fscale", "rscale", "aqed", "aqcd", "NOMINAL",
)  # fmt: skip
PARTICLES = (
    "id", "status", "mother1", "mother2", "color1", "color2", "px", "py", "pz", "e", "m",
    "lifetime", "spin",
)  # fmt: skip
NOMINAL = ("NOMINAL", "weight", "Weight", "nominal")
"""Names that the column of the nominal weight has."""

NOT_WEIGHTS = frozenset([*EVENTS, *NOMINAL, "npLO", "npNLO"])
"""Columns of ``events`` other than named weights."""

def columns_of_weights(names: Iterable[str]) -> dict[str, str]:
    """Columns of ``events`` for named weights; those that have a meaning already are avoided."""
    taken, found = set(NOT_WEIGHTS), {}
    for name in names:
        column = name
        while column in taken:
            column = f"weight_{column}"
        taken.add(column)
        found[name] = column
    return found


PARTICLE_COLUMNS = {
    "pdg_id": "id", "status": "status", "mother1": "mother1", "mother2": "mother2",
    "color1": "color1", "color2": "color2", "px": "px", "py": "py", "pz": "pz", "energy": "e",
    "mass": "m", "lifetime": "lifetime", "spin": "spin",
}  # fmt: skip
"""Columns of an event sample, and those of ``particles``."""

INTEGERS = ("pdg_id", "status", "mother1", "mother2", "color1", "color2")

METADATA = "hepgen_ml"
"""Group that other readers ignore."""

METADATA_VERSION = 1
PB_PER_GEV2 = 3.893793656e8
"""GeV^-2 in pb: unit weights of version 2.0.0 are in GeV^-2."""
