"""Figures that put generated events beside truth; they need the extra ``plots``.

Nothing here touches matplotlib's global state: figures are made without pyplot
and drawn by the Agg and PDF backends, so no display is needed.
"""

from hepgen_ml.validation.figures.panels import Curve, Panel, choose, grid, overview
from hepgen_ml.validation.figures.style import LOOKS, Look, house_style, save

__all__ = ["LOOKS", "Curve", "Look", "Panel", "choose", "grid", "house_style", "overview", "save"]
