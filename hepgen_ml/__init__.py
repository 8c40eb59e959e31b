"""Learned event generation for collider physics."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Resolved on first use, so that importing the package loads neither torch nor a file library.
_LAZY = {
    "EventSample": "hepgen_ml.events",
    "RunInfo": "hepgen_ml.events",
    "Generator": "hepgen_ml.generator",
    "Selection": "hepgen_ml.objects",
    "convert": "hepgen_ml.conversion",
    "parse_objects": "hepgen_ml.objects",
    "read": "hepgen_ml.formats",
    "write": "hepgen_ml.formats",
}

__all__ = [
    "EventSample",
    "Generator",
    "RunInfo",
    "Selection",
    "__version__",
    "convert",
    "parse_objects",
    "read",
    "write",
]

if TYPE_CHECKING:
    from hepgen_ml.conversion import convert
    from hepgen_ml.events import EventSample, RunInfo
    from hepgen_ml.formats import read, write
    from hepgen_ml.generator import Generator
    from hepgen_ml.objects import Selection, parse_objects


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
