"""What named weights of related subprocesses share, and the form in which they are learned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hepgen_ml.events.sample import EventSample
from hepgen_ml.process.symmetry import exchanged_beams
from hepgen_ml.reweighting.named_weights import learning
from hepgen_ml.reweighting.named_weights.features import (
    exchanged_inputs,
    inputs_of,
    kinds,
    representatives,
)
from hepgen_ml.reweighting.named_weights.ratios import NamedWeight, WeightRatios
from hepgen_ml.reweighting.named_weights.storage import load_ratios, save_ratios
from hepgen_ml.training.encoded import EncodedSample, encode_sample
from tests.samples import toy_top_pairs

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def sample() -> EncodedSample:
    """Weights that are always negative, change sign only for quarks, and are rarely zero."""
    events = toy_top_pairs(2500, 0)
    rows = events.offsets[:-1]
    quarks = events.pdg_id[rows] != 21
    _other_flavours(events)
    mass = 2 * np.sqrt(events.energy[rows] * events.energy[rows + 1])
    ratio = {
        "negative": -((mass / 500) ** 0.3),
        "only quarks": np.where(quarks, np.sign(events.pdg_id[rows]) * (mass / 500) ** 2, 0.0),
        "all": (mass / 500) ** 0.2,
    }
    return encode_sample(EventSample(
        events.run.with_(weight_names=dict.fromkeys(ratio, "")), events.offsets, events.particles,
        events.events, weights={name: r * events.weight for name, r in ratio.items()},
    ))  # fmt: skip


def _other_flavours(events: EventSample) -> None:
    """Change every second u u~ into d d~, and every third pair into its mirror image."""
    first = events.offsets[:-1][events.pdg_id[events.offsets[:-1]] != 21]
    for row in first[::2]:
        events.particles["pdg_id"][row : row + 2] = 1, -1
    for name in ("pdg_id", "color1", "color2", "spin"):
        column = events.particles[name]
        pair = np.stack([first[::3], first[::3] + 1])
        column[pair] = column[pair[::-1]]


def test_inputs_of_mirror_images(sample: EncodedSample) -> None:
    process = sample.process
    mirrored, possible = exchanged_beams(process, sample.encoded)
    assert len(mirrored) > 500
    one, two = inputs_of(process, sample.encoded[possible]), inputs_of(process, mirrored)
    order, sign = exchanged_inputs(process)
    a, b = (np.argsort(e.event.numpy()) for e in (sample.encoded[possible], mirrored))
    assert torch.allclose(one.event[a][:, order] * torch.tensor(sign), two.event[b], atol=2e-4)
    assert torch.allclose(one.parton[a].flip(1), two.parton[b], atol=2e-4)
    image = torch.tensor(representatives(process))
    assert torch.equal(image[one.subprocess[a]], image[two.subprocess[b]])


def test_flavours_of_quarks_are_of_a_kind(sample: EncodedSample) -> None:
    kind = kinds(sample.process)
    incoming = [s.structure.pdg_id for s in sample.process.subprocesses]
    found: dict[int, set[tuple[int, ...]]] = {}
    for number, ids in zip(kind, incoming, strict=True):
        signs = tuple(i if abs(i) > 4 else (i > 0) - (i < 0) for i in ids)
        found.setdefault(number, set()).add(signs)
    assert len(found) < len(incoming)
    assert representatives(sample.process) != list(range(len(incoming)))
    assert all(len(signs) == 1 for signs in found.values())


def test_signs_are_kept_and_components_are_separate(sample: EncodedSample) -> None:
    assert sample.variations is not None
    ratios = learning.learn_ratios(
        sample.process, sample.encoded, sample.variations,
        same_beams=True, seconds=1.0, seed=0, device=CPU,
    )  # fmt: skip
    forms = {w.name: w.logarithmic for w in ratios.weights}
    assert forms == {"negative": True, "only quarks": False, "all": True}
    assert ratios.unit[0] == -1
    assert ratios.unit[1] > 0.1
    alone = ratios.loadings[:, 1] != 0
    assert alone.any()
    assert (ratios.loadings[alone][:, [0, 2]] == 0).all()
    inputs = inputs_of(sample.process, sample.encoded)
    found, error = ratios(inputs, errors=True)
    true = sample.variations.ratio.double()
    assert (found[:, 0] < 0).all()
    assert (found[true[:, 1] == 0, 1] == 0).all()
    assert bool(error.isfinite().all())
    sums = (found * sample.encoded.weight[:, None]).sum(0)
    expected = (true * sample.encoded.weight[:, None]).sum(0)
    assert torch.allclose(sums, expected, atol=1e-5 * len(found))


def test_ratios_of_the_first_version(sample: EncodedSample, tmp_path: Path) -> None:
    weights = [NamedWeight("a", ""), NamedWeight("b", "", logarithmic=False)]
    torch.manual_seed(0)
    made = WeightRatios(sample.process, weights, "", 2, 8, True, shared=False)
    made.unit[1] = 0.0
    made.loadings.copy_(torch.eye(2))
    made.least -= 9
    made.most += 9
    save_ratios(tmp_path, made)
    path = tmp_path / "variations.safetensors"
    with safe_open(path, framework="pt") as file:
        document = json.loads(file.metadata()["json"])
    tensors = load_file(path)
    del tensors["unit"], document["shared"]
    save_file(tensors, path, {"json": json.dumps({**document, "version": 1})})
    loaded = load_ratios(tmp_path, sample.process, CPU)
    inputs = inputs_of(sample.process, sample.encoded[torch.arange(50)])
    assert torch.equal(loaded(inputs)[0], made(inputs)[0])
    value, _ = loaded.transformed(inputs)
    assert torch.allclose(loaded(inputs)[0][:, 1], value[:, 1])
