"""Channels: subprocesses of one shape go through one chart, unless their cuts differ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from hepgen_ml.events.sample import EventSample, concatenate
from hepgen_ml.phase_space import Acceptance, Cut, parse_cut
from hepgen_ml.process.learner import ProcessLearner
from tests.phase_space.test_decays import CHART, hadronic_tops
from tests.samples import learned


def test_channels_of_one_shape_go_through_one_chart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of top pairs that become bottom or strange quarks, with what single channels give."""
    tops = hadronic_tops(400)
    masses = [1.2 if n.mass == 4.8 else n.mass for n in CHART.nodes]
    monkeypatch.setattr("tests.phase_space.test_decays.CHART", CHART.with_masses(masses))
    strange = hadronic_tops(400, seed=1)
    ids, mass = strange.pdg_id.copy(), strange.mass.copy()
    bottom = np.abs(ids) == 5
    ids[bottom], mass[bottom] = np.sign(ids[bottom]) * 3, 1.2
    columns = {**strange.particles, "pdg_id": ids, "mass": mass}
    sample = concatenate([
        tops, EventSample(tops.run, strange.offsets, columns, dict(strange.events))
    ])  # fmt: skip
    sample.events["scale"] = np.where(np.arange(len(sample)) < 400, 173.0, 91.0)
    separate, joined = learned(sample), learned(sample)
    assert len(separate.channels) == 2
    monkeypatch.setattr("hepgen_ml.process.channel_groups.MANY_CHANNELS", 1)
    assert joined.groups.group_of == [0, 0]
    found = joined.encode(sample)
    assert len(found) == len(sample)
    monkeypatch.setattr("hepgen_ml.process.channel_groups.MANY_CHANNELS", 2)
    expected = separate.encode(sample)
    assert separate.groups.group_of == [0, 1]
    for name in ("x", "subprocess", "pattern", "branch", "free", "invariants", "event"):
        one, other = getattr(found, name), getattr(expected, name)
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    phi = torch.zeros(len(sample), dtype=torch.float64)
    made, alone = (p.kinematics(found.x, found.subprocess, phi) for p in (joined, separate))
    torch.testing.assert_close(made.final, alone.final, rtol=1e-12, atol=1e-10)
    torch.testing.assert_close(made.incoming, alone.incoming, rtol=1e-12, atol=1e-10)
    assert made.passes.equal(alone.passes)
    with_cut = replace(separate, acceptance=Acceptance([Cut("pt", ("3",), low=1.0)]))
    monkeypatch.setattr("hepgen_ml.process.channel_groups.MANY_CHANNELS", 1)
    assert with_cut.groups.group_of == [0, 1]


@pytest.mark.parametrize(("cuts", "n_channels"), [([], 1), (["pt(3) > 30"], 2)])
def test_cuts_of_flavours_with_equal_masses(cuts: list[str], n_channels: int) -> None:
    """Bottom and strange quarks of one mass, of which one has a cut."""
    tops = hadronic_tops(600)
    ids = tops.pdg_id.copy()
    some = (np.abs(ids) == 5) & (tops.event_index < 300)
    ids[some] = np.sign(ids[some]) * 3
    sample = EventSample(
        tops.run, tops.offsets, {**tops.particles, "pdg_id": ids}, dict(tops.events)
    )
    learner = ProcessLearner(cuts=[parse_cut(cut) for cut in cuts], find_cuts=False)
    learner.add(sample)
    process = learner.process(sample.run.beam_energy)
    assert len(process.channels) == n_channels
    encoded = process.encode(sample)
    pt = np.hypot(sample.px, sample.py)
    soft = np.bincount(sample.event_index, (np.abs(ids) == 3) & (pt < 30), len(sample)) > 0
    assert 0 < soft.sum() < 300
    assert len(encoded) == len(sample) - (soft.sum() if cuts else 0)


def test_cuts_on_pairs_of_one_flavour() -> None:
    """Pairs of one flavour have a cut, for both flavours, but pairs of two flavours have none."""
    tops = hadronic_tops(600)
    ids = tops.pdg_id.copy()
    ids[(ids == 5) & (tops.event_index < 300)] = 3
    sample = EventSample(
        tops.run, tops.offsets, {**tops.particles, "pdg_id": ids}, dict(tops.events)
    )
    cuts = [parse_cut("mass(5,5) > 200"), parse_cut("mass(3,3) > 200")]
    learner = ProcessLearner(cuts=cuts, find_cuts=False)
    learner.add(sample)
    process = learner.process(sample.run.beam_energy)
    assert len(process.channels) == 2
    p = np.stack([tops.px, tops.py, tops.pz, tops.energy])
    pair = [np.bincount(tops.event_index, row * (np.abs(tops.pdg_id) == 5), 600) for row in p]
    light = pair[3] ** 2 - pair[0] ** 2 - pair[1] ** 2 - pair[2] ** 2 < 200**2
    assert light[:300].sum() > 0
    assert len(process.encode(sample)) == 600 - light[300:].sum()
