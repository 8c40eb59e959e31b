"""Resonances: from records to decay charts and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hepgen_ml import Generator
from hepgen_ml.config import Config
from hepgen_ml.events.laws.checks import check_sample
from hepgen_ml.events.sample import EventSample, RunInfo, Subrun
from hepgen_ml.phase_space import DecayChart, Node, Peak
from hepgen_ml.phase_space.chart import incoming_momenta
from hepgen_ml.process.assembly import assemble
from hepgen_ml.process.decay_trees import Relatives, Tree, decay_tree, in_pairs, usual_pair
from hepgen_ml.process.encoded import Discrete
from hepgen_ml.process.process import Process
from hepgen_ml.process.structure import Structure, color_flow
from hepgen_ml.process.symmetry import exchanged_beams, has_exchange, looks_symmetric
from tests.samples import learned

TOP = Peak(150.0, 200.0, 173.0, 1.5)
W = Peak(50.0, 110.0, 80.4, 2.1)
CHART = DecayChart(
    [
        Node("6", TOP, (2, 3)), Node("-6", TOP, (4, 5)), Node("24", W, (6, 7)), Node("b", 4.8),
        Node("-24", W, (8, 9)), Node("b~", 4.8), *(Node(f"q{i}", 0.0) for i in range(4)),
    ],
    2,
    {"kind": "balanced", "pt_min": [0.0]},
)  # fmt: skip
IDS = (21, 21, 6, -6, 24, 5, -24, -5, 2, -1, 1, -2)
STATUS = (-1, -1, 2, 2, 2, 1, 2, 1, 1, 1, 1, 1)
MOTHER1 = (0, 0, 1, 1, 3, 3, 4, 4, 5, 5, 7, 7)
MOTHER2 = (0, 0, 2, 2, 3, 3, 4, 4, 5, 5, 7, 7)
COLOR1 = (501, 502, 501, 0, 0, 501, 0, 0, 504, 0, 505, 0)
COLOR2 = (502, 503, 0, 503, 0, 0, 0, 503, 0, 504, 0, 505)
LEAVES = (5, 7, 8, 9, 10, 11)  # rows of the chart's particles b, b~, q0 ... q3


def hadronic_tops(n: int, seed: int = 0) -> EventSample:
    """gg -> t t~ -> six quarks, with masses that follow Breit-Wigner distributions."""
    rng = torch.Generator().manual_seed(seed)
    u = torch.rand(n, CHART.n_coordinates, generator=rng, dtype=torch.float64)
    x = torch.log(u) - torch.log1p(-u)
    for i, coordinate in enumerate(CHART.coordinates):
        if coordinate.periodic:
            x[:, i] = 2 * np.pi * u[:, i] - np.pi
        elif coordinate.name.startswith("log_pt"):
            x[:, i] = 4.0 + 0.3 * x[:, i]
        elif "rapidity" in coordinate.name:
            x[:, i] *= 0.5
    final, total = CHART.inverse(x)
    p = torch.zeros(n, 12, 4, dtype=torch.float64)
    p[:, :2] = incoming_momenta(total, 0.0, 0.0)
    p[:, LEAVES] = final
    for row, daughters in ((6, (10, 11)), (4, (8, 9)), (3, (6, 7)), (2, (4, 5))):
        p[:, row] = p[:, daughters].sum(1)
    values = p.numpy()
    mass = np.sqrt(np.maximum(values[..., 3] ** 2 - (values[..., :3] ** 2).sum(-1), 0.0))
    mass[:, [0, 1, 8, 9, 10, 11]] = 0.0
    mass[:, [5, 7]] = 4.8
    constant = {"pdg_id": IDS, "status": STATUS, "mother1": MOTHER1, "mother2": MOTHER2,
                "color1": COLOR1, "color2": COLOR2}  # fmt: skip
    columns = {name: np.tile(row, n) for name, row in constant.items()}
    for name in ("color1", "color2"):  # either gluon may be the one that the top's colour is of
        table = columns[name].reshape(n, 12)
        table[::2, :2] = table[::2, 1::-1]
    columns |= {k: values[..., i].ravel() for i, k in enumerate(("px", "py", "pz", "energy"))}
    columns |= {"mass": mass.ravel(), "lifetime": np.zeros(12 * n), "spin": np.full(12 * n, 9.0)}
    run = RunInfo((2212, 2212), (6500.0, 6500.0), processes=(Subrun(1, 200.0, 1.0),))
    events = {"process_id": np.ones(n), "scale": np.full(n, 173.0), "alpha_qed": np.full(n, 0.0078),
              "alpha_qcd": np.full(n, 0.108)}  # fmt: skip
    return EventSample(run, 12 * np.arange(n + 1), columns, events)


@pytest.fixture(scope="module")
def sample() -> EventSample:
    return hadronic_tops(4000)


@pytest.fixture(scope="module")
def process(sample: EventSample) -> Process:
    return learned(sample)


def test_what_is_learned(process: Process) -> None:
    (channel,) = process.channels
    chart = channel.chart
    assert isinstance(chart, DecayChart)
    assert [n.label for n in chart.nodes if n.children] == ["6", "-6", "24", "-24"]
    for node in chart.nodes:
        if node.children:
            assert isinstance(node.mass, Peak)
            truth = TOP if node.label.endswith("6") else W
            assert node.mass.mass == pytest.approx(truth.mass, abs=0.15)
            assert node.mass.width == pytest.approx(truth.width, rel=0.1)
    assert len(channel.coordinates) == 4 + 4 * 2 + 2 + 1  # masses, angles, momenta; one azimuth off
    # A Breit-Wigner mass is a logistic coordinate, of variance pi^2 / 3.
    names = [c.name for c in channel.coordinates]
    assert {"logit_mass:24", "artanh_cos_theta:24", "decay_phi:24>1"} <= set(names)
    again = Process.from_config(process.to_config())
    assert again.channels[0].chart.to_config() == chart.to_config()


def test_round_trip(sample: EventSample, process: Process) -> None:
    encoded = process.encode(sample)
    assert len(encoded) == len(sample)
    mass = [c.name for c in process.channels[0].coordinates].index("logit_mass:24")
    assert float(encoded.x[:, mass].std()) == pytest.approx(np.pi / 3**0.5, rel=0.1)
    kinematics = process.kinematics(encoded.x, encoded.subprocess, torch.zeros(len(sample)))
    discrete = Discrete(encoded.pattern, encoded.branch, encoded.free)
    again = assemble(process, kinematics, encoded.subprocess, discrete, sample.run)
    for name in ("pdg_id", "status", "mother1", "mother2"):
        assert (again.particles[name] == sample.particles[name]).all(), name
    flows = [color_flow(*(s.particles[k].reshape(-1, 12) for k in ("color1", "color2")))
             for s in (again, sample)]  # fmt: skip
    assert (flows[0] == flows[1]).all()
    assert again.mass == pytest.approx(sample.mass, abs=1e-4)
    assert again.energy == pytest.approx(sample.energy, rel=1e-9)
    assert np.hypot(again.px, again.py) == pytest.approx(np.hypot(sample.px, sample.py), abs=1e-6)
    tops = again.status == 2
    for name in ("px", "py", "pz", "energy"):  # resonances are the sums of their daughters
        value, first = again.particles[name], again.offsets[:-1]
        assert value[first + 2] == pytest.approx(value[first + 4] + value[first + 5], abs=1e-8)
    assert tops.sum() == 4 * len(sample)


def test_mirror_images(sample: EventSample, process: Process) -> None:
    encoded = process.encode(sample[:500])
    assert has_exchange(sample.run, process)
    mirrored, possible = exchanged_beams(process, encoded)
    assert possible.all()
    here = process.kinematics(encoded.x, encoded.subprocess, torch.full((500,), 0.4))
    there = process.kinematics(mirrored.x, mirrored.subprocess, torch.full((500,), -0.4))
    turned = here.final * torch.tensor([1.0, -1.0, -1.0, 1.0])
    assert torch.allclose(there.final, turned, rtol=1e-8, atol=1e-8)


def test_polarised_decays_are_symmetric_too(process: Process, sample: EventSample) -> None:
    """Angles in helicity frames keep their sign under the exchange, and may favour one side."""
    encoded = process.encode(sample)
    names = [c.name for c in process.channels[0].coordinates]
    encoded.x[:, names.index("artanh_cos_theta:24>1")] += 0.5
    assert looks_symmetric(process, encoded)
    encoded.x[:, names.index("rapidity:6")] += 0.5
    assert not looks_symmetric(process, encoded)


def structure(ids: list[int], status: list[int], mother: list[int]) -> Structure:
    mothers2 = [2 if m == 1 else m for m in mother]
    return Structure(1, tuple(ids), tuple(status), tuple(mother), tuple(mothers2))


TOP_AND_W = structure([21, 21, 6, 24, 5, -11, 12, -6], [-1, -1, 2, 2, 1, 1, 1, 1],
                      [0, 0, 1, 3, 3, 4, 4, 1])  # fmt: skip
ONLY_TOP = structure([21, 21, 6, 5, -11, 12, -6], [-1, -1, 2, 1, 1, 1, 1],
                        [0, 0, 1, 3, 3, 3, 1])  # fmt: skip
NEITHER = structure([21, 21, 5, -11, 12, -6], [-1, -1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1])


def test_trees() -> None:
    full = Structure(1, IDS, STATUS, MOTHER1, MOTHER2)
    assert decay_tree(full) == Tree((2, 3), {2: (4, 5), 3: (6, 7), 4: (8, 9), 6: (10, 11)})
    copied = structure([1, -1, 23, 23, 13, -13], [-1, -1, 2, 2, 1, 1], [0, 0, 1, 3, 4, 4])
    assert decay_tree(copied) == Tree((3,), {3: (4, 5)})
    assert decay_tree(ONLY_TOP) == Tree((2, 6), {2: (3, 5, 4)})
    stable = structure([21, 21, 6, -6], [-1, -1, 1, 1], [0, 0, 1, 1])
    assert decay_tree(stable) == Tree((2, 3), {})
    without_products = structure([1, -1, 23, 23, 13, -13], [-1, -1, 2, 2, 1, 1],
                                 [0, 0, 1, 1, 4, 4])  # fmt: skip
    assert decay_tree(without_products) == Tree((3,), {3: (4, 5)})
    of_two = Structure(1, (21, 21, 6, -6, 5), (-1, -1, 2, 2, 1), (0, 0, 1, 1, 3), (0, 0, 2, 2, 4))
    assert decay_tree(of_two) is None
    circle = structure([21, 21, 6, 24, 5, -6], [-1, -1, 2, 2, 1, 1], [0, 0, 4, 3, 3, 1])
    assert decay_tree(circle) is None


def test_resonances_without_a_row() -> None:
    """Their products come together as in events that have the row, also where two are missing."""
    known = [(s, decay_tree(s)) for s in (TOP_AND_W, ONLY_TOP)]
    relatives = Relatives((s, t) for s, t in known if t is not None)
    for record, made, children, systems in (
        (TOP_AND_W, (2, 7), {2: (3, 4), 3: (6, 5)}, {}),
        (ONLY_TOP, (2, 6), {2: (-1, 3), -1: (5, 4)}, {-1: 24}),
        (NEITHER, (5, -1), {-1: (-2, 2), -2: (4, 3)}, {-1: 6, -2: 24}),
    ):
        tree = decay_tree(record)
        assert tree is not None
        assert relatives.completed(record, tree) == Tree(made, children, systems)
    muons = structure([21, 21, 5, -13, 14, -6], [-1, -1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1])
    tree = decay_tree(muons)
    assert tree is not None
    assert relatives.completed(muons, tree) == tree


def test_pairs_of_leptons_without_a_row() -> None:
    """Of gamma*/Z -> l l with a jet of any flavour; other leptons stay as they are."""
    with_row = structure([21, 2, 23, 13, -13, 2], [-1, -1, 2, 1, 1, 1], [0, 0, 1, 3, 3, 1])
    without = structure([2, -2, 13, -13, 21], [-1, -1, 1, 1, 1], [0, 0, 1, 1, 1])
    of_two = structure([2, -2, 13, -11, 21], [-1, -1, 1, 1, 1], [0, 0, 1, 1, 1])
    trees = {s: decay_tree(s) for s in (with_row, without, of_two)}
    relatives = Relatives((s, t) for s, t in trees.items() if t is not None)
    completed = {s: relatives.completed(s, t) for s, t in trees.items() if t is not None}
    assert completed[with_row] == trees[with_row]
    assert completed[without] == Tree((4, -1), {-1: (2, 3)}, {-1: 23})
    assert completed[of_two] == trees[of_two]


def test_what_is_named_is_no_part_of_another_decay() -> None:
    """g~ -> q q' chi+- beside chi+- -> W chi0: the quarks are of no W, which has its own place."""
    record = structure(
        [21, 21, 1000021, 1000024, 1, -2, 24, 1000022, 3, -4],
        [-1, -1, 2, 2, 1, 1, 2, 1, 1, 1], [0, 0, 1, 3, 3, 3, 4, 4, 7, 7],
    )  # fmt: skip
    other = structure(
        [21, 21, 1000021, 1000024, 3, -4, 24, 1000022, 1, -2],
        [-1, -1, 2, 2, 1, 1, 2, 1, 1, 1], [0, 0, 1, 3, 3, 3, 4, 4, 7, 7],
    )  # fmt: skip
    known = [(s, decay_tree(s)) for s in (record, other)]
    relatives = Relatives((s, t) for s, t in known if t is not None)
    for s, tree in known:
        assert tree is not None
        assert relatives.completed(s, tree) == tree


