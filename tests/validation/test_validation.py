"""Truth against truth passes every test, known distortions fail the right ones."""

from __future__ import annotations

import json
import runpy
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import hepgen_ml
from hepgen_ml.analysis.classifier import classifier_auc, quiet_threads, weighted_auc
from hepgen_ml.analysis.final_states import color_partners, layouts
from hepgen_ml.analysis.frequencies import categories, frequencies
from hepgen_ml.analysis.metrics import (
    Counts,
    bin_edges,
    histogram_chi2,
    homogeneity,
    marginals,
    survival,
)
from hepgen_ml.analysis.observables import Observable, observables
from hepgen_ml.errors import SampleError, UsageError
from hepgen_ml.events.sample import EventSample, RunInfo
from hepgen_ml.validation import comparison, figures
from tests.samples import toy_top_pairs

ONE_JET = "t t~ j"


@pytest.fixture(scope="module")
def sample(shipped_sample: Path) -> EventSample:
    return hepgen_ml.read(shipped_sample)


@pytest.fixture(scope="module")
def halves(sample: EventSample) -> tuple[EventSample, EventSample]:
    order = np.random.default_rng(3).permutation(len(sample))
    return sample[order[::2]], sample[order[1::2]]


def by_name(tables):
    return {str(signature): table for signature, table in tables.items()}


def changed(sample: EventSample, **particles: np.ndarray) -> EventSample:
    return EventSample(
        sample.run, sample.offsets, {**sample.particles, **particles}, dict(sample.events)
    )


def harder_jets(sample: EventSample, factor: float) -> EventSample:
    jet = (sample.status == 1) & np.isin(np.abs(sample.pdg_id), [1, 2, 3, 4, 21])
    px, py = (np.where(jet, factor * c, c) for c in (sample.px, sample.py))
    energy = np.where(jet, np.sqrt(px**2 + py**2 + sample.pz**2), sample.energy)
    return changed(sample, px=px, py=py, energy=energy)


def test_observables_agree_with_vector(sample):
    table = by_name(observables(sample))[ONE_JET]
    assert set(by_name(observables(sample))) == {"t t~", ONE_JET}
    events = sample.to_awkward()[table.index[:200]].particles
    top, antitop, jet = events[:, 2], events[:, 3], events[:, 4]
    for name, expected in {
        "pt(j)": jet.pt,
        "eta(t)": top.eta,
        "y(t~)": antitop.rapidity,
        "mass(t,j)": (top + jet).mass,
        "dr(t,t~)": top.deltaR(antitop),
        "dphi(t~,j)": np.abs(antitop.deltaphi(jet)),
        "sqrt_s_hat": (top + antitop + jet).mass,
        "y_total": (top + antitop + jet).rapidity,
        "scale": sample.scale[table.index[:200]],
    }.items():
        np.testing.assert_allclose(table[name][:200], expected, rtol=1e-5, atol=1e-5)


def test_order_of_rows_and_color_tags_do_not_matter():
    def event(rows):
        columns = dict(
            zip(
                ("pdg_id", "status", "color1", "color2", "px", "py", "pz", "energy"),
                np.array(rows, dtype=float).T,
                strict=True,
            )
        )
        return EventSample(RunInfo(), [0, len(rows)], columns)

    rows = [
        [21, -1, 501, 502, 0, 0, 90, 90],
        [2, -1, 502, 0, 0, 0, -90, 90],
        [21, 1, 503, 504, 20, 0, 0, 20],
        [21, 1, 501, 503, -50, 0, 0, 50],
        [2, 1, 504, 0, 30, 0, 0, 30],
    ]
    renamed = {0: 0, 501: 777, 502: 12, 503: 13, 504: 99}
    shuffled = [
        [*r[:2], renamed[r[2]], renamed[r[3]], *r[4:]] for r in [rows[i] for i in (1, 0, 4, 3, 2)]
    ]
    first, second = event(rows), event(shuffled)
    assert str(next(iter(observables(first)))) == "j j j"
    for kind in ("subprocess", "color flow"):
        assert list(categories(first, kind)) == list(categories(second, kind))
    layout = next(iter(layouts(first, by_flavor=True)))
    partners = color_partners(first, layout.rows)
    # order: incoming g and u, then u, then the gluons by falling transverse momentum
    np.testing.assert_array_equal(partners[0], [[6, 2], [1, -1], [9, -1], [0, 8], [7, 4]])
    table = observables(first)[next(iter(observables(first)))]
    np.testing.assert_allclose([table[f"pt(j{i})"][0] for i in (1, 2, 3)], [50, 30, 20])


