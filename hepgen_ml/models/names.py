"""Names of density models; loads neither torch nor pydantic, so that help texts can list them."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import entry_points

GROUP = "hepgen_ml.models"
"""Entry points of models: the name, and the module (or the class in it) that registers it."""

BUILT_IN = {
    "jetgpt": "hepgen_ml.models.jetgpt",
    "jetgpt-splitting": "hepgen_ml.models.jetgpt",
    "mlp-cfm": "hepgen_ml.models.flow",
    "transformer-cfm": "hepgen_ml.models.flow",
    "gatr-cfm": "hepgen_ml.models.flow",
    "lgatr-cfm": "hepgen_ml.models.flow",
    "spline-flow": "hepgen_ml.models.normalizing_flow",
    "ddpm": "hepgen_ml.models.diffusion",
    "ddpm-mlp": "hepgen_ml.models.diffusion",
    "ddpm-transformer": "hepgen_ml.models.diffusion",
    "ddpm-gatr": "hepgen_ml.models.diffusion",
    "ddpm-lgatr": "hepgen_ml.models.diffusion",
    "gan": "hepgen_ml.models.adversarial",
}
"""Modules in which our own models register themselves, found without an installation too."""


def names(registered: Iterable[str] = ()) -> list[str]:
    """Names of our models, and of those of other packages: installed, or registered by a script."""
    plugins = {entry.name for entry in entry_points(group=GROUP)} | set(registered)
    return [*BUILT_IN, *sorted(plugins - set(BUILT_IN))]
