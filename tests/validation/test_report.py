"""A report holds what it promises, and its numbers are those of the samples."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import hepgen_ml
from hepgen_ml.analysis.frequencies import frequencies
from hepgen_ml.analysis.observables import Observable, observables
from hepgen_ml.cli import app
from hepgen_ml.config import Config
from hepgen_ml.errors import OutputError, UsageError
from hepgen_ml.events.laws.checks import check_sample
from hepgen_ml.events.sample import EventSample, Subrun
from hepgen_ml.models.included import read_document
from hepgen_ml.validation import comparison, measurements, report
from hepgen_ml.validation.figures import Curve, Panel, grid
from hepgen_ml.validation.measurements import Labelled, measure
from hepgen_ml.validation.report_figures import draw
from hepgen_ml.validation.report_sections import particles
from hepgen_ml.validation.user_observables import extended, load_function
from hepgen_ml.validation.verdict import counted
from tests.samples import toy_top_pairs

pytest.importorskip("mplhep")

USER = """
import numpy as np
from hepgen_ml.analysis.observables import Observable

def mine(sample):
    pt = np.hypot(sample.px, sample.py)
    h_t = np.bincount(sample.event_index, pt, len(sample))
    return {"H_T^2 & more [GeV]": h_t, Observable("half", r"h_{1/2}"): h_t / 2}

def broken(sample):
    return {"short": np.zeros(3)}

def failing(sample):
    raise KeyError("no such thing")
"""


@contextmanager
def few_figures() -> Iterator[None]:
    """Small samples are compared, and little of them is drawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "MIN_GROUP", 420)
        patch.setattr(measurements, "SHOWN_GROUPS", 1)
        patch.setattr(measurements, "SHOWN_OBSERVABLES", 3)
        patch.setattr(measurements, "_IN_MATRICES", 4)
        yield


@pytest.fixture(autouse=True)
def small() -> Iterator[None]:
    with few_figures():
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("samples")
    for name, seed in (("truth.lhe", 1), ("made.lhe", 2)):
        hepgen_ml.write(toy_top_pairs(1000, seed=seed), place / name)
    (place / "user.py").write_text(USER)
    return place / "truth.lhe", place / "made.lhe"


@pytest.fixture(scope="module")
def written(files: tuple[Path, Path]) -> Path:
    """Report of a file, made by the command line."""
    truth, made = files
    out = truth.parent / "report"
    with few_figures():
        done = CliRunner().invoke(
            app,
            ["validate", "--truth", str(truth), "--generated", str(made), "--out", str(out),
             "--observables", f"{truth.parent / 'user.py'}:mine"],
        )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "report.html" in done.output
    return out


class Page(HTMLParser):
    """Checks that elements nest; collects what a page refers to."""

    VOID = ("meta", "img", "br", "hr", "link", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.add(tag)
        self.sources += [str(found["src"])] if "src" in found else []
        self.links += [str(found["href"])] if "href" in found else []
        self.ids += [str(found["id"])] if "id" in found else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_whole_and_needs_nothing_else(written: Path) -> None:
    text = (written / report.PAGE).read_text()
    page = Page(text)
    assert page.open == []
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert all(s.startswith("data:image/png;base64,") for s in page.sources)
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert not re.search(r"https?://|url\(|@import", text)
    metrics = json.loads((written / report.METRICS).read_text())
    assert len(page.sources) == len(metrics["figures"])
    drawn = {f"{name}{suffix}" for name in metrics["figures"] for suffix in (".png", ".pdf")}
    assert {f.name for f in (written / report.FIGURES).iterdir()} == drawn
    kinds = {name.split("_")[0] for name in metrics["figures"]}
    assert kinds == {"marginals", "correlations", "planes", "rates", "pulls", "judge"}
    assert {p.name for p in written.iterdir()} == {report.PAGE, report.METRICS, report.FIGURES}


def test_numbers_are_those_of_the_samples(written: Path, files: tuple[Path, Path]) -> None:
    metrics = json.loads((written / report.METRICS).read_text(), parse_constant=pytest.fail)
    assert (metrics["format"], metrics["version"]) == (report.FORMAT, report.VERSION)
    truth, made = (hepgen_ml.read(f) for f in files)
    user = load_function(f"{files[0].parent / 'user.py'}:mine")
    expected = comparison.compare(truth, made, n_marginal=None, user=user).to_dict()
    found = metrics["samples"][0]["comparison"]
    for group, again in zip(found["groups"], expected["groups"], strict=True):
        assert group["auc"] == pytest.approx(again["auc"])
        assert group["marginals"].keys() == again["marginals"].keys()
        for name, test in group["marginals"].items():
            assert test["chi2"] == pytest.approx(again["marginals"][name]["chi2"])
    pulls = frequencies(truth, made, "subprocess")
    assert pulls is not None
    rows = {r["name"]: r for r in metrics["rates"]["subprocess"]}
    for name, pull, fraction in zip(pulls.names, pulls.pulls, pulls.generated, strict=True):
        assert rows[name]["pull"] == pytest.approx(pull)
        error = np.sqrt(fraction * (1 - fraction) / len(made))
        assert rows[name]["generated_error"] == pytest.approx(error)
    first = metrics["summary"]["final_states"][0]
    group = found["groups"][0]
    largest = max(m["chi2"] / m["ndf"] for m in group["marginals"].values())
    assert first["largest_chi2_per_ndf"] == pytest.approx(largest)
    assert metrics["summary"]["laws"]["broken"] == [
        law["name"] for law in metrics["laws"] if law["broken"]
    ]
    files_known = metrics["provenance"]["truth_files"]
    assert set(files_known) == {str(files[0])}
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in files_known.values())