def test_resonances_are_observables():
    n = 50
    mass = np.random.default_rng(0).normal(91, 2, n)
    columns = {
        "pdg_id": np.tile([1, -1, 23, 13, -13], n),
        "status": np.tile([-1, -1, 2, 1, 1], n),
        "px": np.outer(mass, [0, 0, 0, 0.5, -0.5]).ravel(),
        "py": np.zeros(5 * n),
        "pz": np.outer(mass, [0.5, -0.5, 0, 0, 0]).ravel(),
        "energy": np.outer(mass, [0.5, 0.5, 1, 0.5, 0.5]).ravel(),
    }
    tables = observables(EventSample(RunInfo(), np.arange(0, 5 * n + 1, 5), columns))
    (table,) = tables.values()
    assert str(table.signature) == "mu- mu+ [Z0]"
    np.testing.assert_allclose(table["mass(Z0*)"], mass, rtol=1e-6)
    assert np.ptp(table["dphi(mu-,mu+)"]) == 0  # no digits of rounding for a classifier


def test_statistics_agree_with_scipy_and_sklearn():
    stats = pytest.importorskip("scipy.stats")
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(5)
    a, b = rng.integers(0, 6, 3000), rng.integers(0, 6, 2000)
    counts = [Counts.of(x, np.full(len(x), 2.5), 6) for x in (a, b)]
    test = homogeneity(*counts)[3]
    expected = stats.chi2_contingency([c.table[:, 0] for c in counts], correction=False)
    assert (test.chi2, test.ndf) == (pytest.approx(expected.statistic), expected.dof)
    assert test.p_value == pytest.approx(expected.pvalue)
    assert survival(3.0, 1) == pytest.approx(stats.chi2.sf(3.0, 1))

    low, high = rng.normal(0, 1, 400).round(1), rng.normal(0.3, 1, 300).round(1)
    w = rng.uniform(0.5, 2, 400), rng.uniform(0.5, 2, 300)
    value, _ = weighted_auc(low, high, *w)
    labels = np.repeat([0, 1], [400, 300])
    assert value == pytest.approx(
        metrics.roc_auc_score(labels, np.concatenate([low, high]), sample_weight=np.concatenate(w))
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_errors_are_right_on_pseudo_experiments(weighted):
    rng = np.random.default_rng(11)
    chi2, pulls, deviations = [], [], []
    probability = np.array([0.5, 0.3, 0.15, 0.05])
    for _ in range(300):
        a, b = rng.normal(size=2000), rng.normal(size=1500)
        wb = rng.exponential(size=1500) if weighted else np.ones(1500)
        edges = np.linspace(-2, 2, 11)
        test = histogram_chi2(a, b, edges, generated_weight=wb)
        chi2.append(test.p_value)
        deviations.append(np.subtract(weighted_auc(a, b, None, wb), (0.5, 0)))
        counts = [
            Counts.of(rng.choice(4, len(w), p=probability), w, 4) for w in (np.ones(2000), wb)
        ]
        pulls.append(homogeneity(*counts)[2])
    assert np.std(pulls, axis=0) == pytest.approx(np.ones(4), abs=0.15)
    assert np.mean(pulls, axis=0) == pytest.approx(np.zeros(4), abs=0.2)
    assert np.mean(chi2) == pytest.approx(0.5, abs=0.06)
    value, error = np.array(deviations).T
    assert np.std(value / error) == pytest.approx(1, abs=0.15)


def test_truth_against_truth(halves):
    truth, other = (by_name(observables(s)) for s in halves)
    for name, table in truth.items():
        auc = classifier_auc(table, other[name])
        assert abs(auc.value - 0.5) < 4 * auc.error
        results = marginals(table, other[name])
        assert all(r.test.p_value > 1e-4 for r in results)
        assert np.mean([r.test.per_ndf for r in results]) == pytest.approx(1, abs=0.2)
    for kind in ("final state", "subprocess", "color flow", "helicity"):
        result = frequencies(*halves, kind)
        assert result.test.p_value > 1e-4
        assert result.worst_p_value > 1e-4
        assert result.truth.sum() == pytest.approx(1)


def test_distorted_kinematics_are_seen(halves):
    truth, shifted = halves[0], harder_jets(halves[1], 1.1)
    a, b = (by_name(observables(s))[ONE_JET] for s in (truth, shifted))
    auc = classifier_auc(a, b)
    assert auc.value > 0.5 + 5 * auc.error
    results = {m.observable.name: m.test for m in marginals(a, b)}
    assert results["pt(j)"].p_value < 1e-6
    assert results["phi(t)"].p_value > 1e-4


def test_distorted_patterns_are_seen(halves):
    truth, other = halves
    flipped = np.where(other.pdg_id == 6, -other.spin, other.spin)
    result = frequencies(truth, changed(other, spin=flipped), "helicity")
    assert result.worst_p_value < 1e-6
    assert frequencies(truth, changed(other, spin=flipped), "color flow").test.p_value > 1e-4
    exchanged = changed(other, color1=other.color2, color2=other.color1)
    assert frequencies(truth, exchanged, "color flow").test.p_value < 1e-6


def test_patterns_that_ignore_the_kinematics_are_seen(halves):
    """Right frequencies of helicities, but those of another event."""
    full = by_name(observables(halves[0], discrete=True))["t t~"]
    rng = np.random.default_rng(2)
    broken = full.values.copy()
    discrete = [i for i, o in enumerate(full.observables) if o.discrete]
    broken[:, discrete] = broken[rng.permutation(len(full))][:, discrete]
    other = type(full)(full.signature, full.index, full.observables, broken, full.weight)
    half = len(full) // 2
    pair = full.take(slice(half)), other.take(slice(half, None))
    kinematics = classifier_auc(*(t.kinematics() for t in pair))
    assert abs(kinematics.value - 0.5) < 4 * kinematics.error
    auc = classifier_auc(*pair)
    assert auc.value > 0.5 + 4 * auc.error


def test_bins_resolve_a_peak_and_keep_the_tails():
    values = np.random.default_rng(0).standard_cauchy(20000)
    edges = bin_edges([values], Observable("mass(Z*)", "m"), 50)
    assert len(edges) == 51
    assert np.all(np.diff(edges) > 0)
    assert np.histogram(values, edges)[0].max() < 0.1 * len(values)
    constant = bin_edges([np.ones(100)], Observable("dphi", "d"))
    assert histogram_chi2(np.ones(100), np.ones(100), constant).ndf == 0
    for most in (0.0, 800.0):  # a mass or an energy that is the same in most events
        mixed = np.append(np.full(60, most), np.linspace(most, most + 50, 40))
        uniform = bin_edges([mixed], Observable("mass(N)", "m"), uniform=True)
        assert (np.diff(uniform) > 0).all()
        assert uniform[0] <= most < uniform[-1]


def test_too_few_events(sample):
    table = by_name(observables(sample[:100]))[ONE_JET]
    with pytest.raises(SampleError, match="too few"):
        classifier_auc(table, table)
    with pytest.raises(SampleError, match="no final state"):
        comparison.compare(sample[:100], sample[:100])


def test_long_decay_chains_have_no_large_final_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest of many small ones is compared, instead of none."""
    judged = []
    monkeypatch.setattr(comparison, "judge", lambda a, b, **_: judged.append(len(a)))
    sample = toy_top_pairs(500, jets=False)
    found = comparison.compare(sample, sample)
    assert [len(g.truth) for g in found.groups] == [500]
    assert judged[0] == 500


def test_threads_of_scikit_learn_are_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """They empty the list of filters, so that one that ignores a warning may be gone."""
    shown: list[str] = []
    monkeypatch.setattr(warnings, "showwarning", lambda m, *_, **__: shown.append(str(m)))
    with quiet_threads():
        warnings.resetwarnings()
        warnings.warn("`sklearn.utils.parallel.delayed` should be used otherwise", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert shown == ["something else"]


def test_missing_scikit_learn_is_named(sample, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    table = by_name(observables(sample))[ONE_JET]
    with pytest.raises(UsageError, match="scikit-learn"):
        classifier_auc(table, table)


def test_figure(halves, tmp_path, monkeypatch):
    pytest.importorskip("mplhep")
    figure = figures.overview(*halves)
    assert len(figure.axes) == 24
    figures.save(figure, tmp_path / "a.png", tmp_path / "a.pdf")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(UsageError, match="unknown figure type"):
        figures.save(figure, tmp_path / "a.docx")
    monkeypatch.setitem(sys.modules, "mplhep", None)
    with pytest.raises(UsageError, match="plots"):
        figures.overview(*halves)


def test_benchmark_script(halves, tmp_path, monkeypatch, capsys):
    names = [tmp_path / "truth.lhe", tmp_path / "generated.lhe"]
    for half, name in zip(halves, names, strict=True):
        hepgen_ml.write(half[:3000], name)

    def run(*arguments):
        """Exit code, output and errors of the script; a process of its own would import anew."""
        script = Path(__file__).parents[2] / "benchmarks" / "quality.py"
        monkeypatch.setattr(sys, "argv", [str(a) for a in (script, *arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(script), run_name="__main__")
        return end.value.code, *capsys.readouterr()

    code, text, errors = run(
        "--truth", names[0], "--generated", names[1], "--json", tmp_path / "out.json"
    )
    assert code == 0, errors
    assert "truth vs truth" in text
    numbers = json.loads((tmp_path / "out.json").read_text())
    assert numbers["groups"][0]["final_state"] == ONE_JET
    assert 0.4 < numbers["groups"][0]["auc"]["value"] < 0.6
    assert numbers["frequencies"]["helicity"]["categories"] > 20
    code, _, errors = run("--truth", "absent.lhe", "--generated", names[1])
    assert code == 3
    assert "absent.lhe: no such file" in errors
