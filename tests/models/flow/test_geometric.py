"""Equivariant velocities: symmetry in momentum space, the way back to coordinates."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from hepgen_ml.config import Config, load_config
from hepgen_ml.models.conditions import Condition
from hepgen_ml.models.flow.flow_matching import FlowMatching, divergence
from hepgen_ml.models.flow.geometric import GeometricVelocity
from hepgen_ml.models.flow.settings import LGATrConfig
from hepgen_ml.networks.lgatr.embedding import reference_components, vector_part
from hepgen_ml.phase_space import BalancedChart, BeamsChart, Chart, FixedEnergyChart, PairChart
from hepgen_ml.phase_space.coordinates import boost, logit_between, rotate_about_beam, wrap
from hepgen_ml.process.channels import Channel
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.learner import ProcessLearner
from hepgen_ml.process.process import Process
from tests.samples import learned, toy_top_pairs, toy_z_jets

SMALL = ["lgatr.channels=4", "lgatr.scalars=8", "lgatr.blocks=2", "lgatr.heads=2"]


@pytest.fixture(scope="module")
def process() -> Process:
    return learned(toy_top_pairs(2000))


@pytest.fixture(scope="module")
def encoded(process: Process) -> Encoded:
    return process.encode(toy_top_pairs(2000))


def velocity(process: Process, encoded: Encoded, model: str, *settings: str) -> GeometricVelocity:
    torch.manual_seed(0)
    flow = FlowMatching(process, load_config(None, [f"model={model}", *SMALL, *settings]))
    flow.fit_standardization(encoded)
    assert isinstance(flow.velocity, GeometricVelocity)
    with torch.no_grad():
        for p in flow.velocity.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return flow.velocity.double()


def event(process: Process, encoded: Encoded, c: int) -> tuple[Tensor, Tensor]:
    rows = torch.nonzero(process.channel_of[encoded.subprocess] == c).squeeze(-1)[:40]
    d = len(process.channels[c].coordinates)
    torch.manual_seed(1)
    return torch.randn(len(rows), d, dtype=torch.float64), encoded.subprocess[rows]


def vectors(net: GeometricVelocity, t: Tensor, z: Tensor, p: Tensor, s: Tensor, c: int) -> Tensor:
    out = net.network(net.tokens(t, z, p / net.unit, s, c))
    return vector_part(out, net.symmetry)[:, : p.shape[1]]


def boosted(p: Tensor, along: tuple[float, float, float]) -> Tensor:
    frame = torch.tensor([*along, math.sqrt(1 + sum(k * k for k in along))], dtype=p.dtype)
    return boost(p, frame.expand_as(p), torch.ones_like(p[..., 0]))


def turned(p: Tensor) -> Tensor:
    return rotate_about_beam(p, torch.full_like(p[..., 0], 0.7))


def about_x(p: Tensor) -> Tensor:
    return rotate_about_beam(p[..., [1, 2, 0, 3]], torch.full_like(p[..., 0], 0.7))[
        ..., [2, 0, 1, 3]
    ]


TRANSFORMS = {
    "about beam": turned,
    "about x": about_x,
    "along beam": lambda p: boosted(p, (0.0, 0.0, 1.5)),
    "across": lambda p: boosted(p, (1.2, 0.0, 0.0)),
}

KEPT = [
    # model, settings, what is kept
    ("lgatr-cfm", ["lgatr.reference=none", "lgatr.time=false"], set(TRANSFORMS)),
    ("lgatr-cfm", ["lgatr.reference=none"], {"about beam", "about x"}),
    ("lgatr-cfm", ["lgatr.time=false"], {"about beam", "along beam"}),
    ("lgatr-cfm", [], {"about beam"}),
    ("lgatr-cfm", ["lgatr.reference=beams", "lgatr.time=false"], {"about beam"}),
    ("lgatr-cfm", ["lgatr.reference=beams", "lgatr.reference_tokens=true"], {"about beam"}),
    ("gatr-cfm", ["lgatr.reference=none"], {"about beam", "about x"}),
    ("gatr-cfm", [], {"about beam"}),
]


@pytest.mark.parametrize(("model", "settings", "kept"), KEPT)
def test_symmetry_is_broken_to_what_the_references_leave(
    model: str, settings: list[str], kept: set[str], process: Process, encoded: Encoded
) -> None:
    net = velocity(process, encoded, model, *settings)
    for c in range(len(process.channels)):
        z, s = event(process, encoded, c)
        t = torch.rand(len(z), dtype=torch.float64)
        p = net.momenta(z, c)
        with torch.no_grad():
            v = vectors(net, t, z, p, s, c)
            for name, transform in TRANSFORMS.items():
                moved = vectors(net, t, z, transform(p), s, c)
                error = (moved - transform(v)).abs().max() / v.abs().max()
                assert (error < 1e-9) == (name in kept), (name, error)


def test_references_as_channels_and_tokens_are_different_networks(
    process: Process, encoded: Encoded
) -> None:
    channels = velocity(process, encoded, "lgatr-cfm")
    tokens = velocity(process, encoded, "lgatr-cfm", "lgatr.reference_tokens=true")
    z, s = event(process, encoded, 0)
    p = channels.momenta(z, 0)
    t = torch.full((len(z),), 0.5, dtype=torch.float64)
    n = p.shape[1]
    assert channels.tokens(t, z, p, s, 0).vectors.shape[2:] == (n, 6)
    assert tokens.tokens(t, z, p, s, 0).vectors.shape[2:] == (n + 2, 2)


def test_references_are_what_they_are_called() -> None:
    assert reference_components("plane", True).nonzero().tolist() == [[0, 8], [1, 1]]
    assert reference_components("beams", False)[:, 1:5].tolist() == [[1, 0, 0, 1], [1, 0, 0, -1]]
    assert len(reference_components("none", False)) == 0


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("model", ["lgatr-cfm", "gatr-cfm"])
def test_coordinates_move_with_the_momenta(
    model: str, every: bool, process: Process, encoded: Encoded
) -> None:
    """A small step of the momenta along v_p changes coordinates as their velocity says: azimuths,
    or all but the logarithmic ones if scalars do not move the others too."""
    net = velocity(process, encoded, model, f"lgatr.coordinates={str(every).lower()}")
    for c, channel in enumerate(process.channels):
        z, s = event(process, encoded, c)
        t = torch.full((len(z),), 0.3, dtype=torch.float64)
        with torch.no_grad():
            velocity_z = net(t, z, Condition(s, c))
            p = net.momenta(z, c)
            mt = torch.sqrt((p[..., 3] - p[..., 2]) * (p[..., 3] + p[..., 2]))
            v = vectors(net, t, z, p, s, c) * mt.unsqueeze(-1)
        v[:, -1, :2] = -v[:, :-1, :2].sum(1)
        step = 1e-6
        change = channel.chart.forward(p + step * v) - channel.chart.forward(p - step * v)
        keep = [i for i in range(change.shape[1]) if i != channel.cyclic]
        bias = net.head.bias[net.head.numbers[c]]
        for i, coordinate in enumerate(channel.coordinates):
            if coordinate.logarithmic:
                continue
            found = wrap(change[:, keep[i]]) / (2 * step) / net.std[c, i] + bias[i]
            same = torch.allclose(found, velocity_z[:, i], rtol=1e-4, atol=1e-5)
            assert same == (coordinate.periodic or not every), coordinate.name


def test_scalars_of_stored_models_are_logarithmic_coordinates(
    process: Process, encoded: Encoded
) -> None:
    """As they were before all coordinates could be inputs."""
    stored = Config.of_stored({"model": "lgatr-cfm", "lgatr": {"channels": 8, "blocks": 4}})
    section = stored.section(LGATrConfig)
    assert (section.channels, section.blocks, section.coordinates) == (8, 4, False)
    every = velocity(process, encoded, "lgatr-cfm")
    some = velocity(process, encoded, "lgatr-cfm", "lgatr.coordinates=false")
    without = velocity(process, encoded, "lgatr-cfm", "lgatr.time=false")
    assert set(some.slots) < set(every.slots)
    assert without.slots == some.slots  # boosts along the beam remain, which change rapidities


def test_prepared_weights_follow_training(process: Process, encoded: Encoded) -> None:
    """The fast path is renewed when the weights change, and agrees with the network."""
    net = velocity(process, encoded, "lgatr-cfm").float().eval()
    z, s = event(process, encoded, 1)
    z = z.float()
    t = torch.full((len(z),), 0.3)
    with torch.no_grad():
        first = net(t, z, Condition(s, 1))
        for p in net.network.parameters():
            p.mul_(1.3)
        second = net(t, z, Condition(s, 1))
    with torch.enable_grad():
        slow = net(t, z, Condition(s, 1))
    assert (first - second).abs().max() > 1e-3
    assert torch.allclose(second, slow, rtol=1e-4, atol=1e-4)


def test_far_coordinates_stay_finite(process: Process, encoded: Encoded) -> None:
    net = velocity(process, encoded, "lgatr-cfm").float()
    for c, channel in enumerate(process.channels):
        z = 30 * torch.randn(200, len(channel.coordinates))
        s = encoded.subprocess[process.channel_of[encoded.subprocess] == c][:1].expand(200)
        assert torch.isfinite(net(torch.rand(200), z, Condition(s, c))).all()


def test_gradients_are_finite_for_massless_jets() -> None:
    """Coordinates whose Jacobian has no bound spoil no gradient, in single precision either."""
    learner = ProcessLearner()
    sample = toy_z_jets(1500)
    learner.add(sample)
    process = learner.process((6500.0, 6500.0))
    encoded = process.encode(sample)
    torch.manual_seed(0)
    flow = FlowMatching(process, load_config(None, ["model=lgatr-cfm", *SMALL]))
    flow.fit_standardization(encoded)
    z = flow.prepare(encoded.x, encoded.labels)
    flow.loss(z, encoded.labels, torch.ones(len(z))).backward()
    for name, p in flow.named_parameters():
        assert p.grad is None or torch.isfinite(p.grad).all(), name
    edge = torch.nextafter(torch.ones(1), torch.zeros(1)).requires_grad_()
    logit_between(edge, 0.0, 1.0).backward()
    assert torch.isfinite(edge.grad).all()  # type: ignore[arg-type]


def test_places_without_momenta(
    process: Process, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a chart has no momenta at all, those of a typical event are shown."""
    net = velocity(process, encoded, "lgatr-cfm").train()
    z, subprocess = event(process, encoded, 0)
    inverse, far = BalancedChart.inverse, z.clone()
    far[:5] = 9.0

    def partly(chart: BalancedChart, x: Tensor) -> tuple[Tensor, Tensor]:
        p, total = inverse(chart, x)
        lost = (x[:, :1] > net.mean[0, 0] + 8 * net.std[0, 0]).unsqueeze(-1)
        return torch.where(lost, torch.nan, p), total

    time = torch.full((len(z),), 0.3, dtype=z.dtype)
    whole = net(time, z, Condition(subprocess, 0))
    monkeypatch.setattr(BalancedChart, "inverse", partly)
    part = net(time, far.requires_grad_(), Condition(subprocess, 0))
    assert torch.isfinite(part).all()
    assert torch.equal(part[5:], whole[5:])
    part.sum().backward()
    assert far.grad is not None
    assert torch.isfinite(far.grad).all()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in net.parameters())


