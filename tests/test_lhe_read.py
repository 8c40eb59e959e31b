"""Reading LHE files: pylhe as the oracle, and everything that can be wrong with a file."""

from __future__ import annotations

import gzip
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pylhe
import pytest
from hepgen_adapters.lhe import LHE

from hepgen_ml.errors import InputError
from hepgen_ml.events import EventSample, Subrun, concatenate

INIT = """<LesHouchesEvents version="3.0">
<header>
<MGVersion>3.5</MGVersion>
</header>
<init>
2212 2212 6.5e+03 6.5E+03 0 0 247000 247000 -4 2
5.0D+02 7.3e-02 1.0e+03 0
+5.7e+02 3.9e-01 1.0e+03 -7
<generator name='One &amp; only' version='1.2'>please cite</generator>
<generator name="Two" version="x"/>
</init>
"""
PARTICLES = """ 21 -1 0 0 501 502  0.000000000E+00 +0.000E+00  0.85894620092E+03 0.85E+03 0. 0. -1.
 -6  1 1 2 501 502 -.93544317D+03 -0.0  1.5 1e2 173. 0.0000e+00 9
"""
EVENT = "<event>\n 2 0 +1.0786064e+03 0.2048347E+03 0.7546771E-02 -1\n" + PARTICLES + "</event>\n"
END = "</LesHouchesEvents>\n"
GOOD = INIT + 4 * EVENT + END


def read(path, skip_bad=False, size=1000):
    reader = LHE().open(Path(path), skip_bad=skip_bad)
    return concatenate(list(reader.chunks(size)), reader.run), reader


@pytest.fixture
def make(tmp_path):
    def write(text, name="a.lhe"):
        path = tmp_path / name
        data = text if isinstance(text, bytes) else text.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return write


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


WEIGHTED = f"""<event npLO=" -1 " npNLO='1'>
 2 0 1. 2. 3. 4.
{PARTICLES}#aMCatNLO 1  6  2
#rwgt            1          97   3.1447523227350588E-002
<mgrwt>
<rscale>  2 0.24387465E+02</rscale>
<pdfrwt beam="1">  1       21 0.10425685E-01 0.24387465E+02</pdfrwt>
</mgrwt>
<rwgt>
<wgt id="1001"> 0.5E+02 </wgt>
<wgt id='a &amp; b'>-1.5</wgt>
</rwgt>
<scales muf="90.1" pt_clust_1='1.0D+01'> some text </scales>
</event>
"""


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


def nth(old, new, n=2):
    """The good file with the n-th occurrence of a text replaced."""
    parts = GOOD.split(old)
    return old.join(parts[:n]) + new + old.join(parts[n:])


BAD_EVENTS = {
    "nan": (nth("173.", "nan"), "'nan' is not finite"),
    "inf": (nth("1.5 1e2", "1.5 -Infinity"), "not finite"),
    "overflow": (nth("1e2", "1e999"), "not finite"),
    "token": (nth("173.", "abc"), "'abc' is not a number"),
    "stars": (nth("173.", "*****"), "not a number"),
    "glued": (nth("1e2 173.", "1e2-173."), "not a number|too few"),
    "too few columns": (nth("0.0000e+00 9\n", "9\n"), "too few numbers"),
    "too many columns": (nth("0.0000e+00 9\n", "0.0 9 1\n"), "too many numbers"),
    "fewer particles": (nth(" 2 0 +1.07", " 3 0 +1.07"), "3 particles announced but 2 found"),
    "more particles": (nth(" 2 0 +1.07", " 1 0 +1.07"), "more particles than announced"),
    "negative count": (nth(" 2 0 +1.07", " -2 0 +1.07"), "impossible"),
    "bomb": (nth(" 2 0 +1.07", " 1000000000 0 +1.07"), "impossible"),
    "event line": (nth("0.7546771E-02 -1\n", "\n"), "too few numbers"),
    "mothers": (nth("1 2 501", "1 3 501"), "mother of particle 2"),
    "negative mothers": (nth("1 2 501", "-1 2 501"), "mother of particle 2"),
    "unclosed": (nth("</event>\n", ""), "no closing </event>"),
    "tag": (nth("</event>", "<rwgt><wgt>1</wgt></rwgt></event>"), "malformed"),
    "weight": (nth("</event>", "<wgt id='1'>nan</wgt></event>"), "not finite"),
    "scale": (nth("</event>", "<scales mu='x'/></event>"), "not a number"),
    "attribute": (nth("<event>", "<event a='"), "malformed|too few"),
    "big integer": (nth(" -6 ", " -99999999999 "), "not a number"),
    "status": (nth(" -6  1", " -6  1.5"), "not a number"),
}


@pytest.mark.parametrize("case", BAD_EVENTS)
def test_bad_event(make, case):
    text, message = BAD_EVENTS[case]
    assert text != GOOD
    path = make(text)
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    error = caught.value
    assert error.path == path
    assert error.event == 2
    assert error.remedy
    assert "\n" not in str(error)
    assert error.line is not None
    start = text[: text.index("<event", text.index("<event") + 1)].count("\n") + 1
    assert start <= error.line <= start + 6


