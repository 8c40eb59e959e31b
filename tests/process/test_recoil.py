"""Heavy particles that recoil together against another one."""

from __future__ import annotations

import pytest
import torch

from hepgen_ml.phase_space import MassSpec, Peak
from hepgen_ml.process.process import Process
from hepgen_ml.process.recoil import recoiling
from tests.process.test_process import learn
from tests.samples import toy_top_pairs


def test_top_quarks_share_the_recoil_against_jets() -> None:
    """Described is the momentum in the pair, which radiation does not change."""
    sample = toy_top_pairs(2000)
    process = learn(sample)
    shares = {c.chart.labels: c.chart.to_config().get("share", 0.0) for c in process.channels}
    assert {len(labels): share for labels, share in shares.items()} == {2: 0.0, 3: 0.5}
    assert Process.from_config(process.to_config()).to_config() == process.to_config()
    channel = next(c for c in process.channels if len(c.chart.labels) == 3)
    assert channel.chart.labels[0].startswith("j")
    encoded = process.encode(sample)
    x = encoded.x
    rows = process.channel_of[encoded.subprocess] == process.channels.index(channel)
    p = channel.chart.inverse(channel.join(x[rows], torch.zeros(int(rows.sum()))))[0]
    names = [c.name for c in channel.coordinates]
    pt = torch.exp(x[rows][:, names.index(f"log_pt:{channel.chart.labels[1]}")])
    half = (p[:, 1, :2] - p[:, 2, :2]).norm(dim=-1) / 2
    torch.testing.assert_close(pt, half, rtol=1e-8, atol=1e-8)
    config = process.to_config()
    for chart in (c["chart"] for c in config["channels"]):
        chart["share"] = 0.5 if len(chart["labels"]) == 2 else 1.5
    with pytest.raises(ValueError, match="share"):
        Process.from_config(config)


@pytest.mark.parametrize(
    ("masses", "pt_min", "share"),
    [
        ([0.0, 0.0, Peak(1.0, 500.0, 80.4, 2.1), 91.2], [20.0, 20.0, 0.0, 0.0], None),
        ([0.0, Peak(1.0, 500.0, 80.4, 2.1), 91.2], [20.0, 0.0, 0.0], 0.5),
        ([0.0, 173.0, 80.4], [20.0, 0.0, 0.0], 0.7),
        ([173.0, 173.0], [0.0, 0.0], None),
        ([0.0, 4.7, 4.7], [20.0, 0.0, 0.0], None),
        ([0.0, 173.0, 173.0], [20.0, 30.0, 0.0], None),
        ([0.0, (1.0, 500.0), 173.0], [20.0, 0.0, 0.0], None),
    ],
)
def test_which_particles_share_a_recoil(
    masses: list[MassSpec], pt_min: list[float], share: float | None
) -> None:
    found = recoiling(masses, pt_min, [0.0] * (len(masses) - 1))
    assert found == ({} if share is None else {"share": share})
