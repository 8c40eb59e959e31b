"""What classifiers see: several particles together, and images of events as the same."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import hepgen_ml
from hepgen_ml.analysis.final_states import JET
from hepgen_ml.events.sample import EventSample, concatenate
from hepgen_ml.reweighting import Reweighter
from hepgen_ml.reweighting.features import groups
from hepgen_ml.reweighting.training import Schedule
from tests.object_files import object_sample

SHORT = Schedule(epochs=6, batch_size=256)


def image(sample: EventSample) -> EventSample:
    """Events turned by pi about the x axis."""
    particles = sample.particles | {"py": -sample.py, "pz": -sample.pz}
    return EventSample(sample.run, sample.offsets, particles, sample.events)


def rapidity(sample: EventSample) -> np.ndarray:
    """(n,) rapidity of each event."""
    final = sample.status == 1
    e, pz = (
        np.bincount(sample.event_index, final * c, len(sample)) for c in (sample.energy, sample.pz)
    )
    return np.arctanh(pz / e)


@pytest.fixture(scope="module")
def samples(shipped_sample: Path) -> tuple[EventSample, EventSample]:
    """Truth, and others of which those with a small rapidity are often missing."""
    events = hepgen_ml.read(shipped_sample)
    truth, other = events[::6], events[1::6]
    rng = np.random.default_rng(0)
    return truth, other[rng.random(len(other)) < 0.4 + 0.4 * np.abs(rapidity(other))]


def test_images_look_the_same(samples: tuple[EventSample, EventSample]) -> None:
    """All that a classifier sees is that of the image, and no event goes the other way."""
    sample = samples[0]
    for (name, group), other in zip(
        groups(sample).items(), groups(image(sample)).values(), strict=True
    ):
        assert not np.allclose(group.inputs.values, other.inputs.values, atol=0.1), name
        seen, same = group.folded().inputs, other.folded().inputs
        np.testing.assert_allclose(seen.values, same.values, atol=1e-4)
        np.testing.assert_allclose(seen.particles, same.particles, rtol=1e-5, atol=1e-3)
        total = group.names.index("y_total")
        assert group.inputs.values[:, total].min() < 0 <= seen.values[:, total].min()
        even = [i for i in range(seen.values.shape[1]) if i not in group.odd]
        np.testing.assert_array_equal(seen.values[:, even], group.inputs.values[:, even])


def test_several_particles() -> None:
    """Pairs, all together and the missing momentum are those of the momenta."""
    sample = object_sample(900)
    found = {len(s.final): g for s, g in groups(sample).items() if {*s.final} == {13, -13, JET}}
    for n, group in found.items():
        for number in (0, len(group) - 1):
            event = sample[int(group.index[number])]
            p = np.stack([event.px, event.py], axis=1)
            values = dict(zip(group.names, group.inputs.values[number].tolist(), strict=True))
            assert values["ht"] == pytest.approx(np.log(np.hypot(*p.T).sum()), abs=1e-5)
            for i, j in combinations(range(n), 2):
                pt = np.log(np.hypot(*(p[i] + p[j])))
                assert values[f"pt[{i},{j}]"] == pytest.approx(pt, abs=1e-4)
            x, y = p.sum(axis=0)
            for i in range(n):
                cosine = (p[i] @ (x, y)) / np.hypot(*p[i]) / np.hypot(x, y)
                assert np.cos(values[f"dphi_total[{i}]"]) == pytest.approx(cosine, abs=1e-4)
    assert set(found) == {3, 4, 5, 6}


def test_parton_level_balances(samples: tuple[EventSample, EventSample]) -> None:
    """What is missing there are rounding errors, and pairs of two or three are known already."""
    for group in groups(samples[0]).values():
        assert not [n for n in group.names if n.startswith(("dphi_total", "pt[", "ht"))]


def test_columns_that_change_sign(samples: tuple[EventSample, EventSample]) -> None:
    """These are rapidities and the azimuth, and no others."""
    for group in groups(samples[0]).values():
        names = {group.names[i].partition("(")[0] for i in group.odd}
        assert names == {"eta", "y", "y_total", "phi"}
        assert group.names[group.odd[0]] == "y_total"


def test_weights_of_images(samples: tuple[EventSample, EventSample], tmp_path: Path) -> None:
    """Images have the same weight, from a stored classifier too, and weights mend the sample."""
    truth, other = samples
    fitted = Reweighter.fit(truth, other, network="mlp", folds=2, schedule=SHORT)
    assert fitted.facts["exchange_beams"]
    assert fitted.held_out is not None
    weight = fitted.weights(other)[0]
    assert weight.std() > 0.1
    np.testing.assert_allclose(fitted.weights(image(other))[0], weight, rtol=1e-3)
    fitted.save(tmp_path)
    stored = Reweighter.load(tmp_path)
    np.testing.assert_allclose(stored.weights(image(other))[0], weight, rtol=1e-3)
    wanted, before, after = (
        np.average(np.abs(rapidity(s)), weights=w)
        for s, w in ((truth, None), (other, None), (other, fitted.held_out))
    )
    assert abs(after - wanted) < 0.5 * abs(before - wanted)


@pytest.mark.parametrize("what", ["one side", "unequal beams", "full"])
def test_not_symmetric(samples: tuple[EventSample, EventSample], what: str) -> None:
    """Without the symmetry, images are different events."""
    truth, other = samples
    if what == "one side":
        other = other[(rapidity(other) > 0) | (np.arange(len(other)) % 2 > 0)]
    elif what == "unequal beams":
        other = concatenate([other], other.run.with_(beam_energy=(6500.0, 4000.0)))
    fitted = Reweighter.fit(
        truth, other, network="mlp", folds=2, schedule=SHORT, full=what == "full"
    )
    assert not fitted.facts["exchange_beams"]
    weight, turned = fitted.weights(other)[0], fitted.weights(image(other))[0]
    assert np.abs(np.log(weight / turned)).max() > 0.01
    if what == "one side":
        assert np.average(rapidity(other), weights=fitted.held_out) < 0.5 * rapidity(other).mean()


def test_few_events_have_the_columns_of_the_training(
    samples: tuple[EventSample, EventSample],
) -> None:
    """Also an event whose jet is massive, which those of most events are not."""
    truth, other = (sample[:3000] for sample in samples)
    for sample in (truth, other):
        jet = np.abs(sample.pdg_id) == 4
        jet |= (sample.pdg_id == 21) & (sample.status == 1) & (sample.event_index % 5 == 0)
        mass = np.where(jet, 1.5, sample.mass)
        sample.particles |= {"mass": mass, "energy": np.hypot(sample.energy, 1.5 * jet)}
    fitted = Reweighter.fit(truth, other, network="mlp", folds=2, schedule=SHORT)
    massive = (other.mass == 1.5) & (other.status == 1)
    heavy = np.bincount(other.event_index, massive, len(other)) > 0
    assert heavy.any()
    weights, _ = fitted.weights(other)
    np.testing.assert_allclose(fitted.weights(other[heavy])[0], weights[heavy], rtol=1e-5)
