"""Joined LHE files, comments, declarations of weights: nothing is lost or mistaken."""

from __future__ import annotations

import contextlib
import gzip
import time
from pathlib import Path

import numpy as np
import pytest

from hepgen_ml.errors import InputError
from tests.lhe_files import END, EVENT, GOOD, INIT, read, written

OTHER = INIT.replace("5.0D+02", "6.0D+02")


def init_of(text: str) -> str:
    return INIT.replace("</init>", f"{text}\n</init>")


@pytest.fixture
def make(tmp_path: Path):
    return lambda text, name="a.lhe": written(tmp_path / name, text)


BETWEEN = ["", "\n", "# x\n", " " * 100, "\n" * 3_000_000, "x" * 2_500_000]


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("n", [1, 700])
def test_joined_files_are_read_whole(make, between: str, n: int) -> None:
    one = INIT + n * EVENT + END
    path = make(one + between + one + between + one)
    assert len(read(path)[0]) == 3 * n


def test_what_is_not_read_is_said_of_events_only(make) -> None:
    """The header of a joined file is read like that of the first; it is no part of an event."""
    odd = EVENT.replace("</event>", "<odd>1</odd>\n</event>")
    assert read(make(GOOD + GOOD))[1].left_out == read(make(GOOD, "b.lhe"))[1].left_out == []
    assert read(make(GOOD + INIT + odd + END))[1].left_out == ["other tags in events: <odd>"]


def test_joined_gzip_members(tmp_path: Path) -> None:
    path = tmp_path / "a.lhe.gz"
    path.write_bytes(3 * gzip.compress(GOOD.encode()))
    assert len(read(path)[0]) == 12


def test_joined_files_of_other_runs_are_refused(make) -> None:
    assert OTHER != INIT
    with pytest.raises(InputError, match="joined") as caught:
        read(make(GOOD + OTHER + EVENT + END))
    assert caught.value.event == 5
    assert "name both" in caught.value.remedy


def test_a_second_file_behind_one_that_was_cut(make) -> None:
    cut = INIT + 3 * EVENT
    with pytest.raises(InputError, match="truncated") as caught:
        read(make(cut + GOOD))
    assert caught.value.event == 4
    sample, reader = read(make(cut + GOOD), skip_bad=True)
    assert (len(sample), reader.n_skipped) == (7, 1)


def test_events_behind_the_end_are_not_dropped(make) -> None:
    with pytest.raises(InputError, match="behind </LesHouchesEvents>"):
        read(make(GOOD + EVENT))
    with pytest.raises(InputError, match="behind </LesHouchesEvents>"):
        read(make(GOOD + "\n" * 3_000_000 + EVENT))


@pytest.mark.parametrize(("opening", "closing"), [("<!--", "-->"), ("<![CDATA[", "]]>")])
@pytest.mark.parametrize("n", [1, 9000])
def test_commented_events_are_none(make, opening: str, closing: str, n: int) -> None:
    """Comments may hold whole events, and be longer than what is read at once."""
    hidden = opening + n * EVENT + END + closing
    path = make(INIT + EVENT + hidden + EVENT + hidden + END)
    assert len(read(path)[0]) == 2


def test_comments_inside_of_events(make) -> None:
    lines = EVENT.splitlines(keepends=True)
    text = "".join([lines[0], "<!-- a -->\n", lines[1], "<!-- b\n </event> -->\n", *lines[2:-1]])
    sample, _ = read(make(INIT + text + "<!-- c -->\n" + lines[-1] + EVENT + END))
    assert sample.counts.tolist() == [2, 2]


def test_a_comment_that_never_ends(make) -> None:
    with pytest.raises(InputError):
        read(make(INIT + EVENT + "<!-- " + EVENT + END))


def test_a_commented_init_is_none(make) -> None:
    run = read(make("<!--" + GOOD + "-->\n" + GOOD))[1].run
    inside = INIT.replace("<init>", "<!-- <init>\n1 2 3\n</init> -->\n<init>")
    assert read(make(inside + EVENT + END))[1].run.processes == run.processes
    assert len(run.processes) > 0


@pytest.mark.parametrize(
    "text",
    [
        "plain words that a tool left", "<procinfo iproc='1'>\n gg to t t~\n</procinfo>",
        "<cutsinfo>\n<ptype name='j'>\n1 2 3 21\n</ptype>\n</cutsinfo>", "<xsecinfo neve='1'/>",
        "<!-- 1 2 3 4 -->", "# 1 2 3 4",
    ],
)  # fmt: skip
def test_other_text_in_init(make, text: str) -> None:
    run = read(make(init_of(text) + EVENT + END))[1].run
    assert run.processes == read(make(GOOD))[1].run.processes


def weighted(declarations: str, tail: str) -> str:
    text = INIT.replace("</header>", f"<initrwgt>{declarations}</initrwgt></header>")
    return text + EVENT.replace("</event>", tail + "</event>") + END


