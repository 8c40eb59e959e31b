"""Reading LHE files, with pylhe as the oracle."""

from __future__ import annotations

import gzip
import subprocess
import sys
import warnings

import numpy as np
import pylhe
import pytest
from hepgen_adapters.lhe import LHE

from hepgen_ml.events.sample import EventSample, Subrun
from tests.lhe_files import END, EVENT, GOOD, INIT, WEIGHTED, read, written


@pytest.fixture
def make(tmp_path):
    return lambda text, name="a.lhe": written(tmp_path / name, text)


def assert_same_as_pylhe(sample: EventSample, path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = pylhe.LHEFile.fromfile(str(path))
        events = list(file.events)
        init = file.init
    assert len(sample) == len(events)
    info, run = init.initInfo, sample.run
    assert run.beam_pdg_id == (info.beamA, info.beamB)
    assert run.beam_energy == (info.energyA, info.energyB)
    assert run.weight_strategy == info.weightingStrategy
    processes = [Subrun(p.procId, p.xSection, p.error, p.unitWeight) for p in init.procInfo]
    if processes[0].cross_section in (1.0, -1.0):  # placeholders of Sherpa and POWHEG
        assert run.cross_section != processes[0].cross_section
    else:
        assert list(run.processes) == processes
    assert sample.counts.tolist() == [len(e.particles) for e in events]
    ours = {"pdg_id": "id", "energy": "e", "mass": "m"}
    for name, column in sample.particles.items():
        theirs = [getattr(p, ours.get(name, name)) for e in events for p in e.particles]
        assert np.array_equal(column, theirs), name
    ours = {"process_id": "pid", "alpha_qed": "aqed", "alpha_qcd": "aqcd"}
    for name, column in sample.events.items():
        theirs = [getattr(e.eventinfo, ours.get(name, name)) for e in events]
        assert np.array_equal(column, theirs), name
    for name, column in sample.weights.items():
        theirs = [e.weights.get(name, np.nan) for e in events]
        if not np.isnan(theirs).all():
            assert np.array_equal(column, theirs, equal_nan=True), name
    for event in events:
        assert set(event.weights) <= set(sample.weights)


def test_shipped_sample_as_pylhe_reads_it(shipped_sample):
    sample, reader = read(shipped_sample)
    assert_same_as_pylhe(sample, shipped_sample)
    assert len(sample) == 20_000
    assert reader.run.significant_digits == 11
    assert reader.run.generators[0][0] == "MadGraph5_aMC@NLO"
    assert "MadGraph5_aMC@NLO" in reader.run.header
    assert {p.process_id for p in reader.run.processes} == {0, 1}


def test_values(make):
    sample, reader = read(make(GOOD))
    assert len(sample) == 4
    assert sample.px.tolist()[:2] == [0.0, -935.44317]
    assert sample.mass.tolist()[:2] == [0.0, 173.0]
    assert sample.pdg_id.tolist()[:2] == [21, -6]
    assert sample.color2.tolist()[:2] == [502, 502]
    assert sample.scale[0] == 204.8347
    assert sample.alpha_qcd[0] == -1
    assert sample.events["weight"][0] == 1078.6064
    run = reader.run
    assert [p.process_id for p in run.processes] == [0, -7]
    assert run.cross_section == 1070.0
    assert run.weight_strategy == -4
    assert run.generators == (("One & only", "1.2", "please cite"), ("Two", "x", ""))
    assert run.header == "<MGVersion>3.5</MGVersion>"


@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
@pytest.mark.parametrize("name", ["a.lhe", "a.lhe.gz"])
def test_chunks(make, size, name):
    reader = LHE().open(make(GOOD, name))
    for _ in range(2):
        lengths = [len(chunk) for chunk in reader.chunks(size)]
        assert sum(lengths) == 4
        assert all(length == size for length in lengths[:-1])


def test_many_blocks_and_chunks(make):
    path = make(INIT + 20_000 * EVENT + END, "big.lhe.gz")
    sample, _ = read(path, size=777)
    assert len(sample) == 20_000
    assert (sample.px[1::2] == -935.44317).all()
    first = next(iter(LHE().open(path).chunks(10)))
    assert len(first) == 10


def test_line_ends_prologue_comments_and_rubbish(make):
    text = GOOD.replace("</event>\n", "#pdf 1 2 3\n</event>\n<!-- between -->\n# x\n")
    text = "<?xml version='1.0'?>\n" + text.replace("\n", "\r\n") + 1000 * "#rubbish <event>\n"
    assert len(read(make(text))[0]) == 4
    assert len(read(make(GOOD + "x" * 3_000_000))[0]) == 4


def test_gzip_is_recognised_without_its_suffix(make, tmp_path):
    path = tmp_path / "b.lhe"
    path.write_bytes(gzip.compress(GOOD.encode()))
    assert len(read(path)[0]) == 4


def test_weights_scales_and_attributes(make):
    groups = "<initrwgt><weightgroup name='g'><weight id='1001'> muR=2 </weight>"
    groups += "<weight id='a &amp; b'>x &lt; y</weight></weightgroup></initrwgt>"
    other = WEIGHTED.replace("1001", "late").replace('muf="90.1"', "").replace("npLO", "npXX")
    other = other.replace("scales pt_clust_1='1.0D+01'> some text </scales", "scales/")
    text = INIT.replace("</header>", groups + "</header>") + WEIGHTED + EVENT + other + END
    sample, reader = read(make(text))
    run = reader.run
    assert dict(run.weight_names) == {"1001": "muR=2", "a & b": "x < y", "late": ""}
    assert "muR=2" in run.weight_groups
    assert "initrwgt" not in run.header
    assert np.array_equal(sample.weights["1001"], [50, np.nan, np.nan], equal_nan=True)
    assert np.array_equal(sample.weights["a & b"], [-1.5, np.nan, -1.5], equal_nan=True)
    assert np.array_equal(sample.weights["late"], [np.nan, np.nan, 50], equal_nan=True)
    assert np.array_equal(sample.scales["muf"], [90.1, np.nan, np.nan], equal_nan=True)
    assert np.array_equal(sample.scales["pt_clust_1"], [10, np.nan, 10], equal_nan=True)
    assert sample.attributes["npLO"].tolist() == [" -1 ", "", ""]
    assert sample.attributes["npXX"].tolist() == ["", "", " -1 "]
    assert sample.attributes["npNLO"].tolist() == ["1", "", "1"]


def test_compressed_weights_by_position(make):
    groups = "<initrwgt><weight id='x'>1</weight><weight id='y'>2</weight></initrwgt>"
    event = EVENT.replace("</event>", "<weights>\n0.5\n 1.5 2.5D+00</weights>\n</event>")
    sample, _ = read(make(INIT.replace("</header>", groups + "</header>") + event + END))
    assert {k: v.tolist() for k, v in sample.weights.items()} == {
        "x": [0.5],
        "y": [1.5],
        "weights_3": [2.5],
    }


def test_name_met_late_in_the_file(make):
    late = EVENT.replace("</event>", "<rwgt><wgt id='w'>2</wgt></rwgt></event>")
    text = INIT + 9000 * EVENT + late + EVENT + END
    sample, reader = read(make(text), size=8000)
    assert "w" in reader.run.weight_names
    assert np.flatnonzero(sample.weights["w"] == 2).tolist() == [9000]
    assert np.isnan(sample.weights["w"]).sum() == 9001


def test_numbers_only_python_can_decide(make):
    long = "0.1234567890123456789012345678901234567890"
    text = GOOD.replace("1.5 1e2", f"{long} 1.7976931348623157e308").replace(
        "0.2048347E+03", "4.9406564584124654e-324"
    )
    sample, _ = read(make(text))
    assert (sample.pz[1::2] == float(long)).all()
    assert (sample.energy[1::2] == 1.7976931348623157e308).all()
    assert (sample.scale == 5e-324).all()


def test_whole_numbers_written_as_floats(make):
    sample, _ = read(make(GOOD.replace(" 21 -1 0 0 501", " 21.0 -1. 0.0 0 501")))
    assert sample.pdg_id[0] == 21
    assert sample.status[0] == -1


def test_gzip_of_several_members(tmp_path):
    path = tmp_path / "joined.lhe.gz"
    path.write_bytes(b"".join(gzip.compress(t.encode()) for t in (INIT, 2 * EVENT, 2 * EVENT, END)))
    assert len(read(path)[0]) == 4


READERS = [
    "pylhe-testfile-madgraph-2.0.0-wbj.lhe",
    "pylhe-testfile-madgraph-2.2.1-Z-ckkwl.lhe.gz",
    "pylhe-testfile-madgraph-2.2.1-Z-fxfx.lhe.gz",
    "pylhe-testfile-madgraph5-3.5.8-pp_to_jj.lhe.gz",
    "pylhe-testfile-powheg-box-v2-W.lhe",
    "pylhe-testfile-powheg-box-v2-Z.lhe",
    "pylhe-testfile-powheg-box-v2-Zj.lhe",
    "pylhe-testfile-powheg-box-v2-directphoton.lhe",
    "pylhe-testfile-pr180.lhe",
    "pylhe-testfile-pythia-8.3.14-weakbosons.lhe",
    "pylhe-testfile-sherpa-3.0.1-eejjj.lhe",
]


@pytest.mark.parametrize("name", READERS)
def test_files_of_other_programs(data_dir, name):
    path = data_dir / "readers" / name
    sample, reader = read(path)
    assert_same_as_pylhe(sample, path)
    assert reader.run.generators


def test_gibuu_file_without_process_lines(data_dir):
    sample, reader = read(data_dir / "readers" / "pylhe-testfile-pr29.lhe")
    assert len(sample) == 791
    assert reader.run.processes == ()
    assert (sample.status == 0).all()
    assert reader.run.generators[0][0] == "GiBUU"


def test_wbj_file_in_full(data_dir):
    sample, _ = read(data_dir / "readers" / "pylhe-testfile-madgraph-2.0.0-wbj.lhe")
    assert sample.weights["1001"][0] == 50.109
    assert sample.weights["weights_2"][0] == 0.204
    assert sample.scales["newscale"][0] == 90.4
    assert sample.attributes["npLO"][:2].tolist() == [" -1 ", " 2 "]


def test_the_compiler_is_loaded_only_when_a_file_is_opened():
    code = (
        "import sys, hepgen_adapters.lhe; sys.exit('numba' in sys.modules or 'isal' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_declared_weight_is_one_however_events_spell_it(make):
    """Also where the first events, from which names are learned, do not have it."""
    names = {"tab\there": "tab&#9;here", "it's": "it&apos;s", "n" * 300: "n" * 300}
    lines = "".join(f'<weight id="{text}">{k}</weight>' for k, text in enumerate(names.values()))
    text = INIT.replace("</init>", f"<initrwgt>{lines}</initrwgt></init>")
    weights = "".join(f'<wgt id="{text}">{k}.5</wgt>' for k, text in enumerate(names.values()))
    late = EVENT.replace("</event>", f"<rwgt>{weights}</rwgt></event>")
    first = EVENT.replace("</event>", '<rwgt><wgt id="other">1</wgt></rwgt></event>')
    sample, _ = read(make(text + first * 3000 + late * 2 + END))
    assert list(sample.weights) == ["other", *names]
    for k, name in enumerate(names):
        assert np.isnan(sample.weights[name][:3000]).all()
        assert (sample.weights[name][3000:] == k + 0.5).all()


def test_files_that_a_file_names_are_not_read_with_it(make, caplog):
    """The header of LHEF 3 may name files with the events of a run; once, also if read twice."""
    files = '<eventfile name="a-1.plhe" neve="9"/>\n<eventfile name="b"/>\n'
    named = f"<eventfiles>\n{files}</eventfiles>\n</init>"
    path = make(GOOD.replace("</init>", named))
    for _ in range(2):
        sample, _ = read(path)
        assert len(sample) == 4
    assert caplog.text.count("name a-1.plhe, b, whose events are not read") == 1