@pytest.mark.parametrize("case", BAD_EVENTS)
def test_bad_event_skipped(make, case):
    sample, reader = read(make(BAD_EVENTS[case][0]), skip_bad=True)
    assert len(sample) == 3
    assert reader.n_skipped == 1
    assert reader.skipped[0].event == 2
    assert sample.px.tolist() == 3 * [0.0, -935.44317]


def test_more_bad_than_good(make):
    bad = EVENT.replace("173.", "abc")
    with pytest.raises(InputError, match="3 bad events against 2 good ones"):
        read(make(INIT + 3 * bad + 2 * EVENT + END), skip_bad=True)
    sample, reader = read(make(INIT + 20 * (bad + EVENT) + END), skip_bad=True)
    assert (len(sample), reader.n_skipped) == (20, 20)
    assert len(reader.skipped) == 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (b"\x00\x01binary\xff" * 100, "not an LHE file"),
        ("<html>" + "x" * 200_000, "not an LHE file"),
        (GOOD.replace('"3.0"', '"4.0"'), "version '4.0' is unknown"),
        (GOOD.replace(' version="3.0"', ""), "version '' is unknown"),
        (INIT + END, "holds no events"),
        (INIT[:-20], "ends before </init>"),
        (GOOD.replace("-4 2\n", "-4 3\n"), "announces 3 processes"),
        (GOOD.replace("6.5E+03", "six"), "not a number"),
        (GOOD.replace("6.5E+03", "inf"), "not finite"),
        (GOOD.replace("247000 -4 2\n", "\n"), "fewer than 10"),
        (INIT + 3 * EVENT, "truncated"),
        (INIT + 3 * EVENT + EVENT[:80], "truncated"),
        (INIT + EVENT[:80], "truncated"),
    ],
)
@pytest.mark.parametrize("name", ["a.lhe", "a.lhe.gz"])
def test_bad_file(make, text, message, name):
    path = make(text, name)
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert caught.value.path == path
    assert "\n" not in str(caught.value)


def test_truncated_text_keeps_whole_events_on_request(make):
    for text in (INIT + 3 * EVENT, INIT + 3 * EVENT + EVENT[:80]):
        sample, reader = read(make(text), skip_bad=True)
        assert len(sample) == 3
        assert reader.n_skipped == 1


@pytest.mark.parametrize("part", [0.3, 0.6, 0.99])
def test_truncated_gzip(shipped_sample, tmp_path, part):
    data = shipped_sample.read_bytes()
    path = tmp_path / "cut.lhe.gz"
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(InputError, match="truncated") as caught:
        read(path)
    assert caught.value.path == path
    sample, reader = read(path, skip_bad=True)
    text = zlib.decompressobj(31).decompress(path.read_bytes())
    assert len(sample) == text.count(b"</event>")
    assert reader.n_skipped == 1
    whole, _ = read(shipped_sample)
    assert np.array_equal(sample.px, whole.px[: len(sample.px)])


@pytest.mark.parametrize("skip_bad", [False, True])
def test_corrupt_gzip(shipped_sample, tmp_path, skip_bad):
    data = bytearray(shipped_sample.read_bytes())
    for place in (len(data) // 2, len(data) - 6):
        broken = data.copy()
        for i in range(4):
            broken[place + i] ^= 0x5A
        path = tmp_path / "broken.lhe.gz"
        path.write_bytes(broken)
        with pytest.raises(InputError):
            read(path, skip_bad=skip_bad)


def test_gzip_of_several_members(tmp_path):
    path = tmp_path / "joined.lhe.gz"
    path.write_bytes(b"".join(gzip.compress(t.encode()) for t in (INIT, 2 * EVENT, 2 * EVENT, END)))
    assert len(read(path)[0]) == 4


def test_giant_event_is_refused(tmp_path):
    path = tmp_path / "giant.lhe.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write((INIT + EVENT + "<event>\n").encode())
        for _ in range(80):
            file.write(b" " * (1 << 20))
    with pytest.raises(InputError, match="larger than 64 MB"):
        read(path)


def test_missing_and_unreadable(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        LHE().open(tmp_path / "none.lhe")
    with pytest.raises(InputError, match="cannot be read"):
        LHE().open(tmp_path)


def test_random_damage_never_escapes(make):
    rng = np.random.default_rng(8)
    good = (INIT + WEIGHTED + 3 * EVENT + END).encode()
    for _ in range(300):
        data = bytearray(good)
        for place in rng.integers(len(INIT), len(data), 3):
            data[place] = rng.integers(0, 256)
        path = make(bytes(data))
        for skip_bad in (False, True):
            try:
                sample, _ = read(path, skip_bad=skip_bad)
            except InputError:
                continue
            assert np.isfinite(sample.momentum).all()


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
