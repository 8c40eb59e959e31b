"""Pythia 8 as a partner: events without an intermediate file, showers to HepMC3, acceptance.

`LHAupGenerator` gives the events of a trained model to a Pythia of the user's, `LHAupSample`
those of a sample in memory. `Showering` showers events and writes HepMC3 with several processes
side by side. `shower_acceptance` counts the events that Pythia accepts; Pythia repairs many defects
silently, so that this complements `hepgen_ml.events.laws.checks` and does not replace it.

Pythia is optional (``pip install --prefer-binary hepgen-ml[pythia]``). Its module is called
``pythia8mc`` where it comes as a wheel, and ``pythia8`` in conda-forge.
"""

from __future__ import annotations

from typing import Any

from hepgen_adapters.pythia.acceptance import ShowerResult, shower_acceptance
from hepgen_adapters.pythia.module import load_pythia
from hepgen_adapters.pythia.showering import Showering

__all__ = [
    "LHAupGenerator",
    "LHAupSample",
    "ShowerResult",
    "Showering",
    "load_pythia",
    "shower_acceptance",
]


def __getattr__(name: str) -> Any:
    """Classes that derive from Pythia's, which is imported when one of them is used."""
    if name in ("LHAupGenerator", "LHAupSample"):
        from hepgen_adapters.pythia.source import classes

        return classes()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