def test_observables_of_the_user_appear(written: Path) -> None:
    metrics = json.loads((written / report.METRICS).read_text())
    for group in metrics["samples"][0]["comparison"]["groups"]:
        assert {"H_T^2 & more", "half"} <= group["marginals"].keys()
    text = (written / report.PAGE).read_text()
    assert "H_T^2 &amp; more" in text
    assert "H_T^2 & more" not in text


def test_defects_of_the_users_file_are_named(files: tuple[Path, Path], tmp_path: Path) -> None:
    place = files[0].parent / "user.py"
    sample = toy_top_pairs(50)
    for name, message in (("broken", "shape \\(3,\\)"), ("failing", "KeyError.*no such thing")):
        with pytest.raises(UsageError, match=message):
            extended(observables(sample), sample, load_function(f"{place}:{name}"))
    bad = tmp_path / "bad.py"
    bad.write_text("import nothing_of_this_name")
    for text, message in (
        (f"{place}:absent", "no function 'absent'"),
        ("absent.py:f", "no such file"),
        (f"{bad}:f", "ModuleNotFoundError"),
        ("mine", "does not name a function"),
    ):
        with pytest.raises(UsageError, match=message):
            load_function(text)
    with pytest.raises(UsageError, match="already"):
        extended(observables(sample), sample, lambda s: {"pt(t)": np.ones(len(s))})
    with pytest.raises(UsageError, match="cannot be drawn"):
        extended({}, sample, lambda s: {Observable("x", r"\frac{"): np.ones(len(s))})
    with pytest.raises(UsageError, match="returns list"):
        extended(observables(sample), sample, lambda s: [1])  # type: ignore[arg-type,return-value]


