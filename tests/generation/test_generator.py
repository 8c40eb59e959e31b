"""Training, storage and sampling, whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import hepgen_ml
from hepgen_ml.config import Config, load_config
from hepgen_ml.errors import ModelError, OutputError, SampleError, UsageError
from hepgen_ml.events.laws.checks import check_sample
from hepgen_ml.events.sample import concatenate
from hepgen_ml.generation.generator import Generator
from tests.samples import toy_top_pairs

SETTINGS = [
    "network.width=32",
    "network.blocks=2",
    "network.heads=2",
    "network.mixtures=8",
    "training.batch_size=256",
    "training.validation_interval=50",
    "training.max_epochs=1e6",
]


def settings(*more: str) -> Config:
    return load_config(None, [*SETTINGS, *more])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Generator, Path]:
    out = tmp_path_factory.mktemp("models") / "model"
    generator = Generator.train(
        toy_top_pairs(4000), out=out, config=settings("training.max_steps=150"), device="cpu"
    )
    return generator, out


def test_directory_is_complete(trained: tuple[Generator, Path]) -> None:
    _, out = trained
    assert {p.name for p in out.iterdir()} == {
        "README.md",
        "config.json",
        "history.csv",
        "model.safetensors",
    }
    rows = (out / "history.csv").read_text().splitlines()
    assert rows[0].startswith("step,seconds,learning_rate,train_loss,validation_loss")
    assert 4 <= len(rows) <= 5  # every two passes or 50 steps, and the end
    losses = [float(r.split(",")[3]) for r in rows[1:]]
    assert losses[-1] < losses[0]


def test_facts_that_are_no_numbers(trained: tuple[Generator, Path], tmp_path: Path) -> None:
    """The fact is named, and the model that lay there stays as it was."""
    Generator.load(trained[1]).save(tmp_path / "m")
    before = {p.name: p.read_bytes() for p in (tmp_path / "m").iterdir()}
    other = Generator.load(trained[1])
    other.facts["validation_loss"] = float("nan")
    with pytest.raises(OutputError, match="validation loss is nan"):
        other.save(tmp_path / "m", force=True)
    assert {p.name: p.read_bytes() for p in (tmp_path / "m").iterdir()} == before


def test_events_obey_all_laws(trained: tuple[Generator, Path]) -> None:
    generator, _ = trained
    sample = generator.sample(3000, seed=3)
    assert len(sample) == 3000
    for law in check_sample(sample.chunks(1000), sample.run):
        assert law.n_broken == 0, law.text


def test_normalisation_and_cuts(trained: tuple[Generator, Path]) -> None:
    generator, _ = trained
    sample = generator.sample(2000, seed=4)
    assert generator.run.cross_section == pytest.approx(3.0)
    assert sample.run.weight_strategy == -4
    assert np.allclose(sample.weight, 3.0)
    jets = (np.abs(sample.pdg_id) <= 5) | (sample.pdg_id == 21)
    jets &= sample.status == 1
    assert np.hypot(sample.px, sample.py)[jets].min() > 20.0
    assert sample.run.generators[-1][0] == "hepgen-ml"


def test_frequencies(trained: tuple[Generator, Path]) -> None:
    generator, _ = trained
    sample = generator.sample(5000, seed=5)
    encoded = generator.process.encode(sample)
    assert len(encoded) == 5000
    found = np.bincount(encoded.subprocess.numpy(), minlength=len(generator.process.frequencies))
    expected = 5000 * generator.process.frequencies
    assert (np.abs(found - expected) / np.sqrt(expected) < 4).all()


def test_seed_and_shards(trained: tuple[Generator, Path]) -> None:
    generator, _ = trained
    a, b = generator.sample(700, seed=11), generator.sample(700, seed=11)
    assert np.array_equal(a.px, b.px)
    assert not np.array_equal(a.px[:100], generator.sample(700, seed=12).px[:100])
    parts = [[*generator.stream(701, seed=11, shard=(i, 3), chunk=100)] for i in range(3)]
    assert [sum(map(len, p)) for p in parts] == [234, 234, 233]
    with pytest.raises(UsageError, match="shard 3 of 3"):
        next(generator.stream(10, shard=(3, 3)))


@pytest.mark.parametrize(("chunk", "shards"), [(1, 1), (7, 1), (1000, 1), (50, 3), (20, 7)])
def test_events_do_not_depend_on_chunks_and_shards(
    trained: tuple[Generator, Path], monkeypatch: pytest.MonkeyPatch, chunk: int, shards: int
) -> None:
    monkeypatch.setattr("hepgen_ml.generation.blocks.BLOCK", 90)
    generator, _ = trained
    whole = generator.sample(400, seed=5)
    pieces = [
        piece for i in range(shards) for piece in
        generator.stream(400, seed=5, shard=(i, shards), chunk=chunk)
    ]  # fmt: skip
    assert max(map(len, pieces)) <= chunk
    joined = concatenate(pieces)
    for name, column in (whole.particles | whole.events).items():
        assert np.array_equal(column, (joined.particles | joined.events)[name]), name
    # blocks have random numbers of their own
    assert len(np.unique(whole.px[np.abs(whole.px) > 0])) > 0.4 * np.sum(np.abs(whole.px) > 0)


def test_loaded_model_is_the_same(trained: tuple[Generator, Path]) -> None:
    generator, out = trained
    again = Generator.load(out)
    assert np.array_equal(again.sample(300, seed=1).px, generator.sample(300, seed=1).px)
    assert again.describe()["cross_section"] == pytest.approx(3.0)
    json.dumps(again.describe())


def test_log_prob(trained: tuple[Generator, Path]) -> None:
    generator, _ = trained
    own = generator.sample(1000, seed=6)
    log_p = generator.log_prob(own)
    assert np.isfinite(log_p).all()
    shifted = toy_top_pairs(200, seed=9)
    shifted.particles["pdg_id"][shifted.offsets[0]] = 4
    assert generator.log_prob(shifted)[0] == -np.inf
    # The average over its own events is higher than over those of another density.
    other = toy_top_pairs(1000, seed=8)
    other.particles["px"] *= 3.0
    other.particles["py"] *= 3.0
    inside = np.isfinite(generator.log_prob(other))
    assert inside.mean() > 0.7
    assert log_p.mean() > generator.log_prob(other)[inside].mean()
    other.particles["px"] *= 0.01
    other.particles["py"] *= 0.01
    jet = other.counts == 5
    assert (generator.log_prob(other)[jet] == -np.inf).all()  # below the cut in pT


def test_log_prob_is_the_density_of_what_is_sampled(trained: tuple[Generator, Path]) -> None:
    """Draws outside the cuts are rejected, so the density inside is larger by their fraction."""
    generator, out = trained
    own = generator.sample(200, seed=6)
    log_p = generator.log_prob(own)
    accepted = generator.facts["acceptance"]
    assert len(accepted) == len(generator.process.channels)
    assert all(0 < a <= 1 for a in accepted)
    old = Generator.load(out)
    del old.facts["acceptance"]
    encoded = generator.process.encode(own)
    shift = np.log(accepted)[generator.process.channel_of[encoded.subprocess].numpy()]
    assert np.allclose(old.log_prob(own) - log_p, shift)


def test_existing_model_is_kept(trained: tuple[Generator, Path], tmp_path: Path) -> None:
    generator, out = trained
    with pytest.raises(OutputError, match="--force"):
        Generator.train(toy_top_pairs(1500), out=out)
    with pytest.raises(OutputError, match="--force"):
        generator.save(out)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="other files"):
        Generator.train(toy_top_pairs(1500), out=tmp_path, force=True)
    with pytest.raises(OutputError, match="other files"):
        generator.save(tmp_path, force=True)


def copied(out: Path, tmp_path: Path) -> Path:
    target = tmp_path / "copy"
    target.mkdir()
    for path in out.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def test_damaged_and_newer_models(trained: tuple[Generator, Path], tmp_path: Path) -> None:
    _, out = trained
    model = copied(out, tmp_path)
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[len(weights) // 2] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    with pytest.raises(ModelError, match="damaged"):
        Generator.load(model)
    document = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**document, "version": 99}))
    with pytest.raises(ModelError, match="upgrade"):
        Generator.load(model)
    (model / "config.json").write_text("{")
    with pytest.raises(ModelError, match="damaged"):
        Generator.load(model)
    with pytest.raises(ModelError, match="holds no model"):
        Generator.load(tmp_path / "nowhere")


def test_weights_of_another_network(trained: tuple[Generator, Path], tmp_path: Path) -> None:
    _, out = trained
    model = copied(out, tmp_path)
    document = json.loads((model / "config.json").read_text())
    document["config"]["network"]["mixtures"] += 1
    (model / "config.json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match=r"another network.*train again"):
        Generator.load(model)


@pytest.mark.parametrize("key", ["process", "run", "config"])
def test_nonsense_in_the_configuration(
    trained: tuple[Generator, Path], tmp_path: Path, key: str
) -> None:
    _, out = trained
    model = copied(out, tmp_path)
    document = json.loads((model / "config.json").read_text())
    document[key] = {"nonsense": 1}
    (model / "config.json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match="damaged"):
        Generator.load(model)


def test_samples_that_cannot_be_trained_on(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match="too few"):
        Generator.train(toy_top_pairs(200), out=tmp_path / "a")
    negative = toy_top_pairs(1200)
    negative.events["weight"] *= -1.0
    with pytest.raises(SampleError, match="positive"):
        Generator.train(negative, out=tmp_path / "b")
    broken = toy_top_pairs(1200)
    broken.particles["px"][broken.offsets[7] + 2] += 50.0
    with pytest.raises(SampleError, match="event 8"):
        Generator.train(broken, out=tmp_path / "c")


def test_bad_events_are_skipped_and_counted(tmp_path: Path) -> None:
    broken = toy_top_pairs(1500)
    for event in (3, 900):
        broken.particles["px"][broken.offsets[event] + 2] += 50.0
    generator = Generator.train(
        broken, out=tmp_path / "m", skip_bad=True, config=settings("training.max_steps=3")
    )
    assert generator.facts["bad_events_skipped"] == 2
    assert generator.facts["events"] == 1498


@pytest.mark.usefixtures("few_draws")
def test_density_and_heads_are_each_kept_at_their_best(tmp_path: Path) -> None:
    """A small sample over-fits the heads long before a flow is trained."""
    config = settings("training.max_steps=150", "training.validation_interval=30", "model=mlp-cfm")
    generator = Generator.train(toy_top_pairs(1500), out=tmp_path / "m", config=config)
    rows = [r.split(",") for r in (tmp_path / "m" / "history.csv").read_text().splitlines()]
    columns = {name: [float(r[i]) for r in rows[1:]] for i, name in enumerate(rows[0])}
    best = min(columns["validation_loss"]) + min(columns["validation_head_loss"])
    assert generator.facts["validation_loss"] == pytest.approx(best, rel=1e-6)


def test_written_files_hold_the_same_events(
    trained: tuple[Generator, Path], tmp_path: Path
) -> None:
    generator, _ = trained
    sample = generator.sample(500, seed=2)
    for name in ("a.lhe.gz", "a.hepmc", "a.root"):
        hepgen_ml.write(sample, tmp_path / name)
        again = hepgen_ml.read(tmp_path / name)
        assert len(again) == 500
        final = again.status == 1
        assert np.allclose(
            np.sort(again.energy[final]), np.sort(sample.energy[sample.status == 1]), rtol=1e-12
        )
        assert again.run.cross_section == pytest.approx(3.0)


EQUIVARIANT = ["model=lgatr-cfm", "lgatr.channels=4", "lgatr.scalars=8", "lgatr.blocks=1",
               "lgatr.heads=2", "training.max_steps=30", "flow.steps=3"]  # fmt: skip


@pytest.mark.usefixtures("few_draws")
def test_equivariant_flow_from_training_to_events(tmp_path: Path) -> None:
    config = settings(*EQUIVARIANT)
    sample = toy_top_pairs(1500)
    generator = Generator.train(sample, out=tmp_path / "m", config=config, device="cpu")
    events = generator.sample(300, seed=1)
    for law in check_sample([events], events.run):
        assert law.n_broken == 0, law.text
    assert np.isfinite(generator.log_prob(events[:40])).all()
    again = Generator.load(tmp_path / "m", device="cpu")
    assert np.array_equal(again.sample(300, seed=1).px, events.px)
    assert again.surrogate.density.evaluations == 12


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize(
    "setting",
    [
        "training.precision=bfloat16",
        pytest.param(
            "training.compile=true",
            # torch's compiler warns of what it does itself
            marks=[pytest.mark.slow, pytest.mark.filterwarnings("ignore")],
        ),
    ],
)
def test_other_ways_to_train_give_the_same_to_their_precision(setting: str, tmp_path: Path) -> None:
    losses = []
    for name, more in (("plain", []), ("other", [setting])):
        config = settings(*EQUIVARIANT, *more)
        source = toy_top_pairs(1500)
        generator = Generator.train(source, out=tmp_path / name, config=config, device="cpu")
        losses.append(generator.facts["validation_loss"])
    assert losses[0] == pytest.approx(losses[1], abs=0.02)
