"""A flow on a plane, and events of top pairs with tighter cuts and a flow on them."""

from __future__ import annotations

import pytest

from hepgen_ml.models.flow.flow_matching import FlowMatching
from hepgen_ml.phase_space import Acceptance, Cut
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.process import Process
from tests.models.flow.flows import Plane, flow_on, plane_events
from tests.samples import learned, toy_top_pairs


@pytest.fixture(scope="module")
def plane() -> FlowMatching:
    return flow_on(Plane(), plane_events(2000))


@pytest.fixture(scope="module")
def process() -> Process:
    process = learned(toy_top_pairs(2000))
    process.acceptance = Acceptance(
        [*process.acceptance.cuts, Cut("abs_eta", ("j",), high=0.8), Cut("pt", ("6",), low=40.0)]
    )
    return process


@pytest.fixture(scope="module")
def encoded(process: Process) -> Encoded:
    return process.encode(toy_top_pairs(2000))


@pytest.fixture(scope="module")
def cut(process: Process, encoded: Encoded) -> FlowMatching:
    return flow_on(process, encoded, "flow.base=cuts")
