"""Charts between four-momenta and unconstrained coordinates, and the cuts that bound them."""

from hepgen_ml.phase_space.chart import Chart
from hepgen_ml.phase_space.charts import BalancedChart, FixedEnergyChart, chart_from_config
from hepgen_ml.phase_space.coordinates import Coordinate
from hepgen_ml.phase_space.cuts import Acceptance, Cut

__all__ = [
    "Acceptance",
    "BalancedChart",
    "Chart",
    "Coordinate",
    "Cut",
    "FixedEnergyChart",
    "chart_from_config",
]
