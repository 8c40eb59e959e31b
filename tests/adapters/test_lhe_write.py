"""Writing LHE files: exact round trips, other readers, weight strategies, harmless headers."""

from __future__ import annotations

import gzip
import logging
import warnings
from pathlib import Path

import numpy as np
import pylhe
import pytest
from hepgen_adapters.lhe import LHE
from hepgen_adapters.lhe.header import harmless

from hepgen_ml.errors import OutputError, UsageError
from hepgen_ml.events.sample import EventSample, RunInfo, Subrun, concatenate

RUN = RunInfo(
    beam_energy=(6500.0, 6500.0),
    weight_strategy=-4,
    processes=(Subrun(0, 1.5, 0.1, 3.0), Subrun(7, 0.5, 0.01, 2.0)),
    generators=(("First & only", '1."2', "text <b>"),),
    header="<MGVersion>3.5</MGVersion>\nseed 3",
)


def read(path):
    reader = LHE().open(Path(path))
    return concatenate(list(reader.chunks()), reader.run)


def write(sample, path, run=None, size=1000, **options):
    writer = LHE().create(Path(path), run or sample.run, len(sample), **options)
    for chunk in sample.chunks(size):
        writer.write(chunk)
    writer.close()
    return Path(path)


def make_sample(run=RUN, n=50, weight=None, **groups):
    rng = np.random.default_rng(1)
    counts = rng.integers(1, 7, n)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    rows = offsets[-1]
    bits = rng.integers(0, 2**64, (7, rows), dtype=np.uint64).view(np.float64)
    floats = np.where(np.isfinite(bits), bits, 0.0)
    floats[:, :8] = [0.0, -0.0, 5e-324, -1e-310, 1.7976931348623157e308, 1.0, -9.0, 173.0]
    names = ["px", "py", "pz", "energy", "mass", "lifetime", "spin"]
    particles = dict(zip(names, floats, strict=True))
    particles["pdg_id"] = rng.integers(-(2**31) + 1, 2**31, rows)
    particles["status"] = rng.choice([-1, 1, 2], rows)
    particles["mother1"] = particles["mother2"] = rng.integers(0, 2, rows)
    particles["color1"], particles["color2"] = rng.integers(0, 600, (2, rows))
    events = {
        "process_id": rng.choice([0, 7], n),
        "weight": rng.normal(2, 1, n) if weight is None else weight,
        "scale": rng.exponential(100, n),
        "alpha_qed": np.full(n, 1 / 128),
        "alpha_qcd": rng.random(n),
    }
    return EventSample(run, offsets, particles, events, **groups)


def assert_same(a, b):
    for group in ("particles", "events", "weights", "scales"):
        theirs = getattr(b, group)
        for name, column in getattr(a, group).items():
            assert column.dtype == theirs[name].dtype
            if column.dtype == np.float64:
                nan = np.isnan(column)
                assert np.array_equal(nan, np.isnan(theirs[name]))
                column, theirs[name] = column[~nan], theirs[name][~nan]
                assert np.array_equal(column.view(np.uint64), theirs[name].view(np.uint64)), name
            assert np.array_equal(column, theirs[name]), name
    for name, column in a.attributes.items():
        assert np.array_equal(column, b.attributes[name])
    assert np.array_equal(a.offsets, b.offsets)


GROUPS = {
    "weights": {
        "mu=2": np.where(np.arange(50) % 3, np.linspace(-1, 1, 50), np.nan),
        "a & <b> \"'": np.linspace(1, 2, 50) / 3,
    },
    "scales": {"muf": np.linspace(90, 91, 50), "pt_1": np.where(np.arange(50) % 2, 0.1, np.nan)},
    "attributes": {"npLO": np.array(["1", "", " -1 ", "<&'\"", "é"] * 10)},
}


