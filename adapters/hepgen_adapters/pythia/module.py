"""Pythia's Python module, from a wheel or from conda-forge."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from hepgen_ml.errors import UsageError

NAMES = ("pythia8mc", "pythia8")


def load_pythia() -> Any:
    """Import the optional module of Pythia 8.

    Raises
    ------
    UsageError
        If it is not installed.
    """
    missing: ImportError | None = None
    for name in NAMES:
        try:
            return import_module(name)
        except ImportError as error:
            missing = missing or error
    raise UsageError(
        "Pythia is not installed",
        # without the option pip compiles a release that has no wheel
        remedy="pip install --prefer-binary 'hepgen-ml[pythia]'",
    ) from missing


def configured(settings: list[str]) -> Any:
    """A Pythia with these settings, silent and without the banner.

    Raises
    ------
    UsageError
        Pythia is not installed, or does not know a setting.
    """
    pythia = load_pythia().Pythia("", False)
    for setting in ("Print:quiet = on", "SLHA:verbose = 0", *settings):
        if not pythia.readString(setting):
            raise UsageError(f"Pythia does not know the setting {setting!r}", remedy="correct it")
    return pythia
