"""Taggers: they learn, keep what they learned, and refuse what they cannot use."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import uproot
from typer.testing import CliRunner, Result

from hepgen_ml.classification import Tagger
from hepgen_ml.classification.directory import DIRECTORY
from hepgen_ml.classification.division import hardest, require_enough, split_off
from hepgen_ml.classification.inputs import JetTensors, kinematic
from hepgen_ml.classification.metrics import auc, merit, rejection
from hepgen_ml.classification.network import JetNetwork, is_last
from hepgen_ml.classification.samples import write_scores
from hepgen_ml.classification.settings import TRAINING, TaggerSettings
from hepgen_ml.cli import app
from hepgen_ml.errors import ModelError, OutputError, SampleError, UsageError
from hepgen_ml.events.jets import JetSelection
from hepgen_ml.files.tensors import load_tensors, save_tensors
from hepgen_ml.networks.names import EVENT_NETWORKS
from tests.jets import jets, toy, write

QUICK = TRAINING.model_copy(update={"max_steps": 60, "batch_size": 64, "learning_rate": 3e-3})
SMALL = {"width": 24, "layers": 2}
SIZES: dict[str, dict[str, Any]] = {
    "lgatr": {"channels": 4, "scalars": 8, "blocks": 1, "heads": 2, "references": "plane+time"},
    "gatr": {"channels": 4, "scalars": 8, "blocks": 1, "heads": 2},
    "gap": {"channels": 2, "scalars": 4, "blocks": 1, "references": "plane+time"},
    "transformer": {"width": 16, "blocks": 1, "heads": 2},
}
MOMENTA = ("px", "py", "pz", "energy")


@pytest.fixture(scope="module")
def tagger() -> Tagger:
    some = {"two": jets(600, 2, 0, ("charge",)), "one": jets(300, 1, 1, ("charge",))}
    return Tagger.fit(some, TaggerSettings("deep-sets", SMALL, training=QUICK))


def test_it_learns(tagger: Tagger) -> None:
    new = {"two": jets(400, 2, 2, ("charge",)), "one": jets(400, 1, 3, ("charge",))}
    found = tagger.judge(new)
    assert found.auc > 0.95
    assert found.background == "one"
    assert list(found.rejections) == ["two"]
    # though there were twice as many of one class, the mean probabilities are those of equal ones
    mean = np.mean([tagger.predict(some).mean(0) for some in new.values()], axis=0)
    np.testing.assert_allclose(mean, 0.5, atol=0.05)


def test_a_class_with_few_jets_is_learned() -> None:
    some = {"two": jets(20, 2, 0), "one": jets(6000, 1, 1)}
    found = Tagger.fit(some, TaggerSettings("deep-sets", SMALL, training=QUICK))
    new = {"two": jets(300, 2, 2), "one": jets(300, 1, 3)}
    assert found.judge(new).auc > 0.93
    assert 0.41 < np.mean([found.predict(each).mean(0)[0] for each in new.values()]) < 0.59


def test_classes_whose_names_differ_in_signs_have_columns_of_their_own(tmp_path: Path) -> None:
    some = {"h > bb": jets(60, 2, 0), "h-bb": jets(60, 1, 1), "h___bb": jets(60, 1, 2)}
    few = QUICK.model_copy(update={"max_steps": 2})
    found = Tagger.fit(some, TaggerSettings("deep-sets", SMALL, training=few))
    path = write(tmp_path / "a.root", toy(20, 1, 3), *MOMENTA)
    assert write_scores(found, [path], tmp_path / "s.root", JetSelection()) == 20
    with uproot.open(tmp_path / "s.root") as file:
        columns = file["tree"].arrays(library="np")
    names = ["score_h___bb", "score_h_bb", "score_h___bb_2"]
    total = sum(columns[name] for name in names)
    np.testing.assert_allclose(total, 1.0, atol=1e-5)


@pytest.mark.parametrize("name", EVENT_NETWORKS)
def test_padding_order_and_azimuth_do_not_matter(name: str) -> None:
    sizes = SIZES.get(name, {})
    data = JetTensors.of(jets(40, 2, 0), torch.device("cpu"))
    torch.manual_seed(0)
    network = JetNetwork(name, 0, 3, True, 12, **sizes).eval()
    network.fit(data)
    with torch.no_grad():
        together = network(data, torch.arange(40))
        alone = torch.cat([network(data, torch.tensor([i])) for i in range(8)])
        angle = torch.tensor(0.7)
        px, py, *others = data.momenta.unbind(1)
        turned = [px * angle.cos() - py * angle.sin(), px * angle.sin() + py * angle.cos()]
        rotated = network(
            replace(data, momenta=torch.stack([*turned, *others], dim=1)), torch.arange(40)
        )
    torch.testing.assert_close(together[:8], alone, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(together, rotated, rtol=1e-2, atol=1e-3)
    last = {n for n, _ in network.named_parameters() if is_last(n)}
    assert last
    assert len(last) <= 12


@pytest.mark.parametrize("name", ["lgatr", "gap", "transformer"])
def test_the_unit_of_momenta_does_not_depend_on_references(name: str) -> None:
    data = JetTensors.of(jets(40, 2, 0), torch.device("cpu"))
    for references in ("none", "time", "plane+time") if name != "transformer" else ("none",):
        sizes = SIZES[name] | ({} if name == "transformer" else {"references": references})
        network = JetNetwork(name, 0, 2, True, 12, **sizes)
        network.fit(data)
        mean = float(data.momenta[:, 3].double().mean())
        assert float(network.network.unit) == pytest.approx(mean, rel=1e-5)


def test_it_is_stored(tagger: Tagger, tmp_path: Path) -> None:
    tagger.save(tmp_path / "t")
    again = Tagger.load(tmp_path / "t")
    some = jets(50, 2, 7, ("charge",))
    np.testing.assert_array_equal(again.predict(some), tagger.predict(some))
    assert (again.classes, again.features, again.facts) == (
        tagger.classes, tagger.features, tagger.facts,
    )  # fmt: skip
    path = tmp_path / "t" / "tagger.safetensors"
    tensors, about = load_tensors(path)
    for change in (
        {"kind": "other"}, {"version": 9}, {"classes": ["a"]}, {"network": "nope"},
        {"sizes": {"width": 10**9}}, {"sizes": {"layers": 90_000}},
        {"features": []}, {"classes": ["a", "a"]},
    ):  # fmt: skip
        save_tensors(path, tensors, about | change)
        with pytest.raises(ModelError, match="is damaged"):
            Tagger.load(tmp_path / "t")
    with pytest.MonkeyPatch.context() as patch:  # another definition of an input
        save_tensors(path, tensors, about)
        patch.setattr("hepgen_ml.classification.network.kinematic", lambda p: 2 * kinematic(p))
        with pytest.raises(ModelError, match="or the code that uses them has"):
            Tagger.load(tmp_path / "t")
    name = next(iter(tensors))
    save_tensors(path, tensors | {name: tensors[name] * torch.nan}, about)
    with pytest.raises(ModelError, match="not finite"):
        Tagger.load(tmp_path / "t")
    with pytest.raises(ModelError, match="holds no tagger"):
        Tagger.load(tmp_path)


@pytest.mark.parametrize("name", EVENT_NETWORKS)
def test_every_network_is_stored(name: str, tmp_path: Path) -> None:
    some = {"two": jets(30, 2, 0), "one": jets(30, 1, 1)}
    training = TRAINING.model_copy(update={"max_steps": 1})
    made = Tagger.fit(some, TaggerSettings(name, SIZES.get(name, {}), "momenta", training))
    made.save(tmp_path)
    again = Tagger.load(tmp_path)
    np.testing.assert_allclose(again.predict(some["one"]), made.predict(some["one"]), rtol=1e-5)


def test_fine_tuning_keeps_what_was_learned(tagger: Tagger) -> None:
    some = {n: jets(100, k, 10 + k, ("charge",)) for n, k in (("a", 1), ("b", 2), ("c", 2))}
    none = QUICK.model_copy(update={"max_steps": 1, "learning_rate": 1e-9, "ema": 0.0})
    begun = Tagger.fit(some, TaggerSettings("mlp", training=none), start=tagger)
    assert begun.settings.network == "deep-sets"
    old, new = tagger.module.state_dict(), begun.module.state_dict()
    for name, tensor in new.items():
        if is_last(name):
            assert tensor.shape != old[name].shape
        else:
            torch.testing.assert_close(tensor, old[name])
    frozen = Tagger.fit(some, TaggerSettings(training=QUICK), start=tagger, rate_before=0.0)
    name = next(n for n, _ in frozen.module.named_parameters() if not is_last(n))
    torch.testing.assert_close(frozen.module.state_dict()[name], old[name], rtol=0.05, atol=1e-3)
    assert frozen.judge({k: some[k] for k in ("a", "b")}).auc > 0.9
    with pytest.raises(SampleError, match="trained with the numbers charge"):
        Tagger.fit({"a": jets(50, 1, 0), "b": jets(50, 2, 1)}, start=tagger)


def test_an_interrupted_training_goes_on(tmp_path: Path) -> None:
    some = {"two": jets(300, 2, 0), "one": jets(300, 1, 1)}
    long = QUICK.model_copy(update={"max_time": 1e6})
    settings = TaggerSettings("deep-sets", SMALL, training=long)
    whole = Tagger.fit(some, settings)

    class StopError(Exception):
        pass

    def stop(stage: str, done: float, total: float | None, info: dict[str, float]) -> None:
        if info["step"] >= 20:
            raise StopError

    place, clock = tmp_path / "t", iter(range(10**6))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hepgen_ml.training.trainer.time.monotonic", lambda: float(next(clock)))
        with pytest.raises(StopError):
            Tagger.fit(some, settings, directory=place, progress=stop)
    assert {p.name for p in place.iterdir()} >= {"tagging.json", "checkpoint.safetensors"}
    other = {"two": jets(300, 2, 5), "one": some["one"]}
    with pytest.raises(UsageError, match="begun with other jets"):
        Tagger.fit(other, settings, directory=place, resume=True)
    with pytest.raises(OutputError, match="--resume"), DIRECTORY.claimed(place, force=False):
        pass
    again = Tagger.fit(some, settings, directory=place, resume=True)
    np.testing.assert_array_equal(again.predict(some["two"]), whole.predict(some["two"]))
    again.save(place)
    assert {p.name for p in place.iterdir()} == {"tagger.safetensors", "history.csv"}


def test_what_cannot_be_learned(tagger: Tagger) -> None:
    good = jets(50, 1, 0)
    broken = good[:]
    broken.momenta[3] = np.nan
    for some, what in (
        ({"a": good}, "more than 1 class of jets"),
        ({"a": good, "b": good[:0]}, "class 'b' has 0 jets"),
        ({"a": good, "b": jets(50, 1, 0, ("charge",))}, "read all classes with the same"),
        ({"a": good, "b": broken}, "'b' has numbers that are not finite"),
    ):
        with pytest.raises(SampleError, match=what):
            Tagger.fit(some, TaggerSettings("deep-sets", SMALL, training=QUICK))
    empty = replace(good, offsets=np.concatenate([good.offsets[:-1], good.offsets[-2:-1]]))
    with pytest.raises(SampleError, match="without constituents"):
        Tagger.fit({"a": good, "b": empty}, TaggerSettings("deep-sets", SMALL, training=QUICK))
    with pytest.raises(
        SampleError,
        match="no numbers beside momenta, the tagger was trained with the numbers charge",
    ):
        tagger.predict(good)
    for name in ("", "x" * 201, 3):
        with pytest.raises(UsageError, match="is not a text of 1 to 200"):
            Tagger.fit({"a": good, name: good}, TaggerSettings("deep-sets", SMALL))  # type: ignore[dict-item]
    with pytest.raises(SampleError, match="'b' has 20 jets, 18 without those for the test"):
        require_enough({"b": jets(20, 1, 0)}, {"b": jets(18, 1, 0)})
    with pytest.raises(UsageError, match="jets of one class cannot test"):
        tagger.judge({"two": jets(20, 2, 0, ("charge",)), "one": good[:0]})
    with pytest.raises(UsageError, match="it has two, one"):
        tagger.judge({"top": good, "one": good})


def test_figures_of_merit() -> None:
    rng = np.random.default_rng(0)
    signal, background = rng.normal(1, 1, 20_000), rng.normal(0, 1, 20_000)
    assert auc(signal, background) == pytest.approx(0.7602, abs=0.005)  # Phi(1 / sqrt 2)
    assert auc(np.ones(5), np.ones(7)) == 0.5
    found = rejection(signal, background, 0.5)
    assert found.value == pytest.approx(1 / 0.1587, rel=0.03)
    assert found.error == pytest.approx(found.value / np.sqrt(20_000 / found.value), rel=0.01)
    assert str(rejection(signal + 100, background, 0.3)) == "> 20000"
    p = np.array([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.2, 0.2, 0.6], [0.6, 0.3, 0.1]])
    some = merit(p, np.array([0, 1, 2, 2]), ("a", "b", "c"), 2)
    assert some.accuracy == pytest.approx((1 + 1 + 0.5) / 3)
    json.dumps(some.plain(), allow_nan=False)


def test_the_error_of_the_area_is_its_spread() -> None:
    rng = np.random.default_rng(1)
    label, areas, errors, right, of_right = np.repeat([0, 1, 2], [40, 90, 60]), [], [], [], []
    for _ in range(400):
        logits = rng.normal(0, 1, (len(label), 3))
        logits[np.arange(len(label)), label] += 1
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        found = merit(p, label, ("a", "b", "c"), 2)
        areas.append(found.auc)
        errors.append(found.auc_error)
        right.append(found.accuracy)
        of_right.append(found.accuracy_error)
    assert np.mean(errors) == pytest.approx(np.std(areas), rel=0.12)
    assert np.mean(of_right) == pytest.approx(np.std(right), rel=0.12)
    single = merit(p[39:41], label[39:41], ("a", "b", "c"), 1)
    assert single.plain()["auc_error"] is None
    assert "no error: a class has one jet" in single.lines()[0]


def test_equal_jets_are_not_on_both_sides(caplog: pytest.LogCaptureFixture) -> None:
    some = jets(200, 2, 0)
    test, rest = split_off({"a": some, "b": some}, 0.1, seed=0)
    energies = [
        {float(x) for part in side.values() for x in part.momenta[part.offsets[:-1], 3]}
        for side in (test, rest)
    ]
    assert not energies[0] & energies[1]
    assert len(test["a"]) == len(test["b"]) == 20
    assert 160 <= len(rest["a"]) < 180
    assert "jets occur more than once" in caplog.text
    caplog.clear()
    test, rest = split_off({"a": some, "b": jets(200, 3, 1)}, 0.1, seed=0)
    assert len(rest["a"]) == len(rest["b"]) == 180
    assert not caplog.text


def test_the_hardest_constituents_are_kept() -> None:
    some = jets(20, 2, 0, ("charge",))
    few = hardest(some, 5)
    np.testing.assert_array_equal(few.counts, np.minimum(some.counts, 5))
    np.testing.assert_array_equal(few[:1].momenta, some[:1].momenta[:5])


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["tag", *map(str, arguments)])


def test_command_line(tmp_path: Path) -> None:
    two, one = (
        write(tmp_path / f"{k}.root", toy(200, k, k), *MOMENTA, "charge", kind=np.full(200, k))
        for k in (2, 1)
    )
    small = ("--network", "deep-sets", "--set", "network.width=16", "--set", "network.layers=2")
    quick = (*small, "--set", "training.max_steps=30", "--features", "charge")
    out = tmp_path / "out"
    classes = ("--class", f"two={two}", "--class", f"one={one}:tree")
    done = run("train", *classes, *quick, "--out", out, "--report", tmp_path / "r.json")
    assert done.exit_code == 0, done.output
    assert "learned 360 jets of 2 classes" in done.stdout
    assert "two against one" in done.stdout
    assert json.loads((tmp_path / "r.json").read_text())["auc"] > 0.7
    told = CliRunner().invoke(app, ["info", str(out)])
    assert told.exit_code == 0, told.output
    for said in ("deep-sets", "one (180 jets)", "charge", "30 steps", "validation loss"):
        assert said in told.output
    again = run("train", *classes, *quick, "--out", out)
    assert again.exit_code == 5 + 1 or "exists already" in again.stderr
    for name in ("s.npz", "s.root"):
        done = run("apply", "--model", out, "--from", two, "--from", one, "--out", tmp_path / name)
        assert done.exit_code == 0, done.output
    found = np.load(tmp_path / "s.npz")
    assert found["scores"].shape == (400, 2)
    assert found["classes"].tolist() == ["two", "one"]
    tree = uproot.open(tmp_path / "s.root")["tree"].arrays(library="np")
    np.testing.assert_array_equal(tree["score_two"], found["scores"][:, 0])
    np.testing.assert_array_equal(tree["source"], np.repeat([0, 1], 200))
    tuned = ("--finetune", out, "--set", "training.max_steps=5", "--out", tmp_path / "tuned")
    columns = ("--from", two, "--from", one, "--label", "kind", "--class", "x=2", "--class", "y=1")
    assert run("train", *columns, *tuned).exit_code == 0
    done = run("test", "--model", tmp_path / "tuned", *columns)
    assert "x against y" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ((), "no classes"),
        (("--class", "a"), "is not of the form NAME=FILE"),
        (("--label", "kind"), "--label without --from"),
        (("--from", "FILE"), "the class of each jet"),
        (("--from", "FILE", "--label", "kind", "--class", "a=7"), "no jet has kind = 7"),
        (("--from", "FILE", "--label", "kind"), "more than 1 class of jets"),
        (("--from", "FILE", "--label", "partly"), "jet 11 has partly = nan, which is no class"),
        (("--class", "a=FILE", "--class", "b=nope.root"), "no such file"),
        (
            ("--class", "a=FILE", "--class", "b=OTHER", "--network", "x"),
            "the network 'x' is not known",
        ),
        (("--class", "a=FILE", "--set", "network.depth=3"), "more than 1 class of jets"),
        (("--class", "a=FILE", "--set", "training.depth=3"), "training.depth: no such setting"),
        (("--class", "a=FILE", "--set", "flow.depth=3"), "flow: no such setting"),
        (("--class", "a=FILE", "--background", "q"), "'q' is not one of the classes"),
        (("--class", "a=FILE", "--inputs", "q"), "inputs 'q' are not known"),
    ],
)
def test_bad_command_lines(tmp_path: Path, arguments: tuple[str, ...], what: str) -> None:
    path = write(tmp_path / "a.root", toy(30, 2, 0), *MOMENTA, kind=np.ones(30),
                 partly=np.repeat([0.0, np.nan, 1.0], 10))  # fmt: skip
    other = write(tmp_path / "b.root", toy(30, 3, 1), *MOMENTA)
    given = [a.replace("FILE", str(path)).replace("OTHER", str(other)) for a in arguments]
    done = run("train", *given, "--out", tmp_path / "out")
    assert done.exit_code in (2, 3, 4)
    assert done.stderr.count("\n") == 1
    assert what in done.stderr
    assert not (tmp_path / "out").exists()
