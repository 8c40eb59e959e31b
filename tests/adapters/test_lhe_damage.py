"""Everything that can be wrong with an LHE file."""

from __future__ import annotations

import gzip
import zlib

import numpy as np
import pytest
from hepgen_adapters.lhe import LHE

from hepgen_ml.errors import InputError
from tests.lhe_files import END, EVENT, GOOD, INIT, WEIGHTED, read, written


@pytest.fixture
def make(tmp_path):
    return lambda text, name="a.lhe": written(tmp_path / name, text)


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
