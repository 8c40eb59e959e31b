r"""JetGPT with the multiplicity in its likelihood (arXiv:2412.12074, chapter 5 of the thesis).

Objects are added one by one, the way jets are radiated, and after each the event may stop:

.. math:: p(x_{1:n}) = \prod_{i=1}^n p_{kin}(x_i | x_{1:i-1})
          \prod_{i} p_{bin}(1 - \delta_{in} | p_{split}(x_{1:i})),

equation 5.16. A causal transformer reads objects and gives, after each, the
probability of another jet and a vector that `AutoregressiveDensity` turns into
the density of its components. Jets share all parameters and have no position, so
that the network can be asked for more of them than it has ever seen.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepgen_ml.config import Config
from hepgen_ml.errors import ModelError
from hepgen_ml.models.autoregressive import AutoregressiveDensity
from hepgen_ml.models.base import DensityModel, weighted_mean
from hepgen_ml.models.calibration import fit_edges
from hepgen_ml.models.conditions import CoordinateEmbedding
from hepgen_ml.models.extrapolation import Extrapolation
from hepgen_ml.models.kinds import Kinds, ObjectLists
from hepgen_ml.models.pointers import Surroundings
from hepgen_ml.networks.bayesian import BayesianLinear, kl_divergence, make_bayesian
from hepgen_ml.networks.elementwise import SiLU
from hepgen_ml.networks.transformer import CausalTransformer
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.multiplicity import families
from hepgen_ml.process.process import Process

_BATCH = 8192
"""Events sampled together."""

_MAX_ROUNDS = 200
"""Redraws of an object outside the cuts before its event is begun anew."""

Inside = Callable[[Tensor, Tensor], Tensor]
"""Which events (m,) with coordinates (m, D) float64 and subprocesses (m,) are inside the cuts."""


class SplittingJetGPT(DensityModel):
    """Objects, their components and the number of jets as one autoregressive density.

    Blocks of the network are shared between the two transformers, the larger half for
    the components.

    Parameters
    ----------
    process : Process
        From `hepgen_ml.process.multiplicity.with_more_jets`, so that it has all multiplicities up
        to the largest to be generated.
    config : Config
    """

    name = "jetgpt-splitting"
    chooses_subprocess = True

    def __init__(self, process: Process, config: Config) -> None:
        super().__init__(process)
        net, jetgpt = config.network, config.jetgpt
        self.families = families(process)
        self.lists = ObjectLists(process, self.families, self.layouts)
        self.objects, self.fixed = self.lists.objects, self.lists.fixed
        family_of = torch.zeros(len(process.subprocesses), dtype=torch.int64)
        n_objects = torch.zeros(len(process.subprocesses), dtype=torch.int64)
        for number, family in enumerate(self.families):
            for extra, sub in enumerate(family.subprocess):
                family_of[sub], n_objects[sub] = number, self.fixed[number] + extra
        self.family_of: Tensor
        self.n_objects: Tensor
        self.family_probability: Tensor
        self.register_buffer("family_of", family_of, persistent=False)
        self.register_buffer("n_objects", n_objects, persistent=False)
        frequency = torch.tensor([f.frequency for f in self.families])
        self.register_buffer("family_probability", frequency / frequency.sum(), persistent=False)
        self.channels = process.channels
        first = net.blocks // 2
        if config.splitting.pointers and not jetgpt.order:
            config = config.with_(jetgpt__order=self.lists.order)
        self.components = AutoregressiveDensity(
            Kinds(self.lists.kinds),
            nn.Identity(),
            config.with_(network=net.model_copy(update={"blocks": net.blocks - first})),
            n_kinds=self.lists.n_flavours if config.splitting.pointers else 0,
        )
        self.embedding = CoordinateEmbedding([k.coordinates for k in self.lists.kinds], net.width)
        self.following = nn.Embedding(len(self.lists.kinds), net.width)
        self.balance = nn.Sequential(
            nn.Linear(3, net.width), SiLU(), nn.Linear(net.width, net.width)
        )
        self.start = nn.Embedding(len(self.families), net.width)
        self.history = CausalTransformer(
            net.width, max(first, 1), net.heads, net.mlp_ratio, net.dropout
        )
        self.splitting: nn.Module = nn.Linear(net.width, 1)
        if jetgpt.bayesian != "off":
            assert isinstance(self.splitting, nn.Linear)
            self.splitting = BayesianLinear(self.splitting, jetgpt.prior_std)
        if jetgpt.bayesian == "all":
            make_bayesian(self.history, jetgpt.prior_std)
            make_bayesian(self.balance, jetgpt.prior_std)
        # Log odds of another jet after each object, from `hepgen_ml.models.calibration`.
        self.offset: Tensor
        longest = max(map(len, self.objects))
        self.register_buffer("offset", torch.zeros(len(self.families), longest + 1))
        # Of each object, and the splitting after it, in the loss; from the same.
        self.emphasis: Tensor
        self.register_buffer(
            "emphasis", torch.ones(len(self.families), longest + 1), persistent=False
        )
        self.extrapolation = Extrapolation(process, self.families, config.splitting)
        self.keeps_plan = config.splitting.extrapolation == "bootstrap"
        self.drawn = torch.zeros(len(process.channels), dtype=torch.float64)
        self.accepted = torch.zeros(len(process.channels), dtype=torch.float64)
        self.begun = torch.zeros(len(self.families), dtype=torch.float64)
        self.finished = torch.zeros(len(self.families), dtype=torch.float64)

    def fit_coordinates(self, x: Tensor, subprocess: Tensor) -> None:
        """One mean and width per kind of object, so that they hold for any number of jets."""
        parts, kinds = [], []
        for x_of, kind in self._each_object(x, subprocess):
            parts.append(F.pad(x_of, (0, self.components.mean.shape[1] - x_of.shape[1])))
            kinds.append(torch.full((len(x_of),), kind))
        self.components.fit_coordinates(torch.cat(parts), torch.cat(kinds))
        for family, objects in zip(self.families, self.objects, strict=True):
            for sub in family.subprocess:
                channel = int(self.channel_of[sub])
                for kind, columns in objects[: int(self.n_objects[sub])]:
                    n = len(columns)
                    self.mean[channel, columns] = self.components.mean[kind, :n]
                    self.std[channel, columns] = self.components.std[kind, :n]

    def fit_standardization(self, encoded: Encoded) -> None:
        super().fit_standardization(encoded)
        self.extrapolation.fit(encoded)
        if self.components.pointers is not None:
            fit_edges(self, encoded)

    def _each_object(self, z: Tensor, subprocess: Tensor) -> list[tuple[Tensor, int]]:
        """Components (m, k) of all objects of events, one kind and place at a time."""
        found = []
        for number, objects in enumerate(self.objects):
            rows = self.family_of[subprocess] == number
            n = self.n_objects[subprocess]
            for place, (kind, columns) in enumerate(objects):
                some = rows & (n > place)
                if some.any():
                    found.append((z[some][:, columns], kind))
        return found

    def histories(self, z: Tensor, p: Tensor, family: int, length: int) -> Tensor:
        """Hidden states (m, length + 1, width) before the first and after each object.

        Momenta p (m, R, 4) are those of z.
        """
        objects = self.objects[family]
        start = self.start.weight[family].expand(len(z), -1)
        tokens = [start]
        for kind, columns in objects[:length]:
            tokens.append(self.embedding.total(z[:, columns], kind))
        following = [objects[min(i, len(objects) - 1)][0] for i in range(length + 1)]
        tokens = [t + self.following.weight[k] for t, k in zip(tokens, following, strict=True)]
        stacked = torch.stack(tokens, dim=1)
        if self.components.pointers is not None:
            # Events to which a jet is still to come do not balance (2412.12074, equation 5.26).
            before = [p[:, b, :2].sum(1) for b in self.lists.before(family, length)]
            missing = torch.stack(before, dim=1).norm(dim=-1).float()
            shown = [torch.log(missing + 1) - 2, torch.tanh(missing / 15), torch.tanh(missing / 40)]
            stacked = stacked + self.balance(torch.stack(shown, dim=-1))
        hidden: Tensor = self.history(stacked)
        return hidden

    def log_odds(self, hidden: Tensor, family: int) -> Tensor:
        """Log odds (m, k) of another object after the last k of hidden states (m, length + 1)."""
        first, end = self.fixed[family], hidden.shape[1]
        logits: Tensor = self.splitting(hidden[:, first:]).squeeze(-1)
        return logits + self.offset[family, first:end]

    def _terms(self, z: Tensor, subprocess: Tensor, *, training: bool) -> Tensor:
        """Log density (m,); while training, with what an extrapolation makes of the last stop.

        Then, too, objects and splittings count as `hepgen_ml.models.calibration.emphasize` says.
        """
        total = torch.log(self.family_probability[self.family_of[subprocess]]).to(z.dtype)
        n_objects = self.n_objects[subprocess]
        for number, family in enumerate(self.families):
            in_family = self.family_of[subprocess] == number
            fixed, objects = self.fixed[number], self.objects[number]
            short = n_objects <= fixed + 1
            # Most events have few jets: they need no padding to the length of the others.
            for chosen in (in_family & short, in_family & ~short):
                rows = torch.nonzero(chosen).squeeze(-1)
                if len(rows) == 0:
                    continue
                zs, n = z[rows], n_objects[rows]
                length = int(n.max())
                momenta = self.momenta(zs, number, length)
                hidden = self.histories(zs, momenta, number, length)
                by_kind: dict[int, list[tuple[int, list[int]]]] = {}
                for place, (kind, columns) in enumerate(objects[:length]):
                    by_kind.setdefault(kind, []).append((place, columns))
                for kind, places in by_kind.items():
                    some = [torch.nonzero(n > place).squeeze(-1) for place, _ in places]
                    values = [zs[i][:, c] for i, (_, c) in zip(some, places, strict=True)]
                    condition = [hidden[i, k] for i, (k, _) in zip(some, places, strict=True)]
                    around = [
                        self.lists.around(momenta[i], number, length, place)
                        for i, (place, _) in zip(some, places, strict=True)
                    ]
                    log_p = self.components.log_prob_given(
                        torch.cat(values),
                        torch.cat(condition),
                        kind,
                        around=None if places[0][0] == 0 else Surroundings.join(around),
                    )
                    if training:
                        factors = [self.emphasis[number, place + 1] for place, _ in places]
                        each = zip(factors, some, strict=True)
                        log_p = log_p * torch.cat([f.expand(len(i)) for f, i in each])
                    total = total.index_add(0, rows[torch.cat(some)], log_p)
                logits = self.log_odds(hidden, number)
                stops = torch.arange(fixed, length + 1, device=z.device)
                goes_on = (stops < n.unsqueeze(-1)).to(z.dtype)
                weight = (stops <= n.unsqueeze(-1)).to(z.dtype)
                if training:
                    last = n == fixed + family.top - family.fewest
                    self.extrapolation.change(
                        goes_on, weight, last, zs, subprocess[rows], n - fixed, self.restore
                    )
                    weight = weight * self.emphasis[number, fixed : length + 1]
                entropy = F.binary_cross_entropy_with_logits(logits, goes_on, reduction="none")
                total = total.index_add(0, rows, -(weight * entropy).sum(-1))
        return total

    def momenta(self, z: Tensor, family: int, length: int) -> Tensor:
        """Momenta (m, R, 4) of the objects so far; whatever comes after them is arbitrary."""
        c = self.lists.channel(family, length)
        channel, n = self.channels[c], len(self.layouts[c])
        x = z[:, :n].to(torch.float64) * self.std[c, :n] + self.mean[c, :n]
        p, _ = channel.chart.inverse(channel.join(x, torch.zeros_like(x[:, 0])))
        return p

    def log_prob_z(self, z: Tensor, subprocess: Tensor) -> Tensor:
        """Log density (m,) including the probability of the number of jets."""
        return self._terms(z, subprocess, training=False)

    def loss(self, z: Tensor, subprocess: Tensor, weight: Tensor) -> Tensor:
        """Equation 5.21, or 5.22, 5.29; with KL over the training events (5.23) if Bayesian."""
        if self.training:
            z, subprocess, weight = self.extrapolation.bootstrapped(self, z, subprocess, weight)
        sizes = self.sizes[self.channel_of[subprocess]] + 1  # and the number of jets
        loss = weighted_mean(-self._terms(z, subprocess, training=True), weight, sizes)
        return loss + kl_divergence(self) / self.n_training if self.training else loss

    @torch.no_grad()
    def sample_z(self, subprocess: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Coordinates of events that are made to go on to these numbers of jets."""
        z = torch.zeros(len(subprocess), self.mean.shape[1], device=self.mean.device)
        for number in range(len(self.families)):
            rows = torch.nonzero(self.family_of[subprocess] == number).squeeze(-1)
            for part in rows.split(_BATCH):
                wanted = self.n_objects[subprocess[part]]
                z[part] = self._grow(number, len(part), generator, None, wanted)[0]
        return z

    @torch.no_grad()
    def sample_events(
        self, n: int, generator: torch.Generator | None = None, inside: Inside | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw events with as many jets as the network likes.

        Parameters
        ----------
        n : int
        generator : torch.Generator, optional
        inside : callable, optional
            Objects that put their event outside are drawn again, so that neither the number
            of jets nor the objects before are distorted.

        Returns
        -------
        x : (n, D) float64 tensor
        subprocess : (n,) int64 tensor
            Events that would go on beyond the largest number of jets are not among them.
        """
        device = self.mean.device
        z = torch.zeros(n, self.mean.shape[1], device=device)
        subprocess = torch.zeros(n, dtype=torch.int64, device=device)
        families = torch.multinomial(
            self.family_probability, n, replacement=True, generator=generator
        )
        for number in range(len(self.families)):
            todo = torch.nonzero(families == number).squeeze(-1)
            for _ in range(_MAX_ROUNDS):
                if len(todo) == 0:
                    break
                left = []
                for part in todo.split(_BATCH):
                    drawn, made = self._grow(number, len(part), generator, inside, None)
                    z[part], subprocess[part] = drawn, made
                    left.append(part[made < 0])
                self.begun[number] += len(todo)
                todo = torch.cat(left)
            else:
                raise ModelError(
                    f"{len(todo)} of {n} events keep falling outside the cuts or growing beyond "
                    "the largest number of jets",
                    remedy="the model is not trained well enough; train longer",
                )
        self.finished += torch.bincount(families.cpu(), minlength=len(self.families))
        return self.restore(z, subprocess), subprocess

    def measure_acceptance(
        self, inside: Inside, n: int, generator: torch.Generator | None = None
    ) -> list[float]:
        """Fraction of draws inside the cuts for each channel, all its objects together.

        Also of those events that come to an end at all. A mean over histories: what an object
        may do depends a little on those before it. Channels too rare to be drawn count as 1.
        """
        for count in (self.drawn, self.accepted, self.begun, self.finished):
            count.zero_()
        self.sample_events(n, generator, inside)
        ended = (self.finished / self.begun.clamp_min(1)).clamp(0.0, 1.0)
        each = torch.where(self.drawn > 0, self.accepted / self.drawn.clamp_min(1), 1.0)
        fractions = torch.ones(len(self.layouts), dtype=torch.float64)
        for number, family in enumerate(self.families):
            channels = self.channel_of[torch.tensor(family.subprocess)].cpu()
            fractions[channels] = each[channels].cumprod(0) * ended[number]
        return fractions.clamp_min(1e-3).tolist()

    def _grow(
        self,
        family: int,
        n: int,
        generator: torch.Generator | None,
        inside: Inside | None,
        wanted: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Events of a family and their subprocesses, -1 where one did not come to an end.

        With a wanted number of objects (n,) events go on until they have it.
        """
        objects, fixed = self.objects[family], self.fixed[family]
        numbers = torch.tensor(self.families[family].subprocess, device=self.mean.device)
        z = torch.zeros(n, self.mean.shape[1], device=self.mean.device)
        subprocess = torch.full((n,), -1, device=self.mean.device)
        alive = torch.arange(n, device=self.mean.device)
        for place in range(len(objects) + 1):
            momenta = self.momenta(z[alive], family, place)
            hidden = self.histories(z[alive], momenta, family, place)
            if place >= fixed:
                if wanted is None:
                    p = torch.sigmoid(self.log_odds(hidden, family)[:, -1])
                    u = torch.rand(len(p), generator=generator, device=p.device)
                    goes_on = u < p
                else:
                    goes_on = wanted[alive] > place
                subprocess[alive[~goes_on]] = numbers[place - fixed]
                alive, hidden, momenta = alive[goes_on], hidden[goes_on], momenta[goes_on]
            if place == len(objects) or len(alive) == 0:
                break
            kind, columns = objects[place]
            at = torch.tensor(columns, device=z.device)
            partial = numbers[place + 1 - fixed] if place + 1 >= fixed else None
            todo = torch.arange(len(alive), device=z.device)
            around = self.lists.around(momenta, family, place, place) if place > 0 else None
            # Cuts are first asked when all fixed objects stand; if these are several, one of the
            # earlier may be at fault, and the event is begun anew.
            whole = place + 1 == fixed and fixed > 1
            for _ in range(1 if whole else _MAX_ROUNDS):
                drawn = self.components.sample_given(
                    hidden[todo, -1], kind, generator, None if around is None else around[todo]
                )
                z[alive[todo].unsqueeze(1), at] = drawn
                if inside is None or partial is None:
                    todo = todo[:0]
                    break
                sub = partial.expand(len(todo))
                good = inside(self.restore(z[alive[todo]], sub), sub)
                channel = int(self.channel_of[partial])
                if not whole:
                    self.drawn[channel] += len(todo)
                    self.accepted[channel] += int(good.sum())
                todo = todo[~good]
                if len(todo) == 0:
                    break
            keep = torch.ones(len(alive), dtype=torch.bool, device=z.device)
            keep[todo] = False
            alive = alive[keep]
        return z, subprocess
