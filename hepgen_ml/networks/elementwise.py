"""Functions that round alike for any number of threads.

Threads share the elements of a tensor, and torch uses different code for the elements at the end of
each share that do not fill a vector register. For ``exp``, ``log``, ``tanh``, ``erf``, ``sin``,
``cos``, products and sums both round alike; not so for ``sigmoid``, ``silu``, ``softmax`` along the
batch, ``sinh``, ``cosh`` and others, with which events would depend on the number of threads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def silu(x: Tensor) -> Tensor:
    """Sigmoid linear unit of each element; in training by the faster fused function."""
    return F.silu(x) if x.requires_grad else x / torch.exp(-x).add_(1)


class SiLU(nn.Module):
    """`silu` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """The function of each element."""
        return silu(x)


def softmax_(x: Tensor) -> Tensor:
    """Softmax along the first dimension of (k, ..., batch), in place."""
    x.sub_(x.amax(0)).exp_()
    return x.div_(x.sum(0))
