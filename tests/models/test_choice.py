"""Settings that follow from the sample."""

from __future__ import annotations

from pathlib import Path

import pytest

from hepgen_ml.config import Config, load_config
from hepgen_ml.generation.generator import Generator
from hepgen_ml.models.choice import chosen
from hepgen_ml.training.encoded import encode_sample
from tests.object_files import object_sample
from tests.samples import toy_top_pairs

FAST = ("network.blocks=1", "network.heads=2", "network.mixtures=2", "training.max_steps=2")


def learned(sample):
    made = encode_sample(sample)
    return made.process, made.encoded


def test_partons_are_learned_by_jetgpt() -> None:
    assert chosen(Config(), *learned(toy_top_pairs(1200))).model == "jetgpt"


def test_jets_are_learned_one_by_one() -> None:
    config = chosen(Config(), *learned(object_sample(2000)))
    assert config.model == "jetgpt-splitting"
    assert config.training.batch_size == 512
    assert config.network.width == 96


def test_what_is_given_stays() -> None:
    given = load_config(None, ["training.batch_size=64", "network.width=32"])
    config = chosen(given.with_(seed=3), *learned(object_sample(2000)))
    assert config.training.batch_size == 64
    assert config.network.width == 32
    named = load_config(None, ["model=jetgpt"])
    assert chosen(named, *learned(object_sample(1500))) == named


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
