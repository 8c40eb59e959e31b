"""Configuration from defaults, TOML and overrides."""

from __future__ import annotations

from pathlib import Path

import pytest

from hepgen_ml.config import Config, load_config
from hepgen_ml.errors import UsageError


def test_file_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("seed = 3\n[network]\nwidth = 64\n[training]\nmax_time = 60\n")
    config = load_config(path, ["network.width=96", "model=jetgpt", "training.precision=bfloat16"])
    assert (config.seed, config.network.width, config.training.max_time) == (3, 96, 60.0)
    assert config.training.precision == "bfloat16"
    assert config.network.blocks == Config().network.blocks
    assert Config.model_validate(config.model_dump()) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("network.width=-1", "network.width"),
        ("network.depth=3", "network.depth"),
        ("network.width", "sets nothing"),
        ("seed.x=1", "seed"),
        ("training.precision=float8", "training.precision"),
        ("training.channel_boost=0.5", "training.channel_boost"),
        ("model=oracle", "model"),
    ],
)
def test_nonsense_is_named(override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_config(None, [override])


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("seed = = 3")
    with pytest.raises(UsageError, match="not TOML"):
        load_config(tmp_path / "bad.toml")


def test_settings_of_other_models_are_named() -> None:
    given = ["model=spline-flow", "jetgpt.bayesian=last", "flow.steps=4", "spline_flow.bins=8"]
    config = load_config(None, given).with_(seed=1)
    assert config.without_effect() == ["jetgpt.bayesian", "flow.steps"]
    assert load_config(None, ["model=ddpm-lgatr", "lgatr.blocks=2"]).without_effect() == []
    assert load_config(None, ["jetgpt.bayesian=last"]).without_effect() == []  # auto


def test_changes_are_validated() -> None:
    assert Config().with_(training__max_time=5.0).training.max_time == 5.0
    with pytest.raises(UsageError, match="max_time"):
        Config().with_(training__max_time=-1.0)


@pytest.mark.parametrize(
    "text",
    ["network.width=" + "[" * 5000, "seed=" + "9" * 5000, "seed=1e400", "training.max_time=nan",
     "training.max_time=inf", "network.width=10000000000", "flow.steps=1000000000"],
)  # fmt: skip
def test_values_beyond_all_bounds(text: str) -> None:
    with pytest.raises(UsageError):
        load_config(None, [text])


@pytest.mark.parametrize(
    "data", [b"\xff", b"a=" + b"[" * 10_000, b"a=" + b"9" * 5000, b"#" * 2_000_000, b"\0"]
)
def test_damaged_files(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(data)
    with pytest.raises(UsageError, match="is not TOML") as found:
        load_config(path)
    assert found.value.path == path
