"""Cuts as they are written, stored, stated and enforced."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hepgen_ml.errors import SampleError, UsageError
from hepgen_ml.events.sample import EventSample
from hepgen_ml.phase_space import Acceptance, Cut, parse_cut
from hepgen_ml.phase_space.coordinates import pseudorapidity, transverse_momentum
from hepgen_ml.phase_space.cuts import Evidence, flavour_class, overridden
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.training.data import SampleSource, learn_process
from hepgen_ml.training.encoded import encode_sample
from tests.phase_space.test_decays import hadronic_tops
from tests.samples import toy_top_pairs, toy_z_jets


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pt(Jet)>25", Cut("pt", ("Jet",), low=25.0)),
        (" delta_r( Jet , Muon ) >= 0.4 ", Cut("delta_r", ("13", "Jet"), low=0.4)),
        ("abs_eta(j) < 4.5", Cut("abs_eta", ("j",), high=4.5)),
        ("energy(22 of the collision) > 5", Cut("energy", ("22 of the collision",), low=5.0)),
        ("mass(-6,6) > 400", Cut("mass", ("6", "6"), low=400.0)),
    ],
)
def test_cuts_are_parsed(text: str, expected: Cut) -> None:
    assert parse_cut(text) == expected


@pytest.mark.parametrize(
    "text",
    ["pt>25", "pt(Jet)", "pt(Jet,Jet)>1", "pt(Foo)>1", "pt(Jet)>nan", "energy(j)>20", "plus(j)>30"],
)
def test_what_is_no_cut(text: str) -> None:
    with pytest.raises(UsageError, match="is not a cut"):
        parse_cut(text)


def test_stated_cuts_hold() -> None:
    """Events outside and their share of the cross section are left out, pT goes into the chart."""
    sample = toy_z_jets(3000)
    source = SampleSource(sample, cuts=[parse_cut("pt(Jet) > 30"), parse_cut("mass(13,13) > 70")])
    process = learn_process(source, seed=0)
    low = {(c.observable, c.classes): c.low for c in process.acceptance.cuts}
    assert low["pt", ("Jet",)] == 30.0
    assert low["mass", ("13", "13")] == 70.0
    kept = sum(len(chunk) for chunk in source.chunks())
    assert 0.3 < kept / len(sample) < 0.95
    assert source.n_unselected == len(sample) - kept
    assert source.run.cross_section == pytest.approx(1500.0 * kept / len(sample))
    charts = [c.chart for c in process.channels if len(c.classes) > 2]
    assert charts[0].pt_min[2] == 30.0
    assert charts[0].resonances[0].mass.low == 70.0


def test_acceptance_rejects_and_is_stored() -> None:
    acceptance = Acceptance([Cut("pt", ("j",), low=20.0), Cut("abs_eta", ("j",), high=5.0)])
    p = torch.randn(1000, 3, 4, generator=torch.Generator().manual_seed(1)).double() * 30
    passes = acceptance.passes(p, ("j", "j", "6"))
    pt, eta = transverse_momentum(p[:, :2]), pseudorapidity(p[:, :2])
    assert torch.equal(passes, ((pt > 20.0) & (eta.abs() < 5.0)).all(1))
    again = Acceptance.from_config(acceptance.to_config())
    assert again.cuts == acceptance.cuts
    assert str(acceptance.cuts[0]) == "20 <= pt(j)"


def test_evidence_is_said_and_stored() -> None:
    evidence = Evidence(12_757, 199, 0.335, 0.49, ("j", "4"))
    cuts = [
        Cut("pt", ("4",), low=30.0, evidence=(evidence, None)),
        Cut("mass", ("13", "13"), 66.0, 116.0, (None, evidence)),
    ]
    acceptance = Acceptance(cuts)
    lines = acceptance.described()
    assert [line.partition(" (")[0] for line in lines] == [
        "30 <= pt(4)", "66 <= mass(13, 13)", "mass(13, 13) <= 116",
    ]  # fmt: skip
    assert "199 of 12,757 entries within 0.335" in lines[0]
    assert "of j and 4" in lines[2]
    assert lines[1] == "66 <= mass(13, 13)"
    again = Acceptance.from_config(acceptance.to_config())
    assert [c.evidence for c in again.cuts] == [c.evidence for c in cuts]
    old = [{k: v for k, v in c.items() if k != "evidence"} for c in acceptance.to_config()]
    assert Acceptance.from_config(old).cuts == acceptance.cuts


def test_stated_bounds_replace_those_found() -> None:
    evidence = Evidence(1000, 64, 1.0, 0.5, ("j",))
    found = [
        Cut("pt", ("j",), low=30.0, evidence=(evidence, None)),
        Cut("mass", ("j", "j"), 60.0, 120.0, (evidence, evidence)),
    ]
    stated = [parse_cut("pt(j) > 20"), parse_cut("mass(j, j) > 70"), parse_cut("pt(4) > 5")]
    cuts = {(c.observable, c.classes): c for c in overridden(found, stated)}
    assert cuts["pt", ("j",)] == Cut("pt", ("j",), low=20.0)
    assert cuts["pt", ("j",)].evidence == (None, None)
    assert cuts["mass", ("j", "j")] == Cut("mass", ("j", "j"), 70.0, 120.0)
    assert cuts["mass", ("j", "j")].evidence == (None, evidence)
    assert cuts["pt", ("4",)].low == 5.0


@pytest.mark.parametrize(
    ("pdg_id", "mass", "name"), [(21, 0, "j"), (-5, 0, "j"), (5, 4.7, "5"), (-13, 0.1, "13")]
)
def test_classes(pdg_id: int, mass: float, name: str) -> None:
    assert flavour_class(pdg_id, mass) == name


def test_stated_cuts_reach_everything_they_name() -> None:
    """Pairs of jets, and pairs in events that have nothing else."""
    sample = toy_z_jets(3000)
    for text in ("delta_r(Muon, Muon) < 3.0", "mass(Jet, Jet) > 60"):
        source = SampleSource(sample, cuts=[parse_cut(text)])
        process = learn_process(source, seed=0)
        assert source.n_unselected > 0
        kept = [process.encode(chunk) for chunk in source.chunks()]
        assert sum(map(len, kept)) == len(sample) - source.n_unselected
        assert len(process.encode(sample)) == len(sample) - source.n_unselected
    with pytest.raises(UsageError, match="no particle is of class '11'"):
        learn_process(SampleSource(sample, cuts=[parse_cut("pt(Electron) > 5")]), seed=0)


def test_cuts_that_leave_no_events_are_named() -> None:
    source = SampleSource(toy_top_pairs(1200), cuts=[parse_cut("pt(6) > 6000")])
    with pytest.raises(SampleError, match=r"0 events .*\(1200 others were left out .* by cuts\)"):
        learn_process(source, seed=0)


def test_cuts_that_particles_which_decay_do_not_have_are_refused() -> None:
    sample = hadronic_tops(1100)
    encode_sample(sample, cuts=[parse_cut("abs_eta(5) < 10")], skip_bad=True)
    with pytest.raises(UsageError, match="particles of class '6' decay"):
        encode_sample(sample, cuts=[parse_cut("abs_eta(6) < 2")], skip_bad=True)


def test_no_cuts_are_looked_for() -> None:
    """But what is stated holds."""
    sample = toy_z_jets(3000)
    assert learn_process(SampleSource(sample), seed=0).acceptance.cuts
    free = encode_sample(sample, find_cuts=False)
    assert free.process.acceptance.cuts == ()
    assert len(free.encoded) == len(sample)
    stated = encode_sample(sample, cuts=[parse_cut("pt(Jet) > 30")], find_cuts=False)
    assert [str(c) for c in stated.process.acceptance.cuts] == ["30 <= pt(Jet)"]


def test_chunks_of_which_nothing_remains() -> None:
    """A part of a file without a single event inside does not end the training."""
    sample = toy_z_jets(3000)
    process = learn_process(SampleSource(sample), seed=0)
    nothing = process.encode(sample[:0])
    assert len(nothing) == 0
    assert len(Encoded.join([nothing, process.encode(sample[:50])])) == 50


def test_events_without_objects_take_their_cross_section_away() -> None:
    sample = toy_z_jets(3000)
    jets = sample.pdg_id == 93
    counts = np.bincount(sample.event_index, jets, len(sample)).astype(int)
    columns = {name: values[jets] for name, values in sample.particles.items()}
    only = EventSample(sample.run, np.concatenate([[0], np.cumsum(counts)]), columns)
    source = SampleSource(only)
    kept = sum(len(chunk) for chunk in source.chunks())
    assert kept == (counts > 0).sum()
    assert source.run.cross_section == pytest.approx(1500.0 * kept / len(sample))


def test_cuts_take_each_process_its_own_share() -> None:
    """Events with a jet are one process, those without another; a jet cut concerns only one."""
    sample = toy_top_pairs(3000)
    source = SampleSource(sample, cuts=[parse_cut("pt(j) > 40")])
    for _ in source.chunks():
        pass
    without, with_jet = source.run.processes
    assert without.cross_section == pytest.approx(1.5)
    hard = np.hypot(sample.px, sample.py)[sample.offsets[1:] - 1] > 40
    jet = sample.process_id == 1
    assert with_jet.cross_section == pytest.approx(1.5 * hard[jet].mean())