@pytest.mark.parametrize("suffix", [".lhe", ".lhe.gz"])
@pytest.mark.parametrize("groups", [{}, GROUPS], ids=["plain", "everything"])
def test_round_trip_is_exact(tmp_path, suffix, groups):
    names = dict.fromkeys(groups.get("weights", {}), "some & text")
    sample = make_sample(RUN.with_(weight_names=names), **groups)
    again = read(write(sample, tmp_path / f"a{suffix}", size=7))
    assert_same(sample, again)
    assert again.run == sample.run.with_(
        weight_groups=again.run.weight_groups, significant_digits=17
    )


def test_shipped_sample_round_trip(shipped_sample, tmp_path):
    sample = read(shipped_sample)
    again = read(write(sample, tmp_path / "a.lhe.gz", size=6000))
    assert_same(sample, again)
    assert again.run == sample.run.with_(significant_digits=again.run.significant_digits)


def test_same_sample_same_bytes(tmp_path):
    sample = make_sample(**GROUPS)
    for suffix in (".lhe", ".lhe.gz"):
        one = write(sample, tmp_path / f"one{suffix}")
        two = write(sample, tmp_path / f"two{suffix}", size=3)
        if suffix == ".lhe":
            assert one.read_bytes() == two.read_bytes()
        again = write(sample, tmp_path / f"again{suffix}")
        assert one.read_bytes() == again.read_bytes()
    assert (
        gzip.decompress((tmp_path / "one.lhe.gz").read_bytes())
        == (tmp_path / "one.lhe").read_bytes()
    )


def test_shape_of_the_file(tmp_path):
    text = write(make_sample(), tmp_path / "a.lhe").read_text()
    assert text.startswith('<LesHouchesEvents version="3.0">\n<header>\n')
    assert text.endswith("</event>\n</LesHouchesEvents>\n")
    assert text.count("<event>\n") == 50
    assert "rwgt" not in text
    assert "scales" not in text


