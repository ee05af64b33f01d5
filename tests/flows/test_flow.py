"""The laws of a conditional normalising flow, for every kind of layer."""

import math

import numpy as np
import pytest
import torch
from autoregressive import AutoregressiveFlow
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from skbi.flows import BASE_SCALES, NeuralSplineFlow, RealNVP, stack, unstack

FLOWS = [RealNVP, NeuralSplineFlow, AutoregressiveFlow]
flows = pytest.mark.parametrize("kind", FLOWS)


def make(kind, p, *, n_context=3, seed=0, scale=0.15, dtype=torch.float64, **options):
    """Make a flow whose layers are far from the identity they start at."""
    torch.manual_seed(seed)
    flow = kind(p, n_context, **{"n_transforms": 4, "hidden_layer_sizes": (16, 16), **options})
    for weights in flow.parameters():
        torch.nn.init.normal_(weights, std=scale)
    return flow.to(dtype).eval()


def inputs(n, p, seed=0, dtype=torch.float64):
    rng = np.random.default_rng(seed)
    return (torch.as_tensor(rng.normal(0, 2, size=(n, width)), dtype=dtype) for width in (p, 3))


@flows
@given(p=st.integers(1, 6), seed=st.integers(0, 999))
def test_inverse_undoes_forward_and_the_other_way_round(kind, p, seed):
    flow, (z, context) = make(kind, p, seed=seed), inputs(20, p, seed)
    u, log_det = flow(z, context)
    back, log_det_back = flow.inverse(u, context)
    torch.testing.assert_close(back, z, atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(log_det_back, -log_det, atol=1e-6, rtol=1e-6)
    u2, _ = flow(flow.inverse(z, context)[0], context)
    torch.testing.assert_close(u2, z, atol=1e-7, rtol=1e-7)


@flows
@pytest.mark.parametrize("p", [1, 2, 5])
def test_inverse_is_exact_to_1e_5_in_single_precision(kind, p):
    flow = make(kind, p, scale=0.05, dtype=torch.float32)
    z, context = inputs(2000, p, dtype=torch.float32)
    u, _ = flow(z, context)
    torch.testing.assert_close(flow.inverse(u, context)[0], z, atol=1e-5, rtol=1e-5)


@flows
@given(p=st.integers(1, 5), seed=st.integers(0, 999))
def test_log_determinant_is_autograds(kind, p, seed):
    flow, (z, context) = make(kind, p, seed=seed), inputs(3, p, seed)
    for direction in (flow.forward, flow.inverse):
        _, log_det = direction(z, context)
        for row in range(len(z)):

            def one(x, h=context[row : row + 1], direction=direction):
                return direction(x.unsqueeze(0), h)[0].squeeze(0)

            jacobian = torch.autograd.functional.jacobian(one, z[row])
            torch.testing.assert_close(log_det[row], torch.linalg.slogdet(jacobian)[1])


@flows
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("p", [1, 2])
def test_density_integrates_to_one(kind, p, seed):
    flow = make(kind, p, seed=seed, scale=0.1, n_transforms=2)
    _, context = inputs(1, p, seed)
    with torch.no_grad():
        draws = flow.inverse(2 * next(inputs(2000, p)), context.expand(2000, -1))[0]
        axes = [
            torch.linspace(float(low), float(high), 20_001 if p == 1 else 801, dtype=draws.dtype)
            for low, high in zip(draws.amin(dim=0), draws.amax(dim=0), strict=True)
        ]
        grid = torch.cartesian_prod(*axes).reshape(-1, p)
        density = flow.log_prob(grid, context.expand(len(grid), -1)).exp()
    for axis in reversed(axes):
        density = torch.trapezoid(density.reshape(-1, len(axis)), axis)
    assert abs(float(density) - 1) < 1e-3


@flows
@pytest.mark.parametrize("n_draws", [1, 3, 31, 32, 50])
def test_draws_of_one_context_share_it(kind, n_draws):
    flow, (z, context) = make(kind, 3), inputs(4 * n_draws, 3)
    context, draws = context[:4], z.reshape(4, n_draws, 3)
    for direction in (flow.forward, flow.inverse):
        u, log_det = direction(draws, context)
        u_flat, log_det_flat = direction(z, context.repeat_interleave(n_draws, 0))
        torch.testing.assert_close(u.reshape(z.shape), u_flat)
        torch.testing.assert_close(log_det.flatten(), log_det_flat)
        _, log_det_one = direction(z, context[:1])
        torch.testing.assert_close(log_det_one[:n_draws], log_det[0])
        assert direction(draws[:, :0], context)[0].shape == (4, 0, 3)
    log_prob = flow.log_prob(draws, context)
    pairs = zip(z.split(1), context.repeat_interleave(n_draws, 0).split(1), strict=True)
    one_by_one = [flow.log_prob(*pair) for pair in pairs]
    torch.testing.assert_close(log_prob.flatten(), torch.cat(one_by_one))


@flows
@pytest.mark.parametrize("p", [1, 2, 5])
def test_every_component_depends_on_the_context(kind, p):
    flow, (z, context) = make(kind, p), inputs(1, p)
    context.requires_grad_()
    u, _ = flow(z, context)
    for j in range(p):
        (slope,) = torch.autograd.grad(u[0, j], context, retain_graph=True)
        assert slope.abs().max() > 0


@flows
def test_a_new_flow_is_the_base_density(kind):
    z, context = inputs(50, 3)
    log_normal = -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)
    torch.testing.assert_close(kind(3, 3).double().log_prob(z, context), log_normal)


