"""Samples of very many channels: what is computed together is what each channel gives alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hepgen_ml.config import Config
from hepgen_ml.errors import OutputError
from hepgen_ml.events.sample import EventSample
from hepgen_ml.files import documents
from hepgen_ml.generation.generator import Generator
from hepgen_ml.models.jetgpt.densities import Density1D
from hepgen_ml.models.surrogate import Surrogate
from hepgen_ml.process.encoded import Discrete, Encoded
from hepgen_ml.process.process import Process
from hepgen_ml.training.acceptance import measure_acceptance
from hepgen_ml.training.data import _joined
from tests.samples import learned, toy_top_pairs

CONFIG = Config().with_(network__width=16, network__blocks=2, network__heads=2)


@pytest.fixture(scope="module")
def process() -> Process:
    return learned(toy_top_pairs(1500))


@pytest.fixture(scope="module")
def encoded(process: Process) -> Encoded:
    return process.encode(toy_top_pairs(1500, seed=1))


@pytest.fixture
def pair(
    process: Process, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> tuple[Surrogate, Surrogate]:
    """The same network as for few channels and as for many."""
    found = []
    monkeypatch.setattr("hepgen_ml.models.jetgpt.autoregressive._FEW_EVENTS", 1e6)
    for many in (False, True):
        if many:
            monkeypatch.setattr("hepgen_ml.models.jetgpt.autoregressive._FEW", 1)
            monkeypatch.setattr("hepgen_ml.models.conditions._LARGEST_TABLE", 1)
            monkeypatch.setattr("hepgen_ml.models.categorical._LARGEST_TABLE", 1)
            monkeypatch.setattr("hepgen_ml.models.categorical._LEAST_GAIN", 1)
        torch.manual_seed(0)
        surrogate = Surrogate(process, CONFIG)
        surrogate.fit_standardization(encoded)
        found.append(surrogate)
    few, many_channels = found
    torch.manual_seed(1)
    with torch.no_grad():
        for p in few.parameters():
            p += 0.1 * torch.randn_like(p)
    stored = many_channels.heads.compacted(few.state_dict(), "heads.")
    many_channels.load_state_dict(stored)
    assert many_channels.density.mixed is not None
    assert few.density.mixed is None
    assert many_channels.heads.patterns.compact
    return few, many_channels


def prepared(surrogate: Surrogate, encoded: Encoded) -> tuple[torch.Tensor, Discrete]:
    z = surrogate.density.prepare(encoded.x, encoded.subprocess)
    return z, Discrete(encoded.pattern, encoded.branch, encoded.free.float())


def test_densities_and_their_gradients_agree(
    pair: tuple[Surrogate, Surrogate], encoded: Encoded
) -> None:
    gradients, values = [], []
    for surrogate in pair:
        z, _ = prepared(surrogate, encoded)
        values.append(surrogate.density.log_prob_z(z, encoded.subprocess))
        values[-1].mean().backward()
        gradients.append([p.grad for p in surrogate.density.parameters()])
    torch.testing.assert_close(*values, rtol=1e-4, atol=1e-4)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_draws_agree(
    pair: tuple[Surrogate, Surrogate], encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def middle(self: Density1D, parameters: torch.Tensor, generator: object = None) -> torch.Tensor:
        return torch.tanh(parameters.sum(-1))

    for kind in {type(d) for d in pair[0].density.densities}:
        monkeypatch.setattr(kind, "sample", middle)
    drawn = [s.density.sample_z(encoded.subprocess) for s in pair]
    torch.testing.assert_close(*drawn, rtol=1e-4, atol=1e-4)


def test_heads_agree(pair: tuple[Surrogate, Surrogate], encoded: Encoded) -> None:
    values = []
    for surrogate in pair:
        z, discrete = prepared(surrogate, encoded)
        some = z, encoded.invariants, encoded.subprocess
        values.append(surrogate.heads.log_prob(*some, discrete))
        surrogate.heads.calibrate(*some, discrete, encoded.weight.float())
        values.append(surrogate.heads.log_prob(*some, discrete))
    torch.testing.assert_close(values[0], values[2], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(values[1], values[3], rtol=1e-3, atol=1e-3)
    assert not torch.allclose(values[0], values[1])


def test_compact_heads_draw_by_their_probabilities(
    pair: tuple[Surrogate, Surrogate], encoded: Encoded
) -> None:
    head = pair[1].heads.patterns
    z, _ = prepared(pair[1], encoded)
    number = int(torch.bincount(encoded.subprocess).argmax())
    row = int(torch.nonzero(encoded.subprocess == number)[0])
    again = torch.full((20_000,), row)
    some = z[again], encoded.invariants[again], encoded.subprocess[again]
    drawn = head.sample(*some, torch.Generator().manual_seed(0))
    share = torch.bincount(drawn, minlength=len(head.entries[number])) / len(drawn)
    expected = head.logits(*(t[:1] for t in some)).softmax(-1)[0, : len(share)]
    torch.testing.assert_close(share, expected, rtol=0.0, atol=0.02)


def test_acceptance_of_many_channels_is_that_of_each(
    pair: tuple[Surrogate, Surrogate], process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = torch.device("cpu")
    monkeypatch.setattr("hepgen_ml.training.acceptance.EVENTS", 2000)
    alone = measure_acceptance(pair[1], process, device, 0)
    monkeypatch.setattr("hepgen_ml.training.acceptance.FEW_CHANNELS", 0)
    together = measure_acceptance(pair[1], process, device, 0)
    np.testing.assert_allclose(together, alone, atol=0.06)


def test_chunks_are_joined_where_there_are_many_channels(
    process: Process,
) -> None:
    sample = toy_top_pairs(1000)
    joined = list(_joined(sample.chunks(100), 250))
    assert [len(chunk) for chunk in joined] == [300, 300, 300, 100]
    np.testing.assert_array_equal(
        np.concatenate([c.particles["px"] for c in joined]), sample.particles["px"]
    )
    whole = process.encode(sample)
    part = process.encode(joined[1])
    np.testing.assert_array_equal(part.x, whole.x[(whole.event >= 300) & (whole.event < 600)])
    other = EventSample(
        sample.run, joined[0].offsets, joined[0].particles, {"weight": joined[0].weight}
    )
    assert len(list(_joined([joined[0], other], 10_000))) == 2


def test_rules_that_channels_share_are_stored_once() -> None:
    """A sample with thousands of channels has a description that can be read again."""
    process = learned(toy_top_pairs(600))
    channel = process.channels[0]
    process.channels[:] = [channel, *process.channels[1:], *[channel] * 50]
    config = process.to_config()
    rules = [c["auxiliaries"] for c in config["channels"]]
    assert isinstance(rules[0], dict)
    assert rules[-50:] == [0] * 50
    again = Process.from_config(json.loads(json.dumps(config)))
    assert again.channels[-1].auxiliaries.rules == channel.auxiliaries.rules
    assert again.to_config() == config
    config["channels"][-1]["auxiliaries"] = len(process.channels) - 1
    with pytest.raises(ValueError, match="not before it"):
        Process.from_config(config)


def test_a_process_that_is_too_large_is_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be read again does not take the place of anything."""
    config = CONFIG.with_(training__max_steps=2)
    generator = Generator.train(toy_top_pairs(1000), out=tmp_path / "model", config=config)
    before = (tmp_path / "model" / "config.json").read_bytes()
    monkeypatch.setattr(documents, "MAX_BYTES", 1000)
    with pytest.raises(OutputError, match="great many subprocesses"):
        generator.save(tmp_path / "model", force=True)
    assert (tmp_path / "model" / "config.json").read_bytes() == before
