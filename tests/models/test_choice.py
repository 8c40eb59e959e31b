"""Settings that follow from the sample."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hepgen_ml.config import Config, load_config
from hepgen_ml.errors import NOTE
from hepgen_ml.generation.generator import Generator
from hepgen_ml.models.choice import chosen
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.process import Process
from hepgen_ml.training.encoded import encode_sample
from tests.object_files import object_sample
from tests.samples import toy_top_pairs, toy_z_jets

FAST = ("network.blocks=1", "network.heads=2", "network.mixtures=2", "training.max_steps=2")


@pytest.fixture(autouse=True)
def _notes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(NOTE)


def learned(sample):
    made = encode_sample(sample)
    return made.process, made.encoded


def test_partons_are_learned_by_jetgpt(caplog: pytest.LogCaptureFixture) -> None:
    config = chosen(Config(), *learned(toy_top_pairs(1200)))
    assert config.model == "jetgpt"
    assert config.network.width == 128
    assert config.training.channel_power == 1
    assert config.training.reflect  # events with helicities, too
    assert "chosen: jetgpt, " in caplog.text
    assert "training.batch_size=" in caplog.text


def test_jets_are_learned_one_by_one(caplog: pytest.LogCaptureFixture) -> None:
    """The settings that are best for Z + jets follow from the sample."""
    config = chosen(Config(), *learned(toy_z_jets(4000, rate=0.2)))
    assert config.model == "jetgpt-splitting"
    assert config.network.width == 96
    assert config.training.channel_power == 0.5
    assert config.training.channel_boost == 4
    assert config.training.reflect
    assert "the largest channel has" in caplog.text


def test_numbers_of_jets_alike_are_drawn_as_they_come() -> None:
    config = chosen(Config(), *learned(toy_z_jets(2000, rate=0.5, most=1)))
    assert config.model == "jetgpt-splitting"
    assert config.training.channel_power == 1


def test_batches_are_smaller_where_time_is_short() -> None:
    jets, partons = learned(toy_z_jets(2000)), learned(toy_top_pairs(1200))
    times = (60.0, 1800.0, 1e6)

    def sizes(made: tuple[Process, Encoded]) -> list[int]:
        configs = [chosen(Config().with_(training__max_time=t), *made) for t in times]
        return [c.training.batch_size for c in configs]

    assert sizes(jets) == [512, 512, 1024]
    assert sizes(partons) == [256, 512, 1024]
    counted = chosen(load_config(None, ["training.max_steps=10"]), *jets)
    assert counted.training.batch_size == 1024
    # a training that goes on keeps what it was begun with
    again = chosen(Config().with_(training__max_time=1e6), *partons, 60.0)
    assert again.training.batch_size == 256


def test_networks_are_narrow_where_events_are_few_or_time_is_short() -> None:
    made = learned(Generator.load("ttbar2j", device="cpu").sample(1200, seed=1))
    process, encoded = made
    many = Encoded.join([encoded] * 40)
    for events, seconds, width in ((encoded, 1200.0, 64), (many, 180.0, 64), (many, 1200.0, 128)):
        config = chosen(Config().with_(training__max_time=seconds), process, events)
        assert config.network.width == width
        assert config.training.batch_size == (128 if seconds < 1000 else 256)


def test_events_that_break_the_symmetry_are_not_reflected() -> None:
    process, encoded = learned(toy_z_jets(3000))
    assert chosen(Config(), process, encoded).training.reflect
    for channel in process.channels:
        odd = [i for i, c in enumerate(channel.coordinates) if c.periodic]
        rows = process.channels.index(channel) == process.channel_of[encoded.subprocess]
        encoded.x[rows[:, None] & torch.zeros_like(encoded.x, dtype=torch.bool).index_fill_(
            1, torch.tensor(odd), True)] = 0.5  # fmt: skip
    assert not chosen(Config(), process, encoded).training.reflect


def test_events_seen_once_are_not_reflected() -> None:
    made = learned(toy_z_jets(3000))
    assert not chosen(Config().with_(training__max_time=0.1), *made).training.reflect


def test_what_is_given_stays() -> None:
    given = load_config(None, ["training.batch_size=64", "network.width=32"])
    config = chosen(given.with_(seed=3), *learned(object_sample(2000)))
    assert config.training.batch_size == 64
    assert config.network.width == 32
    named = load_config(None, ["model=jetgpt"])
    assert chosen(named, *learned(object_sample(1500))) == named


def test_models_suggest_settings_for_many_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equivariant networks have large batches and a high rate, where nothing else is given."""
    process, encoded = learned(toy_top_pairs(1200))

    def settings(*given: str) -> tuple[int, float]:
        config = chosen(load_config(None, list(given)), process, encoded).training
        return config.batch_size, config.learning_rate

    assert settings("model=lgatr-cfm") == settings("model=mlp-cfm") == (1024, 3e-3)  # few events
    monkeypatch.setattr("hepgen_ml.models.choice._BATCHES_OF_A_PASS", 0.25)
    assert settings("model=lgatr-cfm") == settings("model=ddpm-gatr") == (2048, 6e-3)
    assert settings("model=lgatr-cfm", "training.learning_rate=1e-3") == (2048, 1e-3)
    assert settings("model=lgatr-cfm", "training.batch_size=100") == (100, 6e-3)
    assert settings("model=mlp-cfm") == (1024, 3e-3)


@pytest.mark.parametrize(
    "sample", [toy_top_pairs(1200), object_sample(1500)], ids=["partons", "jets"]
)
def test_stored_models_name_their_choice(sample, tmp_path: Path) -> None:
    config = load_config(None, [*FAST, "network.width=16"])
    generator = Generator.train(sample, out=tmp_path / "m", config=config, device="cpu")
    assert generator.config.model in ("jetgpt", "jetgpt-splitting")
    again = Generator.load(tmp_path / "m")
    assert again.config == generator.config
    assert len(again.sample(20, seed=1)) == 20