@flows
@pytest.mark.parametrize("p", [1, 2, 5])
def test_a_stack_of_flows_is_each_of_them(kind, p):
    some, (z, context) = [make(kind, p, seed=seed) for seed in range(3)], inputs(20, p)
    stacked = stack(some)
    together = stacked.log_prob(z.expand(3, -1, -1), context.expand(3, -1, -1))
    torch.testing.assert_close(together, torch.stack([f.log_prob(z, context) for f in some]))
    together.sum().backward()
    some[1].log_prob(z, context).sum().backward()
    for name, weights in some[1].named_parameters():
        torch.testing.assert_close(stacked.get_parameter(name).grad[1], weights.grad)
    others = [make(kind, p, seed=seed) for seed in range(5, 8)]
    unstack(stacked, others)
    torch.testing.assert_close(others[2].log_prob(z, context), some[2].log_prob(z, context))


@flows
@pytest.mark.parametrize("p", [1, 2, 5])
def test_a_flow_starts_at_a_given_gaussian(kind, p):
    rng, flow = np.random.default_rng(0), kind(p, 3).double()
    slopes, intercept = rng.normal(size=(3, p)), rng.normal(size=p)
    root = np.triu(0.1 * rng.normal(size=(p, p)), 1) + np.diag(rng.uniform(0.1, 90, p))
    flow.start_at(slopes, intercept, root)
    z, context = inputs(20, p)
    precision = root @ root.T
    exact = stats.multivariate_normal(np.zeros(p), np.linalg.inv(precision), allow_singular=True)
    expected = exact.logpdf(z.numpy() - context.numpy() @ slopes - intercept)
    np.testing.assert_allclose(flow.log_prob(z, context).detach(), expected, rtol=1e-5)


@flows
@given(p=st.integers(2, 12))
def test_two_couplings_move_everything_whatever_came_before(kind, p):
    """Every component of u depends nonlinearly on the context: each was moved by a layer."""
    flow, (z, context) = make(kind, p, n_transforms=2), inputs(1, p)
    torch.nn.init.zeros_(flow.start.weight)
    torch.nn.init.zeros_(flow.start.bias)
    moved = (flow(z, context)[0] - flow(z, -context)[0]).abs()
    assert (moved > 0).all()


@flows
def test_extreme_inputs_stay_finite(kind):
    flow = make(kind, 2, dtype=torch.float32)
    z = torch.tensor([[1e4, -1e4], [0.0, 1e6]])
    assert torch.isfinite(flow.log_prob(z, torch.full((2, 3), 1e3).clamp(-8, 8))).all()


