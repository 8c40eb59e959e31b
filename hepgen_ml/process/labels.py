"""Labels of events, on which the density of their coordinates is conditioned.

Without conditions of the user a label is the number of the subprocess, and labels of m events are
an (m,) int64 tensor. With K conditions they are an (m, 1 + K) float64 tensor: the number and the
values. Both are sliced, joined and moved to devices in the same way, so that code which passes
labels on does not depend on conditions; code that needs the subprocess calls `which`.
"""

from __future__ import annotations

import torch
from torch import Tensor


def labelled(subprocess: Tensor, conditions: Tensor | None) -> Tensor:
    """Labels of subprocesses (m,) with conditions (m, K), of which there may be none."""
    if conditions is None or conditions.shape[-1] == 0:
        return subprocess
    values = conditions.to(subprocess.device, torch.float64)
    return torch.cat([subprocess.to(torch.float64).unsqueeze(-1), values], dim=-1)


def which(labels: Tensor) -> Tensor:
    """Subprocesses (m,) int64 of labels."""
    return labels if labels.ndim == 1 else labels[:, 0].to(torch.int64)


def values_of(labels: Tensor) -> Tensor | None:
    """Conditions (m, K) of labels, None without any."""
    return None if labels.ndim == 1 else labels[:, 1:]


def relabelled(labels: Tensor, subprocess: Tensor) -> Tensor:
    """Other subprocesses (m,) with the conditions of labels."""
    return labelled(subprocess, values_of(labels))
