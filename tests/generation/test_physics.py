"""The whole way on real samples, judged as physics. Minutes long: `make test-slow`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import hepgen_ml
from hepgen_ml import EventSample, Generator
from hepgen_ml.events.laws.checks import check_sample

pytestmark = pytest.mark.slow


def laws_hold(sample: EventSample) -> None:
    for law in check_sample(sample.chunks(10_000), sample.run):
        assert law.n_broken == 0, law.text


@pytest.fixture(scope="module")
def top_pairs(
    shipped_sample: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Generator, EventSample]:
    out = tmp_path_factory.mktemp("physics") / "model"
    generator = Generator.train(shipped_sample, out=out, max_time=90, seed=1)
    return generator, generator.sample(20_000, seed=1)


def test_top_pairs_obey_all_laws(top_pairs: tuple[Generator, EventSample]) -> None:
    laws_hold(top_pairs[1])


def test_pythia_accepts_top_pairs(top_pairs: tuple[Generator, EventSample], tmp_path: Path) -> None:
    pytest.importorskip("pythia8mc")
    from hepgen_adapters.pythia import shower_acceptance

    generator, sample = top_pairs
    hepgen_ml.write(sample[:3000], tmp_path / "events.lhe.gz")
    result = shower_acceptance(tmp_path / "events.lhe.gz")
    assert result.n_accepted >= 0.999 * 3000
    assert result.cross_section == pytest.approx(generator.run.cross_section, rel=1e-6)


def test_top_pairs_look_like_the_sample(
    top_pairs: tuple[Generator, EventSample], shipped_sample: Path
) -> None:
    from hepgen_ml.validation.comparison import compare

    result = compare(hepgen_ml.read(shipped_sample), top_pairs[1])
    for group in result.to_dict()["groups"]:
        assert group["auc"]["value"] < 0.56, group


def test_drell_yan(data_dir: Path, tmp_path: Path) -> None:
    """A file with a resonance row and no jets trains with the same command."""
    path = data_dir / "drellyan_train.lhe.gz"
    generator = Generator.train(path, out=tmp_path / "m", max_time=60)
    sample = generator.sample(10_000, seed=2)
    laws_hold(sample)
    z = sample.mass[sample.pdg_id == 23]
    assert len(z) == 10_000
    assert 60 <= z.min() <= z.max() <= 120
    truth = hepgen_ml.read(path)
    expected = truth.mass[truth.pdg_id == 23]
    assert abs(np.median(z) - np.median(expected)) < 1.0


def test_two_jets(data_dir: Path, tmp_path: Path) -> None:
    """79 subprocesses, cuts between jets."""
    path = data_dir / "ttbar2j_train.lhe.gz"
    generator = Generator.train(path, out=tmp_path / "m", max_time=60)
    assert "0.4 <= delta_r(j, j)" in {str(c) for c in generator.process.acceptance.cuts}
    sample = generator.sample(10_000, seed=2)
    laws_hold(sample)
    assert generator.acceptance > 0.9
