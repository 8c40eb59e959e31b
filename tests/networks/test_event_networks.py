"""Networks of events: symmetries that they promise, masks, shapes, and that they can be stored."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from hepgen_ml.errors import UsageError
from hepgen_ml.networks.event_networks import EventNetwork, build
from hepgen_ml.networks.names import EVENT_NETWORKS
from tests.equivariance import elements, transformed

SMALL: dict[str, dict[str, int]] = {
    "mlp": {"width": 16, "layers": 2},
    "deep-sets": {"width": 16, "layers": 2, "latent": 8},
    "transformer": {"width": 16, "blocks": 2, "heads": 2},
    "gap": {"channels": 4, "scalars": 8, "blocks": 2},
    "gatr": {"channels": 4, "scalars": 8, "blocks": 2, "heads": 2},
    "lgatr": {"channels": 4, "scalars": 8, "blocks": 2, "heads": 2},
}
N, K, S, G, OUT = 6, 5, 3, 2, 2


def events(k: int = K) -> tuple[Tensor, Tensor, Tensor]:
    """Momenta with masses, types as one-hot numbers, and numbers of whole events."""
    generator = torch.Generator().manual_seed(1)
    p = 30 * torch.randn(N, k, 3, generator=generator, dtype=torch.float64)
    mass = 10 * torch.rand(N, k, 1, generator=generator, dtype=torch.float64)
    energy = torch.sqrt((p**2).sum(-1, keepdim=True) + mass**2)
    kinds = torch.eye(S, dtype=torch.float64)[torch.arange(k) % S].expand(N, -1, -1)
    globals_ = torch.randn(N, G, generator=generator, dtype=torch.float64)
    return torch.cat([p, energy], -1), kinds, globals_


def network(name: str, **more: object) -> EventNetwork:
    torch.manual_seed(2)
    made = build(name, S, OUT, n_particles=K, n_globals=G, **SMALL[name] | more).double().eval()
    p, scalars, globals_ = events()
    made.fit_standardization(p, scalars, None, globals_)
    return made


def difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max() / b.detach().abs().max())


@pytest.mark.parametrize("name", EVENT_NETWORKS)
def test_outputs_have_gradients_and_depend_on_all_inputs(name: str) -> None:
    made = network(name)
    p, scalars, globals_ = (x.clone().requires_grad_() for x in events())
    out = made(p, scalars, None, globals_)
    assert out.shape == (N, OUT)
    out.square().sum().backward()
    assert all(x.grad is not None and bool(x.grad.any()) for x in (p, scalars, globals_))
    lost = [n for n, w in made.named_parameters() if w.grad is None and "last" not in n]
    assert not [n for n in lost if "vectors" not in n and "bivectors" not in n]


@pytest.mark.parametrize("name", EVENT_NETWORKS)
def test_single_precision_gives_the_same(name: str) -> None:
    made, (p, scalars, globals_) = network(name), events()
    with torch.no_grad():
        exact = made(p, scalars, None, globals_)
        single = made.float()(p, scalars.float(), None, globals_.float())
    assert single.dtype == torch.float32
    assert difference(single.double(), exact) < 1e-4


@pytest.mark.parametrize("name", [*EVENT_NETWORKS, "deep-sets with invariants"])
def test_the_order_of_particles_counts_where_it_is_said_to(name: str) -> None:
    base, _, invariants = name.partition(" with ")
    made = network(base, **{"invariants": True} if invariants else {})
    p, scalars, globals_ = events()
    order = torch.tensor([3, 0, 4, 1, 2])
    change = difference(
        made(p[:, order], scalars[:, order], None, globals_), made(p, scalars, None, globals_)
    )
    assert (change < 1e-12) == made.permutations


@pytest.mark.parametrize("name", EVENT_NETWORKS)
def test_outputs_are_invariant_as_promised(name: str) -> None:
    made, (p, scalars, globals_) = network(name), events()
    still = made(p, scalars, None, globals_)
    for group in ("rotation", "lorentz"):
        found = [
            difference(made(transformed(g, p), scalars, None, globals_), still)
            for g in elements(group)
        ]
        if made.symmetry in (group, "lorentz"):
            assert max(found) < 1e-9
        else:
            assert max(found) > 1e-6


@pytest.mark.parametrize("references", ["beams+time", "plane"])
@pytest.mark.parametrize("as_tokens", [True, False])
def test_references_leave_rotations_about_the_beams(references: str, as_tokens: bool) -> None:
    made = network("lgatr", references=references, reference_tokens=as_tokens)
    p, scalars, globals_ = events()
    still = made(p, scalars, None, globals_)
    for g in elements("axis"):
        assert difference(made(transformed(g, p), scalars, None, globals_), still) < 1e-9
    g = next(elements("rotation"))
    assert difference(made(transformed(g, p), scalars, None, globals_), still) > 1e-6


@pytest.mark.parametrize("name", [*EVENT_NETWORKS, "deep-sets with invariants"])
def test_missing_particles_count_nothing(name: str) -> None:
    base, _, invariants = name.partition(" with ")
    made = network(base, **{"invariants": True} if invariants else {})
    p, scalars, globals_ = events(3)
    few = made(p, scalars, torch.ones(N, 3, dtype=torch.bool), globals_)
    mask = torch.arange(K).expand(N, -1) < 3
    more, junk = events()[0], torch.full((N, K - 3, S), torch.nan, dtype=torch.float64)
    more[:, 3:] = torch.nan
    more[:, :3] = p
    out = made(more, torch.cat([scalars, junk], 1), mask, globals_)
    assert difference(out, few) < 1e-12
    assert difference(made(*events()[:2], None, globals_), few) > 1e-3
    with torch.no_grad():  # the compiled loops of L-GATr
        single = made.float()(more, torch.cat([scalars, junk], 1), mask, globals_)
    assert difference(single.double(), few) < 1e-4


@pytest.mark.parametrize("name", EVENT_NETWORKS)
def test_settings_make_the_network_again(name: str) -> None:
    made = network(name)
    again = build(**made.settings).double().eval()
    again.load_state_dict(made.state_dict())
    p, scalars, globals_ = events()
    assert torch.equal(again(p, scalars, None, globals_), made(p, scalars, None, globals_))


@pytest.mark.parametrize("name", ["gap", "lgatr"])
def test_invariant_networks_are_standardised_alike_in_any_frame(name: str) -> None:
    p, scalars, globals_ = events()
    made = network(name)
    unit = made.unit.clone()
    for g in elements("lorentz"):
        made.fit_standardization(transformed(g, p), scalars, None, globals_)
        assert float((made.unit / unit - 1).abs()) < 1e-9


def test_what_is_impossible_is_said() -> None:
    for arguments, said in (
        ({"name": "cnn"}, "lgatr"),
        ({"name": "mlp", "blocks": 3}, "width, layers"),
        ({"name": "mlp"}, "number of particles"),
        ({"name": "transformer", "width": 30, "heads": 4}, "heads"),
        ({"name": "transformer", "width": "30"}, "128"),
        ({"name": "lgatr", "references": "moon"}, "beams"),
    ):
        with pytest.raises(UsageError, match=said):
            build(n_scalars=1, n_out=1, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="for 5 at most"):
        network("mlp")(*events(7)[:2])


def test_names_are_listed_without_torch() -> None:
    code = "import sys, hepgen_ml.networks.names; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
