"""A density model of another package: one file, found and used by its name."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from hepgen_ml import Generator, read, write
from hepgen_ml.cli import app
from hepgen_ml.config import Config, load_config
from hepgen_ml.errors import ModelError, UsageError
from hepgen_ml.models import registry
from hepgen_ml.models.names import BUILT_IN, names

EXAMPLE = Path(__file__).parents[2] / "examples" / "extending" / "mixture_density.py"
FAST = ("--set", "training.max_steps=40", "--set", "training.batch_size=256",
        "--set", "mixture.components=4", "--device", "cpu")  # fmt: skip


def install(place: Path, text: str, entry: str = "mixture = mixture_density") -> None:
    """What pip leaves of a package with one module."""
    information = place / "mixture_density-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: mixture-density\nVersion: 1.0\n"
    )
    (information / "entry_points.txt").write_text(f"[hepgen_ml.models]\n{entry}\n")
    (place / "mixture_density.py").write_text(text)


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No model of another package is known, before and afterwards."""
    registry.all_sections()  # our own have registered themselves by then
    ours = {name: model for name, model in registry._registered.items() if name in BUILT_IN}
    monkeypatch.setattr(registry, "_registered", ours)
    yield
    sys.modules.pop("mixture_density", None)


@pytest.fixture
def installed(forgotten: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "site"
    install(place, EXAMPLE.read_text(encoding="utf-8"))
    monkeypatch.syspath_prepend(place)


def run(*arguments: object) -> Result:
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    return done


@pytest.mark.usefixtures("installed")
def test_an_added_model_is_trained_resumed_and_used(
    shipped_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = read(shipped_sample)
    write(events[:3000], tmp_path / "train.lhe.gz")
    model = tmp_path / "model"
    train = ("train", tmp_path / "train.lhe.gz", "--model", "mixture", "--out", model, *FAST)

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("hepgen_ml.training.fit.save_model", stopped)
        assert CliRunner().invoke(app, [str(a) for a in train]).exit_code != 0
    assert not (model / "config.json").exists()
    run(*train, "--resume")
    document = json.loads((model / "config.json").read_text())
    assert document["config"]["model"] == "mixture"
    assert document["config"]["mixture"] == {"components": 4}

    assert json.loads(run("info", model, "--json").stdout)["model"] == "mixture"
    run("generate", "-n", 2000, "--model", model, "--out", tmp_path / "made.lhe.gz", "--seed", 1)
    made = read(tmp_path / "made.lhe.gz")
    assert len(made) == 2000
    log_prob = Generator.load(model, device="cpu").log_prob(made[:200])
    assert np.isfinite(log_prob).all()


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_an_added_model_is_validated_and_reweighted(shipped_sample: Path, tmp_path: Path) -> None:
    events, model = read(shipped_sample), tmp_path / "model"
    write(events[:3000], tmp_path / "train.lhe.gz")
    write(events[3000:6000], tmp_path / "truth.lhe.gz")
    run("train", tmp_path / "train.lhe.gz", "--model", "mixture", "--out", model, *FAST)
    truth = ("--truth", tmp_path / "truth.lhe.gz", "-n", 2000)
    run("validate", "--model", model, *truth, "--out", tmp_path / "report")
    assert list((tmp_path / "report").glob("*.html"))
    run("reweight", "--model", model, *truth, "--network", "mlp", "--folds", 2, "--max-time", "2s")
    run("generate", "-n", 200, "--model", model, "--weights", "classifier",
        "--out", tmp_path / "weighted.lhe.gz")  # fmt: skip


@pytest.mark.usefixtures("installed")
def test_its_settings_are_checked_and_listed() -> None:
    assert "mixture" in names()
    assert load_config(None, ["model=mixture"]).model_dump()["mixture"] == {"components": 32}
    assert load_config(None, ["mixture.components=3"]).model == "auto"
    with pytest.raises(UsageError, match=r"mixture\.size: no such .*mixture\.components"):
        load_config(None, ["model=mixture", "mixture.size=3"])
    with pytest.raises(UsageError, match=r"mixture\.components: .*at least 1"):
        load_config(None, ["model=mixture", "mixture.components=0"])
    given = load_config(None, ["model=mixture", "mixture.components=3"])
    assert Config.model_validate(given.model_dump()) == given
    assert given.with_(model="auto", seed=1).model_dump()["mixture"] == {"components": 3}


@pytest.mark.usefixtures("forgotten")
def test_what_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"no model 'mixture'.*jetgpt"):
        load_config(None, ["model=mixture"])
    with pytest.raises(UsageError, match=r"mixture: no such setting; there are .*training"):
        load_config(None, ["mixture.components=3"])
    install(tmp_path / "a", "import nowhere_to_be_found\n")
    monkeypatch.syspath_prepend(tmp_path / "a")
    with pytest.raises(UsageError, match=r"'mixture' cannot be loaded .*nowhere_to_be_found"):
        load_config(None, ["model=mixture"])


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "does not register a model 'mixture'"),
        ("from hepgen_ml.models.base import DensityModel\n"
         "from hepgen_ml.models.registry import register\n"
         "@register('mixture')\nclass A(DensityModel):\n"
         "    def loss(self, z, subprocess, weight): ...\n"
         "    def sample_z(self, subprocess, generator=None): ...\n",
         "has_likelihood = False"),
        ("from hepgen_ml.models.registry import register_lazily\n"
         "register_lazily('jetgpt', 'mixture_density:A')\n", "another name"),
    ],
    ids=["nothing registered", "no likelihood", "a name of ours"],
)  # fmt: skip
def test_wrong_plugins_are_refused(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "a", text)
    monkeypatch.syspath_prepend(tmp_path / "a")
    with pytest.raises(UsageError, match=message):
        load_config(None, ["model=mixture"])


@pytest.mark.usefixtures("forgotten")
def test_models_of_a_package_that_is_gone(tmp_path: Path) -> None:
    model = tmp_path / "model"
    Generator.load("ttbar01j", device="cpu").save(model)
    document = json.loads((model / "config.json").read_text())
    document["config"]["model"] = "mixture"
    (model / "config.json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match=r"there is no model 'mixture'.*has to be installed"):
        Generator.load(model, device="cpu")


def test_entry_points_and_table_agree() -> None:
    import tomllib

    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["hepgen_ml.models"] == BUILT_IN
    for name in BUILT_IN:
        assert registry.find(name).name == name