def test_nothing_is_left_half_written(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = [hepgen_ml.read(f) for f in files]

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "page", fails)
    monkeypatch.setattr(report, "draw", lambda *_: iter(()))
    with pytest.raises(OutputError, match="No space left"):
        report.validate(samples[0], generated=samples[1], out=tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_files_of_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them are judged, however few events are asked for, with weights that are theirs."""
    for number, sigma in ((1, 2.0), (5, 50.0)):
        events = toy_top_pairs(300, seed=number, jets=False)
        run = events.run.with_(
            weight_strategy=3, processes=(Subrun(number, sigma, 0.001 * sigma, 1.0),)
        )
        columns = {
            **events.events, "process_id": np.full(300, number), "weight": np.ones(300)
        }  # fmt: skip
        hepgen_ml.write(
            EventSample(run, events.offsets, events.particles, columns), tmp_path / f"{number}.lhe"
        )
    seen: list[EventSample] = []

    def stop(truth: EventSample, samples: list[Labelled], **_: object) -> None:
        seen.append(samples[0].events)
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "measure", stop)
    paths = [tmp_path / "1.lhe", tmp_path / "5.lhe"]
    with pytest.raises(KeyboardInterrupt):
        report.validate(paths, generated=paths, out=tmp_path / "out", n=200)
    assert len(seen[0]) == 200
    shares = np.bincount(seen[0].process_id, seen[0].weight)[[1, 5]]
    assert shares[1] / shares[0] == pytest.approx(25, rel=0.5)
    whole = report._read(paths, None, False)
    laws = {law.name: law for law in check_sample([whole], whole.run)}
    assert laws["normalisation"].n_broken == 0


def test_what_exists_is_kept(files: tuple[Path, Path], written: Path, tmp_path: Path) -> None:
    truth = hepgen_ml.read(files[0])
    with pytest.raises(OutputError, match="--force"):
        report.validate(truth, generated=truth, out=written)
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="not a report"):
        report.validate(truth, generated=truth, out=tmp_path, force=True)
    with pytest.raises(UsageError, match="not both"):
        report.validate(truth, out=tmp_path / "x")
    done = CliRunner().invoke(app, ["validate", "--model", "ttbar01j"])
    assert done.exit_code == 2
    assert "--truth" in done.output


def test_model_card_takes_the_numbers(files: tuple[Path, Path], tmp_path: Path) -> None:
    config = Config().with_(
        network__width=16, network__blocks=1, network__heads=2, network__mixtures=4,
        training__max_steps=4, training__validation_interval=2, jetgpt__bayesian="last",
    )  # fmt: skip
    model = tmp_path / "model"
    hepgen_ml.Generator.train(
        hepgen_ml.read(files[1]), out=model, config=config, device="cpu", max_time=20
    )
    before = read_document(model)
    metrics = report.validate(
        [files[0]], model=model, out=tmp_path / "report", n=1000, posterior=3, device="cpu"
    )
    assert metrics["generated"]["posterior_draws"] == 3
    assert "training" in metrics["figures"]
    spreads = [r["model_error"] for r in metrics["rates"]["final state"]]
    assert all(s is not None and s >= 0 for s in spreads)
    kept = json.loads((model / "validation.json").read_text())
    assert kept["weights_sha256"] == before["weights_sha256"]
    assert kept["final_states"] == metrics["summary"]["final_states"]
    card = (model / "README.md").read_text()
    assert "## Validation" in card
    assert f"{kept['final_states'][0]['auc']['value']:.4f}" in card
    assert read_document(model) == before
    again = hepgen_ml.Generator.load(model, device="cpu")
    again.save(tmp_path / "model", force=True)
    assert not (model / "validation.json").exists()  # the numbers may not be about these weights
    assert "## Validation" not in (model / "README.md").read_text()


def test_reweighted_events_are_a_third_curve() -> None:
    truth, made = (toy_top_pairs(600, seed=seed, jets=False) for seed in (3, 4))
    weight = np.random.default_rng(0).exponential(size=len(made))
    weighted = EventSample(made.run, made.offsets, made.particles, {**made.events,
                                                                    "weight": weight})  # fmt: skip
    found = measure(truth, [Labelled("generated", made), Labelled("reweighted", weighted)])
    numbers = found.to_dict()["samples"]
    assert numbers[1]["effective_events"] == pytest.approx(weight.sum() ** 2 / (weight**2).sum())
    assert numbers[0]["effective_events"] == pytest.approx(len(made))
    first, second = (s["comparison"]["groups"][0] for s in numbers)
    assert second["auc_floor"] == first["auc_floor"]
    assert second["auc"] != first["auc"]
    figures = draw(found)
    labels = [t.get_text() for t in next(figures).figure.legends[0].get_texts()]
    assert labels[:3] == ["truth", "hepgen-ml", "reweighted"]
    assert any(f.name == "correlations_1_reweighted" for f in figures)


def test_band_of_the_model_is_the_spread_of_its_draws() -> None:
    rng = np.random.default_rng(1)
    x, w = rng.uniform(0, 1, 4000), np.ones(4000)
    tilts = np.array([1 + a * (x - 0.5) for a in (-0.4, 0.0, 0.4)])
    figure = grid(
        [Panel(Observable("x", "x"), (Curve(x, w), Curve(x, w, tilts)))], columns=1, n_bins=2
    )
    lower = figure.axes[1]
    bands = [p.get_data() for p in lower.patches if p.get_fill()]
    # at the ends the draws are 1 -+ 0.1, so that their standard deviation is 0.1
    heights = [np.asarray(b.values - b.baseline) / 2 for b in bands]
    assert any(np.allclose(h, 0.1, atol=0.01) for h in heights)


def test_particles_as_html() -> None:
    assert particles("t t~ j") == 't <span class="over">t</span> j'
    assert particles("mu- mu+") == "μ<sup>−</sup> μ<sup>+</sup>"
    assert particles("<b> & c") == "&lt;b&gt; &amp; c"


def test_numbers_of_categories_in_words() -> None:
    assert counted(1, "subprocess") == "1 subprocess"
    assert counted(21, "color flow") == "21 colour flows"
    assert counted(0, "helicity") == "0 helicity configurations"
