"""JetGPT: autoregressive density of one-dimensional factors (arXiv:2305.10475, 2412.12074).

p(x) = prod_i p(x_i | x_1 ... x_(i-1)), equation 17 of 2305.10475: a causal
transformer reads one coordinate per token and predicts the parameters of a
one-dimensional density for the next. The subprocess is a condition of every token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepgen_ml.config import Config
from hepgen_ml.models.base import DensityModel, Space, weighted_mean
from hepgen_ml.models.conditions import (
    N_FEATURES,
    SubprocessEmbedding,
    coordinate_features,
    coordinate_numbers,
)
from hepgen_ml.models.jetgpt.densities import (
    Density1D,
    GaussianMixture,
    VonMisesMixture,
    check_order,
    choose_densities,
    order_of,
)
from hepgen_ml.models.jetgpt.mixed_layouts import MixedLayouts, Weights, padded
from hepgen_ml.models.jetgpt.placement import Placement, direction_of
from hepgen_ml.models.jetgpt.pointers import Pointers, Surroundings
from hepgen_ml.models.jetgpt.settings import JetGPTConfig
from hepgen_ml.networks.bayesian import (
    Variational,
    kl_divergence,
    make_bayesian,
    perturbed,
    without_noise,
)
from hepgen_ml.networks.transformer import CausalTransformer
from hepgen_ml.process.labels import which
from hepgen_ml.process.process import Process

_BATCH = {True: 2048, False: 65536}
"""Events sampled together, on a CPU (where keys and values should stay in the cache) or not."""

_MANY, _FEW, _FEW_EVENTS = 32, 4, 64
"""Layouts of coordinates up to which each has a pass of its own; of fewer events than the last
number for each, up to the second."""

_HEAD = "mtw,twk->mtk"
"""Product of hidden states with the output matrices of their coordinates."""


class AutoregressiveDensity(DensityModel):
    """Autoregressive transformer over one-dimensional coordinates.

    Coordinates of the same name in different channels (the rapidity of the
    top quark, say) share their parameters, so that channels of different
    multiplicity are learned jointly. Arguments and results have the columns of
    the channel's layout; the order of the factors is a matter of the inside.

    Parameters
    ----------
    space : Space
        Coordinates; a `Process`, or any other.
    condition : nn.Module
        Called without arguments, gives a vector (S, width) for every condition.
    config : Config
    n_kinds : int
        Kinds of objects that directions are placed relative to; none if zero. See
        `hepgen_ml.models.jetgpt.pointers`.
    """

    def __init__(
        self, space: Space, condition: nn.Module, config: Config, n_kinds: int = 0
    ) -> None:
        super().__init__(space)
        net, settings = config.network, config.section(JetGPTConfig)
        names, numbers = coordinate_numbers(self.layouts)
        check_order(list(names), settings.order)
        # There may be thousands of channels, most of which have the coordinates of another one.
        orders = {
            c: order_of([k.name for k in self.layouts[c]], settings.order)
            for c in set(self.alike.tolist())
        }
        self.order = [orders[c] for c in self.alike.tolist()]
        self.numbers = [[n[i] for i in o] for n, o in zip(numbers, self.order, strict=True)]
        # Coordinates and parameters of densities need more digits than bfloat16 has; only the
        # transformer between them may run in it.
        self.pointers = Pointers(list(names), n_kinds, net.width) if n_kinds else None
        self.bfloat16_blocks = config.training.precision == "bfloat16"
        self.condition = condition
        self.target = nn.Embedding(len(names), net.width)
        value = torch.randn(len(names), N_FEATURES, net.width) * 0.2
        self.transformer = CausalTransformer(
            net.width, net.blocks, net.heads, net.mlp_ratio, net.dropout
        )
        densities = choose_densities(names, config)
        self.densities = nn.ModuleList(densities)
        n_parameters = max(d.n_parameters for d in densities)
        head = torch.randn(len(names), net.width, n_parameters) * 0.02
        padded = [F.pad(d.bias(), (0, n_parameters - d.n_parameters)) for d in densities]
        bias = torch.stack(padded)
        # Angles enter through their harmonics, which are continuous across +-pi.
        keep = torch.ones(len(names), N_FEATURES)
        keep[list(names.values()), 0] = 0.0
        self.keep: Tensor
        self.register_buffer("keep", keep, persistent=False)
        self.value: nn.Parameter | Variational
        self.head: nn.Parameter | Variational
        self.head_bias: nn.Parameter | Variational
        self.only_head_varies = settings.bayesian == "last"
        if settings.bayesian == "all":
            make_bayesian(self.transformer, settings.prior_std)
            self.value = Variational(value, settings.prior_std, keep.bool().unsqueeze(-1))
        else:
            self.value = nn.Parameter(value)
        if settings.bayesian == "off":
            self.head, self.head_bias = nn.Parameter(head), nn.Parameter(bias)
        else:
            n = torch.tensor([d.n_parameters for d in densities])
            used = torch.arange(n_parameters) < n.unsqueeze(-1)
            self.head = Variational(head, settings.prior_std, used.unsqueeze(1))
            self.head_bias = Variational(bias, settings.prior_std, used, self.head)
        if self.pointers is not None and settings.bayesian != "off":
            last = self.pointers.outputs if settings.bayesian == "last" else (self.pointers,)
            for module in last:
                make_bayesian(module, settings.prior_std)
        groups = {
            c: _groups([densities[i] for i in self.numbers[c]]) for c in set(self.alike.tolist())
        }
        self._groups = [groups[c] for c in self.alike.tolist()]
        self.mixed: MixedLayouts | None = None
        if len(torch.unique(self.alike)) > _FEW and settings.bayesian == "off":
            self.mixed = MixedLayouts(self.order, self.numbers, densities)

    def fit_coordinates(self, x: Tensor, subprocess: Tensor) -> None:
        """Take mean and width of each coordinate, and the edges of bins, from a sample."""
        super().fit_coordinates(x, subprocess)
        z = self.prepare(x, subprocess)
        # Channels with the same coordinates together: there may be thousands of channels.
        parts: list[list[Tensor]] = [[] for _ in self.densities]
        for c, rows in self.by_channel(subprocess):
            for number, column in zip(self.numbers[c], self.order[c], strict=True):
                parts[number].append(z[rows, column])
        for number, density in enumerate(self.densities):
            assert isinstance(density, Density1D)
            density.fit(torch.cat([z[:0, 0], *parts[number]]))
            with torch.no_grad():
                without_noise(self.head_bias)[number, : density.n_parameters] = density.bias()

    def _hidden(
        self, z: Tensor, condition: Tensor, channel: int, extra: Tensor | None = None
    ) -> Tensor:
        """Output of the transformer (m, T, width) for ordered coordinates, shifted by one token."""
        numbers = self.numbers[channel]
        features = coordinate_features(z[:, : len(numbers) - 1]) * self.keep[numbers[:-1]]
        past = _product(self.value, "mtf,tfw->mtw", features, numbers[:-1])
        tokens = F.pad(past, (0, 0, 1, 0)) + self.target.weight[numbers]
        tokens = tokens + condition.unsqueeze(1)
        if extra is not None:
            tokens = tokens + extra
        half = self.bfloat16_blocks and self.training
        with torch.autocast(z.device.type, torch.bfloat16, enabled=half):
            hidden: Tensor = self.transformer(tokens)
        return hidden.float()

    def _predicted(self, hidden: Tensor, channel: int) -> Tensor:
        """Parameters (m, T, P) of the densities of all ordered coordinates."""
        numbers = self.numbers[channel]
        out = torch.einsum(_HEAD, hidden, without_noise(self.head)[numbers])
        out = out + without_noise(self.head_bias)[numbers]

        def variance() -> Tensor:
            assert isinstance(self.head, Variational)
            assert isinstance(self.head_bias, Variational)
            found = torch.einsum(_HEAD, hidden * hidden, self.head.variance[numbers])
            return found + self.head_bias.variance[numbers]

        return perturbed(self.head, hidden, out, numbers, variance)

    def _log_prob(
        self, z: Tensor, parameters: Tensor, channel: int, lengths: Tensor | None = None
    ) -> Tensor:
        """Log density (m,) of ordered coordinates, given the parameters.

        Of events with a length (m,) only so many coordinates count.
        """
        total = z.new_zeros(len(z))
        for density, at in self._groups[channel]:
            each = density.log_prob(z[:, at], parameters[:, at, : density.n_parameters])
            if lengths is not None:
                each = each * (torch.tensor(at, device=z.device) < lengths.unsqueeze(-1))
            total = total + each.sum(-1)
        return total

    def parameters_of(self, z: Tensor, subprocess: Tensor, channel: int) -> Tensor:
        """Parameters (m, T, P) of every coordinate of events of one channel, in its layout."""
        order = self.order[channel]
        condition = self._conditions(subprocess)
        parameters = self._predicted(self._hidden(z[:, order], condition, channel), channel)
        return parameters[:, torch.tensor(order).argsort()]

    def log_prob_z(self, z: Tensor, subprocess: Tensor) -> Tensor:
        if self.mixed is not None and self._is_mixed(subprocess):
            return self.mixed.log_prob(
                z, self._conditions(subprocess), self.channel_of[which(subprocess)],
                self.transformer, self._weights(), self.bfloat16_blocks and self.training,
            )  # fmt: skip
        result, conditions = z.new_zeros(len(z)), self._conditions(subprocess)
        for channel, rows, lengths in padded(self.by_channel(subprocess), self.order, self.numbers):
            log_p = self.log_prob_given(z[rows], conditions[rows], channel, lengths)
            result = result.index_put((rows,), log_p)
        return result

    def _is_mixed(self, subprocess: Tensor) -> bool:
        """Whether the events have so many layouts that one common pass is faster."""
        layouts = self.alike.to(subprocess.device)[self.channel_of[which(subprocess)]]
        n = len(torch.unique(layouts))
        return n > _MANY or (n > _FEW and len(subprocess) < _FEW_EVENTS * n)

    def _conditions(self, subprocess: Tensor) -> Tensor:
        """Vectors (m, width) of these labels."""
        if isinstance(self.condition, SubprocessEmbedding):
            return self.condition.of(subprocess)
        conditions: Tensor = self.condition()
        return conditions[subprocess]

    def _weights(self) -> Weights:
        values, heads, biases = (without_noise(w) for w in (self.value, self.head, self.head_bias))
        return Weights(values, self.keep, self.target.weight, heads, biases)

    def log_prob_given(
        self,
        z: Tensor,
        condition: Tensor,
        channel: int,
        lengths: Tensor | None = None,
        around: Surroundings | None = None,
    ) -> Tensor:
        """Log density (m,) of a channel's coordinates, given vectors (m, width) as condition.

        Of events with a length (m,) only so many coordinates, in the model's order, count.
        Models with pointers use the earlier objects.
        """
        ordered = z[:, self.order[channel]]
        placed = self._placement(channel, around)
        told = None if placed is None else placed.notice_all(ordered)
        hidden = self._hidden(ordered, condition, channel, told)
        parameters = self._predicted(hidden, channel)
        if placed is None:
            return self._log_prob(ordered, parameters, channel, lengths)
        each = []
        for t, number in enumerate(self.numbers[channel]):
            density = self.densities[number]
            assert isinstance(density, Density1D)
            plain = parameters[:, t, : density.n_parameters]
            each.append(density.log_prob(ordered[:, t], placed.parameters(t, plain, hidden[:, t])))
        return placed.log_prob(each, hidden)

    def direction(self, channel: int) -> tuple[int, ...]:
        """Positions of pseudorapidity and azimuth among the ordered coordinates, if both exist."""
        assert self.pointers is not None
        return direction_of([self.pointers.what[number] for number in self.numbers[channel]])

    def _placement(self, channel: int, around: Surroundings | None) -> Placement | None:
        if around is None or self.pointers is None:
            return None
        numbers = self.numbers[channel]
        mean, std = (v[channel].tolist() for v in (self.mean, self.std))
        mixtures = [isinstance(self.densities[n], GaussianMixture | VonMisesMixture)
                    for n in numbers]  # fmt: skip
        scales = [(mean[at], std[at]) for at in self.order[channel]]
        return Placement(self.pointers, numbers, around, scales, mixtures)

    def log_prob_draws(self, z: Tensor, subprocess: Tensor, n_draws: int) -> Tensor:
        """See `DensityModel`; hidden states that do not depend on the draw are computed once."""
        if not self.only_head_varies:
            return super().log_prob_draws(z, subprocess, n_draws)
        assert isinstance(self.head, Variational)
        assert isinstance(self.head_bias, Variational)
        draws = [(self.head.draw(k), self.head_bias.draw(k)) for k in range(n_draws)]
        result, conditions = z.new_zeros(n_draws, len(z)), self._conditions(subprocess)
        for channel, rows in self.by_channel(subprocess):
            numbers = self.numbers[channel]
            for part in rows.split(_BATCH[z.device.type == "cpu"]):
                ordered = z[part][:, self.order[channel]]
                hidden = self._hidden(ordered, conditions[part], channel)
                for k, (head, bias) in enumerate(draws):
                    parameters = torch.einsum(_HEAD, hidden, head[numbers]) + bias[numbers]
                    result[k, part] = self._log_prob(ordered, parameters, channel)
        return result

    def loss(self, z: Tensor, subprocess: Tensor, weight: Tensor) -> Tensor:
        """Mean of -log p; while training a Bayesian model, plus KL over the training events."""
        sizes = self.sizes[self.channel_of[which(subprocess)]]
        loss = weighted_mean(-self.log_prob_z(z, subprocess), weight, sizes)
        return loss + kl_divergence(self) / self.n_training if self.training else loss

    @torch.no_grad()
    def sample_z(self, subprocess: Tensor, generator: torch.Generator | None = None) -> Tensor:
        batch = _BATCH[self.mean.device.type == "cpu"]
        if self.mixed is not None and self._is_mixed(subprocess):
            z = torch.zeros(len(subprocess), self.mean.shape[1], device=self.mean.device)
            layout = self.channel_of[which(subprocess)]
            # Group events of similar length, to reduce padding.
            order = torch.argsort(self.mixed.lengths[layout], stable=True)
            for part in order.split(batch):
                z[part] = self.mixed.sample(
                    self._conditions(subprocess[part]), layout[part], self.transformer,
                    self._weights(), generator,
                )  # fmt: skip
            return z
        conditions = self._conditions(subprocess)
        return self.drawn_by_channel(
            subprocess,
            lambda rows, channel: self.sample_given(conditions[rows], channel, generator),
            batch,
        )

    @torch.no_grad()
    def sample_given(
        self,
        condition: Tensor,
        channel: int,
        generator: torch.Generator | None = None,
        around: Surroundings | None = None,
    ) -> Tensor:
        """Coordinates (m, T) of a channel, given vectors (m, width) as condition."""
        placed = self._placement(channel, around)
        numbers = self.numbers[channel]
        values, heads, biases = (without_noise(w) for w in (self.value, self.head, self.head_bias))
        cache = self.transformer.start(len(condition), len(numbers))
        columns: list[Tensor] = []
        for t, number in enumerate(numbers):
            token = (condition + self.target.weight[number]).t()
            if columns:
                last = numbers[t - 1]
                weights = values[last] * self.keep[last].unsqueeze(-1)
                token = torch.addmm(token, weights.t(), coordinate_features(columns[-1]).t())
            if placed is not None:
                token = token + placed.notice(t).t()
            hidden = self.transformer.step(
                token.clone(memory_format=torch.contiguous_format), cache
            )
            density = self.densities[number]
            assert isinstance(density, Density1D)
            n = density.n_parameters
            parameters = torch.addmm(biases[number, :n], hidden.t(), heads[number, :, :n])
            if placed is not None:
                parameters = placed.parameters(t, parameters, hidden.t())
                placed.draw_rings(t, hidden.t(), generator)
            columns.append(density.sample(parameters, generator))
            if placed is not None:
                placed.redirect(t, columns[-1])
                placed.place(t, columns[-1])
        back = sorted(range(len(numbers)), key=self.order[channel].__getitem__)
        return torch.stack([columns[i] for i in back], dim=-1)


class JetGPT(AutoregressiveDensity):
    """Autoregressive transformer over the coordinates of a process.

    Parameters
    ----------
    process : Process
    config : Config
    """

    conditional = True

    def __init__(self, process: Process, config: Config) -> None:
        super().__init__(process, SubprocessEmbedding(process, config.network.width), config)


def _product(
    weights: nn.Parameter | Variational, equation: str, x: Tensor, rows: list[int]
) -> Tensor:
    """Product with some rows of weights, with noise if these have a posterior."""
    if isinstance(weights, Variational):
        return weights.einsum(equation, x, rows)
    return torch.einsum(equation, x, weights[rows])


def _groups(densities: list[Density1D]) -> list[tuple[Density1D, list[int]]]:
    """Densities of the coordinates, each with the columns that share it."""
    distinct = list(dict.fromkeys(densities))
    return [(d, [i for i, other in enumerate(densities) if other is d]) for d in distinct]
