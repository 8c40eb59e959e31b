"""Exchange of equal beams, checked against events rotated by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hepgen_ml.errors import SampleError
from hepgen_ml.events.sample import EventSample
from hepgen_ml.process.encoded import without_pattern
from hepgen_ml.process.learner import ProcessLearner
from hepgen_ml.process.symmetry import (
    check_reflection,
    exchanged_beams,
    has_exchange,
    looks_symmetric,
    reflected,
    symmetrize_frequencies,
)
from tests.samples import learned, toy_top_pairs, toy_z_jets


@pytest.fixture(scope="module")
def sample() -> EventSample:
    return toy_top_pairs(4000)


def rotated(sample: EventSample) -> EventSample:
    """The same events turned by pi about the x axis."""
    columns = {name: values.copy() for name, values in sample.particles.items()}
    columns["py"], columns["pz"] = -columns["py"], -columns["pz"]
    return EventSample(sample.run, sample.offsets, columns, sample.events)


def test_mirrored_tensors_are_those_of_rotated_events(sample: EventSample) -> None:
    learner = ProcessLearner()
    # Both orientations are needed in the process for every event to have its mirror image.
    for part in (sample, rotated(sample)):
        learner.add(part)
    process = learner.process(sample.run.beam_energy)
    assert has_exchange(sample.run, process)
    mirrored, possible = exchanged_beams(process, process.encode(sample))
    assert possible.all()
    expected = process.encode(rotated(sample))
    order = torch.argsort(mirrored.event)
    for name in ("x", "free", "invariants"):
        a, b = getattr(mirrored[order], name), getattr(expected, name)
        assert torch.allclose(a, b, atol=1e-5), name
    for name in ("subprocess", "pattern", "branch"):
        assert torch.equal(getattr(mirrored[order], name), getattr(expected, name)), name


def without_helicities(sample: EventSample) -> EventSample:
    columns = {**sample.particles, "spin": np.full_like(sample.particles["spin"], 9.0)}
    return EventSample(sample.run, sample.offsets, columns, sample.events)


@pytest.mark.parametrize("kind", ["partons", "objects"])
def test_reflected_tensors_are_those_of_reflected_events(sample: EventSample, kind: str) -> None:
    some = without_helicities(sample) if kind == "partons" else toy_z_jets(1500)
    columns = {**some.particles, "py": -some.particles["py"]}
    process = learned(some)
    images, possible = reflected(process, process.encode(some))
    assert possible.all()
    expected = process.encode(EventSample(some.run, some.offsets, columns, some.events))
    angle = torch.zeros(images.x.shape, dtype=torch.bool)
    for c, channel in enumerate(process.channels):
        for i, coordinate in enumerate(channel.coordinates):
            angle[process.channel_of[images.subprocess] == c, i] = coordinate.periodic
    off = images.x - expected.x
    off = torch.where(angle, torch.remainder(off + np.pi, 2 * np.pi) - np.pi, off)
    # an atom of massless jets gets its place from the last digits
    massless = torch.zeros_like(angle) if kind == "partons" else expected.x < -2
    assert float(off[~massless].abs().max()) < 1e-5
    assert angle.any()
    assert float((images.x - process.encode(some).x).abs().max()) > 0.5
    for name in ("free", "invariants", "subprocess", "pattern", "branch", "event"):
        assert torch.allclose(getattr(images, name), getattr(expected, name), atol=1e-5), name


def test_reflected_events_have_no_helicities(sample: EventSample) -> None:
    """A reflection changes them: the image of an event that has some is of its kinematics alone."""
    process = learned(sample)
    encoded = process.encode(sample)
    images, possible = reflected(process, encoded)
    assert possible.all()
    assert (images.pattern < 0).all()
    assert torch.equal(without_pattern(images.pattern), encoded.pattern)
    spin = np.where(sample.event_index % 2, 9.0, sample.particles["spin"])  # not all have some
    mixed = EventSample(
        sample.run, sample.offsets, {**sample.particles, "spin": spin}, sample.events
    )
    process = learned(mixed)
    assert (reflected(process, process.encode(mixed))[0].pattern < 0).all()
    plain = without_helicities(sample)
    process = learned(plain)
    expected, _ = reflected(process, process.encode(plain))
    assert torch.equal(images.x, expected.x)
    assert (expected.pattern >= 0).all()


def test_triple_products_forbid_a_reflection() -> None:
    sample = toy_z_jets(4000, rate=0.7)
    process = learned(sample)
    encoded = process.encode(sample)
    check_reflection(process, encoded)
    # more events with one sign of (p1 x p2).z sinh(y), as absorptive amplitudes make
    channel = max(process.channels, key=lambda c: len(c.coordinates))
    at = process.channels.index(channel)
    names = [k.name for k in channel.coordinates]
    phi = next(i for i, k in enumerate(channel.coordinates) if k.periodic)
    y = next(i for i, name in enumerate(names) if name.startswith(("rapidity", "eta")))
    here = process.channel_of[encoded.subprocess] == at
    chosen = here & (torch.sin(encoded.x[:, phi]) * encoded.x[:, y] > 0)
    encoded.weight[chosen] *= 3
    with pytest.raises(SampleError, match="triple product"):
        check_reflection(process, encoded)


def test_twice_is_the_identity(sample: EventSample) -> None:
    process = learned(sample)
    encoded = process.encode(sample)
    once, possible = exchanged_beams(process, encoded)
    twice, all_possible = exchanged_beams(process, once)
    assert all_possible.all()
    back = twice[torch.argsort(twice.event)]
    assert torch.allclose(back.x, encoded[possible].x, rtol=1e-9, atol=1e-9)
    assert torch.equal(back.pattern, encoded[possible].pattern)
    # gg is its own mirror image; u u~ in a sample without u~ u has none.
    gluons = torch.tensor([s.structure.pdg_id[0] == 21 for s in process.subprocesses])
    assert not possible[~gluons[encoded.subprocess]].any()
    assert possible.float().mean() > 0.2


def test_frequencies_of_mirror_images_are_averaged(sample: EventSample) -> None:
    learner = ProcessLearner()
    for part in (sample, rotated(sample[:1000])):
        learner.add(part)
    process = learner.process(sample.run.beam_energy)
    assert process.frequencies.sum() == pytest.approx(1.0)  # asked for before
    before = {s.structure.pdg_id: s.frequency for s in process.subprocesses}
    symmetrize_frequencies(process)
    after = {s.structure.pdg_id: s.frequency for s in process.subprocesses}
    a, b = (2, -2, 6, -6), (-2, 2, 6, -6)
    assert before[a] > 2 * before[b]
    assert after[a] == after[b] == pytest.approx((before[a] + before[b]) / 2)
    assert sum(after.values()) == pytest.approx(1.0)
    assert process.frequencies == pytest.approx(list(after.values()))


def test_unequal_beams(sample: EventSample) -> None:
    process = learned(sample)
    assert not has_exchange(sample.run.with_(beam_energy=(6500.0, 4000.0)), process)
    assert not has_exchange(sample.run.with_(beam_pdg_id=(2212, -2212)), process)


def test_one_sided_selections_are_noticed(sample: EventSample) -> None:
    process = learned(sample)
    encoded = process.encode(sample)
    assert looks_symmetric(process, encoded)
    assert not looks_symmetric(process, encoded[encoded.x[:, 1] > -0.2])


def test_clustering_to_the_other_beam() -> None:
    """The clustering option of the scale changes sides, as the formula says."""
    from hepgen_ml.process.encoded import final_momenta
    from hepgen_ml.process.scales import formula
    from hepgen_ml.process.structure import tables

    sample = toy_top_pairs(3000, seed=4)
    scale = sample.events["scale"].copy()
    for structure, events, table in tables(sample):
        if len(structure.final) == 3:
            p = final_momenta(table, [4, 2, 3])
            incoming = final_momenta(table, structure.incoming)
            near = p[:, 0, 2] > 0
            first = formula("core_mt:0", incoming, p)
            scale[events] = torch.where(near, first, formula("core_mt:", incoming, p)).numpy()
    sample.events["scale"] = scale
    learner = ProcessLearner()
    for part in (sample, rotated(sample)):
        learner.add(part)
    process = learner.process(sample.run.beam_energy)
    encoded, expected = process.encode(sample), process.encode(rotated(sample))
    mirrored, _ = exchanged_beams(process, encoded)
    assert torch.equal(mirrored[torch.argsort(mirrored.event)].branch, expected.branch)
    one_jet = next(c for c in process.channels if len(c.classes) == 3)
    assert len(one_jet.auxiliaries.rules["scale"]["options"]) == 2
    assert np.mean(encoded.free[:, 0].numpy() != 0) < 0.01
