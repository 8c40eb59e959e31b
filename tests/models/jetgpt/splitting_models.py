"""Small models of jetgpt-splitting for tests."""

from __future__ import annotations

import torch

from hepgen_ml.config import Config
from hepgen_ml.events.sample import EventSample
from hepgen_ml.models.jetgpt.splitting import SplittingJetGPT
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.process import Process

CONFIG = Config().with_(
    model="jetgpt-splitting", network__width=16, network__blocks=2, network__heads=2,
    network__mixtures=4, splitting__max_jets=5,
)  # fmt: skip


def encode(process: Process, sample: EventSample) -> Encoded:
    return process.encode(sample)


def build(process: Process, sample: EventSample, seed: int = 0, **changes: object):
    torch.manual_seed(seed)
    model = SplittingJetGPT(process, CONFIG.with_(**changes))
    model.fit_standardization(encode(process, sample))
    return model.eval()
