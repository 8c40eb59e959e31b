"""The multiplicity as part of the likelihood, and ways beyond the largest one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from hepgen_ml.errors import UsageError
from hepgen_ml.events.sample import EventSample
from hepgen_ml.generation.posterior import names_of, sample_posterior, with_posterior
from hepgen_ml.generation.sampling import Sampler
from hepgen_ml.models.jetgpt.calibration import calibrate_rates, emphasize
from hepgen_ml.models.jetgpt.pointers import ANCHORS
from hepgen_ml.models.jetgpt.rings import RINGS
from hepgen_ml.models.surrogate import Surrogate
from hepgen_ml.networks.bayesian import posterior_draw, variational_layers
from hepgen_ml.phase_space import Acceptance, parse_cut
from hepgen_ml.phase_space.coordinates import azimuth, pseudorapidity, wrap
from hepgen_ml.process.learner import ProcessLearner
from hepgen_ml.process.multiplicity import families, with_more_jets
from hepgen_ml.process.process import Process
from hepgen_ml.training.batches import Batches, Order
from hepgen_ml.training.drawing import draw_rates
from hepgen_ml.training.preparation import thinned
from tests.models.jetgpt.splitting_models import CONFIG, build, encode
from tests.samples import learned, toy_top_pairs, toy_z_jets


def test_more_jets_than_the_sample_has(process: Process) -> None:
    (family,) = families(process)
    assert (family.fewest, family.top, len(family.subprocess)) == (0, 3, 6)
    assert sum(s.frequency for s in process.subprocesses) == pytest.approx(1.0)
    assert [process.subprocesses[i].frequency > 0 for i in family.subprocess] == [True] * 4 + [
        False
    ] * 2
    longest = process.channels[process.subprocesses[family.subprocess[-1]].chart]
    before = process.channels[process.subprocesses[family.subprocess[-2]].chart]
    assert longest.coordinates[: len(before.coordinates)] == before.coordinates
    again = Process.from_config(process.to_config())
    assert families(again) == [family]


def test_partons_have_no_optional_jets() -> None:
    with pytest.raises(UsageError, match="partons"):
        with_more_jets(learned(toy_top_pairs(1200)), 4)


def test_density_is_normalised_over_all_multiplicities(
    process: Process, sample: EventSample
) -> None:
    """The mean of p/q over events drawn from q is one, summed over numbers of jets."""
    p, q = build(process, sample, 0), build(process, sample, 1)
    with torch.no_grad():
        for model in (p, q):  # most events end before the largest number of jets
            model.splitting.bias.fill_(-1.5)
            pointers = model.components.pointers
            assert pointers is not None
            for ring, place in zip(pointers.ring, pointers.place, strict=True):
                ring.bias[:RINGS] = -2.0
                place.bias[:ANCHORS] = -1.0
        x, subprocess, *_ = q.sample_events(20_000, torch.Generator().manual_seed(0))
        assert len(torch.unique(subprocess)) >= 4
        ratio = torch.exp(p.log_prob(x, subprocess) - q.log_prob(x, subprocess))
    error = float(ratio.std()) / len(ratio) ** 0.5
    assert error < 0.03
    assert float(ratio.mean()) == pytest.approx(1.0, abs=4 * error + 1e-3)


def test_rare_numbers_of_jets_count_as_they_are_drawn(
    process: Process, sample: EventSample
) -> None:
    """Factors after k objects have weight one on average over the draws that have so many."""
    model, encoded = build(process, sample), encode(process, sample)
    rate = draw_rates(process, encoded.subprocess, 0.25)
    emphasize(model, encoded.subprocess, encoded.weight, rate)
    n = model.n_objects[encoded.subprocess]
    for k in range(int(n.max()) + 1):
        some = n >= k
        drawn = rate[some] / rate[some].sum()
        weight = model.emphasis[0, k] * encoded.weight[some] / rate[some]
        assert float((drawn * weight).sum()) == pytest.approx(1.0, rel=1e-5)
    assert float(model.emphasis[0, int(n.max())]) > 2
    # beyond the sample it stays as it was
    assert model.emphasis[0, -1] == model.emphasis[0, int(n.max())]


@torch.no_grad()
def test_emphasis_is_in_the_loss_and_not_in_the_density(
    process: Process, sample: EventSample
) -> None:
    model, encoded = build(process, sample), encode(process, sample)
    z, sub = model.prepare(encoded.x, encoded.subprocess), encoded.subprocess
    one = torch.ones(len(z))
    before = model.log_prob_z(z, sub)
    assert float(model.loss(z, sub, one)) == pytest.approx(-float(before.mean()), rel=1e-5)
    with torch.no_grad():
        model.emphasis.fill_(2.0)
    assert torch.equal(before, model.log_prob_z(z, sub))
    twice = model._terms(z, sub, training=True)
    model.emphasis.fill_(0.0)
    never = model._terms(z, sub, training=True)
    # everything but the choice of the family once more, and not at all
    assert torch.allclose(twice - before, before - never, atol=1e-3)
    assert torch.equal(never, torch.log(model.family_probability[model.family_of[sub]]))
    fixed, n = model.fixed[0], model.n_objects[sub]
    for last in (fixed, fixed + 1):
        # later jets, and the splittings after them, count nothing: nor does what they are
        model.emphasis.fill_(1.0)
        model.emphasis[0, last + 1 :] = 0.0
        some = model._terms(z, sub, training=True)
        assert torch.allclose(some[n <= last], before[n <= last], rtol=1e-5)
        moved = z.clone()
        for place in range(last, int(n.max())):
            _, columns = model.objects[0][place]
            moved[:, columns] += 0.1
        again = model._terms(moved, sub, training=True)
        assert torch.allclose(again[n > last], some[n > last], atol=1e-4)
        assert not torch.allclose(model.log_prob_z(moved, sub)[n > last], before[n > last])


def test_rates_follow_the_stop_probability(process: Process, sample: EventSample) -> None:
    model = build(process, sample)
    with torch.no_grad():
        model.splitting.weight.zero_()
        model.splitting.bias.fill_(float(np.log(0.3 / 0.7)))
    _, subprocess, *_ = model.sample_events(20_000, torch.Generator().manual_seed(0))
    jets = model.extrapolation.jets_of[subprocess]
    rates = torch.bincount(jets, minlength=6).double() / len(jets)
    expected = 0.7 * 0.3 ** torch.arange(6)
    expected /= expected.sum()  # events that would go on are not among them
    assert torch.allclose(rates, expected.double(), atol=0.012)


def test_jets_know_the_past_only(process: Process, sample: EventSample) -> None:
    """What comes after an object does not change its density."""
    model, encoded = build(process, sample), encode(process, sample)
    z = model.prepare(encoded.x, encoded.subprocess)
    two = model.n_objects[encoded.subprocess] == 3
    one = torch.tensor([families(process)[0].subprocess[1]])
    with torch.no_grad():
        z2, sub2 = z[two][:50], encoded.subprocess[two][:50]
        changed = z2.clone()
        columns = model.objects[0][2][1]
        changed[:, columns] += 0.5
        difference = model.log_prob_z(z2, sub2) - model.log_prob_z(changed, sub2)
        assert difference.abs().min() > 0
        prefix = [model.log_prob_z(v, one.expand(50)) for v in (z2, changed)]
    assert torch.equal(*prefix)


def test_weights_of_either_sign_leave_rates_alone(process: Process, sample: EventSample) -> None:
    encoded = encode(process, sample)
    model = build(process, sample)
    jets = model.extrapolation.jets_of[encoded.subprocess]
    weight = torch.ones(len(jets))
    weight[jets == 2] = -1.0
    calibrate_rates(model, encoded.subprocess, weight, torch.Generator().manual_seed(0))
    assert float(model.offset.abs().max()) < 10


@pytest.mark.parametrize("keep_rates", [True, False])
def test_caps(process: Process, sample: EventSample, keep_rates: bool) -> None:
    encoded = encode(process, sample)
    before = torch.bincount(encoded.subprocess).double() / len(encoded)
    fewer = thinned(process, encoded, 300, keep_rates)
    counts = torch.bincount(fewer.subprocess)
    assert counts.max() == 300
    rates = torch.bincount(fewer.subprocess, weights=fewer.weight) / fewer.weight.sum()
    assert torch.allclose(rates, before) == keep_rates
    assert float(fewer.weight.mean()) == pytest.approx(1.0)


def test_rates_have_a_posterior_too(process: Process, sample: EventSample) -> None:
    """Events weighted to a draw have that draw's rates of jets."""
    model = build(process, sample, jetgpt__bayesian="last")
    with torch.no_grad():
        for layer in variational_layers(model.splitting):
            layer.log_variance.fill_(-3.5)
        model.splitting.offset.mean.fill_(-1.5)  # next to no event goes on beyond five jets
    run = with_posterior(sample.run, 4)
    # Without cuts: an untrained network is often outside, each draw of it a little differently.
    free = Process(process.subprocesses, process.channels, Acceptance(), process.beam_energy)
    sampler = Sampler(Surrogate(process, CONFIG), free, run, torch.device("cpu"))
    sampler.surrogate.density = model
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    events = sample_posterior(
        model, 8000, 4, run, lambda chosen: sampler.events(len(chosen), rng, generator)
    )
    weights = np.array([events.weights[name] for name in names_of(4)])
    assert weights.mean(0) == pytest.approx(1.0)
    none = events.counts == 2
    rates = (weights * none).mean(1)
    for k, rate in enumerate(rates):
        with posterior_draw(model, k):
            _, subprocess, *_ = model.sample_events(8000, generator)
        direct = float((model.extrapolation.jets_of[subprocess] == 0).double().mean())
        assert rate == pytest.approx(direct, abs=0.03)
    assert np.ptp(rates) > 0.02


