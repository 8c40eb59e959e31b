"""Structures that a sample lacks: their number is estimated, and users are told."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest

from hepgen_ml import EventSample, Generator
from hepgen_ml.config import load_config
from hepgen_ml.process.process import Process
from hepgen_ml.process.understanding import understood
from hepgen_ml.process.unseen import unknown_share, unseen_share
from hepgen_ml.training.data import SampleSource, encode_all, learn_process
from hepgen_ml.training.encoded import EncodedSample
from hepgen_ml.training.preparation import prepare

N = 1000


@pytest.fixture(scope="module")
def events() -> EventSample:
    """Top pairs with two jets, which have hundreds of subprocesses, colour flows, helicities."""
    return Generator.load("ttbar2j", device="cpu").sample(3 * N, seed=2)


@pytest.fixture(scope="module")
def encoded(events: EventSample) -> EncodedSample:
    source = SampleSource(events[:N])
    process = learn_process(source, seed=0, find_cuts=False)
    return EncodedSample(process, source.run, encode_all(source, process), "", (), 0)


def test_the_estimate_is_the_share_of_further_events(
    events: EventSample, encoded: EncodedSample
) -> None:
    estimate, found = unseen_share(encoded.encoded), unknown_share(encoded.process, events[N:])
    assert 0.1 < found < 0.9
    assert estimate == pytest.approx(found, abs=4 * math.sqrt(found / N))


def test_weights_count(events: EventSample, encoded: EncodedSample) -> None:
    """Events of no weight are no part of the cross section."""
    process, some = encoded.process, events[N:]
    known = process.knows(some)
    some.events["weight"] = np.where(known, 1.0, 0.0)
    assert unknown_share(process, some) == 0.0
    some.events["weight"] = np.where(known, -1.0, 3.0)
    share = 3 * (~known).sum() / (3 * (~known).sum() + known.sum())
    assert unknown_share(process, some) == pytest.approx(share)
    encoded.encoded.weight[:] = -1.0
    assert unseen_share(encoded.encoded) == pytest.approx(0.5, abs=0.4)
    encoded.encoded.weight[:] = 1.0


def test_what_is_not_known_is_not_encoded(events: EventSample, encoded: EncodedSample) -> None:
    process: Process = encoded.process
    rows = process.encode(events).event.numpy()
    assert np.flatnonzero(process.knows(events)).tolist() == rows.tolist()
    assert process.knows(events[:N]).all()


def test_users_are_told(encoded: EncodedSample, caplog: pytest.LogCaptureFixture) -> None:
    config = load_config(None, ["network.width=8", "network.blocks=1", "network.heads=2"])
    with caplog.at_level(logging.WARNING):
        ready = prepare(encoded, config, 60.0)
    share = ready.facts["unseen_structures"]
    assert share == pytest.approx(unseen_share(encoded.encoded), abs=1e-6)
    assert f"about {100 * share:.2g} % of the cross section" in caplog.text
    said = dict(understood(ready.process, ready.run, ready.facts))
    assert f"about {100 * share:.2g} % of the cross section" in said["not learned"]


def test_samples_of_few_structures_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    source = SampleSource(Generator.load("drellyan", device="cpu").sample(N, seed=2))
    process = learn_process(source, seed=0, find_cuts=False)
    sample = EncodedSample(process, source.run, encode_all(source, process), "", (), 0)
    config = load_config(None, ["network.width=8", "network.blocks=1", "network.heads=2"])
    with caplog.at_level(logging.WARNING):
        prepare(sample, config, 60.0)
    assert "that the sample lacks" not in caplog.text
