"""HepMC3 files that no library should see: every line is checked first."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hepgen_adapters.hepmc import HepMC

from hepgen_ml.errors import InputError
from hepgen_ml.events import formats
from hepgen_ml.events.conversion import convert
from hepgen_ml.events.sample import concatenate

START = "HepMC::Version 3.02.05\nHepMC::Asciiv3-START_EVENT_LISTING\n"
END = "HepMC::Asciiv3-END_EVENT_LISTING\n"
TOOL = "T x\\|1\\|c\n"


def event(number: int = 0, weights: str = "1", attributes: str = "", **lines: str) -> str:
    text = {
        "E": f"E {number} 1 3\n", "U": "U GEV MM\n", "W": f"W {weights}\n", "A": attributes,
        "P1": "P 1 0 2212 0 0 6500 6500 0 4\n", "P2": "P 2 0 2212 0 0 -6500 6500 0 4\n",
        "V": "V -1 0 [1,2]\n", "P3": "P 3 -1 25 0 0 0 13000 13000 1\n",
    }  # fmt: skip
    return "".join((text | lines).values())


def opened(tmp_path: Path, text: str | bytes):
    path = tmp_path / "a.hepmc"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return HepMC().open(path)


def read(tmp_path: Path, *events: str, head: str = TOOL):
    reader = opened(tmp_path, START + head + "".join(events) + END)
    sample = concatenate(list(reader.chunks()), reader.run)
    reader.close()
    return sample


def test_good_events(tmp_path: Path) -> None:
    assert len(read(tmp_path, event(), event(1, V="V -1 0 [1,2] @ 0 0 1e-3 0\n"))) == 2


BAD = {
    "attribute of no particle": event(attributes="A 999 flow1 501\n"),
    "attribute of a later event": event(attributes="A 6 flow1 501\n") + event(1),
    "attribute of no vertex": event(attributes="A -2 x 1\n"),
    "attribute without a name": event(attributes="A 1\n"),
    "attribute of a word": event(attributes="A one x 1\n"),
    "backslash": event(attributes="A 0 x y\\\n"),
    "backslash inside": event(attributes="A 0 x \\y\n"),
    "too many particles": event(P3="P 3 -1 25 0 0 0 13000 13000 1\nP 4 -1 1 0 0 0 1 0 1\n"),
    "too few particles": event(P3=""),
    "a billion particles": event(E="E 0 1 1000000000\n"),
    "negative particles": event(E="E 0 1 -3\n"),
    "too many vertices": event(V="V -1 0 [1,2]\nV -2 0 [1]\n"),
    "order": event(P1="P 2 0 2212 0 0 6500 6500 0 4\n"),
    "mother is itself": event(P3="P 3 3 25 0 0 0 13000 13000 1\n"),
    "mother comes later": event(P1="P 1 3 2212 0 0 6500 6500 0 4\n"),
    "mother is no vertex": event(P3="P 3 -9 25 0 0 0 13000 13000 1\n"),
    "vertex of no particle": event(V="V -1 0 [1,7]\n"),
    "vertex is not closed": event(V="V -1 0 [1,2\n"),
    "vertex without list": event(V="V -1 0\n"),
    "vertex number": event(V="V 1 0 [1,2]\n"),
    "few numbers": event(P3="P 3 -1 25 0 0 0 13000\n"),
    "many numbers": event(P3="P 3 -1 25 0 0 0 13000 13000 1 7\n"),
    "word": event(P3="P 3 -1 25 0 0 zero 13000 13000 1\n"),
    "huge id": event(P3="P 3 -1 99999999999 0 0 0 13000 13000 1\n"),
    "a long line": event(attributes="A 0 x " + 262_144 * "y" + "\n"),
    "units": event(U="U TEV MM\n"),
    "weights": event(weights="one"),
    "unknown line": event(attributes="Q 1 2\n"),
    "zero": event(attributes="A 0 x \0\n"),
    "particle outside": "P 1 0 2212 0 0 6500 6500 0 4\n" + event(),
    "tool inside": event(attributes=TOOL),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_lines_are_named(tmp_path: Path, case: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, BAD[case])
    assert caught.value.path == tmp_path / "a.hepmc"
    assert caught.value.line is not None


@pytest.mark.parametrize("head", ["T x\\\n", "T x\\|1\\|c\\\n", "A x \\n\n", "W a\\b\n"])
def test_bad_texts_of_the_run(tmp_path: Path, head: str) -> None:
    with pytest.raises(InputError, match="backslash"):
        read(tmp_path, event(), head=head)


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    for text in (START + "T x\\|1\\|caf\xe9\n" + event() + END,
                 START + event(attributes="A 0 note caf\xe9\n") + END):  # fmt: skip
        with pytest.raises(InputError, match="UTF-8"):
            opened(tmp_path, text.encode("latin-1"))


def test_joined_listings_are_refused(tmp_path: Path) -> None:
    text = START + event() + END
    with pytest.raises(InputError, match="joined"):
        opened(tmp_path, text + text)


def test_blocks_end_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """State goes from block to block, wherever these end."""
    monkeypatch.setattr("hepgen_adapters.hepmc.read._BLOCK", 150)
    events = [event(i, f"{1 + i % 3}", f"A 0 signal_process_id {i % 2}\n") for i in range(30)]
    sample = read(tmp_path, *events, head=TOOL)
    assert len(sample) == 30
    with pytest.raises(InputError) as caught:
        read(tmp_path, *events, event(attributes="A 9 x 1\n"))
    assert caught.value.event == 31


def test_weights_without_names_are_numbered(tmp_path: Path) -> None:
    sample = read(tmp_path, event(0, "1.0 1.1 0.9"), event(1, "1.0 1.2 0.8"))
    assert sample.weight.tolist() == [1, 1]
    assert {k: v.tolist() for k, v in sample.weights.items()} == {"1": [1.1, 1.2], "2": [0.9, 0.8]}


@pytest.mark.parametrize(
    ("weights", "strategy"),
    [(["1", "2.5"], -4), (["1", "-1"], -3), (["1.0000000000000000000000e+00"], -3),
     (["1", "2.5000000000000000000000e+00"], -4)],
)  # fmt: skip
def test_all_weights_tell_the_strategy(tmp_path: Path, weights: list[str], strategy: int) -> None:
    events = [event(i, w) for i, w in enumerate(weights)]
    assert read(tmp_path, *events).run.weight_strategy == strategy


def test_weights_that_are_no_numbers_do_not_cost_the_event(tmp_path: Path) -> None:
    """HepMC3 writes nan and inf, and cannot read them."""
    good = [event(number, "1 2 3") for number in range(3000)]
    events = [*good, event(3000, "1 nan 3"), event(3001, "1 2 -INF"), *good]
    sample = read(tmp_path, *events, head="W a b nan\n")
    assert len(sample) == len(events)
    assert np.flatnonzero(np.isnan(sample.weights["b"])).tolist() == [3000]
    assert np.flatnonzero(np.isnan(sample.weights["nan"])).tolist() == [3001]
    text = START + TOOL + "".join([*good[:5], event(6, "nan"), *good[:5]]).replace("1 2 3", "1")
    with pytest.raises(InputError, match="event 6: a number is not finite"):
        list(opened(tmp_path, text + END).chunks())


def test_the_library_says_nothing_of_its_own(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    read(tmp_path, event(), head="N a\n")
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_no_cross_section_is_not_zero(tmp_path: Path) -> None:
    assert math.isnan(read(tmp_path, event()).run.cross_section)
    stated = event(attributes="A 0 GenCrossSection 0 0 -1 -1\n")
    assert math.isnan(read(tmp_path, stated).run.cross_section)


NAMED = "W Default\\|up\\|down\n" + TOOL


def with_cross_sections(text: str) -> list[str]:
    line = f"A 0 GenCrossSection {text}\n"
    return [event(0, "1 1.1 0.9", "A 0 GenCrossSection 1 1 5 5 2 2 3 3\n"),
            event(1, "1 1.2 0.8", line)]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [("10 0.5 7 9 11 0.6 9 0.4", {"up": (11, 0.6), "down": (9, 0.4)}),
     ("10 0.5 -1 -1 11 0.6 0 0", {"up": (11, 0.6)}),
     ("10 0.5 -1 -1 11 0.6 nan 1", {"up": (11, 0.6)}),
     ("10 0.5 -1 -1 10 0.5 10 0.5", {}),
     ("10 0.5 -1 -1 11 0.6", {}),
     ("10 0.5 -1 -1", {})],
)  # fmt: skip
def test_cross_sections_of_weights(
    tmp_path: Path, text: str, expected: dict[str, tuple[float, float]]
) -> None:
    """Those of the last event, where every weight has its own."""
    run = read(tmp_path, *with_cross_sections(text), head=NAMED).run
    assert run.cross_section == pytest.approx(10)
    assert run.weight_cross_sections == expected


def test_cross_sections_of_weights_are_written(tmp_path: Path) -> None:
    """Other programs find them where HepMC3 has them; LHE, which has no place, says so."""
    pyhepmc = pytest.importorskip("pyhepmc")
    opened(tmp_path, START + NAMED + "".join(with_cross_sections("10 0.5 7 9 11 0.6 9 0.4")) + END)
    out = {s: tmp_path / f"b{s}" for s in (".hepmc", ".root", ".lhe")}
    done = convert(tmp_path / "a.hepmc", list(out.values()))
    stated = {"up": (11, 0.6), "down": (9, 0.4)}
    for suffix in (".hepmc", ".root"):
        assert formats.read(out[suffix]).run.weight_cross_sections == stated
    assert "cross sections of named weights" in done.lost[out[".lhe"]]
    with pyhepmc.open(out[".hepmc"]) as file:
        for found in file:
            xs = found.cross_section
            assert [xs.xsec(i) for i in range(3)] == [10, 11, 9]
            assert [xs.xsec_err(i) for i in range(3)] == [0.5, 0.6, 0.4]


def test_processes_have_their_share_of_the_cross_section(tmp_path: Path) -> None:
    events = [
        event(i, w, f"A 0 GenCrossSection {10 + i} 0.5 -1 -1\nA 0 signal_process_id {p}\n")
        for i, (p, w) in enumerate([(1, "1"), (0, "2"), (1, "1"), (1, "1"), (7, "5")])
    ]
    run = read(tmp_path, *events).run
    assert [p.process_id for p in run.processes] == [0, 1, 7]
    assert np.allclose([p.cross_section for p in run.processes], 14 * np.array([0.2, 0.3, 0.5]))
    assert run.cross_section_error == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("row", "showered"),
    [
        ("P 3 -1 25 0 0 0 13000 13000 1\n", False),
        ("P 3 -1 211 0 0 0 13000 13000 1\n", True),
        ("P 3 -1 1000010020 0 0 0 13000 13000 1\n", True),
        ("P 3 -1 2203 0 0 0 13000 13000 2\n", True),
        ("P 3 -1 21 0 0 0 13000 13000 2\n", True),
        ("P 3 -1 24 0 0 0 13000 13000 2\n", False),
        ("P 3 -1 92 0 0 0 13000 13000 2\n", True),
        ("P 3 -1 25 0 0 0 13000 13000 62\n", True),
    ],
)
def test_showered_events_are_recognised(tmp_path: Path, row: str, showered: bool) -> None:
    """Also those of programs that keep to the statuses 1, 2 and 4."""
    reader = opened(tmp_path, START + TOOL + event(P3=row) + END)
    list(reader.chunks())
    assert any("intermediate" in text for text in reader.left_out) == showered


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that may end")
def test_random_damage_never_ends_the_process(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    events = [event(i, "1", "A 1 flow1 501\n") for i in range(4)]
    good = (START + TOOL + "".join(events) + END).encode()
    child = os.fork()
    if child == 0:
        code = 0
        try:
            for _ in range(400):
                text = bytearray(good)
                for _ in range(int(rng.integers(1, 6))):
                    place = int(rng.integers(len(text)))
                    if rng.random() < 0.5:
                        text[place] = int(rng.integers(256))
                    else:
                        del text[place : place + int(rng.integers(1, 30))]
                with contextlib.suppress(InputError):
                    list(opened(tmp_path, bytes(text)).chunks())
        except BaseException:
            code = 1
        os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
