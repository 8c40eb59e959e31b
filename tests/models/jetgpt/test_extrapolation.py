"""Ways beyond the largest number of jets: truncation, override, bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hepgen_ml.errors import UsageError
from hepgen_ml.events.sample import EventSample
from hepgen_ml.models.jetgpt.extrapolation import fit_widths
from hepgen_ml.models.jetgpt.splitting import SplittingJetGPT
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.multiplicity import families, with_more_jets
from hepgen_ml.process.process import Process
from tests.models.jetgpt.splitting_models import build, encode
from tests.samples import learned


def losses(model: SplittingJetGPT, encoded: Encoded) -> tuple[torch.Tensor, torch.Tensor]:
    """Log density and what training maximises, of each event."""
    z = model.prepare(encoded.x, encoded.subprocess)
    with torch.no_grad():
        return (model._terms(z, encoded.subprocess, training=t) for t in (False, True))


@pytest.mark.parametrize("extrapolation", ["truncated", "override"])
def test_only_the_last_stop_is_changed(
    process: Process, sample: EventSample, extrapolation: str
) -> None:
    encoded = encode(process, sample)
    model = build(process, sample, splitting__extrapolation=extrapolation)
    density, changed = losses(model, encoded)
    top = model.extrapolation.jets_of[encoded.subprocess] == 3
    assert torch.equal(density[~top], changed[~top])
    assert (density[top] != changed[top]).all()
    if extrapolation == "truncated":
        assert (changed[top] > density[top]).all()


def test_balanced_events_are_whole(process: Process, sample: EventSample) -> None:
    model = build(process, sample, splitting__extrapolation="override")
    n = torch.full((4,), 3)
    stop = model.extrapolation.stop_probability(torch.tensor([0.0, 10.0, 30.0, 80.0]).double(), n)
    assert (stop.diff() < 0).all()
    assert 0.5 < stop[0] < 1
    assert stop[-1] < 0.5


def test_widths_are_fitted() -> None:
    """The law that equation 5.27 states is found again."""
    n = np.arange(7)
    k = np.arange(7)
    sigma = (n[:, None] - k) / (0.0088 * k + 0.056) + 3.14 * k + 9.97
    sigma[n[:, None] < k] = 0.0
    widths = fit_widths(sigma, 1e6 * 0.23**n + 1000)
    assert widths.tolist() == pytest.approx([3.14, 9.97, 0.0088, 0.056], rel=1e-6)
    with pytest.raises(UsageError, match="too few jets"):
        fit_widths(sigma[:2, :2], np.array([1000, 10]))


def test_bootstrap_adds_events_with_one_jet_more(process: Process, sample: EventSample) -> None:
    model = build(process, sample, splitting__extrapolation="bootstrap")
    assert not model.early_stopping
    assert build(process, sample).early_stopping
    with torch.no_grad():
        model.splitting.weight.zero_()
        model.splitting.bias.zero_()
    encoded = encode(process, sample)
    z = model.prepare(encoded.x, encoded.subprocess)
    weight = torch.ones(len(z))
    model.train()
    for progress, wanted in ((0.2, 0), (0.8, 1)):
        model.progress = progress
        more = model.extrapolation.bootstrapped(model, z, encoded.subprocess, weight)
        added = model.extrapolation.jets_of[more[1][len(z) :]]
        assert (len(added) > 0) == bool(wanted)
        assert (added == 4).all()
    four = process.subprocesses[families(process)[0].subprocess[3]].frequency
    expected = four * model.extrapolation.ratio * len(z)
    assert float(more[2][len(z) :].sum()) == pytest.approx(expected, rel=1e-4)
    with pytest.raises(UsageError, match="more jets"):
        build(with_more_jets(learned(sample), 0), sample, splitting__extrapolation="bootstrap")


def test_bootstrapped_families_keep_their_rates(process: Process, sample: EventSample) -> None:
    """Each family grows as often as it has events with the most jets, however many it has."""
    model = build(process, sample, splitting__extrapolation="bootstrap")
    extrapolation, z = model.extrapolation, torch.zeros(50_000, model.mean.shape[1])
    (number,) = extrapolation._growing
    many, few = z[:1] + 1, z[:1] + 2
    extrapolation._growing = {number: 0.001, number + 1: 0.003}
    extrapolation._made = {number: (many, torch.tensor([1])), number + 1: (few, torch.tensor([2]))}
    extrapolation._steps = 1
    model.train()
    model.progress = 0.8
    zero = torch.zeros(len(z), dtype=torch.int64)
    made, sub, weight = extrapolation.bootstrapped(model, z, zero, torch.ones(len(z)))
    rates = [float(weight[sub == i].sum()) / len(z) for i in (1, 2)]
    assert rates == pytest.approx([0.001, 0.003], rel=0.2)
    assert (made[sub == 2] == 2).all()
