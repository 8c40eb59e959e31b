"""Charts between four-momenta and unconstrained coordinates, and the cuts that bound them."""

from collections.abc import Callable
from typing import Any

from hepgen_ml.phase_space.beams import AT_FULL, MARGIN, BeamsChart
from hepgen_ml.phase_space.chart import Chart
from hepgen_ml.phase_space.charts import BalancedChart, FixedEnergyChart
from hepgen_ml.phase_space.coordinates import Coordinate
from hepgen_ml.phase_space.cut_text import parse_cut
from hepgen_ml.phase_space.cuts import Acceptance, Cut
from hepgen_ml.phase_space.decay import PRODUCTIONS, DecayChart, Node
from hepgen_ml.phase_space.formation import FormationChart
from hepgen_ml.phase_space.masses import Beside, MassSpec, Peak
from hepgen_ml.phase_space.pair import PairChart
from hepgen_ml.phase_space.radiative_return import RadiativeReturnChart
from hepgen_ml.phase_space.reconstructed import ReconstructedChart
from hepgen_ml.phase_space.resonance import Resonance

__all__ = [
    "AT_FULL",
    "MARGIN",
    "PRODUCTIONS",
    "Acceptance",
    "BalancedChart",
    "BeamsChart",
    "Beside",
    "Chart",
    "Coordinate",
    "Cut",
    "DecayChart",
    "FixedEnergyChart",
    "FormationChart",
    "MassSpec",
    "Node",
    "PairChart",
    "Peak",
    "RadiativeReturnChart",
    "ReconstructedChart",
    "Resonance",
    "chart_from_config",
    "parse_cut",
]


def chart_from_config(config: dict[str, Any]) -> Chart:
    """Make a chart from the result of `Chart.to_config`."""
    arguments = dict(config)
    kind = arguments.pop("kind")
    if "pair" in arguments:  # as models had it before resonances could be named
        pair = arguments.pop("pair")
        arguments["resonances"] = [] if pair is None else [{
            "label": ",".join(arguments["labels"][pair[key]] for key in ("first", "second")),
            "objects": [pair["first"], pair["second"]],
            "mass": [pair[key] for key in ("low", "high", "mass", "width")],
        }]  # fmt: skip
    charts: dict[str, Callable[..., Chart]] = {
        **PRODUCTIONS, ReconstructedChart.kind: ReconstructedChart, DecayChart.kind: DecayChart
    }  # fmt: skip
    if kind not in charts:
        raise ValueError(f"unknown chart {kind!r}")
    return charts[kind](**arguments)
