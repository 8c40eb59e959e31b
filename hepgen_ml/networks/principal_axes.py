r"""Posterior of a linear map that is independent in the principal axes of its Fisher information.

With outputs :math:`o = W h`, inputs :math:`h` of which the last is the one of the biases, and
derivatives :math:`g = \partial\log p/\partial o`, N events have the information
:math:`N \langle h h^T \otimes g g^T \rangle` on the weights. Inputs of a last layer are strongly
correlated: this matrix is far from diagonal, and a posterior of independent weights too wide. A
rotation u of inputs and one v of outputs make it nearly diagonal (arXiv:1503.05671, 1806.03884),
and a product of Gaussians along these axes has the variances

.. math:: \sigma_{ij}^2 = \left( N \langle (u_i \cdot h)^2 (v_j \cdot g)^2 \rangle
    + \sigma_p^{-2} \right)^{-1}

of a Laplace approximation around the means with a prior of width :math:`\sigma_p`. Matrices with a
row for each weight never appear.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

LOG_VARIANCE = (-24.0, 11.0)
"""Range of the logarithm of a posterior variance. A million events determine weights to 0.001
(-14) and better; below the lower end single precision knows no difference."""

_ROUNDING = 1e-3
"""Deviation from a rotation that single precision may have."""


class PrincipalAxes(nn.Module):
    """Posterior of the deviations of n matrices of weights from their means.

    Parameters
    ----------
    n, n_inputs, n_outputs : int
        Matrices, and their inputs (with that of the biases) and outputs.
    n_rotations : int
        Rotations of inputs: n, or one for all.

    Attributes
    ----------
    inputs : (n or 1, n_inputs, n_inputs) tensor
        Axes of the inputs, as columns.
    outputs : (n, n_outputs, n_outputs) tensor
        Those of the outputs.
    log_variance : (n, n_inputs, n_outputs) tensor
        Logarithms of the posterior variances along products of axes.
    """

    def __init__(self, n: int, n_inputs: int, n_outputs: int, n_rotations: int) -> None:
        super().__init__()
        self.inputs: Tensor
        self.outputs: Tensor
        self.log_variance: Tensor
        self.register_buffer("inputs", torch.zeros(n_rotations, n_inputs, n_inputs))
        self.register_buffer("outputs", torch.zeros(n, n_outputs, n_outputs))
        self.register_buffer("log_variance", torch.zeros(n, n_inputs, n_outputs))

    @property
    def variance(self) -> Tensor:
        """Posterior variances along products of axes."""
        return torch.exp(self.log_variance.clamp(*LOG_VARIANCE))

    def deviation(self, noise: Tensor) -> Tensor:
        """Deviations (n, n_inputs, n_outputs) of a draw from independent normal numbers."""
        along = torch.sqrt(self.variance) * noise
        return self.inputs @ along @ self.outputs.transpose(1, 2)

    def noise(self, hidden: Tensor, rows: list[int]) -> Tensor:
        """Noise (m, d, n_outputs) of some outputs, independent for each event.

        Parameters
        ----------
        hidden : tensor
            Inputs (m, w) of all matrices, or (m, d, w) of each, without that of the biases.
        rows : list of int
            Numbers (d,) of the matrices.
        """
        h = nn.functional.pad(hidden, (0, 1), value=1.0)
        variance = self.variance[rows]
        if len(self.inputs) == 1 and h.ndim == 2:
            along = torch.einsum("ma,dak->mdk", (h @ self.inputs[0]) ** 2, variance)
        else:
            turns = self.inputs if len(self.inputs) == 1 else self.inputs[rows]
            h = h.unsqueeze(1) if h.ndim == 2 else h
            turned = (h.transpose(0, 1) @ turns).transpose(0, 1)
            along = torch.einsum("mda,dak->mdk", turned**2, variance)
        drawn = with_noise(torch.zeros_like(along), along)
        return torch.einsum("mdk,djk->mdj", drawn, self.outputs[rows])

    def kl(self, prior_std: float) -> Tensor:
        """What widths add to the divergence from a prior of width `prior_std`, in nats."""
        log_ratio = self.log_variance - 2 * math.log(prior_std)
        return 0.5 * (torch.exp(log_ratio) - 1 - log_ratio).sum()

    def check(self) -> None:
        """Refuse stored axes that are no rotations.

        Raises
        ------
        ValueError
        """
        for axes in (self.inputs, self.outputs):
            product = axes.transpose(1, 2) @ axes
            if not bool(((product - torch.eye(axes.shape[-1])).abs() < _ROUNDING).all()):
                raise ValueError("axes of a posterior are not orthogonal")


def with_noise(mean: Tensor, variance: Tensor) -> Tensor:
    """A Gaussian draw for every element."""
    # The smallest variance keeps the square root differentiable where all inputs are zero.
    return mean + torch.sqrt(variance.clamp_min(1e-12)) * torch.randn_like(mean)


class Watch:
    """Sums over events of what a linear map gets forwards, and its outputs backwards.

    Parameters
    ----------
    n, n_inputs, n_outputs : int
        As of `PrincipalAxes`.
    """

    def __init__(self, n: int, n_inputs: int, n_outputs: int, device: torch.device) -> None:
        self.shape, self.device = (n, n_inputs, n_outputs), device
        self.inputs = torch.zeros(1, n_inputs, n_inputs, device=device)
        self.outputs = torch.zeros(n, n_outputs, n_outputs, device=device)
        self.axes: PrincipalAxes | None = None

    def __call__(self, hidden: Tensor, out: Tensor, rows: list[int]) -> None:
        """Follow one pass: inputs (m, w) of all matrices or (m, d, w), and outputs (m, d[, k])."""
        if out.requires_grad:
            seen = hidden.detach()
            out.register_hook(lambda gradient: self._add(seen, gradient.detach(), rows))

    def _add(self, hidden: Tensor, gradient: Tensor, rows: list[int]) -> None:
        g = gradient if gradient.ndim == 3 else gradient.unsqueeze(-1)
        h = nn.functional.pad(hidden, (0, 1), value=1.0)
        if h.ndim == 3 and len(self.inputs) == 1:  # each matrix has inputs of its own
            self.inputs = self.inputs.repeat(self.shape[0], 1, 1)
        shared = len(self.inputs) == 1
        for i, row in enumerate(rows):
            hi, gi = (h if h.ndim == 2 else h[:, i]), g[:, i]
            number = 0 if shared else row
            if self.axes is None:
                self.inputs[number] += (hi * (gi**2).sum(-1, keepdim=True)).t() @ hi
                self.outputs[row] += (gi * (hi**2).sum(-1, keepdim=True)).t() @ gi
            else:
                u, v = self.axes.inputs[number], self.axes.outputs[row]
                self.axes.log_variance[row] += ((hi @ u) ** 2).t() @ (gi @ v) ** 2

    def rotate(self) -> None:
        """Take the axes from the sums so far, and begin those along them."""
        self.axes = PrincipalAxes(*self.shape, len(self.inputs)).to(self.device)
        for stored, moments in (
            (self.axes.inputs, self.inputs), (self.axes.outputs, self.outputs)
        ):  # fmt: skip
            stored.copy_(torch.linalg.eigh(moments.cpu().double())[1])

    def posterior(self, scale: float, prior_std: float) -> PrincipalAxes:
        """Axes with the variances that the sums, times a scale, leave."""
        assert self.axes is not None
        information = self.axes.log_variance.double()
        self.axes.log_variance.copy_(-torch.log(scale * information + prior_std**-2))
        return self.axes
