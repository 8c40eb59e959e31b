"""Spectra of masses with several peaks."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from hepgen_ml.events.sample import concatenate
from hepgen_ml.phase_space import Beside, Peak
from hepgen_ml.phase_space.masses import (
    MassSpec,
    above,
    decode_mass,
    encode_mass,
    mass_config,
    mass_slope,
    mass_spec,
)
from hepgen_ml.phase_space.spectrum import Peaks
from hepgen_ml.process.chart_document import NodeDocument
from hepgen_ml.process.process import Process
from hepgen_ml.process.spikes import with_spikes
from tests.process.test_decay_charts import check_round_trip, resonance_and_a_jet, without_rows
from tests.samples import learned

Z, H = (91.188, 2.495), (125.0, 0.00407)
SPECTRUM = Peaks(5.0, math.inf, (0.3, 40.0, 0.3), ((0.4, *Z), (0.3, *H)), ((60.0, 88.0),))


def resonance(n: int, mass: float, width: float, low: float, high: float, seed: int) -> np.ndarray:
    """Masses that follow a Breit-Wigner distribution."""
    first, last = (math.atan((m * m - mass * mass) / (mass * width)) for m in (low, high))
    angle = np.random.default_rng(seed).uniform(first, last, n)
    return np.sqrt(mass**2 + mass * width * np.tan(angle))


def falling(n: int, low: float, high: float, power: float, seed: int) -> np.ndarray:
    u = np.random.default_rng(seed).random(n)
    return (low**power + u * (high**power - low**power)) ** (1 / power)


def uniformity(spec: MassSpec, mass: np.ndarray) -> tuple[float, float]:
    """Kolmogorov-Smirnov distance of the coordinate from a logistic one, and its densest bin."""
    t = encode_mass(torch.from_numpy(np.sort(mass)), spec, spec[0], spec[1])
    u = torch.sigmoid(t).numpy()
    distance = np.abs(u - (np.arange(len(u)) + 0.5) / len(u)).max()
    return float(distance), float(np.histogram(u, 50, (0, 1))[0].max() / len(u) * 50)


def peaks_of(spec: MassSpec) -> list[float]:
    assert isinstance(spec, Peaks)
    return sorted(m for _, m, _ in spec.peaks)


def test_coordinates_of_a_spectrum_are_exact() -> None:
    edges = torch.tensor([91.0, 124.99, 125.01, 5.5, 59.0, 88.1, 3000.0], dtype=torch.float64)
    mass = torch.cat([edges, torch.linspace(89.0, 400.0, 500, dtype=torch.float64)])
    for low, high in ((5.0, math.inf), (5.2, 4000.0), (torch.full_like(mass, 5.1), mass * 1.5)):
        t = encode_mass(mass, SPECTRUM, low, high)
        again, slope = decode_mass(t, SPECTRUM, low, high)
        assert torch.allclose(again, mass, rtol=1e-9)
        step = 1e-5
        ends = [decode_mass(t + d, SPECTRUM, low, high)[0] for d in (step, -step)]
        narrow = torch.abs(mass - 125) > 0.1
        numeric = torch.log((ends[0] - ends[1]) / (2 * step))
        assert torch.allclose(numeric[narrow], slope[narrow], atol=1e-3)
    t = encode_mass(mass, SPECTRUM, *SPECTRUM[:2]).requires_grad_()
    again, slope = decode_mass(t, SPECTRUM, *SPECTRUM[:2])
    (gradient,) = torch.autograd.grad(again.sum(), t)
    assert torch.allclose(torch.log(gradient), slope, atol=1e-6)
    assert torch.allclose(mass_slope(mass, SPECTRUM) * gradient, torch.ones_like(mass), rtol=1e-6)
    made, _ = decode_mass(torch.linspace(-30, 30, 20_001).double(), SPECTRUM, *SPECTRUM[:2])
    assert not ((made > 60.001) & (made < 87.999)).any()
    assert (torch.diff(made) >= 0).all()


def test_stored_form_and_ranges() -> None:
    assert mass_spec(json.loads(json.dumps(mass_config(SPECTRUM)))) == SPECTRUM
    assert above(SPECTRUM, 10.0) == SPECTRUM._replace(low=10.0)


def test_pairs_of_leptons_of_any_origin() -> None:
    """J/psi, Upsilon and Z on a virtual photon, as in the mass of muons without rows."""
    parts = [
        falling(8000, 2, 120, -2, 1), resonance(2500, 3.0969, 9.3e-5, 2, 120, 2),
        resonance(800, 9.4603, 5.4e-5, 2, 120, 3), resonance(4000, *Z, 2, 120, 4),
    ]  # fmt: skip
    mass = np.concatenate(parts)
    for start in ((0.0, 240.0), Peak(0.0, 240.0, *Z)):
        spec = with_spikes(start, mass)
        assert peaks_of(spec) == pytest.approx([3.0969, 9.4603, 91.188], rel=1e-3)
        distance, most = uniformity(spec, mass)
        assert distance < 0.09
        assert most < 3.5


def test_a_further_resonance_on_a_tail() -> None:
    mass = np.concatenate([
        resonance(12_000, *Z, 60, 3000, 1), resonance(200, 1500, 45, 200, 3000, 2),
    ])  # fmt: skip
    spec = with_spikes(Peak(0.0, 6000.0, *Z), mass)
    assert peaks_of(spec) == pytest.approx([91.188, 1500], rel=0.01)
    assert uniformity(spec, mass)[0] < 0.02


def test_pairs_of_jets_from_three_bosons() -> None:
    mass = np.concatenate([
        resonance(4000, 80.4, 2.085, 30, 200, 1), resonance(3000, *Z, 30, 200, 2),
        resonance(1500, *H, 30, 200, 3),
    ])  # fmt: skip
    spec = with_spikes((0.0, 400.0), mass)
    assert peaks_of(spec) == pytest.approx([80.4, 91.188, 125.0], rel=3e-3)
    assert uniformity(spec, mass)[0] < 0.03


def test_tails_of_two_resonances_without_rows() -> None:
    """Higgs bosons beyond fifteen widths, beside the tails of the Z boson."""
    tails = []
    for seed, (mass, width) in enumerate((Z, H)):
        every = resonance(20_000, mass, width, 10, 240, seed)
        tails.append(every[np.abs(every - mass) > 15 * width])
    both = np.concatenate(tails)
    known = Peak(H[0] - 15 * H[1], H[0] + 15 * H[1], *H)
    spec = with_spikes(Beside(9.4, math.inf, *Z, 53.8, 105.0), both, [known])
    assert peaks_of(spec) == pytest.approx([Z[0], H[0]])
    assert isinstance(spec, Peaks)
    assert len(spec.gaps) == 2
    distance, most = uniformity(spec, both)
    assert distance < 0.12
    assert most < 4
    alone = Beside(9.4, math.inf, *Z, 53.8, 128.6)
    assert with_spikes(alone, tails[0], [known]) == alone


@pytest.mark.parametrize("kind", ["one peak", "continuum", "with a cut", "full energy", "flat"])
def test_nothing_is_found_where_nothing_is(kind: str) -> None:
    rng = np.random.default_rng(8)
    spec: MassSpec = (0.0, 500.0)
    if kind == "one peak":
        spec, mass = Peak(0.0, 500.0, *Z), resonance(20_000, *Z, 12, 240, 5)
    elif kind == "full energy":
        mass = 250 * rng.beta(30, 0.3, 20_000)
    elif kind == "flat":
        mass = rng.uniform(0, 500, 20_000)
    else:
        mass = falling(20_000, 50 if kind == "with a cut" else 5, 240, -2, 6)
    assert with_spikes(spec, mass) == spec


def test_systems_without_a_row_have_the_peaks_of_their_process() -> None:
    """Two resonances with the same products in one process, whose rows end at some widths."""
    peaks = {32: Peak(500.0, 3000.0, 1000.0, 10.0), 33: Peak(500.0, 3000.0, 2000.0, 1.0)}
    parts = [resonance_and_a_jet(500, peak, 1, i) for i, peak in peaks.items()]
    parts = [
        without_rows(s, (s.status == 2) & (abs(s.mass - peak.mass) > 3 * peak.width))
        for s, peak in zip(parts, peaks.values(), strict=True)
    ]
    sample = concatenate(parts, parts[0].run)
    process = learned(sample)
    found = {}
    for i, s in enumerate(process.subprocesses):
        chart = process.channels[process.channel_of[i]].chart
        (system,) = [node for node in chart.nodes if node.children]
        found[s.structure.intermediate != [], system.label] = system.mass
    (spec,) = [spec for (named, _), spec in found.items() if not named]
    assert peaks_of(spec) == pytest.approx([1000.0, 2000.0], rel=2e-3)
    assert {type(spec) for (named, _), spec in found.items() if named} == {Peak}
    check_round_trip(process, sample)


def test_leptons_of_several_resonances_that_no_event_names() -> None:
    peaks = [Peak(50.0, 3000.0, 91.2, 2.5), Peak(50.0, 3000.0, 1000.0, 10.0)]
    parts = [resonance_and_a_jet(n, peak, 1) for n, peak in zip((900, 300), peaks, strict=True)]
    whole = concatenate(parts, parts[0].run)
    sample = without_rows(whole, whole.status == 2)
    process = learned(sample)
    (channel,) = process.channels
    (pair,) = (node for node in channel.chart.nodes if isinstance(node.mass, Peaks))
    assert peaks_of(pair.mass) == pytest.approx([91.2, 1000.0], rel=5e-3)
    check_round_trip(process, sample)
    broken = process.to_config()
    for node in broken["channels"][0]["chart"]["nodes"]:
        if isinstance(node["mass"], dict):
            node["mass"]["gaps"] = [[5.0, 4.0]]
    with pytest.raises(ValueError, match="ends where it begins"):
        Process.from_config(broken)


@pytest.mark.parametrize("mass", [
    1e21, [0.0, 1e21], [0.0, 200.0, 1e200, 2.5], [0.0, 200.0, 1e-200, 1e-200],
    [0.0, None, 91.0, 2.5, 1e20, 1e21],
    mass_config(SPECTRUM._replace(peaks=((1.0, 1e200, 1.0),))),
    mass_config(SPECTRUM._replace(peaks=((1.0, 91.0, 1e-300),))),
    mass_config(SPECTRUM._replace(gaps=((1.0, 1e200),))),
])  # fmt: skip
def test_stored_masses_whose_squares_are_no_numbers_are_refused(mass: object) -> None:
    NodeDocument.model_validate({"label": "Z", "mass": mass_config(SPECTRUM)})
    with pytest.raises(ValidationError):
        NodeDocument.model_validate({"label": "Z", "mass": mass})


def test_masses_that_are_the_same_are_a_spike_of_no_width() -> None:
    """On-shell particles beside a continuum: finite coordinates, and no more than that."""
    for scatter in (0.0, 1e-12, 1e-7):
        exact = 125.0 * (1 + scatter * np.random.default_rng(1).normal(size=400))
        mass = np.concatenate([falling(3000, 20, 240, -2, 2), exact])
        spec = with_spikes((0.0, 480.0), mass)
        t = encode_mass(torch.from_numpy(mass), spec, 0.0, 480.0)
        assert torch.isfinite(t).all()
        again, _ = decode_mass(t, spec, 0.0, 480.0)
        assert torch.allclose(again, torch.from_numpy(mass), rtol=1e-9)
