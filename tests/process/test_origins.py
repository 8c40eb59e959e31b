"""Cuts on what collisions make that do not hold for what decays make, and the reverse."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hepgen_ml.errors import UsageError
from hepgen_ml.events.sample import EventSample, RunInfo, Subrun, concatenate
from hepgen_ml.phase_space import Acceptance, Cut, parse_cut
from hepgen_ml.phase_space.chart import incoming_momenta
from hepgen_ml.phase_space.coordinates import boost, from_pt_rapidity_phi
from hepgen_ml.phase_space.cuts import reported
from hepgen_ml.process.inside import inside, inside_cuts
from hepgen_ml.process.learner import ProcessLearner
from hepgen_ml.process.process import Process
from tests.process.test_decay_charts import without_rows
from tests.samples import learned

MASS, WIDTH = 91.2, 2.5


def boson_and_jet(
    n: int, seed: int, jet: int = 21, quark: int = 1, least: float = 20.0
) -> EventSample:
    """A Z boson, which becomes two particles, and a massless one with a smallest pT."""
    rng = np.random.default_rng(seed)
    draw = [torch.from_numpy(v) for v in (rng.random(n), *rng.normal(0, 1.2, (2, n)),
                                          *rng.random((4, n)))]  # fmt: skip
    tangent = torch.tan((draw[3] - 0.5) * 2.8)
    mass = torch.sqrt(MASS**2 + MASS * WIDTH * tangent)
    pt, phi = least * draw[0] ** (-1 / 2.5), 6.28 * draw[4]
    one = from_pt_rapidity_phi(pt, draw[1], phi, 0 * pt)
    z = from_pt_rapidity_phi(pt, draw[2], phi + np.pi, mass)
    cosine, angle = 2 * draw[5] - 1, 6.28 * draw[6]
    sine = torch.sqrt(1 - cosine**2)
    unit = torch.stack([sine * torch.cos(angle), sine * torch.sin(angle), cosine], dim=1)
    energy = mass[:, None] / 2
    a, b = (boost(torch.cat([s * unit * energy, energy], dim=1), z, mass) for s in (1.0, -1.0))
    p = torch.stack([0 * z, 0 * z, z, a, b, one], dim=1)
    p[:, :2] = incoming_momenta(z + one, 0.0, 0.0)
    values = p.numpy()
    anti = quark if quark == 22 else -quark
    incoming = (2, -2) if jet in (21, 22) else (jet, 21)
    rows = {
        "pdg_id": (*incoming, 23, quark, anti, jet), "status": (-1, -1, 2, 1, 1, 1),
        "mother1": (0, 0, 1, 3, 3, 1), "mother2": (0, 0, 2, 3, 3, 2),
    }  # fmt: skip
    columns = {name: np.tile(row, n) for name, row in rows.items()}
    own = np.zeros((n, 6))
    own[:, 2] = mass.numpy()
    columns |= {k: values[..., i].ravel() for i, k in enumerate(("px", "py", "pz", "energy"))}
    columns |= {"mass": own.ravel(), "spin": np.full(6 * n, 9.0)}
    columns |= {name: np.zeros(6 * n, dtype=int) for name in ("color1", "color2")}
    run = RunInfo((2212, 2212), (6500.0, 6500.0), processes=(Subrun(1, 200.0, 1.0),))
    events = {"process_id": np.ones(n), "scale": np.full(n, 91.2), "alpha_qed": np.full(n, 0.0078),
              "alpha_qcd": np.full(n, 0.118)}  # fmt: skip
    return EventSample(run, 6 * np.arange(n + 1), columns, events)


def without_some(sample: EventSample) -> EventSample:
    """The rows of Z bosons far off their mass shell are left out."""
    far = np.abs(sample.mass - MASS) > 2 * WIDTH
    return without_rows(sample, (sample.pdg_id == 23) & far)


def jets(n: int, seed: int) -> EventSample:
    """With gluons and quarks, which may be those that the boson becomes as well."""
    return concatenate([
        boson_and_jet(n, seed), boson_and_jet(n // 2, seed + 1, 1), boson_and_jet(n // 2, seed + 2),
        boson_and_jet(n // 2, seed + 3, 2),
    ])  # fmt: skip


def transverse(sample: EventSample) -> np.ndarray:
    return np.hypot(sample.particles["px"], sample.particles["py"])


@pytest.mark.parametrize("missing", [False, True])
def test_a_cut_that_does_not_hold_for_products_of_decays(missing: bool) -> None:
    sample, truth = jets(6000, 1), jets(3000, 11)
    if missing:
        sample, truth = without_some(sample), without_some(truth)
        assert 0.01 < float(np.mean(sample.counts == 5)) < 0.2
    process = learned(sample)
    assert process.cuts_in_words == ["20 <= pt(j of the collision)"]
    assert inside(truth, process.acceptance).all()
    assert len(process.encode(truth)) == len(truth)
    # the smallest transverse momentum of the jet is an end of its coordinate
    encoded = process.encode(sample)
    x = encoded.x.clone()
    for k in range(x.shape[1]):
        x[:, k] = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(k)), k]
    for some in (process, Process.from_config(process.to_config())):
        made = some.kinematics(x, encoded.subprocess, torch.zeros(len(x)))
        assert float(made.passes.double().mean()) > 0.5
        p = made.final[made.passes].numpy()
        channel = process.channel_of[encoded.subprocess].numpy()[made.passes.numpy()]
        for number, one in enumerate(process.channels):
            own = p[channel == number]
            pt = np.hypot(own[..., 0], own[..., 1])[:, : len(one.classes)]
            is_made = np.array([c == "j of the collision" for c in one.classes])
            if len(own) > 1000:
                assert 20 <= pt[:, is_made].min() < 20.2
                assert pt[:, ~is_made].min() < 5


def test_a_cut_on_products_of_decays_alone() -> None:
    """Photons of a decay above 20 GeV beside one of the collision above 10 GeV."""
    sample = boson_and_jet(30_000, 1, 22, 22, least=10.0)
    pt = transverse(sample).reshape(-1, 6)
    process = learned(sample[np.flatnonzero((pt[:, 3:5] > 20).all(1))])
    assert sorted(process.cuts_in_words) == [
        "10 <= pt(22 of the collision)", "20 <= pt(22 of decays)",
    ]  # fmt: skip


def test_a_cut_on_both_is_one() -> None:
    sample = without_some(jets(8000, 1))
    final = sample.particles["status"] == 1
    soft = np.add.reduceat(final & (transverse(sample) < 20), sample.offsets[:-1])
    process = learned(sample[np.flatnonzero(soft == 0)])
    assert process.cuts_in_words == ["20 <= pt(j)"]
    assert {c for channel in process.channels for c in channel.classes} == {"j"}


def test_stated_cuts_hold_for_both() -> None:
    sample = jets(6000, 1)
    final = sample.particles["status"] == 1
    for text in ("pt(j) > 30", "abs_eta(j) < 3"):
        cut = parse_cut(text)
        good = inside(sample, Acceptance([cut]))
        learner = ProcessLearner(cuts=[cut])
        some = sample[np.flatnonzero(good)]
        learner.add(some)
        process = learner.process(sample.run.beam_energy)
        assert str(cut) in process.cuts_in_words
        assert len(process.encode(sample)) == good.sum()
    soft = np.add.reduceat(final & (transverse(sample) < 30), sample.offsets[:-1])
    assert (inside(sample, Acceptance([parse_cut("pt(j) > 30")])) == (soft == 0)).all()


@pytest.mark.parametrize("find", [True, False])
@pytest.mark.parametrize("missing", [False, True])
def test_stated_cuts_of_one_origin(find: bool, missing: bool) -> None:
    """As the found ones are reported; others on the class hold for both."""
    sample, cut = jets(4000, 1), parse_cut("30 <= pt(j of the collision)")
    sample = without_some(sample) if missing else sample
    stated = [cut, parse_cut("abs_eta(j) < 3"), parse_cut("pt(j of decays) < 200")]
    mask = inside_cuts(stated)
    assert mask is not None
    good = mask(sample)
    product = (sample.particles["mother1"] == 3) & (sample.particles["status"] == 1)
    made = (sample.particles["mother1"] == 1) & (sample.particles["status"] == 1)
    eta = np.arcsinh(sample.particles["pz"] / np.maximum(transverse(sample), 1e-300))
    bad = (product | made) & (np.abs(eta) > 3) | product & (transverse(sample) > 200)
    bad |= made & (transverse(sample) < 30)
    outside = np.add.reduceat(bad, sample.offsets[:-1]) > 0
    named = sample.counts == 6
    assert (good == ~outside)[named].all()
    assert 0.1 < good.mean() < 0.9
    learner = ProcessLearner(cuts=stated, find_cuts=find)
    learner.add(sample[np.flatnonzero(good)])
    process = learner.process(sample.run.beam_energy)
    words = set(process.cuts_in_words)
    assert {"30 <= pt(j of the collision)", "pt(j of decays) <= 200", "abs_eta(j) <= 3"} <= words
    assert len(process.encode(sample)) == good.sum()
    assert inside(sample, process.acceptance).sum() == good.sum()


def test_cuts_on_a_resonance_hold_where_its_row_is_missing() -> None:
    sample = without_some(boson_and_jet(6000, 1))
    stated = parse_cut("40 <= pt(23) <= 200")
    mask = inside_cuts([stated])
    assert mask is not None
    good = mask(sample)
    jet = transverse(sample) * ((sample.pdg_id == 21) & (sample.particles["status"] == 1))
    jet = np.add.reduceat(jet, sample.offsets[:-1])
    assert (good == ((jet >= 40) & (jet <= 200))).all()
    learner = ProcessLearner(cuts=[stated])
    learner.add(sample[np.flatnonzero(good)])
    process = learner.process(sample.run.beam_energy)
    assert str(stated) in process.cuts_in_words
    encoded = process.encode(sample)
    assert len(encoded) == good.sum()
    x = encoded.x.clone()
    for k in range(x.shape[1]):
        x[:, k] = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(k)), k]
    without = torch.tensor([not s.structure.intermediate for s in process.subprocesses])
    for some in (process, Process.from_config(process.to_config())):
        made = some.kinematics(x, encoded.subprocess, torch.zeros(len(x)))
        final = made.final[made.passes][:, :3]
        subprocess = encoded.subprocess[made.passes]
        assert bool(without[subprocess].any())
        ids = [[s.structure.pdg_id[r] for r in s.order] for s in some.subprocesses]
        gluon = torch.tensor([own.index(21) for own in ids])[subprocess]
        pt = final[torch.arange(len(final)), gluon, :2].norm(dim=1)
        assert 40 <= float(pt.min()) < float(pt.max()) <= 200
    # found without being stated, it holds for all events
    found = learned(sample[np.flatnonzero(good)]).acceptance
    assert "40 <= pt(j of the collision)" in map(str, found.cuts)
    assert inside(sample[np.flatnonzero(good)], found).all()


def test_sums_do_not_hide_other_cuts_on_jets() -> None:
    sample = jets(500, 1)
    masks = [inside_cuts(some) for some in (["ht(j) > 30", "pt(j) > 25"], ["ht(j) > 30"],
                                            ["pt(j) > 25"])]  # fmt: skip
    both, first, second = (mask(sample) for mask in masks if mask is not None)
    assert (both == first & second).all()
    assert 0 < both.sum() < min(first.sum(), second.sum())


def test_stated_cuts_of_an_origin_that_no_particle_has() -> None:
    sample = boson_and_jet(1000, 1)
    for text in ("pt(21 of decays) > 10", "pt(23 of decays) > 10", "pt(6 of the collision) > 10"):
        learner = ProcessLearner(cuts=[parse_cut(text)])
        learner.add(sample)
        with pytest.raises(UsageError, match="no particle is of class"):
            learner.process(sample.run.beam_energy)


@pytest.mark.parametrize("text", ["20 <= pt(j of the collision)", "pt(j of decays) <= 50",
    "0.4 <= delta_r(13, j of decays)", "60 <= mass(11, 11) <= 120", "20 <= pt(j1)"])  # fmt: skip
def test_cuts_are_stated_as_they_are_reported(text: str) -> None:
    assert str(parse_cut(text)) == text


def test_bounds_of_all_origins_are_reported_as_one() -> None:
    one, other = "j of the collision", "j of decays"
    cuts = [Cut("pt", (one,), 20, 900), Cut("pt", (other,), 20), Cut("pt", ("13",), 10)]
    assert [str(c) for c in reported(cuts)] == ["20 <= pt(j)", f"pt({one}) <= 900", "10 <= pt(13)"]
    pairs = [(one, one), (other, one), (other, other)]
    cuts = [Cut("delta_r", pair, 0.4) for pair in pairs]
    assert [str(c) for c in reported(cuts)] == ["0.4 <= delta_r(j, j)"]
    assert len(reported(cuts[:2])) == 2