class OneChart:
    """A process of one subprocess, whose events are the coordinates of a chart."""

    conditions = None

    def __init__(self, chart: Chart) -> None:
        self.channels = [Channel(chart, None, tuple(chart.labels))]  # type: ignore[arg-type]
        self.n_coordinates = len(self.channels[0].coordinates)
        self.channel_of = torch.zeros(1, dtype=torch.int64)
        structure = SimpleNamespace(pdg_id=(), incoming=(), process_id=1)
        self.subprocesses = [SimpleNamespace(structure=structure, order=(), chart=0)]

    def momenta(self, x: Tensor) -> Tensor:
        return self.channels[0].chart.inverse(self.channels[0].join(x, torch.zeros(len(x))))[0]

    def kinematics(self, x: Tensor, *_: Tensor) -> SimpleNamespace:
        return SimpleNamespace(passes=torch.isfinite(self.momenta(x)).all(-1).all(-1))


NEAR_EDGES = [
    FixedEnergyChart(["j1", "j2", "j3"], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 91.2]),
    BeamsChart(["W+", "W-"], [80.4, 80.4], [None, None], [100.0, 100.0], [0.0, 0.0]),
    PairChart(
        ["q", "e"], [0.0, 0.000511], [None, 27.5], [920.0, 0.0], [0.0, 0.000511],
        math.sqrt(25.0), 2.0, [[0.0, 0.0], [25 / 55, 0.0]],
    ),
]  # fmt: skip


