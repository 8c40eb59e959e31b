"""Branches of the columns of an EventSample in ROOT files."""

from __future__ import annotations

import numpy as np

METADATA = "hepgen_ml"
TEXT, NUMBER = "LHEText", "LHEText_"
"""Prefixes of the branches of event attributes: the exact texts, and numbers for clients. Lists
of bytes under a name with an underscore would be a collection for coffea, with a common counter."""

VERSION = 1

# column of EventSample: 64-bit branch; names that vector behaviours do not take for coordinates
EXACT = {
    "px": "pxExact",
    "py": "pyExact",
    "pz": "pzExact",
    "energy": "energyExact",
    "mass": "massExact",
    "spin": "spinExact",
    "lifetime": "lifetime",
}
# column of EventSample: branch, type in the file
INTEGER = {
    "pdg_id": ("pdgId", np.int32),
    "status": ("status", np.int32),
    "color1": ("color1", np.int32),
    "color2": ("color2", np.int32),
}
MOTHERS = {"mother1": "firstMotherIdx", "mother2": "lastMotherIdx"}
EVENT = {
    "weight": ("genWeight", np.float64),
    "process_id": ("LHE_ProcessId", np.int32),
    "scale": ("Generator_scalePDF", np.float64),
    "alpha_qcd": ("LHE_AlphaS", np.float64),
    "alpha_qed": ("LHE_AlphaQED", np.float64),
}
# column of EventSample: branch, type in the file
NUMBERS = {
    "run_number": ("run", np.uint32),
    "luminosity_block": ("luminosityBlock", np.uint32),
    "event_number": ("event", np.uint64),
}
# column of EventSample: 64-bit branch of a reconstructed object
OBJECT_EXACT = {c: EXACT[c] for c in ("px", "py", "pz", "energy", "mass")}
