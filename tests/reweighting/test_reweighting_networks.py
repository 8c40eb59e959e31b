"""Networks of classifiers between samples, and the events that they see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import hepgen_ml
from hepgen_ml.events.sample import EventSample, IntArray
from hepgen_ml.generation import reweighting as tasks
from hepgen_ml.reweighting.features import groups
from hepgen_ml.reweighting.networks import build


@pytest.mark.parametrize("network", ["mlp", "transformer", "lgatr", "deep-sets", "gatr", "gap"])
def test_output_starts_at_zero(network: str, truth: EventSample) -> None:
    """An untrained classifier gives weight one; labels that training lacked do no harm."""
    group = next(iter(groups(truth[:50], full=True).values()))
    labels = group.inputs.labels
    net = build(
        network,
        group.inputs.values.shape[1],
        [torch.unique(labels[:10, i]) for i in range(labels.shape[1])],
        group.inputs.particles.shape[1],
    )
    net.fit(group.inputs)
    assert torch.all(net(group.inputs) == 0)


def test_azimuth_of_the_event(truth: EventSample) -> None:
    """Networks on momenta do not see how an event is turned about the beam."""
    group = groups(truth[:40])[next(iter(groups(truth[:40])))]
    angle = torch.tensor(1.1)
    rotation = torch.eye(5)
    rotation[:2, :2] = torch.stack(
        [torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])]
    )
    turned = type(group.inputs)(
        group.inputs.values, group.inputs.labels, group.inputs.particles @ rotation.T
    )
    for network in ("transformer", "lgatr", "deep-sets", "gatr", "gap"):
        torch.manual_seed(0)
        net = build(
            network,
            group.inputs.values.shape[1],
            [],
            group.inputs.particles.shape[1],
        )
        net.fit(group.inputs)
        torch.nn.init.normal_(net.last.weight)  # type: ignore[union-attr, arg-type]
        assert torch.allclose(net(group.inputs), net(turned), atol=1e-4)
        assert net(group.inputs).std() > 1e-4


def test_reads_at_random_and_bounded(shipped_sample: Path) -> None:
    """A part of a file is a random one, in the order of the file."""
    some = tasks.read_some([shipped_sample], tasks.Options(n_events=500, seed=1))
    whole = hepgen_ml.read(shipped_sample)
    assert len(some) == 500
    place = np.searchsorted(np.arange(len(whole)), _numbers(some, whole))
    assert np.all(np.diff(place) > 0)
    assert place.mean() == pytest.approx(len(whole) / 2, rel=0.1)
    assert some.run.cross_section == whole.run.cross_section


def _numbers(some: EventSample, whole: EventSample) -> IntArray:
    """Where the events of a part are in the whole, by their first momentum."""
    key = whole.pz[whole.offsets[:-1]]
    order = np.argsort(key)
    found = np.searchsorted(key[order], some.pz[some.offsets[:-1]])
    return order[found]
