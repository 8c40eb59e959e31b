"""Processes of the header that have no events."""

from __future__ import annotations

import logging

import pytest

from hepgen_ml.events.sample import EventSample, Subrun
from hepgen_ml.training.data import SampleSource, learn_process
from tests.samples import toy_top_pairs


def with_processes(*processes: Subrun) -> EventSample:
    sample = toy_top_pairs(1000, jets=False)
    sample.events["process_id"][:] = 1
    sample.run = sample.run.with_(processes=processes)
    return sample


def test_processes_without_events_are_named(caplog: pytest.LogCaptureFixture) -> None:
    sample = with_processes(Subrun(1, 5.0, 0.1), Subrun(2, 3.0, 0.1), Subrun(3, 0.0, 0.0))
    source = SampleSource(sample)
    with caplog.at_level(logging.WARNING):
        learn_process(source, seed=0)
    assert "no event is of process 2, of which the header states 37.5 %" in caplog.text
    assert any("process 2" in text for text in source.not_learned)


def test_few_expected_events_may_be_absent() -> None:
    run = with_processes(Subrun(1, 5.0, 0.1), Subrun(2, 0.05, 0.1)).run
    assert not run.without_events({1}, 1000)
    assert run.without_events({1}, 10_000)
    assert not run.without_events({1, 2}, 10_000)
    assert not run.without_events({221}, 10_000)  # numbers that no header declares