def test_jets_find_what_they_follow(process: Process) -> None:
    """A ring about a muon makes jets along it, wherever it is."""
    model = build(process, toy_z_jets(500, most=3))
    pointers = model.components.pointers
    assert pointers is not None
    with torch.no_grad():
        for number, what in enumerate(pointers.what):
            if what == "eta":
                ring = pointers.ring[number]
                ring.weight.zero_()
                ring.bias[:RINGS] = torch.tensor([9.0, -9.0, -9.0])
                pointers.edge[number] = 0.0
        x, subprocess, *_ = model.sample_events(3000, torch.Generator().manual_seed(0))
    one = model.extrapolation.jets_of[subprocess] == 1
    kinematics = process.kinematics(x[one], subprocess[one], torch.zeros(int(one.sum())))
    eta, phi = pseudorapidity(kinematics.final[:, :3]), azimuth(kinematics.final[:, :3])
    apart = torch.stack([(eta[:, 2] - eta[:, i]).abs() for i in (0, 1)]).amin(0)
    assert apart.quantile(0.9) < 0.2
    apart = torch.stack([wrap(phi[:, 2] - phi[:, i]).abs() for i in (0, 1)]).amin(0)
    assert apart.quantile(0.9) < 0.2


def test_events_with_several_fixed_objects_are_begun_anew() -> None:
    """A pair and a required jet stand or fall together; the fraction is that of plain draws."""
    events = toy_z_jets(4000, rate=0.6, most=3)
    learner = ProcessLearner(cuts=[parse_cut("abs_eta(Muon) < 2")])
    learner.add(events[events.counts > 2])
    process = with_more_jets(learner.process(events.run.beam_energy), 0)
    model = build(process, events[events.counts > 2])
    assert model.fixed == [2]
    fewest = torch.full((4000,), families(process)[0].subprocess[0])
    x = model.sample(fewest, torch.Generator().manual_seed(0))
    plain = float(process.inside(x, fewest).double().mean())
    assert 0.2 < plain < 0.99
    accepted = model.acceptance(process.inside, 4000, torch.Generator().manual_seed(1))
    stopped = float(model.begun.sum())
    assert accepted[int(model.channel_of[fewest[0]])] < plain + 0.03
    assert 4000 / stopped > 0.3 * plain


