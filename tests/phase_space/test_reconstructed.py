"""Reconstructed events: from objects to coordinates and back, and through a training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hepgen_ml import Generator, write
from hepgen_ml.config import Config
from hepgen_ml.errors import OutputError
from hepgen_ml.events.sample import EventSample
from hepgen_ml.models.jetgpt.autoregressive import JetGPT
from hepgen_ml.models.jetgpt.mixed_layouts import padded
from hepgen_ml.phase_space import ReconstructedChart
from hepgen_ml.process.assembly import assemble
from hepgen_ml.process.encoded import Discrete
from hepgen_ml.process.learner import ProcessLearner
from hepgen_ml.process.peaks import find_peak
from hepgen_ml.process.process import Process
from hepgen_ml.process.symmetry import exchanged_beams, has_exchange, looks_symmetric
from tests.samples import MUON, toy_z_jets


@pytest.fixture(scope="module")
def sample() -> EventSample:
    return toy_z_jets(6000)


@pytest.fixture(scope="module")
def process(sample: EventSample) -> Process:
    learner = ProcessLearner()
    for chunk in sample.chunks(1000):
        learner.add(chunk)
    return learner.process(sample.run.beam_energy)


def test_what_is_learned(sample: EventSample, process: Process) -> None:
    n_jets = sample.counts - 2
    rates = np.bincount(n_jets) / len(sample)
    assert [s.frequency for s in process.subprocesses] == pytest.approx(list(rates))
    assert {str(c) for c in process.acceptance.cuts} >= {"20 <= pt(Jet)", "abs_eta(Jet) <= 5"}
    for channel in process.channels:
        chart = channel.chart
        assert isinstance(chart, ReconstructedChart)
        (z,) = chart.resonances
        assert z.mass.mass == pytest.approx(91.2, abs=0.5)
        assert z.mass.width == pytest.approx(2.5, rel=0.2)
        names = [c.name for c in channel.coordinates]
        assert names[0] == "logit_mass:Muon-,Muon+"
        if len(chart.labels) > 2:
            assert names[5] == "log_pt:Jet1"
        if len(chart.labels) > 3:
            assert names[9] == "logit_pt:Jet2"


def test_round_trip(sample: EventSample, process: Process) -> None:
    encoded = process.encode(sample)
    assert len(encoded) == len(sample)
    reference = torch.from_numpy(np.zeros(len(sample)))
    kinematics = process.kinematics(encoded.x, encoded.subprocess, reference)
    assert kinematics.passes.all()
    nothing = torch.zeros(len(sample), dtype=torch.int64)
    discrete = Discrete(nothing, nothing, torch.zeros(len(sample), 3, dtype=torch.float64))
    again = assemble(process, kinematics, encoded.subprocess, discrete, sample.run)
    assert set(again.particles) == {"pdg_id", "px", "py", "pz", "energy", "mass"}
    assert (again.pdg_id == sample.pdg_id).all()
    pt, before = (np.hypot(s.px, s.py) for s in (again, sample))
    assert pt == pytest.approx(before, rel=1e-9)
    assert again.pz == pytest.approx(sample.pz, rel=1e-8, abs=1e-8)
    assert again.mass == pytest.approx(sample.mass, abs=1e-4)


def test_mirror_images_are_events_of_the_process(sample: EventSample, process: Process) -> None:
    encoded = process.encode(sample)
    assert has_exchange(sample.run, process)
    assert looks_symmetric(process, encoded)
    mirrored, possible = exchanged_beams(process, encoded)
    assert possible.all()
    here, there = (
        process.kinematics(e.x, e.subprocess, torch.full((len(e),), sign * 0.3))
        for e, sign in (
            (encoded[torch.argsort(encoded.subprocess, stable=True)], 1),
            (mirrored, -1),
        )
    )
    rotated = here.final * torch.tensor([1.0, -1.0, -1.0, 1.0])
    assert torch.allclose(there.final, rotated, rtol=1e-9, atol=1e-9)


def test_no_peak_no_pair() -> None:
    rng = np.random.default_rng(0)
    assert find_peak(rng.exponential(50.0, 5000)) is None
    position, width = find_peak(91.2 + 1.25 * rng.standard_cauchy(20_000)) or (0.0, 0.0)
    assert position == pytest.approx(91.2, abs=0.3)
    assert width == pytest.approx(2.5, rel=0.1)


def check_objects(events: EventSample) -> None:
    """What holds for every event, whatever a network learned."""
    jets = events.pdg_id == 93
    pt = np.hypot(events.px, events.py)
    eta, phi = np.arcsinh(events.pz / pt), np.arctan2(events.py, events.px)
    assert pt[jets].min() >= 20.0 * (1 - 1e-12)
    assert np.abs(eta[jets]).max() <= 5.0
    number = events.event_index
    for i in range(1, len(jets)):
        if number[i] == number[i - 1] and events.pdg_id[i] == events.pdg_id[i - 1]:
            assert pt[i] <= pt[i - 1] * (1 + 1e-12)
    for i, j in ((i, i + k) for k in (1, 2, 3) for i in range(len(jets) - k)):
        if jets[i] and jets[j] and number[i] == number[j]:
            assert np.hypot(eta[i] - eta[j], np.angle(np.exp(1j * (phi[i] - phi[j])))) > 0.38
    assert events.mass[~jets] == pytest.approx(MUON)
    muons = np.abs(events.pdg_id) == 13
    assert (np.bincount(number[muons]) == 2).all()
    assert (np.bincount(number, events.pdg_id * muons) == 0).all()


def test_padding_changes_nothing(sample: EventSample, process: Process) -> None:
    """Channels that begin one another are evaluated together."""
    torch.manual_seed(0)
    model = JetGPT(process, Config().with_(network__width=16, network__mixtures=4))
    encoded = process.encode(sample[:200])
    model.fit_standardization(encoded)
    z = model.prepare(encoded.x, encoded.subprocess)
    with torch.no_grad():
        together = model.log_prob_z(z, encoded.subprocess)
        passes = padded(model.by_channel(encoded.subprocess), model.order, model.numbers)
        assert len(passes) < len(torch.unique(encoded.subprocess))
        alone = [model.log_prob_z(z[i : i + 1], encoded.subprocess[i : i + 1]) for i in range(50)]
    assert torch.allclose(together[:50], torch.cat(alone), rtol=1e-5, atol=1e-5)


def test_condition_on_the_multiplicity(sample: EventSample, tmp_path: Path) -> None:
    config = Config().with_(
        training__max_steps=60, training__batch_size=256, network__width=32, network__blocks=2,
        network__mixtures=8, training__max_epochs=100,
    )  # fmt: skip
    generator = Generator.train(sample, out=tmp_path / "m", config=config)
    events = Generator.load(tmp_path / "m").sample(1500, seed=3)
    check_objects(events)
    assert events.run.cross_section == sample.run.cross_section
    assert np.bincount(events.counts - 2)[0] == pytest.approx(900, abs=100)
    log_p = generator.log_prob(sample[:200])
    assert np.isfinite(log_p).all()


SMALL = Config().with_(
    model="jetgpt-splitting", training__max_steps=60, training__batch_size=256,
    network__width=32, network__blocks=2, network__mixtures=8, training__max_epochs=100,
)  # fmt: skip


@pytest.mark.parametrize("extrapolation", ["naive", "truncated", "override", "bootstrap"])
def test_multiplicity_in_the_likelihood(
    sample: EventSample, tmp_path: Path, extrapolation: str
) -> None:
    config = SMALL.with_(splitting__extrapolation=extrapolation, splitting__max_jets=6)
    generator = Generator.train(sample, out=tmp_path / "m", config=config)
    events = Generator.load(tmp_path / "m").sample(3000, seed=3)
    check_objects(events)
    assert np.bincount(events.counts - 2)[0] == pytest.approx(1800, abs=400)
    assert np.isfinite(generator.log_prob(sample[:200])).all()


def test_refused_outputs_are_called_by_their_names(sample: EventSample, tmp_path: Path) -> None:
    out = tmp_path / "objects.lhe.gz"
    with pytest.raises(OutputError, match="cannot hold") as caught:
        write(sample[:10], out)
    assert caught.value.path == out
    assert list(tmp_path.iterdir()) == []