# ---- the base


SHARES = torch.tensor([0.3, 0.4, 0.2, 0.1], dtype=torch.float64)


def with_base(flow, shares=SHARES):
    """Return the flow with a base of several components."""
    flow.base_shares.copy_(shares)
    return flow


@flows
@pytest.mark.parametrize("p", [1, 3])
def test_the_base_is_a_mixture_of_normal_distributions(kind, p):
    flow, (z, context) = with_base(make(kind, p)), inputs(20, p)
    u, log_det = (a.detach().numpy() for a in flow(z, context))
    parts = [
        np.log(share) + stats.norm.logpdf(u, scale=scale).sum(axis=1)
        for share, scale in zip(SHARES.numpy(), BASE_SCALES, strict=True)
    ]
    expected = special.logsumexp(parts, axis=0) + log_det
    np.testing.assert_allclose(flow.log_prob(z, context).detach(), expected)


@flows
def test_one_component_is_a_normal_distribution_and_the_unit_one_where_training_begins(kind):
    (z, context), flow = inputs(20, 2), kind(2, 3).double()
    for component, scale in enumerate(BASE_SCALES):
        flow.set_base(component)
        expected = stats.norm.logpdf(z.numpy(), scale=scale).sum(axis=1)
        np.testing.assert_allclose(flow.log_prob(z, context).detach(), expected)
    flow.set_base()
    np.testing.assert_array_equal(flow.base_shares, kind(2, 3).base_shares)
    expected = stats.norm.logpdf(z.numpy()).sum(axis=1)
    np.testing.assert_allclose(flow.log_prob(z, context).detach(), expected)


@flows
def test_the_density_integrates_to_one_with_all_components_and_draws_follow_it(kind):
    flow, (_, context) = with_base(make(kind, 1, scale=0.1, n_transforms=2)), inputs(1, 1)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        ends = flow.inverse(torch.tensor([[[-24.0], [24.0]]], dtype=torch.float64), context)[0]
        grid = torch.linspace(*ends.flatten().tolist(), 20_001, dtype=torch.float64)
        density = flow.log_prob(grid[None, :, None], context)[0].exp().numpy()
        u = torch.as_tensor(rng.standard_normal((1, 20_000, 1)))
        draws = flow.inverse(flow.scale_draws(u, rng), context)[0].flatten().numpy()
    mass = density * float(grid[1] - grid[0])
    assert abs(mass.sum() - 1) < 1e-3
    found = np.searchsorted(np.sort(draws), grid.numpy()) / len(draws)
    assert np.abs(found - mass.cumsum()).max() < 1.95 / len(draws) ** 0.5  # p = 1e-3


def test_draws_of_the_base_have_its_variance_and_one_scale_for_all_rows():
    flow, rng, n_draws = with_base(RealNVP(2, 3)), np.random.default_rng(0), 100_000
    u = torch.as_tensor(rng.standard_normal((3, n_draws, 2)))
    scaled = flow.scale_draws(u, rng)
    ratio = (scaled / u).numpy()
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:1, :, :1], ratio.shape))
    chosen = np.abs(ratio[0, :, :1] - BASE_SCALES).argmin(axis=1)
    np.testing.assert_allclose(ratio[0, :, 0], np.array(BASE_SCALES)[chosen])
    shares = np.bincount(chosen, minlength=4) / n_draws
    np.testing.assert_allclose(shares, SHARES, atol=5 * 0.5 / n_draws**0.5)
    variance = (SHARES.numpy() * np.square(BASE_SCALES)).sum()
    np.testing.assert_allclose(scaled.var(dim=(0, 1)), variance, rtol=0.05)


def test_draws_of_the_unit_component_are_left_as_they_are():
    u = torch.randn(2, 50, 3)
    assert torch.equal(RealNVP(3, 3).scale_draws(u, np.random.default_rng(0)), u)
