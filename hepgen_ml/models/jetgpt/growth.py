"""Events that are generated object by object, with a probability to stop after each.

The networks of `hepgen_ml.models.jetgpt.splitting`: a causal transformer reads objects and gives,
after each, the probability of another jet and a vector that `AutoregressiveDensity` turns into the
density of its components. Jets share all parameters and have no position, so that the network can
generate more of them than occur in the training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepgen_ml.config import Config
from hepgen_ml.errors import ModelError
from hepgen_ml.models.base import DensityModel, Draws, Inside
from hepgen_ml.models.conditions import CoordinateEmbedding, GivenEmbedding
from hepgen_ml.models.jetgpt.autoregressive import AutoregressiveDensity
from hepgen_ml.models.jetgpt.kinds import Kinds, ObjectLists
from hepgen_ml.models.jetgpt.settings import JetGPTConfig, SplittingConfig
from hepgen_ml.models.rates import Rates
from hepgen_ml.networks.bayesian import BayesianLinear, make_bayesian
from hepgen_ml.networks.elementwise import SiLU
from hepgen_ml.networks.transformer import CausalTransformer
from hepgen_ml.process.conditions import Conditions
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.labels import labelled, relabelled, values_of, which
from hepgen_ml.process.multiplicity import families
from hepgen_ml.process.process import Process

_BATCH = 8192
"""Events sampled together."""

_MAX_ROUNDS = 200
"""Largest number of redraws of an object outside the cuts before its event is restarted."""


class GrowingDensity(DensityModel):
    """Networks of objects and their components, and events that are drawn from them.

    Blocks of the network are shared between the two transformers, the larger half for
    the components.

    Parameters
    ----------
    process : Process
        From `hepgen_ml.process.multiplicity.with_more_jets`, so that it has all multiplicities up
        to the largest to be generated.
    config : Config
    """

    learns_rates = True
    conditional = True

    def __init__(self, process: Process, config: Config) -> None:
        super().__init__(process)
        net, jetgpt = config.network, config.section(JetGPTConfig)
        pointers = config.section(SplittingConfig).pointers
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
        if pointers and not jetgpt.order:
            config = config.with_(jetgpt__order=self.lists.order)
        self.components = AutoregressiveDensity(
            Kinds(self.lists.kinds),
            nn.Identity(),
            config.with_(network=net.model_copy(update={"blocks": net.blocks - first})),
            n_kinds=self.lists.n_flavours if pointers else 0,
        )
        self.embedding = CoordinateEmbedding([k.coordinates for k in self.lists.kinds], net.width)
        self.following = nn.Embedding(len(self.lists.kinds), net.width)
        self.balance = nn.Sequential(
            nn.Linear(3, net.width), SiLU(), nn.Linear(net.width, net.width)
        )
        self.start = nn.Embedding(len(self.families), net.width)
        self._depend_on(process.conditions, net.width)
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
        # Log odds of another jet after each object, from `hepgen_ml.models.jetgpt.calibration`.
        self.offset: Tensor
        longest = max(map(len, self.objects))
        self.register_buffer("offset", torch.zeros(len(self.families), longest + 1))
        # Of each object, and the splitting after it, in the loss; from the same.
        self.emphasis: Tensor
        self.register_buffer(
            "emphasis", torch.ones(len(self.families), longest + 1), persistent=False
        )
        self.drawn = torch.zeros(len(process.channels), dtype=torch.float64)
        self.accepted = torch.zeros(len(process.channels), dtype=torch.float64)
        self.begun = torch.zeros(len(self.families), dtype=torch.float64)
        self.finished = torch.zeros(len(self.families), dtype=torch.float64)

    def _depend_on(self, conditions: Conditions | None, width: int) -> None:
        """Let events and the rates of families depend on conditions of the user."""
        self.conditions = conditions
        self.given: GivenEmbedding | None = None
        self.families_given: Rates | None = None
        if conditions is not None:
            self.given = GivenEmbedding(conditions, width)
            self.families_given = Rates(conditions, len(self.families))

    def fit_coordinates(self, x: Tensor, subprocess: Tensor) -> None:
        """One mean and width per kind of object, so that they hold for any number of jets."""
        subprocess = which(subprocess)
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

    def shown(self, labels: Tensor) -> Tensor | None:
        """Vectors (m, width) of the user's conditions, if there are any."""
        return None if self.given is None else self.given(labels)

    def log_family(self, labels: Tensor) -> Tensor:
        """Logarithms (m,) of the probabilities of the families of events."""
        family = self.family_of[which(labels)]
        if self.families_given is None:
            return torch.log(self.family_probability[family])
        return self.families_given.log_prob(relabelled(labels, family))

    def fit_families(self, encoded: Encoded) -> None:
        """Take the probabilities of families given conditions from a sample."""
        if self.families_given is not None:
            family = relabelled(encoded.labels, self.family_of.cpu()[encoded.subprocess])
            frequency = self.family_probability.tolist()
            self.families_given.fit(family, encoded.weight, frequency)

    def histories(
        self, z: Tensor, p: Tensor, family: int, length: int, shown: Tensor | None = None
    ) -> Tensor:
        """Hidden states (m, length + 1, width) before the first and after each object.

        Momenta p (m, R, 4) are those of z; vectors (m, width) those of the user's conditions.
        """
        objects = self.objects[family]
        start = self.start.weight[family].expand(len(z), -1)
        if shown is not None:
            start = start + shown
        tokens = [start]
        for kind, columns in objects[:length]:
            tokens.append(self.embedding.total(z[:, columns], kind))
        following = [objects[min(i, len(objects) - 1)][0] for i in range(length + 1)]
        tokens = [t + self.following.weight[k] for t, k in zip(tokens, following, strict=True)]
        stacked = torch.stack(tokens, dim=1)
        if self.components.pointers is not None:
            # Transverse momenta do not balance if a jet is missing (2412.12074, equation 5.26).
            before = [p[:, b, :2].sum(1) for b in self.lists.before(family, length)]
            missing = torch.stack(before, dim=1).norm(dim=-1).float()
            seen = [torch.log(missing + 1) - 2, torch.tanh(missing / 15), torch.tanh(missing / 40)]
            stacked = stacked + self.balance(torch.stack(seen, dim=-1))
        hidden: Tensor = self.history(stacked)
        return hidden

    def log_odds(self, hidden: Tensor, family: int) -> Tensor:
        """Log odds (m, k) of another object after the last k of hidden states (m, length + 1)."""
        first, end = self.fixed[family], hidden.shape[1]
        logits: Tensor = self.splitting(hidden[:, first:]).squeeze(-1)
        return logits + self.offset[family, first:end]

    def momenta(
        self, z: Tensor, family: int, length: int, given: Tensor | None = None
    ) -> Tensor:
        """Momenta (m, R, 4) of the objects so far; later rows are arbitrary.

        Conditions (m, K) of the user where there are any.
        """
        c = self.lists.channel(family, length)
        channel, n = self.channels[c], len(self.layouts[c])
        x = z[:, :n].to(torch.float64) * self.std[c, :n] + self.mean[c, :n]
        p, _ = channel.chart.given(given).inverse(channel.join(x, torch.zeros_like(x[:, 0])))
        return p

    @torch.no_grad()
    def sample_z(self, subprocess: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Coordinates of events that are forced to have these numbers of jets."""
        z = torch.zeros(len(subprocess), self.mean.shape[1], device=self.mean.device)
        for number in range(len(self.families)):
            rows = torch.nonzero(self.family_of[which(subprocess)] == number).squeeze(-1)
            for part in rows.split(_BATCH):
                wanted, given = self.n_objects[which(subprocess[part])], values_of(subprocess[part])
                z[part] = self._grow(number, len(part), generator, None, wanted, given)[0]
        return z

    @torch.no_grad()
    def sample_events(
        self,
        n: int,
        generator: torch.Generator | None = None,
        inside: Inside | None = None,
        conditions: Tensor | None = None,
    ) -> Draws:
        """Draw events; the network decides the number of jets.

        Parameters
        ----------
        n : int
        generator : torch.Generator, optional
        inside : callable, optional
            Objects that put their event outside are drawn again, so that neither the number
            of jets nor the objects before are distorted.
        conditions : (n, K) float64 tensor, optional
            Of the user.

        Returns
        -------
        Draws
            Events that would continue beyond the largest number of jets are left out. The counts
            are those of objects, not of events.
        """
        before = self._counts()
        device = self.mean.device
        z = torch.zeros(n, self.mean.shape[1], device=device)
        subprocess = torch.zeros(n, dtype=torch.int64, device=device)
        if self.families_given is not None and conditions is not None:
            conditions = conditions.to(device)
            families = which(self.families_given.draw(conditions, generator))
        else:
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
                    given = None if conditions is None else conditions[part]
                    drawn, made = self._grow(number, len(part), generator, inside, None, given)
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
        counts = [new - old for new, old in zip(self._counts(), before, strict=True)]
        return Draws(self.restore(z, subprocess), subprocess, int(counts[0]), int(counts[1]))

    def _counts(self) -> tuple[float, float]:
        return float(self.drawn.sum()), float(self.accepted.sum())

    def acceptance(
        self, inside: Inside, n: int, generator: torch.Generator | None = None
    ) -> list[float]:
        """Fraction of draws inside the cuts for each channel, all its objects together.

        Includes events that are never completed. A mean over histories, because the acceptance of
        an object depends slightly on those before it. Channels too rare to be drawn count as 1.
        """
        for count in (self.drawn, self.accepted, self.begun, self.finished):
            count.zero_()
        given = None if self.conditions is None else self.conditions.drawn(n, generator)
        self.sample_events(n, generator, inside, given)
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
        given: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Events of a family and their subprocesses, -1 if an event was not completed.

        With a given number of objects (n,) events continue until they have it. Conditions (n, K) of
        the user where there are any.
        """
        objects, fixed = self.objects[family], self.fixed[family]
        numbers = torch.tensor(self.families[family].subprocess, device=self.mean.device)
        z = torch.zeros(n, self.mean.shape[1], device=self.mean.device)
        subprocess = torch.full((n,), -1, device=self.mean.device)
        alive = torch.arange(n, device=self.mean.device)
        shown = None if given is None else self.shown(labelled(torch.zeros_like(alive), given))
        for place in range(len(objects) + 1):
            values = None if given is None else given[alive]
            momenta = self.momenta(z[alive], family, place, values)
            seen = None if shown is None else shown[alive]
            hidden = self.histories(z[alive], momenta, family, place, seen)
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
            around = None
            if place > 0:
                now = None if given is None else given[alive]
                around = self.lists.around(momenta, family, place, place, now)
            # Cuts are applied first when all fixed objects are placed; if there are several of
            # these, an earlier one may violate the cut, and the event is restarted.
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
                if given is not None:
                    sub = labelled(sub, given[alive[todo]])
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