def test_pairs() -> None:
    assert usual_pair([16, 11, -12], [0.0, 0.0005, 0.0]) == (1, 2)  # tau -> nu (e nu)
    assert usual_pair([5, -5, 21], [4.8, 4.8, 0.0]) == (0, 1)
    assert usual_pair([1000022, 2, -2], [100.0, 0.0, 0.0]) == (1, 2)
    assert usual_pair([3, 5, 4], [0.0, 4.8, 1.5]) == (0, 2)
    four = structure([21, 21, 25, 13, -13, 11, -11], [-1, -1, 2, 1, 1, 1, 1], [0, 0, 1, 3, 3, 3, 3])
    tree = decay_tree(four)
    assert tree is not None
    ids = four.pdg_id
    paired = in_pairs(
        four, tree, lambda _, c: usual_pair([ids[n] if n >= 0 else 0 for n in c], [0.1] * len(c))
    )
    assert sorted(paired.leaves(2)) == [3, 4, 5, 6]
    assert all(len(c) == 2 for c in paired.children.values())
    assert {frozenset(paired.leaves(n)) for n in paired.systems} == {
        frozenset({3, 4}), frozenset({5, 6})
    }  # fmt: skip


@pytest.mark.parametrize(
    "model", ["mlp-cfm", pytest.param("lgatr-cfm", marks=pytest.mark.slow)]
)
def test_flows_take_decay_charts(
    sample: EventSample, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hepgen_ml.models.flow.base_distribution._PROPOSALS", 2000)
    monkeypatch.setattr("hepgen_ml.training.acceptance.EVENTS", 100)
    config = Config().with_(
        model=model, training__max_steps=3, training__batch_size=128, training__max_epochs=100,
        network__width=32, network__blocks=2, lgatr__channels=2, lgatr__scalars=8,
        lgatr__blocks=1, lgatr__heads=2, flow__solver="euler",
        flow__steps=2, flow__likelihood_solver="euler", flow__likelihood_steps=2,
    )  # fmt: skip
    Generator.train(sample[:1200], out=tmp_path / "m", config=config, skip_bad=True)
    generator = Generator.load(tmp_path / "m")
    events = generator.sample(100, seed=1)
    assert not any(r.n_broken for r in check_sample([events], events.run))
    top = events.pdg_id == 6
    assert (np.abs(events.mass[top] - 175.0) < 25.1).all()
    assert np.isfinite(generator.log_prob(sample[:5])).all()


def test_scale_of_what_is_made(sample: EventSample) -> None:
    """A scale by the resonances' momenta is recognised, and exact in generated events."""
    tops = [sample.particles[c].reshape(-1, 12)[:, 2:4] for c in ("px", "py", "energy", "pz")]
    mt = np.sqrt(tops[2] ** 2 - tops[3] ** 2)
    events = {**sample.events, "scale": mt.min(1)}
    changed = EventSample(sample.run, sample.offsets, sample.particles, events)
    process = learned(changed)
    rule = process.channels[0].auxiliaries.rules["scale"]
    assert [o["formula"] for o in rule["options"]] == ["min_mt"]
    assert not rule["free"]
    encoded = process.encode(changed)
    phi = torch.full((len(encoded),), 0.3, dtype=torch.float64)
    kinematics = process.kinematics(encoded.x, encoded.subprocess, phi)
    discrete = Discrete(encoded.pattern, encoded.branch, encoded.free)
    made = assemble(process, kinematics, encoded.subprocess, discrete, sample.run)
    np.testing.assert_allclose(made.scale, mt.min(1)[encoded.event.numpy()], rtol=1e-8)


def test_angle_between_decay_planes_is_a_coordinate() -> None:
    """In H -> ZZ -> four leptons it is that of the planes, whatever frame measures it."""
    z = Peak(2.0, 125.0, 91.19, 2.5)
    nodes = [Node("25", 125.0, (1, 2)), Node("23", z, (3, 4)), Node("23_2", z, (5, 6)),
             *(Node(f"l{i}", 0.0) for i in range(4))]  # fmt: skip
    production = {"kind": "balanced", "pt_min": []}
    chart = DecayChart(nodes, 1, production, planes=True)
    plain = DecayChart(nodes, 1, production)
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(500, chart.n_coordinates, generator=rng, dtype=torch.float64).clamp(-3, 3)
    p, _ = chart.inverse(x)
    torch.testing.assert_close(chart.forward(p), x, rtol=1e-6, atol=1e-6)
    names = [c.name for c in chart.coordinates]
    at = names.index("decay_plane:l2")
    assert plain.coordinates[at].name == "decay_phi:l2"
    torch.testing.assert_close(chart.log_det(x), plain.log_det(x))
    # the angle by cross products in the rest frame of the Higgs boson, which is at rest along x, y
    higgs = p.sum(-2, keepdim=True)
    beta = higgs[..., 2] / higgs[..., 3]
    gamma = 1 / torch.sqrt(1 - beta**2)
    q = p[..., :3].clone()
    q[..., 2] = gamma * (p[..., 2] - beta * p[..., 3])
    normals = [torch.linalg.cross(q[:, a], q[:, b]) for a, b in ((0, 1), (2, 3))]
    cos = torch.cosine_similarity(*normals, dim=-1)
    torch.testing.assert_close(torch.cos(x[:, at]).abs(), cos.abs(), rtol=1e-6, atol=1e-6)
    assert DecayChart(**{k: v for k, v in chart.to_config().items() if k != "kind"}).planes
    assert "planes" not in plain.to_config()
    assert "planes" not in CHART.to_config()
