"""Progress of long jobs, as lines and as bars: in order, and nothing that is left half finished."""

from __future__ import annotations

import pytest

from hepgen_ml.cli import progress as module
from hepgen_ml.cli.progress import Progress


class Clock:
    """A clock that goes on by two seconds with every look."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 2.0
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(module, "time", found)
    return found


def job(progress: Progress) -> None:
    for n in (10, 20):
        progress("read", n, None)
    for done in (0, 1, 2):
        progress("acceptance", done, 2)
    progress("judge", 0, None)
    for done in range(9):
        progress("train", done / 8, 1.0, {"loss": 0.5 * done})


def test_lines_come_in_order_and_end_with_all(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress({"acceptance": "%", "train": "%"}) as progress:
        job(progress)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("read: 20 events")
    assert lines[1] == "acceptance: 100 %"
    assert all(line.startswith("train: ") for line in lines[2:])
    assert lines[-1] == "train: 100 %, loss 4"
    assert len(set(lines)) == len(lines)


def test_bars_are_full_at_the_end_and_not_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with Progress({"acceptance": "%", "train": "%"}) as progress:
        job(progress)
    tasks = {t.description: t for t in progress._bars.tasks}
    assert list(tasks) == ["read", "acceptance", "judge", "train"]
    assert all(t.total and t.completed == t.total for t in tasks.values())
    assert tasks["judge"].fields["line"] == "4 s"
    assert tasks["read"].fields["line"].startswith("20 events")
    progress = Progress()
    progress.__enter__()
    progress("read", 10, None)
    progress.__exit__(RuntimeError)
    assert progress._bars.tasks[0].total is None
