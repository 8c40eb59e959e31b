r"""Noise levels of a diffusion: schedules, and steps from one level to the next.

On the line, a level is an angle :math:`\varphi` with signal :math:`\alpha = \cos\varphi` and noise
:math:`\sigma = \sin\varphi`, which is the variance-preserving chain with
:math:`\bar\alpha = \alpha^2`. On the circle the signal keeps its size, as multiples of angles have
no meaning, and the noise has the width :math:`\sigma / \sqrt{\alpha^2 + \sigma^2 / S^2}`: the
ratio of noise to signal of the line, up to S radians, where the signal has vanished.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

WIDEST = 4.0
"""Final noise on circles, in radians: a normal density wrapped around the circle is then uniform up
to 2 exp(-S^2 / 2) = 0.07 %."""

_LARGEST_BETA = 0.999


def levels(schedule: str, n: int) -> Tensor:
    """Angles (n,) float64 of the noise levels, from the smallest to the largest.

    ``linear`` (arXiv:2006.11239) has variances from 1e-4 to 0.02 for a thousand steps, in inverse
    proportion to their number for others; ``cosine`` is that of arXiv:2102.09672.
    """
    if schedule == "linear":
        beta = torch.linspace(1e-4, 0.02, n, dtype=torch.float64) * 1000 / n
    else:
        t = torch.arange(n + 1, dtype=torch.float64) / n
        f = torch.cos(0.5 * math.pi * (t + 0.008) / 1.008) ** 2
        beta = 1 - f[1:] / f[:-1]
    log_signal2 = torch.log1p(-beta.clamp_max(_LARGEST_BETA)).cumsum(0)
    return torch.atan2(torch.sqrt(-torch.expm1(log_signal2)), torch.exp(0.5 * log_signal2))


class Scale(NamedTuple):
    """Size of signal and noise, as tensors that broadcast against coordinates (m, D)."""

    signal: Tensor
    noise: Tensor


def scale(angle: Tensor, periodic: Tensor) -> Scale:
    """Signal and noise of a level (...), for coordinates on lines and circles (D,)."""
    cos, sin = torch.cos(angle).unsqueeze(-1), torch.sin(angle).unsqueeze(-1)
    around = sin / torch.sqrt(cos**2 + (sin / WIDEST) ** 2)
    return Scale(torch.where(periodic, torch.ones_like(cos), cos),
                 torch.where(periodic, around, sin))  # fmt: skip


def widening(angle: Tensor) -> Tensor:
    """Derivative (...) of the noise on circles by the angle of the level."""
    cos, sin = torch.cos(angle), torch.sin(angle)
    return cos / (cos**2 + (sin / WIDEST) ** 2) ** 1.5


def few_levels(highest: float, n: int, warp: float = 1.0) -> list[float]:
    """Angles of n levels from the highest down, equidistant, and zero, where there is no noise.

    The paper of DPM-Solver++ takes levels equidistant in log(signal / noise), most of which
    change next to nothing in events; by angles, the same solver is ten times as accurate. With a
    warp above one, steps become smaller near the events.
    """
    return [highest * (1 - i / n) ** warp for i in range(n)] + [0.0]


def deterministic_step(z: Tensor, clean: Tensor, now: Scale, then: Scale) -> Tensor:
    """Coordinates at another level, of the same noise and clean coordinates (DDIM, 2010.02502)."""
    ratio = then.noise / now.noise
    return ratio * z + (then.signal - now.signal * ratio) * clean


def extrapolated(clean: Tensor, before: Tensor, last: float, now: float, then: float) -> Tensor:
    """Clean coordinates in the middle of a step between levels, from estimates at two of them.

    DPM-Solver++(2M) of arXiv:2211.01095: linear in log(signal / noise), here that of lines for
    circles too, where its own stands still at the noisiest levels.
    """
    past, present, future = (-math.log(math.tan(angle)) for angle in (last, now, then))
    return clean + 0.5 * (future - present) / (present - past) * (clean - before)


def random_step(z: Tensor, clean: Tensor, now: Scale, then: Scale, draw: Tensor) -> Tensor:
    """Coordinates one level lower: a draw from q(z_then | z_now, clean) of arXiv:2006.11239."""
    kept = now.signal / then.signal
    added2 = (now.noise**2 - kept**2 * then.noise**2).clamp_min(0.0)
    mean = (kept * then.noise**2 * z + then.signal * added2 * clean) / now.noise**2
    return mean + torch.sqrt(added2) * then.noise / now.noise * draw