def test_pylhe_reads_it(tmp_path):
    sample = make_sample(**GROUPS)
    for suffix in (".lhe", ".lhe.gz"):
        path = write(sample, tmp_path / f"a{suffix}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file = pylhe.LHEFile.fromfile(str(path))
            events = list(file.events)
        assert [e.eventinfo.weight for e in events] == sample.weight.tolist()
        assert [p.e for e in events for p in e.particles] == sample.energy.tolist()
        assert [p.id for e in events for p in e.particles] == sample.pdg_id.tolist()
        for name, column in sample.weights.items():
            got = [e.weights.get(name, np.nan) for e in events]
            assert np.array_equal(got, column, equal_nan=True)
        assert file.init.initInfo.weightingStrategy == -4
        assert [p.procId for p in file.init.procInfo] == [0, 7]


def pythia_reads(path, n_events, sigma, *, weights=None):
    pythia8 = pytest.importorskip("pythia8mc")
    pythia = pythia8.Pythia("", False)
    for setting in (
        "Print:quiet = on",
        "Beams:frameType = 4",
        f"Beams:LHEF = {path}",
        "PartonLevel:all = off",
        "HadronLevel:all = off",
    ):
        assert pythia.readString(setting)
    assert pythia.init()
    seen = []
    while pythia.next():
        seen.append(pythia.infoPython().weight())
    assert pythia.infoPython().atEndOfFile()
    assert len(seen) == n_events
    assert pythia.infoPython().sigmaGen() * 1e9 == pytest.approx(sigma, rel=1e-9)
    if weights is not None:
        assert seen == pytest.approx(weights)


@pytest.mark.parametrize("suffix", [".lhe", ".lhe.gz"])
def test_pythia_reads_it(shipped_sample, tmp_path, suffix):
    sample = read(shipped_sample)[::40]
    path = write(sample, tmp_path / f"a{suffix}")
    pythia_reads(path, len(sample), sample.weight.mean())
    run = sample.run.with_(weight_strategy=3)
    path = write(sample, tmp_path / f"b{suffix}", run=run)
    pythia_reads(path, len(sample), run.cross_section)


def test_pythia_reads_named_weights_scales_and_attributes(shipped_sample, tmp_path):
    sample = read(shipped_sample)[:300]
    n = len(sample)
    weight = sample.weight * np.linspace(0.5, 1.5, n)
    sample = EventSample(
        sample.run.with_(weight_strategy=4),
        sample.offsets,
        sample.particles,
        {**sample.events, "weight": weight},
        weights={"up": weight * 1.1, "down": weight * 0.9},
        scales={"muf": np.full(n, 91.0)},
        attributes={"npLO": np.full(n, "1")},
    )
    path = write(sample, tmp_path / "a.lhe.gz")
    pythia_reads(path, n, weight.mean())


def test_strategy_three_needs_equal_weights(tmp_path):
    run = RUN.with_(weight_strategy=3)
    again = read(write(make_sample(run, weight=np.full(50, 0.32)), tmp_path / "a.lhe"))
    assert (again.weight == 1.0).all()
    assert again.run.weight_strategy == 3
    assert [p.max_weight for p in again.run.processes] == [1.0, 1.0]
    signs = np.where(np.arange(50) % 4, 1.0, -1.0)
    for strategy in (3, -3):
        run = RUN.with_(weight_strategy=strategy)
        again = read(write(make_sample(run, weight=signs), tmp_path / "b.lhe"))
        assert np.array_equal(again.weight, signs)
        again = read(write(make_sample(run, weight=0.25 * signs), tmp_path / "b.lhe"))
        assert np.array_equal(again.weight, signs)
    for weight in (np.linspace(1, 2, 50), np.zeros(50)):
        with pytest.raises(OutputError, match="strategy") as caught:
            write(make_sample(run, weight=weight), tmp_path / "c.lhe")
        assert caught.value.event is not None
        assert "-4" in caught.value.remedy


def test_strategy_three_keeps_ratios_of_named_weights(tmp_path):
    run = RUN.with_(weight_strategy=3)
    sample = make_sample(run, weight=np.full(50, 0.5), weights={"up": np.full(50, 0.75)})
    again = read(write(sample, tmp_path / "a.lhe"))
    assert (again.weights["up"] == 1.5).all()


def test_strategy_four_becomes_minus_four_and_warns_of_a_wrong_mean(tmp_path, caplog):
    run = RUN.with_(weight_strategy=4)
    with caplog.at_level(logging.WARNING):
        again = read(write(make_sample(run), tmp_path / "a.lhe"))
    assert again.run.weight_strategy == -4
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        write(make_sample(run, weight=np.ones(50)), tmp_path / "b.lhe")
    assert "mean weight is 1" in caplog.text


@pytest.mark.parametrize("name", ["px", "energy", "mass", "spin"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_nobody_reads_are_refused(tmp_path, name, value):
    sample = make_sample()
    sample.particles[name][sample.offsets[30]] = value
    with pytest.raises(OutputError, match=f"{name} is not finite") as caught:
        write(sample, tmp_path / "a.lhe", size=20)
    assert caught.value.event == 31


def test_other_refusals(tmp_path):
    sample = make_sample()
    path = tmp_path / "a.lhe"
    few = {"px": sample.px, "pdg_id": sample.pdg_id}
    with pytest.raises(OutputError, match=r"reconstructed objects .*\.root"):
        write(EventSample(RUN, sample.offsets, few), path)
    few["status"] = sample.status
    with pytest.raises(OutputError, match="lacks"):
        write(EventSample(RUN, sample.offsets, few), path)
    with pytest.raises(OutputError, match="scale name"):
        write(make_sample(scales={"a b": np.ones(50)}), path)
    with pytest.raises(OutputError, match="infinite"):
        write(make_sample(weights={"a": np.full(50, np.inf)}), path)
    writer = LHE().create(path, RUN, 100)
    writer.write(sample)
    with pytest.raises(OutputError, match="differ"):
        writer.write(make_sample(weights={"a": np.ones(50)}))
    writer.close()
    with pytest.raises(UsageError, match="compression"):
        LHE().create(path, RUN, 1, compression=9)


def test_missing_columns_get_the_values_of_the_accord(tmp_path):
    full = make_sample(RUN.with_(processes=RUN.processes[1:]), weight=np.full(50, 0.5))
    keep = ["px", "py", "pz", "energy", "mass", "pdg_id", "status"]
    particles = {name: full.particles[name] for name in keep}
    again = read(write(EventSample(full.run, full.offsets, particles), tmp_path / "a.lhe"))
    assert (again.spin == 9).all()
    assert (again.alpha_qcd == -1).all()
    assert (again.process_id == 7).all()
    assert (again.weight == 1).all()


def test_no_room_on_the_disk():
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    sample = make_sample(n=5000)
    writer = LHE().create(Path("/dev/full"), RUN, 10**6)
    with pytest.raises(OSError, match="space"):  # noqa: PT012
        for _ in range(100):
            writer.write(sample)
        writer.close()


def test_empty_file_is_closed_properly(tmp_path):
    path = tmp_path / "a.lhe"
    writer = LHE().create(path, RUN, 0)
    writer.close()
    writer.close()
    assert path.read_text().endswith("</init>\n</LesHouchesEvents>\n")


@pytest.mark.parametrize(
    "header",
    [
        "plain text",
        "a < b & c",
        "</header><init>\n1 2\n</init><event>",
        "<!-- open",
        "</LesHouchesEvents>",
        "<!-- <event> in a comment -->",
        "<initrwgt>\n<weight id='x'>y</weight></initrwgt>",
        "control \x00\x07 and é",
        "<a>unclosed",
        "]]> <![CDATA[ x",
    ],
)
def test_headers_cannot_break_the_file(tmp_path, header):
    sample = make_sample(RUN.with_(header=header))
    path = write(sample, tmp_path / "a.lhe")
    again = read(path)
    assert_same(sample, again)
    assert harmless(again.run.header) == again.run.header
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(list(pylhe.LHEFile.fromfile(str(path)).events)) == 50


def test_header_of_a_generator_survives(shipped_sample):
    header = LHE().open(shipped_sample).run.header
    assert "<MG5ProcCard>" in header
    assert harmless(header) == header


@pytest.mark.parametrize(
    "name",
    [
        "pylhe-testfile-madgraph-2.0.0-wbj.lhe",
        "pylhe-testfile-madgraph-2.2.1-Z-fxfx.lhe.gz",
        "pylhe-testfile-madgraph5-3.5.8-pp_to_jj.lhe.gz",
        "pylhe-testfile-powheg-box-v2-directphoton.lhe",
        "pylhe-testfile-pr180.lhe",
    ],
)
def test_files_of_other_programs_round_trip(data_dir, tmp_path, name):
    sample = read(data_dir / "readers" / name)
    again = read(write(sample, tmp_path / "a.lhe.gz"))
    assert_same(sample, again)
    assert again.run.weight_names == sample.run.weight_names
    assert again.run.processes == sample.run.processes


def test_events_without_particles_are_named(tmp_path, caplog) -> None:
    """Programs end at them."""
    sample = make_sample()
    counts = np.where(np.arange(len(sample)) == 30, 0, sample.counts)
    rows = np.repeat(np.arange(len(sample)) != 30, sample.counts)
    some = EventSample(
        sample.run, np.concatenate([[0], np.cumsum(counts)]),
        {name: column[rows] for name, column in sample.particles.items()}, sample.events,
    )  # fmt: skip
    write(some, tmp_path / "a.lhe", size=20)
    assert caplog.text.count("no particles") == 1
    assert "a.lhe: event 31 has no particles" in caplog.text