def near_edges(chart: Chart) -> FlowMatching:
    """A flow whose network has random weights, in double precision."""
    torch.manual_seed(0)
    process = OneChart(chart)
    settings = [f"flow.{k}=7" for k in ("steps", "likelihood_steps")]
    config = load_config(None, ["model=lgatr-cfm", *SMALL, *settings])
    flow = FlowMatching(process, config)  # type: ignore[arg-type]
    x = 1.2 * torch.randn(3000, process.n_coordinates, dtype=torch.float64) + 1.0
    for i, coordinate in enumerate(process.channels[0].coordinates):
        if coordinate.periodic:
            x[:, i] = math.pi * (2 * torch.rand(len(x), dtype=torch.float64) - 1)
    x = x[torch.isfinite(process.momenta(x)).all(-1).all(-1)]
    m = len(x)
    none, weight = torch.zeros(m, dtype=torch.int64), torch.ones(m, dtype=torch.float64)
    zero = torch.zeros(m, 3)
    flow.fit_standardization(Encoded(x, none, none, none, zero, weight, zero, torch.arange(m)))
    with torch.no_grad():
        for p in flow.velocity.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return flow.double()


@pytest.mark.parametrize("chart", NEAR_EDGES, ids=lambda c: c.kind)
def test_divergence_at_edges_of_phase_space(
    chart: Chart, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finite everywhere, beyond the edges too, and that of the velocity that samples."""
    monkeypatch.setattr("hepgen_ml.models.flow.base_distribution._PROPOSALS", 5000)
    flow = near_edges(chart)
    d, m = len(flow.layouts[0]), 300
    z = (2.5 * torch.randn(m, d, dtype=torch.float64)).requires_grad_()
    inside = flow.base.process.kinematics(z.detach() * flow.std[0] + flow.mean[0]).passes
    assert ((~inside).sum() > 10) == (chart.kind == "beams")
    t, condition = torch.rand(m, dtype=z.dtype), Condition(torch.zeros(m, dtype=torch.int64), 0)
    found = divergence(flow.speed(t, z, condition), z)
    assert torch.isfinite(found).all()
    h, expected = 1e-6, torch.zeros_like(found)
    with torch.no_grad():
        for step in h * torch.eye(d, dtype=z.dtype):
            change = flow.speed(t, z + step, condition) - flow.speed(t, z - step, condition)
            expected += (change @ step) / (2 * h**2)
    # a few are at a bound, where slopes of both sides differ
    wrong = (found - expected).abs() > 1e-3 * (1 + found.abs())
    assert wrong.double().mean() < 0.03


def test_likelihood_is_the_change_of_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    """The density of generated events follows from the Jacobian of the map that makes them."""
    monkeypatch.setattr("hepgen_ml.models.flow.base_distribution._PROPOSALS", 5000)
    flow = near_edges(NEAR_EDGES[1])
    d, m = len(flow.layouts[0]), 40
    none = torch.zeros(m, dtype=torch.int64)
    start = flow.base.sample(none).double()
    start[0] = 2.5  # from places of no event as well
    h, columns = 1e-5, []
    for step in h * torch.eye(d, dtype=start.dtype):
        ahead, back = (flow.transport(start + s * step, none) for s in (1, -1))
        columns.append(flow.displacement(back, ahead, 0) / (2 * h))
    volume = torch.linalg.slogdet(torch.stack(columns, -1)).logabsdet
    expected = flow.base.log_prob(start, none) - volume
    found = flow.log_prob_z(flow.transport(start, none), none)
    assert torch.isfinite(found).all()
    assert (found - expected).abs().median() < 1e-3
    assert ((found - expected).abs() < 0.02).double().mean() > 0.9
