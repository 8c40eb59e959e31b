"""What images of events under symmetries teach, and what they do not."""

from __future__ import annotations

import torch

from hepgen_ml.config import load_config
from hepgen_ml.training.encoded import encode_sample
from hepgen_ml.training.preparation import prepare
from hepgen_ml.training.surrogate_task import SurrogateTask
from tests.samples import toy_top_pairs

FAST = ("model=jetgpt", "network.width=16", "network.blocks=1", "network.heads=2")


def test_reflected_events_teach_the_heads_nothing() -> None:
    """Their colours and helicities are those of other events."""
    settings = load_config(None, [*FAST, "training.reflect=true"])
    ready = prepare(encode_sample(toy_top_pairs(1200)), settings, 10.0)
    device = torch.device("cpu")
    task = SurrogateTask(ready.surrogate, ready.training, ready.validation, device=device)
    rows, known = torch.arange(len(task.train)), task.train.discrete.pattern >= 0
    assert 0.45 < float(known.double().mean()) < 0.55

    with torch.no_grad():
        all_of_them = task.loss("heads", task.train, rows)
        assert torch.equal(all_of_them, task.loss("heads", task.train, rows[known]))
        assert float(all_of_them) > 0
        assert float(task.loss("density", task.train, rows[~known])) != 0
    # a batch may happen to hold nothing else
    nothing = task.loss("heads", task.train, rows[~known])
    nothing.backward()
    assert float(nothing.detach()) == 0