def test_declarations_of_every_kind_have_their_place(make) -> None:
    declared = (
        '<weight id="nominal"/><!-- <weight id="off">x</weight> --><weight id="a" ></weight>'
        "<weightgroup name='g'><weight id='b'>one &lt; two</weight><weight MUR='2' id='c' />"
        "</weightgroup><weight id='a'>again</weight>"
    )
    sample, reader = read(make(weighted(declared, "<weights>1 2 3 4 5</weights>")))
    assert {n: v[0] for n, v in sample.weights.items()} == {
        "nominal": 1, "a": 2, "b": 3, "c": 4, "a_2": 5,
    }  # fmt: skip
    assert reader.run.weight_names["b"] == "one < two"


def test_equal_ids_in_an_event_are_different_weights(make) -> None:
    tail = "".join(f"<wgt id='{i % 2}'>{i}.0</wgt>" for i in range(4))
    sample, _ = read(make(weighted("", tail)))
    assert [v[0] for v in sample.weights.values()] == [0, 1, 2, 3]
    assert list(sample.weights) == ["0", "1", "0_2", "1_2"]


@pytest.mark.parametrize("bad", ["nan", "NaN", "inf", "-Infinity", "*******", "1e999", "", "x1"])
def test_a_variation_without_a_number_costs_no_event(make, bad: str) -> None:
    tail = f"<rwgt><wgt id='1'> {bad} </wgt><wgt id='2'> 2.5 </wgt></rwgt>"
    sample, reader = read(make(weighted("", tail)))
    assert np.isnan(sample.weights["1"][0])
    assert sample.weights["2"][0] == 2.5
    assert any("not numbers" in text for text in reader.left_out)


HOSTILE = [
    "<!-- ", "<weight", "<weight ", "<weight>", "<initrwgt", "<initrwgt>", "<![CDATA[ ", "<init",
    "<event>", "</header", "<header>", "<generator>", "MadGraph5_aMC@NLO ", "<MGVersion>  ",
    "<!---->", "<weight \"\" \">\" ", "a=", "&#1;", "<initrwgt><weight id='a'>",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_headers_are_read_in_linear_time(make, text: str) -> None:
    """A quadratic search would take minutes for each of these."""
    header = text * (1_000_000 // len(text))
    for placed in (header, f"<initrwgt>{header}</initrwgt>"):
        path = make(INIT.replace("</header>", placed + "</header>") + EVENT + END)
        start = time.monotonic()
        with contextlib.suppress(InputError):
            assert len(read(path)[0]) == 1
        assert time.monotonic() - start < 20


def sherpa(n: int, weight: str = "1.5e5") -> str:
    text = INIT.split("<init>")[0]
    text += "<init>\n2212 2212 6500 6500 0 0 93300 93300 3 1\n1 1 1 1\n</init>\n"
    for i in range(n):
        event = EVENT.replace("<event>", f"<event trials='{i % 7 + 1}' mur2='8.1e3'>")
        text += event.replace("+1.0786064e+03", weight).replace(" 2 0 ", " 2 1 ", 1)
    return text + END


@pytest.mark.parametrize("n", [7, 70_00])
def test_cross_section_by_trials(make, n: int) -> None:
    """Sherpa prints 1 +- 1 pb and the trials of each event: sum of weights over their sum."""
    run = read(make(sherpa(n), "a.lhe.gz"))[1].run
    mean = 1.5e5 / 4
    assert run.cross_section == pytest.approx(mean)
    assert run.cross_section_error == pytest.approx(np.sqrt((1.5e5 * mean - mean**2) / (4 * n)))


def test_one_picobarn_without_trials_is_one_picobarn(make) -> None:
    text = sherpa(3).replace("trials", "tries")
    assert read(make(text))[1].run.cross_section == 1.0


@pytest.mark.parametrize("numbers", ["0 0 1 1", "-1 -1 1 1", "-1 0 1 1"])
def test_placeholders_are_not_known(make, numbers: str) -> None:
    text = sherpa(3).replace("trials", "tries").replace("1 1 1 1", numbers)
    assert np.isnan(read(make(text))[1].run.cross_section)


@pytest.mark.parametrize("strategy", [0, 7, -12])
def test_unknown_weight_strategies_are_named(make, strategy: int, caplog) -> None:
    text = sherpa(3).replace("93300 3 1", f"93300 {strategy} 1")
    assert read(make(text))[1].run.weight_strategy == 3
    assert f"weight strategy {strategy} is not in the" in caplog.text


def test_a_second_init_block_is_refused(tmp_path: Path) -> None:
    """Which of the two describes the events, nobody can say."""
    second = INIT[INIT.index("<init>") :]
    path = written(tmp_path / "two.lhe", INIT + second.replace("5.0D+02", "7.0D+02") + EVENT + END)
    with pytest.raises(InputError, match="second <init> block") as caught:
        read(path)
    assert caught.value.path == path
    commented = f"<!-- {second.replace('<generator', '<g')} -->\n"
    assert len(read(written(tmp_path / "one.lhe", INIT + commented + EVENT + END))[0]) == 1


@pytest.mark.parametrize("number", ["nan", "0x10", "1_0", "***", "5.0+02x"])
def test_cross_sections_that_are_no_numbers(make, number: str) -> None:
    """They are no words that a program left in <init>."""
    for text in (INIT.replace("5.0D+02", number), INIT.replace("+5.7e+02", number)):
        with pytest.raises(InputError, match=r"in <init> is not a number|is not finite"):
            read(make(text + EVENT + END))
