"""A classifier in the loss: its weights point where the generator is short, rates stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hepgen_ml.config import Config
from hepgen_ml.events.sample import EventSample
from hepgen_ml.files.model_files import CLASSIFIER, VALIDATION
from hepgen_ml.generation import refinement as room
from hepgen_ml.generation.generator import Generator
from hepgen_ml.generation.refinement import Refinement
from hepgen_ml.models.surrogate import Surrogate
from hepgen_ml.training.encoded import encode_sample
from hepgen_ml.training.preparation import Prepared
from hepgen_ml.training.surrogate_task import SurrogateTask
from hepgen_ml.training.trainer import Trainer
from tests.samples import toy_top_pairs

SMALL = Config().with_(
    network__width=16,
    network__blocks=1,
    network__heads=2,
    network__mixtures=4,
    training__batch_size=256,
    training__max_epochs=1000.0,
    training__validation_interval=40,
    training__max_steps=120,
    training__classifier_rounds=2,
)


@pytest.fixture(scope="module")
def sample() -> EventSample:
    return toy_top_pairs(3000)


def test_weights_of_an_untrained_generator(sample: EventSample) -> None:
    """What it hardly makes counts more, and every channel keeps its weight."""
    encoded = encode_sample(sample)
    process, events = encoded.process, encoded.encoded
    torch.manual_seed(0)
    surrogate = Surrogate(process, SMALL)
    surrogate.fit_standardization(events)
    surrogate.density.mean[:, 0] += 0.5 * surrogate.density.std[:, 0]  # too large momenta
    training, validation = events[:2400], events[2400:]
    task = SurrogateTask(surrogate, training, validation, device=torch.device("cpu"))
    trainer = Trainer(task, SMALL.training, seed=0)
    ready = Prepared(
        surrogate, process, SMALL, sample.run, training, validation, len(training), None, None, {}
    )
    refinement = Refinement(trainer, ready)
    surrogate.eval()
    events_again = refinement._events(training)
    rows = events_again.offsets[:-1] + 2
    phi = np.arctan2(events_again.py[rows], events_again.px[rows])
    counts = np.histogram(phi, 10, (-np.pi, np.pi))[0]  # as those of generated events
    assert np.all(np.abs(counts - len(phi) / 10) < 5 * np.sqrt(len(phi) / 10))
    factor, other = refinement.factors(0)
    assert len(factor) == len(training)
    assert len(other) == len(validation)
    assert float((factor * training.weight).sum()) == pytest.approx(float(training.weight.sum()))
    alone = process.channel_of[training.subprocess] == 0
    first = training.x[:, 0]  # the transverse momentum of both top quarks
    low = first < first[alone].median()
    assert factor[alone & low].mean() > 1.1 * factor[alone & ~low].mean()


def test_rounds_and_resuming(
    sample: EventSample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rounds take place; a run stopped between them goes on as if nothing had happened."""
    monkeypatch.setattr(room, "MAX_EVENTS", 1200)
    starts = []
    before = Refinement.factors

    def counted(self: Refinement, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        starts.append(number)
        return before(self, number)

    monkeypatch.setattr(Refinement, "factors", counted)
    whole = Generator.train(sample, out=tmp_path / "whole", config=SMALL)
    assert starts == [0, 1]

    def stop(stage: str, *rest: object) -> None:
        if starts == [0, 1, 0] and stage == "train":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Generator.train(
            sample,
            out=tmp_path / "cut",
            config=SMALL,
            progress=lambda *a: stop(*a),  # type: ignore[arg-type, misc]
        )
    again = Generator.train(sample, out=tmp_path / "cut", config=SMALL, resume=True)
    assert starts == [0, 1, 0, 1]
    for (name, a), b in zip(
        whole.surrogate.state_dict().items(), again.surrogate.state_dict().values(), strict=True
    ):
        assert torch.allclose(a, b), name
    a, b = (np.mean(g.sample(500, seed=1).energy) for g in (whole, again))
    assert a == b


def test_a_new_model_has_no_old_classifier(sample: EventSample, tmp_path: Path) -> None:
    """What was stored about earlier weights goes with them."""
    config = SMALL.with_(training__classifier_rounds=0, training__max_steps=5)
    generator = Generator.train(sample, out=tmp_path / "m", config=config)
    for name in (CLASSIFIER, VALIDATION):
        (tmp_path / "m" / name).write_text("old")
    generator.save(tmp_path / "m", force=True)
    assert not (tmp_path / "m" / CLASSIFIER).exists()
    (tmp_path / "m" / CLASSIFIER).write_text("old")
    Generator.train(sample, out=tmp_path / "m", config=config, force=True)
    assert {CLASSIFIER, VALIDATION}.isdisjoint(p.name for p in (tmp_path / "m").iterdir())
