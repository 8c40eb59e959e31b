"""Configuration from defaults, TOML and overrides."""

from __future__ import annotations

from pathlib import Path

import pytest

from hepgen_ml.config import Config, load_config
from hepgen_ml.errors import UsageError
from hepgen_ml.models.registry import density_class


def test_file_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("seed = 3\n[network]\nwidth = 64\n[training]\nmax_time = 60\n")
    config = load_config(path, ["network.width=96", "model=jetgpt", "training.precision=bfloat16"])
    assert (config.seed, config.network.width, config.training.max_time) == (3, 96, 60.0)
    assert config.training.precision == "bfloat16"
    assert config.network.blocks == Config().network.blocks
    assert Config.model_validate(config.model_dump()) == config


WRONG = {
    "training.max_steps=-3": "training.max_steps: expected an integer, at least 1, found -3",
    "training.max_steps=9007199254740993": "training.max_steps: expected an integer, at least 1, "
    "at most 9007199254740992, found 9007199254740993",
    "training.patience=true": "training.patience: expected an integer, at least 0, found true",
    "training.max_time=inf": "training.max_time: expected a finite number, above 0, found inf",
    "training.compile=maybe": 'training.compile: expected true or false, found "maybe"',
    "training.precision=float8": "training.precision: expected one of float32, bfloat16, found "
    '"float8"',
    "training.channel_boost=0.5": "training.channel_boost: is a ratio of the larger to the "
    "smaller: 0 or at least 1",
    "training.variations=MUR*": 'training.variations: expected a list of texts, such as ["MUR*"], '
    'found "MUR*"',
    "network.width=64.5": "network.width: expected an integer, at least 8, at most 4096, found "
    "64.5",
    "network.width.x=3": "network.width: expected an integer, at least 8, at most 4096, found a "
    "section",
    "network.blocs=3": "network.blocs: no such setting; did you mean network.blocks?",
    "max_steps=3": "max_steps: no such setting; did you mean training.max_steps?",
    "trainig.max_steps=3": "trainig: no such setting; did you mean training?",
    "flow.max_time=3": "flow.max_time: no such setting; did you mean training.max_time?",
    "flow=3": "flow: expected a section with settings, such as flow.",
    "network=3": "network: expected a section with settings, such as network.width, found 3",
    "seed=true": "seed: expected an integer, at least 0, found true",
    "seed.x=1": "seed: expected an integer, at least 0, found a section",
    "model=jetgp": "there is no model 'jetgp' (did you mean jetgpt?",
    "network.width": "'network.width' sets nothing",
    "network.=3": "'network.=3' sets nothing",
}


@pytest.mark.parametrize("override", WRONG)
def test_nonsense_is_named_with_what_is_possible(override: str, tmp_path: Path) -> None:
    """In one line, from the command line and from a file, which is named then."""
    with pytest.raises(UsageError) as found:
        load_config(None, [override])
    assert str(found.value).startswith(WRONG[override])
    assert "\n" not in str(found.value)
    key, _, value = override.partition("=")
    path = tmp_path / "settings.toml"
    path.write_text("seed = 1\n")
    with pytest.raises(UsageError) as found:
        load_config(path, [override])
    assert found.value.path is None or not value
    if value and "sets nothing" not in WRONG[override]:
        quoted = value if value[0] in "-0123456789" or value in ("true", "inf") else f'"{value}"'
        path.write_text(f"{key} = {quoted}\n")
        with pytest.raises(UsageError) as found:
            load_config(path)
        assert found.value.path == path
        assert str(found.value).startswith(f"{path}: {WRONG[override]}")


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


@pytest.mark.parametrize(
    ("model", "lost"),
    [("spline-flow", ["width", "dropout"]), ("lgatr-cfm", ["width", "dropout"]),
     ("gan", ["dropout"]), ("ddpm", ["dropout"]), ("ddpm-transformer", []), ("jetgpt", [])],
)  # fmt: skip
def test_settings_of_other_networks_are_named(model: str, lost: list[str]) -> None:
    given = ["network.dropout=0.1", "network.width=64", "network.ensemble=2"]
    config = load_config(None, [f"model={model}", *given])
    found = config.without_effect(density_class(config).network_settings(config))
    assert found == [f"network.{name}" for name in lost]


def test_changes_are_validated() -> None:
    assert Config().with_(training__max_time=5.0).training.max_time == 5.0
    with pytest.raises(UsageError, match="max_time"):
        Config().with_(training__max_time=-1.0)


@pytest.mark.parametrize(
    "text",
    ["network.width=" + "[" * 5000, "seed=" + "9" * 5000, "seed=1e400", "a\nb=1",
     "training.max_time=nan", "training.max_time=inf", "network.width=10000000000",
     "flow.steps=1000000000"],
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
