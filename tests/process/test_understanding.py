"""What a model says that it has understood of its sample."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hepgen_ml.config import load_config
from hepgen_ml.events.sample import EventSample, RunInfo, Subrun
from hepgen_ml.files.documents import TrainingFacts
from hepgen_ml.generation.generator import Generator
from hepgen_ml.phase_space import BalancedChart, BeamsChart
from hepgen_ml.phase_space.chart import incoming_momenta
from hepgen_ml.process.process import Process
from hepgen_ml.process.scales import in_words
from hepgen_ml.process.scales_in_words import auxiliary_fractions
from hepgen_ml.process.understanding import understood
from hepgen_ml.training.encoded import EncodedSample, encode_sample
from tests.models.test_choice import FAST
from tests.object_files import object_sample
from tests.phase_space.test_decays import hadronic_tops
from tests.process.test_decay_charts import without_rows
from tests.samples import toy_top_pairs

TOYS = load_config(None, [*FAST, "network.width=16", "jetgpt.bins=8", "training.batch_size=64"])


def sentences(sample: EncodedSample, **facts: object) -> dict[str, str]:
    fractions = auxiliary_fractions(sample.process, sample.encoded)
    known = {"auxiliary_fractions": fractions, "not_learned": list(sample.not_learned), **facts}
    return dict(understood(sample.process, sample.run, known))


def test_partons() -> None:
    sample = encode_sample(toy_top_pairs(3000))
    said = sentences(sample, events=3000, effective_events=3000, beam_exchange="holds")
    assert said["beams"].startswith("p 6500 GeV on p 6500 GeV; incoming partons of any energy")
    assert "4 subprocesses in 2 channels of 3 to 6 coordinates" in said["subprocesses"]
    assert "g g > t t~" in said["subprocesses"]
    assert said["resonances"] == "none in the record"
    assert "j" in said["cuts"]
    assert "pt(j)" in said["cuts"]
    assert "entries within" in said["cuts"]  # the evidence
    scale, strong, weak = said["scale, couplings"].split("; α")
    # events with a jet have scales that no formula explains
    assert "exact by formula" in scale
    assert "drawn from a density" in scale
    assert "table" in strong
    assert weak == "_em: constant, 0.00754717"
    assert said["weights"] == "equal, 3,000 events"
    assert said["symmetry"] == "exchange of the beams holds"
    assert said["not learned"] == "nothing is left out"


def test_fractions_add_up_to_the_events() -> None:
    sample = encode_sample(toy_top_pairs(3000))
    fractions = auxiliary_fractions(sample.process, sample.encoded)
    for kinds in fractions.values():
        assert sum(kinds.values()) == pytest.approx(1, abs=1e-5)
    assert fractions["scale"]["drawn"] == pytest.approx(0.5, abs=0.05)


def test_exceptions_are_stored() -> None:
    sample = toy_top_pairs(3000)
    sample.events["alpha_qed"][5] = 0.0078  # of one event only
    encoded = encode_sample(sample)
    fractions = auxiliary_fractions(encoded.process, encoded.encoded)
    assert fractions["alpha_qed"]["exception"] == pytest.approx(1 / 3000, abs=1e-5)
    facts = json.loads(json.dumps({"auxiliary_fractions": fractions}))
    assert TrainingFacts.model_validate(facts).auxiliary_fractions == fractions


def test_reconstructed_objects() -> None:
    sample = encode_sample(object_sample(2000))
    said = sentences(sample, events=2000, effective_events=1500, negative_weights=0.02)
    assert "reconstructed objects, without incoming particles" in said["beams"]
    assert " j" in said["subprocesses"]
    assert "scale, couplings" not in said
    assert said["weights"] == (
        "of 2,000 events differ, 2 % of them negative: effective sample size 1,500"
    )


def deep_inelastic(n: int) -> EventSample:
    """q e -> q e with an electron of 27.5 GeV in every event."""
    chart = BeamsChart(["11", "j1"], [0.0, 0.0], [None, 27.5], [920.0, 27.5], [0.0, 0.0])
    x = torch.randn(2 * n, chart.n_coordinates, generator=torch.Generator().manual_seed(3),
                    dtype=torch.float64)  # fmt: skip
    final, total = chart.inverse(x)
    good = torch.isfinite(final).all(-1).all(-1)
    final, total = final[good][:n], total[good][:n]
    p = torch.cat([incoming_momenta(total, 0.0, 0.0), final], dim=1).numpy()
    n = len(p)
    constant = {"pdg_id": (2, 11, 11, 2), "status": (-1, -1, 1, 1), "mother1": (0, 0, 1, 1),
                "mother2": (0, 0, 2, 2), "color1": (501, 0, 0, 501), "color2": (0,) * 4,
                "mass": (0.0,) * 4, "lifetime": (0.0,) * 4, "spin": (9.0,) * 4}  # fmt: skip
    columns = {name: np.tile(row, n) for name, row in constant.items()}
    columns |= {k: p[..., i].ravel() for i, k in enumerate(("px", "py", "pz", "energy"))}
    run = RunInfo((2212, 11), (920.0, 27.5), processes=(Subrun(1, 200.0, 1.0),))
    events = {"process_id": np.ones(n), "scale": np.full(n, 20.0)}
    return EventSample(run, 4 * np.arange(n + 1), columns, events)


def test_one_beam_of_fixed_energy() -> None:
    said = sentences(encode_sample(deep_inelastic(1500)), beam_exchange="not used")
    assert said["beams"] == (
        "p 920 GeV on e- 27.5 GeV; incoming partons of any energy up to 920 GeV and e- of 27.5 "
        "GeV in every event"
    )
    assert said["scale, couplings"] == "scale: constant, 20; α_s: not given; α_em: not given"


def test_decays() -> None:
    said = sentences(encode_sample(hadronic_tops(2000), skip_bad=True))
    for name in ("t at 17", "W+ at 80"):
        assert name in said["resonances"]
    assert "with width" in said["resonances"]
    assert said["not learned"] == "helicities are not given"


def test_subprocesses_of_one_reaction_are_told_apart() -> None:
    sample = hadronic_tops(1200)
    event = np.repeat(np.arange(len(sample)), np.diff(sample.offsets))
    gone = (np.abs(sample.pdg_id) == 24) & (event % 3 == 0)
    said = sentences(encode_sample(without_rows(sample, gone), skip_bad=True))["subprocesses"]
    assert "(record with W+ W- t t~) 66." in said
    assert "(record with t t~) 33." in said


def test_records_that_are_no_chain_of_decays() -> None:
    """A row without products among those that decay."""
    sample = encode_sample(hadronic_tops(1500), skip_bad=True)
    process = sample.process
    flat = BalancedChart([f"p{i}" for i in range(6)], [4.8, 4.8, 0.0, 0.0, 0.0, 0.0], [0.0] * 5)
    process.channels[0] = replace(process.channels[0], chart=flat)
    said = dict(understood(process, sample.run, {}))
    assert "1 subprocess (100 % of the events) is not a chain of decays" in said["not learned"]
    assert "by W+, W-, t, t~" in said["not learned"]
    assert said["resonances"] == "none in the record"


def test_models_without_facts_say_less() -> None:
    process = encode_sample(toy_top_pairs(1200)).process
    said = dict(understood(process, RunInfo(), {}))
    assert said["beams"].startswith("energies not stated")
    assert {"weights", "symmetry"}.isdisjoint(said)
    assert said["not learned"] == "the cross section is not known"
    assert "%" not in said["scale, couplings"]


def test_lifetimes_and_what_is_not_given_are_named(caplog: pytest.LogCaptureFixture) -> None:
    sample = toy_top_pairs(1500)
    sample.particles["spin"][:] = 0.37
    sample.particles["lifetime"][sample.pdg_id == 6] = 1.5
    sample.particles["color1"][:] = 0
    sample.particles["color2"][:] = 0
    said = sentences(encode_sample(sample))
    assert said["lifetimes"] == (
        "t as in the sample, mean cτ = 1.5 mm, 50 % prompt; zero or not together as in the sample"
    )  # the antiquarks are those that are prompt
    assert "lifetimes" not in said["not learned"]
    assert "spins that are not helicities" in said["not learned"]
    assert "colour flow is not given" in said["not learned"]
    assert "spins that are not helicities" in caplog.text


def test_it_is_kept_with_the_encoded_sample(tmp_path: Path) -> None:
    sample = toy_top_pairs(1500)
    sample.particles["spin"][sample.pdg_id == 6] = 0.37
    encode_sample(sample).save(tmp_path / "e.safetensors")
    again = EncodedSample.load(tmp_path / "e.safetensors")
    assert "spins" in again.not_learned[0]


def test_models_keep_what_they_say(tmp_path: Path) -> None:
    made = Generator.train(toy_top_pairs(1500), out=tmp_path / "m", config=TOYS, device="cpu")
    said = made.describe()["understood"]
    assert Generator.load(tmp_path / "m").describe()["understood"] == said
    assert dict(said)["symmetry"].startswith("exchange of the beams holds")  # type: ignore[arg-type]
    json.dumps(said)


@pytest.mark.parametrize(
    ("name", "factor", "words"),
    [
        ("ht", 0.5, "0.5 × H_T, the sum of transverse masses"),
        ("constant", 91.188, "91.188 GeV"),
        ("mt:0,1", 1.0, "transverse mass of t + particle 2"),
        ("core_mt:", 1.0, "mean transverse mass of the two heaviest particles in their rest frame"),
        ("core_mt:1,0", 2.0, "2 × mean transverse mass of the two heaviest particles in their rest "
         "frame, particle 2 and t radiated off the first beam"),
        ("mean:0:0.5*mt2.0@80.385 0.5*s", 1.0, "√(pT(t)² + (80.385 GeV)²)^0.5 · √ŝ^0.5"),
        ("mean:2:0.25*mt2.0 -1*one", 1.0, "√(0.25 mT(t)² - 1 GeV²)"),
    ],
)  # fmt: skip
def test_scales_in_words(name: str, factor: float, words: str) -> None:
    assert in_words(name, factor, ["t"]) == words


def test_every_pretrained_model_says_something() -> None:
    said = dict(Generator.load("ttbar01j", device="cpu").describe()["understood"])
    assert "p 6500 GeV" in said["beams"]
    assert "exact by formula" in said["scale, couplings"]


def test_a_run_without_a_cross_section() -> None:
    process = encode_sample(toy_top_pairs(1200)).process
    assert isinstance(process, Process)
    run = RunInfo(processes=(Subrun(0, 2.0, 0.1, 1.0),))
    assert "cross section" not in dict(understood(process, run, {}))["not learned"]
