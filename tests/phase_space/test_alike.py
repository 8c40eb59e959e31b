"""Charts that differ by masses alone, for events of all of them together."""

from __future__ import annotations

import pytest
import torch

from hepgen_ml.phase_space import BalancedChart, Beside, Chart, DecayChart, Node, Peak
from hepgen_ml.phase_space.alike import Alike, shape_of

PEAK = Peak(50.0, 120.0, 91.2, 2.5)


def two_decays(light: float, peak: Peak | Beside, name: str) -> DecayChart:
    """Two resonances, of which one becomes a light pair and the other a pair in a range."""
    nodes = [
        Node(f"{name}1", peak, (2, 3)), Node(f"{name}2", Peak(100.0, 200.0, 150.0, 3.0), (4, 5)),
        Node(f"{name}3", light), Node(f"{name}4", 0.0), Node(f"{name}5", (light, light + 20.0)),
        Node(f"{name}6", 1.5),
    ]  # fmt: skip
    return DecayChart(nodes, 2, {"kind": "balanced", "pt_min": [0.0]})


GROUPS: list[list[Chart]] = [
    [two_decays(0.1, PEAK, "a"), two_decays(4.8, PEAK, "b"), two_decays(1.5, PEAK, "c")],
    [two_decays(0.1, PEAK, "a"), two_decays(0.1, PEAK._replace(mass=80.4, high=110.0), "b")],
    [two_decays(0.1, Beside(*PEAK, 80.0, 100.0), "a"),
     two_decays(0.5, Beside(*PEAK, 85.0, 95.0), "b")],
    [BalancedChart(["a", "b"], [m, 1.5], [20.0]) for m in (0.0, 4.8)],
]  # fmt: skip


@pytest.mark.parametrize("charts", GROUPS)
def test_events_of_charts_that_differ_by_masses(charts: list[Chart]) -> None:
    torch.manual_seed(3)
    assert len({shape_of(chart) for chart in charts}) == 1
    which = torch.randint(len(charts), (300,))
    x = 2 * torch.randn(300, charts[0].n_coordinates, dtype=torch.float64)
    together = Alike(charts).of(which)
    p, log_det = together.inverse(x)[0], together.log_det(x)
    again = together.forward(p)
    for k, chart in enumerate(charts):
        own = which == k
        expected = chart.inverse(x[own])[0]
        torch.testing.assert_close(p[own], expected, rtol=1e-12, atol=1e-9)
        torch.testing.assert_close(log_det[own], chart.log_det(x[own]), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(again[own], chart.forward(p[own]), rtol=1e-10, atol=1e-8)


def test_shapes_differ_by_what_is_made_and_how_it_decays() -> None:
    one = two_decays(0.1, PEAK, "a")
    shapes = {
        shape_of(chart)
        for chart in (
            one,
            two_decays(0.1, Beside(*PEAK, 80.0, 100.0), "a"),
            DecayChart(one.nodes, 2, {"kind": "balanced", "pt_min": [10.0]}),
            BalancedChart(["a", "b"], [0.0, 1.5], [20.0]),
            BalancedChart(["a", "b"], [0.0, (1.0, 2.0)], [20.0]),
        )
    }
    assert len(shapes) == 5
