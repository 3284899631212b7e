"""The solver and the transformations of flow matching, and showers on a coarser grid."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bitsearch.core.errors import ConfigurationError
from bitsearch.models.calodream import task
from bitsearch.models.calodream.attention import LoneAttention, SelfAttention
from bitsearch.models.calodream.chains import Postprocessing, Standardization
from bitsearch.models.calodream.solver import Solver, Stages, integrate, stages
from bitsearch.models.leaves import Fold
from bitsearch.models.showers.coarse import coarsen
from bitsearch.models.showers.files import Events
from bitsearch.models.showers.generator import simulate
from bitsearch.models.showers.geometry import embedded
from bitsearch.models.showers.normalization import Selection, normalize

DS2 = embedded("ds2")
COARSE = coarsen(DS2, layers_each=5, angles_each=2, radii=(0, 1, 2, 3, 5, 7))


def test_stage_times_of_the_published_steps() -> None:
    plan = stages(Solver("kutta", 20))
    assert len(plan.times) == 80
    assert len(stages(Solver("kutta", 50)).times) == 200
    torch.testing.assert_close(plan.times[:5, 0], torch.tensor([0, 1 / 60, 2 / 60, 0.05, 0.05]))
    assert plan.times[-1, 0] == 1


def velocity(x: Tensor, t: Tensor) -> Tensor:
    return torch.sin(3 * x) + t * x


def test_integrate_is_the_rule_of_three_eighths() -> None:
    x = torch.randn(6, 5, dtype=torch.float64)
    plan = stages(Solver("kutta", 10))
    found = integrate(velocity, x, plan, plan.times.double(), Fold())
    h = 0.1
    for step in range(10):
        t = torch.tensor(step * h)
        k1 = velocity(x, t)
        k2 = velocity(x + h * k1 / 3, t + h / 3)
        k3 = velocity(x + h * (k2 - k1 / 3), t + 2 * h / 3)
        k4 = velocity(x + h * (k1 - k2 + k3), t + h)
        x = x + h * (k1 + 3 * k2 + 3 * k3 + k4) / 8
    torch.testing.assert_close(found, x, rtol=1e-6, atol=1e-6)


def test_integrate_is_adams_and_bashforth() -> None:
    x = torch.randn(6, 5, dtype=torch.float64)
    plan = stages(Solver("adams", 5))
    found = integrate(velocity, x, plan, plan.times.double(), Fold())
    before = velocity(x, torch.tensor(0.0))
    x = x + 0.2 * before
    for step in range(1, 5):
        slope = velocity(x, torch.tensor(0.2 * step))
        x, before = x + 0.2 * (3 * slope - before) / 2, slope
    torch.testing.assert_close(found, x, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "order", "cost"),
    [("euler", 1, 1), ("midpoint", 2, 2), ("heun", 2, 2), ("adams", 2, 1), ("kutta", 4, 4)],
)
def test_methods_have_their_order_and_cost(method: str, order: int, cost: int) -> None:
    """Halved steps divide the error by 2 to the order, on an equation whose solution is known: x e^(t + t²/2)."""

    def error(steps: int) -> float:
        solver = Solver(method, steps)
        plan = stages(solver)
        assert len(plan.times) == solver.evaluations == cost * steps
        one = torch.ones(1, 1, dtype=torch.float64)
        plan = Stages(plan.times.double(), plan.arguments.double(), plan.slots, plan.updates.double())
        found = integrate(lambda x, t: x * (1 + t), one, plan, plan.times, Fold())
        return abs(float(found) - math.exp(1.5))

    assert 2 ** (order - 0.4) < error(8) / error(16) < 2 ** (order + 0.4)


@pytest.mark.parametrize("text", ["rk4-10", "kutta", "kutta-0", "kutta-x", "-3"])
def test_no_solver_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="solver"):
        Solver.parse(text)


def test_solvers_are_chosen_for_both_networks_or_each() -> None:
    one = task(preset="smoke").network({"solver": "midpoint-3"}, 0).architecture
    assert (str(one.energy.solver), str(one.shape.solver)) == ("midpoint-3", "midpoint-3")
    two = task(preset="smoke").network({"solver": "kutta-2/adams-7"}, 0).architecture
    assert (str(two.energy.solver), str(two.shape.solver)) == ("kutta-2", "adams-7")


def test_fold_takes_rows_in_turn() -> None:
    rows = [torch.arange(4.0), torch.eye(4)]
    (total,) = Fold()(lambda state, row: [10 * state[0] + row[0] * row[1].sum()], [torch.zeros(1)], rows)
    assert float(total) == 123


def test_attention_is_torchs_own() -> None:
    torch.manual_seed(0)
    ours, theirs = SelfAttention(12, 3), nn.MultiheadAttention(12, 3, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.projection.weight,
            "out_proj.bias": ours.projection.bias,
        }
    )
    x, mask = torch.randn(2, 5, 12), torch.full((5, 5), -math.inf).triu(1)
    torch.testing.assert_close(ours(x, mask), theirs(x, x, x, attn_mask=mask)[0])
    torch.testing.assert_close(ours(x), theirs(x, x, x)[0])


def test_attention_to_one_token_needs_its_value_alone() -> None:
    torch.manual_seed(0)
    ours, theirs = LoneAttention(12), nn.MultiheadAttention(12, 3, batch_first=True)
    parts = [ours.query, ours.key, ours.value]
    theirs.load_state_dict(
        {
            "in_proj_weight": torch.cat([part.weight for part in parts]),
            "in_proj_bias": torch.cat([part.bias for part in parts]),
            "out_proj.weight": ours.projection.weight,
            "out_proj.bias": ours.projection.bias,
        }
    )
    queries, memory = torch.randn(2, 5, 12), torch.randn(2, 1, 12)
    torch.testing.assert_close(ours(memory).expand(2, 5, 12), theirs(queries, memory, memory)[0])


def test_logit_of_nothing_and_of_all() -> None:
    transformation = Standardization(2, 1)
    found = transformation(torch.tensor([[0.0, 1.0, 0.5 / 0.35]]))
    torch.testing.assert_close(found, torch.tensor([[-13.8155, 13.8155, 0.0]]), rtol=1e-3, atol=1e-5)


def test_standardised_columns_have_no_mean_and_unit_spread() -> None:
    torch.manual_seed(0)
    columns = torch.rand(2500, 5)
    columns[:, 1] = 0
    transformation = Standardization(3, 2)
    transformation.fit(columns)
    latent = transformation(columns)
    torch.testing.assert_close(latent.mean(0), torch.zeros(5), atol=1e-4, rtol=0)
    torch.testing.assert_close(latent.std(0)[[0, 2, 3, 4]], torch.ones(4), atol=1e-4, rtol=0)
    assert transformation.std[1] == 1
    torch.testing.assert_close(transformation.invert(latent), columns, atol=2e-6, rtol=2e-6)


@pytest.fixture(scope="module")
def events() -> Events:
    """Make sixty showers from 1 GeV to 1 TeV."""
    return simulate(np.random.default_rng(1), "ds2", np.geomspace(1e3, 1e6, 60))


def test_transformations_give_back_showers(events: Events) -> None:
    """The identity where a voxel holds more than 1e-7 of its layer and lies above the readout threshold."""
    coarse = COARSE.merge(events)
    columns, condition = normalize(coarse, COARSE, Selection((0.0, 2.8)))
    transformation = Standardization(COARSE.voxels, 9)
    transformation.fit(torch.from_numpy(columns))
    back = transformation.invert(transformation(torch.from_numpy(columns)))
    found = Postprocessing(9, COARSE.threshold_mev)(back, torch.from_numpy(1e3 * 10**condition)).numpy()
    layer = coarse.showers_mev.reshape(60, 9, 48).sum(2).repeat(48, 1)
    kept = (coarse.showers_mev > 1e-4 * layer) & (coarse.showers_mev > 2 * COARSE.threshold_mev)
    assert kept.mean() > 0.3
    np.testing.assert_allclose(found[kept], coarse.showers_mev[kept], rtol=0.02)
    assert not ((found > 0) & (found < COARSE.threshold_mev)).any()
    np.testing.assert_allclose(found.sum(1), coarse.showers_mev.sum(1), rtol=0.01)


def test_postprocessing_by_hand() -> None:
    """Two layers of two voxels: 80 MeV of 100 in the first; a share of 1e-8 and a voxel of 0.01 MeV vanish."""
    columns = torch.tensor([[0.3, 0.1, 1.0, 1e-8, 1.0, 0.8], [0.0, 0.0, 1.0, 1e-3, 0.5, 1.5]])
    found = Postprocessing(2, 0.015)(columns, torch.tensor([[100.0], [20.0]]))
    torch.testing.assert_close(found, torch.tensor([[60.0, 20.0, 20.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))


def test_coarse_voxels_are_sums(events: Events) -> None:
    fine = events.showers_mev.reshape(60, 45, 16, 9)
    coarse = COARSE.merge(events).showers_mev.reshape(60, 9, 8, 6)
    starts = (0, 1, 2, 3, 5, 7, 9)
    for layer, angle, radius in product(range(9), range(8), range(6)):
        block = fine[
            :, 5 * layer : 5 * layer + 5, 2 * angle : 2 * angle + 2, starts[radius] : starts[radius + 1]
        ]
        np.testing.assert_allclose(coarse[:, layer, angle, radius], block.sum((1, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(coarse.sum((1, 2, 3)), events.showers_mev.sum(1))


def test_coarse_geometry_has_the_edges_of_the_fine_one() -> None:
    assert (COARSE.voxels, COARSE.grid, COARSE.dataset) == (432, "9 x 8 x 6", "ds2")
    assert COARSE.layers[0].r_edges_mm == (0.0, 4.65, 9.3, 13.95, 23.25, 32.55, 41.85)
    assert COARSE.threshold_mev == DS2.threshold_mev