@pytest.mark.parametrize("keep_rates", [True, False])
def test_rare_channels_are_drawn_more_often(
    process: Process, sample: EventSample, keep_rates: bool
) -> None:
    encoded = encode(process, sample)
    rate = draw_rates(process, encoded.subprocess, 0.0)
    model = build(process, sample)
    model.learns_rates = keep_rates
    surrogate = Surrogate(process, CONFIG)
    surrogate.density = model
    batches = Batches(surrogate, encoded, torch.device("cpu"), rate)
    order = Order(len(batches), rate)
    drawn = torch.cat([order.rows(step, 300, 0) for step in range(100)])
    jets = model.extrapolation.jets_of[encoded.subprocess]
    counts = torch.bincount(jets[drawn]).double()
    assert (counts / counts.mean()).sub(1).abs().max() < 0.1
    if keep_rates:
        learned = torch.bincount(jets[drawn], batches.drawn_weight[drawn]).double()
        true = torch.bincount(jets).double()
        assert torch.allclose(learned / learned.sum(), true / true.sum(), rtol=0.05, atol=0.003)
    else:
        assert batches.drawn_weight is batches.weight


def test_rates_are_calibrated(process: Process, sample: EventSample) -> None:
    """Generated events have as many jets as those of the sample."""
    encoded = encode(process, sample)
    model = build(process, sample)
    count = model.extrapolation.jets_of
    jets = count[encoded.subprocess]
    wanted = torch.bincount(jets).double() / len(jets)
    drawn = torch.Generator().manual_seed(3)

    def rates() -> Tensor:
        made = torch.bincount(count[model.sample_events(40_000, drawn)[1]], minlength=6).double()
        assert float(made[len(wanted) :].sum()) > 0.02 * float(made.sum())
        return made[: len(wanted)] / made[: len(wanted)].sum()

    assert (rates() - wanted).abs().max() > 0.05
    many = encoded.subprocess.repeat(20)
    calibrate_rates(model, many, torch.ones(len(many)), drawn)
    shifted = torch.nonzero(model.offset[0]).squeeze(-1).tolist()
    assert shifted == [1, 2, 3]  # after the pair and up to two jets; nothing has more than three
    assert (rates() - wanted).abs().max() < 0.015
