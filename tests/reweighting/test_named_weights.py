"""Named weights learned with the density of a sample."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from hepgen_ml import Generator
from hepgen_ml.cli import app
from hepgen_ml.config import load_config
from hepgen_ml.errors import ModelError, SampleError, UsageError
from hepgen_ml.events.formats import read, write
from hepgen_ml.events.sample import EventSample, concatenate
from hepgen_ml.reweighting.named_weights import learning
from hepgen_ml.reweighting.named_weights.features import inputs_of
from hepgen_ml.training.encoded import EncodedSample, encode_sample
from hepgen_ml.training.variations import ALL, VariationCollector, matching
from tests.samples import toy_top_pairs

TINY = ["network.width=16", "network.blocks=1", "network.heads=2", "network.mixtures=4",
        "training.max_epochs=0.12", "training.batch_size=128", "training.max_time=40",
        "training.variations_share=0.9"]  # fmt: skip

GROUPS = (
    '<weightgroup name="scale" combine="envelope">\n'
    '<weight id="MUR=2">twice &lt;mu_R&gt;</weight>\n<weight id="1001">nominal</weight>\n'
    '</weightgroup>\n<weightgroup name="EFT">\n<weight id="c_t = 1">interference</weight>\n'
    "</weightgroup>"
)
NAMES = ["MUR=2", "1001", "c_t = 1"]


def with_weights(n: int, seed: int = 0) -> EventSample:
    """Events with a variation of the scale, a copy of the nominal weight, and an interference."""
    sample = toy_top_pairs(n, seed)
    alpha, rows = sample.alpha_qcd, sample.offsets[:-1]
    energy = np.stack([sample.energy[rows], sample.energy[rows + 1]], 1)
    mass = 2 * np.sqrt(energy.prod(1))
    power = 2.0 + sample.process_id
    ratio = {
        "MUR=2": (1 - 0.8 * alpha) ** power * (energy / 300).prod(1) ** 0.01,
        "1001": np.ones(n),
        "c_t = 1": np.log(mass / 450) * np.where(sample.pdg_id[rows] == 21, 1.0, 0.5),
    }
    run = sample.run.with_(
        weight_names={"MUR=2": "twice <mu_R>", "1001": "nominal", "c_t = 1": "interference"},
        weight_groups=GROUPS,
    )
    return EventSample(
        run, sample.offsets, sample.particles, sample.events,
        weights={name: r * sample.weight for name, r in ratio.items()},
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Generator, Path]:
    out = tmp_path_factory.mktemp("variations") / "model"
    config = load_config(None, TINY)
    return Generator.train(with_weights(4000), out=out, config=config, device="cpu"), out


def test_ratios_are_those_of_other_events_of_the_process(trained: tuple[Generator, Path]) -> None:
    generator, _ = trained
    truth = with_weights(1500, seed=5)
    bare = EventSample(truth.run.with_(weight_names={}, weight_groups=""), truth.offsets,
                       truth.particles, truth.events)  # fmt: skip
    inside = np.isfinite(generator.log_prob(bare))
    truth, bare = truth[inside], bare[inside]
    found = generator.reweight(bare)
    assert list(found.weights) == NAMES
    assert found.run.weight_groups == GROUPS
    assert np.array_equal(found.weights["1001"], truth.weight)
    off = {n: np.abs(found.weights[n] - truth.weights[n]) / truth.weight for n in NAMES}
    assert np.median(off["MUR=2"]) < 6e-3
    assert np.median(off["c_t = 1"]) < 3e-2
    ratio, error = generator.weight_ratios(bare)
    assert np.array_equal(ratio[:, 0] * bare.weight, found.weights["MUR=2"])
    assert (error[:, 1] == 0).all()
    for k in (0, 2):
        assert 0.5 < np.mean(off[NAMES[k]] < error[:, k]) < 0.85


def test_weights_add_up_to_those_of_the_sample(trained: tuple[Generator, Path]) -> None:
    generator, _ = trained
    sample = with_weights(4000)
    found = generator.reweight(sample)
    for name in NAMES:
        expected = sample.weights[name].sum() / sample.weight.sum()
        assert found.weights[name].sum() / found.weight.sum() == pytest.approx(expected, abs=2e-6)
    stated = {w["name"]: w["cross_section"] for w in generator.describe()["weight_variations"]}
    assert stated["1001"] == pytest.approx(1, abs=1e-6)


def test_generated_events_have_them(trained: tuple[Generator, Path]) -> None:
    generator, out = trained
    events = generator.sample(300, seed=3)
    assert list(events.weights) == NAMES == list(events.run.weight_names)
    assert events.run.weight_groups == GROUPS
    again = Generator.load(out, device="cpu").sample(300, seed=3)
    for name in NAMES:
        assert np.array_equal(events.weights[name], again.weights[name])
    parts = [
        concatenate(list(generator.stream(300, seed=3, shard=(i, 2)))) for i in range(2)
    ]
    for name in NAMES:
        both = np.concatenate([part.weights[name] for part in parts])
        assert np.array_equal(both, events.weights[name])
    assert np.allclose(generator.reweight(events).weights["MUR=2"], events.weights["MUR=2"],
                       rtol=1e-4)  # fmt: skip


@pytest.mark.parametrize("name", ["a.lhe.gz", "a.hepmc", "a.root"])
def test_files_keep_them(name: str, trained: tuple[Generator, Path], tmp_path: Path) -> None:
    events = trained[0].sample(200, seed=4)
    write(events, tmp_path / name)
    back = read(tmp_path / name)
    assert list(back.weights) == NAMES
    for n in NAMES:
        ratio = back.weights[n] / back.weight
        assert np.allclose(ratio, events.weights[n] / events.weight, rtol=1e-6)


def test_nanoaod_has_them_by_kind(trained: tuple[Generator, Path], tmp_path: Path) -> None:
    uproot = pytest.importorskip("uproot")
    events = trained[0].sample(50, seed=4)
    write(events, tmp_path / "a.root")
    tree = uproot.open(tmp_path / "a.root")["Events"]
    found = {k: tree[k].array() for k in tree.keys() if k.endswith("Weight") and "LHE" in k}  # noqa: SIM118
    assert set(found) == {"LHEScaleWeight", "LHEReweightingWeight"} | {
        "nLHEScaleWeight", "nLHEReweightingWeight"
    }  # fmt: skip
    scale = np.stack([events.weights[n] / events.weight for n in NAMES[:2]], 1)
    assert np.allclose(found["LHEScaleWeight"].to_numpy(), scale, rtol=1e-6)
    assert np.allclose(found["LHEReweightingWeight"].to_numpy()[:, 0],
                       events.weights["c_t = 1"] / events.weight, rtol=1e-6)  # fmt: skip


def test_an_encoded_sample_keeps_them(tmp_path: Path) -> None:
    path = tmp_path / "sample.safetensors"
    encode_sample(with_weights(1500)).save(path)
    kept = EncodedSample.load(path).variations
    assert kept is not None
    assert kept.names == NAMES
    assert encode_sample(path, variations=["MUR*"]).variations.names == ["MUR=2"]
    assert encode_sample(path, variations=["Nominal", "c_?*"]).variations.names == NAMES[1:]
    assert encode_sample(path, variations=[]).variations is None
    with pytest.raises(UsageError, match="matches 'PDF"):
        encode_sample(path, variations=["PDF*"])


def test_names_are_patterns_of_themselves() -> None:
    names = ["muR[2] {x}", "muR2", "*", " lead", "100% (a|b)"]
    texts = dict.fromkeys(names, "")
    for name in names:
        assert name in matching(texts, [name])
    assert matching(texts, ["mur[2]*"]) == ["muR[2] {x}"]
    assert matching(texts, ["mur?"]) == ["muR2"]
    with pytest.raises(UsageError, match="matches ''"):
        matching(texts, [""])


def test_weights_are_chosen_by_name(tmp_path: Path) -> None:
    sample = with_weights(1200)
    config = load_config(None, [*TINY, "training.max_time=5"])
    some = config.with_(training__variations=("MUR*",))
    made = Generator.train(sample, out=tmp_path / "a", config=some, device="cpu")
    assert made.run.weight_groups == "\n".join(
        line for line in GROUPS.splitlines()[:4] if "1001" not in line
    )
    none = config.with_(training__variations=())
    made = Generator.train(sample, out=tmp_path / "b", config=none, device="cpu")
    assert not made.sample(10, seed=1).weights
    with pytest.raises(UsageError, match="learned no named weights"):
        made.reweight(sample)
    with pytest.raises(UsageError, match="no named weight of the sample matches 'PDF"):
        encode_sample(sample, variations=["PDF*"])


def test_events_that_lack_a_weight(caplog: pytest.LogCaptureFixture) -> None:
    sample = with_weights(1500)
    sample.weights["MUR=2"][7] = np.nan
    sample.weights["c_t = 1"][:700] = np.nan
    encoded = encode_sample(sample)
    found = encoded.variations
    assert found is not None
    assert found.names == ["MUR=2", "1001"]
    assert any("'c_t = 1' is not a number" in text for text in encoded.not_learned)
    assert "'c_t = 1' is not a number in 46.7 % of events: it is not learned" in caplog.text
    assert "1 events lack some of the named weights" in caplog.text
    with pytest.raises(SampleError, match="--no-weights"):
        encode_sample(sample, variations=["c_t*"])


def test_no_sample_is_lost_to_weights_that_different_events_lack() -> None:
    sample = with_weights(1000)
    ratio = np.ones((100, 1000))
    for k in range(100):
        ratio[k, 10 * k : 10 * k + 10 - k // 50] = np.nan
    sample.weights = {f"w{k}": r * sample.weight for k, r in enumerate(ratio)}
    collector = VariationCollector(ALL, 0)
    collector.add(sample, np.arange(1000), 0)
    found = collector.found(sample.run)
    assert found is not None
    assert found.names == ["w50", "w51", "w52", "w53", "w54"]
    assert len(found.rows) == 955
    assert len(collector.not_learned) == 95


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hepgen_ml.training.variations._MOST_NUMBERS", 1000)
    collector, sample = VariationCollector(["*"], 0), with_weights(1500)
    for k in range(3):
        collector.add(sample, np.arange(1500), 1500 * k)
    found = collector.found(sample.run)
    assert found is not None
    assert 100 < len(found.rows) <= 333
    ratio = sample.weights["c_t = 1"] / sample.weight
    assert np.allclose(found.ratio[:, 2], ratio[found.rows.numpy() % 1500], rtol=1e-6)


def test_all_constant(tmp_path: Path) -> None:
    sample = with_weights(1200)
    sample.weights = {"1001": sample.weight * 1.0, "half & half": sample.weight / 2}
    config = load_config(None, TINY)
    made = Generator.train(sample, out=tmp_path / "a", config=config, device="cpu")
    events = Generator.load(tmp_path / "a", device="cpu").sample(20, seed=1)
    assert np.array_equal(events.weights["1001"], events.weight)
    assert np.allclose(events.weights["half & half"], events.weight / 2)
    assert 'id="half &amp; half"' in made.run.weight_groups


def test_a_few_steps_are_a_quick_try(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    steps = []

    class Counted(learning.Trainer):
        def run(self, until: float = math.inf) -> None:
            super().run(until)
            steps.append(self.step)

    monkeypatch.setattr(learning, "Trainer", Counted)
    config = load_config(None, [*TINY, "training.max_steps=3"])
    Generator.train(with_weights(1200), out=tmp_path / "a", config=config, device="cpu")
    assert steps == [3]


def test_other_events_are_refused(trained: tuple[Generator, Path]) -> None:
    sample = with_weights(30)
    sample.particles["pdg_id"][sample.offsets[3]] = 5
    with pytest.raises(SampleError, match=r"1 of 30 events are not of the process.*: event 4"):
        trained[0].reweight(sample)


def _missing(path: Path) -> None:
    path.unlink()


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _infinite(path: Path) -> None:
    tensors, text = load_file(path), _metadata(path)
    tensors["centre"][0] = torch.inf
    save_file(tensors, path, {"json": text})


def _other_shape(path: Path) -> None:
    document = json.loads(_metadata(path))
    save_file(load_file(path), path, {"json": json.dumps({**document, "n_components": 7})})


def _fewer(path: Path) -> None:
    document = json.loads(_metadata(path))
    document["weights"] = document["weights"][:1]
    save_file(load_file(path), path, {"json": json.dumps(document)})


def _metadata(path: Path) -> str:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return str(file.metadata()["json"])


@pytest.mark.parametrize("damage", [_missing, _truncated, _infinite, _other_shape, _fewer])
def test_damaged_files_are_refused(
    damage: Callable[[Path], None], trained: tuple[Generator, Path], tmp_path: Path
) -> None:
    trained[0].save(tmp_path / "model")
    assert Generator.load(tmp_path / "model", device="cpu").ratios is not None
    damage(tmp_path / "model" / "variations.safetensors")
    with pytest.raises(ModelError, match=r"variations\.safetensors"):
        Generator.load(tmp_path / "model", device="cpu")


def test_info_lists_them(trained: tuple[Generator, Path]) -> None:
    result = CliRunner().invoke(app, ["info", str(trained[1])])
    assert result.exit_code == 0
    assert "MUR=2" in result.output
    assert "exact" in result.output


def test_ratios_that_are_the_same_in_a_subprocess_are_exact(tmp_path: Path) -> None:
    sample = with_weights(1500)
    gluons = sample.pdg_id[sample.offsets[:-1]] == 21
    sample.weights["c_t = 1"][gluons] = 0.0
    config = load_config(None, [*TINY, "training.variations_share=0.05"])
    made = Generator.train(sample, out=tmp_path / "a", config=config, device="cpu")
    found = made.reweight(sample).weights["c_t = 1"]
    assert (found[gluons] == 0).all()
    assert (found[~gluons] != 0).all()
    assert found.sum() == pytest.approx(sample.weights["c_t = 1"].sum(), rel=1e-5)
    assert (made.weight_ratios(sample)[1][gluons, 2] == 0).all()
    # errors that are told are those of the other events
    stated = made.describe()["weight_variations"][2]
    assert gluons.mean() > 0.5
    assert stated["median_error"] > 1e-4


READERS = Path(os.environ.get("HEPGEN_ML_DATA", "/nowhere")) / "readers"


@pytest.mark.skipif(not READERS.is_dir(), reason="needs HEPGEN_ML_DATA")
@pytest.mark.parametrize(
    ("name", "n_weights", "pattern", "n_chosen"),
    [
        ("madgraph5-3.5.8-pp_to_jj.lhe.gz", 145, "*mur=2*", 15),
        ("madgraph-2.0.0-wbj.lhe", 9, "muR=0.2*", 3),
    ],
)
def test_weights_of_real_files(name: str, n_weights: int, pattern: str, n_chosen: int) -> None:
    sample = read(READERS / f"pylhe-testfile-{name}")
    collector = VariationCollector(ALL, 0)
    collector.add(sample, np.arange(len(sample)), 0)
    found = collector.found(sample.run)
    assert found is not None
    assert len(found.names) == n_weights
    some = found.chosen([pattern])
    assert some is not None
    assert len(some.names) == n_chosen


@pytest.mark.parametrize("more", [False, True])
def test_a_weight_that_subprocesses_alone_determine(more: bool) -> None:
    """As the K factor of each channel: nothing is left to learn, beside other weights or not."""
    events = toy_top_pairs(1500)
    rows = events.offsets[:-1]
    quarks = events.pdg_id[rows] != 21
    mass = 2 * np.sqrt(events.energy[rows] * events.energy[rows + 1])
    ratio = {"k": np.where(quarks, 1.2, 1.0)} | ({"mass": (mass / 500) ** 0.2} if more else {})
    sample = encode_sample(EventSample(
        events.run.with_(weight_names=dict.fromkeys(ratio, "")), events.offsets, events.particles,
        events.events, weights={name: r * events.weight for name, r in ratio.items()},
    ))  # fmt: skip
    learned = learning.learn_ratios(
        sample.process, sample.encoded, sample.variations, same_beams=True, seconds=1.0, seed=0,
        device=torch.device("cpu"),
    )  # fmt: skip
    found, _ = learned(inputs_of(sample.process, sample.encoded))
    quark = quarks[sample.encoded.event.numpy()]
    np.testing.assert_allclose(found[:, 0].numpy(), np.where(quark, 1.2, 1.0), rtol=1e-6)
